package config

import (
	"context"
	"errors"
	"runtime"
	"strings"

	"github.com/bearergate/bearergate/admin"
	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/policy"
	"github.com/bearergate/bearergate/verifier"
)

// errNoFile is about a configuration that was never a file.
var errNoFile = errors.New("the configuration did not come from a file, so it is not known how it was written")

// configuration shows the one in force as config show does.
func (g *Gateway) configuration() (admin.Shown, error) {
	if r := g.reading.Load(); r != nil {
		return r, nil
	}
	return nil, errNoFile
}

// explain says what a request would get from what decides now.
func (g *Gateway) explain(ctx context.Context, q admin.Question) (*admin.Explanation, error) {
	now := g.deciding.Load()
	// As long as a gate is held, its verifiers stay open: see releaseAfter.
	defer runtime.KeepAlive(now)
	here, decider, err := now.at(q.Listener)
	if err != nil {
		return nil, err
	}
	f, named, notes := facts(decider, &q)
	under, err := now.chosen.explain(now.config, now.routers[here.name], f)
	if err != nil {
		return nil, err
	}
	e := &admin.Explanation{
		Fingerprint: "none", Listener: here.name, Policy: under.Policy, Requires: under.Requires, Unknown: notes,
	}
	switch {
	case under.Refused != nil:
		e.Because = []string{"it falls under no policy: " + under.Refused.Error()}
	case named != "":
		e.Because = []string{named}
	default:
		e.Because = under.Because(f.Named)
	}
	r := gate.Request{Facts: f}
	var token bearer.Token
	if q.Token != "" {
		r.Authorization = []string{headerOf(q.Token)}
		if token, err = decider.Parse(r.Authorization); err != nil {
			e.Fault = err.Error()
		} else {
			e.Fingerprint, e.Form = token.Fingerprint(), "opaque"
			if _, jwt := token.Issuer(); jwt {
				e.Form = "jwt"
			}
			_, e.Expires = token.Times()
			if d, there := g.verifiers.denials.Find(token); there {
				e.Denial = &d
			}
		}
	}
	g.answer(ctx, decider, &q, r, e)
	for _, v := range under.Verifiers {
		for _, name := range []string{v.GetBehind(), v.GetName()} {
			if n := now.verifiers.byName[name]; n != nil {
				e.Remembered = append(e.Remembered, n.remembered(name, token, e.Form != ""))
			}
		}
	}
	return e, nil
}

// at returns a listener for proxies, and what decides there.
func (gen *generation) at(name string) (entry, *gate.Gate, error) {
	for _, e := range entries(gen.config.GetListeners()) {
		if decider := gen.gates[e.name]; decider != nil && (name == "" || name == e.name) {
			return e, decider, nil
		}
	}
	return entry{}, nil, errNoListener
}

// facts are those of the request that a question is about. If it is about none, a
// policy is named for it, and why; what is not known then stands in the notes.
func facts(decider *gate.Gate, q *admin.Question) (f policy.Facts, named string, notes []string) {
	if q.Path != "" {
		f = policy.Facts{Method: q.Method, Host: q.Host, Path: q.Path, Policy: q.Policy, Named: q.Policy != ""}
		f.Path, _, _ = strings.Cut(f.Path, "?")
		if f.Method == "" {
			f.Method = "GET"
		}
		return f, "", nil
	}
	name, named := q.Policy, "it was asked for"
	if name == "" {
		name, named = decider.DefaultPolicy(), "no request was named, so it is the default one"
	}
	var read []string
	needs := decider.Needs()
	for _, fact := range []struct {
		name string
		read bool
	}{{"method", needs.Method}, {"host", needs.Host}, {"path", needs.Path}} {
		if fact.read {
			read = append(read, fact.name)
		}
	}
	if len(read) > 0 {
		notes = append(notes, "which request it is: policies here go by its "+strings.Join(read, ", ")+", and another one may fall under another policy, or meet what it requires; give its URL")
	}
	// What passes every check, and no route names.
	return policy.Facts{Method: "GET", Host: "unknown.invalid", Path: "/", Policy: name, Named: true}, named, notes
}

// headerOf is the value of the header that a token was sent in: the text itself if it
// is one already.
func headerOf(text string) string {
	const name = "authorization:"
	if len(text) > len(name) && strings.EqualFold(text[:len(name)], name) {
		return strings.TrimSpace(text[len(name):])
	}
	if strings.ContainsAny(text, " \t") {
		return text
	}
	return "Bearer " + text
}

// denied is a Verifier that finds every token denied.
type denied struct{}

// Verify implements [verifier.Verifier].
func (denied) Verify(context.Context, bearer.Token) (verifier.Verdict, error) {
	return verifier.Verdict{Source: verifier.FromDenial}, nil
}

// unasked peeks, and notes if somebody would have to be asked.
type unasked struct {
	peek  verifier.Verifier
	would *bool
}

// Verify implements [verifier.Verifier].
func (u unasked) Verify(ctx context.Context, t bearer.Token) (verifier.Verdict, error) {
	v, err := u.peek.Verify(ctx, t)
	*u.would = *u.would || errors.Is(err, verifier.ErrUnasked)
	return v, err
}

// answer finds out what the request gets.
func (g *Gateway) answer(ctx context.Context, decider *gate.Gate, q *admin.Question, r gate.Request, e *admin.Explanation) {
	var by func(verifier.Verifier) verifier.Verifier
	switch {
	case q.Token == "" && !q.Denied:
		return
	case q.Token == "":
		r.Authorization = []string{"Bearer x"} // which nobody reads: all are denied
		by = func(verifier.Verifier) verifier.Verifier { return denied{} }
	case !q.Ask:
		by = func(v verifier.Verifier) verifier.Verifier { return unasked{verifier.Peek(v), &e.Unasked} }
	}
	answer := decider.DecideAside(ctx, r, by)
	e.Answer = &answer
}

// remembered is what is remembered of a token by a verifier, if there is a token.
func (n *named) remembered(name string, t bearer.Token, there bool) admin.Remembered {
	r := admin.Remembered{Verifier: name, Breaker: n.stages.Guard().Breaker}
	if there {
		seen := n.cache.Look(t)
		r.Seen = &seen
	}
	return r
}
