// Package talkers knows who asks most, and who is refused most: which tokens, by their
// fingerprints, which clients, by their addresses, and which policies.
//
// It promises to take a fixed amount of memory, whatever clients send, and to say of
// each count by how much it may be wrong. A flood of made-up tokens, or from made-up
// addresses, does not push out who is busy: what is allowed and what is refused is
// counted apart, and whoever has more than a small part of either is found. It keeps
// nothing for longer than a quarter of an hour.
package talkers

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bearergate/bearergate/gate"
)

const (
	// step is how long is counted in one place, and steps how many of these there are.
	step  = time.Minute
	steps = 16
	// places is how many keys are counted in a step: who has more than one in so many
	// of what is counted is among them.
	places = 256
	// shown is how many are told of each kind.
	shown = 10
	// In a second, each of the first refusals is counted, and by chance one in thinned
	// of the others, with that weight: so a flood of them costs little.
	whole   = 2000
	thinned = 16
)

// Windows are the times that [Talkers.Top] can be asked for.
var windows = [...]time.Duration{5 * time.Minute, 15 * time.Minute}

// Talkers counts. It may be used concurrently.
type Talkers struct {
	begin  time.Time
	second atomic.Int64
	noted  atomic.Int64 // in this second

	mu      sync.Mutex
	clients gate.Clients
	steps   [steps]counts
}

// counts are those of a step.
type counts struct {
	number           int64 // of the step, since the beginning; 0 if it was never used
	allowed, refused kinds
}

type kinds struct {
	tokens   sketch[string]
	clients  sketch[netip.Prefix]
	policies sketch[string]
}

func newKinds() kinds {
	return kinds{sketch[string]{size: places}, sketch[netip.Prefix]{size: places}, sketch[string]{size: places}}
}

func (k *kinds) copied() kinds {
	return kinds{k.tokens.copied(), k.clients.copied(), k.policies.copied()}
}

// New returns Talkers.
func New() *Talkers { return &Talkers{begin: time.Now().Add(-step)} }

// Clients says what the addresses of clients are, as the events have them. If that
// was something else, all that was counted of them is forgotten.
func (t *Talkers) Clients(c gate.Clients) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.clients == c {
		return
	}
	t.clients = c
	for i := range t.steps {
		fresh := newKinds()
		t.steps[i].allowed.clients, t.steps[i].refused.clients = fresh.clients, fresh.clients
	}
}

// Note counts a decision, as [gate.Options.Sampled] is told of it.
func (t *Talkers) Note(e *gate.Event) {
	weight, refused := uint64(e.Weight), e.Reason.Outcome() != gate.Allow
	since := e.At.Sub(t.begin)
	if refused && t.spared(int64(since/time.Second)) {
		if rand.Uint32()%thinned != 0 { //nolint:gosec // nobody gains by guessing it
			return
		}
		weight *= thinned
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	at := t.at(int64(since / step))
	if at == nil {
		return
	}
	k := &at.allowed
	if refused {
		k = &at.refused
	}
	k.tokens.add(e.Fingerprint, weight, e.Reason)
	k.policies.add(e.Policy, weight, e.Reason)
	if client := t.clients.Network(e.Client); client.IsValid() {
		k.clients.add(client, weight, e.Reason)
	}
}

// spared reports whether so many refusals came in this second that not each counts.
func (t *Talkers) spared(second int64) bool {
	if t.second.Swap(second) != second {
		t.noted.Store(0)
	}
	return t.noted.Add(1) > whole
}

// at returns the counts of a step; nil if it has long been over.
func (t *Talkers) at(number int64) *counts {
	if number < 1 {
		return nil
	}
	at := &t.steps[number%steps]
	if at.number < number {
		*at = counts{number: number, allowed: newKinds(), refused: newKinds()}
	}
	if at.number > number {
		return nil
	}
	return at
}

// Top is who was seen most.
type Top struct {
	// Window is of how long that is, up to now: within a minute.
	Window           time.Duration
	Allowed, Refused Kinds
}

// Kinds are at most ten of each kind, the most frequent first.
type Kinds struct{ Tokens, Clients, Policies []Talker }

// Talker is one of those that were seen most.
type Talker struct {
	// Name is a fingerprint, an address or a network, or the name of a policy.
	Name string
	// Requests is how many requests there were at most, and AtLeast at least. Of those
	// that were allowed only some are counted, for the others too, so both are as exact
	// as chance lets them be.
	Requests, AtLeast uint64
	// Reason is the last one.
	Reason gate.Reason
}

// Top returns who was seen most, in the last five minutes and in the last fifteen.
func (t *Talkers) Top() []Top {
	counted := t.copied()
	now := int64(time.Since(t.begin) / step)
	var all []Top
	for _, window := range windows {
		var within []*counts
		for i := range counted {
			if at := &counted[i]; at.number >= now-int64(window/step) && at.number <= now {
				within = append(within, at)
			}
		}
		all = append(all, Top{
			Window:  window,
			Allowed: top(within, func(c *counts) *kinds { return &c.allowed }),
			Refused: top(within, func(c *counts) *kinds { return &c.refused }),
		})
	}
	return all
}

// copied returns the counts of all steps, the oldest first. To find out who was seen
// most takes long when many were, and requests must not wait for it.
func (t *Talkers) copied() []counts {
	all := make([]counts, 0, steps)
	t.mu.Lock()
	for i := range t.steps {
		if at := &t.steps[i]; at.number > 0 {
			all = append(all, counts{at.number, at.allowed.copied(), at.refused.copied()})
		}
	}
	t.mu.Unlock()
	slices.SortFunc(all, func(a, b counts) int { return cmp.Compare(a.number, b.number) })
	return all
}

func top(within []*counts, of func(*counts) *kinds) Kinds {
	var tokens, policies []*sketch[string]
	var clients []*sketch[netip.Prefix]
	for _, c := range within {
		k := of(c)
		tokens, clients, policies = append(tokens, &k.tokens), append(clients, &k.clients), append(policies, &k.policies)
	}
	itself := func(name string) string { return name }
	return Kinds{
		Tokens:   most(merged(tokens), itself),
		Clients:  most(merged(clients), shortest),
		Policies: most(merged(policies), itself),
	}
}

// most returns the most frequent ones: those that are sure to be, first.
func most[K comparable](all []slot[K], name func(K) string) []Talker {
	talkers := make([]Talker, 0, len(all))
	for _, s := range all {
		talkers = append(talkers, Talker{Name: name(s.key), Requests: s.count, AtLeast: s.count - s.error, Reason: s.reason})
	}
	slices.SortFunc(talkers, func(a, b Talker) int {
		return cmp.Or(cmp.Compare(b.AtLeast, a.AtLeast), cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.Name, b.Name))
	})
	return slices.Clone(talkers[:min(shown, len(talkers))])
}

// shortest writes a single address without its length.
func shortest(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
