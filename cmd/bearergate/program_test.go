package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// written is what a program has written so far.
type written struct {
	mu    sync.Mutex
	text  []byte
	grown chan struct{} // closed and replaced when there is more
}

func newWritten() *written { return &written{grown: make(chan struct{})} }

func (w *written) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, p...)
	close(w.grown)
	w.grown = make(chan struct{})
	return len(p), nil
}

func (w *written) now() (text string, grown <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.text), w.grown
}

// String returns all of it.
func (w *written) String() string { text, _ := w.now(); return text }

// lines returns the lines that are whole.
func (w *written) lines() []string {
	text := w.String()
	return strings.SplitAfter(text[:strings.LastIndexByte(text, '\n')+1], "\n")
}

// program is a bearergate that was started by a test and ends with it.
type program struct {
	*exec.Cmd
	out, err *written
	ended    chan struct{} // closed when it has
}

// start runs bearergate. The environment is the test's own, with additions.
func start(t *testing.T, environment []string, args ...string) *program {
	t.Helper()
	p := command(args...)
	p.Env = append(p.Env, environment...)
	p.run(t)
	return p
}

// command sets a program up that is not started yet.
func command(args ...string) *program {
	p := &program{
		Cmd: exec.Command("bearergate", args...),
		out: newWritten(), err: newWritten(), ended: make(chan struct{}),
	}
	p.Env = os.Environ()
	p.Stdout, p.Stderr = p.out, p.err
	p.SysProcAttr = endWithTests()
	return p
}

// run starts the program as it is set up.
func (p *program) run(t *testing.T) {
	t.Helper()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.Wait() // ProcessState tells
	}()
	t.Cleanup(func() {
		_ = p.Process.Kill() // it may have ended long ago
		<-p.ended
		if t.Failed() {
			t.Logf("%q wrote\n%s", p.Args, p.err)
		}
	})
}

// await waits until the program has written what is wanted.
func (p *program) await(t *testing.T, what string, w *written, wanted func(text string) bool) {
	t.Helper()
	late := time.After(patience)
	for {
		text, grown := w.now()
		if wanted(text) {
			return
		}
		select {
		case <-grown:
		case <-p.ended:
			if text, _ := w.now(); !wanted(text) {
				t.Fatalf("it ended (%v) before %s:\n%s", p.ProcessState, what, p.err)
			}
			return
		case <-late:
			t.Fatalf("no %s after %v:\n%s", what, patience, text)
		}
	}
}

// code waits for the end and returns the exit code.
func (p *program) code(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
		return p.ProcessState.ExitCode()
	case <-time.After(patience):
		t.Fatalf("%q did not end:\n%s", p.Args, p.err)
		return 0
	}
}

func (p *program) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

func (p *program) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// line is a line of a log in JSON.
type line struct {
	Time     time.Time `json:"time"`
	Level    string    `json:"level"`
	Message  string    `json:"msg"`
	Listener string    `json:"listener"`
	Address  string    `json:"address"`
	URL      string    `json:"url"`
	Proxy    string    `json:"proxy"`
	Verifier string    `json:"verifier"`
	Error    string    `json:"error"`
	Job      string    `json:"job"`
}

// log reads the program's log, in which every line is JSON and whole.
func (p *program) log(t *testing.T) []line {
	t.Helper()
	var all []line
	for _, text := range p.err.lines() {
		if text == "" {
			continue
		}
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil || l.Time.IsZero() || l.Level == "" || l.Message == "" {
			t.Fatalf("not a log line in JSON (%v): %s", err, text)
		}
		all = append(all, l)
	}
	return all
}

// awaitLog waits for a log line with this message and returns the last one.
func (p *program) awaitLog(t *testing.T, message string) line {
	t.Helper()
	p.await(t, "log line "+message, p.err, func(text string) bool {
		at := strings.Index(text, `"msg":"`+message+`"`)
		return at >= 0 && strings.Contains(text[at:], "\n")
	})
	var found line
	for _, l := range p.log(t) {
		if l.Message == message {
			found = l
		}
	}
	return found
}

// gateway is a running bearergate serve.
type gateway struct {
	*program
	address map[string]string // of each listener
}

// serve starts a gateway and waits until it is ready.
func serve(t *testing.T, environment []string, configuration string) *gateway {
	t.Helper()
	g := &gateway{program: start(t, environment, "serve", "--config", file(t, "bearergate.yaml", configuration)), address: map[string]string{}}
	g.awaitListening(t, strings.Count(configuration, "address:"))
	return g
}

// awaitListening waits for the lines of so many listeners, and for /readyz if
// the operator has a listener.
func (g *gateway) awaitListening(t *testing.T, listeners int) {
	t.Helper()
	g.await(t, fmt.Sprintf("%d lines listening", listeners), g.err, func(text string) bool {
		whole := text[:strings.LastIndexByte(text, '\n')+1]
		return strings.Count(whole, `"msg":"listening"`) == listeners
	})
	for _, l := range g.log(t) {
		if l.Message == "listening" {
			g.address[l.Listener] = l.Address
		}
	}
	if g.address["admin"] != "" {
		g.awaitReady(t)
	}
}

// awaitReady waits until the gateway says that it answers.
func (g *gateway) awaitReady(t *testing.T) {
	t.Helper()
	eventually(t, "readiness", func() error {
		status, body, err := get(t, g.address["admin"], "/readyz", "")
		if err == nil && (status != http.StatusOK || !strings.HasPrefix(body, `{"status":"ready",`)) {
			err = fmt.Errorf("/readyz says %d %q", status, body)
		}
		if !g.running() {
			t.Fatalf("it ended: %v\n%s", g.ProcessState, g.err)
		}
		return err
	})
}

// file writes a file into a folder of its own and returns its path.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// eventually asks again and again until there is no error.
func eventually(t *testing.T, what string, happened func() error) {
	t.Helper()
	late := time.After(patience)
	again := time.NewTicker(5 * time.Millisecond)
	defer again.Stop()
	for {
		err := happened()
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-late:
			t.Fatalf("no %s after %v: %v", what, patience, err)
		}
	}
}

// dial connects to an address as the log has it.
func dial(ctx context.Context, address string) (net.Conn, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	return (&net.Dialer{Timeout: patience}).DialContext(ctx, network, address)
}

// get asks one question on a connection of its own, with a token unless it is "".
func get(t *testing.T, address, path, token string) (status int, body string, err error) {
	t.Helper()
	// Not the test's context: that of a request in the background would end first.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dial(ctx, address)
		},
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://gateway.test"+path, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// mustGet is get that must have an answer with this status.
func mustGet(t *testing.T, address, path, token string, want int) (body string) {
	t.Helper()
	status, body, err := get(t, address, path, token)
	if err != nil || status != want {
		t.Fatalf("%s says %d %q, %v; want %d", path, status, body, err, want)
	}
	return body
}

// expectHidden searches a text for what must not be there.
func expectHidden(t *testing.T, text string, secrets ...string) {
	t.Helper()
	for _, secret := range secrets {
		if at := strings.Index(text, secret); at >= 0 {
			t.Errorf("a secret is shown, behind %q", text[max(0, at-40):at])
		}
	}
}
