package main

import (
	"context"
	"fmt"

	"gonum.org/v1/plot/plotter"

	"github.com/bearergate/bearergate/bench/measure"
	"github.com/bearergate/bearergate/bench/page"
)

// open is what callers wait at a fixed rate.
type open struct {
	taken
	Limit float64    `json:"no_op_limit_per_second"`
	Rates []openRate `json:"rates"`
}

type openRate struct {
	Percent    int `json:"percent_of_limit"`
	Rate       int `json:"per_second"`
	comparison     // without Again
}

func openPercents() []int { return []int{25, 50, 75, 90} }

func measureOpen(ctx context.Context, b *bench) error {
	contenders, end, err := b.typicalPair(ctx, measure.Connections, measure.InFlight)
	if err != nil {
		return err
	}
	defer end()
	turns, err := b.turns(ctx, "finding the no-op's limit", 3, b.duration, contenders)
	if err != nil {
		return err
	}
	o := &open{taken: take(ctx), Limit: measure.Median(turns[0], measure.Rate)}
	for _, percent := range openPercents() {
		r := openRate{Percent: percent, Rate: int(o.Limit * float64(percent) / 100)}
		for round := range 3 {
			b.progress.say("%d %%, %d per second, round %d of 3", percent, r.Rate, round+1)
			for i, to := range []*[]measure.Turn{&r.Reference, &r.Gateway} {
				t, err := measure.TakeAt(ctx, contenders[i].Server, contenders[i].Load, r.Rate, b.duration)
				if err != nil {
					return err
				}
				*to = append(*to, t)
			}
		}
		o.Rates = append(o.Rates, r)
	}
	b.record.Open = o
	return nil
}

// typicalPair starts a no-op and a gateway.
func (b *bench) typicalPair(ctx context.Context, connections, inFlight int) ([]measure.Contender, func(), error) {
	gateway, err := b.typicalGateway(nil)
	if err != nil {
		return nil, nil, err
	}
	newLoad, err := checks(connections, inFlight)
	if err != nil {
		return nil, nil, err
	}
	return contend(ctx, reference("grpc", newLoad), start{gateway, newLoad})
}

func openTables(r *record) string {
	if r.Open == nil {
		return ""
	}
	var rows [][]string
	for i := range r.Open.Rates {
		at := &r.Open.Rates[i]
		row := []string{fmt.Sprintf("%d %%: %s/s", at.Percent, perSecond(float64(at.Rate)))}
		for _, f := range []measure.Figure{measure.P50, measure.P99, measure.P999} {
			row = append(row, milliseconds(measure.Median(at.Gateway, f)), milliseconds(measure.Median(at.Reference, f)))
		}
		rows = append(rows, append(row, at.times(measure.CPU)))
	}
	return r.Open.String() + fmt.Sprintf(" The no-op's limit was %s checks a second.\n\n", perSecond(r.Open.Limit)) +
		page.Table([]string{"rate, of the no-op's limit", "p50, ours", "no-op", "p99, ours", "no-op", "p99.9, ours", "no-op", "CPU, of the no-op's"}, rows)
}

func openPlots(r *record) []picture {
	if r.Open == nil {
		return nil
	}
	p := picture{name: "open", title: "What a check waits at a fixed rate", x: "checks per second", y: "ms", logY: true}
	for _, who := range []struct {
		name  string
		turns func(*openRate) []measure.Turn
	}{{"gateway", func(r *openRate) []measure.Turn { return r.Gateway }}, {"no-op", func(r *openRate) []measure.Turn { return r.Reference }}} {
		for _, q := range []struct {
			name   string
			figure measure.Figure
		}{{"p50", measure.P50}, {"p99", measure.P99}} {
			var points plotter.XYs
			for i := range r.Open.Rates {
				at := &r.Open.Rates[i]
				points = append(points, plotter.XY{X: float64(at.Rate), Y: measure.Median(who.turns(at), q.figure) / 1e6})
			}
			p.curves = append(p.curves, curve{who.name + ", " + q.name, points})
		}
	}
	return []picture{p}
}
