package policy

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/bearergate/bearergate/verifier"
)

// Rules are what a policy requires of a request, besides a good token. What is
// left empty requires nothing; what is said has to be met all together.
type Rules struct {
	// AllScopes are scopes that the token must have, each of them.
	AllScopes []string
	// AnyScopes are scopes of which the token must have one.
	AnyScopes []string
	// Claims are rules about single claims.
	Claims []ClaimRule
	// Audience are the values of which aud must hold one.
	Audience []string
	// MaxAge is how long ago the token may have been issued, by its iat; 0 means any
	// time.
	MaxAge time.Duration
	// Expression is in CEL, and must give true; see [NewRequirement].
	Expression string
}

// ClaimRule is about one claim. Exactly one of Equal, Contains and OneOf is set.
// Values are compared as text: a number as it is written, a boolean as true or
// false.
type ClaimRule struct {
	// Path are the names that lead to the claim, from the outermost object inwards.
	Path []string
	// Equal is what the claim must be.
	Equal string
	// Contains is what a list must hold; a claim that is no list must be that.
	Contains string
	// OneOf are values one of which the claim must be.
	OneOf []string
}

// Requirement is what a policy requires, made ready to judge. A nil *Requirement
// requires nothing. It may be used concurrently.
type Requirement struct {
	rules      Rules
	expression *expression
	unmet      []*Unmet // for each of rules.Claims
	scope      string
	claims     bool
}

// Unmet is why a request does not meet a requirement. It names the rule, and
// nothing of the request or the token.
type Unmet struct{ Rule string } //nolint:errname // it is what the error is, not only how it is called

// Error names the rule.
func (u *Unmet) Error() string { return "not met: " + u.Rule }

// The errors of rules of which there is one each.
var (
	errNoClaims      = &Unmet{"claims, but the verifier gave none"}
	errAllScopes     = &Unmet{"scopes.all"}
	errAnyScopes     = &Unmet{"scopes.any"}
	errAudience      = &Unmet{"audience"}
	errNoIssueTime   = &Unmet{"max_token_age, but the token does not say when it was issued"}
	errTooOld        = &Unmet{"max_token_age"}
	errFromTheFuture = &Unmet{"max_token_age, because the token says that it was issued in the future"}
	errExpression    = &Unmet{"expression"}
	errEvaluation    = &Unmet{"expression, because it failed on this request; a claim may be missing (see has()) or of another type"}
)

// skew is how much the clock of an issuer may be ahead of this one.
const skew = time.Minute

// RuleMistake is what is wrong with a rule.
type RuleMistake struct { //nolint:errname // it is what the error is, not only how it is called
	// Field is the rule, such as scopes.all[0], claims[0] or expression.
	Field string
	// Text says what is wrong, beginning with a verb, and what to write instead.
	Text string
}

// Error says what is wrong.
func (m *RuleMistake) Error() string { return m.Field + " " + m.Text }

// NewRequirement returns a requirement, or nil if the rules require nothing. An
// error is of [RuleMistake]s, joined.
//
// An expression may use the variables request.method, request.host (lower case,
// without port), request.path (decoded, without query), claims and now, and what
// stands in the CEL specification. It must be of type bool. If it fails on a
// request, for example because a claim is missing, it is not met.
func NewRequirement(rules Rules) (*Requirement, error) {
	r := &Requirement{rules: rules, scope: strings.Join(sufficientScope(rules), " ")}
	var wrong []error
	mistake := func(field, text string) { wrong = append(wrong, &RuleMistake{field, text}) }
	checkScopes := func(field string, scopes []string) {
		for i, scope := range scopes {
			if !isScope(scope) {
				mistake(fmt.Sprintf("%s[%d]", field, i), "is no scope; write printable ASCII characters without spaces, quotes and backslashes")
			}
		}
	}
	checkScopes("scopes.all", rules.AllScopes)
	checkScopes("scopes.any", rules.AnyScopes)
	for i, rule := range rules.Claims {
		field := fmt.Sprintf("claims[%d]", i)
		r.unmet = append(r.unmet, &Unmet{field + " (" + strings.Join(rule.Path, ".") + ")"})
		set := 0
		for _, has := range []bool{rule.Equal != "", rule.Contains != "", len(rule.OneOf) > 0} {
			if has {
				set++
			}
		}
		switch {
		case len(rule.Path) == 0 || slices.Contains(rule.Path, ""):
			mistake(field+".path", "does not name a claim; write its name, or the names that lead to it, for example [realm_access, roles]")
		case set != 1:
			mistake(field, "does not say one thing about its claim; write exactly one of equals, contains and one_of, and no empty value")
		case slices.Contains(rule.OneOf, ""):
			mistake(field+".one_of", "has an empty value; take it out")
		}
	}
	if slices.Contains(rules.Audience, "") {
		mistake("audience", "has an empty value; take it out")
	}
	if rules.MaxAge < 0 {
		mistake("max_token_age", "is negative; write a duration, for example 5m")
	}
	if rules.Expression != "" {
		var err error
		if r.expression, err = compileExpression(rules.Expression); err != nil {
			mistake("expression", err.Error())
		}
	}
	if len(wrong) > 0 {
		return nil, errors.Join(wrong...)
	}
	r.claims = len(rules.AllScopes)+len(rules.AnyScopes)+len(rules.Claims)+len(rules.Audience) > 0 || rules.MaxAge > 0 ||
		r.expression != nil && r.expression.claims
	if !r.claims && r.expression == nil {
		return nil, nil
	}
	return r, nil
}

// isScope reports whether a text is a scope-token (RFC 6749 §3.3).
func isScope(text string) bool {
	for i := range len(text) {
		if c := text[i]; c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return text != ""
}

// sufficientScope are scopes with which a token would meet the rules about scopes.
func sufficientScope(rules Rules) []string {
	scopes := slices.Clone(rules.AllScopes)
	if len(rules.AnyScopes) > 0 && !slices.ContainsFunc(rules.AnyScopes, func(s string) bool { return slices.Contains(scopes, s) }) {
		scopes = append(scopes, rules.AnyScopes[0])
	}
	return scopes
}

// Scope is the scope that would suffice, for the challenge (RFC 6750 §3); "" if the
// rules name none.
func (r *Requirement) Scope() string {
	if r == nil {
		return ""
	}
	return r.scope
}

// NeedsClaims reports whether it can only be met by a token with claims.
func (r *Requirement) NeedsClaims() bool { return r != nil && r.claims }

// Needs says which facts it reads.
func (r *Requirement) Needs() Needs {
	if r == nil || r.expression == nil {
		return Needs{}
	}
	return r.expression.needs
}

// Judge returns nil if a request with a good token meets the requirement, else an
// [*Unmet]. The facts are those that [Router.Choose] has accepted. Without an
// expression it allocates nothing.
func (r *Requirement) Judge(f *Facts, claims *verifier.Claims, now time.Time) error {
	if r == nil {
		return nil
	}
	if r.claims && claims == nil {
		return errNoClaims
	}
	for _, scope := range r.rules.AllScopes {
		if !claims.HasScope(scope) {
			return errAllScopes
		}
	}
	if len(r.rules.AnyScopes) > 0 && !slices.ContainsFunc(r.rules.AnyScopes, claims.HasScope) {
		return errAnyScopes
	}
	if len(r.rules.Audience) > 0 && !slices.ContainsFunc(r.rules.Audience, claims.HasAudience) {
		return errAudience
	}
	for i := range r.rules.Claims {
		if !r.rules.Claims[i].met(claims) {
			return r.unmet[i]
		}
	}
	if r.rules.MaxAge > 0 {
		if err := checkAge(claims, r.rules.MaxAge, now); err != nil {
			return err
		}
	}
	if r.expression != nil {
		return r.expression.judge(f, claims, now)
	}
	return nil
}

// Lasts returns for how long at least a request that meets the requirement goes on
// to meet it, if nothing but time changes.
func (r *Requirement) Lasts(claims *verifier.Claims, now time.Time) time.Duration {
	switch {
	case r == nil:
		return math.MaxInt64
	case r.expression != nil && r.expression.now:
		return 0
	case r.rules.MaxAge == 0:
		return math.MaxInt64
	}
	claim, _ := claims.Lookup("iat")
	issued, _ := claim.Time()
	return max(0, r.rules.MaxAge-now.Sub(issued))
}

func checkAge(claims *verifier.Claims, most time.Duration, now time.Time) error {
	claim, _ := claims.Lookup("iat")
	issued, ok := claim.Time()
	switch age := now.Sub(issued); {
	case !ok:
		return errNoIssueTime
	case age > most:
		return errTooOld
	case age < -skew:
		return errFromTheFuture
	default:
		return nil
	}
}

func (c *ClaimRule) met(claims *verifier.Claims) bool {
	claim, ok := claims.Path(c.Path...)
	switch {
	case !ok:
		return false
	case c.Equal != "":
		return isValue(claim, c.Equal)
	case len(c.OneOf) > 0:
		return slices.ContainsFunc(c.OneOf, func(value string) bool { return isValue(claim, value) })
	case claim.Kind() != verifier.List:
		return isValue(claim, c.Contains)
	}
	for value := range claim.Values() {
		if isValue(value, c.Contains) {
			return true
		}
	}
	return false
}

// isValue compares a claim as text.
func isValue(claim verifier.Claim, value string) bool {
	switch claim.Kind() {
	case verifier.Text:
		return claim.Is(value)
	case verifier.Number:
		digits, _ := claim.Digits()
		return digits == value
	case verifier.True:
		return value == "true"
	case verifier.False:
		return value == "false"
	default:
		return false
	}
}

// Explain says in words what a request has to meet, a line for each rule.
func (r *Requirement) Explain() []string {
	if r == nil {
		return nil
	}
	var lines []string
	say := func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) }
	if len(r.rules.AllScopes) > 0 {
		say("the token has each of the scopes: %s", strings.Join(r.rules.AllScopes, ", "))
	}
	if len(r.rules.AnyScopes) > 0 {
		say("the token has one of the scopes: %s", strings.Join(r.rules.AnyScopes, ", "))
	}
	if len(r.rules.Audience) > 0 {
		say("the token's audience (aud) has one of: %s", strings.Join(r.rules.Audience, ", "))
	}
	for _, rule := range r.rules.Claims {
		name := strings.Join(rule.Path, ".")
		switch {
		case rule.Equal != "":
			say("the claim %s is %q", name, rule.Equal)
		case rule.Contains != "":
			say("the claim %s contains %q", name, rule.Contains)
		default:
			say("the claim %s is one of: %s", name, strings.Join(rule.OneOf, ", "))
		}
	}
	if r.rules.MaxAge > 0 {
		say("the token was issued (iat) at most %s ago", r.rules.MaxAge)
	}
	if r.expression != nil {
		say("the expression is true: %s", r.rules.Expression)
	}
	return lines
}
