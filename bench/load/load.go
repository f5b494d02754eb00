// Package load sends requests to a server and tells how long the answers took.
//
// It does so in one of two ways. Closed keeps a fixed number of requests in flight:
// it shows what the server can do at most, and what that costs. Open sends at a fixed
// rate, whether earlier requests were answered or not, as callers who know nothing of
// each other do. There, a time counts from when a request was due. So a server that
// stalls is charged for all the requests that were due meanwhile, and not only for the
// few that were on their way (coordinated omission).
//
// Requests are encoded ahead and the clients are plain, so that the load costs much
// less than what is measured. The package knows nothing of processes and processors.
package load

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Body appends request n.
type Body func(to []byte, n int) []byte

// Load is a client with its connections. One method at a time may be called.
type Load struct {
	conns  []conn
	depth  int // requests in flight on each connection in a closed load
	cycle  int // how many different requests there are
	opened time.Time
	sleep  func(time.Duration)
}

// request is a request that is under way.
type request struct {
	n  int
	at time.Duration // since the load was opened; what its time counts from
}

// conn is a connection. One goroutine may send while another awaits.
type conn interface {
	// send sends requests.
	send(batch []request) error
	// await waits until at least one answer has come and tells which requests were
	// answered. It fails if one of them was not allowed.
	await(answered func(request)) error
	// room is how many requests the connection can carry at once.
	room() int
	close() error
}

// Close closes the connections.
func (l *Load) Close() error {
	var errs []error
	for _, c := range l.conns {
		errs = append(errs, c.close())
	}
	return errors.Join(errs...)
}

func (l *Load) since() time.Duration { return time.Since(l.opened) }

// Result is what a load has shown.
type Result struct {
	Times Histogram
	Took  time.Duration
	// Behind is how many requests of an open load were not answered yet when the
	// last one was due.
	Behind int64
}

// PerSecond is how many requests were answered in a second.
func (r *Result) PerSecond() float64 { return float64(r.Times.Count()) / r.Took.Seconds() }

// Closed keeps all connections busy for a time. The requests' numbers begin at 0 and
// go around.
func (l *Load) Closed(ctx context.Context, duration time.Duration) (*Result, error) {
	var next atomic.Int64
	end := l.since() + duration
	return l.keepBusy(ctx, func(now time.Duration) (int, bool) {
		return int(next.Add(1)-1) % l.cycle, now < end
	})
}

// Each sends the requests from one number up to another one, which is not sent, each
// once.
func (l *Load) Each(ctx context.Context, from, to int) (*Result, error) {
	var next atomic.Int64
	next.Store(int64(from))
	return l.keepBusy(ctx, func(time.Duration) (int, bool) {
		n := int(next.Add(1) - 1)
		return n, n < to
	})
}

// keepBusy sends what next gives it, until it gives no more.
func (l *Load) keepBusy(ctx context.Context, next func(now time.Duration) (int, bool)) (*Result, error) {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // or else they wait for ever
	defer stop()
	results := make([]Histogram, len(l.conns))
	errs := make([]error, len(l.conns))
	begin := l.since()
	var group sync.WaitGroup
	for i, c := range l.conns {
		group.Go(func() { errs[i] = l.keepConnBusy(ctx, c, next, &results[i]) })
	}
	group.Wait()
	r := &Result{Took: l.since() - begin}
	if err := errors.Join(errors.Join(errs...), ctx.Err()); err != nil {
		return nil, err
	}
	for i := range results {
		r.Times.Merge(&results[i])
	}
	if r.Times.Count() == 0 {
		return nil, errors.New("not one request was answered")
	}
	return r, nil
}

func (l *Load) keepConnBusy(ctx context.Context, c conn, next func(time.Duration) (int, bool), times *Histogram) error {
	batch := make([]request, 0, l.depth)
	add := func(now time.Duration) {
		if n, ok := next(now); ok && ctx.Err() == nil {
			batch = append(batch, request{n, now})
		}
	}
	for range l.depth {
		add(l.since())
	}
	for flying := 0; ; {
		if err := c.send(batch); err != nil {
			return err
		}
		flying += len(batch)
		if flying == 0 {
			return nil
		}
		batch = batch[:0]
		err := c.await(func(r request) {
			now := l.since()
			times.Add(now - r.at)
			flying--
			add(now)
		})
		if err != nil {
			return err
		}
	}
}

// Open sends requests at a rate per second for a time, and waits for all answers.
func (l *Load) Open(ctx context.Context, rate int, duration time.Duration) (*Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { _ = l.Close() }) // or else they wait for ever
	defer stop()
	plan := newPlan(rate, duration)
	due := make(chan request, plan.count)
	results := make([]Histogram, len(l.conns))
	var answered atomic.Int64
	var group sync.WaitGroup
	for i, c := range l.conns {
		group.Go(func() {
			w := worker{conn: c, due: due, answered: &answered, times: &results[i], since: l.since}
			w.run(ctx, cancel)
		})
	}
	begin := l.since() + time.Millisecond // all are ready by then
	plan.run(ctx, begin, l.since, l.sleep, func(n int, at time.Duration) { due <- request{n % l.cycle, at} })
	behind := int64(plan.count) - answered.Load()
	close(due)
	group.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	r := &Result{Took: l.since() - begin, Behind: behind}
	for i := range results {
		r.Times.Merge(&results[i])
	}
	if r.Times.Count() != int64(plan.count) {
		return nil, fmt.Errorf("%d requests were due and %d answered", plan.count, r.Times.Count())
	}
	return r, nil
}

// worker sends on one connection what is due, whenever the connection has room.
type worker struct {
	conn     conn
	due      <-chan request
	answered *atomic.Int64
	times    *Histogram
	since    func() time.Duration
}

func (w *worker) run(ctx context.Context, cancel context.CancelCauseFunc) {
	room := make(chan struct{}, w.conn.room())
	flying := make(chan struct{}, w.conn.room())
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() {
		for range flying {
			more := -1 // the first one is counted already
			err := w.conn.await(func(r request) {
				w.times.Add(w.since() - r.at)
				w.answered.Add(1)
				more++
				<-room
			})
			if err != nil {
				cancel(err)
				return
			}
			for ; more > 0; more-- {
				<-flying
			}
		}
	})
	defer close(flying)
	for {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return
		}
		r, ok := <-w.due
		if !ok || ctx.Err() != nil {
			return
		}
		flying <- struct{}{}
		if err := w.conn.send([]request{r}); err != nil {
			cancel(err)
			return
		}
	}
}

// plan says when requests are due.
type plan struct {
	count int
	gap   float64 // nanoseconds
}

func newPlan(rate int, duration time.Duration) plan {
	count := max(1, int(float64(rate)*duration.Seconds()))
	return plan{count: count, gap: float64(time.Second) / float64(rate)}
}

// at returns when request n is due.
func (p plan) at(n int) time.Duration { return time.Duration(float64(n) * p.gap) }

// run calls send for each request as soon as it is due, for those late at once.
func (p plan) run(ctx context.Context, begin time.Duration, now func() time.Duration, sleep func(time.Duration), send func(n int, at time.Duration)) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for n := range p.count {
		at := begin + p.at(n)
		for ctx.Err() == nil {
			early := at - now()
			if early <= 0 {
				break
			}
			sleep(early)
		}
		if ctx.Err() != nil {
			return
		}
		send(n, at)
	}
}

// sleep has the kernel wake us, a little late or, when interrupted, early. The
// runtime's own timers are a millisecond late when nothing else goes on.
func sleep(d time.Duration) {
	wait := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&wait, nil)
}

// newLoad is a load without connections yet.
func newLoad(depth, cycle int) *Load {
	return &Load{depth: depth, cycle: max(1, cycle), opened: time.Now(), sleep: sleep}
}

// batches shares out a number of requests in flight over connections.
func batches(inFlight, conns int) (int, error) {
	if conns < 1 || inFlight < conns || inFlight%conns != 0 {
		return 0, fmt.Errorf("%d requests in flight cannot be shared evenly by %d connections", inFlight, conns)
	}
	return inFlight / conns, nil
}

// closeAll closes what was opened before something failed.
func closeAll(conns []conn) {
	for _, c := range slices.Backward(conns) {
		_ = c.close()
	}
}
