package authrequest_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/bearergate/bearergate/authrequest"
	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/verifier"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// Tokens, and what the verifier of the tests says of them. Every other token is
// not good.
const (
	goodToken  = "good-token"
	downToken  = "down-token"  // no answer
	busyToken  = "busy-token"  // no answer, and a time to wait
	shedToken  = "shed-token"  // not asked, too many wait
	panicToken = "panic-token" // the verifier panics
	slowToken  = "slow-token"  // good, after slowness
	heldToken  = "held-token"  // good, as soon as the test lets go
	stuckToken = "stuck-token" // no answer until the request is given up
	// Good, with a verdict that ends as soon.
	livingToken = "living-token" // in 100 s
	dyingToken  = "dying-token"  // in 1.9 s
	deadToken   = "dead-token"   // in 0.9 s
)

// slowness is how long slowToken takes: longer than any limit of the face's own.
const slowness = 50 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// oracle is a verifier that knows those tokens.
type oracle struct {
	asked   atomic.Int64
	arrived chan string   // gets a held or stuck token when it arrives
	gaveUp  chan string   // gets a stuck token when its request ends
	letGo   chan struct{} // lets held tokens go
}

func newOracle() *oracle {
	return &oracle{arrived: make(chan string, 100), gaveUp: make(chan string, 100), letGo: make(chan struct{})}
}

func (o *oracle) Verify(ctx context.Context, t bearer.Token) (verifier.Verdict, error) {
	o.asked.Add(1)
	switch t.Reveal() {
	case goodToken:
		return verifier.Verdict{Valid: true}, nil
	case downToken:
		return verifier.Verdict{}, &verifier.NoAnswer{Verifier: "crm", Problem: "it is down"}
	case busyToken:
		return verifier.Verdict{}, &verifier.NoAnswer{Verifier: "crm", Problem: "it is busy", RetryAfter: 42 * time.Second}
	case shedToken:
		return verifier.Verdict{}, &verifier.NoAnswer{Verifier: "crm", Problem: "too many wait", Overloaded: true}
	case panicToken:
		panic(http.ErrAbortHandler) // net/http itself would hang up without an answer
	case livingToken, dyingToken, deadToken:
		left := map[string]time.Duration{livingToken: 100 * time.Second, dyingToken: 1900 * time.Millisecond, deadToken: 900 * time.Millisecond}
		return verifier.Verdict{Valid: true, Until: time.Now().Add(left[t.Reveal()])}, nil
	case slowToken:
		return wait(ctx, time.After(slowness))
	case heldToken:
		o.arrived <- heldToken
		return wait(ctx, o.letGo)
	case stuckToken:
		o.arrived <- stuckToken
		<-ctx.Done()
		o.gaveUp <- stuckToken
		return verifier.Verdict{}, ctx.Err()
	default:
		return verifier.Verdict{}, nil
	}
}

// wait gives a good verdict as soon as there is something in a channel.
func wait[T any](ctx context.Context, c <-chan T) (verifier.Verdict, error) {
	select {
	case <-c:
		return verifier.Verdict{Valid: true}, nil
	case <-ctx.Done():
		return verifier.Verdict{}, ctx.Err()
	}
}

func newGate(t testing.TB, v verifier.Verifier, change ...func(*gate.Options)) *gate.Gate {
	t.Helper()
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	options := gate.Options{Listener: "auth_request", Parser: parser, Policy: gate.Policy{Verifier: v, Realm: "api"}}
	for _, set := range change {
		set(&options)
	}
	g, err := gate.New(options)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// keepToken leaves the token on requests that are let through.
func keepToken(o *gate.Options) { o.KeepToken = true }

// face is a server that is answering.
type face struct {
	*authrequest.Server

	oracle   *oracle
	listener net.Listener
}

// start serves on a listener until the test ends.
func start(t testing.TB, l net.Listener, o authrequest.Options, change ...func(*gate.Options)) *face {
	t.Helper()
	if o.Wait == 0 {
		o.Wait = patience
	}
	known := newOracle()
	f := &face{authrequest.NewServer(newGate(t, known, change...), o), known, l}
	served := make(chan error, 1)
	go func() { served <- f.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := f.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return f
}

func startTCP(t testing.TB, o authrequest.Options, change ...func(*gate.Options)) *face {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return start(t, l, o, change...)
}

// wire is a connection on which a test speaks HTTP by hand.
type wire struct {
	net.Conn
	replies *bufio.Reader
}

func (f *face) dial(t testing.TB) *wire {
	t.Helper()
	var conn net.Conn
	var err error
	if p, ok := f.listener.(*pipes); ok {
		conn, err = p.dial(t.Context())
	} else {
		conn, err = net.Dial(f.listener.Addr().Network(), f.listener.Addr().String())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	return &wire{conn, bufio.NewReader(conn)}
}

// send writes bytes as they are.
func (w *wire) send(t testing.TB, text string) {
	t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
}

// reply is an answer, read to its end.
type reply struct {
	*http.Response
	body string
}

// receive reads an answer to a request of a method.
func (w *wire) receive(t testing.TB, method string) reply {
	t.Helper()
	resp, err := http.ReadResponse(w.replies, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("reading the answer: %v", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("reading the answer's body: %v", err)
	}
	return reply{resp, string(body)}
}

// expectEnd wants the server to hang up, and to say nothing before that.
func (w *wire) expectEnd(t testing.TB) {
	t.Helper()
	if rest, err := io.ReadAll(w.replies); err != nil || len(rest) > 0 {
		t.Errorf("instead of the end there is %q, %v", rest, err)
	}
}

// ask sends one request, whose lines end in LF here, on a connection of its own.
func (f *face) ask(t testing.TB, text string) reply {
	t.Helper()
	w := f.dial(t)
	w.send(t, lines(text))
	method, _, _ := strings.Cut(text, " ")
	return w.receive(t, method)
}

func lines(text string) string { return strings.ReplaceAll(text, "\n", "\r\n") }

// get is a request whose Authorization header has this value.
func get(authorization string) string {
	return "GET /auth/ HTTP/1.1\nHost: gateway\nAuthorization: " + authorization + "\n\n"
}

// atPrefix is the same at the prefix itself, where nginx asks.
func atPrefix(authorization string) string {
	return strings.Replace(get(authorization), "GET /auth/ ", "GET /auth ", 1)
}

func (r reply) reason() string { return r.Header.Get("X-Bearergate-Reason") }

// pipes is a listener inside the process, for bubbles of testing/synctest, whose
// time stands still while a real socket is waited for.
type pipes struct {
	dialled chan net.Conn
	closed  chan struct{}
	once    sync.Once
}

func newPipes() *pipes {
	return &pipes{dialled: make(chan net.Conn), closed: make(chan struct{})}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.dialled:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.dialled <- theirs:
		return ours, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// journal keeps what is logged.
type journal struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// verdict is a verifier that always gives one.
type verdict verifier.Verdict

func (v verdict) Verify(context.Context, bearer.Token) (verifier.Verdict, error) {
	return verifier.Verdict(v), nil
}
