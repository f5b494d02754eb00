package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"

	"github.com/bearergate/bearergate/bench/measure"
	"github.com/bearergate/bearergate/config"
)

// child is what the command does when it has started itself once more.
type child struct {
	reference string
	config    string
	generated bool
	profile   string
	remember  string
}

func (c *child) is() bool { return c.reference != "" || c.config != "" || c.remember != "" }

func (c *child) run(ctx context.Context, out io.Writer) error {
	if c.profile != "" {
		stop, err := startProfile(c.profile)
		if err != nil {
			return err
		}
		defer stop()
	}
	switch {
	case c.reference != "":
		return measure.ServeReference(ctx, c.reference, out)
	case c.config != "":
		return serve(ctx, c.config, c.generated, out)
	default:
		what, number, _ := strings.Cut(c.remember, "=")
		n, err := strconv.Atoi(number)
		if err != nil {
			return err
		}
		return remember(ctx, what, n, out)
	}
}

// perSecondOfProfile is how often a profile looks. The usual hundred are too few for
// a run of some seconds.
const perSecondOfProfile = 500

func startProfile(name string) (stop func(), err error) {
	file, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	// StartCPUProfile cannot change the rate then, and says so on standard error.
	runtime.SetCPUProfileRate(perSecondOfProfile)
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		_ = file.Close()
	}, nil
}

// serve is bearergate serve.
func serve(ctx context.Context, file string, generated bool, out io.Writer) error {
	c, err := config.Load(file)
	if err != nil {
		return err
	}
	var options []config.Option
	if generated {
		options = append(options, config.GeneratedCodec())
	}
	gateway, err := config.NewGateway(ctx, c, slog.New(slog.NewJSONHandler(out, nil)), "bench", options...)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return gateway.Run(ctx)
}
