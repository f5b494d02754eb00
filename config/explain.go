package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/policy"
	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
)

// Explanation says what is known of a request before anybody looks at its token:
// the policy that it falls under, and what that asks.
type Explanation struct {
	// Refused is why the request falls under no policy, and Reason the word for it;
	// nil if it falls under one.
	Refused error
	Reason  gate.Reason

	// Policy is the policy's name, and Asks the policy as it was written.
	Policy string
	Asks   *configv1.Policy
	// Routes are those that match, the most specific one first. That one decides,
	// unless the edge names the policy.
	Routes []Match
	// Verifiers are asked about the token: the first that is for it. There are none
	// if the policy is public.
	Verifiers []*configv1.Verifier
	// Requires says in words what the request has to meet besides.
	Requires []string
	// Warning says what of that can hardly be meant; "" if nothing.
	Warning string
	// Shadow is when the policy begins to be enforced; the zero time if it has no
	// shadow.
	Shadow time.Time
}

// Match is a route that matches a request.
type Match struct {
	// Route is its index in the file.
	Route int
	// Policy is the name of the policy that it leads to.
	Policy string
	// Says is what the route matches, in words; of its hosts only the one that counts.
	Says string
	// Behind says by what the first route comes before this one: host, path or
	// methods. It is "" for the first, and for one that is equal to it.
	Behind string
}

// errNoListener is about a listener that answers no proxy.
var errNoListener = errors.New("there is no such listener for proxies; write ext_authz, auth_request, or a name of listeners.more")

// errNobodyBelieves is about an edge whose word is not taken.
var errNobodyBelieves = errors.New("no listener lets the edge name a policy; write trust.policy in the auth_request listener, or leave the name out")

// Explain says under which policy of a configuration that [Load] or [Parse] returned
// a request falls at a listener, and what that asks. Without a listener's name it is
// one that serves all policies. An error means that no edge can put the question so.
// It asks nobody.
func Explain(c *configv1.Config, listener string, f policy.Facts) (*Explanation, error) {
	doors := entries(c.GetListeners())
	here := entry{fields: &configv1.ExtAuthz{}}
	if listener != "" {
		i := slices.IndexFunc(doors, func(e entry) bool { return e.name == listener && e.kind != Admin })
		if i < 0 {
			return nil, errNoListener
		}
		here, doors = doors[i], doors[i:i+1]
	}
	if f.Named && !slices.ContainsFunc(doors, believesNames) {
		return nil, errNobodyBelieves
	}
	made, err := NewPolicies(c)
	if err != nil {
		return nil, err
	}
	router, _, err := made.servedAt(here)
	if err != nil {
		return nil, err
	}
	router.Read(needsAt(made, here)) // else a path that only an expression reads would not be checked
	return made.explain(c, router, f)
}

// explain is [Explain] where a router chooses, whoever may put the question so.
func (p *Policies) explain(c *configv1.Config, router *policy.Router, f policy.Facts) (*Explanation, error) {
	chosen, err := router.Choose(&f)
	if err != nil {
		return &Explanation{Refused: err, Reason: gate.NoPolicy(err)}, nil
	}
	candidates, err := router.Candidates(f)
	if err != nil {
		return nil, err
	}
	index := slices.Index(p.Router.Names(), router.Names()[chosen])
	asks := p.Messages[index]
	e := &Explanation{Policy: p.Router.Names()[index], Asks: asks, Requires: p.Requirements[index].Explain(), Warning: p.claimless(index, c)}
	for i, candidate := range candidates {
		m := Match{
			Route: candidate.Route, Policy: c.GetRoutes()[candidate.Route].GetPolicy(),
			Says: describeRoute(c.GetRoutes()[candidate.Route], candidate.Host),
		}
		if i > 0 {
			m.Behind = policy.Why(candidates[0], candidate)
		}
		e.Routes = append(e.Routes, m)
	}
	if !asks.GetPublic() {
		for _, name := range askedBy(asks, c) {
			e.Verifiers = append(e.Verifiers, verifierNamed(c, name))
		}
	}
	e.Shadow, err = shadowEnd(asks.GetShadow())
	return e, err
}

// Because says line by line why it is this policy. Named says that the edge names it.
func (e *Explanation) Because(named bool) []string {
	var lines []string
	switch {
	case named:
		lines = append(lines, "the edge names it, which comes before all routes")
		for _, r := range e.Routes {
			lines = append(lines, fmt.Sprintf("not looked at: %s (%s), policy %s", item("routes", r.Route), r.Says, r.Policy))
		}
		return lines
	case len(e.Routes) == 0:
		return []string{"no route matches"}
	}
	lines = append(lines, fmt.Sprintf("%s matches: %s", item("routes", e.Routes[0].Route), e.Routes[0].Says))
	for _, r := range e.Routes[1:] {
		switch r.Behind {
		case "":
			lines = append(lines, fmt.Sprintf("as does %s, which is equal", item("routes", r.Route)))
		case "methods":
			lines = append(lines, fmt.Sprintf("its methods come before %s (%s), policy %s", item("routes", r.Route), r.Says, r.Policy))
		default:
			lines = append(lines, fmt.Sprintf("its %s comes before %s (%s), policy %s", r.Behind, item("routes", r.Route), r.Says, r.Policy))
		}
	}
	return lines
}

// believesNames reports whether an edge may name a policy at a listener.
func believesNames(e entry) bool {
	switch l := e.fields.(type) {
	case *configv1.ExtAuthz:
		return true
	case *configv1.AuthRequest:
		return l.GetTrust().GetPolicy() != "none"
	default:
		return false
	}
}

// describeRoute says what a route matches.
func describeRoute(r *configv1.Route, host string) string {
	var says []string
	if host != "" {
		says = append(says, "host "+host)
	}
	switch p := path(r.GetPath()); p.Kind {
	case policy.ExactPath:
		says = append(says, "path "+p.Text)
	case policy.PrefixPath:
		says = append(says, "path "+p.Text+" and below")
	case policy.TemplatePath:
		says = append(says, "path like "+p.Text)
	case policy.AnyPath:
	}
	if len(r.GetMethods()) > 0 {
		says = append(says, "method "+strings.Join(r.GetMethods(), ", "))
	}
	if len(says) == 0 {
		return "everything"
	}
	return strings.Join(says, ", ")
}
