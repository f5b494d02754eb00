package verifier_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/verifier"
)

// parseMany makes tokens whose values begin alike.
func (ts *tokens) parseMany(t testing.TB, name string, count int) []bearer.Token {
	t.Helper()
	all := make([]bearer.Token, count)
	for i := range all {
		all[i] = ts.parse(t, fmt.Sprintf("%s-%d", name, i))
	}
	return all
}

// TestMaxTokensAreHeld stores as many good tokens as there is to be room for. Then
// none costs a second call.
func TestMaxTokensAreHeld(t *testing.T) {
	for _, count := range []int{10, 100, 1000, 10_000} {
		t.Run(fmt.Sprint(count), func(t *testing.T) {
			withCache(t, verifier.CacheOptions{MaxTokens: count}, byName(moment), func(t *testing.T, c *verifier.Cache, next *oracle) {
				all := newTokens(t).parseMany(t, "good", count)
				for _, token := range all {
					expect(t, c, token, true, verifier.FromEndpoint)
				}
				expectCalls(t, next, int64(count))
				held := 0
				for _, token := range all {
					v, err := c.Verify(t.Context(), token)
					if err != nil || !v.Valid {
						t.Fatalf("the verdict is %+v, %v", v, err)
					}
					if v.Source == verifier.FromCache {
						held++
					}
				}
				t.Logf("of %d tokens %d were held", count, held)
				if held != count {
					t.Errorf("of %d tokens %d were held", count, held)
				}
			})
		})
	}
}

// TestLivesThatEndMakeRoom: tokens come and go for an hour, never more at a time
// than there is room for, and each costs one call.
func TestLivesThatEndMakeRoom(t *testing.T) {
	withCache(t, verifier.CacheOptions{MaxTokens: 1000, ValidTTL: verifier.MaxLife}, byName(moment), func(t *testing.T, c *verifier.Cache, next *oracle) {
		ts := newTokens(t)
		learnt := 0
		for minute := range 60 {
			// 150 a minute, of which what lives for 5 minutes stays below 1000.
			all := ts.parseMany(t, fmt.Sprintf("good-%d", minute), 150)
			for range 2 {
				for _, token := range all {
					if v, err := c.Verify(t.Context(), token); err != nil || !v.Valid {
						t.Fatalf("the verdict is %+v, %v", v, err)
					}
				}
			}
			learnt += len(all)
			pass(time.Minute)
		}
		expectCalls(t, next, int64(learnt))
	})
}

// TestTinyCacheIsRight has far more tokens than room: what is lost costs a call,
// never a wrong verdict.
func TestTinyCacheIsRight(t *testing.T) {
	for _, size := range []int{1, 2, 7} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			withCache(t, verifier.CacheOptions{MaxTokens: size}, byName(moment), func(t *testing.T, c *verifier.Cache, next *oracle) {
				ts := newTokens(t)
				good, bad := ts.parseMany(t, "good", 100), ts.parseMany(t, "bad", 100)
				for range 5 {
					for i := range good {
						for _, token := range []bearer.Token{good[i], bad[i], good[i], bad[i]} {
							v, err := c.Verify(t.Context(), token)
							if err != nil || v.Valid != (token.Reveal()[0] == 'g') {
								t.Fatalf("the verdict on %s is %+v, %v", token.Reveal(), v, err)
							}
						}
					}
					pass(time.Second)
				}
				t.Logf("%d calls for 200 tokens in 5 rounds", next.calls.Load())
				// A question right after another is never a second call.
				if next.calls.Load() > 5*200 {
					t.Errorf("%d calls were made", next.calls.Load())
				}
			})
		})
	}
}

// TestTinyCacheUnderLoad is the same with many at a time, and not in a bubble.
func TestTinyCacheUnderLoad(t *testing.T) {
	next := &oracle{answer: byName(0)}
	c := newCache(t, next, verifier.CacheOptions{MaxTokens: 3})
	defer c.Close()
	ts := newTokens(t)
	all := append(ts.parseMany(t, "good", 40), ts.parseMany(t, "bad", 40)...)
	var asking sync.WaitGroup
	for asker := range 8 {
		asking.Go(func() {
			for n := range 4000 {
				token := all[(n*(2*asker+1))%len(all)]
				if v, err := c.Verify(t.Context(), token); err != nil || v.Valid != (token.Reveal()[0] == 'g') {
					t.Errorf("the verdict on %s is %+v, %v", token.Reveal(), v, err)
					return
				}
			}
		})
	}
	asking.Wait()
}

// TestFloodLeavesGoodTokensInPlace pours in made-up tokens, while the cache is
// full of good ones. Afterwards none of those costs a call.
func TestFloodLeavesGoodTokensInPlace(t *testing.T) {
	flood := 100_000
	if testing.Short() {
		flood = 5000
	}
	const count = 1000
	withCache(t, verifier.CacheOptions{MaxTokens: count, ValidTTL: verifier.MaxLife}, byName(moment), func(t *testing.T, c *verifier.Cache, next *oracle) {
		ts := newTokens(t)
		good := ts.parseMany(t, "good", count)
		for _, token := range good {
			expect(t, c, token, true, verifier.FromEndpoint)
		}
		for i := range flood {
			if v, err := c.Verify(t.Context(), ts.parse(t, fmt.Sprintf("bad-%d", i))); err != nil || v.Valid {
				t.Fatalf("the verdict is %+v, %v", v, err)
			}
		}
		calls := next.calls.Load()
		for _, token := range good {
			expect(t, c, token, true, verifier.FromCache)
		}
		expectCalls(t, next, calls)
	})
}
