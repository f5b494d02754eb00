package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/policy"
	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
	"github.com/bearergate/bearergate/proto/bearergate/admin/v1/adminv1connect"
)

// liveQuestion is a question about a token to a running gateway.
type liveQuestion struct {
	remote

	tokenFile, fingerprint string
	askVerifier            bool
}

func (q *liveQuestion) flags(cmd *cobra.Command) {
	q.remote.flags(cmd)
	tokenFlag(cmd, &q.tokenFile)
	f := cmd.Flags()
	f.StringVar(&q.fingerprint, "fingerprint", "", "the token's fingerprint, a `WORD` of 12 hexadecimal digits, instead of the token")
	f.BoolVar(&q.askVerifier, "ask", false, "have the verifier asked if nothing is remembered; the gateway's log says who did")
	for _, name := range []string{"token-file", "fingerprint", "ask", "admin"} {
		cmd.MarkFlagsMutuallyExclusive("config", name)
	}
	cmd.MarkFlagsMutuallyExclusive("token-file", "fingerprint")
	cmd.MarkFlagsMutuallyExclusive("ask", "fingerprint")
}

// ask asks a running gateway, and prints what it says.
func (q *liveQuestion) ask(cmd *cobra.Command, as *output, listener string, facts *policy.Facts) error {
	request := &adminv1.ExplainRequest{Listener: listener, Host: facts.Host, Path: facts.Path, Policy: facts.Policy, Ask: q.askVerifier}
	switch {
	case facts.Path != "":
		request.Method = facts.Method
	case cmd.Flags().Changed("method"):
		return &ending{exitWrong, errors.New("--method: belongs to a request; give --url, too")}
	}
	switch {
	case q.fingerprint != "":
		request.Which = &adminv1.ExplainRequest_Fingerprint{Fingerprint: q.fingerprint}
	case q.tokenFile == "":
		return &ending{exitWrong, errors.New("give --token-file FILE (- for standard input) or --fingerprint WORD for what a running gateway says, or --config FILE for what that file says")}
	default:
		token, err := readSecret(cmd, "token", q.tokenFile, "token-file", "")
		if err != nil {
			return &ending{exitWrong, err}
		}
		request.Which = &adminv1.ExplainRequest_Token{Token: token}
	}
	return q.remote.ask(cmd, func(ctx context.Context, c adminv1connect.AdminServiceClient) error {
		e, err := c.Explain(ctx, request)
		if err != nil {
			return err
		}
		if err := as.printMessage(cmd, e, liveText(e, time.Now())); err != nil {
			return err
		}
		switch answer := e.GetAnswer(); {
		case answer == nil, answer.GetKnown() && answer.GetOutcome() == gate.Allow.String():
			return nil
		case answer.GetKnown():
			return &ending{code: exitNo}
		default:
			return &ending{code: exitUnknown}
		}
	})
}

// liveText says in words what a gateway explains.
func liveText(e *adminv1.ExplainResponse, now time.Time) string {
	var b strings.Builder
	line := func(what, format string, args ...any) {
		fmt.Fprintf(&b, "%-13s %s\n", what, fmt.Sprintf(format, args...))
	}
	// each names what the lines are in front of the first.
	each := func(what string, lines []string) {
		for _, text := range lines {
			line(what, "%s", printableText(text))
			what = ""
		}
	}
	token := printable(e.GetFingerprint())
	switch {
	case e.GetFault() != "":
		token = "cannot be read: " + printable(e.GetFault())
	case e.GetForm() != "":
		token += ", " + printable(e.GetForm())
	}
	if e.GetExpires() != nil {
		token += ", says that it ends " + moment(e.GetExpires(), now)
	}
	line("token", "%s", token)
	if d := e.GetDenial(); d != nil {
		line("denied", "until %s: %s (%s)", clock(d.GetUntil().AsTime()), printable(d.GetReason()), printable(d.GetWho()))
	}
	line("listener", "%s", printable(e.GetListener()))
	if e.GetPolicy() != "" {
		line("policy", "%s", printable(e.GetPolicy()))
	}
	each("because", e.GetBecause())
	each("besides", e.GetRequires())
	var remembered []string
	for _, r := range e.GetRemembered() {
		remembered = append(remembered, rememberedText(r, now))
	}
	each("verifier", remembered)
	answerText(e.GetAnswer(), line)
	var lately []string
	for _, d := range e.GetRecent() {
		lately = append(lately, decisionText(d, false))
	}
	if e.GetRefusedLately() > 0 {
		lately = append(lately, fmt.Sprintf("refusals in all, since it is remembered for them: %d", e.GetRefusedLately()))
	}
	for i, text := range lately { // they are safe already
		what := "lately"
		if i > 0 {
			what = ""
		}
		line(what, "%s", text)
	}
	each("not known", e.GetUnknown())
	if a := e.GetAdvice(); a != nil {
		line("what to do", "%s", printableText(a.GetEnglish()))
		line("was zu tun ist", "%s", printableText(a.GetGerman()))
	}
	return b.String()
}

func rememberedText(r *adminv1.Remembered, now time.Time) string {
	text := r.GetVerifier()
	switch r.GetAnswer() {
	case "":
	case "nothing":
		text += ": nothing is remembered"
	case "ended":
		text += ": what was said is used no more"
	default:
		text += ": " + r.GetAnswer()
	}
	if r.GetLearnt() != nil {
		text += ", learnt " + moment(r.GetLearnt(), now) + ", used until " + moment(r.GetUntil(), now)
	}
	if r.GetStaleUntil() != nil {
		text += ", while nobody can tell until " + moment(r.GetStaleUntil(), now)
	}
	if r.GetCallUnderWay() {
		text += ", a call is under way"
	}
	if r.GetWhy() != "" {
		text += "; it found it not good because " + r.GetWhy()
	}
	return text + "; breaker " + r.GetBreaker()
}

func answerText(a *adminv1.Answer, line func(what, format string, args ...any)) {
	switch {
	case a == nil:
		return
	case !a.GetKnown():
		line("answer", "not known: nothing is remembered, so the verifier would be asked; --ask does")
		return
	}
	text := fmt.Sprintf("%d, %s: %s", a.GetStatus(), printable(a.GetOutcome()), printable(a.GetReason()))
	if a.GetSource() != "" {
		text += ", from " + printable(a.GetSource())
	}
	if a.GetShadow() {
		text += ", let through all the same: the policy is in shadow"
	}
	line("answer", "%s", text)
	if a.GetDetail() != "" {
		line("", "%s", printable(a.GetDetail()))
	}
	var rest []string
	for _, h := range a.GetHeader() {
		rest = append(rest, h.GetName()+": "+h.GetValue())
	}
	for body := range strings.Lines(a.GetBody()) {
		rest = append(rest, strings.TrimRight(body, "\r\n"))
	}
	for _, text := range rest {
		line("", "%s", printableText(text))
	}
}

// printableText is a text in which other characters than those that can be seen are
// written out, since they would do something to a terminal.
func printableText(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool { return !strconv.IsPrint(r) || r == utf8.RuneError }) {
		return strconv.Quote(text)
	}
	return text
}

// moment is a time of day, and how far away it is.
func moment(t *timestamppb.Timestamp, now time.Time) string {
	at := t.AsTime()
	if left := at.Sub(now); left > 0 {
		return clock(at) + " (in " + left.Round(time.Second).String() + ")"
	}
	return clock(at) + " (" + now.Sub(at).Round(time.Second).String() + " ago)"
}
