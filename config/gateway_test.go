package config_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/bearergate/bearergate/admin"
	"github.com/bearergate/bearergate/config"
	"github.com/bearergate/bearergate/crmnow"
	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
	"github.com/bearergate/bearergate/verifier"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// everywhere is all listeners on free ports.
const everywhere = `listeners: {ext_authz: {address: "127.0.0.1:0"}, auth_request: {address: "127.0.0.1:0"}, admin: {address: "127.0.0.1:0"}}` + "\n"

// asking is a verifier that asks a URL, with more lines of its own.
func asking(url string, lines ...string) string {
	text := fmt.Sprintf("verifiers:\n  - name: crm\n    verifytoken: {url: %q}\n", url)
	for _, line := range lines {
		text += "    " + line + "\n"
	}
	return text
}

// journal keeps the lines of a log.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

// entry is a line of the log.
type entry struct {
	Level    string `json:"level"`
	Message  string `json:"msg"`
	Listener string `json:"listener"`
	Address  string `json:"address"`
	Panic    string `json:"panic"`
	Stack    string `json:"stack"`
	Error    string `json:"error"`
	To       string `json:"to"`
}

func (j *journal) text() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

func (j *journal) entries(t *testing.T) []entry {
	t.Helper()
	j.mu.Lock()
	defer j.mu.Unlock()
	var all []entry
	for line := range bytes.Lines(j.buf.Bytes()) {
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		all = append(all, e)
	}
	return all
}

func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// running is a gateway that answers until the test ends.
type running struct {
	*config.Gateway
	log *journal
	// end stops it and returns what Run returned.
	end func() error
}

func run(t *testing.T, text string, options ...config.Option) *running {
	t.Helper()
	return runParsed(t, parse(t, text), options...)
}

func runParsed(t *testing.T, c *configv1.Config, options ...config.Option) *running {
	t.Helper()
	g := &running{log: &journal{}}
	var err error
	if g.Gateway, err = config.NewGateway(t.Context(), c, g.log.logger(), "v1.2.3-test", options...); err != nil {
		t.Fatal(err)
	}
	// Not the test's context: what is under way may need the gateway until then.
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	g.end = sync.OnceValue(func() error {
		stop()
		return <-ended
	})
	t.Cleanup(func() {
		if err := g.end(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// local is an emulator that answers until the test ends.
func local(t *testing.T) *crmnow.Local {
	t.Helper()
	e, err := crmnow.StartLocal(crmnow.EmulatorOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func issue(t *testing.T, e *crmnow.Local) string {
	t.Helper()
	grant, err := e.Issue(0)
	if err != nil {
		t.Fatal(err)
	}
	return grant.AccessToken.Reveal()
}

// reply is an answer over HTTP.
type reply struct {
	status int
	header http.Header
	body   string
}

func (r reply) reason() string { return r.header.Get("X-Bearergate-Reason") }

// get asks on a connection of its own. Headers are given as name and value.
func get(t *testing.T, address, path string, headers ...string) reply {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		t.Error(err)
		return reply{}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return reply{resp.StatusCode, resp.Header, string(body)}
}

// ask asks the HTTP face about a token.
func (g *running) ask(t *testing.T, token string) reply {
	t.Helper()
	return get(t, g.Address(config.AuthRequest), "/auth/", "Authorization", "Bearer "+token)
}

// envoy is a connection to the gRPC face.
func (g *running) envoy(t *testing.T) authv3.AuthorizationClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+g.Address(config.ExtAuthz), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return authv3.NewAuthorizationClient(conn)
}

// checkRequest is a request of Envoy's, with headers given as name and value.
func checkRequest(headers ...string) *authv3.CheckRequest {
	all := map[string]string{}
	for i := 0; i < len(headers); i += 2 {
		all[headers[i]] = headers[i+1]
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: http.MethodGet, Path: "/", Headers: all}},
	}}
}

// metric returns the value that the operator sees of a metric, with its labels.
func (g *running) metric(t *testing.T, name string) string {
	t.Helper()
	for line := range strings.Lines(get(t, g.Address(config.Admin), "/metrics").body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func eventually(t *testing.T, what string, happened func() bool) {
	t.Helper()
	late := time.After(patience)
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for !happened() {
		select {
		case <-again.C:
		case <-late:
			t.Fatalf("no %s after %v", what, patience)
		}
	}
}

// expectClosed wants that nobody listens at an address.
func expectClosed(t *testing.T, address string) {
	t.Helper()
	network := "tcp"
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket %s is left: %v", path, err)
		}
	}
	var dialer net.Dialer
	if c, err := dialer.DialContext(t.Context(), network, address); err == nil {
		_ = c.Close()
		t.Errorf("somebody listens on %s", address)
	}
}

func TestAGatewayAnswersOnAllItsListenersAndLeavesNothing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	e, err := crmnow.StartLocal(crmnow.EmulatorOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	dir := t.TempDir()
	var log journal
	g, err := config.NewGateway(t.Context(), parse(t, fmt.Sprintf(
		"listeners: {ext_authz: {address: \"unix:%s/x\"}, auth_request: {address: \"127.0.0.1:0\"}, admin: {address: \"[::1]:0\"}}\n", dir)+asking(e.URL())), log.logger(), "test")
	if err != nil {
		t.Fatal(err)
	}
	addresses := map[string]string{}
	for _, name := range []string{config.ExtAuthz, config.AuthRequest, config.Admin} {
		addresses[name] = g.Address(name)
		if strings.HasSuffix(addresses[name], ":0") {
			t.Errorf("%s: %s is no address to connect to", name, addresses[name])
		}
	}
	if addresses[config.ExtAuthz] != "unix:"+dir+"/x" || !strings.HasPrefix(addresses[config.Admin], "[::1]:") || g.Address("nowhere") != "" {
		t.Errorf("addresses: %v, %q", addresses, g.Address("nowhere"))
	}
	logged := map[string]string{}
	for _, entry := range log.entries(t) {
		if entry.Message == "listening" && entry.Level == "INFO" {
			logged[entry.Listener] = entry.Address
		}
	}
	if fmt.Sprint(logged) != fmt.Sprint(addresses) {
		t.Errorf("the log says %v, want %v", logged, addresses)
	}

	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	r := &running{Gateway: g, log: &log}
	token := issue(t, e)
	if got := r.ask(t, token); got.status != http.StatusOK {
		t.Errorf("auth_request says %+v", got)
	}
	conn, err := grpc.NewClient("unix:"+dir+"/x", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	checked, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), checkRequest("authorization", "Bearer "+token))
	if err != nil || checked.GetStatus() == nil || checked.GetStatus().GetCode() != int32(codes.OK) {
		t.Errorf("ext_authz says %v, %v", checked, err)
	}
	eventually(t, "readiness", func() bool { return get(t, addresses[config.Admin], "/readyz").status == http.StatusOK })
	if calls := e.Stats().Verify.Requests; calls != 1 {
		t.Errorf("%d calls for one token, want 1: both faces have one memory", calls)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, address := range addresses {
		expectClosed(t, address)
	}
}

// The endpoint sees that the gateway has gone, and need not wait for it.
func TestAGatewayThatHasEndedHoldsNoConnection(t *testing.T) {
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	endpoint := httptest.NewUnstartedServer(&recorder{})
	endpoint.Config.ConnState = func(c net.Conn, state http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		if state == http.StateClosed {
			delete(open, c)
		} else {
			open[c] = true
		}
	}
	connections := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(open)
	}
	endpoint.Start()
	t.Cleanup(endpoint.Close)
	g := run(t, everywhere+asking(endpoint.URL))
	if got := g.ask(t, "a-token"); got.status != http.StatusOK || connections() != 1 {
		t.Fatalf("got %+v over %d connections", got, connections())
	}
	if err := g.end(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "end of the connection", func() bool { return connections() == 0 })
}

func TestAGatewayThatIsToldToStopAtOnceLeavesNothing(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for range 20 { // how far the servers have come is a matter of chance
		var log journal
		g, err := config.NewGateway(t.Context(), parse(t, everywhere+asking("https://api.example.com/")), log.logger(), "test")
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if err := g.Run(ctx); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{config.ExtAuthz, config.AuthRequest, config.Admin} {
			expectClosed(t, g.Address(name))
		}
		if last := log.entries(t); last[len(last)-1].Message != "stopped" {
			t.Fatalf("its last words: %+v", last[len(last)-1])
		}
	}
}

func TestAListenerThatFailsEndsTheGateway(t *testing.T) {
	for _, name := range []string{config.ExtAuthz, config.AuthRequest, config.Admin} {
		t.Run(name, func(t *testing.T) {
			defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
			var log journal
			g, err := config.NewGateway(t.Context(), parse(t, everywhere+asking("https://api.example.com/")), log.logger(), "test")
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- g.Run(t.Context()) }()
			eventually(t, "readiness", func() bool { return get(t, g.Address(config.Admin), "/readyz").status == http.StatusOK })
			if err := g.BreakListener(name); err != nil {
				t.Fatal(err)
			}
			err = <-ended
			if err == nil || !strings.HasPrefix(err.Error(), "listener "+name+" at "+g.Address(name)+" failed: ") {
				t.Errorf("Run returns %v", err)
			}
			for _, other := range []string{config.ExtAuthz, config.AuthRequest, config.Admin} {
				expectClosed(t, g.Address(other))
			}
			told := false
			for _, entry := range log.entries(t) {
				told = told || entry.Level == "ERROR" && strings.Contains(entry.Error, name)
			}
			if !told {
				t.Errorf("the log says %v", log.entries(t))
			}
		})
	}
}

// taken is an address that somebody listens on.
func taken(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.Addr().String()
}

// free is an address that nobody listens on. Its port is below those that the
// system gives out, so that nobody gets it in the meantime.
func free(t *testing.T) string {
	t.Helper()
	for port := 31_000 + os.Getpid()%1_000; ; port++ {
		address := fmt.Sprintf("127.0.0.1:%d", port)
		l, err := net.Listen("tcp", address)
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		return address
	}
}

func TestAGatewayThatCannotListenEverywhereListensNowhere(t *testing.T) {
	dir := t.TempDir()
	regular := filepath.Join(dir, "file")
	if err := os.WriteFile(regular, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	inUse := taken(t)
	for _, name := range []string{config.ExtAuthz, config.AuthRequest, config.Admin} {
		for where, test := range map[string]struct{ address, want string }{
			"on a taken address":     {inUse, "bind: address already in use; stop what listens there, or write another address"},
			"on a foreign address":   {"192.0.2.1:9191", "bind: cannot assign requested address; this machine has no such address"},
			"in a missing folder":    {"unix:" + dir + "/missing/s", "bind: no such file or directory; make the folder of the socket first"},
			"in the place of a file": {"unix:" + regular, "bind: address already in use; what is there is no socket: move it away, or write another path"},
			"below a file":           {"unix:" + regular + "/s", "bind: not a directory"},
		} {
			t.Run(name+" "+where, func(t *testing.T) {
				defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
				addresses := map[string]string{
					config.ExtAuthz: free(t), config.AuthRequest: "unix:" + dir + "/auth_request", config.Admin: "unix:" + dir + "/admin",
				}
				addresses[name] = test.address
				var log journal
				g, err := config.NewGateway(t.Context(), parse(t, fmt.Sprintf("listeners: {ext_authz: {address: %q}, auth_request: {address: %q}, admin: {address: %q, api: {off: true}}}\n",
					addresses[config.ExtAuthz], addresses[config.AuthRequest], addresses[config.Admin])+asking("https://api.example.com/")), log.logger(), "test")
				if g != nil || err == nil || err.Error() != "listeners."+name+".address: "+test.address+": "+test.want {
					t.Fatalf("got %v, %v; want %s", g, err, test.want)
				}
				for other, address := range addresses {
					if other != name {
						expectClosed(t, address)
					}
				}
				for _, entry := range log.entries(t) {
					if entry.Message == "listening" {
						t.Errorf("the log says %+v", entry)
					}
				}
			})
		}
	}
	if text, err := os.ReadFile(regular); err != nil || string(text) != "kept" {
		t.Errorf("the file is now %q, %v", text, err)
	}
}

func TestAGatewayWithoutItsCertificatesListensNowhere(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	for name, change := range map[string]func(file string) error{
		"gone":    os.Remove,
		"emptied": func(file string) error { return os.Truncate(file, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := filepath.Join(dir, "ca.pem")
			if err := os.WriteFile(file, certificateOf(t, newTLS(t, http.NotFoundHandler())), 0o600); err != nil {
				t.Fatal(err)
			}
			c := parse(t, "listeners: {auth_request: {address: \"unix:"+dir+"/s\"}}\n"+
				"verifiers: [{name: crm, verifytoken: {url: \"https://api.example.com/\", ca_file: \""+file+"\"}}]\n")
			if err := change(file); err != nil { // between reading the configuration and starting
				t.Fatal(err)
			}
			g, err := config.NewGateway(t.Context(), c, slog.New(slog.DiscardHandler), "test")
			if g != nil || err == nil || !strings.HasPrefix(err.Error(), "verifiers[0].verifytoken.ca_file: ") {
				t.Errorf("got %v, %v", g, err)
			}
			expectClosed(t, "unix:"+dir+"/s")
		})
	}
}

func TestOnlyAnAbandonedSocketIsTakenOver(t *testing.T) {
	e := local(t)
	path := filepath.Join(t.TempDir(), "s")
	text := "listeners: {auth_request: {address: \"unix:" + path + "\"}}\n" + asking(e.URL())
	start := func() (*config.Gateway, error) {
		return config.NewGateway(t.Context(), parse(t, text), slog.New(slog.DiscardHandler), "test")
	}
	stop := func(g *config.Gateway) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := g.Run(ctx); err != nil {
			t.Error(err)
		}
		expectClosed(t, "unix:"+path)
	}

	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if g, err := start(); err == nil {
		t.Error("a live socket was taken over")
		stop(g)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the live socket is gone: %v", err)
	} else {
		_ = c.Close()
	}
	left.SetUnlinkOnClose(false)
	if err := left.Close(); err != nil {
		t.Fatal(err)
	}
	g, err := start()
	if err != nil {
		t.Fatal(err)
	}
	stop(g)

	// A socket of another kind belongs to somebody else.
	datagrams, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	if g, err := start(); err == nil {
		t.Error("a datagram socket was taken over")
		stop(g)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}

// A fault of ours at every request must not fill the disk, nor hide.
func TestPanicsAreCountedAllAndLoggedNowAndThen(t *testing.T) {
	metrics := admin.NewMetrics("test")
	var log journal
	synctest.Test(t, func(t *testing.T) {
		report := config.PanicReport(metrics, log.logger())
		burst := func() {
			var all sync.WaitGroup
			for range 50 {
				all.Go(func() {
					report(&verifier.Panic{Kind: "*errors.errorString", Stack: []byte("goroutine 1 [running]:\nmain.fault()")})
				})
			}
			all.Wait()
		}
		for _, step := range []struct {
			pause time.Duration
			want  int // lines so far
		}{
			{0, 1}, {0, 1}, {9*time.Second + 999*time.Millisecond, 1}, {time.Millisecond, 2}, {time.Second, 2}, {time.Hour, 3},
		} {
			<-time.After(step.pause)
			burst()
			if got := len(log.entries(t)); got != step.want {
				t.Errorf("after %v more: %d lines, want %d", step.pause, got, step.want)
			}
		}
	})
	for _, entry := range log.entries(t) {
		if entry.Level != "ERROR" || entry.Panic != "*errors.errorString" || !strings.Contains(entry.Stack, "main.fault()") {
			t.Errorf("the log says %+v", entry)
		}
	}
	server := admin.NewServer(metrics, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	if body := get(t, l.Addr().String(), "/metrics").body; !strings.Contains(body, "\nbearergate_panics_total 300\n") {
		t.Errorf("not all are counted:\n%s", body)
	}
	if err := server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
