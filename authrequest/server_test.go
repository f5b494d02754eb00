package authrequest_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bearergate/bearergate/authrequest"
)

func TestUnixSocket(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, l, authrequest.Options{})
	if got := f.ask(t, get("Bearer "+goodToken)); got.StatusCode != http.StatusOK {
		t.Errorf("a good token: %d", got.StatusCode)
	}
	if got := f.ask(t, get("Bearer unknown")); got.StatusCode != http.StatusUnauthorized {
		t.Errorf("another token: %d", got.StatusCode)
	}
}

func TestConnectionIsUsedAgain(t *testing.T) {
	f := startTCP(t, authrequest.Options{})
	w := f.dial(t)
	requests := []struct {
		text   string
		status int
	}{
		{get("Bearer " + goodToken), 200},
		{get("Bearer unknown"), 401},
		{"POST /auth/x HTTP/1.1\nHost: gateway\nContent-Length: 0\nAuthorization: Bearer " + goodToken + "\n\n", 200},
		{"HEAD /auth HTTP/1.1\nHost: gateway\n\n", 401},
		{"GET / HTTP/1.1\nHost: gateway\n\n", 404},
		{get("Bearer " + downToken), 503},
		{get("Bearer " + panicToken), 503},
		{"OPTIONS * HTTP/1.1\nHost: gateway\n\n", 404},
		{get("Bearer " + goodToken), 200},
	}
	receive := func(i int) {
		t.Helper()
		method, _, _ := strings.Cut(requests[i].text, " ")
		if got := w.receive(t, method); got.StatusCode != requests[i].status || got.Close {
			t.Errorf("request %d: %d, close is %t, want %d", i, got.StatusCode, got.Close, requests[i].status)
		}
	}
	for i := range requests {
		w.send(t, lines(requests[i].text))
		receive(i)
	}
	// All at once: the answers come in order.
	for i := range requests {
		w.send(t, lines(requests[i].text))
	}
	for i := range requests {
		receive(i)
	}
}

func TestHTTP10(t *testing.T) {
	f := startTCP(t, authrequest.Options{})
	for _, test := range []struct {
		name, text string
		status     int
	}{
		{"no Host", "GET /auth HTTP/1.0\nAuthorization: Bearer " + goodToken + "\n\n", 200},
		{"no token", "GET /auth/x HTTP/1.0\n\n", 401},
		{"another path", "GET / HTTP/1.0\n\n", 404},
	} {
		w := f.dial(t)
		w.send(t, lines(test.text))
		if got := w.receive(t, http.MethodGet); got.StatusCode != test.status {
			t.Errorf("%s: %d, want %d", test.name, got.StatusCode, test.status)
		}
		w.expectEnd(t)
	}
	w := f.dial(t)
	for range 2 {
		w.send(t, lines("GET /auth HTTP/1.0\nConnection: keep-alive\nAuthorization: Bearer "+goodToken+"\n\n"))
		if got := w.receive(t, http.MethodGet); got.StatusCode != http.StatusOK || got.Header.Get("Connection") != "keep-alive" {
			t.Errorf("kept alive: %d %v", got.StatusCode, got.Header)
		}
	}
}

// TestWhatIsNoRequest: net/http answers most of these by itself, and never with a
// 2xx.
func TestWhatIsNoRequest(t *testing.T) {
	f := startTCP(t, authrequest.Options{})
	for name, test := range map[string]struct {
		text   string
		status int
	}{
		"no Host":              {"GET /auth HTTP/1.1\nAuthorization: Bearer " + goodToken + "\n\n", 400},
		"two Hosts":            {"GET /auth HTTP/1.1\nHost: a\nHost: b\nAuthorization: Bearer " + goodToken + "\n\n", 400},
		"HTTP/2 by hand":       {"PRI * HTTP/2.0\n\nSM\n\n", 404},
		"HTTP/3":               {"GET /auth HTTP/3.0\nHost: a\n\n", 505},
		"no version":           {"GET /auth\n\n", 400},
		"a broken line":        {"GET\n\n", 400},
		"a broken header":      {"GET /auth HTTP/1.1\nHost: a\nAuthorization\n\n", 400},
		"two lengths":          {"GET /auth HTTP/1.1\nHost: a\nContent-Length: 0\nContent-Length: 5\n\nhello", 400},
		"a length and chunks":  {"POST /auth HTTP/1.1\nHost: a\nContent-Length: 5\nTransfer-Encoding: identity\n\nhello", 501},
		"a wrong expectation":  {"POST /auth HTTP/1.1\nHost: a\nExpect: miracles\nContent-Length: 5\n\nhello", 417},
		"a TLS client's hello": {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n", 400},
	} {
		if got := f.ask(t, test.text); got.StatusCode != test.status {
			t.Errorf("%s: %d, want %d", name, got.StatusCode, test.status)
		}
	}
	if asked := f.oracle.asked.Load(); asked != 0 {
		t.Errorf("the verifier was asked %d times", asked)
	}
}

func TestHeaderLimit(t *testing.T) {
	const slop = 4096 // what net/http allows over the limit
	for name, test := range map[string]struct {
		options authrequest.Options
		limit   int
	}{
		"set":         {authrequest.Options{MaxHeaderBytes: 8 << 10}, 8 << 10},
		"the default": {authrequest.Options{}, 64 << 10},
	} {
		f := startTCP(t, test.options)
		for _, over := range []int{-500, slop + 500} {
			for kind, more := range map[string]string{
				"one long":  "X-Long: " + strings.Repeat("x", test.limit+over),
				"many":      strings.TrimSuffix(strings.Repeat("X-Many: 0123456789\n", (test.limit+over)/20), "\n"),
				"long path": "X: y",
			} {
				path := "/auth"
				if kind == "long path" {
					path += "?" + strings.Repeat("x", test.limit+over)
				}
				want := 200
				if over > 0 {
					want = 431
				}
				got := f.ask(t, "GET "+path+" HTTP/1.1\nHost: gateway\nAuthorization: Bearer "+goodToken+"\n"+more+"\n\n")
				if got.StatusCode != want {
					t.Errorf("%s, %s, %d bytes over: %d, want %d", name, kind, over, got.StatusCode, want)
				}
			}
		}
	}
}

func TestSlowHeaderIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, newPipes(), authrequest.Options{})
		w := f.dial(t)
		begin := time.Now()
		ended := make(chan time.Time, 1)
		go func() {
			w.expectEnd(t)
			ended <- time.Now()
		}()
		for _, part := range []string{"GET /auth HT", "TP/1.1\r\nHo", "st: gateway\r\n", "Authorization: Bearer ", goodToken, "\r\n", "X: y\r\n"} {
			if _, err := io.WriteString(w, part); err != nil {
				break
			}
			<-time.After(time.Second)
		}
		if took := (<-ended).Sub(begin); took != 5*time.Second || f.oracle.asked.Load() != 0 {
			t.Errorf("given up after %v, the verifier was asked %d times", took, f.oracle.asked.Load())
		}
	})
}

func TestIdleConnectionIsKeptForTwoMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, newPipes(), authrequest.Options{})
		w := f.dial(t)
		for range 3 {
			w.send(t, lines(get("Bearer "+goodToken)))
			if got := w.receive(t, http.MethodGet); got.StatusCode != http.StatusOK {
				t.Errorf("status %d", got.StatusCode)
			}
			<-time.After(2*time.Minute - time.Second)
		}
		begin := time.Now()
		w.expectEnd(t)
		if took := time.Since(begin); took != time.Second {
			t.Errorf("it ends %v later", took)
		}
	})
}

// TestBodyIsNotWaitedFor: an edge may send the length of a body without the body.
// The answer comes at once, and then the connection ends: what comes next on it
// may be that body or a request.
func TestBodyIsNotWaitedFor(t *testing.T) {
	for name, test := range map[string]string{
		"a length, no body":    "POST /auth HTTP/1.1\nHost: gateway\nContent-Length: 5\n",
		"half a body":          "PUT /auth/x HTTP/1.1\nHost: gateway\nContent-Length: 10\nX: y\n",
		"a huge length":        "POST /auth HTTP/1.1\nHost: gateway\nContent-Length: 1000000000000\n",
		"chunks, no body":      "POST /auth HTTP/1.1\nHost: gateway\nTransfer-Encoding: chunked\n",
		"one that asks first":  "POST /auth HTTP/1.1\nHost: gateway\nExpect: 100-continue\nContent-Length: 5\n",
		"GET with a length":    "GET /auth HTTP/1.1\nHost: gateway\nContent-Length: 5\n",
		"HTTP/1.0, kept alive": "POST /auth HTTP/1.0\nConnection: keep-alive\nContent-Length: 5\n",
	} {
		for value, want := range map[string]int{"Bearer " + goodToken: 200, "Bearer unknown": 401, "Bearer " + downToken: 503} {
			t.Run(name+", "+value, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					f := start(t, newPipes(), authrequest.Options{})
					w := f.dial(t)
					begin := time.Now()
					w.send(t, lines(test+"Authorization: "+value+"\n\n"))
					got := w.receive(t, http.MethodPost)
					if took := time.Since(begin); got.StatusCode != want || took != 0 {
						t.Errorf("%d after %v, want %d at once", got.StatusCode, took, want)
					}
					if !got.Close {
						t.Error("the connection stays open")
					}
					// It hangs up before long, body or not.
					w.expectEnd(t)
				})
			})
		}
	}
}

func TestBodyIsNotReadWithoutLimit(t *testing.T) {
	const most = 512 << 10
	for name, head := range map[string]string{
		"a length": "POST /auth HTTP/1.1\nHost: gateway\nContent-Length: 1000000000000\n",
		"chunks":   "POST /auth HTTP/1.1\nHost: gateway\nTransfer-Encoding: chunked\n",
		"404":      "POST / HTTP/1.1\nHost: gateway\nContent-Length: 1000000000000\n",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := start(t, newPipes(), authrequest.Options{})
				w := f.dial(t)
				w.send(t, lines(head+"Authorization: Bearer unknown\n\n"))
				got := make(chan int, 1)
				go func() { got <- w.receive(t, http.MethodPost).StatusCode }()
				// A write through a pipe ends when the other side has read.
				taken := 0
				chunk := "1000\r\n" + strings.Repeat("x", 0x1000) + "\r\n"
				for taken < 4*most {
					n, err := io.WriteString(w, chunk)
					taken += n
					if err != nil {
						break
					}
				}
				if taken > most {
					t.Errorf("at least %d bytes of the body were read", taken)
				}
				if status := <-got; status != 401 && status != 404 {
					t.Errorf("status %d", status)
				}
			})
		})
	}
}

// TestSmallBodyIsLeftAlone: it changes nothing in the answer.
func TestSmallBodyIsLeftAlone(t *testing.T) {
	f := startTCP(t, authrequest.Options{})
	for value, want := range map[string]int{"Bearer " + goodToken: 200, "Bearer unknown": 401} {
		for _, body := range []string{
			"Content-Length: 23\n\naccess_token=good-token",
			"Transfer-Encoding: chunked\n\n5\nhello\n0\n\n",
		} {
			got := f.ask(t, "POST /auth HTTP/1.1\nHost: gateway\nAuthorization: "+value+"\n"+body)
			if got.StatusCode != want {
				t.Errorf("%s, %q: %d", value, body, got.StatusCode)
			}
		}
	}
}

// TestDecisionMayTakeAsLongAsItMay: none of the connection's own limits ends it.
func TestDecisionMayTakeAsLongAsItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, newPipes(), authrequest.Options{Wait: slowness})
		w := f.dial(t)
		begin := time.Now()
		w.send(t, "GET /auth HTTP/1.1\r\n")
		<-time.After(4 * time.Second) // the header may take its time too
		w.send(t, lines("Host: gateway\nAuthorization: Bearer "+slowToken+"\n\n"))
		got := w.receive(t, http.MethodGet)
		if took := time.Since(begin); got.StatusCode != http.StatusOK || took != 4*time.Second+slowness {
			t.Errorf("%d after %v", got.StatusCode, took)
		}
	})
}

// TestEdgeThatDoesNotReadIsCutOff: a reply waits for its reader for a bounded time.
func TestEdgeThatDoesNotReadIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const wait = 5 * time.Second
		f := start(t, newPipes(), authrequest.Options{Wait: wait})
		w := f.dial(t)
		w.send(t, lines(get("Bearer "+goodToken)))
		w.receive(t, http.MethodGet)
		begin := time.Now()
		w.send(t, lines(get("Bearer "+goodToken)))
		synctest.Wait() // until the reply is on its way
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := f.Shutdown(ctx); err != nil { // it waits until the reply is gone
			t.Fatal(err)
		}
		if took := time.Since(begin); took < wait || took > wait+20*time.Second {
			t.Errorf("it was cut off after %v", took)
		}
	})
}

func TestEdgeThatHangsUpEndsTheWait(t *testing.T) {
	f := startTCP(t, authrequest.Options{})
	w := f.dial(t)
	w.send(t, lines(get("Bearer "+stuckToken)))
	<-f.oracle.arrived
	_ = w.Close()
	select {
	case <-f.oracle.gaveUp:
	case <-time.After(patience):
		t.Error("the verifier is still asked")
	}
}

func TestShutdownWaitsForTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, newPipes(), authrequest.Options{})
		w, idle := f.dial(t), f.dial(t)
		idle.send(t, lines(get("Bearer "+goodToken)))
		idle.receive(t, http.MethodGet)
		w.send(t, lines(get("Bearer "+heldToken)))
		<-f.oracle.arrived
		stopped := make(chan error, 1)
		go func() { stopped <- f.Shutdown(t.Context()) }()
		idle.expectEnd(t)
		<-time.After(20 * time.Second)
		select {
		case err := <-stopped:
			t.Fatalf("Shutdown ended before the answer: %v", err)
		default:
		}
		close(f.oracle.letGo)
		if got := w.receive(t, http.MethodGet); got.StatusCode != http.StatusOK {
			t.Errorf("the request under way: %d", got.StatusCode)
		}
		if err := <-stopped; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
}

func TestShutdownIsBounded(t *testing.T) {
	for name, occupy := range map[string]func(*testing.T, *face, *wire){
		"a request without answer": func(t *testing.T, f *face, w *wire) {
			t.Helper()
			w.send(t, lines(get("Bearer "+stuckToken)))
			<-f.oracle.arrived
		},
		"half a request": func(t *testing.T, _ *face, w *wire) {
			t.Helper()
			w.send(t, "GET /auth HTTP/1.1\r\n")
		},
		"a connection that says nothing": func(*testing.T, *face, *wire) {},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const limit = time.Second
				f := start(t, newPipes(), authrequest.Options{})
				w := f.dial(t)
				occupy(t, f, w)
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				begin := time.Now()
				if err := f.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Shutdown: %v", err)
				}
				if took := time.Since(begin); took != limit {
					t.Errorf("Shutdown took %v", took)
				}
				w.expectEnd(t)
				if took := time.Since(begin); took != limit {
					t.Errorf("the connection ended after %v", took)
				}
			})
		})
	}
}

func TestAfterShutdown(t *testing.T) {
	f := startTCP(t, authrequest.Options{})
	f.ask(t, get("Bearer "+goodToken))
	for range 2 {
		if err := f.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	}
	if conn, err := net.Dial("tcp", f.listener.Addr().String()); err == nil {
		_ = conn.Close()
		t.Error("the address still answers")
	}
	if err := f.Serve(newPipes()); err != nil {
		t.Errorf("Serve after Shutdown: %v", err)
	}
}

func TestServeSaysWhyTheListenerFailed(t *testing.T) {
	errBroken := errors.New("the listener is broken")
	s := authrequest.NewServer(newGate(t, newOracle()), authrequest.Options{Wait: time.Second})
	if err := s.Serve(broken{newPipes(), errBroken}); !errors.Is(err, errBroken) {
		t.Errorf("Serve: %v", err)
	}
}

type broken struct {
	net.Listener
	err error
}

func (b broken) Accept() (net.Conn, error) { return nil, b.err }

// TestTroubleOfConnectionsIsForDebugging: what net/http has to say of them is not
// for every day.
func TestTroubleOfConnectionsIsForDebugging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs journal
		f := start(t, &flaky{pipes: newPipes()}, authrequest.Options{Logger: logs.logger()})
		w := &wire{}
		w.Conn, _ = f.listener.(*flaky).dial(t.Context())
		w.replies = bufio.NewReader(w)
		defer w.Close()
		w.send(t, lines(get("Bearer "+goodToken)))
		if got := w.receive(t, http.MethodGet); got.StatusCode != http.StatusOK {
			t.Errorf("status %d", got.StatusCode)
		}
		if text := logs.text(); !strings.Contains(text, `"level":"DEBUG","msg":"http: Accept error: no room for a moment;`) || strings.Count(text, "\n") != 1 {
			t.Errorf("the log says %s", text)
		}
	})
}

// flaky fails once, for a moment.
type flaky struct {
	*pipes
	failed bool
}

func (f *flaky) Accept() (net.Conn, error) {
	if !f.failed {
		f.failed = true
		return nil, momentary{}
	}
	return f.pipes.Accept()
}

type momentary struct{}

func (momentary) Error() string   { return "no room for a moment" }
func (momentary) Temporary() bool { return true }
func (momentary) Timeout() bool   { return false }
