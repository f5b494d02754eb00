package faults_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/bearergate/bearergate/crmnow"
)

// pooled gives a site a gateway that never stops asking, and many connections that
// idle.
func pooled(t *testing.T, s *site) *gateway {
	t.Helper()
	g := s.gateway(t, settings{"timeout": "3s", "max": "40", "reserved": "1", "max_wait": "10s", "failures": "1000", "of_last": "1000"})
	tokens := s.issueMany(t, 39)
	end := s.trouble(t, crmnow.Fault{Hang: true}) // until each question has a connection of its own
	var asking sync.WaitGroup
	asking.Go(func() { g.askAll(t, tokens) })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := s.AwaitVerifying(ctx, len(tokens))
	end()
	asking.Wait()
	if err != nil {
		t.Fatal(err)
	}
	g.learn(t, tokens)
	_, port := hostPort(t, s.crossing.Listen)
	// Each connection has two ends in this process, and there is the listener.
	if n := (socketsAt(map[int]bool{port: true}) - 1) / 2; n < 10 {
		t.Fatalf("there are %d connections to the endpoint, want many", n)
	}
	return g
}

// endpoints are where connections idle.
var endpoints = map[string]func(*testing.T) *site{
	"in clear":                            newSite,
	"TLS":                                 h1,
	"TLS, and the endpoint offers HTTP/2": h2,
}

// TestConnectionsThatDiedCostOneQuestion has all idle connections die without a
// sign. Whoever asks first cannot be helped; whoever asks then must not suffer from
// the others.
func TestConnectionsThatDiedCostOneQuestion(t *testing.T) {
	for name, newHere := range endpoints {
		for _, atOnce := range []int{1, 8} {
			t.Run(fmt.Sprintf("%s, %d at once", name, atOnce), func(t *testing.T) {
				t.Parallel()
				s := newHere(t)
				g := pooled(t, s)
				s.crossing.silence.fall()
				s.crossing.silence.rise()
				for _, a := range g.askAll(t, s.issueMany(t, atOnce)) {
					if !a.allowed() && !a.unavailable() {
						t.Errorf("a good token got %v", a)
					}
				}
				for _, a := range g.askAll(t, s.issueMany(t, atOnce)) {
					if !a.allowed() {
						t.Errorf("a good token got %v after others had found the connections dead", a)
					}
				}
			})
		}
	}
}

// TestConnectionsThatCloseWhenUsedCostNothing has the network forget all idle
// connections, as a firewall does that is started anew, and say so when they are
// used.
func TestConnectionsThatCloseWhenUsedCostNothing(t *testing.T) {
	for name, newHere := range endpoints {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newHere(t)
			g := pooled(t, s)
			s.crossing.silence.forget()
			for _, token := range s.issueMany(t, 3) {
				if a := g.ask(t, nginx, token); !a.allowed() {
					t.Errorf("a good token got %v", a)
				}
				if n := s.calls(token); n != 1 {
					t.Errorf("the endpoint was asked %d times about one token", n)
				}
			}
		})
	}
}
