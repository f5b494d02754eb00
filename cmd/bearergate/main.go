// Command bearergate checks the Bearer tokens of requests for an edge proxy. Run
// "bearergate help" for what it can do.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// The exit codes of all subcommands.
const (
	exitGood    = 0 // done, or the answer is yes
	exitNo      = 1 // the answer is no
	exitWrong   = 2 // wrong use or configuration
	exitUnknown = 3 // could not find out
)

func main() {
	// net/http prints what an endpoint sends without being asked to the standard
	// logger, and an endpoint may repeat a token there.
	slog.SetDefault(slog.New(slog.DiscardHandler))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	// After the first signal the next one acts as it does by default: it ends the
	// process at once.
	context.AfterFunc(ctx, stop)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run executes a command line and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitGood
	}
	code, text := exitWrong, err.Error()
	if ending, ok := errors.AsType[*ending](err); ok {
		code = ending.code
	} else { // what cobra itself finds is wrong use
		text += "; see " + cmd.CommandPath() + " --help"
	}
	if text != "" {
		fmt.Fprintf(stderr, "bearergate: %s\n", text)
	}
	return code
}

// ending is an error with an exit code of its own. Without an error in it,
// everything was said already.
type ending struct {
	code int
	err  error
}

func (e *ending) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *ending) Unwrap() error { return e.err }

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "bearergate",
		Short: "Check Bearer tokens for Envoy, nginx and other edge proxies",
		Long: `bearergate stands behind an edge proxy and says of each request whether its Bearer token is good.
It speaks Envoy's gRPC ext_authz and HTTP for nginx auth_request and others, asks the crm-now endpoint
about each token once, and remembers the answer.

Exit codes: 0 good, 1 the answer is no, 2 wrong use or configuration, 3 could not find out.`,
		Example:       "  bearergate quickstart",
		SilenceErrors: true, // run says them
		SilenceUsage:  true,
	}
	root.AddCommand(
		newServeCommand(),
		newQuickstartCommand(),
		newEmulateCommand(),
		newTokenCommand(),
		newVerifyCommand(),
		newExplainCommand(),
		newStatusCommand(),
		newTailCommand(),
		newTopCommand(),
		newForgetCommand(),
		newDenyCommand(),
		newReloadCommand(),
		newLogCommand(),
		newBreakerCommand(),
		newSupportBundleCommand(),
		newConfigCommand(),
		newCompletionCommand(),
		newVersionCommand(),
	)
	root.SetHelpCommand(newHelpCommand())
	return onlySubcommands(root)
}

func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Say how a command is used",
		Example: "  bearergate help config check",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return errNoCommand
			}
			about.InitDefaultHelpFlag() // else it would not stand in the help
			return about.Help()
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var names []string
			if about, rest, err := cmd.Root().Find(args); err == nil && len(rest) == 0 {
				for _, c := range about.Commands() {
					if c.IsAvailableCommand() {
						names = append(names, cobra.CompletionWithDesc(c.Name(), c.Short))
					}
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

var errNoCommand = errors.New("there is no such command")

// onlySubcommands makes cmd one that does nothing without a subcommand.
func onlySubcommands(cmd *cobra.Command) *cobra.Command {
	cmd.SuggestionsMinimumDistance = 2
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return nil
		case len(cmd.SuggestionsFor(args[0])) > 0:
			return fmt.Errorf("%w; did you mean %s?", errNoCommand, strings.Join(cmd.SuggestionsFor(args[0]), " or "))
		default:
			return errNoCommand
		}
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		_ = cmd.Help()
		return &ending{code: exitWrong}
	}
	return cmd
}

// noArguments refuses arguments, and does not repeat them: who does not know the
// flag for a token or a secret puts it there.
func noArguments(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return errors.New("this command takes flags and no arguments")
	}
	return nil
}
