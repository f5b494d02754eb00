// Package measure is how the commands of bench/ measure servers: it starts them,
// sends them load, and takes processor time, throughput and latency, turn by turn.
//
// Servers are processes of their own. Where there are two cores or more, they get
// half of them and the load the other half. Whoever is compared takes turns, since a
// time alone means nothing on a shared machine: what counts is the median of the
// ratios of the turns.
package measure

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"github.com/bearergate/bearergate/bench/load"
)

// Contender is a server and the load that is for it.
type Contender struct {
	Server *Process
	Load   *load.Load
}

// Rounds lets contenders take turns for a number of rounds, after half a turn each
// in which caches fill. It returns the turns of each contender; before each round it
// calls progress.
func Rounds(ctx context.Context, rounds int, duration time.Duration, contenders []Contender, progress func(round int)) ([][]Turn, error) {
	for _, c := range contenders {
		if _, err := Take(ctx, c.Server, c.Load, duration/2); err != nil {
			return nil, err
		}
	}
	turns := make([][]Turn, len(contenders))
	for round := range rounds {
		progress(round)
		for i := range contenders {
			at := (i + round) % len(contenders) // nobody is always the first
			t, err := Take(ctx, contenders[at].Server, contenders[at].Load, duration)
			if err != nil {
				return nil, err
			}
			turns[at] = append(turns[at], t)
		}
	}
	return turns, nil
}

// Figure is one of the figures of a turn.
type Figure func(Turn) float64

// CPU is the processor time that a request costs, in nanoseconds.
func CPU(t Turn) float64 { return float64(t.CPU) }

// Rate is requests per second.
func Rate(t Turn) float64 { return t.PerSecond }

// Allocations is how many objects the server allocates for a request.
func Allocations(t Turn) float64 { return t.Allocations }

// P50 is the time that half of the requests take or exceed, in nanoseconds.
func P50(t Turn) float64 { return float64(t.P50) }

// P999 is the time that one request in a thousand takes or exceeds, in nanoseconds.
func P999(t Turn) float64 { return float64(t.P999) }

// P99 is the time that one request in a hundred takes or exceeds, in nanoseconds.
func P99(t Turn) float64 { return float64(t.P99) }

// Ratio returns the median over the rounds of what a figure is of the reference's.
func Ratio(of, reference []Turn, figure Figure) float64 {
	ratios := make([]float64, len(of))
	for i := range of {
		ratios[i] = figure(of[i]) / figure(reference[i])
	}
	return median(ratios)
}

// Noise returns how far a reference's ratios to itself are from 1 in three quarters of
// the rounds: a ratio that differs from another by less says nothing.
func Noise(again, reference []Turn, figure Figure) float64 {
	off := make([]float64, len(again))
	for i := range again {
		off[i] = math.Abs(figure(again[i])/figure(reference[i]) - 1)
	}
	slices.Sort(off)
	return off[(len(off)*3+3)/4-1]
}

// Median returns the median of a figure over the rounds.
func Median(turns []Turn, figure Figure) float64 {
	values := make([]float64, len(turns))
	for i, t := range turns {
		values[i] = figure(t)
	}
	return median(values)
}

func median[T cmp.Ordered](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
