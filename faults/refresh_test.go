package faults_test

import (
	"fmt"
	"testing"

	"github.com/bearergate/bearergate/crmnow"
)

// TestRenewalThatFails has the endpoint fail just when an answer in use is to be
// renewed: who uses it sees nothing, and it is renewed a little later.
func TestRenewalThatFails(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	g := s.gateway(t, settings{"valid_ttl": "4s", "refresh_before": "2s"})
	known := s.issueMany(t, 1)
	g.learn(t, known)
	learnt := s.calls(known[0])
	s.trouble(t, crmnow.Fault{Status: 500, Times: 1})
	eventually(t, "the token is renewed after it could not be", func() error {
		if a := g.ask(t, envoy, known[0]); !a.allowedFrom("cache") {
			t.Errorf("a token in use got %v", a)
		}
		if n := s.calls(known[0]) - learnt; n < 2 {
			return fmt.Errorf("the endpoint was asked %d times", n)
		}
		return nil
	})
	if faulted := s.Stats().Verify.Faulted; faulted != 1 {
		t.Errorf("%d questions met the fault", faulted)
	}
}

// TestOutageThatOutlastsAnAnswer has a token in use from before an outage until
// after it: it is allowed, then nobody can tell, then it is allowed again.
func TestOutageThatOutlastsAnAnswer(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	g := s.gateway(t, settings{"valid_ttl": "2s", "refresh_before": "1s"})
	known := s.issueMany(t, 1)
	g.learn(t, known)
	asked := s.Stats().Verify.Requests
	s.crossing.Stop()
	inForce := 0
	eventually(t, "the answer ends", func() error {
		a := g.ask(t, envoy, known[0])
		switch {
		case a.allowedFrom("cache"):
			inForce++
			return fmt.Errorf("got %v", a)
		case !a.unavailable():
			t.Errorf("a good token got %v in an outage", a)
		}
		return nil
	})
	if inForce == 0 {
		t.Error("the token was not allowed at all within the life of its answer")
	}
	if n := s.Stats().Verify.Requests - asked; n != 0 {
		t.Errorf("the endpoint got %d questions while it could not be reached", n)
	}
	s.crossing.open(t)
	eventually(t, "the token is allowed again", func() error {
		a := g.ask(t, envoy, known[0])
		if !a.allowed() && !a.unavailable() {
			t.Errorf("a good token got %v after an outage", a)
		}
		if !a.allowed() {
			return fmt.Errorf("got %v", a)
		}
		return nil
	})
}

// TestTokenThatEndsInUse has a token withdrawn while it is in use: its renewal says
// so, and nothing brings it back.
func TestTokenThatEndsInUse(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	g := s.gateway(t, settings{"valid_ttl": "2s", "refresh_before": "1s", "stale_if_error": "300s", "invalid_ttl": "1ms"})
	known := s.issueMany(t, 1)
	g.learn(t, known)
	s.Revoke(crmnow.NewSecret(known[0]))
	eventually(t, "the token is refused", func() error {
		a := g.ask(t, envoy, known[0])
		if !a.allowedFrom("cache") && !a.refused() {
			t.Errorf("a token that was withdrawn got %v", a)
		}
		if !a.refused() {
			return fmt.Errorf("got %v", a)
		}
		return nil
	})
	// It stays refused without being asked about, also while nobody can tell.
	asked := s.calls(known[0])
	s.crossing.Stop()
	for range 5 {
		for f := range face(faces) {
			if a := g.ask(t, f, known[0]); !a.refused() {
				t.Errorf("a token that was withdrawn got %v", a)
			}
		}
		pause()
	}
	if n := s.calls(known[0]); n != asked {
		t.Errorf("the endpoint was asked %d times more", n-asked)
	}
}
