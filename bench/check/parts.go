package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/bearergate/bearergate/bench/load"
	"github.com/bearergate/bearergate/bench/measure"
)

// tokensInUse is how many tokens the requests carry in turn where nothing else is
// said.
const tokensInUse = 1000

// part is something that is measured, and what becomes of it.
type part struct {
	name    string
	about   string
	measure func(context.Context, *bench) error
	tables  func(*record) string
	plots   func(*record) []picture
}

func parts() []part {
	return []part{
		{"costs", "what a check costs beside a server that allows everything", measureCosts, costTables, nil},
		{"open", "how long callers wait at a fixed rate", measureOpen, openTables, openPlots},
		{"connections", "1 to 64 connections", measureConnections, connectionTables, connectionPlots},
		{"cores", "1 to all cores", measureCores, coreTables, nil},
		{"doors", "TLS and a unix socket beside plain TCP", measureDoors, doorTables, nil},
		{"tokens", "100 to a million tokens, and the memory they take", measureTokens, tokenTables, tokenPlots},
		{"clients", "the same with clients of others", measureClients, clientTables, nil},
		{"profile", "where the time goes", measureProfile, profileTables, profilePlots},
		{"edges", "whole requests through Envoy and nginx", measureEdges, edgeTables, edgePlots},
	}
}

func partNames() []string {
	var names []string
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return names
}

// bench is one run of the command.
type bench struct {
	*settings
	dir      string // goes away at the end
	record   *record
	progress *progress
	atEnd    []func()
}

func newBench(ctx context.Context, s *settings, progressTo io.Writer) (*bench, error) {
	dir, err := os.MkdirTemp("", "bearergate-bench-")
	if err != nil {
		return nil, err
	}
	b := &bench{settings: s, dir: dir, record: &record{}, progress: newProgress(progressTo)}
	// nginx's workers are another user, and have to get to their files.
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // nothing secret is there
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if s.gateway == "" {
		b.progress.say("building the gateway")
		if s.gateway, err = measure.BuildGateway(ctx, dir); err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
	}
	return b, nil
}

func (b *bench) close() {
	b.progress.end()
	for _, f := range b.atEnd {
		f()
	}
	_ = os.RemoveAll(b.dir)
}

// measure measures the chosen parts. One that fails does not stop the others.
func (b *bench) measure(ctx context.Context, chosen []part) error {
	var errs []error
	for i, p := range chosen {
		b.progress.part = fmt.Sprintf("%d/%d %s", i+1, len(chosen), p.name)
		b.progress.say("%s", p.about)
		if err := measure.PinLoad(); err != nil {
			return err
		}
		if err := p.measure(ctx, b); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", p.name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// print writes tables.
func (b *bench) print(out io.Writer, chosen []part) error {
	b.progress.end()
	for _, p := range chosen {
		if _, err := fmt.Fprintf(out, "## %s\n\n%s\n", p.name, p.tables(b.record)); err != nil {
			return err
		}
	}
	return nil
}

// startGateway starts the gateway that the command was told to measure.
func (b *bench) startGateway(ctx context.Context, g *measure.Gateway) (*measure.Process, error) {
	g.Program, g.Flags, g.Dir = b.gateway, append(strings.Fields(b.flags), g.Flags...), b.dir
	return g.Start(ctx)
}

// start is a way to start a server, and to load it.
type start struct {
	server func(context.Context) (*measure.Process, error)
	load   loader
}

// loader connects a load to a server.
type loader func(context.Context, *measure.Process) (*load.Load, error)

// reference is a no-op of a kind.
func reference(kind string, newLoad loader) start {
	return start{func(ctx context.Context) (*measure.Process, error) { return measure.StartReference(ctx, kind) }, newLoad}
}

// contend starts servers with their loads. The function that is returned ends them.
func contend(ctx context.Context, starts ...start) (contenders []measure.Contender, end func(), err error) {
	end = func() {
		for _, c := range contenders {
			if c.Load != nil {
				_ = c.Load.Close()
			}
			c.Server.Close()
		}
	}
	for _, s := range starts {
		p, err := s.server(ctx)
		if err != nil {
			end()
			return nil, nil, err
		}
		contenders = append(contenders, measure.Contender{Server: p})
		if contenders[len(contenders)-1].Load, err = s.load(ctx, p); err != nil {
			end()
			return nil, nil, err
		}
	}
	return contenders, end, nil
}

// turns lets contenders take turns, and says so.
func (b *bench) turns(ctx context.Context, what string, rounds int, duration time.Duration, contenders []measure.Contender) ([][]measure.Turn, error) {
	return measure.Rounds(ctx, rounds, duration, contenders, func(round int) {
		b.progress.say("%s, round %d of %d", what, round+1, rounds)
	})
}

// checks returns a load of typical checks.
func checks(connections, inFlight int) (loader, error) {
	requests, err := measure.Typical().Numbered()
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, p *measure.Process) (*load.Load, error) {
		l := load.Checks{
			Dial: measure.Dial(p.GRPC), Conns: connections, InFlight: inFlight,
			Body: requests.Append, Cycle: tokensInUse,
		}
		return l.Open(ctx)
	}, nil
}

// typicalGateway is a gateway that knows the tokens of typical checks.
func (b *bench) typicalGateway(change func(*measure.Gateway)) (func(context.Context) (*measure.Process, error), error) {
	requests, err := measure.Typical().Numbered()
	if err != nil {
		return nil, err
	}
	g := measure.Gateway{Tokens: requests.Tokens(tokensInUse)}
	if change != nil {
		change(&g)
	}
	return func(ctx context.Context) (*measure.Process, error) { return b.startGateway(ctx, &g) }, nil
}

// progress is one line on a terminal, and a line for each step elsewhere.
type progress struct {
	begin    time.Time
	part     string
	w        io.Writer
	terminal bool
}

func newProgress(w io.Writer) *progress {
	p := &progress{begin: time.Now(), part: "start", w: w}
	if f, ok := w.(*os.File); ok {
		p.terminal = term.IsTerminal(int(f.Fd()))
	}
	return p
}

func (p *progress) say(format string, args ...any) {
	text := fmt.Sprintf("%4.0fs  %s: %s", time.Since(p.begin).Seconds(), p.part, fmt.Sprintf(format, args...))
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K%s", text)
		return
	}
	fmt.Fprintln(p.w, text)
}

func (p *progress) end() {
	if p.terminal {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// socket returns a path for a unix socket.
func (b *bench) socket(name string) string { return "unix:" + filepath.Join(b.dir, name+".sock") }
