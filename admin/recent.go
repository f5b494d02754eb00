package admin

import (
	"container/list"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/bearergate/bearergate/gate"
)

// The bounds of what is remembered, most of it of tokens, by their fingerprints.
const (
	// maxOnce is of how many that were seen once, maxOften of how many that were seen
	// again. A flood of tokens that come once pushes out no other.
	maxOnce, maxOften = 1024, 3072
	// maxPast is how many decisions are kept of each.
	maxPast = 4
	// maxRefused is how many refused requests are kept, whatever their tokens.
	maxRefused = 15
)

// Recent remembers what was decided lately: of tokens by their fingerprints, so that
// somebody who has only that can be told why, and the last refused requests. Its size
// is bounded; what was longest ago goes first. It may be used concurrently.
type Recent struct {
	refused lately

	mu    sync.Mutex
	known map[string]*list.Element
	// Of *remembered. The one that was seen last is in front.
	once, often *list.List
}

// remembered is what was decided of one token.
type remembered struct {
	fingerprint string
	past        []*gate.Event // the last first
	refused     uint64
	often       bool
	why         []why // what verifiers said
}

// why is why a verifier found a token not good.
type why struct{ verifier, text string }

// NewRecent returns one that remembers nothing yet.
func NewRecent() *Recent {
	return &Recent{known: map[string]*list.Element{}, once: list.New(), often: list.New()}
}

// Tell notes a decision. Where the request came from is left out: addresses are not to
// be kept for so long.
func (r *Recent) Tell(e *gate.Event) {
	if e.Client.IsValid() {
		one := *e
		one.Client = netip.Addr{}
		e = &one
	}
	if e.Reason.Outcome() != gate.Allow {
		r.refused.add(e)
	}
	if e.Fingerprint == noToken {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.at(e.Fingerprint)
	if len(of(at).past) > 0 {
		at = r.again(at)
	}
	l := of(at)
	if e.Reason.Outcome() != gate.Allow {
		l.refused++
	}
	// Of decisions that are alike the last is enough: another one says more.
	l.past = slices.DeleteFunc(l.past, func(old *gate.Event) bool {
		return old.Reason == e.Reason && old.Listener == e.Listener && old.Policy == e.Policy
	})
	l.past = slices.Insert(l.past, 0, e)
	l.past = l.past[:min(len(l.past), maxPast)]
}

// Why notes why a verifier found a token not good, in words of the gateway alone.
func (r *Recent) Why(fingerprint, verifier, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := of(r.at(fingerprint))
	l.why = slices.DeleteFunc(l.why, func(old why) bool { return old.verifier == verifier })
	l.why = slices.Insert(l.why, 0, why{verifier, text})
	l.why = l.why[:min(len(l.why), maxPast)]
}

// WhyBy returns why a verifier found a token not good last; "" if that is not known.
func (r *Recent) WhyBy(fingerprint, verifier string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at := r.known[fingerprint]; at != nil {
		for _, said := range of(at).why {
			if said.verifier == verifier {
				return said.text
			}
		}
	}
	return ""
}

// at finds a token, or makes room for it.
func (r *Recent) at(fingerprint string) *list.Element {
	at := r.known[fingerprint]
	if at == nil {
		at = r.once.PushFront(&remembered{fingerprint: fingerprint})
		r.known[fingerprint] = at
		r.cut(r.once, maxOnce)
	}
	return at
}

// again moves one that is seen once more to the front of those that were.
func (r *Recent) again(at *list.Element) *list.Element {
	l := of(at)
	if l.often {
		r.often.MoveToFront(at)
		return at
	}
	l.often = true
	r.once.Remove(at)
	at = r.often.PushFront(l)
	r.known[l.fingerprint] = at
	r.cut(r.often, maxOften)
	return at
}

// cut forgets the last one of too many.
func (r *Recent) cut(all *list.List, most int) {
	if all.Len() > most {
		last := all.Back()
		all.Remove(last)
		delete(r.known, of(last).fingerprint)
	}
}

func of(at *list.Element) *remembered {
	l, _ := at.Value.(*remembered)
	return l
}

// Of returns what was decided of a token, the last first, and how often it was refused
// since it is remembered. Of decisions that are alike it is the last one. Of allowed
// requests not all were noted.
func (r *Recent) Of(fingerprint string) (past []*gate.Event, refused uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := r.known[fingerprint]
	if at == nil {
		return nil, 0
	}
	return slices.Clone(of(at).past), of(at).refused
}

// Refused returns the last refused requests, also those that their policy let through
// (shadow), the newest first.
func (r *Recent) Refused() []*gate.Event { return r.refused.newest() }

// lately keeps the last of what it is given. To keep one costs an addition and a store.
type lately struct {
	n      atomic.Uint64
	events [maxRefused]atomic.Pointer[gate.Event]
}

func (l *lately) add(e *gate.Event) {
	l.events[(l.n.Add(1)-1)%maxRefused].Store(e)
}

func (l *lately) newest() (all []*gate.Event) {
	for i := range l.events {
		if e := l.events[i].Load(); e != nil {
			all = append(all, e)
		}
	}
	slices.SortStableFunc(all, func(a, b *gate.Event) int { return b.At.Compare(a.At) })
	return all
}
