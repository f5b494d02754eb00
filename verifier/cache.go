package verifier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bearergate/bearergate/bearer"
)

// CacheOptions set the bounds of a [Cache].
type CacheOptions struct {
	// Name stands for the verifier in errors.
	Name string
	// MaxTokens is how many tokens that were good are remembered, at least 1.
	// Refused ones have a part of their own, a quarter as large.
	MaxTokens int
	// ValidTTL and InvalidTTL are how long an answer is used: more than 0, and
	// at most MaxLife.
	ValidTTL, InvalidTTL time.Duration
	// Timeout bounds each call; more than 0.
	Timeout time.Duration
	// Panicked, if set, is told of each call that ended in a panic. It is called
	// concurrently.
	Panicked func(*Panic)
}

// Cache remembers the verdicts of the Verifier it wraps, and asks it once for
// all who want to know the same at the same time. It may be used concurrently.
//
// A call runs on its own, bounded by the time-out alone: it neither ends nor
// shortens with the request that caused it, and its answer is kept even if
// nobody waits any more. An error is given to those who wait, and forgotten.
type Cache struct {
	next    Verifier
	options CacheOptions
	clock   clock
	flights *flights
	// Refused tokens are kept apart, so that a flood of made-up ones cannot push
	// good ones out.
	good, refused               *memory
	goodLingers, refusedLingers *queue
}

// NewCache returns a Cache in front of next. Close ends it.
func NewCache(next Verifier, o CacheOptions) (*Cache, error) {
	switch {
	case o.MaxTokens < 1:
		return nil, fmt.Errorf("cache: %d tokens: want at least 1", o.MaxTokens)
	case o.ValidTTL <= 0 || o.ValidTTL > MaxLife:
		return nil, fmt.Errorf("cache: TTL of good answers is %v: want more than 0 and at most %v", o.ValidTTL, MaxLife)
	case o.InvalidTTL <= 0 || o.InvalidTTL > MaxLife:
		return nil, fmt.Errorf("cache: TTL of refusals is %v: want more than 0 and at most %v", o.InvalidTTL, MaxLife)
	case o.Timeout <= 0:
		return nil, fmt.Errorf("cache: time-out of a call is %v: want more than 0", o.Timeout)
	}
	if o.Panicked == nil {
		o.Panicked = func(*Panic) {}
	}
	mostRefused := max(1, o.MaxTokens/4)
	good, err := newMemory(o.MaxTokens)
	if err != nil {
		return nil, err
	}
	refused, err := newMemory(mostRefused)
	if err != nil {
		good.close()
		return nil, err
	}
	return &Cache{
		next: next, options: o,
		clock: newClock(), flights: newFlights(),
		good: good, refused: refused,
		goodLingers: newQueue(lingerers(o.MaxTokens)), refusedLingers: newQueue(lingerers(mostRefused)),
	}, nil
}

// lingerers is how many entries wait for their end beside a memory for most.
func lingerers(most int) int { return max(64, most/64) }

// Close ends the calls under way and waits for them. Questions that come later
// get [ErrClosed], unless the answer is remembered.
func (c *Cache) Close() {
	c.flights.close()
	c.good.close()
	c.refused.close()
}

// Verify returns what is remembered, or what the wrapped Verifier says. It
// waits until ctx ends at the longest. The error is [ErrClosed], that of ctx, a
// [*Panic], or whatever the wrapped Verifier gives.
func (c *Cache) Verify(ctx context.Context, t bearer.Token) (Verdict, error) {
	now := c.clock.now()
	d := t.Digest()
	if e, ok := c.find(d, now); ok {
		return c.verdict(&e, FromCache), nil
	}
	return c.ask(ctx, t)
}

// find returns the entry of a token if one is in force.
func (c *Cache) find(d *bearer.Digest, now instant) (entry, bool) {
	e, ok := c.good.find(d)
	if !ok || !e.inForce(now) {
		e, ok = c.refused.find(d)
	}
	return e, ok && e.inForce(now)
}

func (c *Cache) verdict(e *entry, source Source) Verdict {
	learnt := c.clock.time(e.learnt)
	return Verdict{Valid: e.valid, Source: source, Learnt: learnt, Until: learnt.Add(e.life)}
}

// ask waits for the flight of a token.
func (c *Cache) ask(ctx context.Context, t bearer.Token) (Verdict, error) {
	d := *t.Digest()
	for {
		f, e, err := c.flights.join(&d,
			func() (entry, bool) { return c.find(&d, c.clock.now()) },
			func(f *flight) { c.fly(t, f) })
		if err != nil {
			return Verdict{}, err
		}
		if f == nil {
			return c.verdict(&e, FromCache), nil
		}
		source := FromCache
		select {
		case <-f.landed:
		default:
			source = FromEndpoint
			select {
			case <-f.landed:
			case <-ctx.Done():
				return Verdict{}, c.gaveUp(ctx)
			}
		}
		if f.err != nil {
			return Verdict{}, f.err
		}
		// A flight that just landed counts even if its verdict is for a moment
		// only; one that lingers may have ended meanwhile.
		if source == FromEndpoint || f.entry.inForce(c.clock.now()) {
			return c.verdict(&f.entry, source), nil
		}
		c.flights.forget(&d, f)
	}
}

func (c *Cache) gaveUp(ctx context.Context) error {
	problem := "the edge gave up before there was an answer"
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		problem = "there was no answer within the edge's own time-out"
	}
	return &NoAnswer{Verifier: c.options.Name, Problem: problem, Cause: context.Cause(ctx)}
}

// fly makes the call for all who join the flight, and keeps what it brings.
func (c *Cache) fly(t bearer.Token, f *flight) {
	d := t.Digest()
	ctx, cancel := context.WithTimeout(c.flights.ctx, c.options.Timeout)
	v, err := call(ctx, c.next, t)
	cancel()
	if err != nil {
		if p, ok := errors.AsType[*Panic](err); ok {
			c.options.Panicked(p)
		}
		f.err = err
		c.flights.forget(d, f) // before anyone knows: who comes now asks anew
		close(f.landed)
		return
	}
	wasGood := c.wasGood(d)
	f.entry = c.entry(d, v, wasGood)
	close(f.landed)
	// Whoever comes until the entry can be found still joins this flight.
	if c.keep(&f.entry, wasGood) {
		c.flights.forget(d, f)
		return
	}
	c.linger(lingering{*d, f})
}

// wasGood reports whether a token was good within the last MaxLife, even if
// that verdict has ended.
func (c *Cache) wasGood(d *bearer.Digest) bool {
	e, ok := c.good.find(d)
	return ok && e.learnt.since(c.clock.now()) < MaxLife
}

// entry makes a verdict into what is remembered of it. A token that was good
// and is refused has ended or was withdrawn: it does not come back, so that is
// remembered for as long as anything.
func (c *Cache) entry(d *bearer.Digest, v Verdict, wasGood bool) entry {
	life := c.options.InvalidTTL
	switch {
	case v.Valid:
		life = c.options.ValidTTL
	case wasGood:
		life = MaxLife
	}
	if !v.Until.IsZero() {
		life = min(life, v.Until.Sub(v.Learnt))
	}
	return entry{digest: *d, learnt: c.clock.at(v.Learnt), life: life, valid: v.Valid}
}

// keep stores an entry and reports whether it can be found. What was ever good
// stays in the good part, also when its verdict has ended, so that it is known
// to have been good.
func (c *Cache) keep(e *entry, wasGood bool) bool {
	if e.valid || wasGood {
		return c.good.store(*e, MaxLife)
	}
	return c.refused.store(*e, e.life)
}

// linger leaves a flight whose entry ristretto would not take where it can be
// joined, until others take its place.
func (c *Cache) linger(l lingering) {
	q := c.refusedLingers
	if l.flight.entry.valid {
		q = c.goodLingers
	}
	if out := q.push(l); out.flight != nil {
		c.flights.forget(&out.digest, out.flight)
	}
}
