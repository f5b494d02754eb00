package crmnow

import (
	"context"
	"fmt"
	"maps"
	"time"
)

// JobStats count the requests of one job.
type JobStats struct {
	// Requests is how many came, whatever became of them.
	Requests int64 `json:"requests"`
	// Faulted is how many of them met a fault.
	Faulted int64 `json:"faulted"`
	// InFlight is how many wait for their reply now.
	InFlight int64 `json:"in_flight"`
	// MaxInFlight is the most there were at one time.
	MaxInFlight int64 `json:"max_in_flight"`
}

// Stats are what an [Emulator] has counted since it was made. A request is
// counted once its body has arrived. No token is in them.
type Stats struct {
	// Fetch counts the requests for a token, the refused ones included.
	Fetch JobStats `json:"fetch"`
	// Verify counts the questions about a token.
	Verify JobStats `json:"verify"`
	// Valid is how many questions were answered with true, faults aside.
	Valid int64 `json:"valid"`
	// Invalid is how many questions were answered with false, faults aside.
	Invalid int64 `json:"invalid"`
	// Issued is how many tokens there have been, by a request or by a method.
	Issued int64 `json:"issued"`
	// InForce is how many tokens are good now.
	InForce int64 `json:"in_force"`
	// Refused counts what was refused, by reason.
	Refused map[Refusal]int64 `json:"refused"`
}

// Stats returns the counters.
func (e *Emulator) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.snapshot()
}

// snapshot needs e.mu.
func (e *Emulator) snapshot() Stats {
	e.tokens.dropEnded(time.Now())
	s := e.stats
	s.InForce = int64(len(e.tokens.ends))
	s.Refused = maps.Clone(e.stats.Refused)
	return s
}

// VerificationsOf returns how often the endpoint was asked about one token,
// whether it ever was a good one or not. It counts for as many different tokens
// as [EmulatorOptions.MaxTokens] allows, those that were asked about first.
func (e *Emulator) VerificationsOf(token Secret) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.asked[token.digest()]
}

// Await waits until the counters are as the condition wants them. It looks each
// time a request begins or ends, or a token is issued or revoked; a state that
// lasts for a moment only may be missed, so hold requests with [Fault.Hang] when
// they are to be counted in flight. The error is the cause of ctx, with the
// counters as they were last.
func (e *Emulator) Await(ctx context.Context, condition func(Stats) bool) error {
	for {
		e.mu.Lock()
		s := e.snapshot()
		if e.changed == nil {
			e.changed = make(chan struct{})
		}
		changed := e.changed
		e.mu.Unlock()
		if condition(s) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for the emulator, whose counters are %+v: %w", s, context.Cause(ctx))
		}
	}
}

// AwaitVerifying waits until at least n questions about tokens are in flight. The
// error is that of [Emulator.Await].
func (e *Emulator) AwaitVerifying(ctx context.Context, n int) error {
	return e.Await(ctx, func(s Stats) bool { return s.Verify.InFlight >= int64(n) })
}

// tell wakes those who wait for a change. It needs e.mu.
func (e *Emulator) tell() {
	if e.changed != nil {
		close(e.changed)
		e.changed = nil
	}
}

// of returns the counters of one job. It needs the Emulator's lock.
func (s *Stats) of(job Job) *JobStats {
	if job == Verify {
		return &s.Verify
	}
	return &s.Fetch
}
