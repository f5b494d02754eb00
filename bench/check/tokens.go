package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"

	"gonum.org/v1/plot/plotter"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/bench/load"
	"github.com/bearergate/bearergate/bench/measure"
	"github.com/bearergate/bearergate/bench/page"
	"github.com/bearergate/bearergate/verifier"
)

// tokens is the gateway with more and more tokens.
type tokens struct {
	taken
	Steps  []tokenStep  `json:"steps"`
	Memory []memoryStep `json:"memory"`
}

type tokenStep struct {
	step
	RSS      int64         `json:"rss_bytes"`   // of the gateway that knows them
	Learning time.Duration `json:"learning_ns"` // for each token that was new
}

// memoryStep is what the heap holds for a number of tokens.
type memoryStep struct {
	Tokens int   `json:"tokens"`
	Cache  int64 `json:"cache_bytes"`
	Map    int64 `json:"map_bytes"`
}

func tokenSteps(most int) []int {
	var steps []int
	for n := 100; n <= most; n *= 10 {
		steps = append(steps, n)
	}
	return steps
}

func measureTokens(ctx context.Context, b *bench) error {
	if b.tokens > measure.MostTokens {
		return fmt.Errorf("-tokens %d: at most %d", b.tokens, measure.MostTokens)
	}
	t := &tokens{taken: take(ctx)}
	for _, n := range tokenSteps(b.tokens) {
		if n < 10_000 {
			continue // a heap is too coarse for so few
		}
		b.progress.say("memory of %d tokens", n)
		m, err := b.memory(ctx, n)
		if err != nil {
			return err
		}
		t.Memory = append(t.Memory, m)
	}
	var err error
	if t.Steps, err = b.moreAndMore(ctx); err != nil {
		return err
	}
	b.record.Tokens = t
	return nil
}

// moreAndMore teaches a gateway more and more tokens, and measures at each step.
func (b *bench) moreAndMore(ctx context.Context) ([]tokenStep, error) {
	requests, err := measure.Typical().Numbered()
	if err != nil {
		return nil, err
	}
	endpoint, err := startYes(ctx)
	if err != nil {
		return nil, err
	}
	defer endpoint.close()
	gateway, err := b.startGateway(ctx, &measure.Gateway{
		Endpoint: endpoint.url, Cache: fmt.Sprintf("max_tokens: %d\n  refresh_before: 0s", b.tokens+b.tokens/4),
		Verifier: "calls: {max: 256, reserved: 0}\n    timeout: 10s",
	})
	if err != nil {
		return nil, err
	}
	defer gateway.Close()
	newLoad := func(address string, inFlight, cycle int) (*load.Load, error) {
		l := load.Checks{Dial: measure.Dial(address), Conns: measure.Connections, InFlight: inFlight, Body: requests.Append, Cycle: cycle}
		return l.Open(ctx)
	}
	noop, err := measure.StartReference(ctx, "grpc")
	if err != nil {
		return nil, err
	}
	defer noop.Close()
	var steps []tokenStep
	known := 0
	for _, n := range tokenSteps(b.tokens) {
		b.progress.say("learning %d tokens", n)
		teach, err := newLoad(gateway.GRPC, 256, n)
		if err != nil {
			return nil, err
		}
		learnt, err := teach.Each(ctx, known, n)
		if err := errors.Join(err, teach.Close()); err != nil {
			return nil, err
		}
		s := tokenStep{step: step{Of: n}, Learning: learnt.Took / time.Duration(n-known)}
		known = n
		if s.RSS, err = gateway.RSS(); err != nil {
			return nil, err
		}
		contenders := []measure.Contender{{Server: noop}, {Server: gateway}}
		turns, err := b.reload(ctx, contenders, func(_ context.Context, p *measure.Process) (*load.Load, error) {
			return newLoad(p.GRPC, measure.InFlight, n)
		}, fmt.Sprintf("%d tokens", n), b.duration)
		if err != nil {
			return nil, err
		}
		s.Reference, s.Gateway = turns[0], turns[1]
		steps = append(steps, s)
	}
	return steps, nil
}

// yes is an endpoint that finds every token good, with as little work as it can.
type yes struct {
	url    string
	server *http.Server
	done   sync.WaitGroup
}

func startYes(ctx context.Context) (*yes, error) {
	var c net.ListenConfig
	l, err := c.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	y := &yes{url: "http://" + l.Addr().String() + "/", server: &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header()["Content-Type"] = []string{"application/json"}
			_, _ = io.WriteString(w, `{"result": true, "message": "token valid"}`)
		}),
	}}
	y.done.Go(func() { _ = y.server.Serve(l) })
	return y, nil
}

func (y *yes) close() {
	_ = y.server.Close()
	y.done.Wait()
}

// memory has this command, started anew, fill a cache and a bare map.
func (b *bench) memory(ctx context.Context, n int) (memoryStep, error) {
	m := memoryStep{Tokens: n}
	self, err := os.Executable()
	if err != nil {
		return m, err
	}
	for what, to := range map[string]*int64{"cache": &m.Cache, "map": &m.Map} {
		p, out, err := measure.StartOn(ctx, measure.AllCores(), self, "-remember", fmt.Sprintf("%s=%d", what, n))
		if err != nil {
			return m, err
		}
		err = readHeap(out, to)
		p.Close()
		if err != nil {
			return m, fmt.Errorf("a %s of %d tokens: %w", what, n, err)
		}
	}
	return m, nil
}

func readHeap(out *bufio.Reader, to *int64) error {
	line, err := out.ReadString('\n')
	if err != nil {
		return fmt.Errorf("%w: %s", err, line)
	}
	return json.Unmarshal([]byte(strings.TrimSpace(line)), to)
}

// remember fills a cache or a map with n tokens, and writes by how much the heap has
// grown.
func remember(ctx context.Context, what string, n int, out io.Writer) error {
	parser, err := bearer.NewParser(8192)
	if err != nil {
		return err
	}
	requests, err := measure.Typical().Numbered()
	if err != nil {
		return err
	}
	before := heap()
	var held any
	switch what {
	case "cache":
		cache, err := verifier.NewCache(good{}, verifier.CacheOptions{
			Name: "good", MaxTokens: n, ValidTTL: verifier.MaxLife, InvalidTTL: time.Second, Timeout: time.Minute,
		})
		if err != nil {
			return err
		}
		defer cache.Close()
		if err := learn(ctx, cache, parser, requests, n); err != nil {
			return err
		}
		held = cache
	case "map":
		held, err = bareMap(parser, requests, n)
		if err != nil {
			return err
		}
	default:
		return fmt.Errorf("-remember %s: write cache or map", what)
	}
	grown := heap() - before
	runtime.KeepAlive(held)
	_, err = fmt.Fprintln(out, grown)
	return err
}

// learn asks the cache about each token, so that it knows them all: one after the
// other, since what the runtime keeps of goroutines that have ended is not the cache's.
func learn(ctx context.Context, cache *verifier.Cache, parser *bearer.Parser, requests *measure.Numbered, n int) error {
	for i := range n {
		token, err := parser.ParseToken(requests.Token(i))
		if err != nil {
			return err
		}
		if _, err := cache.Verify(ctx, token); err != nil {
			return err
		}
	}
	return nil
}

// bareMap is the least that could remember verdicts: a map by digest of what an entry
// holds, without bounds, without ends and for one goroutine alone.
func bareMap(parser *bearer.Parser, requests *measure.Numbered, n int) (any, error) {
	type entry struct {
		learnt             [2]int64 // by either clock
		life, limit, again uint32
		valid              bool
		_                  *verifier.Claims
	}
	entries := map[[32]byte]entry{}
	for i := range n {
		token, err := parser.ParseToken(requests.Token(i))
		if err != nil {
			return nil, err
		}
		entries[*token.Digest()] = entry{learnt: [2]int64{int64(i), int64(i)}, life: 300_000, limit: 300_000, again: 240_000, valid: true}
	}
	return entries, nil
}

// good finds every token good.
type good struct{}

// Verify says yes.
func (good) Verify(context.Context, bearer.Token) (verifier.Verdict, error) {
	return verifier.Verdict{Valid: true, Learnt: time.Now()}, nil
}

// heap returns what lives in the heap.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what finalizers kept is free now
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // less than an exabyte
}

func tokenTables(r *record) string {
	if r.Tokens == nil {
		return ""
	}
	var rows [][]string
	for i := range r.Tokens.Steps {
		s := &r.Tokens.Steps[i]
		rows = append(rows, []string{
			count(s.Of), microseconds(measure.Median(s.Gateway, measure.CPU)), s.times(measure.CPU),
			perSecond(measure.Median(s.Gateway, measure.Rate)), milliseconds(measure.Median(s.Gateway, measure.P99)),
			fmt.Sprintf("%.0f MiB", float64(s.RSS)/(1<<20)), microseconds(float64(s.Learning)),
		})
	}
	var memory [][]string
	for _, m := range r.Tokens.Memory {
		of := func(bytes int64) string { return fmt.Sprintf("%.0f bytes", float64(bytes)/float64(m.Tokens)) }
		memory = append(memory, []string{count(m.Tokens), of(m.Cache), of(m.Map), times(float64(m.Cache) / float64(m.Map))})
	}
	return r.Tokens.String() + "\n\n" +
		page.Table([]string{"tokens in use", "CPU per check", "of the no-op's", "checks/s", "p99", "memory of the gateway", "time to learn one"}, rows) + "\n" +
		page.Table([]string{"tokens", "the cache, per token", "a bare map, per token", "of the map's"}, memory)
}

func tokenPlots(r *record) []picture {
	if r.Tokens == nil {
		return nil
	}
	s := scaling{}
	for i := range r.Tokens.Steps {
		s.Steps = append(s.Steps, r.Tokens.Steps[i].step)
	}
	memory := picture{name: "memory", title: "Memory of the gateway by tokens", x: "tokens", y: "MiB", logX: true}
	var rss plotter.XYs
	for i := range r.Tokens.Steps {
		t := &r.Tokens.Steps[i]
		rss = append(rss, plotter.XY{X: float64(t.Of), Y: float64(t.RSS) / (1 << 20)})
	}
	memory.curves = []curve{{"resident", rss}}
	return []picture{s.picture("tokens", "CPU per check by tokens in use", "tokens"), memory}
}
