package extauthz_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/bearergate/bearergate/extauthz"
)

const service = "envoy.service.auth.v3.Authorization"

func TestUnixSocket(t *testing.T) {
	f := start(t, listenUnix(t), extauthz.Options{})
	for token, want := range map[string]codes.Code{goodToken: codes.OK, "unknown": codes.Unauthenticated, downToken: codes.Unavailable} {
		if got := f.check(t, with("Bearer "+token)).GetStatus().GetCode(); got != int32(want) {
			t.Errorf("%s: status %d, want %d", token, got, want)
		}
	}
}

// TestMessageLimit: what is over it is an error of gRPC, which Envoy never takes
// for a yes.
func TestMessageLimit(t *testing.T) {
	padded := func(bytes int) *authv3.CheckRequest {
		r := with("Bearer " + goodToken)
		r.GetAttributes().GetRequest().GetHttp().Headers["cookie"] = strings.Repeat("x", bytes)
		return r
	}
	for name, test := range map[string]struct {
		options      extauthz.Options
		fits, tooBig int
	}{
		"set":         {extauthz.Options{MaxMessageBytes: 4096}, 3800, 4096},
		"the default": {extauthz.Options{}, 1<<20 - 300, 1 << 20},
	} {
		f := start(t, listenTCP(t), test.options)
		if !letThrough(f.check(t, padded(test.fits))) {
			t.Errorf("%s: a message below the limit is refused", name)
		}
		reply, err := f.client.Check(t.Context(), padded(test.tooBig))
		if status.Code(err) != codes.ResourceExhausted || reply != nil {
			t.Errorf("%s: a message over the limit: %v, %v", name, reply, err)
		}
		if got := f.oracle.asked.Load(); got != 1 {
			t.Errorf("%s: the verifier was asked %d times", name, got)
		}
	}
}

func TestHealth(t *testing.T) {
	f := start(t, listenTCP(t), extauthz.Options{})
	health := healthpb.NewHealthClient(f.conn)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, name := range []string{"", service} {
		reply, err := health.Check(ctx, &healthpb.HealthCheckRequest{Service: name})
		if err != nil || reply.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%q: %v, %v", name, reply, err)
		}
	}
	if _, err := health.Check(ctx, &healthpb.HealthCheckRequest{Service: "another"}); status.Code(err) != codes.NotFound {
		t.Errorf("another service: %v", err)
	}
	watches := map[string]healthpb.Health_WatchClient{}
	for _, name := range []string{"", service} {
		w, err := health.Watch(ctx, &healthpb.HealthCheckRequest{Service: name})
		if err != nil {
			t.Fatal(err)
		}
		expectHealth(t, w, healthpb.HealthCheckResponse_SERVING)
		watches[name] = w
	}

	f.Unready()
	for name, w := range watches {
		expectHealth(t, w, healthpb.HealthCheckResponse_NOT_SERVING)
		reply, err := health.Check(ctx, &healthpb.HealthCheckRequest{Service: name})
		if err != nil || reply.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
			t.Errorf("%q, once unready: %v, %v", name, reply, err)
		}
	}
	// It says that it will stop, and goes on until then.
	if !letThrough(f.check(t, with("Bearer "+goodToken))) {
		t.Error("an unready server refuses")
	}
}

func expectHealth(t *testing.T, w healthpb.Health_WatchClient, want healthpb.HealthCheckResponse_ServingStatus) {
	t.Helper()
	reply, err := w.Recv()
	if err != nil || reply.GetStatus() != want {
		t.Fatalf("the watch says %v, %v, want %v", reply.GetStatus(), err, want)
	}
}

func TestShutdownWaitsForAChecksAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, newPipes(), extauthz.Options{})
		got := make(chan error, 1)
		go func() {
			reply, err := f.client.Check(t.Context(), with("Bearer "+heldToken))
			if err == nil && !letThrough(reply) {
				err = errors.New(reply.String())
			}
			got <- err
		}()
		<-f.oracle.arrived
		begin := time.Now()
		stopped := make(chan error, 1)
		go func() { stopped <- f.Shutdown(t.Context()) }()
		<-time.After(20 * time.Second) // a long time, for a check
		select {
		case err := <-stopped:
			t.Fatalf("Shutdown ended before the check: %v", err)
		default:
		}
		close(f.oracle.letGo)
		if err := <-got; err != nil {
			t.Errorf("the check under way: %v", err)
		}
		if err := <-stopped; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if took := time.Since(begin); took != 20*time.Second {
			t.Errorf("Shutdown took %v", took)
		}
	})
}

// TestShutdownIsBounded: neither a check that gets no answer, nor who watches the
// health, nor a connection that says nothing keeps the server beyond the time.
func TestShutdownIsBounded(t *testing.T) {
	const limit = time.Second
	errOver := errors.New("the time is over")
	for name, test := range map[string]struct {
		occupy func(t *testing.T, f *face, clients *sync.WaitGroup)
		want   error
		takes  time.Duration
	}{
		"nobody is there": {func(*testing.T, *face, *sync.WaitGroup) {}, nil, 0},
		"an idle connection": {func(t *testing.T, f *face, _ *sync.WaitGroup) {
			f.check(t, with("Bearer "+goodToken))
		}, nil, 0},
		"a check without answer": {func(t *testing.T, f *face, clients *sync.WaitGroup) {
			clients.Go(func() {
				if reply, err := f.client.Check(t.Context(), with("Bearer "+stuckToken)); status.Code(err) != codes.Unavailable {
					t.Errorf("the check that was cut off: %v, %v", reply, err)
				}
			})
			<-f.oracle.arrived
		}, errOver, limit},
		"watches of the health": {func(t *testing.T, f *face, clients *sync.WaitGroup) {
			for name, first := range map[string]healthpb.HealthCheckResponse_ServingStatus{
				"":        healthpb.HealthCheckResponse_SERVING,
				service:   healthpb.HealthCheckResponse_SERVING,
				"another": healthpb.HealthCheckResponse_SERVICE_UNKNOWN,
			} {
				w, err := healthpb.NewHealthClient(f.conn).Watch(t.Context(), &healthpb.HealthCheckRequest{Service: name})
				if err != nil {
					t.Fatal(err)
				}
				expectHealth(t, w, first)
				clients.Go(func() {
					if name != "another" {
						if reply, err := w.Recv(); err != nil || reply.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
							t.Errorf("the watch of %q says %v, %v", name, reply, err)
						}
					}
					if reply, err := w.Recv(); err == nil {
						t.Errorf("the watch of %q goes on with %v", name, reply)
					}
				})
			}
		}, nil, 0},
		"a connection that says nothing": {func(t *testing.T, f *face, clients *sync.WaitGroup) {
			conn, err := f.listener.(*pipes).dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			clients.Go(func() { // what the server says has to go somewhere
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
			})
		}, errOver, limit},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := start(t, newPipes(), extauthz.Options{})
				var clients sync.WaitGroup
				test.occupy(t, f, &clients)
				synctest.Wait()
				ctx, cancel := context.WithTimeoutCause(t.Context(), limit, errOver)
				defer cancel()
				begin := time.Now()
				if err := f.Shutdown(ctx); !errors.Is(err, test.want) {
					t.Errorf("Shutdown: %v, want %v", err, test.want)
				}
				if took := time.Since(begin); took != test.takes {
					t.Errorf("Shutdown took %v, want %v", took, test.takes)
				}
				clients.Wait()
			})
		})
	}
}

// TestAfterShutdown: nothing listens, and a second time does no harm.
func TestAfterShutdown(t *testing.T) {
	f := start(t, listenTCP(t), extauthz.Options{})
	f.check(t, with("Bearer "+goodToken))
	for range 2 {
		if err := f.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	}
	if conn, err := net.Dial("tcp", f.listener.Addr().String()); err == nil {
		_ = conn.Close()
		t.Error("the address still answers")
	}
	late := listenTCP(t)
	if err := f.Serve(late); err != nil {
		t.Errorf("Serve after Shutdown: %v", err)
	}
	if conn, err := net.Dial("tcp", late.Addr().String()); err == nil {
		_ = conn.Close()
		t.Error("it listens after Shutdown")
	}
}

func TestServeSaysWhyTheListenerFailed(t *testing.T) {
	errBroken := errors.New("the listener is broken")
	s := extauthz.NewServer(newGate(t, newOracle()), extauthz.Options{})
	if err := s.Serve(broken{newPipes(), errBroken}); !errors.Is(err, errBroken) {
		t.Errorf("Serve: %v", err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

type broken struct {
	net.Listener
	err error
}

func (b broken) Accept() (net.Conn, error) { return nil, b.err }
