package talkers

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bearergate/bearergate/gate"
)

// zipf draws keys as they come in the world: few of them often, many seldom.
func zipf(n uint64, s float64) func() int {
	z := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), s, 1, n-1)
	return func() int { return int(z.Uint64()) }
}

// check holds what was counted against what there was, by what the sketch promises.
func check(t *testing.T, all []slot[int], exact map[int]uint64, bound uint64) {
	t.Helper()
	there := map[int]bool{}
	for _, s := range all {
		there[s.key] = true
		if n := exact[s.key]; s.count < n || s.count-s.error > n || s.error > bound {
			t.Errorf("%d: counted %d, with an error of %d; it is %d, and the bound is %d", s.key, s.count, s.error, n, bound)
		}
	}
	for key, n := range exact {
		if n > bound && !there[key] {
			t.Errorf("%d, which came %d times, is not there; the bound is %d", key, n, bound)
		}
	}
}

func TestASketchKeepsItsBounds(t *testing.T) {
	streams := map[string]func() int{
		"as in the world":             zipf(100_000, 1.1),
		"a few that stand out":        zipf(100_000, 2),
		"all different":               func() func() int { n := 0; return func() int { n++; return n } }(),
		"fewer than there is room":    zipf(20, 1.1),
		"one that is among strangers": func() func() int { n := 0; return func() int { n++; return n * (n % 50) } }(),
	}
	for name, next := range streams {
		for _, size := range []int{1, 16, 256} {
			t.Run(fmt.Sprintf("%s, %d places", name, size), func(t *testing.T) {
				s, exact, total := sketch[int]{size: size}, map[int]uint64{}, uint64(0)
				for range 50_000 {
					key, weight := next(), 1+rand.Uint64N(3)
					s.add(key, weight, gate.Valid)
					exact[key] += weight
					total += weight
				}
				if len(s.slots) > size || len(s.where) != len(s.slots) {
					t.Fatalf("there are %d keys at %d places", len(s.where), len(s.slots))
				}
				sum := uint64(0)
				for _, slot := range s.slots {
					sum += slot.count
				}
				if sum != total {
					t.Errorf("%d is counted of %d", sum, total)
				}
				check(t, s.slots, exact, total/uint64(size))
			})
		}
	}
}

func TestMergedSketchesKeepTheirBounds(t *testing.T) {
	const size, sketches = 64, 5
	var all []*sketch[int]
	exact, bound := map[int]uint64{}, uint64(0)
	for i := range sketches {
		next := zipf(10_000, 1.2)
		s := &sketch[int]{size: size}
		for range 20_000 {
			key := next() + 3*i // the busy ones are others in each
			s.add(key, 1, gate.Valid)
			exact[key]++
		}
		bound += s.least()
		all = append(all, s)
	}
	all = append(all, &sketch[int]{size: size}) // one in which nothing happened
	check(t, merged(all), exact, bound)
}

// event is a decision about a token.
func event(reason gate.Reason, token, client string, weight uint32) *gate.Event {
	e := &gate.Event{At: time.Now(), Policy: "default", Reason: reason, Fingerprint: token, Weight: weight}
	e.Client, _ = netip.ParseAddr(client)
	return e
}

func named(t *testing.T, all []Talker, name string) Talker {
	t.Helper()
	for _, one := range all {
		if one.Name == name {
			return one
		}
	}
	t.Errorf("%s is not among %+v", name, all)
	return Talker{}
}

// TestAFloodPushesNobodyOut: neither who is allowed, nor who is refused often.
func TestAFloodPushesNobodyOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := New()
		for i := range 100_000 {
			if i%200 == 0 {
				<-time.After(time.Second) // so that each is counted
			}
			all.Note(event(gate.InvalidToken, fmt.Sprintf("%012x", i), fmt.Sprintf("2001:db8:%x:%x::1", i>>16, i&0xffff), 1))
			if i%100 == 0 { // a hundredth of the flood
				all.Note(event(gate.InvalidToken, "wild", "192.0.2.1", 1))
			}
			if i%1000 == 0 {
				all.Note(event(gate.Valid, "busy", "192.0.2.2", gate.Sampled))
			}
			if i%5000 == 0 {
				all.Note(event(gate.Valid, "less", "192.0.2.3", gate.Sampled))
			}
		}
		for _, at := range all.steps {
			for _, k := range []kinds{at.allowed, at.refused} {
				if n := max(len(k.tokens.slots), len(k.clients.slots), len(k.policies.slots)); n > places {
					t.Errorf("%d are counted", n)
				}
			}
		}
		for _, top := range all.Top() {
			if first := top.Refused.Tokens[0]; first.Name != "wild" || first.AtLeast < 2*min(500, uint64(top.Window/time.Second))*9/10 || first.Reason != gate.InvalidToken {
				t.Errorf("refused most is %+v", first)
			}
			if first := top.Refused.Clients[0]; first.Name != "192.0.2.1" {
				t.Errorf("refused most is %+v", first)
			}
			if got := top.Allowed.Tokens; len(got) != 2 || got[0].Name != "busy" || got[1].Name != "less" || got[0].Requests != got[0].AtLeast || got[0].Requests%gate.Sampled != 0 {
				t.Errorf("allowed most are %+v", got)
			}
			if got := top.Allowed.Clients; len(got) != 2 || got[0].Name != "192.0.2.2" {
				t.Errorf("allowed most are %+v", got)
			}
			if len(top.Refused.Tokens) != shown || len(top.Refused.Policies) != 1 || top.Refused.Policies[0].Name != "default" {
				t.Errorf("shown are %+v", top.Refused)
			}
		}
	})
}

func TestWhatWasLongAgoIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := New()
		in := func(window int) []Talker { return all.Top()[window].Allowed.Tokens }
		all.Note(event(gate.Valid, "early", "", 1))
		<-time.After(4 * time.Minute)
		all.Note(event(gate.Valid, "late", "", 2))
		if got := in(0); len(got) != 2 || got[0].Name != "late" {
			t.Errorf("after 4 minutes: %+v", got)
		}
		<-time.After(3 * time.Minute)
		if got := in(0); len(got) != 1 || got[0].Name != "late" {
			t.Errorf("after 7 minutes: %+v", got)
		}
		if got := in(1); len(got) != 2 {
			t.Errorf("after 7 minutes, of 15: %+v", got)
		}
		<-time.After(10 * time.Minute)
		if got := in(1); len(got) != 1 || got[0].Name != "late" {
			t.Errorf("after 17 minutes, of 15: %+v", got)
		}
		all.Note(&gate.Event{At: time.Now().Add(-time.Hour), Reason: gate.Valid, Fingerprint: "stale", Weight: 1}) // its step is another one's now
		<-time.After(10 * time.Minute)
		if got := all.Top(); len(got[0].Allowed.Tokens)+len(got[1].Allowed.Tokens) != 0 {
			t.Errorf("after 27 minutes: %+v", got)
		}
	})
}

// TestAFloodInASecondIsCountedByChance, and as large as it is.
func TestAFloodInASecondIsCountedByChance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 100_000
		all := New()
		for range n {
			all.Note(event(gate.MissingToken, "none", "192.0.2.1", 1))
			all.Note(event(gate.Valid, "busy", "", 1)) // these are not spared
		}
		top := all.Top()[0]
		if got := top.Refused.Tokens[0].Requests; got < n*9/10 || got > n*11/10 || got == n {
			t.Errorf("of %d, %d are counted", n, got)
		}
		if got := top.Allowed.Tokens[0].Requests; got != n {
			t.Errorf("of %d, %d are counted", n, got)
		}
		<-time.After(time.Second)
		before := top.Refused.Tokens[0].Requests
		all.Note(event(gate.MissingToken, "none", "192.0.2.1", 1))
		if got := all.Top()[0].Refused.Tokens[0].Requests; got != before+1 {
			t.Errorf("the first of the next second makes %d of %d", got, before)
		}
	})
}

func TestClientsAreCountedAsTheyAreShown(t *testing.T) {
	all := New()
	note := func(client string) { all.Note(event(gate.InvalidToken, "none", client, 1)) }
	note("192.0.2.1")
	note("192.0.2.2")
	note("2001:db8:1:2:3::4")
	note("2001:db8:1:2:5::6")
	note("")
	clients := all.Top()[0].Refused.Clients
	if len(clients) != 3 || named(t, clients, "192.0.2.1").Requests != 1 || named(t, clients, "2001:db8:1:2::/64").Requests != 2 {
		t.Errorf("got %+v", clients)
	}
	all.Clients(gate.ClientNetworks)
	if clients := all.Top()[0].Refused.Clients; len(clients) != 0 {
		t.Errorf("what was counted whole is shown as %+v", clients)
	}
	note("192.0.2.1")
	note("192.0.2.2")
	note("2001:db8:1:2:3::4")
	clients = all.Top()[0].Refused.Clients
	if len(clients) != 2 || named(t, clients, "192.0.2.0/24").Requests != 2 || named(t, clients, "2001:db8:1::/48").Requests != 1 {
		t.Errorf("got %+v", clients)
	}
	all.Clients(gate.ClientNetworks) // the same: nothing is forgotten
	if len(all.Top()[0].Refused.Clients) != 2 {
		t.Error("what was counted is forgotten")
	}
	all.Clients(gate.NoClients)
	note("192.0.2.1")
	if clients := all.Top()[0].Refused.Clients; len(clients) != 0 {
		t.Errorf("got %+v", clients)
	}
	if tokens := all.Top()[0].Refused.Tokens; named(t, tokens, "none").Requests != 9 {
		t.Errorf("got %+v", tokens)
	}
}

func TestManyMayCountAtOnce(t *testing.T) {
	all := New()
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			for range 1000 {
				all.Note(event(gate.Valid, fmt.Sprint(i), "192.0.2.1", 1))
				all.Note(event(gate.InvalidToken, fmt.Sprint(i), "192.0.2.1", 1))
				if i == 0 {
					all.Top()
				}
			}
		})
	}
	group.Wait()
	if got := all.Top()[0].Allowed.Clients; len(got) != 1 || got[0].Requests != 8000 {
		t.Errorf("got %+v", got)
	}
}

func BenchmarkNote(b *testing.B) {
	for name, reason := range map[string]gate.Reason{"allowed": gate.Valid, "refused": gate.InvalidToken} {
		b.Run(name+", a flood of different ones", func(b *testing.B) {
			all := New()
			events := make([]*gate.Event, 10_000)
			for i := range events {
				events[i] = event(reason, fmt.Sprintf("%012x", i), fmt.Sprintf("192.0.%d.%d", i>>8, i&255), 1)
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				all.Note(events[i%len(events)])
			}
		})
	}
}

// BenchmarkTop is what it costs to find who was seen most while a flood comes of tokens
// that never come again; and how long requests wait for it.
func BenchmarkTop(b *testing.B) {
	all := New()
	all.begin = all.begin.Add(-steps * step)
	for i := range 2 * steps * places {
		for _, reason := range []gate.Reason{gate.Valid, gate.InvalidToken} {
			e := event(reason, fmt.Sprintf("%012x", i), fmt.Sprintf("192.0.%d.%d", i>>8, i&255), 1)
			e.At = all.begin.Add(step + time.Duration(i)*step/(2*places))
			all.Note(e)
		}
	}
	for name, find := range map[string]func(){"all of it": func() { all.Top() }, "what requests wait for": func() { all.copied() }} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				find()
			}
		})
	}
}
