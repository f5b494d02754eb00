// Command resilience shows what partners see while the gateway is under fire: a
// flood of made-up tokens, an endpoint that goes away, and a cold start. It runs
// gateway, endpoint emulator and clients on loopback, in one process, and writes a
// table and plots.
//
//	go run ./bench/resilience            # the table on standard output
//	go run ./bench/resilience -write     # docs/resilience.md and its plots too
//
// All three together take two and a half minutes; -only runs one of them.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/term"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "resilience: %v\n", err)
		os.Exit(1)
	}
}

// scenario is a run that becomes a section of the report.
type scenario struct {
	name, title string
	run         func(context.Context, *stage, *progress) (*result, error)
	options     stageOptions
}

func run(ctx context.Context, args []string, out, progressTo io.Writer) error {
	flags := flag.NewFlagSet("resilience", flag.ContinueOnError)
	flags.SetOutput(progressTo)
	write := flags.Bool("write", false, "write docs/resilience.md and the plots beside it")
	only := flags.String("only", "", "run one scenario: flood, outage or cold")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	var results []*result
	for _, s := range scenarios() {
		if *only != "" && *only != s.name {
			continue
		}
		r, err := play(ctx, &s, progressTo)
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		results = append(results, r)
	}
	if len(results) == 0 {
		return fmt.Errorf("-only %s: there is no such scenario; write flood, outage or cold", *only)
	}
	for _, r := range results {
		fmt.Fprintf(out, "%s\n\n%s\n", r.title, strings.Join(r.table, "\n"))
		for _, fault := range r.faults {
			fmt.Fprintf(out, "NOT AS PROMISED: %s\n", fault)
		}
		fmt.Fprintln(out)
	}
	if *write {
		if err := writeReport("docs", results); err != nil {
			return err
		}
	}
	if i := slices.IndexFunc(results, func(r *result) bool { return len(r.faults) > 0 }); i >= 0 {
		return fmt.Errorf("%s: %s", results[i].name, results[i].faults[0])
	}
	return nil
}

func play(ctx context.Context, s *scenario, progressTo io.Writer) (*result, error) {
	st, err := newStage(ctx, s.options, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	defer st.close()
	p := &progress{name: s.name, w: progressTo}
	if f, ok := progressTo.(*os.File); ok {
		p.terminal = term.IsTerminal(int(f.Fd()))
	}
	defer p.end()
	r, err := s.run(ctx, st, p)
	if err != nil {
		return nil, err
	}
	r.name, r.title = s.name, s.title
	return r, nil
}

// progress is one line on a terminal, and a line for each step elsewhere.
type progress struct {
	name     string
	w        io.Writer
	terminal bool
}

func (p *progress) say(format string, args ...any) {
	text := p.name + ": " + fmt.Sprintf(format, args...)
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

// imagePath is where a plot is written, below the folder of the report.
func imagePath(name string) string { return filepath.Join("images", "resilience-"+name+".svg") }
