package gate_test

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/verifier"
)

// newCached returns a gate on a real cache that has seen the good token and a
// refused one, and the number of calls that went through it.
func newCached(t testing.TB, change ...func(*gate.Options)) (g *gate.Gate, calls *atomic.Int64) {
	t.Helper()
	calls = new(atomic.Int64)
	claims := claimsOf(t, `{"sub":"somebody","org":{"id":"7"}}`)
	cache, err := verifier.NewCache(verify(func(_ context.Context, token bearer.Token) (verifier.Verdict, error) {
		calls.Add(1)
		v := verifier.Verdict{Valid: token.Reveal() == canary, Learnt: time.Now()}
		if v.Valid {
			v.Claims = claims
		}
		return v, nil
	}), verifier.CacheOptions{
		Name: "crm", MaxTokens: 1000, ValidTTL: verifier.MaxLife, InvalidTTL: verifier.MaxLife, Timeout: time.Minute,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cache.Close)
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	var counted [gate.Reasons]atomic.Int64
	o := gate.Options{
		Listener: "test", Parser: parser, Policy: gate.Policy{Verifier: cache, Realm: "api"},
		Decided: func(c gate.Tally) { counted[c.Reason].Add(1) },
	}
	for _, set := range change {
		set(&o)
	}
	g, err = gate.New(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []gate.Request{withToken(), with("Bearer refused")} {
		if d := g.Decide(t.Context(), r); d.Outcome() == gate.Unavailable {
			t.Fatalf("decided %v", d.Reason)
		}
	}
	// The cache is warm once both answers can be found without their calls.
	for begin := time.Now(); cache.Stats().Flights > 0; runtime.Gosched() {
		if time.Since(begin) > 30*time.Second {
			t.Fatal("the cache does not keep the answers")
		}
	}
	return g, calls
}

func TestCachedDecisionAllocatesNothing(t *testing.T) {
	testCachedDecision(t, 0)
}

func TestCachedDecisionThatAnEdgeMayKeepAllocatesNothing(t *testing.T) {
	testCachedDecision(t, 0, func(o *gate.Options) { o.EdgeCache = 10 * time.Second },
		identity(gate.IdentityHeader{Name: "X-Partner", Constant: "crm"}))
}

// TestCachedDecisionThatTellsOfTheTokenAllocatesOnce: its reply is not the same
// for all.
func TestCachedDecisionThatTellsOfTheTokenAllocatesOnce(t *testing.T) {
	testCachedDecision(t, 1, func(o *gate.Options) { o.EdgeCache = 10 * time.Second },
		identity(gate.IdentityHeader{Name: "X-Partner", Constant: "crm"}, gate.IdentityHeader{Name: "X-Token", Fingerprint: true}))
}

// TestCachedDecisionThatTellsOfClaimsAllocatesOnce: their texts are those that lie
// with the verdict.
func TestCachedDecisionThatTellsOfClaimsAllocatesOnce(t *testing.T) {
	testCachedDecision(t, 1, identity(gate.IdentityHeader{Name: "X-Sub", Claim: []string{"sub"}},
		gate.IdentityHeader{Name: "X-Org", Claim: []string{"org", "id"}}, gate.IdentityHeader{Name: "X-Token", Fingerprint: true}))
}

// TestCachedDecisionInOtherWordsAllocatesNothing, refused or not.
func TestCachedDecisionInOtherWordsAllocatesNothing(t *testing.T) {
	testCachedDecision(t, 0, worded(wordings["names a request"])) // nobody has named it
}

// testCachedDecision allows as many allocations for a good token, and none for others.
func testCachedDecision(t *testing.T, forGood float64, change ...func(*gate.Options)) {
	t.Helper()
	g, calls := newCached(t, change...)
	asked := calls.Load()
	for name, test := range map[string]struct {
		request gate.Request
		want    gate.Reason
	}{
		"a good token":      {withToken(), gate.Valid},
		"a refused token":   {with("Bearer refused"), gate.InvalidToken},
		"no token":          {with(), gate.MissingToken},
		"a malformed token": {with("Bearer a,b"), gate.MultipleTokens},
	} {
		allocs := testing.AllocsPerRun(1000, func() {
			d := g.Decide(t.Context(), test.request)
			if d.Reason != test.want || g.Reply(&d) == nil {
				t.Errorf("%s: decided %v", name, d.Reason)
			}
		})
		allowed := 0.0
		if test.want == gate.Valid {
			allowed = forGood
		}
		// The race detector makes allocations of its own.
		if allocs > allowed && !raceDetector {
			t.Errorf("%s: %v allocations", name, allocs)
		}
	}
	if calls.Load() != asked {
		t.Errorf("%d calls more", calls.Load()-asked)
	}
}

// BenchmarkDecideCached is one request whose verdict is remembered, from the
// header's value to the Decision.
func BenchmarkDecideCached(b *testing.B) {
	g, _ := newCached(b)
	r := withToken()
	b.Run("one at a time", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if d := g.Decide(b.Context(), r); d.Reason != gate.Valid {
				b.Fatal(d.Reason)
			}
		}
	})
	b.Run("in parallel", func(b *testing.B) {
		b.ReportAllocs()
		ctx := b.Context()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if d := g.Decide(ctx, r); d.Reason != gate.Valid {
					b.Error(d.Reason)
				}
			}
		})
	})
}
