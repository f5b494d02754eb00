package admin

import (
	"fmt"
	"strings"

	"github.com/bearergate/bearergate/gate"
	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
)

// A plot has a column for every five seconds of the five minutes.
const (
	columnSteps = 5
	columns     = activityPoints / columnSteps
)

// course is how often something was in each second, by columns, the oldest first.
type course [columns]float64

// courseOf returns the course of counts of which the last ended at a Unix time.
// Columns begin at multiples of five seconds, so that they stay as they are while
// time goes on; of the last one as much is counted as has passed.
func courseOf(counts []uint32, end int64) (c course) {
	last := (end - 1) / columnSteps
	var seconds [columns]int64
	for i := range counts {
		second := end - int64(len(counts)) + int64(i)
		if column := columns - 1 - (last - second/columnSteps); column >= 0 {
			c[column] += float64(counts[i])
			seconds[column]++
		}
	}
	for i, n := range seconds {
		if n > 0 {
			c[i] /= float64(n)
		}
	}
	return c
}

func (c *course) add(other *course) {
	for i := range c {
		c[i] += other[i]
	}
}

func (c *course) most() (most float64) {
	for _, value := range c {
		most = max(most, value)
	}
	return most
}

// now is the last whole column, or what there is of the first one.
func (c *course) now() float64 { return c[columns-1] }

// plot is a picture of how often something was.
type plot struct {
	ID, Title, Now, Most, Says string
	Layers                     []layer
	Legend                     []legend
}

// layer is a part of it, which stands on those before.
type layer struct{ Class, Path string }

type legend struct{ Class, Text string }

// bars draws columns of a course that stand on another, in a picture of this size.
func bars(c, below *course, most, width, height float64) string {
	if most == 0 {
		return ""
	}
	var path strings.Builder
	step := width / columns
	for i, value := range c {
		if value == 0 {
			continue
		}
		// What is there is seen.
		high := max(value/most*height, height/40)
		fmt.Fprintf(&path, "M%.4g %.4gh%.4gv-%.4gh-%.4gz", float64(i)*step, height-below[i]/most*height, step*.8, high, step*.8)
	}
	return path.String()
}

// decided is what was decided in the last five minutes, in sums.
type decided struct {
	end     int64
	courses [gate.Reasons]course
	minute  [gate.Reasons]uint64
	through [gate.Reasons]uint64 // of the last minute, what a shadow let through
	all     [gate.Reasons]uint64
}

// lastMinute are the points of it.
const lastMinute = 60

func sum(counts []uint32) (n uint64) {
	for _, c := range counts {
		n += uint64(c)
	}
	return n
}

func newest(counts []uint32) []uint32 { return counts[max(0, len(counts)-lastMinute):] }

func decidedOf(r *adminv1.ActivityResponse) *decided {
	d := &decided{end: r.GetUntil().GetSeconds()}
	for _, one := range r.GetReasons() {
		reason := reasonsByWord[one.GetReason()]
		d.courses[reason] = courseOf(one.GetCounts(), d.end)
		d.minute[reason], d.all[reason] = sum(newest(one.GetCounts())), sum(one.GetCounts())
		d.through[reason] = sum(newest(one.GetShadow()))
	}
	return d
}

// refusals are what becomes of refused requests, the worst last.
var refusals = []gate.Outcome{gate.Refused, gate.Forbidden, gate.Unauthorized, gate.Unavailable}

// plot draws the reasons that have one of the outcomes.
func (d *decided) plot(w *words, id, title string, outcomes ...gate.Outcome) plot {
	var whole course
	var all uint64
	p := plot{ID: id, Title: title}
	type part struct {
		class        string
		course, base course
	}
	var parts []part
	for _, outcome := range outcomes {
		one := part{class: outcome.String(), base: whole}
		var n uint64
		for reason := range gate.Reason(gate.Reasons) {
			if reason.Outcome() == outcome {
				one.course.add(&d.courses[reason])
				n += d.all[reason]
			}
		}
		whole.add(&one.course)
		all += n
		parts = append(parts, one)
		if len(outcomes) > 1 && n > 0 {
			p.Legend = append(p.Legend, legend{one.class, w.outcomes[outcome]})
		}
	}
	most := whole.most()
	for i := range parts {
		if path := bars(&parts[i].course, &parts[i].base, most, 300, 80); path != "" {
			p.Layers = append(p.Layers, layer{parts[i].class, path})
		}
	}
	p.Now, p.Most = w.rate(whole.now()), w.rate(most)
	p.Says = w.fill(w.PlotSays, p.Most, p.Now, w.count(all))
	return p
}

// reasonRow is a reason in the table below the plots.
type reasonRow struct {
	Reason, Says, Class, Course, Path, Minute, All string
	Status                                         int
}

func (d *decided) rows(w *words) (rows []reasonRow) {
	for _, outcome := range append([]gate.Outcome{gate.Allow}, refusals...) {
		for reason := range gate.Reason(gate.Reasons) {
			if reason.Outcome() != outcome || d.all[reason] == 0 {
				continue
			}
			c := &d.courses[reason]
			rows = append(rows, reasonRow{
				Reason: reason.String(), Says: w.reasons[reason], Class: outcome.String(), Status: outcome.Status(),
				Course: w.fill(w.Course, w.rate(c.most()), w.rate(c.now())), Path: bars(c, new(course), c.most(), 120, 20),
				Minute: w.count(d.minute[reason]), All: w.count(d.all[reason]),
			})
		}
	}
	return rows
}
