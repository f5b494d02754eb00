package quickstart

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"go.uber.org/goleak"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/bearergate/bearergate/crmnow"
	"github.com/bearergate/bearergate/deploy"
)

var update = flag.Bool("update", false, "write the tables in testdata again; read the difference before you keep it")

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// screen is what is written to it, and tells when that grows.
type screen struct {
	mu    sync.Mutex
	text  bytes.Buffer
	grown chan struct{}
}

func newScreen() *screen { return &screen{grown: make(chan struct{}, 1)} }

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.grown <- struct{}{}:
	default:
	}
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// await waits until something stands on the screen.
func (s *screen) await(t *testing.T, text string) {
	t.Helper()
	late := time.After(patience)
	for !strings.Contains(s.String(), text) {
		select {
		case <-s.grown:
		case <-late:
			t.Fatalf("no %q after %v:\n%s", text, patience, s)
		}
	}
}

func TestOnceShowsEveryKindOfRequestThroughBothFaces(t *testing.T) {
	var out, logs bytes.Buffer
	good, err := Run(t.Context(), Options{Once: true, JSON: true, Out: &out, Logs: &logs, Version: "test"})
	if err != nil || !good || logs.Len() > 0 {
		t.Fatalf("%t, %v: %s%s", good, err, &out, &logs)
	}
	var table struct {
		Good bool  `json:"good"`
		Rows []row `json:"rows"`
	}
	if err := json.Unmarshal(out.Bytes(), &table); err != nil || !table.Good {
		t.Fatalf("%v: %s", err, &out)
	}
	type kind struct {
		request, reason string
		status          int
		calls           int64
	}
	wanted := []kind{
		{"good token, first time", "valid", 200, 1},
		{"the same token again", "valid", 200, 0},
		{"no token", "missing_token", 401, 0},
		{"token in quotes", "malformed_token", 401, 0},
		{"two tokens in one header", "multiple_tokens", 401, 0},
		{"token in the URL", "token_in_url", 401, 0},
		{"made-up token", "invalid_token", 401, 1},
		{"the same made-up token", "invalid_token", 401, 0},
		{"endpoint away: known token", "valid", 200, 0},
		{"endpoint away: new token", "verifier_unavailable", 503, 0},
		{"endpoint back: that token", "valid", 200, 1},
	}
	got := map[string][]kind{}
	for _, r := range table.Rows {
		got[r.Face] = append(got[r.Face], kind{r.Request, r.Reason, r.Status, r.Calls})
		if !r.Right || r.Wrong != "" || r.Took <= 0 {
			t.Errorf("%+v", r)
		}
	}
	if len(got) != 2 {
		t.Errorf("%d faces", len(got))
	}
	for _, face := range []string{"ext_authz", "auth_request"} {
		if len(got[face]) != len(wanted) {
			t.Errorf("%s: %d rows, want %d", face, len(got[face]), len(wanted))
			continue
		}
		for i, want := range wanted {
			if got[face][i] != want {
				t.Errorf("%s: got %+v, want %+v", face, got[face][i], want)
			}
		}
	}
}

func TestItStaysUpUntilItIsToldToStop(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	out, logs := newScreen(), newScreen()
	type end struct {
		good bool
		err  error
	}
	ended := make(chan end, 1)
	go func() {
		good, err := Run(ctx, Options{Out: out, Logs: logs, Command: "/opt/bearergate", Version: "test"})
		ended <- end{good, err}
	}()
	out.await(t, "To see the API guarded, start this with --edge envoy or --edge nginx.\n")
	text := out.String()
	for _, want := range []string{
		"\nAll as it must be.\n",
		"\nEverything stays up until you press Ctrl-C. Try it:\n",
		"/opt/bearergate token --url http://127.0.0.1:", " --client-id quickstart)\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("does not say %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "# the API behind") {
		t.Errorf("there is no edge:\n%s", text)
	}
	token := regexp.MustCompile(`\n {2}TOKEN=(\S+) {3}# good until \d\d:\d\d:\d\d\n`).FindStringSubmatch(text)
	gateway := regexp.MustCompile(`curl -i http://(\S+)/auth -H "Authorization: Bearer \$TOKEN"\n`).FindStringSubmatch(text)
	if token == nil || gateway == nil {
		t.Fatalf("nothing to copy:\n%s", text)
	}
	face := newHTTPFace("auth_request", "http://"+gateway[1]+"/auth", nil)
	if got, err := face.send(t.Context(), bearer(token[1]), ""); err != nil || got.status != http.StatusOK {
		t.Errorf("the token that is printed gets %+v, %v", got, err)
	}
	face.close()
	stop()
	if got := <-ended; got.err != nil || !got.good {
		t.Errorf("%+v", got)
	}
	addresses := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindAllString(text, -1)
	if len(addresses) < 6 {
		t.Errorf("only %q", addresses)
	}
	for _, address := range addresses {
		if c, err := net.Dial("tcp", address); err == nil {
			_ = c.Close()
			t.Errorf("somebody listens on %s", address)
		}
	}
	if strings.Contains(logs.String(), token[1]) {
		t.Errorf("the token is in the log: %s", logs)
	}
}

func TestAnInterruptIsNoWrongRow(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	var out bytes.Buffer
	good, err := Run(ctx, Options{Once: true, Out: &out, Logs: io.Discard})
	if good || err == nil || err.Error() != "stopped before the table was done" || out.Len() > 0 {
		t.Errorf("%t, %v: %s", good, err, &out)
	}
}

func TestAnInterruptInTheMiddleIsNoWrongRow(t *testing.T) {
	partner := crmnow.NewSecret("secret")
	e, err := crmnow.StartLocal(crmnow.EmulatorOptions{Clients: map[string]crmnow.Secret{"partner": partner}})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	client, err := crmnow.NewClient(crmnow.ClientOptions{URL: e.URL(), ID: "partner", Secret: partner})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, stop := context.WithCancel(t.Context())
	s := &stage{endpoint: e, partner: client, faces: []face{actor{func([]string, string) (reply, error) {
		stop()
		return reply{}, ctx.Err()
	}}}}
	if rows, err := s.play(ctx); !errors.Is(err, context.Canceled) || rows != nil {
		t.Errorf("got %+v, %v", rows, err)
	}
}

func TestATableThatCannotBeWrittenIsAnError(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		good, err := Run(t.Context(), Options{Once: true, JSON: asJSON, Out: full{}, Logs: io.Discard})
		if good || !errors.Is(err, io.ErrShortWrite) {
			t.Errorf("%t, %v", good, err)
		}
	}
}

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestAnEdgeThatDoesNotStartIsAnError(t *testing.T) {
	temporary := t.TempDir()
	script := func(text string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "nginx")
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for name, test := range map[string]struct{ program, want string }{
		"it is not there":     {"/nowhere/nginx", "--edge nginx: the environment variable NGINX: "},
		"it is no program":    {"/etc/passwd", "--edge nginx: the environment variable NGINX: "},
		"it ends":             {script("echo why >&2; exit 3\n"), "--edge nginx: it ended; its last words:\nwhy"},
		"it says very much":   {script("yes x | head -n 5000 >&2\necho why >&2\n"), "\nwhy"},
		"it has no such file": {script("exec /nowhere/nginx \"$@\"\n"), "--edge nginx: it ended; its last words:\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("NGINX", test.program)
			t.Setenv("TMPDIR", temporary)
			good, err := Run(t.Context(), Options{Once: true, Edge: "nginx", Out: io.Discard, Logs: io.Discard})
			if good || err == nil || !strings.Contains(err.Error(), test.want) || len(err.Error()) > 2500 {
				t.Errorf("%t, %v", good, err)
			}
			if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
	t.Setenv("NGINX", "/nowhere/nginx")
	if _, err := Run(t.Context(), Options{Once: true, Edge: "nginx", Out: io.Discard, Logs: io.Discard}); errors.Is(err, deploy.ErrNotInstalled) {
		t.Errorf("a wrong variable is not the same as a proxy that is not installed: %v", err)
	}
}

// actor is a face that answers as a test wants.
type actor struct {
	answer func(authorization []string, query string) (reply, error)
}

func (actor) name() string { return "actor" }
func (actor) close()       {}
func (a actor) send(_ context.Context, authorization []string, query string) (reply, error) {
	return a.answer(authorization, query)
}

// A table that is always right would show nothing.
func TestARowThatIsNotAsItMustBeIsWrong(t *testing.T) {
	e, err := crmnow.StartLocal(crmnow.EmulatorOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ask := func() {
		t.Helper()
		body := strings.NewReader("verifytoken=made-up")
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.URL(), body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	sends := 0
	for name, test := range map[string]struct {
		expected expectation
		answer   func([]string, string) (reply, error)
		wrong    string
		sends    int
	}{
		"as it must be": {
			expectation{status: 401, reason: "invalid_token", calls: 1},
			func([]string, string) (reply, error) { ask(); return reply{401, "invalid_token"}, nil }, "", 1,
		},
		"without a reason, which an edge may hide": {
			expectation{status: 200, reason: "valid"}, func([]string, string) (reply, error) { return reply{200, ""}, nil }, "", 1,
		},
		"another status": {
			expectation{status: 401, reason: "invalid_token"}, func([]string, string) (reply, error) { return reply{200, "invalid_token"}, nil }, "want 401", 1,
		},
		"another reason": {
			expectation{status: 401, reason: "invalid_token"},
			func([]string, string) (reply, error) { return reply{401, "missing_token"}, nil },
			"want the reason invalid_token", 1,
		},
		"a call too many": {
			expectation{status: 200, reason: "valid"},
			func([]string, string) (reply, error) { ask(); return reply{200, "valid"}, nil },
			"want 0 calls to the endpoint", 1,
		},
		"a call too few": {
			expectation{status: 200, reason: "valid", calls: 1},
			func([]string, string) (reply, error) { return reply{200, "valid"}, nil },
			"want 1 calls to the endpoint", 1,
		},
		"an error": {
			expectation{status: 200, reason: "valid"},
			func([]string, string) (reply, error) { return reply{}, errors.New("the connection broke") },
			"the connection broke", 1,
		},
		"wrong at the third of ten": {
			expectation{status: 200, reason: "valid", times: 10}, func([]string, string) (reply, error) {
				if sends == 3 {
					return reply{503, "overloaded"}, nil
				}
				return reply{200, "valid"}, nil
			}, "want 200", 3,
		},
		"what is sent is what was wanted": {
			expectation{authorization: []string{"Bearer x"}, query: "?y", status: 200, reason: "valid", times: 2},
			func(authorization []string, query string) (reply, error) {
				if len(authorization) != 1 || authorization[0] != "Bearer x" || query != "?y" {
					return reply{}, errors.New("something else was sent")
				}
				return reply{200, "valid"}, nil
			}, "", 2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			sends = 0
			face := actor{func(authorization []string, query string) (reply, error) {
				sends++
				return test.answer(authorization, query)
			}}
			test.expected.request = name
			s := &stage{endpoint: e}
			got := s.try(t.Context(), face, test.expected)
			if got.Wrong != test.wrong || got.Right != (test.wrong == "") || sends != test.sends {
				t.Errorf("%+v after %d", got, sends)
			}
			if got.Face != "actor" || got.Request != name || got.Requests != max(1, test.expected.times) {
				t.Errorf("%+v", got)
			}
			if allRight([]row{{Right: true}, got, {Right: true}}) != got.Right {
				t.Errorf("all right: %t", !got.Right)
			}
		})
	}
	if allRight(nil) {
		t.Error("an empty table is right")
	}
}

func TestBehindAnEdgeTheAPIIsAskedToo(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	var parts sync.WaitGroup
	defer parts.Wait()
	defer stop()
	api, err := startAPI(ctx, &parts)
	if err != nil {
		t.Fatal(err)
	}
	reach := func(r *http.Request, token bool) {
		request, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://"+api.address+"/", http.NoBody)
		if err != nil {
			t.Error(err)
			return
		}
		if token {
			request.Header.Set("Authorization", r.Header.Get("Authorization"))
		}
		resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
		if err != nil {
			t.Error(err)
			return
		}
		_ = resp.Body.Close()
	}
	for _, test := range []struct { // in this order: the API does not forget
		name  string
		edge  func(w http.ResponseWriter, r *http.Request)
		wrong string
	}{
		{"allowed and reached", func(_ http.ResponseWriter, r *http.Request) { reach(r, false) }, ""},
		{"refused and not reached", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }, ""},
		{"allowed and not reached", func(http.ResponseWriter, *http.Request) {}, "the client got 200, and the API was reached: false"},
		{"refused and reached", func(w http.ResponseWriter, r *http.Request) {
			reach(r, false)
			w.WriteHeader(http.StatusUnauthorized)
		}, "the client got 401, and the API was reached: true"},
		{"reached with the token", func(_ http.ResponseWriter, r *http.Request) { reach(r, true) }, "the API saw the token"},
	} {
		edge := httptest.NewServer(http.HandlerFunc(test.edge))
		face := newHTTPFace("edge", edge.URL+"/", api)
		_, err := face.send(t.Context(), bearer("x"), "")
		if got := text(err); got != test.wrong {
			t.Errorf("%s: %q, want %q", test.name, got, test.wrong)
		}
		face.close()
		edge.Close()
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// says is Envoy's service with one answer.
type says struct {
	authv3.UnimplementedAuthorizationServer
	answer *authv3.CheckResponse
}

func (s says) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return s.answer, nil
}

// Envoy allows what has no status, so the quickstart must not take it for a refusal.
func TestAReplyWithoutAStatusIsWrong(t *testing.T) {
	denied := &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: typev3.StatusCode_Unauthorized}}}
	for name, test := range map[string]struct {
		answer *authv3.CheckResponse
		want   reply
		err    string
	}{
		"nothing":                  {&authv3.CheckResponse{}, reply{}, "a reply without a status"},
		"a refusal without status": {&authv3.CheckResponse{HttpResponse: denied}, reply{}, "a reply without a status"},
		"a refusal":                {&authv3.CheckResponse{Status: &statuspb.Status{Code: int32(codes.Unauthenticated)}, HttpResponse: denied}, reply{status: 401}, ""},
		"yes":                      {&authv3.CheckResponse{Status: &statuspb.Status{}}, reply{status: 200}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server := grpc.NewServer()
			authv3.RegisterAuthorizationServer(server, says{answer: test.answer})
			served := make(chan error, 1)
			go func() { served <- server.Serve(l) }()
			face, err := newGRPCFace(l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			got, err := face.send(t.Context(), nil, "")
			if got != test.want || text(err) != test.err {
				t.Errorf("got %+v, %v", got, err)
			}
			face.close()
			server.Stop()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTheTableForPeople(t *testing.T) {
	rows := []row{
		{Face: "ext_authz", Request: "good token, first time", Requests: 1, Status: 200, Reason: "valid", Took: 1.234, Calls: 1, Right: true},
		{Face: "ext_authz", Request: "the same again", Requests: 100, Status: 200, Reason: "valid", Took: 0.05, Right: true},
		{Face: "nginx", Request: "no token", Requests: 1, Status: 401, Took: 12345.678, Right: true},
		{Face: "nginx", Request: "a broken one", Requests: 1, Calls: 12, Wrong: "want 503"},
	}
	for _, colour := range []bool{false, true} {
		name := map[bool]string{false: "plain", true: "coloured"}[colour]
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := writeText(&out, rows, false, colour); err != nil {
				t.Fatal(err)
			}
			if err := writeText(&out, rows[:2], true, colour); err != nil {
				t.Fatal(err)
			}
			got := strings.ReplaceAll(out.String(), "\x1b", "ESC")
			golden := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func TestTheGatewayListensOnLoopbackAlone(t *testing.T) {
	for line := range strings.Lines(configuration) {
		if _, address, found := strings.Cut(line, "address: \""); found && !strings.HasPrefix(address, "127.0.0.1:0\"") {
			t.Errorf("listens elsewhere: %s", line)
		}
	}
}
