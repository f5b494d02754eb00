package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/bearergate/bearergate/config"
	"github.com/bearergate/bearergate/listen"
	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
)

func newServeCommand() *cobra.Command {
	var file, profileFile string
	var generatedCodec bool
	cmd := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Run the gateway",
		Long: `Run the gateway until SIGTERM or SIGINT. It then takes no new requests, finishes those under way within
shutdown_timeout, and ends with exit code 0. A second signal ends it at once.

On SIGHUP it reads the configuration again, and all files that it names; also by itself when another file
takes the place of one. A configuration that is wrong in any way is refused with file, line and field: at the
start nothing is started, later what was in force stays so, and the log says why.
Logs go to standard error: JSON, or text on a terminal.`,
		Example: "  bearergate serve --config bearergate.yaml",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			hangup := make(chan os.Signal, 1) // one more is the same
			signal.Notify(hangup, syscall.SIGHUP)
			defer signal.Stop(hangup)
			c, source, err := config.Open(file)
			if err != nil {
				return &ending{exitWrong, err}
			}
			var level slog.LevelVar
			level.Set(levelOf(c.GetLog().GetLevel()))
			logger := newLogger(cmd.ErrOrStderr(), &level, c.GetLog().GetFormat())
			if err := keepMemoryPrivate(); err != nil {
				logger.Warn("the gateway's memory, with the tokens in it, can be written into a core; set LimitCORE=0, or ulimit -c 0", slog.Any("error", err))
			}
			options := []config.Option{
				config.Inherited(listen.FromSystemd()), config.Notify(tellSystemd), config.From(source), config.LogLevel(&level),
				config.InForce(func(c *configv1.Config) {
					level.Set(levelOf(c.GetLog().GetLevel()))
					fitMemory(c.GetCache().GetMaxTokens(), logger)
				}),
			}
			if generatedCodec {
				options = append(options, config.GeneratedCodec())
			}
			gateway, err := config.NewGateway(cmd.Context(), c, logger, version(), options...)
			if err != nil {
				return &ending{exitWrong, fmt.Errorf("%s: %w", file, err)}
			}
			stop, err := profile(profileFile)
			if err != nil {
				return &ending{exitWrong, fmt.Errorf("--cpu-profile: %w", err)}
			}
			running, ended := context.WithCancel(cmd.Context())
			var reloading sync.WaitGroup
			reloading.Go(func() { reloadOn(running, hangup, gateway) })
			err = gateway.Run(cmd.Context())
			ended()
			reloading.Wait()
			if err := errors.Join(err, stop()); err != nil {
				return &ending{exitUnknown, err}
			}
			return nil
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().BoolVar(&generatedCodec, "generated-codec", false, "read Envoy's checks by the generated protobuf types; slower, decides the same")
	cmd.Flags().StringVar(&profileFile, "cpu-profile", "", "write where the processor's time went into `FILE`, or a new one if it is a folder, in the form of pprof")
	return cmd
}

// reloadOn has the gateway read its configuration again at each signal, until ctx
// ends. What comes of it is told by the gateway.
func reloadOn(ctx context.Context, signals <-chan os.Signal, gateway *config.Gateway) {
	for {
		select {
		case <-signals:
			_, _ = gateway.Reload(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// tellSystemd tells who started this program (Type=notify) how far it has come. It
// says nothing if nobody wants to know.
func tellSystemd(stage config.Stage) {
	state := daemon.SdNotifyReady
	switch stage {
	case config.Stopping:
		state = daemon.SdNotifyStopping
	case config.Reloading:
		state = daemon.SdNotifyReloading
		state += "\n" + daemon.SdNotifyMonotonicUsec() // Type=notify-reload wants to know when
	case config.Ready:
	}
	_, _ = daemon.SdNotify(false, state)
}

// configFlag adds the flag that names the configuration file.
func configFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "config", "c", "", "the configuration `FILE`")
	must(cmd.MarkFlagRequired("config"))
	must(cmd.MarkFlagFilename("config", "yaml", "yml"))
}

// must is for what fails only if this program is wrong.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
