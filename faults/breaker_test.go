package faults_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bearergate/bearergate/crmnow"
)

// TestBreaker breaks the endpoint, has many clients ask about new tokens, and looks
// how often the endpoint is called while it is broken, and by how many at once.
func TestBreaker(t *testing.T) {
	t.Parallel()
	const openFor = 100 * time.Millisecond
	s := newSite(t)
	g := s.gateway(t, settings{"failures": "5", "of_last": "5", "open_for": openFor.String(), "timeout": "30s"})
	s.trouble(t, crmnow.Fault{Status: 500, Delay: 20 * time.Millisecond})
	for i := range 5 {
		if a := g.ask(t, nginx, s.issue(t)); !a.unavailable() {
			t.Errorf("token %d got %v", i, a)
		}
	}
	begin := time.Now()
	if n := s.Stats().Verify.Requests; n != 5 {
		t.Fatalf("the endpoint was asked %d times, want 5", n)
	}

	var stop atomic.Bool
	var asking sync.WaitGroup
	defer asking.Wait() // also if the test fails
	defer stop.Store(true)
	var asked atomic.Int64
	for i := range 20 {
		asking.Go(func() {
			for !stop.Load() {
				asked.Add(1)
				if a := g.ask(t, face(i%faces), s.invent()); !a.unavailable() {
					t.Errorf("a made-up token got %v", a)
				}
				pauseFor(20 * time.Millisecond)
			}
		})
	}
	eventually(t, "ten calls tried the endpoint", func() error {
		if n := s.Stats().Verify.Requests; n < 15 {
			return fmt.Errorf("there were %d", n-5)
		}
		return nil
	})
	probes := s.Stats().Verify.Requests - 5 // before the time is looked at, so that it holds them all
	lasted := time.Since(begin)
	stop.Store(true)
	asking.Wait()
	t.Logf("%d requests in %v, %d calls", asked.Load(), lasted.Round(time.Millisecond), probes)
	if most := int64(lasted/openFor) + 1; probes > most {
		t.Errorf("the endpoint was called %d times in %v while the breaker was open for %v each time", probes, lasted, openFor)
	}
	if n := s.Stats().Verify.MaxInFlight; n != 1 {
		t.Errorf("there were %d calls at once, want one that tries", n)
	}

	s.ClearFaults()
	begin = time.Now()
	token := s.issue(t)
	eventually(t, "the breaker closes", func() error {
		if a := g.ask(t, envoy, token); !a.allowed() {
			return fmt.Errorf("a good token got %v", a)
		}
		return nil
	})
	t.Logf("all is well %v after the end", time.Since(begin).Round(time.Millisecond))
	for _, a := range g.askAll(t, s.issueMany(t, 20)) {
		if !a.allowed() {
			t.Errorf("a good token got %v after the breaker had closed", a)
		}
	}
}

// TestNobodyWaitsForTheOneThatTries has the call hang that tries a broken endpoint.
func TestNobodyWaitsForTheOneThatTries(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	g := s.gateway(t, settings{"failures": "1", "of_last": "1", "open_for": "10ms", "timeout": "30s"})
	s.trouble(t, crmnow.Fault{Status: 500})
	if a := g.ask(t, nginx, s.issue(t)); !a.unavailable() {
		t.Errorf("got %v", a)
	}
	s.trouble(t, crmnow.Fault{Hang: true})
	answered := make(chan answer, 1)
	for trying := false; !trying; {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		var asking sync.WaitGroup
		asking.Go(func() { trying = s.AwaitVerifying(ctx, 1) == nil; cancel() })
		go func() { answered <- g.ask(t, envoy, s.issue(t)) }()
		select {
		case a := <-answered: // the breaker is still open
			if !a.unavailable() {
				t.Errorf("got %v", a)
			}
		case <-ctx.Done():
		}
		cancel()
		asking.Wait()
	}
	for _, a := range g.askAll(t, append(s.issueMany(t, 20), s.inventMany(20)...)) {
		if !a.unavailable() {
			t.Errorf("got %v while another tries", a)
		}
	}
	if stats := s.Stats().Verify; stats.InFlight != 1 || stats.MaxInFlight != 1 || stats.Requests != 2 {
		t.Errorf("the endpoint has had %d questions, %d at once, and has %d now; want 2, 1 and 1", stats.Requests, stats.MaxInFlight, stats.InFlight)
	}
	s.ClearFaults() // which answers the one that hangs
	if a := <-answered; !a.allowed() {
		t.Errorf("the one that tried got %v", a)
	}
	for _, a := range g.askAll(t, s.issueMany(t, 5)) {
		if !a.allowed() {
			t.Errorf("a good token got %v after the breaker had closed", a)
		}
	}
}
