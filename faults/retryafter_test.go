package faults_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/bearergate/bearergate/crmnow"
)

// TestRetryAfterIsObeyed has the endpoint ask to be left alone, and looks whether it
// is, and what partners are told.
func TestRetryAfterIsObeyed(t *testing.T) {
	in40s := func() string { return time.Now().Add(40 * time.Second).UTC().Format(http.TimeFormat) }
	for _, c := range []struct {
		name        string
		status      int
		retryAfter  string
		least, most int // of what partners are told, in seconds
	}{
		{"429, 40 s", 429, "40", 10, 40},
		{"503, 40 s", 503, "40", 10, 40},
		{"503, a date", 503, in40s(), 9, 40},
		{"429, a day", 429, "86400", 10, 60},
		{"503, longer than any number", 503, "99999999999999999999", 10, 60},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			g := s.gateway(t, nil)
			known := s.issueMany(t, 2)
			g.learn(t, known)
			asked := s.Stats().Verify.Requests
			s.trouble(t, crmnow.Fault{Status: c.status, RetryAfter: c.retryAfter})

			tokens := append(s.issueMany(t, 4), s.inventMany(4)...)
			if a := g.ask(t, nginx, tokens[0]); !a.unavailable() {
				t.Errorf("a good token got %v from an endpoint that is busy", a)
			}
			// All who come later are told the rest of the time, and the endpoint is not
			// asked, though it would answer now.
			s.ClearFaults()
			for _, a := range g.askAll(t, tokens) {
				if !a.unavailable() || a.retryAfter < c.least || a.retryAfter > c.most {
					t.Errorf("got %v, want to come again after %d to %d s", a, c.least, c.most)
				}
			}
			if n := s.Stats().Verify.Requests - asked; n != 1 {
				t.Errorf("the endpoint was asked %d times, want once", n)
			}
			for _, a := range g.askAll(t, known) {
				if !a.allowedFrom("cache") {
					t.Errorf("a token that is known to be good got %v", a)
				}
			}
		})
	}
}

// TestRetryAfterThatSaysNothing is asked again at once.
func TestRetryAfterThatSaysNothing(t *testing.T) {
	for _, value := range []string{"", "0", "-5", "soon", "1.5", "Mon, 01 Jan 2001 00:00:00 GMT"} {
		t.Run(value, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			g := s.gateway(t, nil)
			s.trouble(t, crmnow.Fault{Status: 503, RetryAfter: value, Times: 2})
			tokens := s.issueMany(t, 3)
			for i, token := range tokens {
				if a := g.ask(t, envoy, token); a.allowed() != (i == 2) || a.unavailable() != (i < 2) {
					t.Errorf("token %d got %v, after two replies with status 503 the endpoint is well", i, a)
				}
			}
			if a := g.ask(t, envoy, tokens[0]); !a.allowed() {
				t.Errorf("a good token got %v when the endpoint was well again", a)
			}
		})
	}
}
