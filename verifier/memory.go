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

// memory holds a bounded number of entries, the last of each token. It may be
// used concurrently, but not set, del and clear at the same time.
//
// Ristretto promises little: a new entry is seen some time after it was stored,
// or never. So set is to be followed by settle and find, and what the cache would
// not take waits in a small queue, see [Cache.keep].
type memory struct {
	// Pointers, because ristretto copies what it holds at each question. What they
	// point to is never changed.
	entries *ristretto.Cache[uint64, *entry]
	clock   clock
	ends    ends
	// lingering are the flights whose entries ristretto would not take.
	lingering *queue
	most      int
	// rejected counts those that lingered, evicted the entries that had to go for
	// others, and dropped what ristretto's buffer was too full for.
	rejected, evicted, dropped atomic.Uint64
}

// newMemory returns a memory for most entries, which were learnt by a clock.
func newMemory(most int, c clock) (*memory, error) {
	m := &memory{clock: c, lingering: newQueue(max(64, most/64)), most: most}
	var err error
	m.entries, err = ristretto.NewCache(&ristretto.Config[uint64, *entry]{
		MaxCost: int64(most),
		// Ristretto advises ten for each entry. They take a third of what an entry
		// takes (BenchmarkBytesPerToken), and only tell which tokens to keep when there
		// are far more than there is room for.
		NumCounters: 4 * int64(max(most, 250)),
		// After so many questions ristretto wakes a goroutine that notes what is asked
		// for most; 64 questions are shorter than the waking (BenchmarkCacheHit).
		BufferItems: 256,
		// Costs are tokens, not bytes. Without this each would cost 57 of them.
		IgnoreInternalCost: true,
		KeyToHash:          func(key uint64) (uint64, uint64) { return key, 0 },
		OnEvict:            func(*ristretto.Item[*entry]) { m.evicted.Add(1) },
	})
	if err != nil {
		return nil, fmt.Errorf("a cache for %d tokens: %w", most, err)
	}
	return m, nil
}

// keyOf returns the part of a digest that ristretto tells entries apart by. The
// digest is keyed, and the entry holds the rest of it: nobody can aim at a key, and
// if two tokens share one, the older entry is lost.
func keyOf(d *bearer.Digest) uint64 { return binary.LittleEndian.Uint64(d[:]) }

// tail is the rest of a digest.
type tail [len(bearer.Digest{}) - 8]byte

func tailOf(d *bearer.Digest) tail { return tail(d[8:]) }

// find returns the entry of a token, in force or not, or nil. Both parts of the
// digest are the token's.
func (m *memory) find(d *bearer.Digest) *entry {
	e, ok := m.entries.Get(keyOf(d))
	if !ok || e.digest != tailOf(d) {
		return nil
	}
	return e
}

// set hands the entry of a token to ristretto, which nobody may change from then
// on. It reports whether ristretto took it in hand; if not, its buffer is full.
func (m *memory) set(d *bearer.Digest, e *entry) bool {
	k := keyOf(d)
	_, known := m.entries.Get(k)
	if !m.entries.Set(k, e, 1) {
		return false
	}
	if !known {
		m.ends.add(k, m.clock.now(), e.keep())
	}
	return true
}

// del removes the entry of a token, now and from what is still on its way.
func (m *memory) del(d *bearer.Digest) { m.entries.Del(keyOf(d)) }

// clear removes the entry of a key if it has been kept as long as it is to be.
func (m *memory) clear(k uint64) {
	e, ok := m.entries.Get(k)
	if !ok {
		return
	}
	now := m.clock.now()
	if left := e.keep() - e.learnt.since(now); left > 0 {
		m.ends.add(k, now, left) // it was renewed
		return
	}
	m.entries.Del(k)
}

// settle returns when all that was set or deleted before can be seen.
func (m *memory) settle() { m.entries.Wait() }

func (m *memory) close() { m.entries.Close() }

// ends tells when which keys are to be cleared. Each key that ristretto holds is
// in it once; some that it holds no more are, too.
//
// Ristretto has lives of its own, but reads the clock for them at each question,
// and keeps an entry of a map for each key: more than these eight bytes.
type ends struct {
	mu      sync.Mutex
	buckets [MaxLife/clearInterval + 2][]uint64
	cleared int64 // the number of the last bucket that was taken
}

// clearInterval is how often ended entries are cleared away.
const clearInterval = 5 * time.Second

// add notes a key whose entry is kept for at most MaxLife from now on.
func (es *ends) add(k uint64, now instant, keep time.Duration) {
	es.mu.Lock()
	defer es.mu.Unlock()
	n := max((now.mono+int64(min(keep, MaxLife)))/int64(clearInterval)+1, es.cleared+1)
	b := &es.buckets[n%int64(len(es.buckets))]
	*b = append(*b, k)
}

// take returns the keys whose time has come.
func (es *ends) take(now instant) (due []uint64) {
	es.mu.Lock()
	defer es.mu.Unlock()
	last := now.mono / int64(clearInterval)
	// One round finds all, however long ago the last one was.
	for n := max(es.cleared+1, last-int64(len(es.buckets))+1); n <= last; n++ {
		b := &es.buckets[n%int64(len(es.buckets))]
		due = append(due, *b...)
		*b = nil
	}
	es.cleared = max(es.cleared, last)
	return due
}

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
