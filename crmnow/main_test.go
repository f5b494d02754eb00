package crmnow_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/bearergate/bearergate/crmnow"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// The partner of all tests: every part of the credentials changes when it is
// form-urlencoded.
const (
	partnerID     = "partner:one/eu"
	partnerSecret = "p&ss w/ö+%41=="
)

func TestMain(m *testing.M) {
	if os.Getenv(fetchAsChild) != "" {
		childFetches()
		return
	}
	goleak.VerifyTestMain(m)
}

func partner() map[string]crmnow.Secret {
	return map[string]crmnow.Secret{partnerID: crmnow.NewSecret(partnerSecret)}
}

func newEmulator(t *testing.T, o crmnow.EmulatorOptions) *crmnow.Emulator {
	t.Helper()
	e, err := crmnow.NewEmulator(o)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// startLocal starts an emulator that knows the partner, on a port of loopback.
func startLocal(t *testing.T, o crmnow.EmulatorOptions) *crmnow.Local {
	t.Helper()
	if o.Clients == nil {
		o.Clients = partner()
	}
	l, err := crmnow.StartLocal(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func newClient(t *testing.T, o crmnow.ClientOptions) *crmnow.Client {
	t.Helper()
	if o.ID == "" {
		o.ID, o.Secret = partnerID, crmnow.NewSecret(partnerSecret)
	}
	c, err := crmnow.NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// pipes is a network inside the process, for bubbles of testing/synctest, whose
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

func (p *pipes) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
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

// serveOnPipes serves an emulator that knows the partner until the test ends.
func serveOnPipes(t *testing.T, o crmnow.EmulatorOptions) (*crmnow.Emulator, *pipes) {
	t.Helper()
	o.Clients = partner()
	e := newEmulator(t, o)
	p := newPipes()
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- e.Serve(ctx, p) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return e, p
}

const onLoopback = "http://127.0.0.1" + crmnow.Path

// pass lets time go by in a bubble.
func pass(d time.Duration) { <-time.After(d) }

// answer is what a handler said.
type answer struct {
	status int
	header http.Header
	body   string
}

// ask hands a request to a handler, without a network.
func ask(h http.Handler, r *http.Request) answer {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return answer{w.Code, w.Header(), w.Body.String()}
}

// post is a POST to the endpoint, with headers given as name and value.
func post(body string, headers ...string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, crmnow.Path, strings.NewReader(body))
	if body == "" {
		r = httptest.NewRequest(http.MethodPost, crmnow.Path, http.NoBody)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

const (
	typeForm      = "application/x-www-form-urlencoded"
	typeMultipart = "multipart/form-data; boundary=------------------------29864844a097da7e"
)

// multipartOf is a body as PHP's cURL writes it, for typeMultipart.
func multipartOf(disposition, value string) string {
	const boundary = "--------------------------29864844a097da7e"
	return boundary + "\r\nContent-Disposition: " + disposition + "\r\n\r\n" + value + "\r\n" + boundary + "--\r\n"
}

// question is a question about a token as PHP's cURL sends it.
func question(token string) *http.Request {
	return post(multipartOf(`form-data; name="verifytoken"`, token), "Content-Type", typeMultipart)
}

const (
	saysValid   = `{"result": true, "message": "token valid"}`
	saysInvalid = `{"result": false, "message": "token invalid or expired"}`
)

// expectVerdict asks about a token and wants a clear answer.
func expectVerdict(t *testing.T, e http.Handler, token crmnow.Secret, want string) {
	t.Helper()
	if got := ask(e, question(token.Reveal())); got.status != http.StatusOK || got.body != want {
		t.Errorf("the answer is %d %s, want 200 %s", got.status, got.body, want)
	}
}

// await waits until the counters are as they should be.
func await(t *testing.T, e *crmnow.Emulator, condition func(crmnow.Stats) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := e.Await(ctx, condition); err != nil {
		t.Fatal(err)
	}
}

func setFault(t *testing.T, e *crmnow.Emulator, job crmnow.Job, f crmnow.Fault) {
	t.Helper()
	if err := e.SetFault(job, f); err != nil {
		t.Fatal(err)
	}
}

func issue(t *testing.T, e *crmnow.Emulator) crmnow.Secret {
	t.Helper()
	grant, err := e.Issue(0)
	if err != nil {
		t.Fatal(err)
	}
	return grant.AccessToken
}

// expectHidden searches a text for what must not be there.
func expectHidden(t *testing.T, text string, secrets ...string) {
	t.Helper()
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			t.Errorf("a secret is shown: %s", text)
		}
	}
}

// fetchAsChild names the variable that makes the test binary a partner who
// fetches one token: http.ProxyFromEnvironment reads the environment once.
const fetchAsChild = "CRMNOW_TEST_FETCH_FROM"

// childFetches prints what a partner gets from the URL in the environment.
func childFetches() {
	c, err := crmnow.NewClient(crmnow.ClientOptions{
		URL: os.Getenv(fetchAsChild), ID: partnerID, Secret: crmnow.NewSecret(partnerSecret), Timeout: patience,
	})
	if err != nil {
		_, _ = os.Stdout.WriteString(err.Error())
		return
	}
	defer c.Close()
	grant, err := c.Token(context.Background())
	_, _ = fmt.Fprint(os.Stdout, grant, err)
}
