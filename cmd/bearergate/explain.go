package main

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bearergate/bearergate/config"
	"github.com/bearergate/bearergate/policy"
	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
)

func newExplainCommand() *cobra.Command {
	var (
		file, target, listener string
		facts                  policy.Facts
		live                   liveQuestion
		as                     output
	)
	cmd := &cobra.Command{
		Use:   "explain (--config FILE --url URL | --token-file FILE | --fingerprint WORD)",
		Short: "Say what a request gets, and why",
		Long: `With --token-file or --fingerprint, have a running gateway say what a request with that token gets here and now, and
why: what is wrong with the token's form, which policy decides, whether it is denied, what is remembered of it, the
answer as its caller sees it, and what the caller should do, in English and German. Nobody is asked about the token
unless --ask is given. With --url it is about that request, else about one under the listener's default policy or
--policy. Of a fingerprint less is known: see what is said to be not known. The token is never shown, and not kept.

Exit code 0 if the request is let through, or the fingerprint is not denied, 1 if it is refused, 3 if a verifier would
have to be asked, or there is no answer.

With --config, say of a request that an edge might ask about which policy of a configuration it falls under and by which
route, over which other routes, and what that policy asks: who judges the token, what is required besides, what the API
sees. Nobody is asked, no token is read, and nothing is started.

Exit code 0 if a policy was found, 1 if the request would be refused before any policy, 2 for wrong use or a wrong
configuration.

The URL is taken as it stands: a path that may be read in two ways is refused here as it would be by serve. Of the
query nothing is looked at.`,
		Example: `  bearergate explain --token-file - --url https://api.example.com/v1/orders <token.txt
  bearergate explain --fingerprint 9f2c41d0a7be
  bearergate explain --config bearergate.yaml --method POST --url https://api.example.com/v1/orders`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if target != "" {
				if facts.Host, facts.Path, err = splitURL(target); err != nil {
					return &ending{exitWrong, err}
				}
			}
			if facts.Named = cmd.Flags().Changed("policy"); facts.Named && facts.Policy == "" {
				return &ending{exitWrong, errors.New("--policy: is empty; write the name that the edge gives, or leave it out")}
			}
			if file == "" {
				return live.ask(cmd, &as, listener, &facts)
			}
			if target == "" {
				return &ending{exitWrong, errors.New("--url: is missing; with --config it is a request that is explained")}
			}
			c, err := config.Load(file)
			if err != nil {
				return &ending{exitWrong, err}
			}
			e, err := config.Explain(c, listener, facts)
			if err != nil {
				return &ending{exitWrong, fmt.Errorf("%s: %w", file, err)}
			}
			answer := explain(&facts, e, time.Now())
			if err := as.print(cmd.OutOrStdout(), answer, answer.text()); err != nil {
				return err
			}
			if answer.Refused != nil {
				return &ending{code: exitNo}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVarP(&file, "config", "c", "", "explain by this configuration `FILE`, and not by a running gateway")
	must(cmd.MarkFlagFilename("config", "yaml", "yml"))
	f.StringVar(&target, "url", "", "the request's `URL`, as its client sends it")
	f.StringVar(&facts.Method, "method", http.MethodGet, "the request's `METHOD`")
	f.StringVar(&facts.Policy, "policy", "", "the `NAME` of the policy, if the edge names one itself")
	f.StringVar(&listener, "listener", "", "the `NAME` of the listener, if it serves policies of its own")
	live.flags(cmd)
	as.flag(cmd)
	return cmd
}

// splitURL cuts a URL into its authority and its raw path. It does not parse: that
// would clean up what the gateway has to refuse.
func splitURL(url string) (host, path string, err error) {
	rest, tls := strings.CutPrefix(url, "https://")
	rest, plain := strings.CutPrefix(rest, "http://")
	if tls == plain {
		return "", "", errors.New("--url: is no whole URL; write for example https://api.example.com/v1/orders")
	}
	host = rest
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		host, rest = rest[:end], rest[end:]
	} else {
		rest = ""
	}
	if strings.Contains(host, "@") {
		return "", "", errors.New("--url: has a user or a password in front of its host, which no client sends there; take them out")
	}
	path, _, _ = strings.Cut(rest, "?")
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	return host, path, nil
}

// explanation is the answer about a request.
type explanation struct {
	Method  string         `json:"method"`
	Host    string         `json:"host"`
	Path    string         `json:"path"`
	Refused *refusal       `json:"refused,omitempty"` // then there is no more
	Policy  string         `json:"policy,omitempty"`
	By      string         `json:"by,omitempty"` // edge, route, default
	Routes  []matchedRoute `json:"routes,omitempty"`
	Asks    *asks          `json:"asks,omitempty"`

	because []string
}

type refusal struct {
	Status int    `json:"status"`
	Reason string `json:"reason"`
	Detail string `json:"detail"`
}

type matchedRoute struct {
	Route   string `json:"route"` // routes[0]
	Policy  string `json:"policy"`
	Matches string `json:"matches"`
	Behind  string `json:"behind,omitempty"` // host, path, methods
}

type asks struct {
	Public       bool             `json:"public"`
	Verifiers    []askedVerifier  `json:"verifiers"`
	Require      []string         `json:"require"`
	Warning      string           `json:"warning,omitempty"`
	Preflight    string           `json:"preflight"`
	Enforced     bool             `json:"enforced"`
	ShadowUntil  *time.Time       `json:"shadow_until,omitempty"`
	ForwardToken string           `json:"forward_token"`
	Identity     []identityHeader `json:"identity"`
	EdgeCache    string           `json:"edge_cache"`
	Realm        string           `json:"realm"`
}

type askedVerifier struct {
	Name    string   `json:"name"`
	Kind    string   `json:"kind"`   // verifytoken, introspection or jwt
	Tokens  string   `json:"tokens"` // any, opaque or jwt
	Issuers []string `json:"issuers,omitempty"`
	Behind  string   `json:"behind,omitempty"`
}

type identityHeader struct {
	Name  string `json:"name"`
	Holds string `json:"holds"`
}

func explain(f *policy.Facts, e *config.Explanation, now time.Time) *explanation {
	answer := &explanation{Method: f.Method, Host: f.Host, Path: f.Path}
	if e.Refused != nil {
		answer.Refused = &refusal{e.Reason.Outcome().Status(), e.Reason.String(), e.Refused.Error()}
		return answer
	}
	answer.Policy, answer.By, answer.because = e.Policy, "default", e.Because(f.Named)
	switch {
	case f.Named:
		answer.By = "edge"
	case len(e.Routes) > 0:
		answer.By = "route"
	}
	for _, m := range e.Routes {
		answer.Routes = append(answer.Routes, matchedRoute{"routes[" + strconv.Itoa(m.Route) + "]", m.Policy, m.Says, m.Behind})
	}
	p := e.Asks
	answer.Asks = &asks{
		Public: p.GetPublic(), Verifiers: []askedVerifier{}, Require: append([]string{}, e.Requires...), Warning: e.Warning,
		Preflight: p.GetPreflight(), Enforced: !now.Before(e.Shadow), ForwardToken: p.GetForwardToken(),
		Identity: []identityHeader{}, EdgeCache: p.GetEdgeCache().AsDuration().String(), Realm: p.GetRealm(),
	}
	if !e.Shadow.IsZero() {
		answer.Asks.ShadowUntil = new(e.Shadow.UTC())
	}
	for _, v := range e.Verifiers {
		answer.Asks.Verifiers = append(answer.Asks.Verifiers, askedOf(v))
	}
	for _, h := range p.GetIdentity() {
		answer.Asks.Identity = append(answer.Asks.Identity, identityHeader{h.GetName(), holds(h)})
	}
	return answer
}

// holds says what an identity header holds.
func holds(h *configv1.IdentityHeader) string {
	switch {
	case h.GetFingerprint():
		return "the token's fingerprint"
	case len(h.GetClaim()) > 0:
		return "the token's claim " + strings.Join(h.GetClaim(), ".")
	default:
		return h.GetConstant()
	}
}

func askedOf(v *configv1.Verifier) askedVerifier {
	asked := askedVerifier{Name: v.GetName(), Kind: "verifytoken", Tokens: v.GetTokens(), Issuers: v.GetIssuers(), Behind: v.GetBehind()}
	switch {
	case v.GetJwt() != nil:
		asked.Kind, asked.Issuers = "jwt", []string{v.GetJwt().GetIssuer()}
	case v.GetIntrospection() != nil:
		asked.Kind = "introspection"
	}
	return asked
}

// text says the same in words.
func (e *explanation) text() string {
	var b strings.Builder
	line := func(what, format string, args ...any) {
		fmt.Fprintf(&b, "%-13s %s\n", what, fmt.Sprintf(format, args...))
	}
	line("request", "%s %s%s", printable(e.Method), printable(e.Host), printable(e.Path))
	if e.Refused != nil {
		line("refused", "%d, %s: %s", e.Refused.Status, e.Refused.Reason, e.Refused.Detail)
		if e.Refused.Status == http.StatusBadRequest {
			line("", "an HTTP edge is told 403, since nginx makes 500 of a 400")
		}
		line("", "before any policy, so a shadow does not let it through")
		return b.String()
	}
	line("policy", "%s", e.Policy)
	for i, because := range e.because {
		what := "because"
		if i > 0 {
			what = ""
		}
		line(what, "%s", because)
	}
	e.Asks.text(line)
	return b.String()
}

func (a *asks) text(line func(what, format string, args ...any)) {
	if a.Public {
		line("token", "not looked at: the policy is public")
	}
	for i, v := range a.Verifiers {
		what := "token"
		if i > 0 {
			what = ""
		}
		line(what, "%s", v.text())
	}
	for i, rule := range a.Require {
		what := "besides"
		if i > 0 {
			what = ""
		}
		line(what, "%s", rule)
	}
	if a.Warning != "" {
		line("warning", "the policy %s", a.Warning)
	}
	if a.Preflight == "allow" {
		line("preflight", "OPTIONS with Origin and Access-Control-Request-Method passes without a token")
	}
	switch {
	case a.ShadowUntil == nil:
	case a.Enforced:
		line("shadow", "is over since %s: the policy is enforced", a.ShadowUntil.Format(time.RFC3339))
	default:
		line("shadow", "until %s everything is let through, and only counted and logged", a.ShadowUntil.Format(time.RFC3339))
	}
	if a.ForwardToken == "keep" {
		line("the API sees", "the token, if the edge leaves it there")
	} else {
		line("the API sees", "no token")
	}
	for _, h := range a.Identity {
		line("", "%s: %s", h.Name, h.Holds)
	}
	if a.EdgeCache != "0s" {
		line("edge cache", "an edge may keep an allow for %s", a.EdgeCache)
	}
}

func (v *askedVerifier) text() string {
	text := v.Name + " (" + v.Kind + ")"
	if v.Tokens != "any" {
		text += ", for tokens of the form " + v.Tokens
	}
	if len(v.Issuers) > 0 {
		text += ", issued by " + strings.Join(v.Issuers, ", ")
	}
	if v.Behind != "" {
		text += ", after " + v.Behind + " has checked the signature"
	}
	return text
}

// printable quotes a text that would do something to a terminal.
func printable(text string) string {
	if quoted := strconv.Quote(text); quoted != `"`+text+`"` {
		return quoted
	}
	return text
}
