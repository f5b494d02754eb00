package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// newCompletionCommand stands in for cobra's own, which has no examples.
func newCompletionCommand() *cobra.Command {
	shells := []struct {
		name, example string
		write         func(root *cobra.Command, w io.Writer) error
	}{
		{
			"bash", "  source <(bearergate completion bash)\n  bearergate completion bash > /etc/bash_completion.d/bearergate",
			func(root *cobra.Command, w io.Writer) error { return root.GenBashCompletionV2(w, true) },
		},
		{
			"zsh", "  source <(bearergate completion zsh)\n  bearergate completion zsh > \"${fpath[1]}/_bearergate\"",
			(*cobra.Command).GenZshCompletion,
		},
		{
			"fish", "  bearergate completion fish | source\n  bearergate completion fish > ~/.config/fish/completions/bearergate.fish",
			func(root *cobra.Command, w io.Writer) error { return root.GenFishCompletion(w, true) },
		},
	}
	cmd := &cobra.Command{
		Use:   "completion",
		Short: "Write a script that lets a shell complete commands",
		Long: `Write the script that lets a shell complete commands, flags and their values. The help of each shell says how to load
it, once or for every session. For bash the package bash-completion is needed too.`,
		Example: "  source <(bearergate completion bash)",
	}
	for _, shell := range shells {
		cmd.AddCommand(&cobra.Command{
			Use:     shell.name,
			Short:   "Write the script for " + shell.name,
			Long:    "Write the completion script for " + shell.name + ". The first example is for this session, the second for every one to come.",
			Example: shell.example,
			Args:    noArguments,
			RunE: func(cmd *cobra.Command, _ []string) error {
				if err := shell.write(cmd.Root(), cmd.OutOrStdout()); err != nil {
					return &ending{exitUnknown, fmt.Errorf("standard output: %w", err)}
				}
				return nil
			},
		})
	}
	return onlySubcommands(cmd)
}
