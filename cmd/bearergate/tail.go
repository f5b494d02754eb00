package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/bearergate/bearergate/gate"
	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
	"github.com/bearergate/bearergate/proto/bearergate/admin/v1/adminv1connect"
)

func newTailCommand() *cobra.Command {
	var r remote
	var as output
	var refused bool
	request := &adminv1.TailRequest{}
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Watch what a running gateway decides",
		Long: `Watch what a running gateway decides, one line for each decision, until Ctrl-C. No request waits for who watches: what
comes faster than it can be shown is left out, and standard error says how much that was.

Of a request only what is safe to show is there: no path, no query, and a host as a route of the configuration names
it. The fingerprint is what the log has as token. Flags that are given more than once, or hold a list with commas, mean
any of these; different flags must all fit.

Exit code 0 after Ctrl-C, 3 if the gateway ends it or there is no answer.`,
		Example: `  bearergate tail --refused
  bearergate tail --reason invalid_token,missing_token --policy orders
  bearergate tail --fingerprint 9f2c41d0a7be --output json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if refused {
				if len(request.GetOutcomes()) > 0 {
					return &ending{exitWrong, errors.New("--refused: stands for outcomes; give it or --outcome")}
				}
				request.Outcomes = []string{"unauthorized", "forbidden", "refused", "unavailable"}
			}
			return r.follow(cmd, func(ctx context.Context, c adminv1connect.AdminServiceClient, alive func()) error {
				ctx, cancel := context.WithCancel(ctx)
				stream, err := c.Tail(ctx, request)
				if err != nil {
					cancel()
					return err
				}
				defer stream.Close()
				defer cancel() // first: else to close it could mean to read it to its end
				return showTail(cmd, &as, stream, alive)
			})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&refused, "refused", false, "only requests that are not let through")
	f.StringSliceVar(&request.Outcomes, "outcome", nil, "only these `WORDS`: allow, unauthorized, forbidden, refused, unavailable")
	f.StringSliceVar(&request.Reasons, "reason", nil, "only these reasons, `WORDS` as in the log")
	f.StringSliceVar(&request.Policies, "policy", nil, "only policies of these `NAMES`")
	f.StringSliceVar(&request.Listeners, "listener", nil, "only listeners of these `NAMES`")
	f.StringSliceVar(&request.Fingerprints, "fingerprint", nil, "only tokens of these fingerprints, `WORDS` of 12 hexadecimal digits; none for requests without a token")
	f.StringSliceVar(&request.Clients, "client", nil, "only requests from these `ADDRESSES` or networks, as the edge says")
	must(cmd.RegisterFlagCompletionFunc("outcome", cobra.FixedCompletions(outcomes(), cobra.ShellCompDirectiveNoFileComp)))
	must(cmd.RegisterFlagCompletionFunc("reason", cobra.FixedCompletions(reasons(), cobra.ShellCompDirectiveNoFileComp)))
	r.flags(cmd)
	as.flag(cmd)
	return cmd
}

func outcomes() []string {
	var words []string
	for _, o := range []gate.Outcome{gate.Allow, gate.Unauthorized, gate.Forbidden, gate.Refused, gate.Unavailable} {
		words = append(words, o.String())
	}
	return words
}

func reasons() []string {
	var words []string
	for reason := range gate.Reason(gate.Reasons) {
		words = append(words, reason.String())
	}
	return words
}

// showTail writes decisions until there are no more.
func showTail(cmd *cobra.Command, as *output, stream adminv1connect.AdminServiceTailClientStream, alive func()) error {
	w := cmd.OutOrStdout()
	colour := wantsColour(w)
	var missed uint64
	for {
		response, err := stream.Receive()
		if err != nil {
			return err
		}
		alive()
		for _, d := range response.GetDecisions() {
			if err := as.printDecision(w, d, colour); err != nil {
				return err
			}
		}
		if more := response.GetMissed() - missed; more > 0 {
			missed = response.GetMissed()
			fmt.Fprintf(cmd.ErrOrStderr(), "bearergate: %d decisions were left out here, because they came too fast; %d in all\n", more, missed)
		}
	}
}

// printDecision writes a line.
func (o *output) printDecision(w io.Writer, d *adminv1.Decision, colour bool) error {
	line := decisionText(d, colour)
	if o.format == "json" {
		value, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(d)
		if err != nil {
			return &ending{exitUnknown, err}
		}
		line = string(value)
	}
	if _, err := fmt.Fprintln(w, line); err != nil {
		return &ending{exitUnknown, fmt.Errorf("standard output: %w", err)}
	}
	return nil
}

// The colours of outcomes.
const (
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	red    = "\x1b[31m"
	faint  = "\x1b[2m"
	plain  = "\x1b[0m"
)

func colourOf(d *adminv1.Decision) string {
	switch {
	case d.GetShadow():
		return yellow
	case d.GetOutcome() == gate.Allow.String():
		return green
	case d.GetOutcome() == gate.Unavailable.String():
		return red
	default:
		return yellow
	}
}

func decisionText(d *adminv1.Decision, colour bool) string {
	var b strings.Builder
	paint := func(code, text string) {
		if colour {
			text = code + text + plain
		}
		b.WriteString(text)
	}
	paint(faint, d.GetAt().AsTime().Local().Format("15:04:05.000"))
	b.WriteString("  ")
	outcome := d.GetOutcome()
	if d.GetShadow() {
		outcome = "shadow" // it is let through, and would not be
	}
	paint(colourOf(d), fmt.Sprintf("%-12s %-20s", printable(outcome), printable(d.GetReason())))
	fmt.Fprintf(&b, "  %-12s  %s", printable(d.GetFingerprint()), printable(d.GetListener()))
	fmt.Fprintf(&b, " %s", printable(d.GetPolicy()))
	for _, text := range []string{d.GetMethod(), d.GetHost()} {
		if text != "" {
			b.WriteString(" " + printable(text))
		}
	}
	for _, field := range []struct{ name, value string }{
		{"client", d.GetClient()}, {"source", d.GetSource()}, {"id", d.GetRequestId()}, {"took", tookText(d)},
	} {
		if field.value != "" {
			b.WriteString(" ")
			paint(faint, field.name+"="+printable(field.value))
		}
	}
	if d.GetDetail() != "" {
		b.WriteString(": " + printable(d.GetDetail()))
	}
	return b.String()
}

func tookText(d *adminv1.Decision) string {
	if d.GetTook() == nil {
		return ""
	}
	took := d.GetTook().AsDuration()
	if took > time.Millisecond {
		return took.Round(10 * time.Microsecond).String()
	}
	return took.String()
}
