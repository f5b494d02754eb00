package verifier_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/bearergate/bearergate/verifier"
)

const (
	saysValid   = `{"result": true, "message": "token valid"}`
	saysInvalid = `{"result": false, "message": "token invalid or expired"}`
)

// question is what an endpoint was asked.
type question struct {
	method, target, host, proto string
	length                      int64
	header                      http.Header
	body                        []byte
}

func read(r *http.Request) (question, error) {
	body, err := io.ReadAll(r.Body)
	return question{r.Method, r.RequestURI, r.Host, r.Proto, r.ContentLength, r.Header, body}, err
}

// token returns the value of the one field of the question.
func (q *question) token(t *testing.T) string {
	t.Helper()
	kind, parameters, err := mime.ParseMediaType(q.header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" {
		t.Fatalf("the question's type is %q, %v", q.header.Get("Content-Type"), err)
	}
	parts := multipart.NewReader(bytes.NewReader(q.body), parameters["boundary"])
	part, err := parts.NextRawPart()
	if err != nil {
		t.Fatalf("the question has no part: %v", err)
	}
	value, err := io.ReadAll(part)
	if err != nil {
		t.Fatal(err)
	}
	if got := part.Header["Content-Disposition"]; len(part.Header) != 1 || len(got) != 1 || got[0] != `form-data; name="verifytoken"` {
		t.Errorf("the part's header is %v", part.Header)
	}
	if _, err := parts.NextRawPart(); !errors.Is(err, io.EOF) {
		t.Errorf("the question has more than one part: %v", err)
	}
	return string(value)
}

// endpoint is a server on loopback that notes what it is asked, and how many
// connections are made.
type endpoint struct {
	*httptest.Server
	mu        sync.Mutex
	questions []question
	accepted  int
}

// startEndpoint starts an endpoint that answers by a handler, which need not read
// the question. With settings it speaks TLS, and HTTP/2 if they name it.
func startEndpoint(t *testing.T, settings *tls.Config, handler http.HandlerFunc) *endpoint {
	t.Helper()
	e := &endpoint{}
	e.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q, err := read(r)
		if err != nil {
			t.Errorf("the question broke off: %v", err)
		}
		e.mu.Lock()
		e.questions = append(e.questions, q)
		e.mu.Unlock()
		handler(w, r)
	}))
	e.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	e.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.accepted++
		}
	}
	if settings == nil {
		e.Start()
	} else {
		e.TLS = settings.Clone()
		e.EnableHTTP2 = slices.Contains(settings.NextProtos, "h2")
		e.StartTLS()
	}
	t.Cleanup(e.Close)
	return e
}

// asked returns the questions so far.
func (e *endpoint) asked() []question {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]question(nil), e.questions...)
}

// connections returns how many were made.
func (e *endpoint) connections() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.accepted
}

// replies is a handler that always gives the same reply.
func replies(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// rawEndpoint is a server on loopback that can answer in ways that no HTTP server
// does.
type rawEndpoint struct {
	url       string
	mu        sync.Mutex
	questions []question
}

// startRaw starts a raw endpoint. After each question, of which n came before,
// it lets answer write to the connection. It closes the connection unless answer
// says that it is kept.
func startRaw(t *testing.T, answer func(n int, conn *net.TCPConn) (keep bool)) *rawEndpoint {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &rawEndpoint{url: "http://" + listener.Addr().String() + "/v1/getOauthToken.php"}
	open := map[net.Conn]bool{}
	var running sync.WaitGroup
	serve := func(conn *net.TCPConn) {
		defer func() {
			e.mu.Lock()
			delete(open, conn)
			e.mu.Unlock()
			_ = conn.Close()
		}()
		in := bufio.NewReader(conn)
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			q, err := read(r)
			if err != nil {
				return
			}
			e.mu.Lock()
			n := len(e.questions)
			e.questions = append(e.questions, q)
			e.mu.Unlock()
			if !answer(n, conn) {
				return
			}
		}
	}
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			e.mu.Lock()
			open[conn] = true
			e.mu.Unlock()
			running.Go(func() { serve(conn.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		e.mu.Lock()
		for conn := range open {
			_ = conn.Close()
		}
		e.mu.Unlock()
		running.Wait()
	})
	return e
}

func (e *rawEndpoint) asked() []question {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]question(nil), e.questions...)
}

// write answers with some bytes, then closes.
func write(text string) func(int, *net.TCPConn) bool {
	return func(_ int, conn *net.TCPConn) bool {
		_, _ = io.WriteString(conn, text)
		return false
	}
}

// reset ends a connection the hard way, after some bytes.
func reset(text string) func(int, *net.TCPConn) bool {
	return func(_ int, conn *net.TCPConn) bool {
		_, _ = io.WriteString(conn, text)
		_ = conn.SetLinger(0)
		return false
	}
}

// whole is a reply with a body, as bytes on the wire.
func whole(body string) string {
	return "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body
}

// newVerifytoken returns a client that is closed when the test ends.
func newVerifytoken(t *testing.T, o verifier.VerifytokenOptions) *verifier.Verifytoken {
	t.Helper()
	if o.Name == "" {
		o.Name = "crm"
	}
	v, err := verifier.NewVerifytoken(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

// canary is a token that is searched for where it must not be.
const canary = "CANARY-eyJhbGciOiJub25lIn0.e30.~+/09az=="

// ask asks about the canary, with patience.
func ask(t *testing.T, v verifier.Verifier) (verifier.Verdict, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return v.Verify(ctx, newTokens(t).parse(t, canary))
}

// expectVerdict asks and wants an answer.
func expectVerdict(t *testing.T, v verifier.Verifier, valid bool) {
	t.Helper()
	if verdict, err := ask(t, v); err != nil || verdict.Valid != valid {
		t.Errorf("the verdict is %+v, %v; want %v", verdict, err, valid)
	}
}

// expectNone wants an error that says that nobody could tell, and nothing that
// is nobody's business.
func expectNone(t *testing.T, verdict verifier.Verdict, err error, problem string) *verifier.NoAnswer {
	t.Helper()
	none, ok := errors.AsType[*verifier.NoAnswer](err)
	if !ok || !nothing(verdict) {
		t.Fatalf("the verdict is %+v, %v; want no answer", verdict, err)
	}
	if none.Verifier != "crm" || !strings.Contains(none.Error(), problem) || strings.ContainsAny(none.Error(), "\r\n") {
		t.Errorf("the error is %q; want one with %q", none, problem)
	}
	for err := error(none); err != nil; err = errors.Unwrap(err) {
		expectHidden(t, err.Error(), "CANARY", "getOauthToken")
	}
	return none
}
