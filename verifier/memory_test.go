package verifier

import (
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/bearergate/bearergate/bearer"
)

func TestAnEntryFillsASizeOfTheAllocator(t *testing.T) {
	if size := unsafe.Sizeof(entry{}); size != 64 {
		t.Errorf("it has %d bytes: the next size is 80", size)
	}
}

// Tokens whose digests share the key, or all but their last byte, are not taken for
// each other.
func TestBothPartsOfADigestAreCompared(t *testing.T) {
	m, err := newMemory(10, newClock())
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	var known bearer.Digest
	if !m.set(&known, &entry{digest: tailOf(&known), learnt: m.clock.now(), valid: true, life: spanOf(time.Minute)}) {
		t.Fatal("ristretto dropped the entry")
	}
	m.settle()
	if m.find(&known) == nil {
		t.Fatal("it is not found by its own digest")
	}
	for i := range known {
		other := known
		other[i] ^= 1
		if m.find(&other) != nil {
			t.Errorf("it is found by a digest with another byte %d", i)
		}
	}
}

// A refusal that comes when its token has ended has no life left.
func TestAnEntryWithoutLifeDoesNotStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClock()
		m, err := newMemory(10, c)
		if err != nil {
			t.Fatal(err)
		}
		defer m.close()
		d, e := bearer.Digest{}, &entry{learnt: c.now()}
		if !m.set(&d, e) {
			t.Fatal("ristretto dropped the entry")
		}
		m.settle()
		<-time.After(time.Minute)
		for _, k := range m.ends.take(c.now()) {
			m.clear(k)
		}
		if m.find(&d) != nil {
			t.Error("it is still there after a minute")
		}
	})
}

// However often an entry is renewed, and however late it is cleared, its key is
// noted once and its room is free within clearInterval of its end.
func TestEveryEntryIsClearedOnceItHasEnded(t *testing.T) {
	for name, test := range map[string]struct {
		renewals int
		every    time.Duration
		asleep   time.Duration // before anybody clears
	}{
		"never renewed":                        {0, time.Second, 0},
		"renewed again and again":              {20, 48 * time.Second, 0},
		"renewed in the same moment":           {5, 0, 0},
		"cleared for the first time very late": {1, time.Second, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newClock()
				m, err := newMemory(10, c)
				if err != nil {
					t.Fatal(err)
				}
				defer m.close()
				clearEnded := func() {
					for _, k := range m.ends.take(c.now()) {
						m.clear(k)
					}
				}
				var d bearer.Digest
				var e *entry
				for n := range test.renewals + 1 {
					if n > 0 {
						<-time.After(test.every)
						clearEnded()
					}
					e = &entry{learnt: c.now(), valid: true, life: spanOf(time.Minute)}
					if !m.set(&d, e) {
						t.Fatal("ristretto dropped the entry")
					}
					m.settle()
					if noted := m.ends.count(); noted != 1 {
						t.Fatalf("after %d renewals the key is noted %d times", n, noted)
					}
				}
				<-time.After(test.asleep)
				for asleep := test.asleep; asleep < MaxLife-time.Second; asleep += clearInterval {
					if m.find(&d) != e {
						t.Fatalf("it is gone %v after it was learnt", e.learnt.since(c.now()))
					}
					<-time.After(clearInterval)
					clearEnded()
				}
				<-time.After(clearInterval)
				clearEnded()
				m.settle()
				if m.find(&d) != nil || m.ends.count() != 0 {
					t.Errorf("it is still there %v after it was learnt, noted %d times", e.learnt.since(c.now()), m.ends.count())
				}
			})
		})
	}
}

// count returns how many keys are noted.
func (es *ends) count() (n int) {
	es.mu.Lock()
	defer es.mu.Unlock()
	for _, b := range &es.buckets {
		n += len(b)
	}
	return n
}
