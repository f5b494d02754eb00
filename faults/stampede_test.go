package faults_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bearergate/bearergate/crmnow"
)

// TestStampede has 200 requests for five good tokens and one made-up one arrive at
// once, also where the cache has room for a single token.
func TestStampede(t *testing.T) {
	for _, room := range []string{"1000", "1"} {
		t.Run("a cache for "+room, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			g := s.gateway(t, settings{"max_tokens": room, "max_wait": "30s", "timeout": "30s"})
			s.trouble(t, crmnow.Fault{Hang: true}) // until all are there
			tokens := append(s.issueMany(t, 5), s.invent())
			requests := make([]string, 0, 200)
			for i := range 200 {
				requests = append(requests, tokens[i%len(tokens)])
			}
			var answers []answer
			var asking sync.WaitGroup
			defer asking.Wait() // also if the test fails
			defer s.ClearFaults()
			asking.Go(func() { answers = g.askAll(t, requests) })
			eventually(t, "all requests wait", func() error {
				if n := g.metric(t, "bearergate_cache_waiting_requests"); n != float64(len(requests)) {
					return fmt.Errorf("%v wait", n)
				}
				return nil
			})
			s.ClearFaults()
			asking.Wait()
			for i, a := range answers {
				if good := i%len(tokens) < 5; good && !a.allowed() || !good && !a.refused() {
					t.Errorf("a token (good: %t) got %v", good, a)
				}
			}
			for i, token := range tokens {
				if n := s.calls(token); n != 1 {
					t.Errorf("the endpoint was asked %d times about token %d", n, i)
				}
			}
		})
	}
}

// TestFreshTokensUnderLoad asks about 5,000 tokens that nobody has seen, and about
// each twice: together with others, and a little later.
func TestFreshTokensUnderLoad(t *testing.T) {
	const (
		tokensAtAll = 5000
		atOnce      = 64
		later       = 40 // requests until a token comes again, so often while it is asked about
	)
	s := newSite(t)
	s.straight()
	g := s.gateway(t, settings{"max": "64", "reserved": "16", "max_waiting": "10000", "max_wait": "30s", "timeout": "30s", "max_tokens": "10000"})
	tokens := s.issueMany(t, tokensAtAll)
	var next atomic.Int64
	var asking sync.WaitGroup
	begin := time.Now()
	for worker := range atOnce {
		asking.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= tokensAtAll+later {
					return
				}
				for _, j := range [2]int{i, i - later} {
					if j < 0 || j >= tokensAtAll {
						continue
					}
					if a := g.ask(t, face((worker+j)%faces), tokens[j]); !a.allowed() {
						t.Errorf("good token %d got %v", j, a)
					}
				}
			}
		})
	}
	asking.Wait()
	t.Logf("%d requests for %d tokens in %v", 2*tokensAtAll, tokensAtAll, time.Since(begin).Round(time.Millisecond))
	for i, token := range tokens {
		if n := s.calls(token); n != 1 {
			t.Errorf("the endpoint was asked %d times about token %d", n, i)
		}
	}
	if n := s.Stats().Verify.Requests; n != tokensAtAll {
		t.Errorf("the endpoint was asked %d times, want once for each of %d tokens", n, tokensAtAll)
	}
}
