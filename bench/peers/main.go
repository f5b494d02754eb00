// Command peers measures other programs that check tokens beside the gateway, under
// the same load and in the same turns:
//
//   - over ext_authz, opa-envoy-plugin and Authorino, beside the gateway and a server
//     on go-control-plane's generated types that allows everything
//   - over HTTP, Oathkeeper, beside the gateway and a net/http server that allows
//     everything
//   - in nginx, a Lua script with a shared dictionary, beside nginx alone, nginx
//     that asks the gateway, and nginx that keeps what the gateway allows
//
// Each has its own cache, which knows all tokens, and its endpoint is gone before the
// first turn. Before and after, every token must be allowed and a made-up one
// refused. README.md says where the sources come from and why the settings are as
// they are.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/bearergate/bearergate/bench/measure"
)

// page is the document with the section of the figures.
const page = "docs/performance.md"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "peers: %v\n", err)
		os.Exit(1)
	}
}

type settings struct {
	opa, authorino, oathkeeper string // checkouts
	nginxLua                   string // the folder with nginx's Lua module and what that needs
	rounds                     int
	duration                   time.Duration
	only                       string
}

func run(ctx context.Context, args []string, out, progress io.Writer) error {
	var s settings
	flags := flag.NewFlagSet("peers", flag.ContinueOnError)
	flags.SetOutput(progress)
	flags.StringVar(&s.opa, "opa", "", "a checkout of open-policy-agent/opa-envoy-plugin")
	flags.StringVar(&s.authorino, "authorino", "", "a checkout of Kuadrant/authorino")
	flags.StringVar(&s.oathkeeper, "oathkeeper", "", "a checkout of ory/oathkeeper")
	flags.StringVar(&s.nginxLua, "nginx-lua", "", "the folder into which nginx's Lua module was unpacked")
	flags.IntVar(&s.rounds, "rounds", 5, "how often all take turns")
	flags.DurationVar(&s.duration, "duration", 2*time.Second, "how long a turn is")
	flags.StringVar(&s.only, "only", "", "measure one group: ext_authz, http or nginx")
	write := flags.Bool("write", false, "write the figures into "+page)
	reference := flags.String("reference", "", "be a reference server (this is how the command starts its own): grpc or http")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *reference != "" {
		return measure.ServeReference(ctx, *reference, out)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	for _, path := range []*string{&s.opa, &s.authorino, &s.oathkeeper, &s.nginxLua} {
		if *path == "" {
			continue
		}
		var err error
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	groups, err := measureAll(ctx, &s, progress)
	if err != nil {
		return err
	}
	text := report(ctx, &s, groups)
	if *write {
		return writeSection(page, text)
	}
	_, err = io.WriteString(out, text)
	return err
}
