package verifier

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"golang.org/x/sync/semaphore"

	"github.com/bearergate/bearergate/bearer"
)

// GuardOptions set the bounds of a [Guard]. All but Failed are required.
type GuardOptions struct {
	// Name stands for the verifier in errors.
	Name string
	// MaxCalls is how many calls are made at once, at least 1.
	MaxCalls int
	// Reserved is how many of them are kept for tokens that were good within the
	// last MaxLife: at least 0, less than MaxCalls.
	Reserved int
	// MaxWaiting is how many calls for other tokens may wait for their turn.
	MaxWaiting int
	// MaxWait is how long any call waits for its turn at most.
	MaxWait time.Duration
	// Timeout bounds a call once it is made.
	Timeout time.Duration
	// NoBreaker is for a Verifier that spares others by itself. The breaker's bounds
	// are not looked at then.
	NoBreaker bool
	// The breaker opens when Failures of the last OfLast calls brought no answer,
	// and lets one call through as a probe after OpenFor.
	Failures, OfLast int
	OpenFor          time.Duration
	// StateChanged, if set, is told when the breaker opens, closes, or lets a probe
	// through.
	StateChanged func(from, to string)
}

// maxRetryAfter bounds for how long an endpoint can ask to be left alone.
const maxRetryAfter = time.Minute

// Guard spares the Verifier it wraps: it bounds the calls at once, with a part
// kept for tokens that were good before; those that find no room wait in the
// order of their arrival, up to a bound in number and time; and while the
// endpoint gives no answers, or asked to be left alone, it is not called. It may
// be used concurrently.
//
// What it does not pass on is a [NoAnswer].
type Guard struct {
	next    Verifier
	options GuardOptions
	// unseen is the share of tokens that are not known to have been good; who has a
	// place there, or needs none, takes one of all.
	unseen, all *semaphore.Weighted
	breaker     circuitbreaker.CircuitBreaker[any]
	clock       clock
	// leaveAlone is until when the endpoint asked not to be called, by the
	// monotonic clock.
	leaveAlone atomic.Int64

	calls, waiting, shed atomic.Int64
	// opened is when the breaker opened last, by the monotonic clock.
	opened atomic.Int64
}

// NewGuard returns a Guard in front of next.
func NewGuard(next Verifier, o GuardOptions) (*Guard, error) {
	if o.NoBreaker {
		o.Failures, o.OfLast, o.OpenFor = 1, 1, time.Second // it hears of no failures
	}
	switch {
	case o.MaxCalls < 1 || o.Reserved < 0 || o.Reserved >= o.MaxCalls:
		return nil, fmt.Errorf("guard: %d calls, %d of them reserved: want at least 1 call that is not reserved", o.MaxCalls, o.Reserved)
	case o.MaxWaiting < 0 || o.MaxWait < 0:
		return nil, errors.New("guard: the number of waiting calls and their time are not negative")
	case o.Timeout <= 0:
		return nil, fmt.Errorf("guard: time-out of a call is %v: want more than 0", o.Timeout)
	case o.Failures < 1 || o.OfLast < o.Failures || o.OpenFor <= 0:
		return nil, fmt.Errorf("guard: a breaker for %d failures of %d that opens for %v makes no sense", o.Failures, o.OfLast, o.OpenFor)
	}
	breaker := circuitbreaker.NewBuilder[any]().
		WithFailureThresholdRatio(uint(o.Failures), uint(o.OfLast)).
		WithDelay(o.OpenFor).
		WithSuccessThreshold(1) // so one probe at a time
	g := &Guard{
		next: next, options: o,
		unseen: semaphore.NewWeighted(int64(o.MaxCalls - o.Reserved)),
		all:    semaphore.NewWeighted(int64(o.MaxCalls)),
		clock:  newClock(),
	}
	g.breaker = breaker.OnStateChanged(func(e circuitbreaker.StateChangedEvent) {
		if e.NewState == circuitbreaker.OpenState {
			g.opened.Store(max(g.clock.now().mono, 1))
		}
		if o.StateChanged != nil {
			o.StateChanged(e.OldState.String(), e.NewState.String())
		}
	}).Build()
	return g, nil
}

// Verify asks the wrapped Verifier when it is this token's turn.
func (g *Guard) Verify(ctx context.Context, t bearer.Token) (Verdict, error) {
	// Nobody waits for a turn to be told that there will be none.
	if err := g.closed(); err != nil {
		return Verdict{}, err
	}
	done, err := g.enter(ctx)
	if err != nil {
		return Verdict{}, err
	}
	defer done()
	if err := g.closed(); err != nil {
		return Verdict{}, err
	}
	if !g.breaker.TryAcquirePermit() {
		return Verdict{}, g.noAnswer("the endpoint gave no answers; one call is trying whether it does again", g.options.OpenFor)
	}
	return g.call(ctx, t)
}

// call makes a call for which the breaker gave a permit.
func (g *Guard) call(ctx context.Context, t bearer.Token) (v Verdict, err error) {
	g.calls.Add(1)
	defer g.calls.Add(-1)
	answered := false
	defer func() { // also if it panics: a permit must be given back
		if answered || g.options.NoBreaker {
			g.breaker.RecordSuccess()
		} else {
			g.breaker.RecordFailure()
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, g.options.Timeout)
	defer cancel()
	v, err = g.next.Verify(ctx, t)
	answered = err == nil
	if none, ok := errors.AsType[*NoAnswer](err); ok && none.RetryAfter > 0 {
		none.RetryAfter = min(none.RetryAfter, maxRetryAfter)
		g.rest(g.clock.now().mono + int64(none.RetryAfter))
	}
	return v, err
}

// rest has the endpoint left alone until a time. Of calls that end together the
// one that asks for longer is obeyed.
func (g *Guard) rest(until int64) {
	for {
		known := g.leaveAlone.Load()
		if until <= known || g.leaveAlone.CompareAndSwap(known, until) {
			return
		}
	}
}

// closed returns an error while the endpoint is not to be called.
func (g *Guard) closed() error {
	if left := time.Duration(g.leaveAlone.Load() - g.clock.now().mono); left > 0 {
		return g.noAnswer("the endpoint asked to be left alone for a while (Retry-After)", left)
	}
	if left := g.breaker.RemainingDelay(); g.breaker.IsOpen() && left > 0 {
		return g.noAnswer("the endpoint gave no answers, so it is not asked for a while", left)
	}
	return nil
}

// enter waits for a turn. The function it returns gives the place back.
func (g *Guard) enter(ctx context.Context) (done func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, g.options.MaxWait)
	defer cancel()
	if wasGood(ctx) {
		if err := g.take(ctx, g.all); err != nil {
			return nil, err
		}
		return func() { g.all.Release(1) }, nil
	}
	if err := g.take(ctx, g.unseen); err != nil {
		return nil, err
	}
	if err := g.take(ctx, g.all); err != nil {
		g.unseen.Release(1)
		return nil, err
	}
	return func() {
		g.all.Release(1)
		g.unseen.Release(1)
	}, nil
}

// take takes a place, at once or after waiting.
func (g *Guard) take(ctx context.Context, places *semaphore.Weighted) error {
	if places.TryAcquire(1) {
		return nil
	}
	// Tokens that were good are few and bounded by the cache; only others are shed.
	if g.waiting.Add(1) > int64(g.options.MaxWaiting) && !wasGood(ctx) {
		g.waiting.Add(-1)
		return g.overloaded("too many calls to the endpoint wait for their turn")
	}
	defer g.waiting.Add(-1)
	if err := places.Acquire(ctx, 1); err != nil {
		return g.overloaded("a call to the endpoint waited too long for its turn")
	}
	return nil
}

func (g *Guard) overloaded(problem string) error {
	g.shed.Add(1)
	return &NoAnswer{Verifier: g.options.Name, Problem: problem, Overloaded: true}
}

func (g *Guard) noAnswer(problem string, retryAfter time.Duration) error {
	return &NoAnswer{Verifier: g.options.Name, Problem: problem, RetryAfter: retryAfter}
}

// Reset has the endpoint called again at once, whatever it did or asked for before.
func (g *Guard) Reset() {
	g.leaveAlone.Store(0)
	g.breaker.Close()
}

// GuardStats are what a Guard has counted, and how it stands now.
type GuardStats struct {
	// Calls is how many calls are under way, Waiting how many wait for their turn.
	Calls, Waiting int64
	// Shed is how many were turned away because too many waited, or waited too long.
	Shed int64
	// Breaker says how the breaker stands.
	Breaker Breaker
	// Opened is when the breaker opened last; the zero time if it never did.
	Opened time.Time
}

// Breaker is how a breaker stands.
type Breaker uint8

const (
	// Closed means that calls are made.
	Closed Breaker = iota
	// Open means that none is made for a while.
	Open
	// HalfOpen means that one call is made to try.
	HalfOpen

	// Breakers is the number of states.
	Breakers = iota
)

// String returns the state's name in metrics.
func (b Breaker) String() string {
	switch b {
	case Closed:
		return "closed"
	case Open:
		return "open"
	case HalfOpen:
		return "half_open"
	default:
		return fmt.Sprintf("breaker(%d)", uint8(b))
	}
}

// Stats returns the counters. It may be called at any time.
func (g *Guard) Stats() GuardStats {
	s := GuardStats{Calls: g.calls.Load(), Waiting: g.waiting.Load(), Shed: g.shed.Load()}
	switch {
	case g.breaker.IsHalfOpen(), g.breaker.IsOpen() && g.breaker.RemainingDelay() <= 0: // who comes next tries
		s.Breaker = HalfOpen
	case g.breaker.IsOpen():
		s.Breaker = Open
	}
	if opened := g.opened.Load(); opened != 0 {
		s.Opened = g.clock.epoch.Add(time.Duration(opened))
	}
	return s
}

// rank is how a Cache tells a Guard, through the context of a call, whether a
// token was good.
type rank struct{}

func withRank(ctx context.Context, wasGood bool) context.Context {
	return context.WithValue(ctx, rank{}, wasGood)
}

func wasGood(ctx context.Context) bool {
	good, _ := ctx.Value(rank{}).(bool)
	return good
}
