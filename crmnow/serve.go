package crmnow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// exchangeTimeout bounds how long a request takes to arrive, and a reply to be
	// taken; what a fault lasts does not count.
	exchangeTimeout = 10 * time.Second
	// shutdownTimeout bounds how long requests that are in flight may last when
	// the emulator stops.
	shutdownTimeout = 2 * time.Second
)

// Serve answers on a listener until ctx ends. Then it closes the listener, breaks
// the connections whose requests wait in a fault, lets the others have their
// reply for up to 2 s, and returns nil. It returns sooner only if the listener
// fails. When it has returned, nothing of it is left. What the emulator remembers
// stays, so it may be served again, also on several listeners at once.
func (e *Emulator) Serve(ctx context.Context, ln net.Listener) error {
	// The requests' own context ends with ctx: it is what frees them from a fault.
	base, cancel := context.WithCancel(ctx)
	defer cancel()
	server := &http.Server{
		Handler:           e,
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: exchangeTimeout,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(e.logger.Handler(), slog.LevelWarn),
	}
	var serving sync.WaitGroup
	failed := make(chan error, 1)
	serving.Go(func() { failed <- server.Serve(ln) })
	defer serving.Wait()
	select {
	case err := <-failed:
		cancel()
		_ = server.Close()
		return fmt.Errorf("serve the emulator: %w", err)
	case <-ctx.Done():
	}
	graceful, done := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer done()
	if err := server.Shutdown(graceful); err != nil {
		_ = server.Close() // late connections, and listeners that do not close well
		if !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("stop the emulator: %w", err)
		}
	}
	return nil
}

// Local is an [Emulator] that is served on a free port of loopback.
type Local struct {
	*Emulator
	address string

	mu   sync.Mutex
	stop context.CancelFunc // nil while it is down
	done chan error
}

// StartLocal starts an emulator on 127.0.0.1 with a free port. The caller ends it
// with [Local.Close].
func StartLocal(o EmulatorOptions) (*Local, error) {
	e, err := NewEmulator(o)
	if err != nil {
		return nil, err
	}
	l := &Local{Emulator: e, address: "127.0.0.1:0"}
	if err := l.Up(); err != nil {
		return nil, err
	}
	return l, nil
}

// URL is the endpoint's URL. It stays the same while the emulator is down.
func (l *Local) URL() string { return "http://" + l.Address() + Path }

// Address is host and port of the endpoint.
func (l *Local) Address() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.address
}

// Up listens again on the address after [Local.Down]. What the emulator remembers
// is still there. The error says that the address is not free any more.
func (l *Local) Up() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stop != nil {
		return nil
	}
	ctx, stop := context.WithCancel(context.Background())
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", l.address)
	if err != nil {
		stop()
		return fmt.Errorf("start the emulator: %w", err)
	}
	l.address = ln.Addr().String()
	done := make(chan error, 1)
	go func() { done <- l.Serve(ctx, ln) }()
	l.stop, l.done = stop, done
	return nil
}

// Down stops listening and ends all connections, as [Emulator.Serve] does when its
// context ends: from then on the endpoint refuses connections.
func (l *Local) Down() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stop == nil {
		return nil
	}
	l.stop()
	l.stop = nil
	return <-l.done
}

// Close ends the emulator. It does what [Local.Down] does.
func (l *Local) Close() error { return l.Down() }
