package verifier_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/verifier"
)

// oracle is a Verifier that answers as a test wants, and counts.
type oracle struct {
	answer func(ctx context.Context, t bearer.Token) (verifier.Verdict, error)
	calls  atomic.Int64
	mu     sync.Mutex
	asked  map[bearer.Digest]int
}

func (o *oracle) Verify(ctx context.Context, t bearer.Token) (verifier.Verdict, error) {
	o.calls.Add(1)
	o.mu.Lock()
	if o.asked == nil {
		o.asked = map[bearer.Digest]int{}
	}
	o.asked[*t.Digest()]++
	o.mu.Unlock()
	return o.answer(ctx, t)
}

// most returns how often a token was asked for that was asked for most.
func (o *oracle) most() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	most := 0
	for n := range maps.Values(o.asked) {
		most = max(most, n)
	}
	return most
}

// moment is how long an answer takes at least, so that whoever asks for it is there
// when it comes.
const moment = time.Microsecond

// says is an answer about any token.
func says(valid bool) func(context.Context, bearer.Token) (verifier.Verdict, error) {
	return func(context.Context, bearer.Token) (verifier.Verdict, error) {
		pass(moment)
		return learnt(valid), nil
	}
}

// learnt is a verdict that was given just now.
func learnt(valid bool) verifier.Verdict {
	return verifier.Verdict{Valid: valid, Learnt: time.Now()}
}

// byName finds a token good whose value begins so, after a while.
func byName(while time.Duration) func(context.Context, bearer.Token) (verifier.Verdict, error) {
	return func(_ context.Context, t bearer.Token) (verifier.Verdict, error) {
		if while > 0 {
			<-time.After(while)
		}
		return verifier.Verdict{Valid: strings.HasPrefix(t.Reveal(), "good"), Learnt: time.Now()}, nil
	}
}

var errNobody = &verifier.NoAnswer{Verifier: "crm", Problem: "nobody is there"}

// newCache returns a cache with bounds where a test gives none. Whoever asks for
// it in a bubble closes it there.
func newCache(t testing.TB, next verifier.Verifier, o verifier.CacheOptions) *verifier.Cache {
	t.Helper()
	o.Name = "crm"
	if o.MaxTokens == 0 {
		o.MaxTokens = 1000
	}
	if o.ValidTTL == 0 {
		o.ValidTTL = time.Minute
	}
	if o.InvalidTTL == 0 {
		o.InvalidTTL = 10 * time.Second
	}
	if o.Timeout == 0 {
		o.Timeout = 3 * time.Second
	}
	c, err := verifier.NewCache(next, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// withCache runs a test in a bubble, with a cache in front of an oracle.
func withCache(t *testing.T, o verifier.CacheOptions, answer func(context.Context, bearer.Token) (verifier.Verdict, error),
	test func(t *testing.T, c *verifier.Cache, next *oracle),
) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		next := &oracle{answer: answer}
		c := newCache(t, next, o)
		defer c.Close()
		test(t, c, next)
	})
}

// pass lets time go by in a bubble.
func pass(d time.Duration) { <-time.After(d) }

// expect asks and wants a verdict, from somewhere. What is remembered before, if
// anything is, has to be the same.
func expect(t *testing.T, c *verifier.Cache, token bearer.Token, valid bool, source verifier.Source) verifier.Verdict {
	t.Helper()
	var r verifier.Verdict
	left := c.Recall(&token, &r)
	v, err := c.Verify(t.Context(), token)
	if err == nil && left > 0 {
		off := (time.Until(v.Until) - left).Abs()
		if r.Valid != v.Valid || r.Source != v.Source || r.Claims != v.Claims || off > time.Second {
			t.Fatalf("%+v for %v was remembered, and the verdict is %+v", r, left, v)
		}
	}
	if err != nil || v.Valid != valid || v.Source != source {
		t.Fatalf("the verdict is %+v, %v; want %v from %v", v, err, valid, source)
	}
	if !v.Until.After(v.Learnt) || v.Until.Sub(v.Learnt) > verifier.MaxLife || !v.Until.After(time.Now()) {
		t.Fatalf("the verdict, learnt %v, is for %v", v.Learnt, v.Until.Sub(v.Learnt))
	}
	return v
}

func expectCalls(t *testing.T, next *oracle, want int64) {
	t.Helper()
	if got := next.calls.Load(); got != want {
		t.Fatalf("%d calls were made, want %d", got, want)
	}
}

func TestCacheRefusesWhatMakesNoSense(t *testing.T) {
	good := verifier.CacheOptions{MaxTokens: 1, ValidTTL: verifier.MaxLife, InvalidTTL: time.Millisecond, Timeout: 1}
	for _, c := range []struct {
		name   string
		change func(*verifier.CacheOptions)
		err    string
	}{
		{"no tokens", func(o *verifier.CacheOptions) { o.MaxTokens = 0 }, "0 tokens"},
		{"less than no tokens", func(o *verifier.CacheOptions) { o.MaxTokens = -1 }, "-1 tokens"},
		{"no TTL of good answers", func(o *verifier.CacheOptions) { o.ValidTTL = 0 }, "TTL of good answers"},
		{"a negative TTL of good answers", func(o *verifier.CacheOptions) { o.ValidTTL = -1 }, "TTL of good answers"},
		{"a TTL of good answers beyond the cap", func(o *verifier.CacheOptions) { o.ValidTTL = verifier.MaxLife + 1 }, "at most 5m0s"},
		{"no TTL of refusals", func(o *verifier.CacheOptions) { o.InvalidTTL = 0 }, "TTL of refusals"},
		{"a TTL of refusals beyond the cap", func(o *verifier.CacheOptions) { o.InvalidTTL = verifier.MaxLife + 1 }, "at most 5m0s"},
		{"no time-out", func(o *verifier.CacheOptions) { o.Timeout = 0 }, "time-out"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := good
			c.change(&o)
			if _, err := verifier.NewCache(&oracle{}, o); err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("the error is %v, want one with %q", err, c.err)
			}
		})
	}
	c, err := verifier.NewCache(&oracle{}, good)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestHitsAndMisses(t *testing.T) {
	withCache(t, verifier.CacheOptions{}, byName(moment), func(t *testing.T, c *verifier.Cache, next *oracle) {
		ts := newTokens(t)
		for i, value := range []string{"good-1", "good-2", "bad-1", "bad-2", "good-3"} {
			token := ts.parse(t, value)
			valid := strings.HasPrefix(value, "good")
			first := expect(t, c, token, valid, verifier.FromEndpoint)
			if !first.Learnt.Equal(time.Now()) {
				t.Errorf("it was learnt %v ago", time.Since(first.Learnt))
			}
			pass(time.Second)
			for range 3 {
				again := expect(t, c, ts.parse(t, value), valid, verifier.FromCache)
				if !again.Learnt.Equal(first.Learnt) || !again.Until.Equal(first.Until) {
					t.Errorf("the verdict was %+v and is %+v", first, again)
				}
			}
			expectCalls(t, next, int64(i+1))
		}
	})
}

// TestWhoCausesTheCallHearsFromTheEndpoint, however fast that is.
func TestWhoCausesTheCallHearsFromTheEndpoint(t *testing.T) {
	c := newCache(t, &oracle{answer: byName(0)}, verifier.CacheOptions{})
	defer c.Close()
	for _, token := range newTokens(t).parseMany(t, "good", 1000) {
		expect(t, c, token, true, verifier.FromEndpoint)
	}
}

// shortest is what chance leaves of a TTL at least.
func shortest(ttl time.Duration) time.Duration { return ttl*9/10 - time.Millisecond }

// TestVerdictsEndExactly looks a nanosecond before and at the end.
func TestVerdictsEndExactly(t *testing.T) {
	for _, ttl := range []time.Duration{time.Second, 4999 * time.Millisecond, 5 * time.Second, time.Minute, 299 * time.Second, verifier.MaxLife} {
		for _, valid := range []bool{true, false} {
			t.Run(fmt.Sprintf("%v for %v", valid, ttl), func(t *testing.T) {
				withCache(t, verifier.CacheOptions{ValidTTL: ttl, InvalidTTL: ttl}, says(valid), func(t *testing.T, c *verifier.Cache, next *oracle) {
					token := newTokens(t).parse(t, "x")
					for n := range int64(5) {
						v := expect(t, c, token, valid, verifier.FromEndpoint)
						life := v.Until.Sub(v.Learnt)
						if life > ttl || life < shortest(ttl) || !valid && life != ttl {
							t.Errorf("the verdict is for %v", life)
						}
						pass(time.Until(v.Until) - 1)
						expect(t, c, token, valid, verifier.FromCache)
						expectCalls(t, next, n+1)
						pass(1)
					}
				})
			})
		}
	}
}

// TestUseDoesNotLengthenALife asks all the time.
func TestUseDoesNotLengthenALife(t *testing.T) {
	withCache(t, verifier.CacheOptions{ValidTTL: verifier.MaxLife}, says(true), func(t *testing.T, c *verifier.Cache, next *oracle) {
		token := newTokens(t).parse(t, "x")
		v := expect(t, c, token, true, verifier.FromEndpoint)
		for time.Until(v.Until) > time.Second {
			pass(time.Second)
			expect(t, c, token, true, verifier.FromCache)
		}
		expectCalls(t, next, 1)
		pass(time.Until(v.Until))
		expect(t, c, token, true, verifier.FromEndpoint)
	})
}

// TestLifeBeginsWhenTheAnswerWasGiven, not when it was stored or the question put.
func TestLifeBeginsWhenTheAnswerWasGiven(t *testing.T) {
	withCache(t, verifier.CacheOptions{InvalidTTL: 10 * time.Second}, func(context.Context, bearer.Token) (verifier.Verdict, error) {
		pass(time.Second)
		v := verifier.Verdict{Learnt: time.Now()}
		pass(time.Second)
		return v, nil
	}, func(t *testing.T, c *verifier.Cache, _ *oracle) {
		begin := time.Now()
		v := expect(t, c, newTokens(t).parse(t, "x"), false, verifier.FromEndpoint)
		if v.Learnt.Sub(begin) != time.Second || v.Until.Sub(begin) != 11*time.Second {
			t.Errorf("it was learnt after %v and ends after %v", v.Learnt.Sub(begin), v.Until.Sub(begin))
		}
	})
}

// TestStagesBelowMayShortenALife, but not lengthen it.
func TestStagesBelowMayShortenALife(t *testing.T) {
	for _, valid := range []bool{true, false} {
		for _, given := range []time.Duration{time.Second, 9 * time.Second, time.Hour} {
			t.Run(fmt.Sprintf("%v for %v", valid, given), func(t *testing.T) {
				withCache(t, verifier.CacheOptions{ValidTTL: 20 * time.Second, InvalidTTL: 20 * time.Second}, func(context.Context, bearer.Token) (verifier.Verdict, error) {
					pass(moment)
					return verifier.Verdict{Valid: valid, Learnt: time.Now(), Until: time.Now().Add(given)}, nil
				}, func(t *testing.T, c *verifier.Cache, next *oracle) {
					token := newTokens(t).parse(t, "x")
					v := expect(t, c, token, valid, verifier.FromEndpoint)
					if life := v.Until.Sub(v.Learnt); life > given || life > 20*time.Second || life < min(given, shortest(20*time.Second)) {
						t.Errorf("the verdict is for %v", life)
					}
					pass(time.Until(v.Until))
					expect(t, c, token, valid, verifier.FromEndpoint)
					expectCalls(t, next, 2)
				})
			})
		}
	}
}

// TestRefusalOfATokenThatWasGood: it has ended or was withdrawn, and does not come
// back, so that is remembered for as long as anything.
func TestRefusalOfATokenThatWasGood(t *testing.T) {
	for _, c := range []struct {
		name string
		wait time.Duration // between the good answer and the refusal
		life time.Duration
	}{
		{"right after its end", time.Minute, verifier.MaxLife},
		{"a while later", 299 * time.Second, verifier.MaxLife},
		{"when nobody remembers", 301 * time.Second, 10 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			answers := []bool{true, false, false, false}
			withCache(t, verifier.CacheOptions{ValidTTL: time.Minute, InvalidTTL: 10 * time.Second}, func(ctx context.Context, token bearer.Token) (verifier.Verdict, error) {
				answer := says(answers[0])
				answers = answers[1:]
				return answer(ctx, token)
			}, func(t *testing.T, cache *verifier.Cache, next *oracle) {
				token := newTokens(t).parse(t, "x")
				expect(t, cache, token, true, verifier.FromEndpoint)
				pass(c.wait)
				v := expect(t, cache, token, false, verifier.FromEndpoint)
				if got := v.Until.Sub(v.Learnt); got != c.life {
					t.Errorf("it is remembered for %v, want %v", got, c.life)
				}
				pass(c.life - 1)
				expect(t, cache, token, false, verifier.FromCache)
				expectCalls(t, next, 2)
				pass(1)
				v = expect(t, cache, token, false, verifier.FromEndpoint)
				if got := v.Until.Sub(v.Learnt); got != 10*time.Second {
					t.Errorf("the next refusal is remembered for %v", got)
				}
			})
		})
	}
}

func TestTokenThatIsRefusedFirstAndGoodLater(t *testing.T) {
	valid := false
	withCache(t, verifier.CacheOptions{}, func(ctx context.Context, token bearer.Token) (verifier.Verdict, error) {
		return says(valid)(ctx, token)
	}, func(t *testing.T, c *verifier.Cache, next *oracle) {
		token := newTokens(t).parse(t, "x")
		v := expect(t, c, token, false, verifier.FromEndpoint)
		valid = true
		pass(time.Until(v.Until))
		v = expect(t, c, token, true, verifier.FromEndpoint)
		pass(time.Until(v.Until) - 1)
		expect(t, c, token, true, verifier.FromCache)
		expectCalls(t, next, 2)
	})
}

func TestNoAnswerIsNeverRemembered(t *testing.T) {
	for name, fault := range map[string]error{
		"no answer":   errNobody,
		"a time-out":  context.DeadlineExceeded,
		"another":     errors.New("of another kind"),
		"it is ended": verifier.ErrClosed,
	} {
		t.Run(name, func(t *testing.T) {
			var answer func(context.Context, bearer.Token) (verifier.Verdict, error)
			withCache(t, verifier.CacheOptions{}, func(ctx context.Context, token bearer.Token) (verifier.Verdict, error) {
				if answer == nil {
					// Nobody is to look at the verdict beside an error.
					return verifier.Verdict{Valid: true, Learnt: time.Now(), Until: time.Now().Add(time.Hour)}, fault
				}
				return answer(ctx, token)
			}, func(t *testing.T, c *verifier.Cache, next *oracle) {
				token := newTokens(t).parse(t, "x")
				fails := func(times int64) {
					t.Helper()
					before := next.calls.Load()
					for range times {
						if v, err := c.Verify(t.Context(), token); !errors.Is(err, fault) || !nothing(v) {
							t.Errorf("the verdict is %+v, %v", v, err)
						}
					}
					expectCalls(t, next, before+times)
				}
				fails(5)
				answer = says(true)
				v := expect(t, c, token, true, verifier.FromEndpoint)
				expect(t, c, token, true, verifier.FromCache)
				answer = nil
				pass(time.Until(v.Until))
				fails(5) // and the good answer, which has ended, is of no use any more
				answer = says(false)
				v = expect(t, c, token, false, verifier.FromEndpoint)
				answer = nil
				pass(time.Until(v.Until))
				fails(5)
			})
		})
	}
}

func TestDigestsAreComparedWhole(t *testing.T) {
	for _, same := range []int{8, 16, 24, 31} {
		t.Run(fmt.Sprintf("%d bytes alike", same), func(t *testing.T) {
			withCache(t, verifier.CacheOptions{}, byName(time.Second), func(t *testing.T, c *verifier.Cache, next *oracle) {
				ts := newTokens(t)
				good, bad := ts.parse(t, "good"), ts.parse(t, "bad")
				// Nobody can make such tokens: the digest is keyed.
				copy(bad.Digest()[:same], good.Digest()[:same])
				if *bad.Digest() == *good.Digest() {
					bad.Digest()[31]++
				}
				var both sync.WaitGroup
				both.Go(func() { expect(t, c, good, true, verifier.FromEndpoint) })
				expect(t, c, bad, false, verifier.FromEndpoint)
				both.Wait()
				expectCalls(t, next, 2)
				for range 10 {
					for token, valid := range map[*bearer.Token]bool{&good: true, &bad: false} {
						if v, err := c.Verify(t.Context(), *token); err != nil || v.Valid != valid {
							t.Errorf("the verdict is %+v, %v; want %v", v, err, valid)
						}
					}
				}
			})
		})
	}
}

// crowdOf asks with many at a time and hands each outcome over.
func crowdOf(ctx context.Context, c *verifier.Cache, token bearer.Token, size int, outcome func(verifier.Verdict, error)) {
	var all sync.WaitGroup
	var mu sync.Mutex
	for range size {
		all.Go(func() {
			v, err := c.Verify(ctx, token)
			mu.Lock()
			defer mu.Unlock()
			outcome(v, err)
		})
	}
	all.Wait()
}

func TestManyShareOneCall(t *testing.T) {
	for name, c := range map[string]struct {
		valid bool
		err   error
	}{"good": {valid: true}, "not good": {}, "no answer": {err: errNobody}} {
		t.Run(name, func(t *testing.T) {
			withCache(t, verifier.CacheOptions{}, func(ctx context.Context, token bearer.Token) (verifier.Verdict, error) {
				pass(time.Second)
				if c.err != nil {
					return verifier.Verdict{}, c.err
				}
				return learnt(c.valid), nil
			}, func(t *testing.T, cache *verifier.Cache, next *oracle) {
				token := newTokens(t).parse(t, "x")
				begin := time.Now()
				answered := 0
				crowdOf(t.Context(), cache, token, 200, func(v verifier.Verdict, err error) {
					answered++
					if !errors.Is(err, c.err) || v.Valid != c.valid || v.Source != verifier.FromEndpoint || time.Since(begin) != time.Second {
						t.Errorf("after %v the verdict is %+v, %v", time.Since(begin), v, err)
					}
				})
				expectCalls(t, next, 1)
				if answered != 200 {
					t.Errorf("%d got an answer", answered)
				}
				crowdOf(t.Context(), cache, token, 200, func(v verifier.Verdict, err error) {
					if !errors.Is(err, c.err) || v.Valid != c.valid || c.err == nil && v.Source != verifier.FromCache {
						t.Errorf("the verdict is %+v, %v", v, err)
					}
				})
				if c.err == nil {
					expectCalls(t, next, 1)
				} else {
					expectCalls(t, next, 2)
				}
			})
		})
	}
}

func TestCallsForDifferentTokensDoNotWaitForEachOther(t *testing.T) {
	withCache(t, verifier.CacheOptions{}, byName(time.Second), func(t *testing.T, c *verifier.Cache, next *oracle) {
		ts := newTokens(t)
		begin := time.Now()
		var all sync.WaitGroup
		for i := range 100 {
			token := ts.parse(t, fmt.Sprintf("good-%d", i))
			all.Go(func() { expect(t, c, token, true, verifier.FromEndpoint) })
		}
		all.Wait()
		expectCalls(t, next, 100)
		if took := time.Since(begin); took != time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestNoSecondCallInTheGap asks again at the very moment when an answer has come,
// which is before ristretto shows it. It is not in a bubble: the moment is found
// by trying often.
func TestNoSecondCallInTheGap(t *testing.T) {
	rounds := 5000
	if testing.Short() {
		rounds = 500
	}
	next := &oracle{answer: byName(0)}
	c := newCache(t, next, verifier.CacheOptions{MaxTokens: 4 * rounds, InvalidTTL: time.Minute})
	defer c.Close()
	ts := newTokens(t)
	const askers, questions = 4, 5
	for i := range rounds {
		token := ts.parse(t, fmt.Sprintf("%s-%d", []string{"good", "bad"}[i%2], i))
		var all sync.WaitGroup
		for range askers {
			all.Go(func() {
				for range questions {
					if v, err := c.Verify(t.Context(), token); err != nil || v.Valid != (i%2 == 0) {
						t.Errorf("the verdict is %+v, %v", v, err)
					}
				}
			})
		}
		all.Wait()
	}
	if next.calls.Load() != int64(rounds) || next.most() != 1 {
		t.Errorf("%d calls were made for %d tokens, %d for one", next.calls.Load(), rounds, next.most())
	}
}

// TestNoSecondCallForManyTokensAtOnce is the same while ristretto has much to do.
func TestNoSecondCallForManyTokensAtOnce(t *testing.T) {
	const count, askers = 2000, 8
	next := &oracle{answer: byName(0)}
	c := newCache(t, next, verifier.CacheOptions{MaxTokens: 2 * count})
	defer c.Close()
	ts := newTokens(t)
	all := make([]bearer.Token, count)
	for i := range all {
		all[i] = ts.parse(t, fmt.Sprintf("good-%d", i))
	}
	var asking sync.WaitGroup
	for range askers {
		asking.Go(func() {
			for i := range 2 * len(all) {
				if v, err := c.Verify(t.Context(), all[i%len(all)]); err != nil || !v.Valid {
					t.Errorf("the verdict is %+v, %v", v, err)
				}
			}
		})
	}
	asking.Wait()
	if next.most() != 1 {
		t.Errorf("%d calls were made for %d tokens, %d for one", next.calls.Load(), count, next.most())
	}
}

func TestCallersThatGiveUp(t *testing.T) {
	withCache(t, verifier.CacheOptions{}, func(ctx context.Context, token bearer.Token) (verifier.Verdict, error) {
		pass(time.Second)
		if ctx.Err() != nil {
			return verifier.Verdict{}, ctx.Err()
		}
		return learnt(true), nil
	}, func(t *testing.T, c *verifier.Cache, next *oracle) {
		token := newTokens(t).parse(t, "x")
		begin := time.Now()
		var all sync.WaitGroup
		for i := range 10 {
			all.Go(func() { // the first of all may be one of them
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i+1)*50*time.Millisecond)
				defer cancel()
				v, err := c.Verify(ctx, token)
				none := expectNone(t, v, err, "the edge's own time-out")
				if !errors.Is(none, context.DeadlineExceeded) || time.Since(begin) != time.Duration(i+1)*50*time.Millisecond {
					t.Errorf("after %v the error is %v", time.Since(begin), err)
				}
			})
			all.Go(func() { expect(t, c, token, true, verifier.FromEndpoint) })
		}
		all.Wait()
		expectCalls(t, next, 1)
	})
}

func TestAnswerThatNobodyWaitsFor(t *testing.T) {
	for _, valid := range []bool{true, false} {
		t.Run(fmt.Sprint(valid), func(t *testing.T) {
			withCache(t, verifier.CacheOptions{}, func(ctx context.Context, token bearer.Token) (verifier.Verdict, error) {
				pass(time.Second)
				if ctx.Err() != nil {
					return verifier.Verdict{}, ctx.Err()
				}
				return learnt(valid), nil
			}, func(t *testing.T, c *verifier.Cache, next *oracle) {
				token := newTokens(t).parse(t, "x")
				ctx, cancel := context.WithCancel(t.Context())
				cancel() // before it asks
				v, err := c.Verify(ctx, token)
				if none := expectNone(t, v, err, "the edge gave up"); !errors.Is(none, context.Canceled) {
					t.Errorf("the error is %v", err)
				}
				crowd, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
				defer stop()
				crowdOf(crowd, c, token, 20, func(v verifier.Verdict, err error) { expectNone(t, v, err, "time-out") })
				pass(time.Second)
				expect(t, c, token, valid, verifier.FromCache)
				expectCalls(t, next, 1)
			})
		})
	}
}

// TestCallIsItsOwn looks at the context of a call: it has the cache's time-out,
// whatever the caller brings.
func TestCallIsItsOwn(t *testing.T) {
	type key struct{}
	withCache(t, verifier.CacheOptions{Timeout: 3 * time.Second}, func(ctx context.Context, _ bearer.Token) (verifier.Verdict, error) {
		if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) != 3*time.Second {
			t.Errorf("the deadline is %v, %v", deadline, ok)
		}
		if ctx.Value(key{}) != nil {
			t.Error("the call carries what belongs to a request")
		}
		<-ctx.Done()
		return verifier.Verdict{}, ctx.Err()
	}, func(t *testing.T, c *verifier.Cache, next *oracle) {
		begin := time.Now()
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "x"), time.Hour)
		defer cancel()
		v, err := c.Verify(ctx, newTokens(t).parse(t, "x"))
		if !errors.Is(err, context.DeadlineExceeded) || !nothing(v) || time.Since(begin) != 3*time.Second {
			t.Errorf("after %v the verdict is %+v, %v", time.Since(begin), v, err)
		}
		expectCalls(t, next, 1)
	})
}

type oddPanic struct{ token string }

func TestPanics(t *testing.T) {
	for name, c := range map[string]struct {
		panics func()
		kind   string
	}{
		"a text":          {func() { panic("CANARY") }, "string"},
		"an error":        {func() { panic(errors.New("CANARY")) }, "*errors.errorString"},
		"a kind of its":   {func() { panic(oddPanic{"CANARY"}) }, "verifier_test.oddPanic"},
		"nil":             {func() { panic(nil) }, "panic called with nil argument"}, //nolint:govet // on purpose
		"a runtime error": {func() { _ = []int{}[len(t.Name())] }, "runtime error: index out of range [10] with length 0"},
	} {
		t.Run(name, func(t *testing.T) {
			var told []*verifier.Panic
			panics := true
			withCache(t, verifier.CacheOptions{Panicked: func(p *verifier.Panic) { told = append(told, p) }}, func(ctx context.Context, token bearer.Token) (verifier.Verdict, error) {
				pass(time.Second)
				if panics {
					c.panics()
				}
				return learnt(true), nil
			}, func(t *testing.T, cache *verifier.Cache, next *oracle) {
				token := newTokens(t).parse(t, "x")
				for round := range int64(2) {
					answered := 0
					crowdOf(t.Context(), cache, token, 50, func(v verifier.Verdict, err error) {
						answered++
						p, ok := errors.AsType[*verifier.Panic](err)
						if !ok || !nothing(v) {
							t.Fatalf("the verdict is %+v, %v", v, err)
						}
						expectHidden(t, err.Error()+fmt.Sprintf("%+v", err)+string(p.Stack), "CANARY")
						if !strings.Contains(p.Kind, c.kind) || err.Error() != "panic: "+p.Kind || !strings.Contains(string(p.Stack), "TestPanics") {
							t.Errorf("the error is %v at %s", err, p.Stack)
						}
					})
					expectCalls(t, next, round+1)
					if answered != 50 || len(told) != int(round)+1 {
						t.Errorf("%d got an answer, and %d panics were told", answered, len(told))
					}
				}
				panics = false
				expect(t, cache, token, true, verifier.FromEndpoint)
				expectCalls(t, next, 3)
			})
		})
	}
}

func TestPanicThatNobodyIsToldOf(t *testing.T) {
	withCache(t, verifier.CacheOptions{}, func(context.Context, bearer.Token) (verifier.Verdict, error) { panic("x") }, func(t *testing.T, c *verifier.Cache, _ *oracle) {
		if _, err := c.Verify(t.Context(), newTokens(t).parse(t, "x")); err == nil {
			t.Error("there is no error")
		}
	})
}

func TestCloseEndsTheCallsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := &oracle{answer: func(ctx context.Context, _ bearer.Token) (verifier.Verdict, error) {
			<-ctx.Done()
			pass(time.Second) // it takes a while to end
			return verifier.Verdict{}, ctx.Err()
		}}
		c := newCache(t, next, verifier.CacheOptions{Timeout: time.Hour})
		ts := newTokens(t)
		begin := time.Now()
		var all sync.WaitGroup
		for i := range 20 {
			token := ts.parse(t, fmt.Sprint("x", i%5))
			all.Go(func() {
				v, err := c.Verify(t.Context(), token)
				if err == nil || !nothing(v) {
					t.Errorf("the verdict is %+v, %v", v, err)
				}
			})
		}
		synctest.Wait()
		c.Close()
		if took := time.Since(begin); took != time.Second {
			t.Errorf("it was closed after %v, want: after the calls have ended", took)
		}
		all.Wait()
		expectCalls(t, next, 5)
		c.Close() // once more does no harm
	})
}

func TestAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := &oracle{answer: byName(moment)}
		c := newCache(t, next, verifier.CacheOptions{})
		ts := newTokens(t)
		known := ts.parse(t, "good")
		expect(t, c, known, true, verifier.FromEndpoint)
		c.Close()
		for _, token := range []bearer.Token{known, ts.parse(t, "unseen")} {
			if v, err := c.Verify(t.Context(), token); !errors.Is(err, verifier.ErrClosed) || !nothing(v) {
				t.Errorf("the verdict is %+v, %v", v, err)
			}
		}
		expectCalls(t, next, 1)
	})
}
