package measure

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// Load sends requests to one server.
type Load interface {
	// One sends request n on connection or worker w, and returns an error unless it
	// was allowed.
	One(ctx context.Context, w, n int) error
	// Workers is how many requests are in flight at once.
	Workers() int
	Close()
}

// asBytes is a codec that leaves messages as they are, so that the client's own
// work stays small.
type asBytes struct{}

// Name returns the name of the codec that it replaces.
func (asBytes) Name() string { return "proto" }

// Marshal passes bytes on.
func (asBytes) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, errors.New("not bytes")
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

// Unmarshal passes bytes on.
func (asBytes) Unmarshal(data mem.BufferSlice, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return errors.New("not bytes")
	}
	*b = data.Materialize()
	return nil
}

// GRPCLoad keeps 64 checks in flight on 2 connections, and sees that a sample of
// them is allowed.
type GRPCLoad struct {
	conns  []*grpc.ClientConn
	checks [][]byte
}

// NewGRPCLoad returns a load of encoded checks for the server at an address.
func NewGRPCLoad(address string, checks [][]byte) (*GRPCLoad, error) {
	l := &GRPCLoad{checks: checks}
	for range 2 {
		conn, err := grpc.NewClient("passthrough:///"+address,
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(asBytes{})))
		if err != nil {
			return nil, err
		}
		l.conns = append(l.conns, conn)
	}
	return l, nil
}

// Workers returns 64.
func (l *GRPCLoad) Workers() int { return 64 }

// Close closes the connections.
func (l *GRPCLoad) Close() {
	for _, conn := range l.conns {
		_ = conn.Close()
	}
}

// One sends request n.
func (l *GRPCLoad) One(ctx context.Context, w, n int) error {
	var answer []byte
	err := l.conns[w%len(l.conns)].Invoke(ctx, authv3.Authorization_Check_FullMethodName, l.checks[n%len(l.checks)], &answer)
	if err != nil || n%1000 != 0 {
		return err
	}
	// A sample is looked at.
	var r authv3.CheckResponse
	if err := proto.Unmarshal(answer, &r); err != nil {
		return err
	}
	if r.GetStatus() == nil || r.GetStatus().GetCode() != 0 {
		return fmt.Errorf("not allowed: %v", &r)
	}
	return nil
}

// HTTPLoad keeps a request in flight on each of 64 connections, and sees that every
// one is allowed.
type HTTPLoad struct {
	conns    []net.Conn
	readers  []*bufio.Reader
	requests [][]byte
}

// NewHTTPLoad connects a load of requests, each as its bytes, to the server at an
// address.
func NewHTTPLoad(ctx context.Context, address string, requests [][]byte) (*HTTPLoad, error) {
	l := &HTTPLoad{requests: requests}
	for range 64 {
		var dialer net.Dialer
		c, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			l.Close()
			return nil, err
		}
		l.conns, l.readers = append(l.conns, c), append(l.readers, bufio.NewReader(c))
	}
	return l, nil
}

// Workers returns 64.
func (l *HTTPLoad) Workers() int { return len(l.conns) }

// Close closes the connections.
func (l *HTTPLoad) Close() {
	for _, c := range l.conns {
		_ = c.Close()
	}
}

// One sends request n.
func (l *HTTPLoad) One(_ context.Context, w, n int) error {
	if _, err := l.conns[w].Write(l.requests[n%len(l.requests)]); err != nil {
		return err
	}
	r := l.readers[w]
	line, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(line), "HTTP/1.1 200 ") {
		return fmt.Errorf("not allowed: %s", line)
	}
	length := 0
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) == 2 {
			break
		}
		if value, ok := strings.CutPrefix(string(line), "Content-Length: "); ok {
			if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil {
				return err
			}
		}
	}
	_, err = io.CopyN(io.Discard, r, int64(length))
	return err
}

// Turn is what one turn of a load has shown.
type Turn struct {
	Requests  int64         `json:"requests"`
	CPU       time.Duration `json:"cpu_ns_per_request"` // of the server
	PerSecond float64       `json:"requests_per_second"`
	P50       time.Duration `json:"p50_ns"`
	P99       time.Duration `json:"p99_ns"`
	P999      time.Duration `json:"p999_ns"`
}

// Take lets a load go on for a time and measures it.
func Take(ctx context.Context, p *Process, l Load, duration time.Duration) (Turn, error) {
	before, err := p.CPU()
	if err != nil {
		return Turn{}, err
	}
	begin := time.Now()
	times := make([]*histogram, l.Workers())
	errs := make([]error, l.Workers())
	var group sync.WaitGroup
	for w := range l.Workers() {
		times[w] = newHistogram()
		group.Go(func() {
			for n := w * 7919; time.Since(begin) < duration && ctx.Err() == nil; n++ {
				sent := time.Now()
				if errs[w] = l.One(ctx, w, n); errs[w] != nil {
					return
				}
				times[w].add(time.Since(sent))
			}
		})
	}
	group.Wait()
	took := time.Since(begin)
	after, err := p.CPU()
	if err := errors.Join(errors.Join(errs...), err, ctx.Err()); err != nil {
		return Turn{}, err
	}
	all := newHistogram()
	for _, h := range times {
		all.merge(h)
	}
	if all.count == 0 {
		return Turn{}, errors.New("not one request was answered")
	}
	return Turn{
		Requests: all.count, CPU: (after - before) / time.Duration(all.count), PerSecond: float64(all.count) / took.Seconds(),
		P50: all.quantile(.5), P99: all.quantile(.99), P999: all.quantile(.999),
	}, nil
}

// histogram counts times with an error of at most 1/32.
type histogram struct {
	buckets [2048]int64
	count   int64
}

func newHistogram() *histogram { return &histogram{} }

func bucketOf(d time.Duration) int {
	v := uint64(max(d, 0))
	shift := 0
	for v >= 64 {
		v >>= 1
		shift++
	}
	if shift == 0 {
		return int(v)
	}
	return shift*32 + int(v)
}

func (h *histogram) add(d time.Duration) {
	h.buckets[min(bucketOf(d), len(h.buckets)-1)]++
	h.count++
}

func (h *histogram) merge(other *histogram) {
	for i, n := range &other.buckets {
		h.buckets[i] += n
	}
	h.count += other.count
}

func (h *histogram) quantile(part float64) time.Duration {
	rank := int64(part * float64(h.count))
	for i, n := range &h.buckets {
		if rank -= n; rank < 0 {
			if i < 64 {
				return time.Duration(i)
			}
			shift := i/32 - 1
			return time.Duration(i-shift*32) << shift
		}
	}
	return 0
}
