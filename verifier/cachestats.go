package verifier

import "sync/atomic"

// counted is what a Cache counts of the requests that it has no verdict for. Those
// that it has one for cost nothing here.
type counted struct {
	misses, refreshed atomic.Uint64
	waiting           atomic.Int64
}

// CacheStats are what a Cache has counted, and holds now.
type CacheStats struct {
	// Good is the part of tokens that were good, Refused that of tokens that never were.
	Good, Refused PartStats
	// Misses is how many requests came for a token whose verdict was not remembered.
	Misses uint64
	// Waiting is how many of them wait now.
	Waiting int
	// Refreshed is how many tokens in use were asked for again before their verdict
	// ended.
	Refreshed uint64
	// Flights is how many calls are under way, and answers kept beside ristretto.
	Flights int
	// Denied is how many tokens are denied; some of them may have ended.
	Denied int
}

// PartStats are what a part of a Cache has counted, and holds now.
type PartStats struct {
	// Entries is how many tokens are remembered, some of them after their verdict has
	// ended, and Most how many there is room for.
	Entries, Most int
	// Evicted is how many had to go for others.
	Evicted uint64
	// Rejected is how many answers ristretto would not take; they were kept beside it
	// for a while.
	Rejected uint64
	// Dropped is how often ristretto's buffer was too full to take an answer in hand.
	Dropped uint64
}

// Stats returns the counters. It may be called at any time, also after Close.
func (c *Cache) Stats() CacheStats {
	return CacheStats{
		Good: c.good.stats(), Refused: c.refused.stats(),
		Misses:    c.counted.misses.Load(),
		Waiting:   int(c.counted.waiting.Load()),
		Refreshed: c.counted.refreshed.Load(),
		Flights:   c.flights.count(),
		Denied:    int(c.denials.count.Load()),
	}
}

func (m *memory) stats() PartStats {
	return PartStats{
		// Costs are tokens.
		Entries: max(0, m.most-int(m.entries.RemainingCost())), Most: m.most,
		Evicted: m.evicted.Load(), Rejected: m.rejected.Load(), Dropped: m.dropped.Load(),
	}
}
