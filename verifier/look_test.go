package verifier_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/verifier"
)

// TestToLookAsksNobody, and says what is remembered until it is not any more.
func TestToLookAsksNobody(t *testing.T) {
	o := verifier.CacheOptions{ValidTTL: 100 * time.Second, InvalidTTL: 10 * time.Second, StaleIfError: 50 * time.Second, RefreshBefore: 40 * time.Second}
	withCache(t, o, byName(0), func(t *testing.T, c *verifier.Cache, next *oracle) {
		ts := newTokens(t)
		good, bad, other := ts.parse(t, "good"), ts.parse(t, "bad"), ts.parse(t, "other")
		g := expect(t, c, good, true, verifier.FromEndpoint)
		b := expect(t, c, bad, false, verifier.FromEndpoint)
		synctest.Wait()
		for name, test := range map[string]struct {
			token bearer.Token
			want  verifier.Seen
		}{
			"good":    {good, verifier.Seen{Known: true, Valid: true, Good: true, Learnt: g.Learnt, Until: g.Until, Stale: g.Until.Add(50 * time.Second)}},
			"refused": {bad, verifier.Seen{Known: true, Learnt: b.Learnt, Until: b.Until, Stale: b.Until}},
			"nothing": {other, verifier.Seen{}},
		} {
			got := c.Look(test.token)
			near := func(a, b time.Time) bool { return a.Sub(b).Abs() < time.Millisecond }
			if got.Known != test.want.Known || got.Valid != test.want.Valid || got.Good != test.want.Good || got.Flying ||
				!near(got.Learnt, test.want.Learnt) || !near(got.Until, test.want.Until) || !near(got.Stale, test.want.Stale) {
				t.Errorf("%s: %+v, want %+v", name, got, test.want)
			}
			if test.want.Known != got.InForce(time.Now()) {
				t.Errorf("%s: in force %t", name, got.InForce(time.Now()))
			}
		}
		pass(10 * time.Second)
		if seen := c.Look(bad); seen.Known && seen.InForce(time.Now()) {
			t.Errorf("a refusal that has ended: %+v", seen)
		}
		pass(80 * time.Second) // whoever asked for it now would have it asked for again
		if seen := c.Look(good); !seen.InForce(time.Now()) {
			t.Errorf("a good one: %+v", seen)
		}
		if v, err := verifier.Peek(c).Verify(t.Context(), good); err != nil || !v.Valid {
			t.Errorf("a good one: %+v, %v", v, err)
		}
		synctest.Wait()
		pass(10 * time.Second)
		if seen := c.Look(good); !seen.Known || !seen.Valid || seen.InForce(time.Now()) {
			t.Errorf("a good one that has ended: %+v", seen)
		}
		expectCalls(t, next, 2)
		if s := c.Stats(); s.Misses != 2 || s.Refreshed != 0 {
			t.Errorf("looking was counted: %+v", s)
		}
	})
}

func TestToLookSeesACallUnderWay(t *testing.T) {
	withCache(t, verifier.CacheOptions{}, byName(time.Second), func(t *testing.T, c *verifier.Cache, _ *oracle) {
		good := newTokens(t).parse(t, "good")
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = c.Verify(t.Context(), good)
		}()
		synctest.Wait()
		if seen := c.Look(good); !seen.Flying || seen.Known {
			t.Errorf("%+v", seen)
		}
		<-done
		synctest.Wait()
		if seen := c.Look(good); seen.Flying || !seen.Known {
			t.Errorf("then %+v", seen)
		}
	})
}

func TestToPeekIsToVerifyWithoutAsking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := &oracle{answer: byName(0)}
		guard, err := verifier.NewGuard(next, verifier.GuardOptions{
			Name: "crm", MaxCalls: 4, MaxWaiting: 4, MaxWait: time.Second, Timeout: time.Second, Failures: 1, OfLast: 1, OpenFor: time.Minute,
		})
		if err != nil {
			t.Fatal(err)
		}
		c := newCache(t, guard, verifier.CacheOptions{ValidTTL: 10 * time.Second, StaleIfError: 100 * time.Second})
		defer c.Close()
		ts := newTokens(t)
		good, bad, other := ts.parse(t, "good"), ts.parse(t, "bad"), ts.parse(t, "other")
		peek := func(v verifier.Verifier, token bearer.Token) (verifier.Verdict, error) {
			return verifier.Peek(v).Verify(t.Context(), token)
		}
		both, choose := verifier.NewBoth(c, c), verifier.NewChoose(verifier.Choice{Verifier: c, Kind: verifier.OpaqueToken})
		all := map[string]verifier.Verifier{"the cache": c, "both": both, "a choice": choose}
		unasked := func(when string, token bearer.Token) {
			t.Helper()
			for name, v := range all {
				if _, err := peek(v, token); !errors.Is(err, verifier.ErrUnasked) {
					t.Errorf("%s, %s: %v", when, name, err)
				}
			}
		}
		unasked("before anybody asked", good)
		for _, token := range []bearer.Token{good, bad} {
			if _, err := c.Verify(t.Context(), token); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		for name, v := range all {
			if v, err := peek(v, good); err != nil || !v.Valid || v.Source != verifier.FromCache {
				t.Errorf("good, %s: %+v, %v", name, v, err)
			}
			if v, err := peek(v, bad); err != nil || v.Valid || v.Source != verifier.FromCache {
				t.Errorf("not good, %s: %+v, %v", name, v, err)
			}
		}
		if v, err := peek(verifier.NewChoose(verifier.Choice{Verifier: c, Kind: verifier.JWTToken}), good); err != nil || v.Valid || v.Source != verifier.FromToken {
			t.Errorf("one that no verifier is for: %+v, %v", v, err)
		}
		if _, err := peek(next, good); !errors.Is(err, verifier.ErrUnasked) {
			t.Errorf("one that cannot peek: %v", err)
		}
		unasked("about another one", other)

		// The endpoint is gone, and the breaker says so without a call.
		next.answer = func(context.Context, bearer.Token) (verifier.Verdict, error) { return verifier.Verdict{}, errNobody }
		pass(10 * time.Second)
		unasked("when it has ended", good)
		_, _ = c.Verify(t.Context(), other)
		calls := next.calls.Load()
		_, wantErr := c.Verify(t.Context(), bad)
		if _, err := peek(c, bad); wantErr == nil || err == nil || err.Error() != wantErr.Error() {
			t.Errorf("while the breaker is open: %v, want %v", err, wantErr)
		}
		if v, err := peek(c, good); err != nil || !v.Valid || v.Source != verifier.FromStale {
			t.Errorf("stale: %+v, %v", v, err)
		}
		if err := c.Deny(good); err != nil {
			t.Fatal(err)
		}
		if v, err := peek(c, good); err != nil || v.Valid || v.Source != verifier.FromDenial {
			t.Errorf("denied: %+v, %v", v, err)
		}
		expectCalls(t, next, calls)
	})
}

// TestToPeekWaitsWithWhoWaits: a call that is under way goes on though the breaker has
// opened, so nobody can say yet what comes of it.
func TestToPeekWaitsWithWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		guard, err := verifier.NewGuard(&oracle{answer: func(ctx context.Context, t bearer.Token) (verifier.Verdict, error) {
			if t.Reveal() == "other" {
				return verifier.Verdict{}, errNobody
			}
			return byName(time.Second)(ctx, t)
		}}, verifier.GuardOptions{
			Name: "crm", MaxCalls: 4, MaxWaiting: 4, MaxWait: time.Second, Timeout: time.Minute, Failures: 1, OfLast: 1, OpenFor: time.Minute,
		})
		if err != nil {
			t.Fatal(err)
		}
		c := newCache(t, guard, verifier.CacheOptions{})
		defer c.Close()
		ts := newTokens(t)
		good, other := ts.parse(t, "good"), ts.parse(t, "other")
		go func() { _, _ = c.Verify(context.Background(), good) }()
		synctest.Wait()
		_, _ = c.Verify(t.Context(), other)
		if _, err := c.Peek(good); !errors.Is(err, verifier.ErrUnasked) {
			t.Errorf("one that is waited for: %v", err)
		}
		if _, err := c.Peek(other); err == nil || errors.Is(err, verifier.ErrUnasked) {
			t.Errorf("another one: %v", err)
		}
		pass(time.Second)
	})
}

// TestToLookSeesWhatHasJustBeenSaid, before it can be found in the memory: the flight
// stays where it can be joined, and a request would get that answer.
func TestToLookSeesWhatHasJustBeenSaid(t *testing.T) {
	for range 200 { // by chance it can be found at once
		c := newCache(t, &oracle{answer: byName(0)}, verifier.CacheOptions{})
		token := newTokens(t).parse(t, "good")
		if _, err := c.Verify(t.Context(), token); err != nil {
			t.Fatal(err)
		}
		seen := c.Look(token)
		v, err := c.Peek(token)
		if seen.Flying || !seen.InForce(time.Now()) || !seen.Good || err != nil || !v.Valid {
			t.Errorf("it sees %+v, and says %+v, %v", seen, v, err)
		}
		c.Close()
	}
}
