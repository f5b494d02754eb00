package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"gonum.org/v1/plot/plotter"

	"github.com/bearergate/bearergate/bench/load"
	"github.com/bearergate/bearergate/bench/measure"
	"github.com/bearergate/bearergate/bench/page"
)

// scaling is the gateway and its reference with more and more of something.
type scaling struct {
	taken
	Steps []step `json:"steps"`
}

type step struct {
	Of         int `json:"of"`
	comparison     // without Again
}

func connectionSteps() []int { return []int{1, 2, 4, 8, 16, 32, 64} }

func measureConnections(ctx context.Context, b *bench) error {
	contenders, end, err := b.typicalPair(ctx, 1, 1)
	if err != nil {
		return err
	}
	defer end()
	s := &scaling{taken: take(ctx)}
	for _, connections := range connectionSteps() {
		newLoad, err := checks(connections, measure.InFlight)
		if err != nil {
			return err
		}
		turns, err := b.reload(ctx, contenders, newLoad, fmt.Sprintf("%d connections", connections), b.duration/2)
		if err != nil {
			return err
		}
		s.Steps = append(s.Steps, step{Of: connections, comparison: comparison{Reference: turns[0], Gateway: turns[1]}})
	}
	b.record.Connections = s
	return nil
}

// reload lets contenders take three turns with another load.
func (b *bench) reload(ctx context.Context, contenders []measure.Contender, newLoad loader, what string, duration time.Duration) ([][]measure.Turn, error) {
	contenders = slices.Clone(contenders)
	var opened []*load.Load
	defer func() {
		for _, l := range opened {
			_ = l.Close()
		}
	}()
	for i := range contenders {
		l, err := newLoad(ctx, contenders[i].Server)
		if err != nil {
			return nil, err
		}
		opened, contenders[i].Load = append(opened, l), l
	}
	return b.turns(ctx, what, 3, duration, contenders)
}

func connectionTables(r *record) string {
	return scalingTable(r.Connections, "connections", func(n int) string { return fmt.Sprint(n) })
}

func connectionPlots(r *record) []picture {
	if r.Connections == nil {
		return nil
	}
	return []picture{r.Connections.picture("connections", "CPU per check by connections, 64 checks in flight", "connections")}
}

// coreSteps are 1, 2, 4 and so on, and all cores.
func coreSteps(all int) []int {
	var steps []int
	for n := 1; n < all; n *= 2 {
		steps = append(steps, n)
	}
	return append(steps, all)
}

func measureCores(ctx context.Context, b *bench) error {
	const connections, inFlight = 8, 128
	newLoad, err := checks(connections, inFlight)
	if err != nil {
		return err
	}
	s := &scaling{taken: take(ctx)}
	for _, n := range coreSteps(measure.AllCores().Count) {
		cores := measure.Cores{Count: n}
		if err := cores.Others().Take(); err != nil {
			return err
		}
		gateway, err := b.typicalGateway(func(g *measure.Gateway) { g.Cores = cores })
		if err != nil {
			return err
		}
		noop := func(ctx context.Context) (*measure.Process, error) {
			return measure.StartReferenceOn(ctx, cores, "grpc")
		}
		contenders, end, err := contend(ctx, start{noop, newLoad}, start{gateway, newLoad})
		if err != nil {
			return err
		}
		turns, err := b.turns(ctx, fmt.Sprintf("%d cores", n), 3, b.duration, contenders)
		end()
		if err != nil {
			return err
		}
		s.Steps = append(s.Steps, step{Of: n, comparison: comparison{Reference: turns[0], Gateway: turns[1]}})
	}
	b.record.Cores = s
	return nil
}

func coreTables(r *record) string {
	return scalingTable(r.Cores, "cores of the server", func(n int) string {
		if n == r.Cores.Machine.Cores {
			return fmt.Sprintf("%d, which the load uses too", n)
		}
		return fmt.Sprint(n)
	})
}

func scalingTable(s *scaling, head string, name func(int) string) string {
	if s == nil {
		return ""
	}
	var rows [][]string
	for i := range s.Steps {
		c := &s.Steps[i]
		rows = append(rows, []string{
			name(c.Of), microseconds(measure.Median(c.Gateway, measure.CPU)), c.times(measure.CPU),
			perSecond(measure.Median(c.Gateway, measure.Rate)), c.times(measure.Rate),
			milliseconds(measure.Median(c.Gateway, measure.P99)), c.times(measure.P99),
		})
	}
	return s.String() + "\n\n" +
		page.Table([]string{head, "CPU per check", "of the no-op's", "checks/s", "of the no-op's", "p99", "of the no-op's"}, rows)
}

// picture shows the processor time per check.
func (s *scaling) picture(name, title, x string) picture {
	p := picture{name: name, title: title, x: x, y: "µs", logX: true}
	var ours, noops plotter.XYs
	for i := range s.Steps {
		c := &s.Steps[i]
		ours = append(ours, plotter.XY{X: float64(c.Of), Y: measure.Median(c.Gateway, measure.CPU) / 1e3})
		if len(c.Reference) > 0 {
			noops = append(noops, plotter.XY{X: float64(c.Of), Y: measure.Median(c.Reference, measure.CPU) / 1e3})
		}
	}
	p.curves = append(p.curves, curve{"gateway", ours}, curve{"no-op", noops})
	return p
}
