// Command check measures what a checked request costs, each figure beside its
// reference in the same run: the gateway against servers that allow everything
// without looking, one on go-control-plane's generated types and one on net/http.
//
//	make bench                                        # all of it, and docs/performance.md written anew
//	go run ./bench/check -only costs                  # one part, its tables on standard output
//	go run ./bench/check -only costs,open -write      # some parts, the rest of the page stays
//	make bench-check                                  # fails if a ratio is worse than the one on record
//
// The servers are processes of their own. Where there are two cores or more, they
// get one and the load another. Reference and gateway take turns, and what is
// reported is the median of the ratios of the turns: a time alone means nothing on
// a shared machine. The reference is also compared with itself, which tells how
// much of a ratio is noise.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/bearergate/bearergate/bench/measure"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "check: %v\n", err)
		os.Exit(1)
	}
}

type settings struct {
	rounds   int
	duration time.Duration
	gateway  string // a built bearergate; "" builds one
	flags    string // further flags of serve
	tokens   int    // the most that are in use at once
}

func run(ctx context.Context, args []string, out, progressTo io.Writer) error {
	var s settings
	var child child
	flags := flag.NewFlagSet("check", flag.ContinueOnError)
	flags.SetOutput(progressTo)
	flags.IntVar(&s.rounds, "rounds", 5, "how often reference and gateway take turns")
	flags.DurationVar(&s.duration, "duration", 1200*time.Millisecond, "how long a turn is")
	flags.StringVar(&s.gateway, "gateway", "", "measure this bearergate instead of the one that is built from the sources here")
	flags.StringVar(&s.flags, "flags", "", "further flags of bearergate serve, for instance --generated-codec")
	flags.IntVar(&s.tokens, "tokens", 1_000_000, "how many tokens are in use at most")
	only := flags.String("only", "", "measure some parts, with commas between them: "+strings.Join(partNames(), ", "))
	write := flags.Bool("write", false, "write docs/performance.md, its plots and docs/performance.json")
	again := flags.Bool("page", false, "measure nothing, write docs/performance.md and its plots from docs/performance.json")
	guard := flags.Bool("guard", false, "fail if a ratio is worse than the one in docs/performance.json by more than the noise")
	flags.StringVar(&child.reference, "reference", "", "be a reference server (this is how the command starts its own): grpc or http")
	flags.StringVar(&child.config, "config", "", "be a gateway with this configuration file")
	flags.BoolVar(&child.generated, "generated", false, "with -config, use the generated codec")
	flags.StringVar(&child.profile, "profile", "", "with -reference or -config, write a profile of the processor there")
	flags.StringVar(&child.remember, "remember", "", "say how much memory a number of tokens takes: cache or map, =, the number")
	if len(args) > 0 && args[0] == "serve" {
		args = args[1:] // like bearergate
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if child.is() {
		return child.run(ctx, out)
	}
	if *again {
		r, err := readRecord()
		if err != nil {
			return err
		}
		return writePage(r)
	}
	measure.AllCores() // before this process is on some of them alone
	b, err := newBench(ctx, &s, progressTo)
	if err != nil {
		return err
	}
	defer b.close()
	if *guard {
		return b.guard(ctx, out)
	}
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	failed := b.measure(ctx, chosen)
	if *write && ctx.Err() == nil {
		return errors.Join(failed, b.write())
	}
	return errors.Join(failed, b.print(out, chosen))
}

// choose returns the parts of these names; all if there is no name.
func choose(names string) ([]part, error) {
	if names == "" {
		return parts(), nil
	}
	var chosen []part
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(parts(), func(p part) bool { return p.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-only %s: there is no such part; write some of %s", name, strings.Join(partNames(), ", "))
		}
		chosen = append(chosen, parts()[i])
	}
	return chosen, nil
}
