package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bearergate/bearergate/quickstart"
)

func newQuickstartCommand() *cobra.Command {
	var o quickstart.Options
	var as output
	cmd := &cobra.Command{
		Use:   "quickstart",
		Short: "See the gateway at work on this machine, without any other part",
		Long: `Start an emulator of the endpoint, the gateway and a small API on loopback; fetch a token as a partner does; send good
and bad requests through both faces; and print what was decided, how long it took, and how many calls reached the
endpoint. Then print commands to go on with, and stay up until SIGINT.

With --edge a real proxy stands in front of the API with the recipe of deploy/. The program is what ENVOY or NGINX
names, or else what is found in PATH.

Exit code 0 if every row came out as it must, 1 if not, 3 if a part could not be started: a proxy that is not on this
machine, for example.`,
		Example: "  bearergate quickstart --edge envoy",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Edge != "" && !slices.Contains(quickstart.Edges(), o.Edge) {
				return &ending{exitWrong, fmt.Errorf("--edge %s: write one of %s", o.Edge, strings.Join(quickstart.Edges(), ", "))}
			}
			o.Out, o.Logs, o.JSON = cmd.OutOrStdout(), cmd.ErrOrStderr(), as.format == "json"
			o.Colour, o.Version, o.Command = wantsColour(o.Out), version(), commandName()
			good, err := quickstart.Run(cmd.Context(), o)
			switch {
			case err != nil:
				return &ending{exitUnknown, err}
			case !good:
				return &ending{exitNo, errors.New("a row of the table is not as it must be")}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Edge, "edge", "", "put a `PROXY` in front of the API: envoy or nginx")
	f.BoolVar(&o.Once, "once", false, "end after the table")
	must(cmd.RegisterFlagCompletionFunc("edge", cobra.FixedCompletions(quickstart.Edges(), cobra.ShellCompDirectiveNoFileComp)))
	as.flag(cmd)
	return cmd
}

// commandName returns how this program can be called again. What go run has
// built is gone when it ends.
func commandName() string {
	name, err := os.Executable()
	if err != nil || strings.HasPrefix(name, filepath.Join(os.TempDir(), "go-build")) {
		return "go run ./cmd/bearergate"
	}
	return name
}
