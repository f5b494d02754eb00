package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/bearergate/bearergate/crmnow"
)

// endpoint runs an emulator until the test ends.
func endpoint(t *testing.T) *crmnow.Local {
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

// token has the emulator issue a token.
func token(t *testing.T, e *crmnow.Local) string {
	t.Helper()
	grant, err := e.Issue(0)
	if err != nil {
		t.Fatal(err)
	}
	return grant.AccessToken.Reveal()
}

// onLoopback is a configuration for free ports and an endpoint. More lines may
// be added behind it.
func onLoopback(url string, more ...string) string {
	return fmt.Sprintf(`listeners:
  ext_authz: {address: "127.0.0.1:0"}
  auth_request: {address: "127.0.0.1:0"}
  admin: {address: "127.0.0.1:0"}
verifiers:
  - name: crm
    verifytoken: {url: %q}
    timeout: 60s
`, url) + strings.Join(more, "\n") + "\n"
}

// check asks as Envoy does.
func check(t *testing.T, address, token string) (*authv3.CheckResponse, error) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx, address) }))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	return authv3.NewAuthorizationClient(conn).Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: http.MethodGet, Path: "/", Headers: map[string]string{"authorization": "Bearer " + token},
		}},
	}})
}

// answer is what became of a request in the background.
type answer struct {
	text string
	good bool
}

// inBackground asks both faces about a token each, which the endpoint holds back,
// and returns when it has been asked.
func (g *gateway) inBackground(t *testing.T, e *crmnow.Local) (<-chan answer, []string) {
	t.Helper()
	if err := e.SetFault(crmnow.Verify, crmnow.Fault{Hang: true}); err != nil {
		t.Fatal(err)
	}
	both := make(chan answer, 2)
	tokens := []string{token(t, e), token(t, e)}
	go func() {
		status, body, err := get(t, g.address["auth_request"], "/auth", tokens[0])
		both <- answer{fmt.Sprintf("auth_request: %d %q, %v", status, body, err), status == http.StatusOK}
	}()
	go func() {
		r, err := check(t, g.address["ext_authz"], tokens[1])
		both <- answer{fmt.Sprintf("ext_authz: %v, %v", r, err), err == nil && r.GetStatus() != nil && r.GetStatus().GetCode() == int32(codes.OK)}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := e.AwaitVerifying(ctx, 2); err != nil {
		t.Fatal(err)
	}
	return both, tokens
}

// refused returns the files that package config refuses in its tests, and what is
// to be read of each.
func refused(t *testing.T) (names []string, want map[string]string) {
	t.Helper()
	want = map[string]string{}
	files, err := filepath.Glob("../../config/testdata/refused/*.yaml")
	if err != nil || len(files) < 50 {
		t.Fatalf("found %d files, %v", len(files), err)
	}
	for _, path := range files {
		text, err := os.ReadFile(strings.TrimSuffix(path, ".yaml") + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(path)
		names = append(names, name)
		want[name] = "bearergate: " + string(text)
		if !strings.HasPrefix(string(text), name+":") {
			t.Errorf("does not name the file: %s", text)
		}
	}
	return names, want
}

// The variables that some of the files name.
var forRefused = []string{"EMPTY=", "SECRET=s3cr3t", "HOUR=1h", "LATIN1=\xfc", "YAML={host: 127.0.0.1, port: 9191}"}

func TestServeRefusesEveryWrongConfiguration(t *testing.T) {
	names, want := refused(t)
	for _, variable := range forRefused {
		name, value, _ := strings.Cut(variable, "=")
		t.Setenv(name, value)
	}
	t.Chdir("../../config/testdata/refused")
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := inside(t, "serve", "--config", name)
			if code != exitWrong || stdout != "" || stderr != want[name] {
				t.Errorf("ended with %d and says\n%s%s\nwant\n%s", code, stdout, stderr, want[name])
			}
		})
	}
}

// The same again with the program itself. A process takes longer, so it is given
// every fifth file.
func TestTheProgramRefusesWrongConfigurations(t *testing.T) {
	names, want := refused(t)
	for i := 0; i < len(names); i += 5 {
		name := names[i]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := call(t, invocation{args: []string{"serve", "--config", name}, environment: forRefused, dir: "../../config/testdata/refused"})
			if got != (result{exitWrong, "", want[name]}) {
				t.Errorf("got %+v, want %s", got, want[name])
			}
		})
	}
}

// A good configuration whose second or third address is taken starts nothing at all.
func TestServeStartsNoHalf(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, name := range []string{"ext_authz", "auth_request", "admin"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			address := map[string]string{}
			for _, listener := range []string{"ext_authz", "auth_request", "admin"} {
				address[listener] = "unix:" + filepath.Join(dir, listener)
			}
			address[name] = taken.Addr().String()
			path := file(t, "bearergate.yaml", fmt.Sprintf(`listeners: {ext_authz: {address: %q}, auth_request: {address: %q}, admin: {address: %q}}
verifiers: [{name: crm, verifytoken: {url: "https://api.example.com/"}}]
`, address["ext_authz"], address["auth_request"], address["admin"]))
			p := start(t, nil, "serve", "--config", path)
			if code := p.code(t); code != exitWrong {
				t.Errorf("ended with %d", code)
			}
			want := fmt.Sprintf("bearergate: %s: listeners.%s.address: %s: bind: address already in use; stop what listens there, or write another address\n", path, name, taken.Addr())
			if got := p.err.String(); got != want {
				t.Errorf("says\n%s\nwant\n%s", got, want)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("sockets are left: %v, %v", left, err)
			}
		})
	}
}

func TestServeSaysWhereItListens(t *testing.T) {
	t.Parallel()
	e := endpoint(t)
	dir := t.TempDir()
	for name, test := range map[string]struct {
		addresses [3]string
		want      func(listener, address string) bool
	}{
		"on free ports": {
			[3]string{"127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"},
			func(_, address string) bool {
				return strings.HasPrefix(address, "127.0.0.1:") && !strings.HasSuffix(address, ":0")
			},
		},
		"on unix sockets": {
			[3]string{"unix:" + dir + "/ext_authz", "unix:" + dir + "/auth_request", "unix:" + dir + "/admin"},
			func(listener, address string) bool { return address == "unix:"+dir+"/"+listener },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := serve(t, nil, strings.Join([]string{
				"listeners:",
				"  ext_authz: {address: \"" + test.addresses[0] + "\"}",
				"  auth_request: {address: \"" + test.addresses[1] + "\"}",
				"  admin: {address: \"" + test.addresses[2] + "\"}",
				"verifiers: [{name: crm, verifytoken: {url: \"" + e.URL() + "\"}}]",
			}, "\n"))
			for _, listener := range []string{"ext_authz", "auth_request", "admin"} {
				if address := g.address[listener]; !test.want(listener, address) {
					t.Errorf("%s: %s", listener, address)
				}
			}
			good := token(t, e)
			mustGet(t, g.address["auth_request"], "/auth", good, http.StatusOK)
			mustGet(t, g.address["auth_request"], "/auth", "", http.StatusUnauthorized)
			mustGet(t, g.address["admin"], "/livez", "", http.StatusOK)
			metrics := mustGet(t, g.address["admin"], "/metrics", "", http.StatusOK)
			if r, err := check(t, g.address["ext_authz"], good); err != nil || r.GetStatus() == nil || r.GetStatus().GetCode() != int32(codes.OK) {
				t.Errorf("ext_authz says %v, %v", r, err)
			}
			g.signal(t, syscall.SIGTERM)
			if code := g.code(t); code != exitGood {
				t.Errorf("ended with %d", code)
			}
			expectHidden(t, g.err.String()+g.out.String()+metrics, good)
		})
	}
	t.Cleanup(func() {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("sockets are left: %v, %v", left, err)
		}
	})
}

// Only an abandoned socket is taken over.
func TestServeTakesOverASocketThatNobodyListensOn(t *testing.T) {
	t.Parallel()
	e := endpoint(t)
	path := filepath.Join(t.TempDir(), "s")
	configuration := fmt.Sprintf("listeners: {auth_request: {address: \"unix:%s\"}}\nverifiers: [{name: crm, verifytoken: {url: %q}}]\n", path, e.URL())
	answers := func(g *gateway) {
		t.Helper()
		mustGet(t, g.address["auth_request"], "/auth", token(t, e), http.StatusOK)
	}
	refused := func(text string) {
		t.Helper()
		p := start(t, nil, "serve", "--config", file(t, "bearergate.yaml", configuration))
		if code := p.code(t); code != exitWrong {
			t.Errorf("ended with %d", code)
		}
		if want := "listeners.auth_request.address: unix:" + path + ": " + text + "\n"; !strings.HasSuffix(p.err.String(), want) {
			t.Errorf("says %s, want %s", p.err, want)
		}
	}

	first := serve(t, nil, configuration)
	answers(first)
	refused("bind: address already in use; stop what listens there, or write another address")
	answers(first) // still

	first.signal(t, syscall.SIGKILL)
	first.code(t)
	if info, err := os.Lstat(path); err != nil || info.Mode().Type() != fs.ModeSocket {
		t.Fatalf("what was killed left %v, %v; want its socket", info, err)
	}
	second := serve(t, nil, configuration)
	answers(second)
	second.signal(t, syscall.SIGINT)
	if code := second.code(t); code != exitGood {
		t.Errorf("ended with %d", code)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}

	const noSocket = "bind: address already in use; what is there is no socket: move it away, or write another path"
	kept := []byte("somebody's file")
	if err := os.WriteFile(path, kept, 0o600); err != nil {
		t.Fatal(err)
	}
	refused(noSocket)
	if text, err := os.ReadFile(path); err != nil || !bytes.Equal(text, kept) {
		t.Errorf("the file is now %q, %v", text, err)
	}
	if err := os.Rename(path, path+".file"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path+".file", path); err != nil {
		t.Fatal(err)
	}
	refused(noSocket)
	if to, err := os.Readlink(path); err != nil || to != path+".file" {
		t.Errorf("the link is now %q, %v", to, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	refused(noSocket)
	path = filepath.Join(path, "missing", "s")
	configuration = strings.Replace(configuration, filepath.Dir(filepath.Dir(path)), path, 1)
	refused("bind: no such file or directory; make the folder of the socket first")
}

func TestServeReadsItsConfigurationAgainOnAHangup(t *testing.T) {
	t.Parallel()
	e := endpoint(t)
	path := file(t, "bearergate.yaml", onLoopback(e.URL()))
	become := func(lines ...string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(onLoopback(e.URL(), lines...)), 0o600); err != nil { // in place
			t.Fatal(err)
		}
	}
	g := &gateway{program: start(t, nil, "serve", "--config", path), address: map[string]string{}}
	g.awaitListening(t, 3)
	become("log: {level: error}")
	g.signal(t, syscall.SIGHUP)
	eventually(t, "the second configuration", func() error {
		if body := mustGet(t, g.address["admin"], "/status", "", http.StatusOK); !strings.Contains(body, `"result":"applied"`) {
			return errors.New(body)
		}
		return nil
	})
	mustGet(t, g.address["auth_request"], "/auth", "unknown", http.StatusUnauthorized)
	become(`default_policy: {realm: "two"}`)
	g.signal(t, syscall.SIGHUP)
	g.awaitLog(t, "another configuration is in force")
	if strings.Contains(g.err.String(), "request refused") {
		t.Error("the log's level was not taken")
	}
	become(`default_policy: {realm: "three"}`, "nonsense: true")
	g.signal(t, syscall.SIGHUP)
	wrong := g.awaitLog(t, "the configuration cannot be used; what was in force stays so")
	if wrong.Level != "ERROR" || !strings.Contains(wrong.Error, "bearergate.yaml:10:1: nonsense: ") {
		t.Errorf("it says %+v", wrong)
	}
	become(`default_policy: {realm: "four"}`, "log: {level: debug, format: text}")
	g.signal(t, syscall.SIGHUP)
	restart := g.awaitLog(t, "a field is other than it was, and is taken only at a start; restart the gateway")
	if restart.Level != "WARN" {
		t.Errorf("it says %+v", restart)
	}
	g.signal(t, syscall.SIGTERM)
	if code := g.code(t); code != exitGood {
		t.Errorf("ended with %d", code)
	}
}

func TestServeFinishesWhatIsUnderWay(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			e := endpoint(t)
			g := serve(t, nil, onLoopback(e.URL(), "shutdown_timeout: 5m"))
			answers, tokens := g.inBackground(t, e)
			g.signal(t, s)
			g.awaitLog(t, "stopping")
			for _, listener := range []string{"ext_authz", "auth_request"} {
				eventually(t, "end of "+listener, func() error {
					c, err := dial(t.Context(), g.address[listener])
					if err == nil {
						_ = c.Close()
						return errors.New("a new connection is accepted")
					}
					if !errors.Is(err, syscall.ECONNREFUSED) {
						return err
					}
					return nil
				})
			}
			if body := mustGet(t, g.address["admin"], "/readyz", "", http.StatusServiceUnavailable); !strings.HasPrefix(body, `{"status":"stopping",`) {
				t.Errorf("/readyz says %q", body)
			}
			mustGet(t, g.address["admin"], "/livez", "", http.StatusOK)
			select {
			case a := <-answers:
				t.Errorf("there was an answer before the endpoint's: %s", a.text)
			default:
			}
			if !g.running() {
				t.Error("it ended before what was under way")
			}
			e.ClearFaults()
			for range 2 {
				if a := <-answers; !a.good {
					t.Errorf("cut off: %s", a.text)
				}
			}
			if code := g.code(t); code != exitGood {
				t.Errorf("ended with %d", code)
			}
			if last := g.log(t); last[len(last)-1].Message != "stopped" {
				t.Errorf("its last words: %+v", last[len(last)-1])
			}
			if strings.Contains(g.err.String(), `"WARN"`) {
				t.Error("it warns of nothing")
			}
			expectHidden(t, g.err.String()+g.out.String(), tokens...)
		})
	}
}

func TestServeEndsAfterTheShutdownTimeout(t *testing.T) {
	t.Parallel()
	e := endpoint(t)
	// What ends the requests is not the time-out of a call: that is longer than
	// the test's patience.
	g := serve(t, nil, onLoopback(e.URL(), "shutdown_timeout: 50ms"))
	answers, tokens := g.inBackground(t, e)
	g.signal(t, syscall.SIGTERM)
	if code := g.code(t); code != exitGood {
		t.Errorf("ended with %d", code)
	}
	for range 2 {
		if a := <-answers; a.good {
			t.Errorf("allowed without an answer: %s", a.text)
		}
	}
	cut := map[string]bool{}
	for _, l := range g.log(t) {
		if l.Level == "WARN" && strings.Contains(l.Message, "shutdown_timeout") {
			cut[l.Listener] = true
			if l.Error != "the shutdown_timeout is over" {
				t.Errorf("the error is %q", l.Error)
			}
		}
	}
	if len(cut) != 2 || !cut["ext_authz"] || !cut["auth_request"] {
		t.Errorf("it warns of cut off requests on %v", cut)
	}
	expectHidden(t, g.err.String()+g.out.String(), tokens...)
}

func TestASecondSignalEndsAtOnce(t *testing.T) {
	for _, s := range []struct{ first, second syscall.Signal }{
		{syscall.SIGTERM, syscall.SIGTERM},
		{syscall.SIGINT, syscall.SIGINT},
		{syscall.SIGTERM, syscall.SIGINT},
	} {
		t.Run(s.first.String()+" and "+s.second.String(), func(t *testing.T) {
			t.Parallel()
			e := endpoint(t)
			g := serve(t, nil, onLoopback(e.URL(), "shutdown_timeout: 5m"))
			answers, _ := g.inBackground(t, e)
			g.signal(t, s.first)
			g.awaitLog(t, "stopping")
			// The log line may be there before the signals have their old meaning again.
			eventually(t, "end", func() error {
				if !g.running() {
					return nil
				}
				_ = g.Process.Signal(s.second) // it may just have ended
				return errors.New("it goes on")
			})
			if status, ok := g.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() || status.Signal() != s.second {
				t.Errorf("ended with %v, want it ended by %v", g.ProcessState, s.second)
			}
			for range 2 {
				if a := <-answers; a.good {
					t.Errorf("allowed without an answer: %s", a.text)
				}
			}
		})
	}
}

// Nobody should be surprised that tokens go through a proxy, and nobody should
// read the proxy's password in a log.
func TestServeLogsTheProxyWithoutItsCredentials(t *testing.T) {
	t.Parallel()
	const password = "hunter2"
	for _, test := range []struct {
		name, url, level, proxy string
		environment             []string
	}{
		{"https", "https://api.example.com/", "INFO", "proxy.example:3128", []string{"HTTPS_PROXY=http://operator:" + password + "@proxy.example:3128"}},
		{"lower case", "https://api.example.com/", "INFO", "proxy.example", []string{"https_proxy=http://operator:" + password + "@proxy.example"}},
		{"no URL", "https://api.example.com/", "WARN", "", []string{"HTTPS_PROXY=[proxy:" + password}},
		{"no http in front", "https://api.example.com/", "WARN", "", []string{"HTTPS_PROXY=operator:" + password + "@[proxy"}},
		{"an exception", "https://api.example.com/", "", "", []string{"HTTPS_PROXY=http://operator:" + password + "@proxy.example", "NO_PROXY=.example.com"}},
		{"loopback", "http://127.0.0.1:1/", "", "", []string{"HTTP_PROXY=http://operator:" + password + "@proxy.example"}},
		{"none", "https://api.example.com/", "", "", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			environment := []string{"HTTPS_PROXY=", "https_proxy=", "HTTP_PROXY=", "http_proxy=", "NO_PROXY=", "no_proxy="}
			g := serve(t, append(environment, test.environment...), onLoopback(test.url))
			g.signal(t, syscall.SIGTERM)
			if code := g.code(t); code != exitGood {
				t.Errorf("ended with %d", code)
			}
			var level, proxy string
			for _, l := range g.log(t) {
				if strings.Contains(l.Message, "HTTPS_PROXY") {
					level, proxy = l.Level, l.Proxy
					if l.Verifier != "crm" {
						t.Errorf("the verifier is %q", l.Verifier)
					}
				}
			}
			if level != test.level || proxy != test.proxy {
				t.Errorf("logs %q, %q; want %q, %q", level, proxy, test.level, test.proxy)
			}
			expectHidden(t, g.err.String()+g.out.String(), password, "operator")
		})
	}
}
