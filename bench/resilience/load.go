package main

import (
	"context"
	"slices"
	"sync"
	"time"
)

// sample is one request: when it was to be sent, since the start of the scenario,
// and what came of it. The time it took counts from when it was to be sent, so that
// a client that is held up does not make the figures look better.
type sample struct {
	at, took time.Duration
	status   int // 0 if there was no reply
}

// recorder collects samples. It may be used concurrently.
type recorder struct {
	mu      sync.Mutex
	samples []sample
}

func (r *recorder) add(s sample) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.samples = append(r.samples, s)
}

// between returns the samples that were to be sent in a part of the scenario.
func (r *recorder) between(from, to time.Duration) []sample {
	r.mu.Lock()
	defer r.mu.Unlock()
	var part []sample
	for _, s := range r.samples {
		if s.at >= from && s.at < to {
			part = append(part, s)
		}
	}
	return part
}

// steady sends requests at a fixed rate from start until ctx ends, whether earlier
// ones have been answered or not, and waits for the answers. Token picks the token
// of request n.
func (s *stage) steady(ctx context.Context, start time.Time, rate int, token func(n int) string, to *recorder) {
	gap := time.Second / time.Duration(rate)
	begin := time.Since(start)
	tick := time.NewTicker(max(gap, time.Millisecond))
	defer tick.Stop()
	var group sync.WaitGroup
	defer group.Wait()
	for n := 0; ; {
		// A tick may be for several requests, or late.
		for at := begin + time.Duration(n)*gap; at <= time.Since(start); at = begin + time.Duration(n)*gap {
			if ctx.Err() != nil {
				return
			}
			token := token(n)
			group.Go(func() {
				status, _ := s.ask(context.WithoutCancel(ctx), token)
				to.add(sample{at: at, took: time.Since(start) - at, status: status})
			})
			n++
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// flood keeps so many requests with made-up tokens in flight until ctx ends.
func (s *stage) flood(ctx context.Context, start time.Time, concurrent int, token func() string, to *recorder) {
	var group sync.WaitGroup
	defer group.Wait()
	for range concurrent {
		group.Go(func() {
			for ctx.Err() == nil {
				at := time.Since(start)
				status, _ := s.ask(context.WithoutCancel(ctx), token())
				to.add(sample{at: at, took: time.Since(start) - at, status: status})
			}
		})
	}
}

// count is the endpoint's counters at a moment.
type count struct {
	at       time.Duration
	calls    int64
	inFlight int64
}

// watch counts the calls at the endpoint twice a second until ctx ends.
func (s *stage) watch(ctx context.Context, start time.Time) []count {
	var counts []count
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		stats := s.endpoint.Stats().Verify
		counts = append(counts, count{time.Since(start), stats.Requests, stats.InFlight})
		select {
		case <-tick.C:
		case <-ctx.Done():
			return counts
		}
	}
}

// quantile returns the time that the given part of the samples stayed below.
func quantile(samples []sample, part float64) time.Duration {
	if len(samples) == 0 {
		return 0
	}
	took := make([]time.Duration, len(samples))
	for i, s := range samples {
		took[i] = s.took
	}
	slices.Sort(took)
	return took[min(len(took)-1, int(part*float64(len(took))))]
}

// statuses counts the samples by status.
func statuses(samples []sample) map[int]int {
	counts := map[int]int{}
	for _, s := range samples {
		counts[s.status]++
	}
	return counts
}
