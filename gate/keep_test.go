package gate_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/verifier"
)

// TestHowLongAnEdgeMayKeepAnAnswer: whole seconds, never longer than the verdict
// lives, and nothing but an allow.
func TestHowLongAnEdgeMayKeepAnAnswer(t *testing.T) {
	edgeCache := func(d time.Duration) func(*gate.Options) { return func(o *gate.Options) { o.EdgeCache = d } }
	for _, test := range []struct {
		name      string
		edgeCache time.Duration
		left      time.Duration // of the verdict's life; 0: it says nothing of its end
		verdict   verifier.Verdict
		want      time.Duration
	}{
		{"the verdict lives longer", 10 * time.Second, time.Minute, verifier.Verdict{Valid: true}, 10 * time.Second},
		{"the verdict lives as long", 10 * time.Second, 10 * time.Second, verifier.Verdict{Valid: true}, 10 * time.Second},
		{"the verdict ends earlier", 10 * time.Second, 4 * time.Second, verifier.Verdict{Valid: true}, 4 * time.Second},
		{"the verdict ends a moment earlier", 10 * time.Second, 10*time.Second - 1, verifier.Verdict{Valid: true}, 9 * time.Second},
		{"the verdict ends within a second", 10 * time.Second, time.Second - 1, verifier.Verdict{Valid: true}, 0},
		{"the verdict has just ended", 10 * time.Second, -1, verifier.Verdict{Valid: true}, 0},
		{"the verdict ended long ago", 10 * time.Second, -time.Hour, verifier.Verdict{Valid: true}, 0},
		{"the option is no whole second", 2500 * time.Millisecond, time.Minute, verifier.Verdict{Valid: true}, 2 * time.Second},
		{"the longest", verifier.MaxLife, time.Hour, verifier.Verdict{Valid: true}, verifier.MaxLife},
		{"the option is off", 0, time.Minute, verifier.Verdict{Valid: true}, 0},
		{"from the cache", 10 * time.Second, time.Minute, verifier.Verdict{Valid: true, Source: verifier.FromCache}, 10 * time.Second},
		{"used only because nobody can tell", 10 * time.Second, time.Minute, verifier.Verdict{Valid: true, Source: verifier.FromStale}, 0},
		{"a verdict without an end", 10 * time.Second, 0, verifier.Verdict{Valid: true}, 0},
		{"a refusal", 10 * time.Second, time.Minute, verifier.Verdict{}, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			if test.left != 0 {
				test.verdict.Until = time.Now().Add(test.left)
			}
			g := newGate(t, says(test.verdict, nil), edgeCache(test.edgeCache))
			if d := g.Decide(t.Context(), withToken()); d.Keep != test.want {
				t.Errorf("%s: %v, want %v", test.name, d.Keep, test.want)
			}
			if most := g.EdgeCache(); most != test.edgeCache.Truncate(time.Second) {
				t.Errorf("%s: the most is %v", test.name, most)
			}
		})
	}
	down := newGate(t, says(verifier.Verdict{Valid: true, Until: time.Now().Add(time.Hour)}, verifier.ErrClosed), edgeCache(time.Minute))
	for _, r := range []gate.Request{withToken(), with(), with("Bearer a,b")} {
		if d := down.Decide(t.Context(), r); d.Keep != 0 {
			t.Errorf("%v is kept for %v", d.Reason, d.Keep)
		}
	}
}

func TestEdgeCacheMustMakeSense(t *testing.T) {
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	for edgeCache, fine := range map[time.Duration]bool{
		-1: false, 0: true, 1: false, time.Second - 1: false, time.Second: true, verifier.MaxLife: true, verifier.MaxLife + 1: false,
	} {
		_, err := gate.New(gate.Options{Parser: parser, Policy: gate.Policy{Verifier: good, Realm: "api", EdgeCache: edgeCache}})
		if (err == nil) != fine {
			t.Errorf("%v: %v", edgeCache, err)
		}
	}
}

// TestDependsOnAllThatIsRead: of a request the gate reads its credential. Whoever
// has it read more must name that too, or edges mix up requests.
func TestDependsOnAllThatIsRead(t *testing.T) {
	if got := newGate(t, good).DependsOn(); !slices.Equal(got, []string{"authorization"}) {
		t.Errorf("decisions depend on %q", got)
	}
}
