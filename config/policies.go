package config

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/bearergate/bearergate/authrequest"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/listen"
	"github.com/bearergate/bearergate/policy"
	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
	"github.com/bearergate/bearergate/verifier"
)

// Policies are the policies and routes of a configuration, made ready: what a
// request falls under, and what it needs.
type Policies struct {
	// Router chooses the policy.
	Router *policy.Router
	// Requirements are what each policy requires, by its index; nil if nothing.
	Requirements []*policy.Requirement
	// Messages are the policies as they were written, by index; the first is the
	// default one.
	Messages []*configv1.Policy
}

// NewPolicies makes the policies of a configuration that [Load] or [Parse] returned.
func NewPolicies(c *configv1.Config) (*Policies, error) {
	p, found := compilePolicies(c)
	if len(found) > 0 {
		return nil, errors.New(found[0].path + " " + found[0].text)
	}
	return p, nil
}

// servedAt returns what chooses between the policies that a listener serves, and
// their indexes among all; nil if it serves all of them.
func (p *Policies) servedAt(e entry) (*policy.Router, []int, error) {
	names := e.served(p.Router.Names())
	if names == nil {
		return p.Router, nil, nil
	}
	router, err := p.Router.Serving(names)
	if err != nil {
		return nil, nil, fmt.Errorf("%s.policies: %w", e.path, err)
	}
	served := make([]int, len(names))
	for i, name := range names {
		served[i] = slices.Index(p.Router.Names(), name)
	}
	return router, served, nil
}

// policyNames returns the names of all policies, by their index.
func policyNames(c *configv1.Config) []string {
	names := []string{policy.DefaultName}
	for _, p := range c.GetPolicies() {
		names = append(names, p.GetName())
	}
	return names
}

// policyPath is where a policy stands in the file.
func policyPath(index int) string {
	if index == policy.Default {
		return "default_policy"
	}
	return item("policies", index-1)
}

// compilePolicies makes routes and requirements ready, with all that is wrong.
func compilePolicies(c *configv1.Config) (*Policies, []finding) {
	var found []finding
	made := &Policies{Messages: append([]*configv1.Policy{c.GetDefaultPolicy()}, c.GetPolicies()...)}
	for i, p := range made.Messages {
		requirement, err := policy.NewRequirement(rules(p.GetRequire()))
		for _, mistake := range mistakesOf(err) {
			found = append(found, finding{path: policyPath(i) + ".require." + mistake.Field, text: mistake.Text, bare: mistake.Field == "expression"})
		}
		made.Requirements = append(made.Requirements, requirement)
	}
	routes := make([]policy.Route, len(c.GetRoutes()))
	for i, r := range c.GetRoutes() {
		routes[i] = policy.Route{Hosts: r.GetHosts(), Path: path(r.GetPath()), Methods: r.GetMethods(), Policy: r.GetPolicy()}
	}
	var err error
	made.Router, err = policy.NewRouter(policyNames(c), routes)
	mistakes, _ := errors.AsType[policy.Mistakes](err)
	for _, mistake := range mistakes {
		at := item("routes", mistake.Route)
		if mistake.Field != "" {
			at += "." + mistake.Field
		}
		found = append(found, finding{path: at, text: mistake.Text, bare: mistake.Field == "path", unless: []string{at}})
	}
	return made, found
}

// mistakesOf returns the mistakes that an error of NewRequirement is made of.
func mistakesOf(err error) []*policy.RuleMistake {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	var mistakes []*policy.RuleMistake
	for _, err := range joined.Unwrap() {
		if mistake, ok := errors.AsType[*policy.RuleMistake](err); ok {
			mistakes = append(mistakes, mistake)
		}
	}
	return mistakes
}

func path(p *configv1.PathMatch) policy.Path {
	switch {
	case p.GetExact() != "":
		return policy.Path{Kind: policy.ExactPath, Text: p.GetExact()}
	case p.GetPrefix() != "":
		return policy.Path{Kind: policy.PrefixPath, Text: p.GetPrefix()}
	case p.GetTemplate() != "":
		return policy.Path{Kind: policy.TemplatePath, Text: p.GetTemplate()}
	default:
		return policy.Path{}
	}
}

func rules(r *configv1.Require) policy.Rules {
	rules := policy.Rules{
		AllScopes: r.GetScopes().GetAll(), AnyScopes: r.GetScopes().GetAny(),
		Audience: r.GetAudience(), MaxAge: r.GetMaxTokenAge().AsDuration(), Expression: r.GetExpression(),
	}
	for _, c := range r.GetClaims() {
		rules.Claims = append(rules.Claims, policy.ClaimRule{Path: c.GetPath(), Equal: c.GetEquals(), Contains: c.GetContains(), OneOf: c.GetOneOf()})
	}
	return rules
}

// checkPolicies sees that policies can be obeyed, and that the listeners can choose
// between them. It returns them, made ready as far as they can be.
func checkPolicies(c *configv1.Config, around surroundings) (*Policies, []finding) {
	made, found := compilePolicies(c)
	seen := map[string]bool{policy.DefaultName: true}
	var asking []*configv1.Policy
	for i, p := range made.Messages {
		at := policyPath(i)
		found = append(found, checkPolicy(at, p, c.GetCache())...)
		if !p.GetPublic() || i == policy.Default {
			found = append(found, checkAsked(at, p, c)...)
			asking = append(asking, p)
		}
		found = append(found, checkKind(at, p, made.Requirements[i], c)...)
		switch name := p.GetName(); {
		case i == policy.Default && name != "":
			found = append(found, finding{path: at + ".name", text: "cannot be chosen; the name of this policy is default, take the line out"})
		case i == policy.Default:
		case name == "":
			found = append(found, finding{path: at + ".name", text: "is missing; write a short name, for example partners"})
		case !isName(name):
			found = append(found, finding{path: at + ".name", text: "is no name; write 1 to 63 lower case letters, digits, - and _, the first one a letter or a digit"})
		case seen[name]:
			found = append(found, finding{path: at + ".name", text: "is the name of another policy; give each its own, and none of them default"})
		default:
			seen[name] = true
		}
	}
	found = append(found, checkNobodyAsks(c, asking...)...)
	for _, e := range entries(c.GetListeners()) {
		wrong := checkServed(&e, made, c)
		found = append(found, wrong...)
		if l, ok := e.fields.(*configv1.AuthRequest); ok && len(wrong) == 0 {
			found = append(found, checkTrust(e.path+".trust", l.GetTrust(), needsAt(made, e), around)...)
			found = append(found, checkTrustNames(e.path+".trust.client_names", l)...)
		}
	}
	return made, found
}

// checkServed sees that a listener can serve the policies that it names.
func checkServed(e *entry, made *Policies, c *configv1.Config) []finding {
	l, ok := e.fields.(faces)
	if !ok {
		return nil
	}
	var found []finding
	names := policyNames(c)
	const unknown = "is no policy; write default, or the name of one in policies" // no names: they may come from the environment
	for i, name := range l.GetPolicies() {
		switch at := item(e.path+".policies", i); {
		case !slices.Contains(names, name):
			found = append(found, finding{path: at, text: unknown, unless: []string{"policies"}})
		case slices.Index(l.GetPolicies(), name) < i:
			found = append(found, finding{path: at, text: "is there twice; keep one"})
		}
	}
	switch i := slices.Index(names, l.GetDefaultPolicy()); {
	case l.GetDefaultPolicy() == "":
	case i < 0:
		found = append(found, finding{path: e.path + ".default_policy", text: unknown, unless: []string{"policies"}})
	case made.Messages[i].GetPublic():
		found = append(found, finding{path: e.path + ".default_policy", text: "is public, which would open everything that no route names; write one that is not, and routes to that"})
	}
	return found
}

// checkKind sees that a policy does not ask for things that exclude one another.
func checkKind(at string, p *configv1.Policy, requirement *policy.Requirement, c *configv1.Config) []finding {
	var found []finding
	if p.GetPublic() {
		if at == policyPath(policy.Default) {
			found = append(found, finding{path: at + ".public", text: "would open everything that no route names; make a policy that is public, and routes to it", bare: true})
		}
		for _, excluded := range []struct {
			field string
			set   bool
		}{
			{"require", p.GetRequire() != nil},
			{"shadow", p.GetShadow() != nil},
			{"preflight", p.GetPreflight() == "allow"},
			{"verifiers", len(p.GetVerifiers()) > 0},
			{"identity", len(p.GetIdentity()) > 0},
			{"edge_cache", p.GetEdgeCache().AsDuration() > 0},
			{"metadata", p.GetMetadata() != nil},
			{"refusal", p.GetRefusal() != nil},
		} {
			if excluded.set {
				found = append(found, finding{path: at + "." + excluded.field, text: "has no effect in a policy that is public, which looks at no token; take it out", bare: true})
			}
		}
	}
	if p.GetShadow().GetUntil() != "" {
		if _, err := shadowEnd(p.GetShadow()); err != nil {
			found = append(found, finding{path: at + ".shadow.until", text: err.Error()})
		}
	}
	given := slices.ContainsFunc(askedBy(p, c), func(name string) bool { return givesClaims(verifierNamed(c, name)) })
	if !p.GetPublic() && !given {
		for _, field := range claimFields(p) {
			found = append(found, finding{
				path: at + "." + field, bare: true, unless: []string{"verifiers", at + ".verifiers"},
				text: "needs claims, and the policy's verifiers give none: verifytoken says only whether a token is good; take it out, or ask a jwt or introspection verifier",
			})
		}
	}
	if requirement.NeedsClaims() && !given {
		found = append(found, finding{
			path: at + ".require", bare: true, unless: []string{"verifiers", at + ".verifiers"},
			text: "needs claims, and the policy's verifiers give none: verifytoken says only whether a token is good; take out what needs claims, or ask a jwt or introspection verifier",
		})
	}
	return found
}

// claimFields names the fields by which a policy tells of claims.
func claimFields(p *configv1.Policy) []string {
	var fields []string
	for i, h := range p.GetIdentity() {
		if len(h.GetClaim()) > 0 {
			fields = append(fields, item("identity", i)+".claim")
		}
	}
	if len(p.GetMetadata().GetClaims()) > 0 {
		fields = append(fields, "metadata.claims")
	}
	return fields
}

// givesClaims reports whether a verifier says more of a token than that it is good.
// One behind a jwt verifier has the claims of the token.
func givesClaims(v *configv1.Verifier) bool { return v.GetVerifytoken() == nil || v.GetBehind() != "" }

// shadowEnd is when a policy begins to be enforced; the zero time if it is already.
func shadowEnd(s *configv1.Shadow) (time.Time, error) {
	if s == nil {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if end, err := time.Parse(layout, s.GetUntil()); err == nil {
			return end, nil
		}
	}
	return time.Time{}, errors.New("is no day and no time; write for example 2027-01-31 or 2027-01-31T12:00:00Z")
}

// isName holds a name against the rule of names in config.proto.
func isName(name string) bool {
	good := func(c rune) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' }
	return len(name) <= 63 && name[0] != '-' && name[0] != '_' && !strings.ContainsFunc(name, func(c rune) bool { return !good(c) })
}

// checkTrust sees that an HTTP listener can choose between policies.
func checkTrust(at string, t *configv1.Trust, needs policy.Needs, around surroundings) []finding {
	var found []finding
	var reads []string
	if t.GetOriginal() == "none" {
		for _, fact := range []struct {
			name string
			read bool
		}{{"host", needs.Host}, {"path", needs.Path}, {"method", needs.Method}} {
			if fact.read {
				reads = append(reads, fact.name)
			}
		}
	}
	if len(reads) > 0 {
		found = append(found, finding{
			path: at + ".original", bare: true,
			text: fmt.Sprintf("believes nobody, but policies go by the %s of a request, which here only the edge can say; write x-original, x-forwarded or as-asked, whichever the edge sets on every request",
				strings.Join(reads, ", ")),
		})
	}
	if t.GetOriginal() == "as-asked" && t.GetPolicy() == "path" {
		found = append(found, finding{path: at + ".policy", text: "cannot be together with original: as-asked, by which that path is the client's; write header or none"})
	}
	if secret := t.GetSecret(); secret != nil {
		found = append(found, checkShared(at+".secret", "secret", secret, around)...)
	}
	for i, text := range t.GetPeers() {
		if _, err := peer(text); err != nil {
			found = append(found, finding{path: item(at+".peers", i), text: "is neither an IP address nor a network; write for example 192.0.2.7 or 10.0.0.0/8"})
		}
	}
	return found
}

// checkTrustNames sees that a connection can have a certificate with the names of edges.
func checkTrustNames(at string, l *configv1.AuthRequest) []finding {
	var found []finding
	for i, name := range l.GetTrust().GetClientNames() {
		if text := checkClientName(name); text != "" {
			found = append(found, finding{path: item(at, i), text: text})
		}
	}
	if len(l.GetTrust().GetClientNames()) > 0 && l.GetTls().GetClientCaFile() == "" {
		found = append(found, finding{path: at, text: "needs tls.client_ca_file in this listener; add it, no client certificate is asked for else", bare: true})
	}
	return found
}

// needsAt says which facts the policies read that a listener serves.
func needsAt(made *Policies, e entry) policy.Needs {
	if made.Router == nil { // its mistakes are reported
		return needsOf(made)
	}
	router, served, err := made.servedAt(e)
	if err != nil || served == nil {
		return needsOf(made)
	}
	here := &Policies{Router: router}
	for _, i := range served {
		here.Requirements = append(here.Requirements, made.Requirements[i])
		here.Messages = append(here.Messages, made.Messages[i])
	}
	return needsOf(here)
}

// needsOf says which facts the policies of a configuration read.
func needsOf(made *Policies) policy.Needs {
	var needs policy.Needs
	if made.Router != nil {
		needs = made.Router.Needs()
	}
	for i, r := range made.Requirements {
		needs = needs.Or(r.Needs())
		needs.Method = needs.Method || made.Messages[i].GetPreflight() == "allow"
	}
	return needs
}

// checkShared sees that what edges or operators show is there, and is good for that.
func checkShared(at, called string, secret *configv1.Secret, around surroundings) []finding {
	return checkHeld(at, secret, around, func(text string) error {
		if !isSecret(text) {
			return errors.New("holds no good " + called + "; write 16 to 256 printable ASCII characters, without spaces at the ends, where it says")
		}
		return nil
	})
}

// checkHeld sees that a secret is there, and what is wrong with what it holds.
func checkHeld(at string, secret *configv1.Secret, around surroundings, wrongWith func(text string) error) []finding {
	if wrong := checkSecret(at, secret, "", around); len(wrong) > 0 {
		return wrong
	}
	text, err := sharedSecret(secret, around)
	if err != nil {
		return nil // nothing says where it is: the rule in config.proto reports it
	}
	if wrong := wrongWith(text); wrong != nil {
		return []finding{{path: at, text: wrong.Error(), bare: true, unless: []string{at}}}
	}
	return nil
}

// sharedSecret reads what edges or operators are to show.
func sharedSecret(secret *configv1.Secret, around surroundings) (string, error) {
	here := &configv1.Secret{Environment: secret.GetEnvironment(), Credential: secret.GetCredential(), File: secret.GetFile()}
	if here.GetFile() != "" {
		here.File = inFolder(around.folder, here.GetFile())
	}
	text, err := secretSource(here, around.lookup)()
	return string(text), err
}

func isSecret(text string) bool {
	return len(text) >= 16 && len(text) <= 256 && strings.TrimSpace(text) == text && !strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c > '~' })
}

// peer reads an address or a network.
func peer(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	return p.Masked(), err
}

// trust makes what the listener believes.
func trust(t *configv1.Trust) (authrequest.Trust, error) {
	made := authrequest.Trust{
		Original: map[string]authrequest.Original{
			"x-original": authrequest.XOriginal, "x-forwarded": authrequest.XForwarded, "as-asked": authrequest.AsAsked,
		}[t.GetOriginal()],
		Policy: map[string]authrequest.PolicyFrom{
			"path": authrequest.PolicyFromPath, "header": authrequest.PolicyFromHeader,
		}[t.GetPolicy()],
		ClientFrom: map[string]authrequest.ClientFrom{
			"x-real-ip": authrequest.XRealIP, "x-forwarded-for": authrequest.XForwardedFor,
		}[t.GetClient()],
	}
	var err error
	if t.GetSecret() != nil {
		if made.Secret, err = sharedSecret(t.GetSecret(), surroundings{lookup: os.LookupEnv}); err != nil {
			return made, fmt.Errorf("trust.secret %w", err)
		}
		if !isSecret(made.Secret) {
			return made, errors.New("trust.secret holds no good secret")
		}
	}
	if names := t.GetClientNames(); len(names) > 0 {
		made.Client = func(leaf *x509.Certificate) bool { return listen.HasName(leaf, names) }
	}
	for _, text := range t.GetPeers() {
		p, err := peer(text)
		if err != nil {
			return made, fmt.Errorf("trust.peers: %w", err)
		}
		made.Peers = append(made.Peers, p)
	}
	return made, nil
}

// gatePolicies makes the gate's policies.
func gatePolicies(c *configv1.Config, made *Policies, vs *verifiers) ([]gate.Policy, error) {
	names := made.Router.Names()
	policies := make([]gate.Policy, len(made.Messages))
	for i, p := range made.Messages {
		end, err := shadowEnd(p.GetShadow())
		if err != nil {
			return nil, fmt.Errorf("%s.shadow.until: %w", policyPath(i), err)
		}
		var asked verifier.Verifier // nobody, if it is public
		if !p.GetPublic() {
			if asked, err = vs.asked(askedBy(p, c)); err != nil {
				return nil, fmt.Errorf("%s.verifiers: %w", policyPath(i), err)
			}
		}
		policies[i] = gate.Policy{
			Name:        names[i],
			Verifier:    asked,
			Requirement: made.Requirements[i],
			Public:      p.GetPublic(),
			Preflight:   p.GetPreflight() == "allow",
			Shadow:      end,
			Realm:       p.GetRealm(),
			KeepToken:   p.GetForwardToken() == "keep",
			EdgeCache:   p.GetEdgeCache().AsDuration(),
			Identity:    identityHeaders(p),
			Wording:     wording(p.GetRefusal()),
			Metadata:    metadata(p.GetMetadata()),
		}
	}
	return policies, nil
}
