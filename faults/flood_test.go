package faults_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bearergate/bearergate/crmnow"
)

// TestFlood has 256 clients send made-up tokens as fast as they are answered,
// against an endpoint that takes 100 ms, while partners go on. Their answers last so
// short that they are renewed in the middle of it.
func TestFlood(t *testing.T) {
	const (
		clients  = 256
		most     = 24
		ttl      = 2 * time.Second
		earliest = 800 * time.Millisecond // a life is a tenth shorter at most, and renewed in its second half
	)
	s := newSite(t)
	s.straight()
	g := s.gateway(t, settings{
		"max": fmt.Sprint(most), "reserved": "6", "max_waiting": "60", "max_wait": "30s", "timeout": "30s",
		"valid_ttl": ttl.String(), "refresh_before": "1s",
	})
	known := s.issueMany(t, 20)
	g.learn(t, known)
	s.trouble(t, crmnow.Fault{Delay: 100 * time.Millisecond})

	var stop atomic.Bool
	var asking sync.WaitGroup
	defer asking.Wait() // also if the test fails
	defer stop.Store(true)
	var allowed, waited, refused, shed atomic.Int64
	for range clients {
		asking.Go(func() {
			for !stop.Load() {
				token := s.invent()
				switch a := g.ask(t, nginx, token); {
				case a.refused():
					refused.Add(1)
				case a.overloaded():
					shed.Add(1)
					pauseFor(200 * time.Millisecond) // what such a client does not do would take all of this machine
				default:
					t.Errorf("a made-up token got %v", a)
				}
				if n := s.calls(token); n > 1 {
					t.Errorf("the endpoint was asked %d times about a made-up token", n)
				}
			}
		})
	}
	begin := time.Now()
	for first := range 4 {
		asking.Go(func() {
			for i := first; !stop.Load(); i++ {
				a := g.ask(t, envoy, known[i%len(known)])
				if !a.allowed() {
					t.Errorf("a token that was known to be good got %v", a)
				}
				allowed.Add(1)
				if a.source != "cache" {
					waited.Add(1)
				}
				pauseFor(10 * time.Millisecond)
			}
		})
	}
	eventually(t, "all tokens that are in use were renewed twice during the flood", func() error {
		for _, token := range known {
			if n := s.calls(token); n < 3 {
				return fmt.Errorf("the endpoint was asked %d times about one", n)
			}
		}
		if shed.Load() == 0 || refused.Load() == 0 {
			return fmt.Errorf("%d made-up tokens were refused, %d were turned away", refused.Load(), shed.Load())
		}
		return nil
	})
	stop.Store(true)
	asking.Wait()
	lasted := time.Since(begin)

	t.Logf("in %v: %d requests with known tokens, all allowed, %d of them had to wait; of the made-up ones %d refused, %d turned away; %d calls at once",
		lasted.Round(time.Millisecond), allowed.Load(), waited.Load(), refused.Load(), shed.Load(), s.Stats().Verify.MaxInFlight)
	if n := s.Stats().Verify.MaxInFlight; n > most {
		t.Errorf("there were %d calls at once, want %d at most", n, most)
	}
	// The flood does not have them renewed more often either.
	for _, token := range known {
		if n, most := s.calls(token), 2+int(lasted/earliest); n > most {
			t.Errorf("the endpoint was asked %d times about one token in %v, want %d at most", n, lasted, most)
		}
	}
}
