package main

import (
	"bytes"
	"fmt"
	"image/color"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// result is what a scenario has shown.
type result struct {
	name, title, intro string
	phases             []phase
	lines              []line
	counts             []count
	table              []string
	notes, faults      []string
}

// line is one kind of client.
type line struct {
	name    string
	samples *recorder
}

func (r *result) fault(format string, args ...any) {
	r.faults = append(r.faults, fmt.Sprintf(format, args...))
}

// checkCalls holds the gateway to its bound.
func (r *result) checkCalls(s *stage) {
	most := s.endpoint.Stats().Verify.MaxInFlight
	r.notes = append(r.notes, fmt.Sprintf("At most %d calls were at the endpoint at once; %d are allowed.", most, callsMax))
	if most > callsMax {
		r.fault("%d calls were at the endpoint at once", most)
	}
}

// tabulate makes the table.
func (r *result) tabulate() {
	r.table = append(r.table,
		"| clients | phase | requests | 200 | 401 | 503 | others | p50 | p99 | calls/s at the endpoint |",
		"|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
	for _, l := range r.lines {
		for _, ph := range r.phases {
			part := l.samples.between(ph.from, ph.to)
			if len(part) == 0 {
				continue
			}
			by := statuses(part)
			others := len(part) - by[200] - by[401] - by[503]
			r.table = append(r.table, fmt.Sprintf("| %s | %s | %d | %d | %d | %d | %d | %s | %s | %.0f |", l.name, ph.name, len(part),
				by[200], by[401], by[503], others, ms(quantile(part, .5)), ms(quantile(part, .99)), r.callRate(ph)))
		}
	}
}

// callRate returns the calls per second in a phase.
func (r *result) callRate(ph phase) float64 {
	var first, last *count
	for i := range r.counts {
		if c := &r.counts[i]; c.at >= ph.from && c.at <= ph.to {
			if first == nil {
				first = c
			}
			last = c
		}
	}
	if first == nil || last.at == first.at {
		return 0
	}
	return float64(last.calls-first.calls) / (last.at - first.at).Seconds()
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000) }

// writeReport writes resilience.md and its plots into a folder.
func writeReport(folder string, results []*result) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# What partners see when there is trouble\n\n")
	fmt.Fprintf(&b, "Written by `go run ./bench/resilience -write` on %s, with %s on %s/%s and %d processors that gateway, endpoint and clients share. "+
		"So the times say how the phases compare, and little about another machine. The gateway has its default settings where nothing else is said. A time "+
		"counts from when the request was to be sent.\n", time.Now().UTC().Format(time.DateOnly), runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	for _, r := range results {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n![%s](%s)\n\n%s\n\n", r.title, r.intro, r.title, filepath.ToSlash(imagePath(r.name)), strings.Join(r.table, "\n"))
		for _, note := range r.notes {
			fmt.Fprintf(&b, "%s\n", note)
		}
		for _, fault := range r.faults {
			fmt.Fprintf(&b, "\n**Not as promised:** %s\n", fault)
		}
		svg, err := r.plot()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, imagePath(r.name)), svg, 0o644); err != nil { //nolint:gosec // documentation is for all
			return err
		}
	}
	return os.WriteFile(filepath.Join(folder, "resilience.md"), []byte(b.String()), 0o644) //nolint:gosec // documentation is for all
}

// The colours of the curves; they tell apart for those who see few colours too.
var curves = []color.Color{color.RGBA{0, 114, 178, 255}, color.RGBA{213, 94, 0, 255}, color.RGBA{0, 158, 115, 255}, color.RGBA{204, 121, 167, 255}}

// plot draws what clients waited, second by second, and below it the calls at the
// endpoint.
func (r *result) plot() ([]byte, error) {
	end := r.phases[len(r.phases)-1].to.Seconds()
	waits := plot.New()
	waits.Title.Text = r.title
	waits.Y.Label.Text = "time of a request, ms"
	waits.Y.Scale, waits.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	i := 0
	for _, l := range r.lines {
		bySecond := map[int][]sample{}
		for _, s := range l.samples.samples {
			bySecond[int(s.at.Seconds())] = append(bySecond[int(s.at.Seconds())], s)
		}
		for _, part := range []float64{.5, .99} {
			var points plotter.XYs
			for _, second := range slices.Sorted(maps.Keys(bySecond)) {
				took := quantile(bySecond[second], part)
				points = append(points, plotter.XY{X: float64(second) + .5, Y: max(.01, float64(took.Microseconds())/1000)})
			}
			if err := addLine(waits, fmt.Sprintf("%s, p%.0f", l.name, part*100), points, curves[i%len(curves)]); err != nil {
				return nil, err
			}
			i++
		}
	}
	calls := plot.New()
	calls.X.Label.Text, calls.Y.Label.Text = "seconds", "calls/s at the endpoint"
	var points plotter.XYs
	for i := 1; i < len(r.counts); i++ {
		a, b := r.counts[i-1], r.counts[i]
		points = append(points, plotter.XY{X: b.at.Seconds(), Y: float64(b.calls-a.calls) / (b.at - a.at).Seconds()})
	}
	if err := addLine(calls, "", points, curves[0]); err != nil {
		return nil, err
	}
	calls.Y.Min, calls.Y.Tick.Marker = 0, every(100)
	for _, p := range []*plot.Plot{waits, calls} {
		p.X.Min, p.X.Max, p.X.Tick.Marker = 0, end, every(5)
		p.BackgroundColor = color.White
		p.Add(plotter.NewGrid())
	}
	// Room for the names above the curves.
	waits.Legend.Top, waits.Legend.Left, waits.Legend.XOffs = true, true, vg.Points(8)
	waits.Y.Max *= 100
	for _, ph := range r.phases[1:] {
		border := plotter.XYs{{X: ph.from.Seconds(), Y: waits.Y.Min}, {X: ph.from.Seconds(), Y: waits.Y.Max}}
		l, err := plotter.NewLine(border)
		if err != nil {
			return nil, err
		}
		l.Dashes, l.Color = []vg.Length{vg.Points(4), vg.Points(4)}, color.Gray{100}
		waits.Add(l)
	}
	canvas := vgsvg.New(24*vg.Centimeter, 15*vg.Centimeter)
	dc := draw.Crop(draw.New(canvas), vg.Points(4), -vg.Points(12), vg.Points(4), -vg.Points(4))
	rows := draw.Tiles{Rows: 2, Cols: 1, PadY: vg.Points(8)}
	drawn := plot.Align([][]*plot.Plot{{waits}, {calls}}, rows, dc)
	waits.Draw(drawn[0][0])
	calls.Draw(drawn[1][0])
	var svg bytes.Buffer
	_, err := canvas.WriteTo(&svg)
	return svg.Bytes(), err
}

// every marks an axis at multiples of a step.
func every(step int) plot.Ticker {
	return plot.TickerFunc(func(least, most float64) []plot.Tick {
		var ticks []plot.Tick
		for at := int(math.Ceil(least/float64(step))) * step; float64(at) <= most; at += step {
			ticks = append(ticks, plot.Tick{Value: float64(at), Label: strconv.Itoa(at)})
		}
		return ticks
	})
}

func addLine(p *plot.Plot, name string, points plotter.XYs, c color.Color) error {
	if len(points) == 0 {
		return nil
	}
	l, err := plotter.NewLine(points)
	if err != nil {
		return err
	}
	l.Color, l.Width = c, vg.Points(1.5)
	p.Add(l)
	if name != "" {
		p.Legend.Add(name, l)
	}
	return nil
}
