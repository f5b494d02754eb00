package admin

import (
	"context"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/bearergate/bearergate/gate"
	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
	"github.com/bearergate/bearergate/verifier"
)

// Question is about what a request gets.
type Question struct {
	// Token is a bare token, or the value of an Authorization header.
	Token string
	// Denied says that there is only a fingerprint, whose token is denied. Without it
	// and without a token nothing is known of the token.
	Denied bool
	// Listener is the one that is asked; "" for the first one for proxies.
	Listener string
	// Method, Host and Path are the request's; it is known if there is a path.
	Method, Host, Path string
	// Policy is the one that the edge names, or "".
	Policy string
	// Ask has the verifier asked if it has to be.
	Ask bool
}

// Explanation is the answer to a [Question].
type Explanation struct {
	// Fingerprint is the token's, and Fault what is wrong with the credential.
	Fingerprint, Fault string
	// Form is opaque or jwt, and Expires the end that a JWT names.
	Form    string
	Expires time.Time
	// Denial is the one that is in force; nil if there is none.
	Denial *verifier.Denial
	// Listener is who is asked, Policy what decides.
	Listener, Policy string
	// Because says why it is this policy, Requires what it requires.
	Because, Requires []string
	// Remembered is what verifiers remember.
	Remembered []Remembered
	// Answer is what the request gets; nil if nothing is known of the token. It is not
	// meant if a verifier would be asked.
	Answer  *gate.Aside
	Unasked bool
	// Unknown says what is not known, and why.
	Unknown []string
}

// Remembered is what a verifier remembers.
type Remembered struct {
	Verifier string
	Seen     *verifier.Seen // nil without a token
	Breaker  verifier.Breaker
}

// The bounds of a question, besides that of the token.
const (
	maxQuestionField = 256
	maxQuestionPath  = 8 << 10
)

// Explain implements [adminv1connect.AdminServiceHandler].
func (a *api) Explain(ctx context.Context, r *adminv1.ExplainRequest) (*adminv1.ExplainResponse, error) {
	c, err := a.controls()
	if err != nil {
		return nil, err
	}
	for field, value := range map[string]string{"listener": r.GetListener(), "method": r.GetMethod(), "host": r.GetHost(), "policy": r.GetPolicy()} {
		if len(value) > maxQuestionField {
			return nil, connect.Errorf(connect.CodeInvalidArgument, "%s: is longer than %d bytes", field, maxQuestionField)
		}
	}
	if len(r.GetPath()) > maxQuestionPath {
		return nil, connect.Errorf(connect.CodeInvalidArgument, "path: is longer than %d bytes", maxQuestionPath)
	}
	if r.GetPath() == "" && r.GetHost()+r.GetMethod() != "" {
		return nil, connect.NewError(connect.CodeInvalidArgument, "path: is missing; give the request's, / at the least, or leave host and method out")
	}
	q := Question{Listener: r.GetListener(), Method: r.GetMethod(), Host: r.GetHost(), Path: r.GetPath(), Policy: r.GetPolicy(), Ask: r.GetAsk()}
	var mark string
	switch which := r.GetWhich().(type) {
	case *adminv1.ExplainRequest_Token:
		if q.Token = strings.TrimSpace(which.Token); q.Token == "" {
			return nil, connect.NewError(connect.CodeInvalidArgument, "token: is empty")
		}
	case *adminv1.ExplainRequest_Fingerprint:
		var wrong string
		if mark, wrong = fingerprint(which.Fingerprint); wrong != "" || mark == noToken {
			return nil, connect.NewError(connect.CodeInvalidArgument, "fingerprint: is no fingerprint, which has 12 hexadecimal digits, as the log has them")
		}
		if q.Ask {
			return nil, connect.NewError(connect.CodeInvalidArgument, "ask: nobody can be asked about a fingerprint; give the token")
		}
	default:
		return nil, connect.NewError(connect.CodeInvalidArgument, "name the token, or its fingerprint")
	}
	return a.explain(ctx, c, q, mark)
}

const noToken = "none"

// explain answers a question, of which only the fingerprint is known if there is one.
func (a *api) explain(ctx context.Context, c *Controls, q Question, mark string) (*adminv1.ExplainResponse, error) {
	var denial *verifier.Denial
	if mark != "" {
		all := c.Denials.All()
		if i := slices.IndexFunc(all, func(d verifier.Denial) bool { return d.Fingerprint == mark }); i >= 0 {
			denial, q.Denied = &all[i], true
		}
	}
	e, err := c.Explain(ctx, q)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err.Error())
	}
	if mark != "" {
		e.Fingerprint, e.Denial = mark, denial
		e.Unknown = append(e.Unknown, "what verifiers remember of the token: it is found by the token alone, not by its fingerprint")
	}
	if q.Ask {
		a.done(ctx, "explain", attr("token", e.Fingerprint), attr("policy", e.Policy))
	}
	past, refused := c.Recent.Of(e.Fingerprint)
	response := e.message()
	for _, m := range response.GetRemembered() {
		if m.GetAnswer() != "good" {
			m.Why = c.Recent.WhyBy(e.Fingerprint, m.GetVerifier())
		}
	}
	response.RefusedLately = refused
	for _, event := range past {
		response.Recent = append(response.Recent, decisionMessage(event))
	}
	if len(past) == 0 && e.Fingerprint != noToken {
		response.Unknown = append(response.Unknown, "what was decided of it lately: it was not refused, or that is too long ago, or before the start; of allowed requests only one in 64 is noted")
	}
	response.Advice = adviceMessage(e.advised(past))
	return response, nil
}

// advised is the reason about which there is something to do: that of the answer, or
// else of the last refusal.
func (e *Explanation) advised(past []*gate.Event) gate.Reason {
	if e.Answer != nil && !e.Unasked {
		return e.Answer.Reason
	}
	for _, event := range past {
		if event.Reason.Outcome() != gate.Allow {
			return event.Reason
		}
	}
	return gate.Valid
}

func adviceMessage(reason gate.Reason) *adminv1.Advice {
	advice := reason.Advice()
	if advice.English == "" {
		return nil
	}
	return &adminv1.Advice{English: advice.English, German: advice.German}
}

func (e *Explanation) message() *adminv1.ExplainResponse {
	m := &adminv1.ExplainResponse{
		Fingerprint: e.Fingerprint, Fault: e.Fault, Form: e.Form,
		Listener: e.Listener, Policy: e.Policy, Because: e.Because, Requires: e.Requires, Unknown: e.Unknown,
	}
	if !e.Expires.IsZero() {
		m.Expires = timestamppb.New(e.Expires)
	}
	if e.Denial != nil {
		m.Denial = denialMessage(e.Denial)
	}
	for _, r := range e.Remembered {
		m.Remembered = append(m.Remembered, r.message())
	}
	if e.Answer != nil {
		m.Answer = answerMessage(e.Answer, e.Unasked)
	}
	return m
}

func (r *Remembered) message() *adminv1.Remembered {
	m := &adminv1.Remembered{Verifier: r.Verifier, Breaker: r.Breaker.String()}
	if r.Seen == nil {
		return m
	}
	m.Answer, m.CallUnderWay = "nothing", r.Seen.Flying
	if !r.Seen.Known {
		return m
	}
	switch {
	case !r.Seen.InForce(time.Now()):
		m.Answer = "ended"
	case r.Seen.Valid:
		m.Answer = "good"
	default:
		m.Answer = "refused"
	}
	m.Part = "refused"
	if r.Seen.Good {
		m.Part = "good"
	}
	m.Learnt, m.Until = timestamppb.New(r.Seen.Learnt), timestamppb.New(r.Seen.Until)
	if r.Seen.Valid && r.Seen.Stale.After(r.Seen.Until) {
		m.StaleUntil = timestamppb.New(r.Seen.Stale)
	}
	return m
}

func answerMessage(a *gate.Aside, unasked bool) *adminv1.Answer {
	if unasked {
		return &adminv1.Answer{}
	}
	m := &adminv1.Answer{
		Known: true, Reason: a.Reason.String(), Outcome: a.Outcome().String(), Detail: a.Detail, Shadow: a.Shadow,
		Status: uint32(a.Reply.Status), //nolint:gosec // an HTTP status
		Body:   strings.ToValidUTF8(string(a.Reply.Body), "\uFFFD"),
	}
	if a.Reason.HasVerdict() {
		m.Source = a.Source.String()
	}
	for _, h := range a.Reply.Header {
		m.Header = append(m.Header, &adminv1.HeaderLine{Name: h.Name, Value: h.Value})
	}
	return m
}

// GetConfiguration implements [adminv1connect.AdminServiceHandler].
func (a *api) GetConfiguration(_ context.Context, r *adminv1.GetConfigurationRequest) (*adminv1.GetConfigurationResponse, error) {
	c, err := a.controls()
	if err != nil {
		return nil, err
	}
	inForce, err := c.Configuration()
	if err != nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, err.Error())
	}
	response := &adminv1.GetConfigurationResponse{File: a.server.shown.configuration.Load().File}
	write, to := inForce.YAML, &response.Yaml
	if r.GetJson() {
		write, to = inForce.JSON, &response.Json
	}
	text, err := write()
	if err != nil {
		return nil, connect.NewError(connect.CodeInternal, err.Error())
	}
	*to = string(text)
	return response, nil
}
