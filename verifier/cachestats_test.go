package verifier_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/verifier"
)

func TestWhatACacheCounts(t *testing.T) {
	withCache(t, verifier.CacheOptions{MaxTokens: 8, ValidTTL: time.Minute, RefreshBefore: 10 * time.Second}, byName(moment),
		func(t *testing.T, c *verifier.Cache, _ *oracle) {
			ts := newTokens(t)
			want := verifier.CacheStats{Good: verifier.PartStats{Most: 8}, Refused: verifier.PartStats{Most: 2}}
			same := func(when string) {
				t.Helper()
				synctest.Wait() // flights land after who waited for them is told
				if got := c.Stats(); got != want {
					t.Errorf("%s it counts %+v, want %+v", when, got, want)
				}
			}
			same("at first")
			token := ts.parse(t, "good")
			expect(t, c, token, true, verifier.FromEndpoint)
			expect(t, c, ts.parse(t, "bad"), false, verifier.FromEndpoint)
			want.Misses, want.Good.Entries, want.Refused.Entries = 2, 1, 1
			same("after two calls")
			for range 5 {
				expect(t, c, token, true, verifier.FromCache)
			}
			same("after hits")
			pass(51 * time.Second)
			expect(t, c, token, true, verifier.FromCache)
			pass(time.Second)
			want.Refreshed, want.Refused.Entries = 1, 0
			same("after a renewal, and the end of the refusal")
			for i := range 3 {
				expect(t, c, ts.parse(t, string(rune('a'+i))), false, verifier.FromEndpoint)
			}
			synctest.Wait()
			got := c.Stats()
			if gone := got.Refused.Evicted + got.Refused.Rejected; gone != 1 || got.Refused.Entries != 2 || got.Misses != 5 {
				t.Errorf("after more than there is room for it counts %+v", got)
			}
		})
}

func TestWhoWaitsIsCounted(t *testing.T) {
	const takes = 10 * time.Second
	withCache(t, verifier.CacheOptions{Timeout: time.Minute}, func(context.Context, bearer.Token) (verifier.Verdict, error) {
		pass(takes)
		return learnt(true), nil
	}, func(t *testing.T, c *verifier.Cache, _ *oracle) {
		token := newTokens(t).parse(t, "x")
		done := make(chan time.Duration)
		for range 3 {
			go func() {
				v, err := c.Verify(t.Context(), token)
				if err != nil {
					t.Error(err)
				}
				done <- v.Waited
			}()
		}
		pass(time.Second)
		if n := c.Stats().Waiting; n != 3 {
			t.Errorf("%d wait, want 3", n)
		}
		for range 3 {
			if waited := <-done; waited != takes {
				t.Errorf("one has waited %v, want %v", waited, takes)
			}
		}
		if n := c.Stats().Waiting; n != 0 {
			t.Errorf("%d wait, want none", n)
		}
		if v, err := c.Verify(t.Context(), token); err != nil || v.Waited != 0 {
			t.Errorf("what is remembered was waited for %v, %v", v.Waited, err)
		}
	})
}
