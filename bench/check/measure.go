package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/bearergate/bearergate/bench/load"
	"github.com/bearergate/bearergate/bench/measure"
)

// tokensInUse is how many tokens the requests carry in turn.
const tokensInUse = 1000

// comparison is the gateway beside its reference.
type comparison struct {
	Name      string         `json:"name"`
	Reference []measure.Turn `json:"reference"`
	Gateway   []measure.Turn `json:"gateway"`
	// Again is the reference once more, as if it were the gateway.
	Again []measure.Turn `json:"again"`
	Bytes int            `json:"request_bytes"`
}

func measureAll(ctx context.Context, s *settings, progress io.Writer) ([]*comparison, error) {
	dir, err := os.MkdirTemp("", "bearergate-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if s.gateway == "" {
		if s.gateway, err = measure.BuildGateway(ctx, dir); err != nil {
			return nil, err
		}
	}
	if err := measure.PinLoad(); err != nil {
		return nil, err
	}
	var results []*comparison
	for _, k := range measure.Kinds() {
		if s.only != "" && s.only != "ext_authz "+k.Name && (s.only != "auth_request" || k.Name != "typical") {
			continue
		}
		tokens, err := measure.TokensOf(k, tokensInUse)
		if err != nil {
			return nil, err
		}
		gateway, err := measure.StartGateway(ctx, s.gateway, strings.Fields(s.flags), dir, tokens)
		if err != nil {
			return nil, err
		}
		if s.only != "auth_request" {
			c, err := compareGRPC(ctx, s, k, gateway, tokens, progress)
			if err != nil {
				gateway.Close()
				return nil, fmt.Errorf("ext_authz %s: %w", k.Name, err)
			}
			results = append(results, c)
		}
		if k.Name == "typical" && (s.only == "" || s.only == "auth_request") {
			c, err := compareHTTP(ctx, s, gateway, tokens, progress)
			if err != nil {
				gateway.Close()
				return nil, fmt.Errorf("auth_request: %w", err)
			}
			results = append(results, c)
		}
		gateway.Close()
	}
	if len(results) == 0 {
		return nil, fmt.Errorf("-only %s: there is no such comparison", s.only)
	}
	return results, nil
}

func compareGRPC(ctx context.Context, s *settings, k measure.Kind, gateway *measure.Process, tokens []string, progress io.Writer) (*comparison, error) {
	checks, err := k.Checks(tokens)
	if err != nil {
		return nil, err
	}
	c := &comparison{Name: "ext_authz " + k.Name, Bytes: len(checks[0])}
	err = c.run(ctx, s, "grpc", gateway, progress, func(p *measure.Process) (*load.Load, error) {
		return measure.NewGRPCLoad(ctx, p.GRPC, checks)
	})
	return c, err
}

func compareHTTP(ctx context.Context, s *settings, gateway *measure.Process, tokens []string, progress io.Writer) (*comparison, error) {
	requests := measure.AuthRequests(tokens)
	c := &comparison{Name: "auth_request", Bytes: len(requests[0])}
	err := c.run(ctx, s, "http", gateway, progress, func(p *measure.Process) (*load.Load, error) {
		return measure.NewHTTPLoad(ctx, p.HTTP, requests)
	})
	return c, err
}

// run lets reference, gateway and the reference again take turns.
func (c *comparison) run(ctx context.Context, s *settings, kind string, gateway *measure.Process, progress io.Writer,
	newLoad func(*measure.Process) (*load.Load, error),
) error {
	reference, err := measure.StartReference(ctx, kind)
	if err != nil {
		return err
	}
	defer reference.Close()
	again, err := measure.StartReference(ctx, kind)
	if err != nil {
		return err
	}
	defer again.Close()
	var contenders []measure.Contender
	defer func() {
		for _, contender := range contenders {
			_ = contender.Load.Close()
		}
	}()
	for _, p := range []*measure.Process{reference, gateway, again} {
		l, err := newLoad(p)
		if err != nil {
			return err
		}
		contenders = append(contenders, measure.Contender{Server: p, Load: l})
	}
	turns, err := measure.Rounds(ctx, s.rounds, s.duration, contenders, func(round int) {
		fmt.Fprintf(progress, "%s: round %d of %d\n", c.Name, round+1, s.rounds)
	})
	if err != nil {
		return err
	}
	c.Reference, c.Gateway, c.Again = turns[0], turns[1], turns[2]
	return nil
}

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
			measure.Median(c.Gateway, measure.CPU)/1000, measure.Ratio(c.Gateway, c.Reference, measure.CPU), measure.Ratio(c.Again, c.Reference, measure.CPU),
			measure.Median(c.Gateway, measure.Rate), measure.Ratio(c.Gateway, c.Reference, measure.Rate),
			measure.Median(c.Gateway, measure.P99)/float64(time.Millisecond), measure.Ratio(c.Gateway, c.Reference, measure.P99))
		if err != nil {
			return err
		}
	}
	return nil
}
