package gate_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/policy"
	"github.com/bearergate/bearergate/verifier"
)

// TestDecisionsThatWaitedAreMeasured: each of them, with its token, and of the
// others about one in 64, those that are allowed without.
func TestDecisionsThatWaitedAreMeasured(t *testing.T) {
	scopes, err := policy.NewRequirement(policy.Rules{AllScopes: []string{"write"}})
	if err != nil {
		t.Fatal(err)
	}
	const n = 6400
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	token, err := parser.Parse([]string{"Bearer " + canary})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		verdict verifier.Verdict
		err     error
		request gate.Request
		require *policy.Requirement
		waits   bool // so each is measured
		never   bool // none is
		named   bool // with its token
	}{
		{name: "good, asked", verdict: verifier.Verdict{Valid: true, Waited: time.Second}, waits: true, named: true},
		{name: "not good, asked", verdict: verifier.Verdict{Waited: time.Second}, waits: true, named: true},
		{name: "good for other things, asked", verdict: verifier.Verdict{Valid: true, Waited: time.Second}, require: scopes, waits: true, named: true},
		{name: "no answer", verdict: verifier.Verdict{Waited: time.Second}, err: &verifier.NoAnswer{}, waits: true, named: true},
		{name: "good, remembered", verdict: verifier.Verdict{Valid: true, Source: verifier.FromCache}},
		{name: "not good, remembered", verdict: verifier.Verdict{Source: verifier.FromCache}, named: true},
		{name: "no token", request: gate.Request{Authorization: []string{}}, never: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var all []gate.Tally
			g := newGate(t, says(test.verdict, test.err), func(o *gate.Options) {
				o.Parser, o.Requirement = parser, test.require
				o.Decided = func(tally gate.Tally) { all = append(all, tally) }
			})
			r := test.request
			if r.Authorization == nil {
				r = withToken()
			}
			for range n {
				g.Decide(t.Context(), r)
			}
			measured := 0
			for _, tally := range all {
				if tally.Took == 0 {
					if tally.Fingerprint != "" {
						t.Fatalf("one that was not measured names %s", tally.Fingerprint)
					}
					continue
				}
				measured++
				want := ""
				if test.named {
					want = token.Fingerprint()
				}
				if tally.Fingerprint != want {
					t.Fatalf("it names %q, want %q", tally.Fingerprint, want)
				}
			}
			few := measured > n/gate.Sampled/4 && measured < n/gate.Sampled*4
			if len(all) != n || test.waits && measured != n || test.never && measured != 0 || !test.waits && !test.never && !few {
				t.Errorf("of %d decisions %d were counted and %d measured", n, len(all), measured)
			}
		})
	}
}

// slow is a verifier that takes its time, and has no answer about the token "refused".
func slow(takes time.Duration) verify {
	return func(_ context.Context, token bearer.Token) (verifier.Verdict, error) {
		<-time.After(takes)
		if token.Reveal() == canary {
			return verifier.Verdict{Valid: true, Learnt: time.Now()}, nil
		}
		return verifier.Verdict{}, &verifier.NoAnswer{Verifier: "crm", Problem: "it said nothing"}
	}
}

// TestADecisionTakesAsLongAsItsVerdict asks a real cache.
func TestADecisionTakesAsLongAsItsVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const takes = 700 * time.Millisecond
		c, err := verifier.NewCache(slow(takes), verifier.CacheOptions{Name: "crm", MaxTokens: 10, ValidTTL: time.Minute, InvalidTTL: time.Minute, Timeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		var all []gate.Tally
		g := newGate(t, c, func(o *gate.Options) { o.Decided = func(tally gate.Tally) { all = append(all, tally) } })
		g.Decide(t.Context(), withToken())
		g.Decide(t.Context(), with("Bearer refused"))
		if len(all) != 2 || all[0].Took != takes || all[1].Took != takes || !strings.HasPrefix(all[1].Reason.String(), "verifier") {
			t.Errorf("it tells of %+v, want %v each", all, takes)
		}
	})
}

// TestEachDecisionIsTraced, also one that ends in a panic, in the context that the
// trace gives it.
func TestEachDecisionIsTraced(t *testing.T) {
	type key struct{}
	var ended []gate.Tally
	asked := verify(func(ctx context.Context, token bearer.Token) (verifier.Verdict, error) {
		if ctx.Value(key{}) != "here" {
			t.Error("it is asked in another context")
		}
		if token.Reveal() != canary {
			panic("x")
		}
		return verifier.Verdict{Valid: true, Source: verifier.FromCache}, nil
	})
	g := newGate(t, asked, func(o *gate.Options) {
		o.Trace = func(ctx context.Context, headers gate.Headers) (context.Context, string, func(*gate.Tally)) {
			if headers.Header("traceparent") != "the edge's" {
				t.Error("it does not find the headers")
			}
			return context.WithValue(ctx, key{}, "here"), "", func(tally *gate.Tally) { ended = append(ended, *tally) }
		}
	})
	for _, r := range []gate.Request{withToken(), with(), with("Bearer other")} {
		r.Headers = headersOf{"traceparent": "the edge's"}
		g.Decide(t.Context(), r)
	}
	want := []gate.Reason{gate.Valid, gate.MissingToken, gate.InternalError}
	if len(ended) != len(want) {
		t.Fatalf("%d have ended, want %d", len(ended), len(want))
	}
	for i, tally := range ended {
		if tally.Reason != want[i] {
			t.Errorf("decision %d is %v, want %v", i, tally.Reason, want[i])
		}
	}
	if ended[0].Source != verifier.FromCache {
		t.Errorf("it tells of %+v", ended[0])
	}
}

// TestWhatIsMeasuredNamesItsTrace, and nothing else does: one in Sampled of those that
// wait for nobody.
func TestWhatIsMeasuredNamesItsTrace(t *testing.T) {
	measured := 0
	g := newGate(t, good, func(o *gate.Options) {
		o.Trace = func(ctx context.Context, _ gate.Headers) (context.Context, string, func(*gate.Tally)) {
			return ctx, "0af7651916cd43dd8448eb211c80319c", func(*gate.Tally) {}
		}
		o.Decided = func(tally gate.Tally) {
			if tally.Took > 0 {
				measured++
			}
			if (tally.Trace != "") != (tally.Took > 0) {
				t.Errorf("%+v", tally)
			}
		}
	})
	for range 100 * gate.Sampled {
		g.Decide(t.Context(), withToken())
	}
	if measured == 0 {
		t.Error("none was measured")
	}
}
