package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"time"
)

// tokensInUse is how many tokens the requests carry in turn.
const tokensInUse = 1000

// comparison is the gateway beside its reference.
type comparison struct {
	Name      string `json:"name"`
	Reference []turn `json:"reference"`
	Gateway   []turn `json:"gateway"`
	// Again is the reference once more, as if it were the gateway.
	Again []turn `json:"again"`
	Bytes int    `json:"request_bytes"`
}

func measureAll(ctx context.Context, s *settings, progress io.Writer) ([]*comparison, error) {
	dir, err := os.MkdirTemp("", "bearergate-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if s.gateway == "" {
		if s.gateway, err = buildGateway(ctx, dir); err != nil {
			return nil, err
		}
	}
	// This process sends the load. It gets the other half of the cores.
	if err := pin(os.Getpid(), serverCores(), runtime.NumCPU()-serverCores()); err != nil {
		return nil, err
	}
	runtime.GOMAXPROCS(max(1, runtime.NumCPU()-serverCores()))
	var results []*comparison
	for _, k := range kinds() {
		if s.only != "" && s.only != "ext_authz "+k.name && (s.only != "auth_request" || k.name != "typical") {
			continue
		}
		tokens := tokensOf(k, tokensInUse)
		gateway, err := startGateway(ctx, s, dir, tokens)
		if err != nil {
			return nil, err
		}
		if s.only != "auth_request" {
			c, err := compareGRPC(ctx, s, k, gateway, tokens, progress)
			if err != nil {
				gateway.close()
				return nil, fmt.Errorf("ext_authz %s: %w", k.name, err)
			}
			results = append(results, c)
		}
		if k.name == "typical" && (s.only == "" || s.only == "auth_request") {
			c, err := compareHTTP(ctx, s, gateway, tokens, progress)
			if err != nil {
				gateway.close()
				return nil, fmt.Errorf("auth_request: %w", err)
			}
			results = append(results, c)
		}
		gateway.close()
	}
	if len(results) == 0 {
		return nil, fmt.Errorf("-only %s: there is no such comparison", s.only)
	}
	return results, nil
}

func compareGRPC(ctx context.Context, s *settings, k kind, gateway *process, tokens []string, progress io.Writer) (*comparison, error) {
	checks := make([][]byte, len(tokens))
	for i, token := range tokens {
		var err error
		if checks[i], err = k.check(token); err != nil {
			return nil, err
		}
	}
	c := &comparison{Name: "ext_authz " + k.name, Bytes: len(checks[0])}
	err := c.run(ctx, s, "grpc", gateway, progress, func(p *process) (load, error) { return newGRPCLoad(p.grpc, checks) })
	return c, err
}

func compareHTTP(ctx context.Context, s *settings, gateway *process, tokens []string, progress io.Writer) (*comparison, error) {
	c := &comparison{Name: "auth_request"}
	err := c.run(ctx, s, "http", gateway, progress, func(p *process) (load, error) {
		l, err := newHTTPLoad(ctx, p.http, tokens)
		if err == nil {
			c.Bytes = len(l.requests[0])
		}
		return l, err
	})
	return c, err
}

// run lets reference, gateway and the reference again take turns.
func (c *comparison) run(ctx context.Context, s *settings, kind string, gateway *process, progress io.Writer, newLoad func(*process) (load, error)) error {
	reference, err := startReference(ctx, kind)
	if err != nil {
		return err
	}
	defer reference.close()
	again, err := startReference(ctx, kind)
	if err != nil {
		return err
	}
	defer again.close()
	servers := []*process{reference, gateway, again}
	turns := []*[]turn{&c.Reference, &c.Gateway, &c.Again}
	var loads []load
	defer func() {
		for _, l := range loads {
			l.close()
		}
	}()
	for _, p := range servers {
		l, err := newLoad(p)
		if err != nil {
			return err
		}
		loads = append(loads, l)
		if _, err := take(ctx, p, l, s.duration/2); err != nil { // caches fill, connections open
			return err
		}
	}
	for round := range s.rounds {
		fmt.Fprintf(progress, "%s: round %d of %d\n", c.Name, round+1, s.rounds)
		for i := range servers {
			at := (i + round) % len(servers) // nobody is always the first
			t, err := take(ctx, servers[at], loads[at], s.duration)
			if err != nil {
				return err
			}
			*turns[at] = append(*turns[at], t)
		}
	}
	return nil
}

// ratio returns the median over the rounds of what a figure is of the reference's.
func ratio(of, reference []turn, figure func(turn) float64) float64 {
	ratios := make([]float64, len(of))
	for i := range of {
		ratios[i] = figure(of[i]) / figure(reference[i])
	}
	return median(ratios)
}

func median[T cmp.Ordered](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

func medianOf(turns []turn, figure func(turn) float64) float64 {
	values := make([]float64, len(turns))
	for i, t := range turns {
		values[i] = figure(t)
	}
	return median(values)
}

func cpuOf(t turn) float64  { return float64(t.CPU) }
func rateOf(t turn) float64 { return t.PerSecond }
func p99Of(t turn) float64  { return float64(t.P99) }

// writeTable prints the ratios, and the figures they are made of.
func writeTable(w io.Writer, results []*comparison) error {
	_, err := fmt.Fprintf(w, "%s, %s/%s, %d cores; medians of %d rounds\n\n"+
		"| check | bytes | CPU per check | of the no-op's | noise | checks/s | of the no-op's | p99 | of the no-op's |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), len(results[0].Gateway))
	if err != nil {
		return err
	}
	for _, c := range results {
		_, err := fmt.Fprintf(w, "| %s | %d | %.1f µs | x%.2f | x%.2f | %.0f | x%.2f | %.2f ms | x%.2f |\n", c.Name, c.Bytes,
			medianOf(c.Gateway, cpuOf)/1000, ratio(c.Gateway, c.Reference, cpuOf), ratio(c.Again, c.Reference, cpuOf),
			medianOf(c.Gateway, rateOf), ratio(c.Gateway, c.Reference, rateOf),
			medianOf(c.Gateway, p99Of)/float64(time.Millisecond), ratio(c.Gateway, c.Reference, p99Of))
		if err != nil {
			return err
		}
	}
	return nil
}
