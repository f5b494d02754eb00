package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/bearergate/bearergate/bench/measure"
)

// tokensInUse is how many tokens the requests carry in turn.
const tokensInUse = 1000

// group is what takes turns with one another: first what the others are compared
// with, then the gateway, then the first once more, which tells how much of a ratio
// is noise; then the peers.
type group struct {
	name       string
	programs   []string // that have to be on this machine
	start      []starter
	contenders []*contender
}

// starter starts a contender. One that needs a path which was not given is not
// measured.
type starter struct {
	name  string
	flag  string // of the path
	path  string
	start func(ctx context.Context, st *stage, path string, c *contender) error
}

// stage is what all contenders share.
type stage struct {
	dir     string // for all that is built and written
	gateway string // the built gateway
	tokens  []string
	madeUp  string // a token that no endpoint knows
	kind    measure.Kind
}

func groupsOf(s *settings) []*group {
	return []*group{
		{name: "ext_authz", start: []starter{
			{name: "no-op gRPC server", start: ours(referenceGRPC)},
			{name: "bearergate", start: ours(gatewayGRPC)},
			{name: "no-op gRPC server, again", start: ours(referenceGRPC)},
			{name: "opa-envoy-plugin", flag: "opa", path: s.opa, start: opa},
			{name: "Authorino", flag: "authorino", path: s.authorino, start: authorino},
		}},
		{name: "http", start: []starter{
			{name: "no-op `net/http` server", start: ours(referenceHTTP)},
			{name: "bearergate", start: ours(gatewayHTTP)},
			{name: "no-op `net/http` server, again", start: ours(referenceHTTP)},
			{name: "Oathkeeper", flag: "oathkeeper", path: s.oathkeeper, start: oathkeeper},
		}},
		{name: "nginx", programs: []string{"nginx", "wrk"}, start: []starter{
			{name: "nginx alone", start: ours(nginxAlone)},
			{name: "nginx that asks bearergate", start: ours(nginxAsks)},
			{name: "nginx alone, again", start: ours(nginxAlone)},
			{name: "nginx that keeps what bearergate allows", start: ours(nginxKeeps)},
			{name: "nginx with Lua and a shared dictionary", flag: "nginx-lua", path: s.nginxLua, start: nginxLua},
		}},
	}
}

// ours starts what needs no path.
func ours(start func(context.Context, *stage, *contender) error) func(context.Context, *stage, string, *contender) error {
	return func(ctx context.Context, st *stage, _ string, c *contender) error { return start(ctx, st, c) }
}

func measureAll(ctx context.Context, s *settings, progress io.Writer) ([]*group, error) {
	dir, err := os.MkdirTemp("", "bearergate-peers-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	// nginx's workers may run as another user.
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // nothing secret is in there
		return nil, err
	}
	st := &stage{dir: dir, kind: measure.Typical()}
	requests, err := st.kind.Numbered()
	if err != nil {
		return nil, err
	}
	st.tokens, st.madeUp = requests.Tokens(tokensInUse), requests.Refused()
	fmt.Fprintln(progress, "building bearergate")
	if st.gateway, err = measure.BuildGateway(ctx, dir); err != nil {
		return nil, err
	}
	if err := measure.PinLoad(); err != nil {
		return nil, err
	}
	var groups []*group
	for _, g := range groupsOf(s) {
		if s.only != "" && s.only != g.name {
			continue
		}
		if err := g.measure(ctx, s, st, progress); err != nil {
			return nil, fmt.Errorf("%s: %w", g.name, err)
		}
		groups = append(groups, g)
	}
	if len(groups) == 0 {
		return nil, fmt.Errorf("-only %s: write ext_authz, http or nginx", s.only)
	}
	return groups, nil
}

// measure starts all of a group, sees that they check tokens and do it without the
// endpoint, and lets them take turns.
func (g *group) measure(ctx context.Context, s *settings, st *stage, progress io.Writer) error {
	defer func() {
		for _, c := range g.contenders {
			c.end()
		}
	}()
	var running []*contender
	for _, from := range g.start {
		c := &contender{name: from.name}
		g.contenders = append(g.contenders, c)
		if from.flag != "" && from.path == "" {
			c.missing = "not measured: no -" + from.flag
			continue
		}
		if c.missing = missing(g.programs); c.missing != "" {
			continue
		}
		fmt.Fprintf(progress, "%s: starting %s\n", g.name, c.name)
		if err := from.start(ctx, st, from.path, c); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		if err := c.warm(ctx, st); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		running = append(running, c)
	}
	for _, c := range running {
		if _, err := c.take(ctx, s.duration/2); err != nil { // all connect
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	for round := range s.rounds {
		fmt.Fprintf(progress, "%s: round %d of %d\n", g.name, round+1, s.rounds)
		for i := range running {
			c := running[(i+round)%len(running)] // nobody is always the first
			t, err := c.take(ctx, s.duration)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			c.turns = append(c.turns, t)
		}
	}
	for _, c := range running {
		if err := c.checksTokens(ctx, st); err != nil {
			return fmt.Errorf("%s, after the turns: %w", c.name, err)
		}
	}
	return nil
}

// missing says which program is not on this machine.
func missing(programs []string) string {
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			return "not measured: there is no " + program + " here"
		}
	}
	return ""
}
