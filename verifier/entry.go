package verifier

import (
	"math/rand/v2"
	"time"

	"github.com/bearergate/bearergate/bearer"
)

// entry is what is remembered of one token. It holds what its key does not hold of
// the digest, so that it is never taken for another token's, and its own ends,
// because it is cleared away only every few seconds. All spans count from when it
// was learnt. Its size is a size of Go's allocator, 64 bytes.
type entry struct {
	digest tail
	learnt instant
	life   span // how long it may be used
	limit  span // how long at the very most, while nobody can tell; at least life
	again  span // from when on the token is asked for again if it is in use; life: never
	valid  bool
	claims *Claims // what came with a good answer, if anything did
}

// inForce reports whether the entry may be used.
func (e *entry) inForce(now instant) bool { return e.learnt.since(now) < e.life.duration() }

// due reports whether a token in use is to be asked for again.
func (e *entry) due(now instant) bool { return e.valid && e.learnt.since(now) >= e.again.duration() }

// usable reports whether the entry may be used while nobody can tell.
func (e *entry) usable(now instant) bool {
	return e.valid && e.learnt.since(now) < e.limit.duration()
}

// keep returns how long the entry is worth its room: a good token is known to have
// been good for MaxLife.
func (e *entry) keep() time.Duration {
	if e.valid {
		return MaxLife
	}
	return e.life.duration()
}

// lives are the rules by which a verdict becomes an entry.
type lives struct {
	valid, invalid time.Duration
	stale          time.Duration // how much longer while nobody can tell
	refresh        time.Duration // how long before its end a verdict is renewed; 0: not at all
}

// spread is the part of a life that chance takes off. What was learnt at the
// same time, after a start for instance, does not end at the same time then.
const spread = 0.1

// entry makes a verdict into what is remembered of it.
func (l lives) entry(t *bearer.Token, v Verdict, learnt instant, wasGood bool) *entry {
	notBefore, expires := t.Times()
	limit := MaxLife
	if !v.Until.IsZero() {
		limit = min(limit, v.Until.Sub(v.Learnt))
	}
	if !expires.IsZero() {
		limit = min(limit, expires.Sub(v.Learnt))
	}
	e := &entry{digest: tailOf(t.Digest()), learnt: learnt, valid: v.Valid}
	switch {
	case v.Valid:
		e.claims = v.Claims
		life := min(l.valid-rand.N(1+time.Duration(spread*float64(l.valid))), limit) //nolint:gosec // nobody gains by guessing it
		e.life, e.limit = max(spanOf(life), min(1, spanOf(limit))), spanOf(min(life+l.stale, limit))
		e.again = e.life
		// What ends with the token itself is not worth a call: no answer lasts longer.
		if last := !expires.IsZero() && life >= expires.Sub(v.Learnt); l.refresh > 0 && !last {
			e.again = spanOf(life - min(l.refresh, life/2))
		}
		return e
	case wasGood:
		// It has ended or was withdrawn, and does not come back.
		e.life = spanOf(limit)
	default:
		e.life = spanOf(min(l.invalid, limit))
	}
	// Before its time a token may be refused that is good later.
	if ahead := notBefore.Sub(v.Learnt); !notBefore.IsZero() && ahead > 0 {
		e.life = min(e.life, spanOf(ahead))
	}
	e.limit, e.again = e.life, e.life
	return e
}
