package verifier

import (
	"context"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/bearergate/bearergate/bearer"
)

// flights lets all who want the verdict on one token share one call. A call
// belongs to none of them: it goes on when they give up, and ends with the
// flights.
type flights struct {
	ctx     context.Context //nolint:containedctx // the life of all calls, which outlives each request
	end     context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	closed bool
	open   map[bearer.Digest]*flight
}

// flight is one call, from its start until its verdict is found without it.
type flight struct {
	digest bearer.Digest
	landed chan struct{}
	land   func() // closes landed
	// void is set if its answer must not be used any more.
	void atomic.Bool
	// What came of it, to be read once it has landed, unless it is void.
	entry *entry
	err   error
}

func newFlight(d *bearer.Digest) *flight {
	f := &flight{digest: *d, landed: make(chan struct{})}
	f.land = sync.OnceFunc(func() { close(f.landed) })
	return f
}

func newFlights() *flights {
	ctx, end := context.WithCancel(context.Background())
	return &flights{ctx: ctx, end: end, open: map[bearer.Digest]*flight{}}
}

// join returns the flight for a token. If there is none, it takes a last look
// with find, because a flight may have ended since the caller looked, and then
// starts one that runs fly. If find found an entry, there is no flight. The
// caller is early if the flight has not landed yet.
func (fs *flights) join(d *bearer.Digest, find func() *entry, fly func(*flight)) (f *flight, early bool, found *entry, err error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.closed {
		return nil, false, nil, ErrClosed
	}
	if f := fs.open[*d]; f != nil {
		select {
		case <-f.landed:
			return f, false, nil, nil
		default:
			return f, true, nil, nil
		}
	}
	if e := find(); e != nil {
		return nil, false, e, nil
	}
	f = newFlight(d)
	fs.open[*d] = f
	fs.running.Go(func() { fly(f) })
	return f, true, nil, nil
}

// leave takes a flight from those that can be joined.
func (fs *flights) leave(f *flight) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.open[f.digest] == f {
		delete(fs.open, f.digest)
	}
}

// cancel makes the flight of a token void, if there is one. The call goes on,
// and its answer is lost; who waits for it asks again at once.
func (fs *flights) cancel(d *bearer.Digest) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if f := fs.open[*d]; f != nil {
		f.void.Store(true)
		delete(fs.open, *d)
		f.land()
	}
}

// count returns how many can be joined.
func (fs *flights) count() int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return len(fs.open)
}

// close ends all calls and waits for them. From now on none is started.
func (fs *flights) close() {
	fs.mu.Lock()
	fs.closed = true
	fs.mu.Unlock()
	fs.end()
	fs.running.Wait()
}

// call asks next, and turns a panic into an error.
func call(ctx context.Context, next Verifier, t bearer.Token) (v Verdict, err error) {
	defer func() {
		if value := recover(); value != nil {
			v, err = Verdict{}, Recovered(value, debug.Stack())
		}
	}()
	return next.Verify(ctx, t)
}
