package main

import (
	"context"
	"errors"
	"fmt"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/bearergate/bearergate/bench/load"
	"github.com/bearergate/bearergate/bench/measure"
	"github.com/bearergate/bearergate/bench/page"
)

// comparison is the gateway beside its reference.
type comparison struct {
	Name      string         `json:"name"`
	About     string         `json:"about,omitempty"`
	Bytes     int            `json:"request_bytes,omitempty"`
	Reference []measure.Turn `json:"reference"`
	Gateway   []measure.Turn `json:"gateway"`
	// Again is the reference once more, as if it were the gateway.
	Again []measure.Turn `json:"again,omitempty"`
}

// costs are what a check costs.
type costs struct {
	taken
	Comparisons []comparison `json:"comparisons"`
}

// subject is something to compare.
type subject struct {
	name, about string
	bytes       int
	reference   string // the kind of reference
	load        loader
}

// The names of comparisons.
const authRequest = "auth_request"

func extAuthz(kind string) string { return "ext_authz " + kind }

// subjects are the kinds of check that Envoy sends, and what nginx sends; with the
// tokens that they carry.
func subjects() (all []subject, tokens []string, err error) {
	known := map[string]bool{}
	for _, k := range measure.Kinds() {
		requests, err := k.Numbered()
		if err != nil {
			return nil, nil, err
		}
		for _, token := range requests.Tokens(tokensInUse) {
			if !known[token] {
				known[token] = true
				tokens = append(tokens, token)
			}
		}
		all = append(all, subject{
			name: extAuthz(k.Name), about: k.About, bytes: requests.Bytes(), reference: "grpc",
			load: func(ctx context.Context, p *measure.Process) (*load.Load, error) {
				l := load.Checks{
					Dial: measure.Dial(p.GRPC), Conns: measure.Connections, InFlight: measure.InFlight,
					Body: requests.Append, Cycle: tokensInUse,
				}
				return l.Open(ctx)
			},
		})
	}
	requests, err := measure.NumberedAuthRequests()
	if err != nil {
		return nil, nil, err
	}
	all = append(all, subject{
		name: authRequest, about: "as nginx asks by the recipe", bytes: requests.Bytes(), reference: "http",
		load: func(ctx context.Context, p *measure.Process) (*load.Load, error) {
			l := load.Requests{Dial: measure.Dial(p.HTTP), Conns: measure.HTTPConnections, Body: requests.Append, Cycle: tokensInUse}
			return l.Open(ctx)
		},
	})
	return all, tokens, nil
}

func measureCosts(ctx context.Context, b *bench) error {
	comparisons, err := b.compare(ctx, func(string) bool { return true })
	if err != nil {
		return err
	}
	b.record.Costs = &costs{taken: take(ctx), Comparisons: comparisons}
	return nil
}

// compare compares the chosen subjects, by one gateway.
func (b *bench) compare(ctx context.Context, chosen func(name string) bool) ([]comparison, error) {
	all, tokens, err := subjects()
	if err != nil {
		return nil, err
	}
	gateway, err := b.startGateway(ctx, &measure.Gateway{Tokens: tokens})
	if err != nil {
		return nil, err
	}
	defer gateway.Close()
	if err := refuses(ctx, gateway); err != nil {
		return nil, err
	}
	var comparisons []comparison
	for i := range all {
		if !chosen(all[i].name) {
			continue
		}
		c, err := b.compareOne(ctx, &all[i], gateway)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", all[i].name, err)
		}
		comparisons = append(comparisons, c)
	}
	return comparisons, nil
}

func (b *bench) compareOne(ctx context.Context, s *subject, gateway *measure.Process) (comparison, error) {
	noop := reference(s.reference, s.load)
	contenders, end, err := contend(ctx, noop, noop)
	if err != nil {
		return comparison{}, err
	}
	defer end()
	l, err := s.load(ctx, gateway)
	if err != nil {
		return comparison{}, err
	}
	defer l.Close()
	// The gateway between the two.
	turns, err := b.turns(ctx, s.name, b.rounds, b.duration, []measure.Contender{contenders[0], {Server: gateway, Load: l}, contenders[1]})
	if err != nil {
		return comparison{}, err
	}
	return comparison{Name: s.name, About: s.about, Bytes: s.bytes, Reference: turns[0], Gateway: turns[1], Again: turns[2]}, nil
}

// refuses sees that the gateway, other than the no-op, looks at tokens.
func refuses(ctx context.Context, gateway *measure.Process) error {
	requests, err := measure.Typical().Numbered()
	if err != nil {
		return err
	}
	message, err := measure.Typical().Checks([]string{requests.Refused()})
	if err != nil {
		return err
	}
	l := load.Checks{
		Dial: measure.Dial(gateway.GRPC), Conns: 1, InFlight: 1, Cycle: 1,
		Body: func(to []byte, _ int) []byte { return append(to, message[0]...) },
		Check: func(r *authv3.CheckResponse) error {
			if r.GetDeniedResponse() == nil {
				return errors.New("a token that nobody knows was allowed")
			}
			return nil
		},
	}
	opened, err := l.Open(ctx)
	if err != nil {
		return err
	}
	return opened.Close()
}

func costTables(r *record) string {
	if r.Costs == nil {
		return ""
	}
	var rows [][]string
	for i := range r.Costs.Comparisons {
		c := &r.Costs.Comparisons[i]
		rows = append(rows, []string{
			c.Name + ", " + c.About, fmt.Sprint(c.Bytes),
			microseconds(measure.Median(c.Gateway, measure.CPU)), c.times(measure.CPU), fmt.Sprintf("±%.0f %%", 100*measure.Noise(c.Again, c.Reference, measure.CPU)),
			perSecond(measure.Median(c.Gateway, measure.Rate)), c.times(measure.Rate),
			fmt.Sprintf("%.0f / %.0f", measure.Median(c.Gateway, measure.Allocations), measure.Median(c.Reference, measure.Allocations)),
		})
	}
	var waits [][]string
	for i := range r.Costs.Comparisons {
		c := &r.Costs.Comparisons[i]
		waits = append(waits, []string{
			c.Name,
			milliseconds(measure.Median(c.Gateway, measure.P50)), c.times(measure.P50),
			milliseconds(measure.Median(c.Gateway, measure.P99)), c.times(measure.P99),
			milliseconds(measure.Median(c.Gateway, measure.P999)), c.times(measure.P999),
		})
	}
	return r.Costs.String() + "\n\n" +
		page.Table([]string{"request", "bytes", "CPU per check", "of the no-op's", "noise", "checks/s", "of the no-op's", "allocations, ours / no-op"}, rows) + "\n" +
		page.Table([]string{"at full load", "p50", "of the no-op's", "p99", "of the no-op's", "p99.9", "of the no-op's"}, waits)
}

// times is the median of the rounds' ratios.
func (c *comparison) times(f measure.Figure) string {
	return times(measure.Ratio(c.Gateway, c.Reference, f))
}
