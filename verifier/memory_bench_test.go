package verifier

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/bearergate/bearergate/bearer"
)

// bare is what an entry is beside its digest.
type bare struct {
	learnt             instant
	life, limit, again span
	valid              bool
	claims             *Claims
}

// goodEntry makes an entry of a token by its number.
func goodEntry(c clock, number int) (d bearer.Digest, e *entry) {
	// Digests are even over all their bytes; so are these.
	state := uint64(number) + 1
	for i := 0; i < len(d); i += 8 {
		state += 0x9e3779b97f4a7c15 // splitmix64
		z := (state ^ state>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		binary.LittleEndian.PutUint64(d[i:], z^z>>31)
	}
	return d, &entry{
		digest: tailOf(&d), learnt: c.now(), valid: true,
		life: spanOf(time.Minute), limit: spanOf(time.Minute), again: spanOf(50 * time.Second),
	}
}

// held returns how many bytes of the heap hold what make returns.
func held(makeIt func() any) uint64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&before)
	kept := makeIt()
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(kept)
	return after.HeapAlloc - before.HeapAlloc
}

// bytesPerToken measures a Cache that is full of good tokens, and beside it a bare
// map of the same entries by their digests.
func bytesPerToken(tb testing.TB, count int) (cache, bareMap float64) {
	tb.Helper()
	clk := newClock()
	inMap := held(func() any {
		m := map[bearer.Digest]bare{}
		for i := range count {
			d, e := goodEntry(clk, i)
			m[d] = bare{e.learnt, e.life, e.limit, e.again, e.valid, e.claims}
		}
		return m
	})
	var c *Cache
	inCache := held(func() any {
		var err error
		c, err = NewCache(nil, CacheOptions{MaxTokens: count, ValidTTL: time.Minute, InvalidTTL: time.Second, Timeout: time.Second})
		if err != nil {
			tb.Fatal(err)
		}
		for i := range count {
			if d, e := goodEntry(c.clock, i); !c.good.set(&d, e) {
				tb.Fatal("ristretto dropped an entry")
			}
			if i%1000 == 999 {
				c.good.settle()
			}
		}
		c.good.settle()
		return c
	})
	defer c.Close()
	for i := range count {
		if d, _ := goodEntry(c.clock, i); i%97 == 0 {
			if c.good.find(&d) == nil {
				tb.Fatalf("token %d of %d is not held", i, count)
			}
		}
	}
	return float64(inCache) / float64(count), float64(inMap) / float64(count)
}

// BenchmarkBytesPerToken says what a token costs in memory: B/token in a full Cache,
// B/token-bare in a bare map, and x-bare, the one as a multiple of the other. Its
// time is not of interest:
//
//	go test -run '^$' -bench BytesPerToken -benchtime 1x ./verifier
func BenchmarkBytesPerToken(b *testing.B) {
	for _, count := range []int{10_000, 30_000, 100_000, 300_000, 1_000_000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			var cache, bareMap float64
			for b.Loop() {
				cache, bareMap = bytesPerToken(b, count)
			}
			b.ReportMetric(cache, "B/token")
			b.ReportMetric(bareMap, "B/token-bare")
			b.ReportMetric(cache/bareMap, "x-bare")
			b.ReportMetric(0, "ns/op")
		})
	}
}
