// Command check measures what a checked request costs, each figure beside its
// reference in the same run: the gateway against servers that allow everything
// without looking, one on go-control-plane's generated types and one on net/http.
//
//	go run ./bench/check                 # a table on standard output
//	go run ./bench/check -json           # all figures of all rounds
//
// The servers are processes of their own. Where there are two cores or more, they
// get one and the load another. Reference and gateway take turns, and what is
// reported is the median of the ratios of the turns: a time alone means nothing on
// a shared machine. The reference is also compared with itself, which tells how
// much of a ratio is noise.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
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
	asJSON   bool
	only     string
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	var s settings
	flags := flag.NewFlagSet("check", flag.ContinueOnError)
	flags.SetOutput(progress)
	flags.IntVar(&s.rounds, "rounds", 7, "how often reference and gateway take turns")
	flags.DurationVar(&s.duration, "duration", 2*time.Second, "how long a turn is")
	flags.StringVar(&s.gateway, "gateway", "", "measure this bearergate instead of the one that is built from the sources here")
	flags.StringVar(&s.flags, "flags", "", "further flags of bearergate serve, for instance --generated-codec")
	flags.BoolVar(&s.asJSON, "json", false, "print all figures of all rounds as JSON")
	flags.StringVar(&s.only, "only", "", "measure one comparison, by its name")
	reference := flags.String("reference", "", "be a reference server (this is how the command starts its own): grpc or http")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *reference != "" {
		return measure.ServeReference(ctx, *reference, out)
	}
	results, err := measureAll(ctx, &s, progress)
	if err != nil {
		return err
	}
	if s.asJSON {
		return json.NewEncoder(out).Encode(results)
	}
	return writeTable(out, results)
}
