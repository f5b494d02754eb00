package gate

import (
	"errors"
	"fmt"
	"iter"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bearergate/bearergate/policy"
	"github.com/bearergate/bearergate/verifier"
)

// Policy is what becomes of the requests that fall under it. Verifier, unless it
// is public, and Realm are required.
type Policy struct {
	// Name stands in metrics and metadata; "" is that of the default policy.
	Name string
	// Verifier says whether a token is good.
	Verifier verifier.Verifier
	// Requirement is what is required besides a good token.
	Requirement *policy.Requirement
	// Public lets all requests through, and looks at no token.
	Public bool
	// Preflight lets the questions of browsers through that come before a request to
	// another origin (the CORS preflight), and that carry no token.
	Preflight bool
	// Shadow is until when requests that are refused go through all the same: they are
	// counted and logged alone. The zero time means never.
	Shadow time.Time
	// Realm stands in the challenge: 1 to 128 printable ASCII characters without
	// quotes and backslashes.
	Realm string
	// KeepToken leaves the Authorization header on requests that go on to the API.
	KeepToken bool
	// EdgeCache is how long an edge that keeps answers may use an allow: 0 for not at
	// all, or 1s to verifier.MaxLife.
	EdgeCache time.Duration
	// Identity are the headers that tell the API who is calling, at most MaxIdentity.
	Identity []IdentityHeader
	// Wording says how refusals are worded.
	Wording Wording
	// Metadata are what the edge can log of tokens.
	Metadata Metadata
}

// ruling is a policy, made ready.
type ruling struct {
	Policy

	shown    string          // its name, if there are several policies
	cache    *verifier.Cache // the verifier, if it is one: it is asked in place
	replies  *replies
	keeping  keeping
	removes  []string // from requests with a good token
	removesX []string // from those that are let through without one
	// removesKept are for an edge that keeps an allow, and takes them off before it sets
	// any: a token may leave some of its own out.
	removesKept []string
}

// makePolicies makes the policies ready. Elsewhere are the names of identity headers
// of others.
func (g *Gate) makePolicies(all []Policy, elsewhere []string) error {
	if all[0].Name == "" {
		all[0].Name = policy.DefaultName
	}
	names := make([]string, len(all))
	for i := range all {
		names[i] = all[i].Name
	}
	if len(all) > 1 && g.router == nil || g.router != nil && !slices.Equal(names, g.router.Names()) {
		return fmt.Errorf("gate: the policies are %q, which are not those of the router", names)
	}
	for i := range all {
		p := &ruling{Policy: all[i]}
		if p.Verifier == nil && !p.Public {
			return errors.New("gate: a verifier is needed")
		}
		if p.Public && (p.Requirement != nil || !p.Shadow.IsZero()) {
			return errors.New("gate: a public policy requires nothing, and has nothing to shadow")
		}
		p.cache, _ = p.Verifier.(*verifier.Cache)
		if len(all) > 1 || p.Name != policy.DefaultName {
			p.shown = p.Name
		}
		var err error
		if p.replies, err = newReplies(&p.Policy, p.shown); err != nil {
			return err
		}
		if p.keeping, err = newKeeping(p.EdgeCache); err != nil {
			return err
		}
		g.policies = append(g.policies, p)
		if g.router != nil {
			g.router.Read(p.Requirement.Needs())
			g.router.Read(policy.Needs{Method: p.Preflight})
		}
	}
	g.nameRemoved(elsewhere)
	return nil
}

// nameRemoved finds the headers that an edge takes off allowed requests: the token,
// and identity headers of whatever policy that this one does not set. An API may
// stand behind several policies and believe such a header under any of them.
func (g *Gate) nameRemoved(elsewhere []string) {
	var identity []string
	for _, name := range elsewhere {
		if name = strings.ToLower(name); !slices.Contains(identity, name) {
			identity = append(identity, name)
		}
	}
	for _, p := range g.policies {
		for _, h := range p.Identity {
			if name := strings.ToLower(h.Name); !slices.Contains(identity, name) {
				identity = append(identity, name)
			}
		}
	}
	for _, p := range g.policies {
		if !p.KeepToken {
			p.removes = []string{"authorization"}
		}
		p.removesX = slices.Concat(p.removes, identity)
		for _, name := range identity {
			if !slices.ContainsFunc(p.Identity, func(h IdentityHeader) bool { return strings.EqualFold(h.Name, name) }) {
				p.removes = append(p.removes, name)
			}
		}
		p.removesKept = slices.Concat(p.removes, p.replies.identity.claims())
	}
}

// Policies yields the policies with their indexes.
func (g *Gate) Policies() iter.Seq2[int, *Policy] {
	return func(yield func(int, *Policy) bool) {
		for i, p := range g.policies {
			if !yield(i, &p.Policy) {
				return
			}
		}
	}
}

// Needs says which facts of requests this gate reads.
type Needs struct {
	policy.Needs

	// Preflight: whether the headers of a CORS preflight are there.
	Preflight bool
	// RequestID: the ID of the request, which refusals show.
	RequestID bool
}

// Needs says which facts of a request decisions are made by.
func (g *Gate) Needs() Needs {
	var n Needs
	if g.router != nil {
		n.Needs = g.router.Needs()
	}
	for _, p := range g.policies {
		n.Needs = n.Or(p.Requirement.Needs())
		if p.Preflight {
			n.Preflight, n.Method = true, true
		}
		n.RequestID = n.RequestID || p.replies.wording.personal
	}
	return n
}

// Reply returns the reply that follows from a decision of this gate.
func (g *Gate) Reply(d *Decision) *Reply {
	if d.Policy < 0 || d.Policy >= len(g.policies) {
		return g.policies[policy.Default].replies.plain[InternalError]
	}
	return g.policies[d.Policy].replies.of(d)
}

// Replies yields each reply that is made ahead, with its reason, so that a face
// can put them into its own form once. Others are made when they are needed: a 503
// that names a time of its own, a refusal that names the request, and what tells of
// the token.
func (g *Gate) Replies() iter.Seq2[Reason, *Reply] {
	return func(yield func(Reason, *Reply) bool) {
		for _, p := range g.policies {
			for reason, reply := range p.replies.all() {
				if !yield(reason, reply) {
					return
				}
			}
		}
	}
}

// Allowed returns the reply to a request that a policy lets through with a good
// token, as far as it is the same for all tokens.
func (g *Gate) Allowed(index int) *Reply { return g.policies[index].replies.plain[Valid] }

// Removes names, in lower case, the headers that an edge has to take off a request
// with an allowing decision before it goes on. The list is not to be changed.
func (g *Gate) Removes(d *Decision) []string {
	switch p := g.policies[d.Policy]; {
	case d.Reason != Valid:
		return p.removesX
	case d.own != nil && len(d.own.Absent) > 0:
		return slices.Concat(p.removes, d.own.Absent)
	default:
		return p.removes
	}
}

// RemovesKept names, in lower case, the headers that an edge which keeps an allow has
// to take off each request of that kind, before it sets the identity headers.
func (g *Gate) RemovesKept(d *Decision) []string { return g.policies[d.Policy].removesKept }

// DependsOn returns the facts of a request on which a decision of this gate
// depends, by name.
func (g *Gate) DependsOn() []string {
	facts := []string{factAuthorization}
	n := g.Needs()
	for _, fact := range []struct {
		name string
		read bool
	}{
		{factMethod, n.Method}, {factHost, n.Host}, {factPath, n.Path}, {factPolicy, n.Policy},
	} {
		if fact.read {
			facts = append(facts, fact.name)
		}
	}
	return facts
}

// EdgeCache returns the most that Keep can be in a decision of this gate, in
// whole seconds; 0 means that it always is 0.
func (g *Gate) EdgeCache() time.Duration {
	var most time.Duration
	for _, p := range g.policies {
		most = max(most, p.keeping.most.Truncate(time.Second))
	}
	return most
}

// A request without a good token that is let through gets nothing that an API could
// take for a verdict: no identity, and no word but 200.
func withoutVerdict(name string) *Reply { return &Reply{Status: http.StatusOK, Policy: name} }
