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

// memory holds a bounded number of entries. It may be used concurrently.
//
// Ristretto promises little: a new entry is seen some time after it was stored,
// or never. So store says whether the entry can be found, and what the cache
// would not take waits in a small queue of its own, see [Cache.linger].
type memory struct {
	entries *ristretto.Cache[uint64, entry]
	// lingering are the flights whose entries ristretto would not take.
	lingering *queue
	// rejected counts them.
	rejected atomic.Uint64
}

// newMemory returns a memory for most entries.
func newMemory(most int) (*memory, error) {
	entries, err := ristretto.NewCache(&ristretto.Config[uint64, entry]{
		MaxCost:     int64(most),
		NumCounters: 10 * int64(max(most, 100)),
		BufferItems: 64,
		// Costs are tokens, not bytes. Without this each would cost 57 of them.
		IgnoreInternalCost: true,
	})
	if err != nil {
		return nil, fmt.Errorf("a cache for %d tokens: %w", most, err)
	}
	return &memory{entries: entries, lingering: newQueue(max(64, most/64))}, nil
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

// set hands an entry to ristretto, which keeps it until the entry has ended and,
// if it was ever good, MaxLife, so that the token is known to have been good. It
// reports whether ristretto took it in hand; if not, its buffer is full.
func (m *memory) set(e *entry) bool {
	keep := max(e.life.duration(), time.Millisecond) // to ristretto 0 means for ever
	if e.valid {
		keep = MaxLife
	}
	return m.entries.SetWithTTL(key(&e.digest), *e, 1, keep)
}

// del removes the entry of a token, now and from what is still on its way.
func (m *memory) del(d *bearer.Digest) { m.entries.Del(key(d)) }

// settle returns when all that was set or deleted before can be seen.
func (m *memory) settle() { m.entries.Wait() }

func (m *memory) close() { m.entries.Close() }

// queue remembers a bounded number of flights, the oldest first.
type queue struct {
	mu   sync.Mutex
	ring []*flight
	next int
}

func newQueue(most int) *queue { return &queue{ring: make([]*flight, most)} }

// push adds a flight, and returns the one that has to go for it, or nil.
func (q *queue) push(f *flight) (out *flight) {
	q.mu.Lock()
	defer q.mu.Unlock()
	out, q.ring[q.next] = q.ring[q.next], f
	q.next = (q.next + 1) % len(q.ring)
	return out
}
