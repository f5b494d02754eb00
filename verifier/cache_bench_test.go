package verifier_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/verifier"
)

// warmCache returns a cache that knows as many tokens, all good.
func warmCache(tb testing.TB, count int) (*verifier.Cache, []bearer.Token) {
	tb.Helper()
	c := newCache(tb, &oracle{answer: byName(0)}, verifier.CacheOptions{MaxTokens: count, ValidTTL: verifier.MaxLife})
	all := newTokens(tb).parseMany(tb, "good", count)
	for _, token := range all {
		if v, err := c.Verify(tb.Context(), token); err != nil || !v.Valid {
			tb.Fatalf("the verdict is %+v, %v", v, err)
		}
	}
	for deadline := time.Now().Add(patience); c.Stats().Flights > 0; runtime.Gosched() {
		if time.Now().After(deadline) {
			tb.Fatal("ristretto does not show them all")
		}
	}
	return c, all
}

func BenchmarkCacheHit(b *testing.B) {
	c, all := warmCache(b, 10_000)
	defer c.Close()
	ctx := b.Context()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if v, err := c.Verify(ctx, all[i%len(all)]); err != nil || v.Source != verifier.FromCache {
			b.Fatalf("the verdict is %+v, %v", v, err)
		}
	}
}

func BenchmarkCacheHitParallel(b *testing.B) {
	c, all := warmCache(b, 10_000)
	defer c.Close()
	ctx := b.Context()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if v, err := c.Verify(ctx, all[i%len(all)]); err != nil || v.Source != verifier.FromCache {
				b.Errorf("the verdict is %+v, %v", v, err)
				return
			}
		}
	})
}

// BenchmarkCacheMiss is a question about an unseen token, with an endpoint that
// answers at once.
func BenchmarkCacheMiss(b *testing.B) {
	c := newCache(b, &oracle{answer: byName(0)}, verifier.CacheOptions{MaxTokens: 10_000})
	defer c.Close()
	ts := newTokens(b)
	ctx := b.Context()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := c.Verify(ctx, ts.parse(b, fmt.Sprintf("good-%d", i))); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkCacheMissShared is an unseen token that 64 ask about at once; an
// operation is all of them.
func BenchmarkCacheMissShared(b *testing.B) {
	const askers = 64
	var arrived sync.WaitGroup
	next := &oracle{answer: func(ctx context.Context, t bearer.Token) (verifier.Verdict, error) {
		arrived.Wait()
		return byName(0)(ctx, t)
	}}
	c := newCache(b, next, verifier.CacheOptions{MaxTokens: 10_000})
	defer c.Close()
	ts := newTokens(b)
	ctx := b.Context()
	b.ReportAllocs()
	n := 0
	for ; b.Loop(); n++ {
		token := ts.parse(b, fmt.Sprintf("good-%d", n))
		arrived.Add(askers)
		var all sync.WaitGroup
		for range askers {
			all.Go(func() {
				arrived.Done()
				if v, err := c.Verify(ctx, token); err != nil || !v.Valid {
					b.Errorf("the verdict is %+v, %v", v, err)
				}
			})
		}
		all.Wait()
	}
	if calls := next.calls.Load(); calls != int64(n) {
		b.Errorf("%d calls were made for %d tokens", calls, n)
	}
}
