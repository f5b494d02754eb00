package admin_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bearergate/bearergate/admin"
)

func TestStates(t *testing.T) {
	f := start(t)
	crm := admin.Part{Name: "verifier crm", Ready: true}
	f.Parts(func() []admin.Part { return []admin.Part{{Name: "listeners", Ready: true}, crm} })
	const parts = `,"parts":[{"part":"configuration","ready":true},{"part":"listeners","ready":true},{"part":"verifier crm","ready":true}]}`
	expect := func(when, path string, status int, body string) {
		t.Helper()
		got := f.ask(t, http.MethodGet, path)
		if got.StatusCode != status || got.body != body+"\n" {
			t.Errorf("%s: %s says %d %s, want %d %s", when, path, got.StatusCode, got.body, status, body)
		}
		if got.Header.Get("Content-Type") != "application/json" || got.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %s has the header %v", when, path, got.Header)
		}
		if head := f.ask(t, http.MethodHead, path); head.StatusCode != status || head.body != "" {
			t.Errorf("%s: HEAD %s says %d %q", when, path, head.StatusCode, head.body)
		}
	}
	for _, step := range []struct {
		name   string
		do     func()
		status int
		body   string
	}{
		{"at first", func() {}, http.StatusServiceUnavailable, `{"status":"starting"` + parts},
		{"once ready", f.Ready, http.StatusOK, `{"status":"ready"` + parts},
		{"ready twice", f.Ready, http.StatusOK, `{"status":"ready"` + parts},
		{
			"with a part that is not", func() { crm.Ready, crm.Reason = false, "it gave no answers" }, http.StatusServiceUnavailable,
			`{"status":"not_ready","parts":[{"part":"configuration","ready":true},{"part":"listeners","ready":true},{"part":"verifier crm","ready":false,"reason":"it gave no answers"}]}`,
		},
		{"with all parts again", func() { crm.Ready, crm.Reason = true, "" }, http.StatusOK, `{"status":"ready"` + parts},
		{"about to stop", f.Unready, http.StatusServiceUnavailable, `{"status":"stopping"` + parts},
	} {
		step.do()
		expect(step.name, "/readyz", step.status, step.body)
		expect(step.name, "/livez", http.StatusOK, `{"status":"alive","parts":[{"part":"process","ready":true}]}`)
		if got := f.series(t)["bearergate_ready{}"]; got == 1 != (step.status == http.StatusOK) {
			t.Errorf("%s: the metric is %v", step.name, got)
		}
	}
}

func TestOtherMethodsAndPaths(t *testing.T) {
	f := start(t)
	f.Ready()
	for _, path := range []string{"/livez", "/readyz", "/metrics"} {
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "BREW"} {
			got := f.ask(t, method, path)
			if got.StatusCode != http.StatusMethodNotAllowed || got.Header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %d, allowed is %q", method, path, got.StatusCode, got.Header.Get("Allow"))
			}
		}
	}
	for _, path := range []string{"/livez/", "/livez/x", "/readyz/", "/metrics/x", "/Metrics", "/metricsx", "/debug/pprof/", "/debug/vars", "/auth", "/config", "/favicon.ico"} {
		for _, method := range []string{"GET", "POST"} {
			if got := f.ask(t, method, path); got.StatusCode != http.StatusNotFound {
				t.Errorf("%s %q: %d", method, path, got.StatusCode)
			}
		}
	}
}

func TestLimitsOfARequest(t *testing.T) {
	f := start(t)
	if got := f.ask(t, http.MethodGet, "/livez", "X-Long", strings.Repeat("x", 15<<10)); got.StatusCode != http.StatusOK {
		t.Errorf("a long header: %d", got.StatusCode)
	}
	if got := f.ask(t, http.MethodGet, "/livez", "X-Long", strings.Repeat("x", 24<<10)); got.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("too long a header: %d", got.StatusCode)
	}
}

func TestSlowClientIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newPipes()
		s := admin.NewServer(admin.NewMetrics("test"), nil)
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		conn := l.dial()
		defer conn.Close()
		begin := time.Now()
		if _, err := io.WriteString(conn, "GET /livez HTTP/1.1\r\n"); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(conn); err != nil || len(rest) > 0 || time.Since(begin) != 5*time.Second {
			t.Errorf("after %v: %q, %v", time.Since(begin), rest, err)
		}

		// An idle connection goes after two minutes.
		conn = l.dial()
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		replies := bufio.NewReader(conn)
		resp, err := http.ReadResponse(replies, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		begin = time.Now()
		if rest, err := io.ReadAll(replies); err != nil || len(rest) > 0 || time.Since(begin) != 2*time.Minute {
			t.Errorf("after %v: %q, %v", time.Since(begin), rest, err)
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

func TestShutdownIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = time.Second
		l := newPipes()
		s := admin.NewServer(admin.NewMetrics("test"), nil)
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		conn := l.dial() // it says nothing
		defer conn.Close()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		begin := time.Now()
		if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != limit {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		if rest, err := io.ReadAll(conn); err != nil || len(rest) > 0 || time.Since(begin) != limit {
			t.Errorf("the connection that was to be cut off, after %v: %q, %v", time.Since(begin), rest, err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := s.Serve(newPipes()); err != nil {
			t.Errorf("Serve after Shutdown: %v", err)
		}
	})
}

func TestServeSaysWhyTheListenerFailed(t *testing.T) {
	errBroken := errors.New("the listener is broken")
	s := admin.NewServer(admin.NewMetrics("test"), nil)
	if err := s.Serve(broken{newPipes(), errBroken}); !errors.Is(err, errBroken) {
		t.Errorf("Serve: %v", err)
	}
}

type broken struct {
	net.Listener
	err error
}

func (b broken) Accept() (net.Conn, error) { return nil, b.err }
