package main

import (
	"errors"
	"fmt"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/bearergate/bearergate/config"
	"github.com/bearergate/bearergate/listen"
)

func newServeCommand() *cobra.Command {
	var file, profileFile string
	var generatedCodec bool
	cmd := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Run the gateway",
		Long: `Run the gateway until SIGTERM or SIGINT. It then takes no new requests, finishes those under way within
shutdown_timeout, and ends with exit code 0. A second signal ends it at once.

A configuration that is wrong in any way is refused with file, line and field, and nothing is started.
Logs go to standard error: JSON, or text on a terminal.`,
		Example: "  bearergate serve --config bearergate.yaml",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(file)
			if err != nil {
				return &ending{exitWrong, err}
			}
			logger := newLogger(cmd.ErrOrStderr(), c.GetLog().GetLevel(), c.GetLog().GetFormat())
			options := []config.Option{config.Inherited(listen.FromSystemd()), config.Notify(tellSystemd)}
			if generatedCodec {
				options = append(options, config.GeneratedCodec())
			}
			gateway, err := config.NewGateway(cmd.Context(), c, logger, version(), options...)
			if err != nil {
				return &ending{exitWrong, fmt.Errorf("%s: %w", file, err)}
			}
			fitMemory(c.GetCache().GetMaxTokens(), logger)
			stop, err := profile(profileFile)
			if err != nil {
				return &ending{exitWrong, fmt.Errorf("--cpu-profile: %w", err)}
			}
			if err := errors.Join(gateway.Run(cmd.Context()), stop()); err != nil {
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

// tellSystemd tells who started this program (Type=notify) how far it has come. It
// says nothing if nobody wants to know.
func tellSystemd(stage config.Stage) {
	state := daemon.SdNotifyReady
	if stage == config.Stopping {
		state = daemon.SdNotifyStopping
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
