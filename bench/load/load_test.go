package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server answers after a time of its own; it is a conn without a network.
type server struct {
	depth  int
	takes  func(n int) time.Duration
	stands chan request
}

func newServer(depth int, takes func(n int) time.Duration) *server {
	return &server{depth, takes, make(chan request, depth)}
}

func (s *server) room() int    { return s.depth }
func (s *server) close() error { return nil }

func (s *server) send(batch []request) error {
	for _, r := range batch {
		s.stands <- r
	}
	return nil
}

func (s *server) await(answered func(request)) error {
	r := <-s.stands
	<-time.After(s.takes(r.n)) // one after the other
	answered(r)
	return nil
}

func TestOpenLoadChargesForWhatWasDue(t *testing.T) {
	const ms = time.Millisecond
	tests := []struct {
		name     string
		takes    func(n int) time.Duration
		conns    int
		rate     int
		duration time.Duration
		count    int64
		p50, max time.Duration
		behind   bool
	}{
		{
			"a server in time is charged for its own time alone",
			func(int) time.Duration { return 2 * ms },
			1, 100, time.Second, 100, 2 * ms, 2 * ms, false,
		},
		{
			// 10 ms apart; the first answer takes 500 ms, the others 1 ms. Those that were
			// due meanwhile waited: 491 ms, 482 ms, 473 ms...
			"a server that stalls once is charged for all that were due meanwhile",
			func(n int) time.Duration {
				if n == 0 {
					return 500 * ms
				}
				return ms
			},
			1, 100, time.Second, 100, 59 * ms, 500 * ms, false,
		},
		{
			"a server that is too slow is charged for the queue it builds up",
			func(int) time.Duration { return 20 * ms },
			1, 100, time.Second, 100, 515 * ms, 1010 * ms, true,
		},
		{
			"two connections share the work of one",
			func(int) time.Duration { return 19 * ms },
			2, 100, time.Second, 100, 19 * ms, 19 * ms, false,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLoad(1, 1000)
				l.sleep = func(d time.Duration) { <-time.After(d) }
				for range tt.conns {
					l.conns = append(l.conns, newServer(1, tt.takes))
				}
				r, err := l.Open(t.Context(), tt.rate, tt.duration)
				if err != nil {
					t.Fatal(err)
				}
				if r.Times.Count() != tt.count || (r.Behind > 2) != tt.behind {
					t.Errorf("%d requests, %d behind", r.Times.Count(), r.Behind)
				}
				for _, q := range []struct {
					part float64
					want time.Duration
				}{{.5, tt.p50}, {1, tt.max}} {
					if got := r.Times.Quantile(q.part); got < q.want-q.want/16 || got > q.want+q.want/16 {
						t.Errorf("quantile %v is %v, want about %v", q.part, got, q.want)
					}
				}
			})
		})
	}
}

func TestClosedLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := map[int]int{}
		l := newLoad(4, 10)
		l.conns = append(l.conns, newServer(4, func(n int) time.Duration {
			seen[n]++
			return time.Millisecond
		}))
		r, err := l.Closed(t.Context(), 100*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		// 100 in time, and what was in flight then.
		if n := r.Times.Count(); n != 103 {
			t.Errorf("%d answers, want 103", n)
		}
		if got := r.Times.Quantile(.5); got < 3*time.Millisecond || got > 4*time.Millisecond {
			t.Errorf("an answer took %v, want 4ms: it waits for three others", got)
		}
		if rate := r.PerSecond(); rate < 999 || rate > 1001 {
			t.Errorf("%v in a second, want 1000", rate)
		}
		for n := range 10 {
			if seen[n] < 10 || seen[n] > 11 {
				t.Errorf("request %d was sent %d times", n, seen[n])
			}
		}
	})
}

func TestEachIsSentOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		seen := map[int]int{}
		l := newLoad(4, 10)
		for range 3 {
			l.conns = append(l.conns, newServer(4, func(n int) time.Duration {
				mu.Lock()
				defer mu.Unlock()
				seen[n]++
				return time.Millisecond
			}))
		}
		r, err := l.Each(t.Context(), 5, 105)
		if err != nil {
			t.Fatal(err)
		}
		if r.Times.Count() != 100 || len(seen) != 100 || seen[5] != 1 || seen[104] != 1 {
			t.Errorf("%d answers to %d requests", r.Times.Count(), len(seen))
		}
	})
}

func TestPlan(t *testing.T) {
	tests := []struct {
		name     string
		rate     int
		duration time.Duration
		count    int
		last     time.Duration
	}{
		{"a thousand in a second", 1000, time.Second, 1000, 999 * time.Millisecond},
		{"a rate that is no round number does not drift", 30_000, 10 * time.Second, 300_000, 9_999_966_666},
		{"less than one is one", 1, time.Millisecond, 1, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := newPlan(tt.rate, tt.duration)
			if p.count != tt.count || p.at(p.count-1) != tt.last {
				t.Errorf("%d requests, the last one due at %d", p.count, p.at(p.count-1))
			}
		})
	}
}

type authorization struct {
	authv3.UnimplementedAuthorizationServer
	check func(*authv3.CheckRequest) (*authv3.CheckResponse, error)
}

func (a authorization) Check(_ context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return a.check(r)
}

func TestChecks(t *testing.T) {
	allow := &authv3.CheckResponse{Status: &status.Status{}}
	tests := []struct {
		name  string
		bytes int
		check func(*authv3.CheckRequest) (*authv3.CheckResponse, error)
		err   string
	}{
		{"allowed", 100, func(*authv3.CheckRequest) (*authv3.CheckResponse, error) { return allow, nil }, ""},
		{"so large that the server's window is used up", 15_000, func(*authv3.CheckRequest) (*authv3.CheckResponse, error) { return allow, nil }, ""},
		{"refused", 100, func(*authv3.CheckRequest) (*authv3.CheckResponse, error) {
			return &authv3.CheckResponse{Status: &status.Status{Code: 16}}, nil
		}, "not allowed"},
		{"without a status", 100, func(*authv3.CheckRequest) (*authv3.CheckResponse, error) { return &authv3.CheckResponse{}, nil }, "not allowed"},
		{"an error", 100, func(*authv3.CheckRequest) (*authv3.CheckResponse, error) {
			return nil, grpcstatus.Error(codes.Unavailable, "no")
		}, `grpc-status "14"`},
		{"larger than a frame", 17_000, func(*authv3.CheckRequest) (*authv3.CheckResponse, error) { return allow, nil }, "does not fit"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var wrong atomic.Int64
			address := serve(t, func(r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
				if len(r.GetAttributes().GetRequest().GetHttp().GetPath()) != tt.bytes {
					wrong.Add(1)
				}
				return tt.check(r)
			})
			checks := &Checks{Dial: Dial("tcp", address, nil), Conns: 2, InFlight: 64, Cycle: 3, Body: func(to []byte, n int) []byte {
				path := strings.Repeat(strconv.Itoa(n), tt.bytes)
				to, err := proto.MarshalOptions{}.MarshalAppend(to, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
					Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Path: path}},
				}})
				if err != nil {
					t.Error(err)
				}
				return to
			}}
			l, err := checks.Open(t.Context())
			if err == nil {
				defer l.Close()
				if _, err = l.Closed(t.Context(), 30*time.Millisecond); err == nil {
					_, err = l.Open(t.Context(), 1000, 30*time.Millisecond)
				}
			}
			if fmt.Sprint(err) != "<nil>" != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got error %v, want %q", err, tt.err)
			}
			if wrong.Load() > 0 {
				t.Errorf("%d checks arrived other than they were sent", wrong.Load())
			}
		})
	}
}

func serve(t *testing.T, check func(*authv3.CheckRequest) (*authv3.CheckResponse, error)) string {
	l := listen(t)
	server := grpc.NewServer()
	authv3.RegisterAuthorizationServer(server, authorization{check: check})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return l.Addr().String()
}

func listen(t *testing.T) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestRequests(t *testing.T) {
	tests := []struct {
		name   string
		status int
		want   int
		err    string
	}{
		{"200 as wanted", 200, 0, ""},
		{"401 as wanted", 401, 401, ""},
		{"401 instead of 200", 401, 0, "want HTTP/1.1 200"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := listen(t)
			server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/auth" {
					t.Errorf("path %q", r.URL.Path)
				}
				w.WriteHeader(tt.status)
				fmt.Fprint(w, "a body")
			})}
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = server.Serve(l)
			}()
			t.Cleanup(func() {
				_ = server.Close()
				<-done
			})
			requests := &Requests{Dial: Dial("tcp", l.Addr().String(), nil), Conns: 4, Cycle: 1, Status: tt.want, Body: func(to []byte, _ int) []byte {
				return append(to, "GET /auth HTTP/1.1\r\nHost: x\r\n\r\n"...)
			}}
			load, err := requests.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer load.Close()
			if _, err = load.Closed(t.Context(), 20*time.Millisecond); err == nil {
				_, err = load.Open(t.Context(), 1000, 20*time.Millisecond)
			}
			if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got error %v, want %q", err, tt.err)
			}
		})
	}
}

func TestLoadEndsWithItsContext(t *testing.T) {
	for _, open := range []bool{false, true} {
		t.Run(fmt.Sprintf("open %v", open), func(t *testing.T) {
			l := listen(t)
			defer l.Close()
			ctx, cancel := context.WithCancelCause(t.Context())
			over := errors.New("it is over")
			got := make(chan struct{})
			go func() { // a server that reads and never answers
				defer close(got)
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				r := bufio.NewReader(c)
				_, _ = r.ReadString('\n')
				cancel(over)
				_, _ = r.WriteTo(writerOf{})
			}()
			requests := &Requests{Dial: Dial("tcp", l.Addr().String(), nil), Conns: 1, Cycle: 1, Body: func(to []byte, _ int) []byte {
				return append(to, "GET /auth HTTP/1.1\r\n\r\n"...)
			}}
			load, err := requests.Open(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if open {
				_, err = load.Open(ctx, 1000, time.Hour)
			} else {
				_, err = load.Closed(ctx, time.Hour)
			}
			if err == nil {
				t.Error("no error though nothing was answered")
			}
			<-got
		})
	}
}

type writerOf struct{}

func (writerOf) Write(b []byte) (int, error) { return len(b), nil }
