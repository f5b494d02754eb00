package faults_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bearergate/bearergate/crmnow"
)

// TestColdStart asks about good tokens, all of them new, four times as often as the
// endpoint can answer: a twentieth of 10,000 tokens at 2,000 requests a second that
// meet an endpoint with 100 ms, in a quarter of the time.
func TestColdStart(t *testing.T) {
	const (
		tokensAtAll = 700
		every       = 2 * time.Millisecond
		delay       = 50 * time.Millisecond
		atOnce      = 6 // 8, less the 2 for tokens that were good before
	)
	s := newSite(t)
	s.straight()
	g := s.gateway(t, settings{"max": "8", "reserved": "2", "max_waiting": "1000", "max_wait": "1s", "timeout": "30s"})
	s.trouble(t, crmnow.Fault{Delay: delay})
	tokens := s.issueMany(t, tokensAtAll)
	warm := make([]atomic.Bool, tokensAtAll)
	var cold, requests, shed atomic.Int64
	cold.Store(tokensAtAll)
	var asking sync.WaitGroup
	begin := time.Now()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := 0; cold.Load() > 0; i++ {
		<-tick.C
		if time.Since(begin) > patience {
			t.Errorf("%d tokens are cold after %v", cold.Load(), patience)
			break
		}
		token := i % tokensAtAll
		asking.Go(func() {
			requests.Add(1)
			wasWarm := warm[token].Load() // one that is turned away may hear of it only when another was allowed
			switch a := g.ask(t, face(i%faces), tokens[token]); {
			case a.allowed():
				if !warm[token].Swap(true) {
					cold.Add(-1)
				}
			case a.overloaded() && !wasWarm:
				shed.Add(1)
			default:
				t.Errorf("good token %d (warm: %t) got %v", token, wasWarm, a)
			}
		})
	}
	took := time.Since(begin)
	asking.Wait()
	t.Logf("%d tokens are warm after %v and %d requests, of which %d were turned away; the endpoint alone would take %v",
		tokensAtAll, took.Round(time.Millisecond), requests.Load(), shed.Load(), tokensAtAll/atOnce*delay)
	for i, token := range tokens {
		if n := s.calls(token); n != 1 {
			t.Errorf("the endpoint was asked %d times about token %d", n, i)
		}
	}
	if n := s.Stats().Verify.MaxInFlight; n > atOnce {
		t.Errorf("there were %d calls at once for tokens that were not seen before, want %d at most", n, atOnce)
	}
}

// TestNewTokensAreAskedAboutInTheOrderOfTheirArrival lets one call at a time through,
// and one beside it for a token that was good before, which does not wait behind the
// others.
func TestNewTokensAreAskedAboutInTheOrderOfTheirArrival(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	g := s.gateway(t, settings{"max": "2", "reserved": "1", "max_wait": "60s", "timeout": "60s", "valid_ttl": "1ms"})
	known := s.issueMany(t, 1)
	g.learn(t, known)
	before := s.Stats().Verify.Requests
	requests := func(n int) {
		t.Helper()
		eventually(t, fmt.Sprintf("the endpoint has question %d", n), func() error {
			if got := int(s.Stats().Verify.Requests - before); got != n {
				return fmt.Errorf("it has had %d", got)
			}
			return nil
		})
	}
	step := func() { s.trouble(t, crmnow.Fault{Hang: true}) } // and who hung before is answered

	step()
	var tokens []string
	var asking sync.WaitGroup
	defer asking.Wait() // also if the test fails
	defer s.ClearFaults()
	ask := func(token string, right func(answer) bool) {
		asking.Go(func() {
			if a := g.ask(t, envoy, token); !right(a) {
				t.Errorf("got %v", a)
			}
		})
	}
	for i := range 12 {
		if i%3 == 2 {
			tokens = append(tokens, s.invent())
			ask(tokens[i], answer.refused)
		} else {
			tokens = append(tokens, s.issue(t))
			ask(tokens[i], answer.allowed)
		}
		requests(1)
		eventually(t, "the token waits", func() error {
			if n := g.metric(t, "bearergate_verifier_calls_waiting"); n != float64(i) {
				return fmt.Errorf("%v wait, want %d", n, i)
			}
			return nil
		})
	}
	ask(known[0], answer.allowed)
	requests(2)
	if n := s.calls(known[0]); n < 2 {
		t.Error("a token that was good before waits behind new ones")
	}
	for i := range tokens {
		requests(2 + i)
		for j, token := range tokens {
			want := 0
			if j <= i {
				want = 1
			}
			if n := s.calls(token); n != want {
				t.Fatalf("when token %d is asked about, token %d was asked about %d times", i, j, n)
			}
		}
		step()
	}
	asking.Wait()
}
