package measure

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"time"

	"github.com/bearergate/bearergate/bench/load"
)

// How much is under way at once where nothing else is said: two connections is what
// an Envoy with two workers has.
const (
	Connections     = 2
	InFlight        = 64
	HTTPConnections = 64
)

// NewGRPCLoad keeps 64 checks in flight on 2 connections, and sees that a sample of
// them is allowed.
func NewGRPCLoad(ctx context.Context, address string, checks [][]byte) (*load.Load, error) {
	l := load.Checks{
		Dial: Dial(address), Conns: Connections, InFlight: InFlight,
		Cycle: len(checks), Body: func(to []byte, n int) []byte { return append(to, checks[n]...) },
	}
	return l.Open(ctx)
}

// NewHTTPLoad keeps a request in flight on each of 64 connections, and sees that
// they are allowed.
func NewHTTPLoad(ctx context.Context, address string, requests [][]byte) (*load.Load, error) {
	l := load.Requests{
		Dial: Dial(address), Conns: HTTPConnections,
		Cycle: len(requests), Body: func(to []byte, n int) []byte { return append(to, requests[n]...) },
	}
	return l.Open(ctx)
}

// Dial opens connections to host:port or unix:/path.
func Dial(address string) load.DialFunc {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return load.Dial("unix", path, nil)
	}
	return load.Dial("tcp", address, nil)
}

// Turn is what one turn of a load has shown.
type Turn struct {
	Requests    int64         `json:"requests"`
	CPU         time.Duration `json:"cpu_ns_per_request"` // of the server
	Allocations float64       `json:"allocations_per_request"`
	PerSecond   float64       `json:"requests_per_second"`
	P50         time.Duration `json:"p50_ns"`
	P99         time.Duration `json:"p99_ns"`
	P999        time.Duration `json:"p999_ns"`
	// Behind is how many requests of an open load waited when the last one was due.
	Behind int64 `json:"behind,omitempty"`
}

// Take lets a load go on for a time, as fast as the server answers, and measures it.
func Take(ctx context.Context, p *Process, l *load.Load, duration time.Duration) (Turn, error) {
	return take(ctx, p, func() (*load.Result, error) { return l.Closed(ctx, duration) })
}

// TakeAt lets a load go on for a time, at a rate, and measures it.
func TakeAt(ctx context.Context, p *Process, l *load.Load, rate int, duration time.Duration) (Turn, error) {
	// Who sends what is due must not wait for who reads answers: the kernel wakes a
	// thread at once, Go's scheduler a goroutine when another one pauses.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4 * allCores()))
	return take(ctx, p, func() (*load.Result, error) { return l.Open(ctx, rate, duration) })
}

func take(ctx context.Context, p *Process, send func() (*load.Result, error)) (Turn, error) {
	allocations, allocationsErr := p.Allocations(ctx)
	before, beforeErr := p.CPU()
	r, err := send()
	after, afterErr := p.CPU()
	allocationsAfter, allocationsAfterErr := p.Allocations(ctx)
	if err := errors.Join(err, allocationsErr, beforeErr, afterErr, allocationsAfterErr); err != nil {
		return Turn{}, err
	}
	n := r.Times.Count()
	return Turn{
		Requests: n, CPU: (after - before) / time.Duration(n), PerSecond: r.PerSecond(), Behind: r.Behind,
		Allocations: (allocationsAfter - allocations) / float64(n),
		P50:         r.Times.Quantile(.5), P99: r.Times.Quantile(.99), P999: r.Times.Quantile(.999),
	}, nil
}
