package verifier

import (
	"context"
	"errors"
	"fmt"
	"sync"
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
	// at most MaxLife. Of ValidTTL chance takes off up to a tenth.
	ValidTTL, InvalidTTL time.Duration
	// RefreshBefore is how long before the end of a good answer a token in use is
	// asked for again, at most half of the answer's life; 0 means never.
	RefreshBefore time.Duration
	// StaleIfError is how much longer a good answer is used while nobody can tell;
	// 0 means not at all. No answer is used longer than MaxLife.
	StaleIfError time.Duration
	// Timeout bounds each call, with all its waiting; more than 0.
	Timeout time.Duration
	// Panicked, if set, is told of each call that ended in a panic. It is called
	// concurrently.
	Panicked func(*Panic)
	// Trace, if set, is told of questions that wait.
	Trace *Trace
	// Denials are the tokens that are refused whatever the verifier says; nil means
	// that this cache has its own.
	Denials *Denials
}

// Cache remembers the verdicts of the Verifier it wraps, and asks it once for
// all who want to know the same at the same time. It may be used concurrently.
//
// A call runs on its own, bounded by the time-out alone: it neither ends nor
// shortens with the request that caused it, and its answer is kept even if
// nobody waits any more. An error is given to those who wait, and forgotten.
//
// A token in the form of a JWT is believed that it has ended, and nothing else.
type Cache struct {
	next    Verifier
	options CacheOptions
	lives   lives
	clock   clock
	flights *flights
	denials *Denials
	counted counted
	// Refused tokens that never were good are kept apart, so that a flood of
	// made-up ones cannot push good ones out.
	good, refused *memory
	// storing orders what flights store, what Forget deletes and what clear clears.
	storing sync.Mutex
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
	case o.RefreshBefore < 0 || o.StaleIfError < 0:
		return nil, errors.New("cache: the times to refresh before the end, and to use after it, are not negative")
	case o.Timeout <= 0:
		return nil, fmt.Errorf("cache: time-out of a call is %v: want more than 0", o.Timeout)
	}
	if o.Panicked == nil {
		o.Panicked = func(*Panic) {}
	}
	if o.Denials == nil {
		o.Denials = NewDenials()
	}
	clock := newClock()
	good, err := newMemory(o.MaxTokens, clock)
	if err != nil {
		return nil, err
	}
	refused, err := newMemory(max(1, o.MaxTokens/4), clock)
	if err != nil {
		good.close()
		return nil, err
	}
	c := &Cache{
		next: next, options: o,
		lives: lives{valid: o.ValidTTL, invalid: o.InvalidTTL, stale: o.StaleIfError, refresh: o.RefreshBefore},
		clock: clock, flights: newFlights(), denials: o.Denials, good: good, refused: refused,
	}
	c.flights.running.Go(c.clear)
	return c, nil
}

// clear frees the room of entries and denials that have ended, until the flights are
// closed.
func (c *Cache) clear() {
	ticker := time.NewTicker(clearInterval)
	defer ticker.Stop()
	for {
		select {
		case <-c.flights.ctx.Done():
			return
		case <-ticker.C:
		}
		c.denials.clear()
		for _, m := range []*memory{c.good, c.refused} {
			for _, k := range m.ends.take(c.clock.now()) {
				c.storing.Lock()
				m.clear(k)
				c.storing.Unlock()
			}
		}
	}
}

// Close ends the calls under way and waits for them. Who asks has to have stopped
// before: ristretto does not bear a question while it closes. Questions that come
// later all the same get [ErrClosed].
func (c *Cache) Close() {
	c.flights.close()
	c.good.close()
	c.refused.close()
}

// Verify returns what is remembered, or what the wrapped Verifier says. It
// waits until ctx ends at the longest. The error is [ErrClosed], a [*NoAnswer],
// a [*Panic], or whatever else the wrapped Verifier gives.
func (c *Cache) Verify(ctx context.Context, t bearer.Token) (Verdict, error) {
	now := c.clock.now()
	switch denied, e := c.recall(&t, now); {
	case denied != nil:
		return c.denied(denied), nil
	case e != nil:
		return c.verdict(e, now, FromCache), nil
	default:
		return c.wait(ctx, t, now)
	}
}

// Recall gives the verdict that is remembered of a token, in the place of the zero
// Verdict v, and returns how long it may still be used; 0 if nothing is remembered.
// It waits for nobody, and leaves out the times when the verdict was learnt and
// ends: it is what [Cache.Verify] does, without what it costs to hand tokens down
// and verdicts up (BenchmarkDecideCached).
func (c *Cache) Recall(t *bearer.Token, v *Verdict) (left time.Duration) {
	now := c.clock.now()
	switch denied, e := c.recall(t, now); {
	case denied != nil:
		*v = c.denied(denied)
		return max(time.Until(v.Until), 1)
	case e != nil:
		v.Valid, v.Source, v.Claims = e.valid, FromCache, e.claims
		return e.life.duration() - e.learnt.since(now)
	default:
		return 0
	}
}

// recall returns the denial of a token or else its entry, if one is in force. The entry
// is renewed if it is time to.
func (c *Cache) recall(t *bearer.Token, now instant) (*denial, *entry) {
	if denied := c.denials.find(t); denied != nil {
		return denied, nil
	}
	e := c.find(t.Digest(), now)
	if e != nil && e.due(now) {
		c.refresh(*t)
	}
	return nil, e
}

// wait asks, and tells how long that took since begin.
func (c *Cache) wait(ctx context.Context, t bearer.Token, begin instant) (Verdict, error) {
	c.counted.misses.Add(1)
	c.counted.waiting.Add(1)
	defer c.counted.waiting.Add(-1)
	done := func(Verdict, error) {}
	if c.options.Trace != nil {
		ctx, done = c.options.Trace.Wait(ctx)
	}
	v, err := c.ask(ctx, t)
	done(v, err)
	if err != nil || v.Source == FromEndpoint || v.Source == FromStale { // else nobody was waited for
		v.Waited = max(time.Duration(c.clock.now().mono-begin.mono), 1)
	}
	return v, err
}

// find returns the entry of a token if one is in force, else nil.
func (c *Cache) find(d *bearer.Digest, now instant) *entry {
	if e := c.good.find(d); e != nil && e.inForce(now) {
		return e
	}
	if e := c.refused.find(d); e != nil && e.inForce(now) {
		return e
	}
	return nil
}

func (c *Cache) verdict(e *entry, now instant, source Source) Verdict {
	life := e.life
	if source == FromStale {
		life = e.limit
	}
	left := life.duration() - e.learnt.lag(now)
	return Verdict{
		Valid: e.valid, Source: source, Claims: e.claims,
		Learnt: c.clock.time(e.learnt), Until: c.clock.time(instant{mono: e.learnt.mono + int64(left)}),
	}
}

func (c *Cache) denied(d *denial) Verdict {
	from := c.denials.clock.time(d.from)
	return Verdict{Source: FromDenial, Learnt: from, Until: from.Add(d.last)}
}

// refresh asks for a token again, in the background and once, while its verdict
// is still in force.
func (c *Cache) refresh(t bearer.Token) {
	t = t.Clone()
	d := *t.Digest()
	_, _, _, _ = c.flights.join(&d, func() *entry { // nobody waits for it
		now := c.clock.now()
		if e := c.find(&d, now); e != nil && !e.due(now) {
			return e
		}
		return nil
	}, func(f *flight) {
		c.counted.refreshed.Add(1)
		c.fly(c.flights.ctx, t, f)
	})
}

// ask waits for the flight of a token.
func (c *Cache) ask(ctx context.Context, t bearer.Token) (Verdict, error) {
	t = t.Clone() // its flight may outlive the request
	d := *t.Digest()
	_, expires := t.Times()
	for {
		if !expires.IsZero() && !time.Now().Before(expires) {
			return Verdict{Source: FromToken, Learnt: expires}, nil
		}
		f, early, e, err := c.flights.join(&d,
			func() *entry { return c.find(&d, c.clock.now()) },
			func(f *flight) { c.fly(c.detached(ctx), t, f) })
		if err != nil {
			return Verdict{}, err
		}
		if f == nil {
			return c.verdict(e, c.clock.now(), FromCache), nil
		}
		select {
		case <-f.landed: // also if ctx has ended
		default:
			select {
			case <-f.landed:
			case <-ctx.Done():
				return Verdict{}, c.gaveUp(ctx)
			}
		}
		now := c.clock.now()
		if denied := c.denials.find(&t); denied != nil {
			return c.denied(denied), nil
		}
		switch {
		case f.void.Load():
			continue
		case f.err != nil:
			return c.stale(&d, now, f.err)
		case early:
			// What was learnt for this request counts even if it is good for a moment
			// only, unless the token has ended meanwhile.
			if expires.IsZero() || time.Now().Before(expires) {
				return c.verdict(f.entry, now, FromEndpoint), nil
			}
			continue
		case f.entry.inForce(now):
			return c.verdict(f.entry, now, FromCache), nil
		}
		c.flights.leave(f) // it lingered until its end
	}
}

// stale returns a verdict that has ended, if that is allowed while nobody can
// tell, or else the error that says so.
func (c *Cache) stale(d *bearer.Digest, now instant, err error) (Verdict, error) {
	_, nobody := errors.AsType[*NoAnswer](err)
	e := c.good.find(d)
	switch {
	case e != nil && e.inForce(now): // a later flight was faster
		return c.verdict(e, now, FromCache), nil
	case e != nil && nobody && e.usable(now):
		return c.verdict(e, now, FromStale), nil
	default:
		return Verdict{}, err
	}
}

func (c *Cache) gaveUp(ctx context.Context) error {
	problem := "the edge gave up before there was an answer"
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		problem = "there was no answer within the edge's own time-out"
	}
	return &NoAnswer{Verifier: c.options.Name, Problem: problem, Cause: context.Cause(ctx)}
}

// detached is the context of a call that a question causes: it has nothing of the
// question's but its trace.
func (c *Cache) detached(ctx context.Context) context.Context {
	if c.options.Trace == nil {
		return c.flights.ctx
	}
	return c.options.Trace.Carry(ctx, c.flights.ctx)
}

// fly makes the call for all who join the flight, and keeps what it brings.
func (c *Cache) fly(ctx context.Context, t bearer.Token, f *flight) {
	old := c.good.find(&f.digest)
	// Also if that verdict has ended.
	wasGood := old != nil && old.learnt.since(c.clock.now()) < MaxLife
	ctx, cancel := context.WithTimeout(withRank(ctx, wasGood), c.options.Timeout)
	v, err := call(ctx, c.next, t)
	cancel()
	if err != nil {
		if p, ok := errors.AsType[*Panic](err); ok {
			c.options.Panicked(p)
		}
		f.err = err
		if wasGood {
			c.postpone(f, old)
		}
		c.flights.leave(f) // before anyone knows: who comes now asks anew
		f.land()
		return
	}
	f.entry = c.lives.entry(&t, v, c.clock.at(v.Learnt), wasGood)
	f.land()
	// Whoever comes until the entry can be found still joins this flight.
	c.keep(f, wasGood)
}

// pause is how long a token is left alone whose renewal brought no answer.
const pause = time.Second

// postpone has the next renewal of a verdict in force wait a little.
func (c *Cache) postpone(f *flight, old *entry) {
	now := c.clock.now()
	if !old.valid || !old.inForce(now) {
		return
	}
	later := *old
	later.again = spanOf(old.learnt.since(now) + pause)
	c.store(f, c.good, &later)
}

// keep stores the entry of a flight and ends the flight when the entry can be
// found. What was ever good stays in the good part.
func (c *Cache) keep(f *flight, wasGood bool) {
	m := c.refused
	if f.entry.valid || wasGood {
		m = c.good
	}
	c.store(f, m, f.entry)
	switch {
	case m.find(&f.digest) == f.entry, f.void.Load():
		c.flights.leave(f)
	default:
		// Ristretto would not take it. Until others take its place, the flight stays
		// where it can be joined.
		m.rejected.Add(1)
		if out := m.lingering.push(f); out != nil {
			c.flights.leave(out)
		}
	}
}

// store hands an entry to a memory, unless the flight is void, and returns when
// it can be seen.
func (c *Cache) store(f *flight, m *memory, e *entry) {
	for range 2 { // when its buffer is full, ristretto drops; once it has settled there is room
		c.storing.Lock()
		done := f.void.Load() || m.set(&f.digest, e)
		c.storing.Unlock()
		m.settle()
		if done {
			return
		}
		m.dropped.Add(1)
	}
}

// Forget removes what is remembered of a token, so that it is asked for when it
// comes next. When Forget has returned, no call that was under way before brings
// the old answer back. A denial stays.
func (c *Cache) Forget(t bearer.Token) {
	d := t.Digest()
	c.flights.cancel(d)
	c.storing.Lock()
	c.good.del(d)
	c.refused.del(d)
	c.storing.Unlock()
	c.good.settle()
	c.refused.settle()
}

// Deny refuses a token from now on, whatever the verifier says, until the token
// ends: by its own exp if it is a JWT that names one, else for MaxLife, and at
// most for a day. Calls under way do not change that. The error says that too
// many are denied.
func (c *Cache) Deny(t bearer.Token) error {
	if _, err := c.denials.Deny(t, 0, "", ""); err != nil {
		return err
	}
	c.Forget(t)
	return nil
}
