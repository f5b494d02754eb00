package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version returns the version that the Go toolchain wrote into the program: a
// tag, or the commit that it was built from.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

func newVersionCommand() *cobra.Command {
	var as output
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Say which version this is",
		Example: "  bearergate version --output json",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := struct {
				Version string `json:"version"`
				Go      string `json:"go"`
				System  string `json:"system"`
			}{version(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			return as.print(cmd.OutOrStdout(), v, fmt.Sprintf("bearergate %s (%s, %s)\n", v.Version, v.Go, v.System))
		},
	}
	as.flag(cmd)
	return cmd
}
