package config

import (
	"strings"

	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
)

// Warning is what a configuration may say and hardly means.
type Warning struct {
	// Field is the path of the field.
	Field string
	// Text says what will happen, and what to write instead.
	Text string
}

// Warnings returns what a configuration that [Load] or [Parse] returned may say and
// hardly means.
func Warnings(c *configv1.Config) []Warning {
	made, err := NewPolicies(c)
	if err != nil {
		return nil // it is no such configuration
	}
	return made.warnings(c)
}

// warnings is [Warnings] for who has the policies of the configuration.
func (p *Policies) warnings(c *configv1.Config) []Warning {
	var warnings []Warning
	for _, e := range entries(c.GetListeners()) {
		l, ok := e.fields.(*configv1.Admin)
		if network, where, err := ParseAddress(e.GetAddress()); ok && err == nil && network == "tcp" && l.GetTls() == nil &&
			l.GetApi().GetCredential() != nil && isElsewhere(where) {
			warnings = append(warnings, Warning{e.path + ".api.credential", "travels in clear to other machines, and with it the tokens that are named to the admin API; add tls"})
		}
	}
	for i := range p.Messages {
		if text := p.claimless(i, c); text != "" {
			warnings = append(warnings, Warning{policyPath(i) + ".require", text})
		}
		for _, field := range claimFields(p.Messages[i]) {
			if silent := p.silent(i, c); silent != "" {
				warnings = append(warnings, Warning{policyPath(i) + "." + field, "needs claims, and " + silent +
					": of tokens that are asked about there nothing is told; take it out of the policy's verifiers, or put it behind a jwt verifier"})
			}
		}
	}
	return warnings
}

// claimless says that tokens of some verifiers of a policy can never have the claims
// that it requires, because these verifiers say nothing of a token but that it is
// good. If none says more, the policy is a mistake and not this.
func (p *Policies) claimless(index int, c *configv1.Config) string {
	silent := p.silent(index, c)
	if silent == "" || !p.Requirements[index].NeedsClaims() {
		return ""
	}
	return "needs claims, and " + silent +
		": what reads a claim is never met by tokens that are asked about there (403, insufficient_scope); take it out of the policy's verifiers, or put it behind a jwt verifier"
}

// silent names the verifiers of a policy that give no claims, with a verb behind; ""
// if there is none.
func (p *Policies) silent(index int, c *configv1.Config) string {
	var silent []string
	for _, name := range askedBy(p.Messages[index], c) {
		for i, v := range c.GetVerifiers() {
			if v.GetName() == name && !givesClaims(v) {
				silent = append(silent, item("verifiers", i))
			}
		}
	}
	if len(silent) == 0 {
		return ""
	}
	// No names: they may come from the environment.
	give := " gives none"
	if len(silent) > 1 {
		give = " give none"
	}
	return strings.Join(silent, ", ") + give
}
