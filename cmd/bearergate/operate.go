package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
	"github.com/bearergate/bearergate/proto/bearergate/admin/v1/adminv1connect"
	"github.com/bearergate/bearergate/verifier"
)

func newStatusCommand() *cobra.Command {
	var r remote
	var as output
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say how a running gateway stands",
		Long: `Say how a running gateway stands: its version and configuration, what came of the last reload, its listeners, and
its verifiers with their breakers and caches.

Exit code 0 if it is ready, 1 if it is not, 3 if there is no answer.`,
		Example: "  bearergate status --admin 127.0.0.1:9190",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.ask(cmd, func(ctx context.Context, c adminv1connect.AdminServiceClient) error {
				s, err := c.Status(ctx, &adminv1.StatusRequest{})
				if err != nil {
					return err
				}
				if err := as.printMessage(cmd, s, statusText(s)); err != nil {
					return err
				}
				if s.GetState() != "ready" {
					return &ending{code: exitNo}
				}
				return nil
			})
		},
	}
	r.flags(cmd)
	as.flag(cmd)
	return cmd
}

// printMessage writes a message as JSON with the names of the definition, or the text.
func (o *output) printMessage(cmd *cobra.Command, m proto.Message, text string) error {
	value, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return &ending{exitUnknown, err}
	}
	return o.print(cmd.OutOrStdout(), json.RawMessage(value), text)
}

func statusText(s *adminv1.StatusResponse) string {
	var b strings.Builder
	line := func(what, format string, args ...any) {
		fmt.Fprintf(&b, "%-14s %s\n", what, fmt.Sprintf(format, args...))
	}
	line("state", "%s, bearergate %s, running for %s", printable(s.GetState()), printable(s.GetVersion()), s.GetUptime().AsDuration().Round(time.Second))
	c := s.GetConfiguration()
	line("configuration", "%s, number %d since the start, in force since %s", printable(c.GetFile()), c.GetGeneration(), clock(c.GetInForceSince().AsTime()))
	if last := c.GetLastReload(); last != nil {
		line("last reload", "%s at %s", printable(last.GetResult()), clock(last.GetAt().AsTime()))
		for _, detail := range details(last) {
			line("", "%s", detail)
		}
	}
	for _, l := range s.GetListeners() {
		over := ""
		if l.GetTls() {
			over = " over TLS"
		}
		line("listener", "%s at %s%s", printable(l.GetName()), printable(l.GetAddress()), over)
	}
	for _, v := range s.GetVerifiers() {
		line("verifier", "%s: breaker %s, %d calls under way, %d waiting, %d shed", printable(v.GetName()), printable(v.GetBreaker()), v.GetCalls(), v.GetCallsWaiting(), v.GetCallsShed())
		line("", "cache: %d of %d good, %d of %d refused; %d misses, %d evicted", v.GetGood().GetEntries(), v.GetGood().GetMost(),
			v.GetRefused().GetEntries(), v.GetRefused().GetMost(), v.GetMisses(), v.GetGood().GetEvicted())
	}
	line("denied", "%d tokens", s.GetDenied())
	if s.GetLogLevel() != "" {
		line("log", "%s and above", printable(s.GetLogLevel()))
	}
	return b.String()
}

// details are what there is to say of a reload besides its result, line by line.
func details(r *adminv1.Reload) (lines []string) {
	for text := range strings.Lines(r.GetError()) {
		lines = append(lines, printable(strings.TrimSuffix(text, "\n")))
	}
	for _, field := range r.GetNeedRestart() {
		lines = append(lines, printable(field)+" is taken only at a start")
	}
	return lines
}

func clock(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func newReloadCommand() *cobra.Command {
	var r remote
	var as output
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Have a running gateway read its configuration again",
		Long: `Have a running gateway read its configuration again, as SIGHUP does, and say what came of it.

Exit code 0 if the file is in force now, 1 if it cannot be used and what was in force stays so, 3 if there is no answer.`,
		Example: "  bearergate reload --admin unix:/run/bearergate/admin.sock",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.ask(cmd, func(ctx context.Context, c adminv1connect.AdminServiceClient) error {
				done, err := c.Reload(ctx, &adminv1.ReloadRequest{})
				if err != nil {
					return err
				}
				last := done.GetReload()
				text := map[string]string{
					"applied": "another configuration is in force\n", "unchanged": "it is the configuration in force\n",
				}[last.GetResult()]
				if text == "" {
					text = "the configuration cannot be used; what was in force stays so\n"
				}
				for _, detail := range details(last) {
					text += "  " + detail + "\n"
				}
				if err := as.printMessage(cmd, last, text); err != nil {
					return err
				}
				if last.GetResult() == "refused" {
					return &ending{code: exitNo}
				}
				return nil
			})
		},
	}
	r.flags(cmd)
	as.flag(cmd)
	return cmd
}

func newForgetCommand() *cobra.Command {
	var r remote
	var as output
	var tokenFile string
	cmd := &cobra.Command{
		Use:   "forget --token-file FILE",
		Short: "Have a running gateway forget what it remembers of a token",
		Long: `Have a running gateway forget what it remembers of a token, so that it asks about it when it comes next. A denial
stays. What an edge keeps of an answer (edge_cache) is not called back.`,
		Example: "  bearergate forget --token-file - <token.txt",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			token, err := readSecret(cmd, "token", tokenFile, "token-file", "")
			if err != nil {
				return &ending{exitWrong, err}
			}
			return r.ask(cmd, func(ctx context.Context, c adminv1connect.AdminServiceClient) error {
				done, err := c.Forget(ctx, &adminv1.ForgetRequest{Token: token})
				if err != nil {
					return err
				}
				return as.printMessage(cmd, done, "forgotten: "+printable(done.GetFingerprint())+"\n")
			})
		},
	}
	r.flags(cmd)
	tokenFlag(cmd, &tokenFile)
	as.flag(cmd)
	return cmd
}

// tokenFlag adds the flag that names the file with a token.
func tokenFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "token-file", "", "a `FILE` with the token; - for standard input")
	must(cmd.MarkFlagFilename("token-file"))
}

func newDenyCommand() *cobra.Command {
	var r remote
	var as output
	var tokenFile, fingerprint, reason string
	var last time.Duration
	var list bool
	cmd := &cobra.Command{
		Use:   "deny (--token-file FILE | --fingerprint WORD) --reason TEXT",
		Short: "Have a running gateway refuse a token from now on",
		Long: `Have a running gateway refuse a token from now on, whatever its verifier says: for as long as --for says, else until
the token's own end if it is a JWT that names one, at most a day; else for 300 s. The fingerprint is what the log has
as token, since the gateway's last start if its configuration has no fingerprint. A restart forgets denials: have
whoever issued the token withdraw it, too. What an edge keeps of an answer (edge_cache) is not called back.

To deny a token again replaces its denial. So with --for 1s one that was a mistake is over.

With --list, say which tokens are denied.`,
		Example: `  bearergate deny --token-file - --reason leaked <token.txt
  bearergate deny --fingerprint 9f2c41d0a7be --reason runaway --for 1h
  bearergate deny --list`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if list {
				return r.ask(cmd, func(ctx context.Context, c adminv1connect.AdminServiceClient) error {
					all, err := c.ListDenials(ctx, &adminv1.ListDenialsRequest{})
					if err != nil {
						return err
					}
					return as.printMessage(cmd, all, denialsText(all))
				})
			}
			request := &adminv1.DenyRequest{Reason: reason}
			if cmd.Flags().Changed("for") {
				if last <= 0 || last > verifier.MaxDenial {
					return &ending{exitWrong, errors.New("--for: give more than 0, and at most 720h")}
				}
				request.Duration = durationpb.New(last)
			}
			switch {
			case reason == "":
				return &ending{exitWrong, errors.New("--reason: say why; it stands in the log and in the list")}
			case fingerprint != "":
				request.Which = &adminv1.DenyRequest_Fingerprint{Fingerprint: fingerprint}
			default:
				token, err := readSecret(cmd, "token", tokenFile, "token-file", "")
				if err != nil {
					return &ending{exitWrong, err}
				}
				request.Which = &adminv1.DenyRequest_Token{Token: token}
			}
			return r.ask(cmd, func(ctx context.Context, c adminv1connect.AdminServiceClient) error {
				done, err := c.Deny(ctx, request)
				if err != nil {
					return err
				}
				d := done.GetDenial()
				return as.printMessage(cmd, d, fmt.Sprintf("denied until %s: %s\n", clock(d.GetUntil().AsTime()), printable(d.GetFingerprint())))
			})
		},
	}
	r.flags(cmd)
	tokenFlag(cmd, &tokenFile)
	f := cmd.Flags()
	f.StringVar(&fingerprint, "fingerprint", "", "the token's fingerprint, a `WORD` of 12 hexadecimal digits")
	f.StringVar(&reason, "reason", "", "why, a `TEXT` of at most 200 bytes for the log; never a token")
	f.DurationVar(&last, "for", 0, "for how long, at most 720h")
	f.BoolVar(&list, "list", false, "say which tokens are denied")
	cmd.MarkFlagsMutuallyExclusive("token-file", "fingerprint", "list")
	cmd.MarkFlagsMutuallyExclusive("reason", "list")
	cmd.MarkFlagsMutuallyExclusive("for", "list")
	as.flag(cmd)
	return cmd
}

func denialsText(all *adminv1.ListDenialsResponse) string {
	var b strings.Builder
	for _, d := range all.GetDenials() {
		fmt.Fprintf(&b, "%s  until %s  %s (%s)\n", printable(d.GetFingerprint()), clock(d.GetUntil().AsTime()), printable(d.GetReason()), printable(d.GetWho()))
	}
	if left := int(all.GetAll()) - len(all.GetDenials()); left > 0 {
		fmt.Fprintf(&b, "and %d more\n", left)
	}
	if all.GetAll() == 0 {
		b.WriteString("no token is denied\n")
	}
	return b.String()
}

func newLogCommand() *cobra.Command {
	var r remote
	var as output
	var level string
	var allowed uint32
	cmd := &cobra.Command{
		Use:   "log [--level WORD] [--allowed-one-in N]",
		Short: "Change what a running gateway logs",
		Long: `Change what a running gateway logs, until another configuration comes into force: the least level that is worth a line,
and of how many allowed requests one gets a line, by chance. What is not given stays as it is; status says the level.`,
		Example: `  bearergate log --level debug
  bearergate log --allowed-one-in 1`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			request := &adminv1.SetLogRequest{Level: level}
			var now []string
			if level != "" {
				now = append(now, "lines of the level "+level+" and above")
			}
			if cmd.Flags().Changed("allowed-one-in") {
				request.Allowed = &adminv1.SetLogRequest_AllowedOneIn{AllowedOneIn: allowed}
				now = append(now, map[bool]string{
					true: "no allowed requests", false: fmt.Sprintf("one in %d allowed requests", allowed),
				}[allowed == 0])
			}
			if len(now) == 0 {
				return &ending{exitWrong, errors.New("give --level, --allowed-one-in, or both")}
			}
			return r.ask(cmd, func(ctx context.Context, c adminv1connect.AdminServiceClient) error {
				done, err := c.SetLog(ctx, request)
				if err != nil {
					return err
				}
				return as.printMessage(cmd, done, "logged from now on: "+strings.Join(now, ", ")+"\n")
			})
		},
	}
	r.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&level, "level", "", "the least level that is logged, a `WORD`: debug, info, warn or error")
	f.Uint32Var(&allowed, "allowed-one-in", 0, "of how many allowed requests one is logged, `N`; 0 for none")
	must(cmd.RegisterFlagCompletionFunc("level", cobra.FixedCompletions([]string{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp)))
	as.flag(cmd)
	return cmd
}

func newBreakerCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "breaker",
		Short:   "Act on the breakers of a running gateway",
		Example: "  bearergate breaker reset --verifier crm",
	}
	cmd.AddCommand(newBreakerResetCommand())
	return onlySubcommands(cmd)
}

func newBreakerResetCommand() *cobra.Command {
	var r remote
	var as output
	var name string
	cmd := &cobra.Command{
		Use:   "reset --verifier NAME",
		Short: "Have a running gateway call a verifier again at once",
		Long: `Have a running gateway call a verifier again at once, though its breaker is open or it asked to be left alone. If it
still gives no answers, the breaker opens again. status says how breakers stand.`,
		Example: "  bearergate breaker reset --verifier crm",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.ask(cmd, func(ctx context.Context, c adminv1connect.AdminServiceClient) error {
				done, err := c.ResetBreaker(ctx, &adminv1.ResetBreakerRequest{Verifier: name})
				if err != nil {
					return err
				}
				return as.printMessage(cmd, done, "called again from now on: "+printable(name)+"\n")
			})
		},
	}
	r.flags(cmd)
	cmd.Flags().StringVar(&name, "verifier", "", "the verifier's `NAME` in the configuration")
	must(cmd.MarkFlagRequired("verifier"))
	as.flag(cmd)
	return cmd
}
