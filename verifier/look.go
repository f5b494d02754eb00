package verifier

import (
	"context"
	"errors"
	"time"

	"github.com/bearergate/bearergate/bearer"
)

// ErrUnasked is the error of [Peek] where somebody would have to be asked.
var ErrUnasked = errors.New("nothing is remembered, so the verifier would be asked")

// Peeker is what some Verifiers can besides: tell what they would say of a token if
// they need ask nobody for it, and change nothing by it. The error is [ErrUnasked], or
// one that Verify would give without asking.
type Peeker interface {
	Peek(t bearer.Token) (Verdict, error)
}

// Peek returns a Verifier that says what another one would, as a [Peeker].
func Peek(v Verifier) Verifier { return peeking{v} }

type peeking struct{ of Verifier }

// Verify peeks.
func (p peeking) Verify(_ context.Context, t bearer.Token) (Verdict, error) {
	if can, ok := p.of.(Peeker); ok {
		return can.Peek(t)
	}
	return Verdict{}, ErrUnasked
}

// Peek implements [Peeker].
func (c *Cache) Peek(t bearer.Token) (Verdict, error) {
	now := c.clock.now()
	d := t.Digest()
	if denied := c.denials.find(&t); denied != nil {
		return c.denied(denied), nil
	}
	landed, flying := c.flights.seen(d)
	e := c.find(d, now)
	if e == nil && landed != nil && landed.inForce(now) {
		e = landed // which cannot be found yet
	}
	if e != nil {
		return c.verdict(e, now, FromCache), nil
	}
	if _, expires := t.Times(); !expires.IsZero() && !time.Now().Before(expires) {
		return Verdict{Source: FromToken, Learnt: expires}, nil
	}
	// Who waits for its turn in vain is told so at once, but a call under way goes on.
	if g, ok := c.next.(*Guard); ok && !flying {
		if err := g.closed(); err != nil {
			return c.stale(d, now, err)
		}
	}
	return Verdict{}, ErrUnasked
}

// Peek implements [Peeker].
func (c *Choose) Peek(t bearer.Token) (Verdict, error) {
	choice := c.choose(&t)
	if choice < 0 {
		return c.Verify(context.Background(), t) // asks nobody
	}
	return Peek(c.choices[choice].Verifier).Verify(context.Background(), t)
}

// Peek implements [Peeker].
func (b *Both) Peek(t bearer.Token) (Verdict, error) {
	return NewBoth(Peek(b.first), Peek(b.second)).Verify(context.Background(), t)
}

// Seen is what a Cache remembers of a token.
type Seen struct {
	// Known says that there is an answer, though it may have ended.
	Known bool
	// Valid is the answer.
	Valid bool
	// Good says that it is in the part for tokens that were good at some time.
	Good bool
	// Learnt is when the answer was given, Until until when it is used, and Stale until
	// when at the most, while nobody can tell.
	Learnt, Until, Stale time.Time
	// Flying says that a call is under way.
	Flying bool
}

// InForce reports whether the answer is used at a time.
func (s *Seen) InForce(now time.Time) bool { return s.Known && now.Before(s.Until) }

// Look says what is remembered of a token: it asks nobody, and changes nothing but that
// the memory takes the token for one that is asked for a little more often.
func (c *Cache) Look(t bearer.Token) Seen {
	d, now := t.Digest(), c.clock.now()
	landed, flying := c.flights.seen(d)
	seen := Seen{Flying: flying}
	e := c.find(d, now)
	if e == nil {
		e = landed
	}
	for _, m := range []*memory{c.good, c.refused} {
		if e == nil {
			e = m.find(d)
		}
	}
	if e == nil {
		return seen
	}
	seen.Known, seen.Valid, seen.Good = true, e.valid, e.valid || c.good.find(d) == e
	v := c.verdict(e, now, FromCache)
	seen.Learnt, seen.Until, seen.Stale = v.Learnt, v.Until, c.verdict(e, now, FromStale).Until
	return seen
}

// seen returns what the flight of a token has brought, if it has landed and can be
// joined yet, or whether there is one on its way.
func (fs *flights) seen(d *bearer.Digest) (landed *entry, flying bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f := fs.open[*d]
	if f == nil {
		return nil, false
	}
	select {
	case <-f.landed: // by fly, since one that is cancelled can be joined no more
		return f.entry, false
	default:
		return nil, true
	}
}
