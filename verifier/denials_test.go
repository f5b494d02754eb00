package verifier_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/verifier"
)

// always finds every token good.
type always struct{}

func (always) Verify(context.Context, bearer.Token) (verifier.Verdict, error) {
	return verifier.Verdict{Valid: true, Learnt: time.Now()}, nil
}

func TestDenialsOfAllCaches(t *testing.T) {
	for name, fingerprints := range map[string]*bearer.Fingerprints{
		"fingerprints of the process": nil, "plain ones": bearer.PlainFingerprints(), "those of a key": bearer.KeyedFingerprints([]byte("a key")),
	} {
		t.Run(name, func(t *testing.T) { testDenialsOfAllCaches(t, fingerprints) })
	}
}

func testDenialsOfAllCaches(t *testing.T, fingerprints *bearer.Fingerprints) {
	synctest.Test(t, func(t *testing.T) {
		denials := verifier.NewDenials()
		ts := newTokens(t)
		ts.parser = ts.parser.WithFingerprints(fingerprints)
		byToken, byFingerprint, other := ts.parse(t, "by-token"), ts.parse(t, "by-fingerprint"), ts.parse(t, "other")
		var caches []*verifier.Cache
		for range 2 {
			c, err := verifier.NewCache(always{}, verifier.CacheOptions{
				MaxTokens: 10, ValidTTL: time.Minute, InvalidTTL: time.Minute, Timeout: time.Second, Denials: denials,
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			caches = append(caches, c)
			pass(time.Second) // the caches begin at different times
		}
		expect := func(when string, want map[*bearer.Token]bool) {
			t.Helper()
			for token, good := range want {
				for i, c := range caches {
					v, err := c.Verify(t.Context(), *token)
					if err != nil || v.Valid != good || !good && v.Source != verifier.FromDenial {
						t.Errorf("%s, cache %d: %v is %+v, %v", when, i, token, v, err)
					}
					var recalled verifier.Verdict
					if c.Recall(token, &recalled) > 0 && recalled.Valid != good {
						t.Errorf("%s, cache %d: %v is recalled as %+v", when, i, token, recalled)
					}
				}
			}
		}
		expect("at first", map[*bearer.Token]bool{&byToken: true, &byFingerprint: true, &other: true})
		first, err := denials.Deny(byToken, 0, "leaked", "me")
		if err != nil || first.Fingerprint != byToken.Fingerprint() || first.Reason != "leaked" || first.Who != "me" || first.Until.Sub(first.Since) != verifier.MaxLife {
			t.Errorf("Deny: %+v, %v", first, err)
		}
		second, err := denials.DenyFingerprint(byFingerprint.Fingerprint(), time.Hour, "wild", "you")
		if err != nil || second.Fingerprint != byFingerprint.Fingerprint() || second.Until.Sub(second.Since) != time.Hour {
			t.Errorf("DenyFingerprint: %+v, %v", second, err)
		}
		expect("denied", map[*bearer.Token]bool{&byToken: false, &byFingerprint: false, &other: true})
		if all := denials.All(); len(all) != 2 || !slices.Contains(all, first) || !slices.Contains(all, second) {
			t.Errorf("All: %+v", all)
		}
		pass(verifier.MaxLife)
		expect("after the first has ended", map[*bearer.Token]bool{&byToken: true, &byFingerprint: false, &other: true})
		if all := denials.All(); len(all) != 1 || all[0] != second {
			t.Errorf("All: %+v", all)
		}
		pass(time.Hour)
		expect("after both have", map[*bearer.Token]bool{&byToken: true, &byFingerprint: true, &other: true})
		for _, wrong := range []time.Duration{-1, verifier.MaxDenial + 1} {
			if _, err := denials.Deny(other, wrong, "", ""); err == nil {
				t.Errorf("denied for %v", wrong)
			}
		}
		for _, wrong := range []string{"", "none", "0123456789a", "0123456789abc", "0123456789ag"} {
			if _, err := denials.DenyFingerprint(wrong, 0, "", ""); err == nil {
				t.Errorf("the fingerprint %q is denied", wrong)
			}
		}
		if all := denials.All(); len(all) != 0 {
			t.Errorf("All: %+v", all)
		}
	})
}

// TestADenialLastsAsLongAsItsToken, but neither shorter than a verdict may nor for more
// than a day, unless an operator says so.
func TestADenialLastsAsLongAsItsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		denials, ts := verifier.NewDenials(), newTokens(t)
		for _, test := range []struct{ expires, last, want time.Duration }{
			{time.Minute, 0, verifier.MaxLife},
			{2 * verifier.MaxLife, 0, 2 * verifier.MaxLife},
			{24*time.Hour + time.Minute, 0, 24 * time.Hour},
			{365 * 24 * time.Hour, 0, 24 * time.Hour},
			{time.Minute, 48 * time.Hour, 48 * time.Hour},
		} {
			claims := fmt.Sprintf(`{"exp":%d}`, time.Now().Add(test.expires).Unix())
			token := ts.parse(t, part(t, `{"alg":"none"}`)+"."+part(t, claims)+".")
			if d, err := denials.Deny(token, test.last, "", ""); err != nil || d.Until.Sub(d.Since) != test.want {
				t.Errorf("one that ends in %v, denied for %v: %+v, %v; want %v", test.expires, test.last, d, err, test.want)
			}
		}
	})
}

// TestEndedDenialsAreTakenOut, so that they cost requests nothing and are not counted.
func TestEndedDenialsAreTakenOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		denials := verifier.NewDenials()
		c, err := verifier.NewCache(always{}, verifier.CacheOptions{
			MaxTokens: 10, ValidTTL: time.Minute, InvalidTTL: time.Minute, Timeout: time.Second, Denials: denials,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		expect := func(want int) {
			t.Helper()
			if got := c.Stats().Denied; got != want {
				t.Errorf("%d are denied, want %d", got, want)
			}
		}
		token := newTokens(t).parse(t, "by-token")
		if _, err := denials.Deny(token, time.Minute, "", ""); err != nil {
			t.Fatal(err)
		}
		if _, err := denials.DenyFingerprint("0123456789ab", time.Hour, "", ""); err != nil {
			t.Fatal(err)
		}
		pass(50 * time.Second)
		expect(2)
		pass(20 * time.Second)
		expect(1)
		pass(time.Hour)
		expect(0)
	})
}

// TestEndedDenialsMakeRoom, also if no cache has taken them out.
func TestEndedDenialsMakeRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		denials := verifier.NewDenials()
		deny := func(from, to int) error {
			for i := from; i < to; i++ {
				if _, err := denials.DenyFingerprint(fmt.Sprintf("%012x", i), time.Minute, "", ""); err != nil {
					return err
				}
			}
			return nil
		}
		if err := deny(0, 100_000); err != nil {
			t.Fatal(err)
		}
		if err := deny(100_000, 100_001); !errors.Is(err, verifier.ErrTooManyDenials) {
			t.Errorf("one more: %v", err)
		}
		if err := deny(0, 1); err != nil {
			t.Errorf("one of them again: %v", err)
		}
		pass(time.Minute)
		if err := deny(100_000, 100_001); err != nil {
			t.Errorf("after they have ended: %v", err)
		}
	})
}

// sulking answers never, until it does.
type sulking struct{ good bool }

func (s *sulking) Verify(context.Context, bearer.Token) (verifier.Verdict, error) {
	if s.good {
		return verifier.Verdict{Valid: true}, nil
	}
	return verifier.Verdict{}, &verifier.NoAnswer{Problem: "sulks", RetryAfter: time.Minute}
}

func TestResetHasTheEndpointCalledAgain(t *testing.T) {
	s := &sulking{}
	g, err := verifier.NewGuard(s, verifier.GuardOptions{MaxCalls: 1, Timeout: time.Second, Failures: 1, OfLast: 1, OpenFor: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	token := newTokens(t).parse(t, "a-token")
	for range 2 {
		if _, err := g.Verify(t.Context(), token); err == nil {
			t.Fatal("there is an answer")
		}
	}
	s.good = true
	if _, err := g.Verify(t.Context(), token); err == nil || g.Stats().Breaker != verifier.Open {
		t.Fatalf("the endpoint is called: %v, the breaker is %v", err, g.Stats().Breaker)
	}
	g.Reset()
	if v, err := g.Verify(t.Context(), token); err != nil || !v.Valid || g.Stats().Breaker != verifier.Closed {
		t.Errorf("got %+v, %v; the breaker is %v", v, err, g.Stats().Breaker)
	}
}
