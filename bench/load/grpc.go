package load

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"sync"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
)

// sampleEvery is how often an answer is looked at closely.
const sampleEvery = 1000

// Checks is a load of ext_authz checks over gRPC.
type Checks struct {
	// Dial opens one of Conns connections, which carry InFlight checks at once.
	Dial     DialFunc
	Conns    int
	InFlight int
	// Body appends check n, a serialized CheckRequest of at most 16 KiB; there are
	// Cycle different ones.
	Body  Body
	Cycle int
	// Check looks at a sample of the answers; the default wants an allow.
	Check func(*authv3.CheckResponse) error
}

// Open opens the connections.
func (c *Checks) Open(ctx context.Context) (*Load, error) {
	depth, err := batches(c.InFlight, c.Conns)
	if err != nil {
		return nil, err
	}
	check := c.Check
	if check == nil {
		check = allowed
	}
	l := newLoad(depth, c.Cycle)
	for range c.Conns {
		nc, err := c.Dial(ctx)
		if err != nil {
			closeAll(l.conns)
			return nil, err
		}
		conn, err := newGRPCConn(nc, c.Body, check)
		if err != nil {
			closeAll(append(l.conns, conn))
			return nil, err
		}
		l.conns = append(l.conns, conn)
	}
	return l, nil
}

func allowed(r *authv3.CheckResponse) error {
	if r.GetStatus() == nil || r.GetStatus().GetCode() != 0 {
		return fmt.Errorf("not allowed: %v", r)
	}
	return nil
}

// grpcConn speaks HTTP/2 as Envoy does: one stream for each check, header fields
// from the table, answers as they come. It is no general client: messages fit into
// one frame.
type grpcConn struct {
	nc    net.Conn
	body  Body
	check func(*authv3.CheckResponse) error

	// What the sender uses, and the receiver when it has to say something.
	mu      sync.Mutex
	out     bytes.Buffer
	frames  *http2.Framer
	fields  []byte // the header fields, all of them from the table
	message []byte
	stream  uint32
	window  int64     // what the server has room for
	waiting []request // until it has more
	flying  map[uint32]request

	// What the receiver alone uses.
	in       *bufio.Reader
	incoming *http2.Framer
	decoder  *hpack.Decoder
	status   string
	consumed uint32
	sample   map[uint32][]byte
}

// ourWindow is what we have room for. It is never used up.
const ourWindow = 1 << 30

// streamsAtOnce is below what the gateway allows on one connection.
const streamsAtOnce = 512

func newGRPCConn(nc net.Conn, body Body, check func(*authv3.CheckResponse) error) (*grpcConn, error) {
	c := &grpcConn{nc: nc, body: body, check: check, window: 65535, stream: 1, flying: map[uint32]request{}, sample: map[uint32][]byte{}}
	c.in = bufio.NewReaderSize(nc, 64<<10)
	c.incoming = http2.NewFramer(nil, c.in)
	c.incoming.SetReuseFrames()
	c.decoder = hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == "grpc-status" {
			c.status = f.Value
		}
	})
	c.out.WriteString(http2.ClientPreface)
	c.frames = http2.NewFramer(&c.out, nil)
	err := c.frames.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
	if err != nil {
		return c, err
	}
	if err := c.frames.WriteWindowUpdate(0, ourWindow-65535); err != nil {
		return c, err
	}
	// Each field stands in the table after it was sent once; the second time it is a
	// number. The fields are those that Envoy sends.
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for range 2 {
		c.fields = bytes.Clone(block.Bytes())
		block.Reset()
		for _, f := range [][2]string{
			{":method", "POST"},
			{":scheme", "http"},
			{":path", authv3.Authorization_Check_FullMethodName},
			{":authority", "bearergate"},
			{"te", "trailers"},
			{"grpc-timeout", "5000m"},
			{"content-type", "application/grpc"},
			{"x-envoy-internal", "true"},
			{"x-forwarded-for", "192.0.2.2"},
			{"x-envoy-expected-rq-timeout-ms", "5000"},
		} {
			if err := encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
				return c, err
			}
		}
	}
	first := c.fields
	c.fields = block.Bytes()
	// The first check brings the fields into the table.
	if err := c.write(first, request{}); err != nil {
		return c, err
	}
	if err := c.flush(); err != nil {
		return c, err
	}
	err = c.await(func(request) {})
	return c, err
}

func (c *grpcConn) room() int    { return streamsAtOnce }
func (c *grpcConn) close() error { return c.nc.Close() }

func (c *grpcConn) send(batch []request) error {
	if len(batch) == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = append(c.waiting, batch...)
	if err := c.writeWaiting(); err != nil {
		return err
	}
	return c.flush()
}

// writeWaiting writes what waits, as far as the server has room.
func (c *grpcConn) writeWaiting() error {
	for i, r := range c.waiting {
		if c.window < 16<<10 {
			c.waiting = append(c.waiting[:0], c.waiting[i:]...)
			return nil
		}
		if err := c.write(c.fields, r); err != nil {
			return err
		}
	}
	c.waiting = c.waiting[:0]
	return nil
}

func (c *grpcConn) write(fields []byte, r request) error {
	c.message = c.body(append(c.message[:0], 0, 0, 0, 0, 0), r.n)
	if len(c.message) > 16<<10 {
		return fmt.Errorf("a check of %d bytes does not fit into one frame", len(c.message))
	}
	binary.BigEndian.PutUint32(c.message[1:], uint32(len(c.message)-5)) //nolint:gosec // at most 16 KiB
	if err := c.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: c.stream, BlockFragment: fields, EndHeaders: true}); err != nil {
		return err
	}
	if err := c.frames.WriteData(c.stream, true, c.message); err != nil {
		return err
	}
	c.window -= int64(len(c.message))
	c.flying[c.stream] = r
	c.stream += 2
	return nil
}

func (c *grpcConn) flush() error {
	if c.out.Len() == 0 {
		return nil
	}
	_, err := c.nc.Write(c.out.Bytes())
	c.out.Reset()
	return err
}

func (c *grpcConn) await(answered func(request)) error {
	for n := 0; ; {
		frame, err := c.incoming.ReadFrame()
		if err != nil {
			return err
		}
		ended, err := c.receive(frame)
		if err != nil {
			return err
		}
		if ended != 0 {
			r, err := c.answer(ended)
			if err != nil {
				return err
			}
			answered(r)
			n++
		}
		if n > 0 && c.in.Buffered() == 0 {
			return nil
		}
	}
}

// receive takes a frame, and returns the stream that it ends or 0.
func (c *grpcConn) receive(frame http2.Frame) (uint32, error) {
	switch f := frame.(type) {
	case *http2.DataFrame:
		return 0, c.receiveData(f)
	case *http2.HeadersFrame:
		c.status = ""
		if _, err := c.decoder.Write(f.HeaderBlockFragment()); err != nil {
			return 0, err
		}
		if !f.HeadersEnded() {
			return 0, fmt.Errorf("the header fields of stream %d do not fit into one frame", f.StreamID)
		}
		if f.StreamEnded() {
			return f.StreamID, nil
		}
		return 0, nil
	case *http2.RSTStreamFrame:
		return 0, fmt.Errorf("stream %d was reset: %v", f.StreamID, f.ErrCode)
	case *http2.GoAwayFrame:
		return 0, fmt.Errorf("the server goes away: %v %s", f.ErrCode, f.DebugData())
	}
	// What is left changes what may be sent, or has to be answered.
	c.mu.Lock()
	defer c.mu.Unlock()
	switch f := frame.(type) {
	case *http2.WindowUpdateFrame:
		if f.StreamID != 0 {
			return 0, nil
		}
		c.window += int64(f.Increment)
		if err := c.writeWaiting(); err != nil {
			return 0, err
		}
	case *http2.SettingsFrame:
		if !f.IsAck() {
			if err := c.frames.WriteSettingsAck(); err != nil {
				return 0, err
			}
		}
	case *http2.PingFrame:
		if !f.IsAck() {
			if err := c.frames.WritePing(true, f.Data); err != nil {
				return 0, err
			}
		}
	}
	return 0, c.flush()
}

func (c *grpcConn) receiveData(f *http2.DataFrame) error {
	if f.StreamEnded() {
		return fmt.Errorf("stream %d ended without grpc-status", f.StreamID)
	}
	if f.StreamID/2%sampleEvery == 0 {
		c.sample[f.StreamID] = append(c.sample[f.StreamID], f.Data()...)
	}
	if c.consumed += uint32(len(f.Data())); c.consumed < ourWindow/2 { //nolint:gosec // a frame is small
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.frames.WriteWindowUpdate(0, c.consumed); err != nil {
		return err
	}
	c.consumed = 0
	return c.flush()
}

// answer ends a check.
func (c *grpcConn) answer(stream uint32) (request, error) {
	c.mu.Lock()
	r, ok := c.flying[stream]
	delete(c.flying, stream)
	c.mu.Unlock()
	switch {
	case !ok:
		return r, fmt.Errorf("an answer to stream %d, which nobody opened", stream)
	case c.status != "0":
		return r, fmt.Errorf("grpc-status %q", c.status)
	}
	message, ok := c.sample[stream]
	if !ok {
		return r, nil
	}
	delete(c.sample, stream)
	var response authv3.CheckResponse
	if len(message) < 5 || message[0] != 0 || int(binary.BigEndian.Uint32(message[1:])) != len(message)-5 {
		return r, fmt.Errorf("the answer is no message: %x", message)
	}
	if err := proto.Unmarshal(message[5:], &response); err != nil {
		return r, err
	}
	return r, c.check(&response)
}
