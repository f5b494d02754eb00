package verifier

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/ristretto/v2"

	"github.com/bearergate/bearergate/bearer"
)

// entry is what is remembered of one token. It holds its whole digest, so that
// it is never taken for another token's, and its own deadline, because
// ristretto clears away only every few seconds.
type entry struct {
	digest bearer.Digest
	learnt instant
	life   time.Duration // from learnt on
	valid  bool
}

// inForce reports whether the entry may still be used.
func (e *entry) inForce(now instant) bool { return e.learnt.since(now) < e.life }

// memory holds a bounded number of entries. It may be used concurrently.
//
// Ristretto promises little: a new entry is seen some time after it was stored,
// or never. So store says whether the entry can be found, and what the cache
// would not take waits in a small queue of its own, see [Cache.linger].
type memory struct {
	entries *ristretto.Cache[uint64, entry]
	// rejected counts what ristretto would not take.
	rejected atomic.Uint64
}

// newMemory returns a memory for most entries.
func newMemory(most int) (*memory, error) {
	m := &memory{}
	var err error
	m.entries, err = ristretto.NewCache(&ristretto.Config[uint64, entry]{
		MaxCost:     int64(most),
		NumCounters: 10 * int64(max(most, 100)),
		BufferItems: 64,
		// Costs are tokens, not bytes. Without this each would cost 57 of them.
		IgnoreInternalCost: true,
	})
	if err != nil {
		return nil, fmt.Errorf("a cache for %d tokens: %w", most, err)
	}
	return m, nil
}

// key is the part of a digest that ristretto tells entries apart by. The digest
// is keyed and whole in the entry: nobody can aim at a key, and if two tokens
// share one, the older entry is lost.
func key(d *bearer.Digest) uint64 { return binary.LittleEndian.Uint64(d[:8]) }

// find returns the entry of a token, in force or not.
func (m *memory) find(d *bearer.Digest) (entry, bool) {
	e, ok := m.entries.Get(key(d))
	if !ok || e.digest != *d {
		return entry{}, false
	}
	return e, true
}

// store keeps an entry for a time, and returns when it can be found, or false
// if ristretto would not take it.
func (m *memory) store(e entry, keep time.Duration) bool {
	for range 2 { // when its buffer is full, ristretto drops; once it has waited there is room
		kept := m.entries.SetWithTTL(key(&e.digest), e, 1, keep)
		m.entries.Wait()
		if kept {
			break
		}
	}
	if found, ok := m.find(&e.digest); ok && found == e {
		return true
	}
	m.rejected.Add(1)
	return false
}

func (m *memory) close() { m.entries.Close() }

// queue remembers which flights linger, the oldest first, up to a bound.
type queue struct {
	mu   sync.Mutex
	ring []lingering
	next int
}

type lingering struct {
	digest bearer.Digest
	flight *flight
}

func newQueue(most int) *queue { return &queue{ring: make([]lingering, most)} }

// push adds a flight, and returns the one that has to go for it, if any.
func (q *queue) push(l lingering) (out lingering) {
	q.mu.Lock()
	defer q.mu.Unlock()
	out, q.ring[q.next] = q.ring[q.next], l
	q.next = (q.next + 1) % len(q.ring)
	return out
}
