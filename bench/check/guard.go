package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/bearergate/bearergate/bench/measure"
	"github.com/bearergate/bearergate/bench/page"
)

// guarded are the comparisons that the guard looks at, and of them processor time
// and throughput: what is slowest of all says more about the machine.
func guarded() []string {
	return []string{extAuthz("minimal"), extAuthz("typical"), authRequest}
}

// held is a ratio that is held against the one on record.
type held struct {
	name     string
	now      float64
	recorded float64
	noise    float64 // of now, as a part of it
	better   int     // -1: less is better; 1: more is better
}

// worse reports whether the ratio is worse than the one on record by more than the
// noise.
func (h *held) worse() bool {
	if h.better < 0 {
		return h.now > h.recorded*(1+h.noise)
	}
	return h.now < h.recorded*(1-h.noise)
}

// hold holds comparisons against those on record. One that is not on record is an
// error: a guard that looks at nothing guards nothing.
func hold(now, recorded []comparison) ([]held, error) {
	var all []held
	for i := range now {
		c := &now[i]
		at := slices.IndexFunc(recorded, func(r comparison) bool { return r.Name == c.Name })
		if at < 0 {
			return nil, fmt.Errorf("%s is not in %s; run make bench first", c.Name, recordFile)
		}
		old := &recorded[at]
		for _, f := range []struct {
			name   string
			figure measure.Figure
			better int
		}{{"CPU per check", measure.CPU, -1}, {"checks/s", measure.Rate, 1}} {
			all = append(all, held{
				name: c.Name + ", " + f.name, better: f.better,
				now:      measure.Ratio(c.Gateway, c.Reference, f.figure),
				recorded: measure.Ratio(old.Gateway, old.Reference, f.figure),
				noise:    measure.Noise(c.Again, c.Reference, f.figure),
			})
		}
	}
	return all, nil
}

// guard measures what is guarded and fails if something is worse than on record.
func (b *bench) guard(ctx context.Context, out io.Writer) error {
	recorded, err := readRecord()
	if err != nil {
		return err
	}
	if recorded.Costs == nil {
		return fmt.Errorf("there are no costs in %s; run make bench first", recordFile)
	}
	b.progress.part = "guard"
	if err := measure.PinLoad(); err != nil {
		return err
	}
	now, err := b.compare(ctx, func(name string) bool { return slices.Contains(guarded(), name) })
	if err != nil {
		return err
	}
	all, err := hold(now, recorded.Costs.Comparisons)
	if err != nil {
		return err
	}
	b.progress.end()
	return judge(out, all)
}

// judge writes what was held against what, and fails if something is worse.
func judge(out io.Writer, all []held) error {
	var rows [][]string
	var errs []error
	for i := range all {
		h := &all[i]
		verdict := "ok"
		if h.worse() {
			verdict = "WORSE"
			errs = append(errs, fmt.Errorf("%s: %s of the no-op's, and %s on record; the noise is %.0f %%", h.name, times(h.now), times(h.recorded), 100*h.noise))
		}
		rows = append(rows, []string{h.name, times(h.now), times(h.recorded), fmt.Sprintf("±%.0f %%", 100*h.noise), verdict})
	}
	if _, err := fmt.Fprint(out, page.Table([]string{"of the no-op's", "now", "on record", "noise", ""}, rows)); err != nil {
		return err
	}
	return errors.Join(errs...)
}
