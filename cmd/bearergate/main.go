// Command bearergate checks the Bearer tokens of requests for an edge proxy. Run
// "bearergate help" for what it can do.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
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
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitGood
	}
	code := exitWrong // what cobra itself finds is wrong use
	if ending, ok := errors.AsType[*ending](err); ok {
		code = ending.code
	}
	if text := err.Error(); text != "" {
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
		Args:          cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_ = cmd.Help()
			return &ending{code: exitWrong}
		},
	}
	root.AddCommand(
		newServeCommand(),
		newQuickstartCommand(),
		newEmulateCommand(),
		newTokenCommand(),
		newVerifyCommand(),
		newConfigCommand(),
		newVersionCommand(),
	)
	return root
}
