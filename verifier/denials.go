package verifier

import (
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bearergate/bearergate/bearer"
)

// The bounds of what an operator can deny.
const (
	// maxDenials is how many tokens can be denied at one time.
	maxDenials = 100_000
	// MaxDenial is for how long a token can be denied.
	MaxDenial = 30 * 24 * time.Hour
)

// What is wrong with a denial that is not made.
var (
	// ErrTooManyDenials: there is no room for another one.
	ErrTooManyDenials = errors.New("100,000 tokens are denied, no more can be; wait until some have ended")
	errDenialTooLong  = fmt.Errorf("a token can be denied for at most %v", MaxDenial)
	errNoFingerprint  = errors.New("a fingerprint is 12 hexadecimal digits, as the log has them")
)

// Denial is a token that an operator has denied.
type Denial struct {
	Fingerprint string
	// Reason and Who are what the operator says.
	Reason, Who  string
	Since, Until time.Time
}

// Denials are the tokens that an operator has denied. They are not in a cache,
// because a cache may lose what it holds; caches may share them. They may be used
// concurrently.
//
// While a token is denied by its fingerprint, each token's has to be known, which costs
// a hash if it is no part of the digest.
type Denials struct {
	count atomic.Int64 // lets requests pass without a lock while there are none
	clock clock

	mu            sync.RWMutex
	byDigest      map[bearer.Digest]*denial
	byFingerprint map[fingerprint]*denial
}

// fingerprint is a [bearer.Token.RawFingerprint].
type fingerprint [6]byte

// denial is held by digest or by fingerprint.
type denial struct {
	fingerprint fingerprint
	from        instant
	last        time.Duration
	reason, who string
}

func (d *denial) inForce(now instant) bool { return d.from.since(now) < d.last }

// NewDenials returns denials, of which there are none yet.
func NewDenials() *Denials {
	return &Denials{clock: newClock(), byDigest: map[bearer.Digest]*denial{}, byFingerprint: map[fingerprint]*denial{}}
}

// Deny refuses a token from now on, for as long as said. If that is 0, until the
// token ends: by its own exp if it is a JWT that names one, else for [MaxLife], and
// at most for a day.
func (ds *Denials) Deny(t bearer.Token, last time.Duration, reason, who string) (Denial, error) {
	const day = 24 * time.Hour
	if last == 0 {
		last = MaxLife
		if _, expires := t.Times(); !expires.IsZero() {
			last = max(last, min(time.Until(expires), day))
		}
	}
	return add(ds, ds.byDigest, *t.Digest(), &denial{fingerprint: t.RawFingerprint(), last: last, reason: reason, who: who})
}

// DenyFingerprint is Deny for a token of which only the fingerprint is known. Another
// token with that fingerprint would be refused too, which nobody will see.
func (ds *Denials) DenyFingerprint(text string, last time.Duration, reason, who string) (Denial, error) {
	var f fingerprint
	if len(text) != hex.EncodedLen(len(f)) {
		return Denial{}, errNoFingerprint
	}
	if _, err := hex.Decode(f[:], []byte(text)); err != nil {
		return Denial{}, errNoFingerprint
	}
	if last == 0 {
		last = MaxLife
	}
	return add(ds, ds.byFingerprint, f, &denial{fingerprint: f, last: last, reason: reason, who: who})
}

func add[K comparable](ds *Denials, to map[K]*denial, key K, d *denial) (Denial, error) {
	if d.last < 0 || d.last > MaxDenial {
		return Denial{}, errDenialTooLong
	}
	ds.mu.Lock()
	defer ds.mu.Unlock()
	d.from = ds.clock.now()
	_, known := to[key]
	if !known && ds.held() >= maxDenials {
		ds.takeOut(d.from)
		if ds.held() >= maxDenials {
			return Denial{}, ErrTooManyDenials
		}
	}
	to[key] = d
	ds.count.Store(int64(ds.held()))
	return ds.shown(d), nil
}

func (ds *Denials) held() int { return len(ds.byDigest) + len(ds.byFingerprint) }

// clear takes out those that have ended, so that requests pay for them no longer.
func (ds *Denials) clear() {
	if ds.count.Load() == 0 {
		return
	}
	ds.mu.Lock()
	defer ds.mu.Unlock()
	ds.takeOut(ds.clock.now())
}

func (ds *Denials) takeOut(now instant) {
	maps.DeleteFunc(ds.byDigest, func(_ bearer.Digest, d *denial) bool { return !d.inForce(now) })
	maps.DeleteFunc(ds.byFingerprint, func(_ fingerprint, d *denial) bool { return !d.inForce(now) })
	ds.count.Store(int64(ds.held()))
}

// Find returns the denial of a token if one is in force.
func (ds *Denials) Find(t bearer.Token) (Denial, bool) {
	d := ds.find(&t)
	if d == nil {
		return Denial{}, false
	}
	return ds.shown(d), true
}

// find returns the denial of a token if one is in force, else nil.
func (ds *Denials) find(t *bearer.Token) *denial {
	if ds.count.Load() == 0 {
		return nil
	}
	return ds.search(t)
}

func (ds *Denials) search(t *bearer.Token) *denial {
	now := ds.clock.now()
	ds.mu.RLock()
	defer ds.mu.RUnlock()
	if found, ok := ds.byDigest[*t.Digest()]; ok && found.inForce(now) {
		return found
	}
	if len(ds.byFingerprint) == 0 {
		return nil
	}
	if found, ok := ds.byFingerprint[t.RawFingerprint()]; ok && found.inForce(now) {
		return found
	}
	return nil
}

// All returns the denials in force, in no order.
func (ds *Denials) All() []Denial {
	ds.mu.RLock()
	defer ds.mu.RUnlock()
	now := ds.clock.now()
	var all []Denial
	for _, d := range ds.byDigest {
		if d.inForce(now) {
			all = append(all, ds.shown(d))
		}
	}
	for _, d := range ds.byFingerprint {
		if d.inForce(now) {
			all = append(all, ds.shown(d))
		}
	}
	return all
}

func (ds *Denials) shown(d *denial) Denial {
	since := ds.clock.time(d.from)
	return Denial{Fingerprint: hex.EncodeToString(d.fingerprint[:]), Reason: d.reason, Who: d.who, Since: since, Until: since.Add(d.last)}
}
