package extauthz_test

import (
	"context"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/extauthz"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/verifier"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// Tokens, and what the verifier of the tests says of them. Besides, from-x is
// good if there is a source x; every other token is not good.
const (
	goodToken   = "good-token"
	cachedToken = "from-cache"
	downToken   = "down-token"       // no answer
	busyToken   = "busy-token"       // no answer, and a time to wait
	shedToken   = "shed-token"       // not asked, too many wait
	panicToken  = "panic-token"      // the verifier panics
	oddToken    = "odd-source-token" // good, from a source that no face knows
	heldToken   = "held-token"       // good, as soon as the test lets go
	stuckToken  = "stuck-token"      // no answer until the request is given up
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// oracle is a verifier that knows those tokens.
type oracle struct {
	asked   atomic.Int64
	arrived chan string   // gets a held or stuck token when it arrives
	letGo   chan struct{} // lets held tokens go
}

func newOracle() *oracle {
	return &oracle{arrived: make(chan string, 100), letGo: make(chan struct{})}
}

func (o *oracle) Verify(ctx context.Context, t bearer.Token) (verifier.Verdict, error) {
	o.asked.Add(1)
	switch t.Reveal() {
	case goodToken:
		return verifier.Verdict{Valid: true}, nil
	case oddToken:
		return verifier.Verdict{Valid: true, Source: 200}, nil
	case downToken:
		return verifier.Verdict{}, &verifier.NoAnswer{Verifier: "crm", Problem: "it is down"}
	case busyToken:
		return verifier.Verdict{}, &verifier.NoAnswer{Verifier: "crm", Problem: "it is busy", RetryAfter: 42 * time.Second}
	case shedToken:
		return verifier.Verdict{}, &verifier.NoAnswer{Verifier: "crm", Problem: "too many wait", Overloaded: true}
	case panicToken:
		panic("the verifier panics")
	case heldToken:
		o.arrived <- heldToken
		select {
		case <-o.letGo:
			return verifier.Verdict{Valid: true}, nil
		case <-ctx.Done():
			return verifier.Verdict{}, ctx.Err()
		}
	case stuckToken:
		o.arrived <- stuckToken
		<-ctx.Done()
		return verifier.Verdict{}, ctx.Err()
	default:
		for source := range verifier.Source(verifier.Sources) {
			if t.Reveal() == "from-"+source.String() {
				return verifier.Verdict{Valid: true, Source: source}, nil
			}
		}
		return verifier.Verdict{}, nil
	}
}

func newGate(t testing.TB, v verifier.Verifier, change ...func(*gate.Options)) *gate.Gate {
	t.Helper()
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	options := gate.Options{Listener: "ext_authz", Parser: parser, Policy: gate.Policy{Verifier: v, Realm: "api"}}
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
	*extauthz.Server

	oracle   *oracle
	listener net.Listener
	conn     *grpc.ClientConn
	client   authv3.AuthorizationClient
}

func listenTCP(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func listenUnix(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// start serves on a listener until the test ends.
func start(t testing.TB, l net.Listener, o extauthz.Options, change ...func(*gate.Options)) *face {
	t.Helper()
	known := newOracle()
	f := &face{Server: extauthz.NewServer(newGate(t, known, change...), o), oracle: known, listener: l}
	served := make(chan error, 1)
	go func() { served <- f.Serve(l) }()
	target := l.Addr().String()
	if l.Addr().Network() == "unix" {
		target = "unix:" + target
	}
	dial := func(ctx context.Context, _ string) (net.Conn, error) {
		if p, ok := l.(*pipes); ok {
			return p.dial(ctx)
		}
		return (&net.Dialer{}).DialContext(ctx, l.Addr().Network(), l.Addr().String())
	}
	var err error
	f.conn, err = grpc.NewClient("passthrough:///"+target,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dial))
	if err != nil {
		t.Fatal(err)
	}
	f.client = authv3.NewAuthorizationClient(f.conn)
	t.Cleanup(func() {
		_ = f.conn.Close()
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

// check sends a request and wants a reply.
func (f *face) check(t testing.TB, r *authv3.CheckRequest) *authv3.CheckResponse {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	reply, err := f.client.Check(ctx, r)
	if err != nil {
		t.Fatalf("Check: %v", err)
	}
	return reply
}

// about is a request for an HTTP request.
func about(http *authv3.AttributeContext_HttpRequest) *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: http},
	}}
}

// with is a request with one Authorization value, where Envoy puts it.
func with(authorization string) *authv3.CheckRequest {
	return about(&authv3.AttributeContext_HttpRequest{
		Method: "GET", Path: "/orders", Host: "api.example",
		Headers: map[string]string{":method": "GET", ":path": "/orders", "authorization": authorization},
	})
}

// raw is a header as Envoy puts it into header_map.
func raw(key, value string) *corev3.HeaderValue {
	return &corev3.HeaderValue{Key: key, RawValue: []byte(value)}
}

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
