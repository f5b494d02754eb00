package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bearergate/bearergate/config"
	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
	"github.com/bearergate/bearergate/proto/bearergate/admin/v1/adminv1connect"
)

func newConfigCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "config",
		Short:   "Look at a configuration",
		Example: "  bearergate config check --config bearergate.yaml",
	}
	cmd.AddCommand(newConfigCheckCommand(), newConfigShowCommand(), newConfigInitCommand())
	return onlySubcommands(cmd)
}

// configProblem is a [config.Problem] for scripts.
type configProblem struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	Field  string `json:"field,omitempty"`
	Text   string `json:"text"`
}

func newConfigCheckCommand() *cobra.Command {
	var file string
	var as output
	cmd := &cobra.Command{
		Use:   "check --config FILE",
		Short: "Say whether serve would take a configuration",
		Long: `Read a configuration as serve does and name everything that is wrong with it: file, line, column, field, and what
to write instead. Nothing is started, and no address is tried. Exit code 0 if it is good, 2 if not.

Warnings are about what serve takes and nobody means; they stand on standard error and change no exit code.`,
		Example: "  bearergate config check --config bearergate.yaml",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			read, err := config.Read(file)
			problems, warnings := []configProblem{}, []configProblem{}
			if wrong, ok := errors.AsType[*config.Error](err); ok {
				for _, p := range wrong.Problems {
					problems = append(problems, configProblem(p))
				}
			}
			if err == nil {
				for _, p := range read.Warnings {
					warnings = append(warnings, configProblem(p))
				}
			}
			if as.format != "json" {
				if err != nil {
					return &ending{exitWrong, err}
				}
				for _, p := range read.Warnings {
					fmt.Fprintf(cmd.ErrOrStderr(), "bearergate: warning: %s\n", p)
				}
			}
			result := struct {
				Good     bool            `json:"good"`
				Problems []configProblem `json:"problems"`
				Warnings []configProblem `json:"warnings"`
			}{err == nil, problems, warnings}
			if printed := as.print(cmd.OutOrStdout(), result, file+": good\n"); printed != nil {
				return printed
			}
			if err != nil {
				return &ending{code: exitWrong}
			}
			return nil
		},
	}
	configFlag(cmd, &file)
	as.flag(cmd)
	return cmd
}

func newConfigShowCommand() *cobra.Command {
	var file, format string
	var running bool
	var r remote
	cmd := &cobra.Command{
		Use:   "show (--config FILE | --running)",
		Short: "Show a configuration as it is in force",
		Long: `Read a configuration as serve does and show it as it is in force: every default filled in, and behind each value
where it comes from: the line of the file, the environment, or the default. Nothing is started.

No secret is shown. Of URLs the user, the password, the values in the query and the fragment are hidden. A text that holds
variables is shown as it was written, with their names, unless it can only be an address, a path, a socket's mode or one of
a few words.

With --running, have a running gateway show the configuration that is in force there.

Exit code 0 if the configuration is good, 2 if not; config check says the same of what is wrong.`,
		Example: `  bearergate config show --config bearergate.yaml
  bearergate config show --running --admin unix:/run/bearergate/admin.sock`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if running {
				return showRunning(cmd, &r, format)
			}
			read, err := config.Read(file)
			if err != nil {
				return &ending{exitWrong, err}
			}
			write := read.YAML
			if format == "json" {
				write = read.JSON
			}
			text, err := write()
			if err != nil {
				return &ending{exitUnknown, err}
			}
			if _, err := cmd.OutOrStdout().Write(text); err != nil {
				return &ending{exitUnknown, fmt.Errorf("standard output: %w", err)}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVarP(&file, "config", "c", "", "the configuration `FILE`")
	must(cmd.MarkFlagFilename("config", "yaml", "yml"))
	f.BoolVar(&running, "running", false, "show what is in force in a running gateway")
	r.flags(cmd)
	cmd.MarkFlagsOneRequired("config", "running")
	for _, name := range []string{"running", "admin"} {
		cmd.MarkFlagsMutuallyExclusive("config", name)
	}
	addChoice(cmd, &format, "output", "o", "how to print: yaml or json", "yaml", "json")
	return cmd
}

// showRunning shows what is in force in a running gateway.
func showRunning(cmd *cobra.Command, r *remote, format string) error {
	return r.ask(cmd, func(ctx context.Context, c adminv1connect.AdminServiceClient) error {
		shown, err := c.GetConfiguration(ctx, &adminv1.GetConfigurationRequest{Json: format == "json"})
		if err != nil {
			return err
		}
		if format == "json" {
			if shown.GetJson() == "" {
				return &ending{exitUnknown, errors.New("the gateway is an older one, which shows YAML alone; leave --output out")}
			}
			as := output{format}
			return as.print(cmd.OutOrStdout(), json.RawMessage(shown.GetJson()), "")
		}
		for line := range strings.Lines(shown.GetYaml()) {
			line = strings.TrimSuffix(line, "\n")
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), printableText(line)); err != nil {
				return &ending{exitUnknown, fmt.Errorf("standard output: %w", err)}
			}
		}
		return nil
	})
}
