package e2e

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bearergate/bearergate/crmnow"
)

// endpoint is the emulator behind a listener that can go away and come back.
type endpoint struct {
	*crmnow.Emulator
	run     *run
	address string
	server  *http.Server
	served  chan error
}

func startEndpoint(t *testing.T, r *run) *endpoint {
	t.Helper()
	log := &lockedBuffer{}
	emulator, err := crmnow.NewEmulator(crmnow.EmulatorOptions{Logger: slog.New(slog.NewJSONHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	e := &endpoint{Emulator: emulator, run: r, address: r.ports.free(t)}
	e.up(t)
	t.Cleanup(func() {
		e.down(t)
		r.outputs.addText("log of the emulator", log.String())
	})
	return e
}

func (e *endpoint) url() string { return "http://" + e.address + crmnow.Path }

// up makes the endpoint listen.
func (e *endpoint) up(t *testing.T) {
	t.Helper()
	var config net.ListenConfig
	syscall.ForkLock.RLock() // else a program that is being started may still have the listener from before
	l, err := config.Listen(t.Context(), "tcp", e.address)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: e.Emulator, ReadHeaderTimeout: patience, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	e.server, e.served = server, make(chan error, 1)
	go func() { e.served <- server.Serve(l) }()
}

// down closes the listener and every connection: calls are refused from now on.
func (e *endpoint) down(t *testing.T) {
	t.Helper()
	if e.server == nil {
		return
	}
	if err := e.server.Close(); err != nil {
		t.Error(err)
	}
	if err := <-e.served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	e.server = nil
}

// issue returns a good token.
func (e *endpoint) issue(t *testing.T) string {
	t.Helper()
	grant, err := e.Issue(0)
	if err != nil {
		t.Fatal(err)
	}
	return e.run.tokens.add(grant.AccessToken.Reveal())
}

// accept makes a token good that the endpoint itself would not have made.
func (e *endpoint) accept(t *testing.T, token string) string {
	t.Helper()
	if err := e.Accept(crmnow.NewSecret(token), 0); err != nil {
		t.Fatal(err)
	}
	return e.run.tokens.add(token)
}

// calls returns how often the endpoint was asked about a token.
func (e *endpoint) calls(token string) int {
	return int(e.VerificationsOf(crmnow.NewSecret(token)))
}

// hold has questions wait until release is called.
func (e *endpoint) hold(t *testing.T) (release func()) {
	return e.trouble(t, crmnow.Fault{Hang: true})
}

// trouble has questions meet a fault until end is called.
func (e *endpoint) trouble(t *testing.T, fault crmnow.Fault) (end func()) {
	t.Helper()
	if err := e.SetFault(crmnow.Verify, fault); err != nil {
		t.Fatal(err)
	}
	return e.ClearFaults
}

// awaitHeld waits until n questions are under way.
func (e *endpoint) awaitHeld(t *testing.T, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := e.AwaitVerifying(ctx, n); err != nil {
		t.Fatal(err)
	}
}

// namedFault is a kind of trouble of the endpoint in which nobody can tell whether a
// token is good.
type namedFault struct {
	name  string
	fault crmnow.Fault
}

func faults() []namedFault {
	body := func(text string) *string { return &text }
	return []namedFault{
		{"hangs", crmnow.Fault{Hang: true}},
		{"is too slow", crmnow.Fault{Delay: 5 * time.Second}},
		{"closes the connection", crmnow.Fault{Close: true}},
		{"resets the connection", crmnow.Fault{Reset: true}},
		{"answers 500", crmnow.Fault{Status: http.StatusInternalServerError}},
		{"answers 503", crmnow.Fault{Status: http.StatusServiceUnavailable, RetryAfter: "7"}},
		{"answers 401", crmnow.Fault{Status: http.StatusUnauthorized}},
		{"answers 404", crmnow.Fault{Status: http.StatusNotFound}},
		{"redirects", crmnow.Fault{Location: "https://login.invalid/"}},
		{"shows a web page", crmnow.Fault{HTML: true}},
		{"cuts its answer off", crmnow.Fault{CutAfter: new(12)}},
		{"says nothing", crmnow.Fault{Body: body("")}},
		{"says true in a string", crmnow.Fault{Body: body(`{"result": "true", "message": "token valid"}`)}},
		{"says 1", crmnow.Fault{Body: body(`{"result": 1}`)}},
		{"says two things", crmnow.Fault{Body: body(`{"result": false, "result": true}`)}},
		{"says it in capitals", crmnow.Fault{Body: body(`{"RESULT": true}`)}},
		{"says it and something more", crmnow.Fault{Body: body(`{"result": true} {"result": false}`)}},
	}
}

// lockedBuffer is a buffer that many may write to.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(text []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(text)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
