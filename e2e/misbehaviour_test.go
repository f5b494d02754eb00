package e2e

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// stub stands in for the gateway and does what a gateway must never do. What that
// is, it knows by the token. So the recipes are seen to fail closed on their own.
type stub struct {
	authv3.UnimplementedAuthorizationServer
	mu   sync.Mutex
	grpc map[string]check
	http map[string]http.HandlerFunc
	end  chan struct{} // closed when the test ends: calls that hang do not hold it up
}

type check func(ctx context.Context) (*authv3.CheckResponse, error)

func startStub(t *testing.T) (*stub, gates) {
	t.Helper()
	s := &stub{grpc: map[string]check{}, http: map[string]http.HandlerFunc{}, end: make(chan struct{})}
	web := httptest.NewServer(s)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	authv3.RegisterAuthorizationServer(server, s)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		close(s.end)
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
		web.Close()
	})
	return s, gates{extAuthz: l.Addr().String(), authRequest: web.Listener.Addr().String()}
}

// Check answers Envoy over gRPC.
func (s *stub) Check(ctx context.Context, r *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	value := r.GetAttributes().GetRequest().GetHttp().GetHeaders()["authorization"]
	for _, h := range r.GetAttributes().GetRequest().GetHttp().GetHeaderMap().GetHeaders() {
		if h.GetKey() == "authorization" {
			value = string(h.GetRawValue())
		}
	}
	s.mu.Lock()
	answer := s.grpc[strings.TrimPrefix(value, "Bearer ")]
	s.mu.Unlock()
	if answer == nil {
		return nil, status.Error(codes.Unknown, "an unknown token")
	}
	return answer(ctx)
}

// ServeHTTP answers all others.
func (s *stub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	answer := s.http[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
	s.mu.Unlock()
	if answer == nil || !strings.HasPrefix(r.URL.Path, "/auth") {
		http.Error(w, "an unknown token or path", http.StatusTeapot)
		return
	}
	answer(w, r)
}

// hang waits until nobody wants the answer any more.
func (s *stub) hang(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-s.end:
	}
}

func deny(code codes.Code, with *authv3.DeniedHttpResponse) *authv3.CheckResponse {
	r := &authv3.CheckResponse{Status: &statuspb.Status{Code: int32(code)}}
	if with != nil {
		r.HttpResponse = &authv3.CheckResponse_DeniedResponse{DeniedResponse: with}
	}
	return r
}

func header(key, value string, action corev3.HeaderValueOption_HeaderAppendAction) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: key, Value: value}, AppendAction: action}
}

// what a client must get.
type outcome struct {
	status     int
	body       string
	retryAfter string
	challenges []string
	reaches    bool // the request reaches the API
}

var (
	passes      = outcome{status: 200, body: "the API says 200", reaches: true}
	unavailable = outcome{status: 503, body: unavailableBody, retryAfter: "5"}
)

// check compares what a client got and what reached the API with what must be.
func (o outcome) check(t *testing.T, a *api, got reply, name string) {
	t.Helper()
	if got.status != o.status || got.body != o.body {
		t.Errorf("got %d %q, want %d %q", got.status, got.body, o.status, o.body)
	}
	if value := got.header.Get("Retry-After"); value != o.retryAfter {
		t.Errorf("Retry-After: got %q, want %q", value, o.retryAfter)
	}
	if values := got.header.Values("WWW-Authenticate"); strings.Join(values, "|") != strings.Join(o.challenges, "|") {
		t.Errorf("WWW-Authenticate: got %q, want %q", values, o.challenges)
	}
	want := 0
	if o.reaches {
		want = 1
	}
	if n := len(a.of(name)); n != want {
		t.Errorf("the API got it %d times, want %d", n, want)
	}
	if strings.HasPrefix(o.body, "{") {
		if value := got.header.Get("Content-Type"); value != "application/json" {
			t.Errorf("Content-Type: got %q", value)
		}
	}
}

// testMisbehaviour shows that an edge that runs a recipe lets nothing pass that the
// gateway did not allow, and what it makes of each answer.
func testMisbehaviour(t *testing.T, r *run) {
	s, gateway := startStub(t)
	a := newAPI(t) // one of its own: not all of these answers take the token away
	edges := map[string]*edge{}
	for _, kind := range edgeKinds() {
		edges[kind.recipe.Name] = r.startEdge(t, kind, gateway, a.address())
	}
	add := corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
	overwrite := corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD

	overGRPC := []struct {
		name  string
		check check
		want  outcome
	}{
		{"OK without http_response is an allow", func(context.Context) (*authv3.CheckResponse, error) {
			return deny(codes.OK, nil), nil
		}, passes},
		{"no status is an allow, which is why the gateway sends one in every reply", func(context.Context) (*authv3.CheckResponse, error) {
			return &authv3.CheckResponse{}, nil
		}, passes},
		{"no status is an allow even with denied_response", func(context.Context) (*authv3.CheckResponse, error) {
			r := deny(codes.OK, &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: typev3.StatusCode_Unauthorized}})
			r.Status = nil
			return r, nil
		}, passes},
		{"a refusal without denied_response is an empty 403", func(context.Context) (*authv3.CheckResponse, error) {
			return deny(codes.PermissionDenied, nil), nil
		}, outcome{status: 403}},
		{"a refusal reaches the client with all its headers", func(context.Context) (*authv3.CheckResponse, error) {
			return deny(codes.Unauthenticated, &authv3.DeniedHttpResponse{
				Status: &typev3.HttpStatus{Code: typev3.StatusCode_Unauthorized},
				Headers: []*corev3.HeaderValueOption{
					header("content-type", "application/json", overwrite),
					header("www-authenticate", `Bearer realm="one"`, add),
					header("www-authenticate", `Basic realm="two"`, add),
				},
				Body: `{"error":"no"}`,
			}), nil
		}, outcome{status: 401, body: `{"error":"no"}`, challenges: []string{`Bearer realm="one"`, `Basic realm="two"`}}},
		{"a 503 of the gateway reaches the client as it is", func(context.Context) (*authv3.CheckResponse, error) {
			return deny(codes.Unavailable, &authv3.DeniedHttpResponse{
				Status: &typev3.HttpStatus{Code: typev3.StatusCode_ServiceUnavailable},
				Headers: []*corev3.HeaderValueOption{
					header("content-type", "application/json", overwrite),
					header("retry-after", "7", overwrite),
				},
				Body: `{"error":"later"}`,
			}), nil
		}, outcome{status: 503, body: `{"error":"later"}`, retryAfter: "7"}},
		{"the error UNAVAILABLE is a 503", func(context.Context) (*authv3.CheckResponse, error) {
			return nil, status.Error(codes.Unavailable, "away")
		}, unavailable},
		{"the error INTERNAL is a 503", func(context.Context) (*authv3.CheckResponse, error) {
			return nil, status.Error(codes.Internal, "broken")
		}, unavailable},
		{"the error PERMISSION_DENIED is a 503, not a refusal", func(context.Context) (*authv3.CheckResponse, error) {
			return nil, status.Error(codes.PermissionDenied, "not the answer")
		}, unavailable},
		{"no answer in time is a 503", func(ctx context.Context) (*authv3.CheckResponse, error) {
			s.hang(ctx)
			return nil, ctx.Err()
		}, unavailable},
	}
	t.Run("over gRPC", func(t *testing.T) {
		t.Parallel()
		for _, test := range overGRPC {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				token := r.tokens.invent(40)
				s.mu.Lock()
				s.grpc[token] = test.check
				s.mu.Unlock()
				got, name := edges["envoy"].send(t, request{lines: []string{"Authorization: Bearer " + token}})
				test.want.check(t, a, got, name)
			})
		}
	})

	say := func(status int, body string, lines ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for _, line := range lines {
				key, value, _ := strings.Cut(line, ": ")
				w.Header().Add(key, value)
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	overHTTP := []struct {
		name   string
		answer http.HandlerFunc
		want   map[string]outcome
	}{
		{
			"200 is an allow",
			say(200, "", "X-Envoy-Auth-Headers-To-Remove: authorization"),
			map[string]outcome{"envoy-http": passes, "nginx": passes, "caddy": passes},
		},
		{
			"401 is a refusal with its challenge once",
			say(401, refusedBody, "Content-Type: application/json", `WWW-Authenticate: Bearer realm="api"`, "Cache-Control: no-store"),
			map[string]outcome{
				"envoy-http": {status: 401, body: refusedBody, challenges: []string{`Bearer realm="api"`}},
				"nginx":      {status: 401, body: refusedBody, challenges: []string{`Bearer realm="api"`}},
				"caddy":      {status: 401, body: refusedBody, challenges: []string{`Bearer realm="api"`}},
			},
		},
		{
			"403 is a refusal",
			say(403, "no\n", "Content-Type: text/plain"),
			map[string]outcome{
				"envoy-http": {status: 403, body: "no\n"},
				"nginx":      {status: 403, body: forbiddenBody},
				"caddy":      {status: 403, body: "no\n"},
			},
		},
		{
			"503 is a 503, and what it says of coming back reaches the client where the edge can",
			say(503, unavailableBody, "Content-Type: application/json", "Retry-After: 7"),
			map[string]outcome{
				"envoy-http": unavailable,
				"nginx":      {status: 503, body: unavailableBody, retryAfter: "7"},
				"caddy":      {status: 503, body: unavailableBody, retryAfter: "7"},
			},
		},
		{
			"500 is no allow",
			say(500, "broken"),
			map[string]outcome{"envoy-http": unavailable, "nginx": unavailable, "caddy": {status: 500, body: "broken"}},
		},
		{
			"404 is no allow",
			say(404, "not here"),
			map[string]outcome{"envoy-http": {status: 404, body: "not here"}, "nginx": unavailable, "caddy": {status: 404, body: "not here"}},
		},
		{
			"a redirect is no allow",
			say(302, "", "Location: /elsewhere"),
			map[string]outcome{"envoy-http": {status: 302}, "nginx": unavailable, "caddy": {status: 302}},
		},
		{
			"a connection that breaks is no allow",
			func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
			map[string]outcome{"envoy-http": unavailable, "nginx": unavailable, "caddy": unavailable},
		},
		{
			"no answer in time is no allow",
			func(_ http.ResponseWriter, r *http.Request) { s.hang(r.Context()) },
			map[string]outcome{"envoy-http": unavailable, "nginx": unavailable, "caddy": unavailable},
		},
	}
	t.Run("over HTTP", func(t *testing.T) {
		t.Parallel()
		for _, test := range overHTTP {
			for edge, want := range test.want {
				t.Run(edge+": "+test.name, func(t *testing.T) {
					t.Parallel()
					token := r.tokens.invent(40)
					s.mu.Lock()
					s.http[token] = test.answer
					s.mu.Unlock()
					got, name := edges[edge].send(t, request{method: http.MethodPost, lines: []string{"Authorization: Bearer " + token}, body: strings.NewReader("x=1")})
					want.check(t, a, got, name)
				})
			}
		}
	})
}
