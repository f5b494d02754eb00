package verifier_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/verifier"
)

// expectRecalled wants a verdict to be remembered, and for how long; nothing if that
// is 0.
func expectRecalled(t *testing.T, c *verifier.Cache, token bearer.Token, valid bool, source verifier.Source, left time.Duration) {
	t.Helper()
	var v verifier.Verdict
	got := c.Recall(&token, &v)
	if got != left || v.Valid != valid || v.Source != source {
		t.Errorf("%+v is remembered for %v, want valid %v from %v for %v", v, got, valid, source, left)
	}
}

func TestWhatIsRememberedIsRecalledInPlace(t *testing.T) {
	o := verifier.CacheOptions{ValidTTL: 100 * time.Second, InvalidTTL: 10 * time.Second}
	withCache(t, o, byName(0), func(t *testing.T, c *verifier.Cache, next *oracle) {
		ts := newTokens(t)
		good, bad, other := ts.parse(t, "good"), ts.parse(t, "bad"), ts.parse(t, "other")
		expectRecalled(t, c, good, false, 0, 0)
		expectCalls(t, next, 0) // it asks nobody

		life := time.Until(expect(t, c, good, true, verifier.FromEndpoint).Until)
		expect(t, c, bad, false, verifier.FromEndpoint)
		synctest.Wait()
		expectRecalled(t, c, good, true, verifier.FromCache, life)
		expectRecalled(t, c, bad, false, verifier.FromCache, 10*time.Second)
		pass(4 * time.Second)
		expectRecalled(t, c, good, true, verifier.FromCache, life-4*time.Second)
		expectRecalled(t, c, bad, false, verifier.FromCache, 6*time.Second)
		pass(6 * time.Second)
		expectRecalled(t, c, bad, false, 0, 0)

		if err := c.Deny(other); err != nil {
			t.Fatal(err)
		}
		if err := c.Deny(good); err != nil {
			t.Fatal(err)
		}
		expectRecalled(t, c, other, false, verifier.FromDenial, verifier.MaxLife)
		expectRecalled(t, c, good, false, verifier.FromDenial, verifier.MaxLife)
		expectCalls(t, next, 2)
	})
}

func TestAForgottenTokenIsNotRecalled(t *testing.T) {
	withCache(t, verifier.CacheOptions{}, byName(0), func(t *testing.T, c *verifier.Cache, _ *oracle) {
		good := newTokens(t).parse(t, "good")
		expect(t, c, good, true, verifier.FromEndpoint)
		synctest.Wait()
		expectRecalled(t, c, good, true, verifier.FromCache, time.Until(expect(t, c, good, true, verifier.FromCache).Until))
		c.Forget(good)
		expectRecalled(t, c, good, false, 0, 0)
	})
}

// TestATokenThatIsRecalledLateIsAskedForAgain, as one that is verified.
func TestATokenThatIsRecalledLateIsAskedForAgain(t *testing.T) {
	o := verifier.CacheOptions{ValidTTL: 100 * time.Second, RefreshBefore: 20 * time.Second}
	withCache(t, o, byName(0), func(t *testing.T, c *verifier.Cache, next *oracle) {
		good := newTokens(t).parse(t, "good")
		life := time.Until(expect(t, c, good, true, verifier.FromEndpoint).Until)
		pass(life - 10*time.Second)
		expectRecalled(t, c, good, true, verifier.FromCache, 10*time.Second)
		synctest.Wait()
		expectCalls(t, next, 2)
		pass(11 * time.Second)
		expect(t, c, good, true, verifier.FromCache)
	})
}
