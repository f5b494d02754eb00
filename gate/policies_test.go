package gate_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/policy"
	"github.com/bearergate/bearergate/verifier"
)

// asks is a request with facts and the good token.
func asks(method, path string) gate.Request {
	r := withToken()
	r.Method, r.Host, r.Path = method, "api.example.com", path
	return r
}

func requires(t testing.TB, rules policy.Rules) *policy.Requirement {
	t.Helper()
	r, err := policy.NewRequirement(rules)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func claimsOf(t testing.TB, object string) *verifier.Claims {
	t.Helper()
	claims, err := verifier.ParseClaims([]byte(object))
	if err != nil {
		t.Fatal(err)
	}
	return claims
}

// several makes a gate with policies of these names besides the default one, each
// for the path of its own name and all below.
func several(t testing.TB, v verifier.Verifier, policies []gate.Policy, change ...func(*gate.Options)) *bench {
	t.Helper()
	names, routes := []string{policy.DefaultName}, []policy.Route(nil)
	for i := range policies {
		names = append(names, policies[i].Name)
		routes = append(routes, policy.Route{Policy: policies[i].Name, Path: policy.Path{Kind: policy.PrefixPath, Text: "/" + policies[i].Name}})
		if policies[i].Verifier == nil && !policies[i].Public {
			policies[i].Verifier = v
		}
		if policies[i].Realm == "" {
			policies[i].Realm = "api"
		}
	}
	router, err := policy.NewRouter(names, routes)
	if err != nil {
		t.Fatal(err)
	}
	return newGate(t, v, append(change, func(o *gate.Options) { o.Router, o.Policies = router, policies })...)
}

// TestEachPolicyDecidesInItsOwnWay has a row for each reason that only policies
// give, with the whole reply.
func TestEachPolicyDecidesInItsOwnWay(t *testing.T) {
	claims := claimsOf(t, `{"scope":"orders:read"}`)
	withClaims := says(verifier.Verdict{Valid: true, Claims: claims}, nil)
	policies := func() []gate.Policy {
		return []gate.Policy{
			{Name: "public", Public: true},
			{Name: "web", Preflight: true, Realm: "web"},
			{Name: "orders", Requirement: requires(t, policy.Rules{AllScopes: []string{"orders:read", "orders:write"}})},
			{Name: "read", Requirement: requires(t, policy.Rules{AllScopes: []string{"orders:read"}})},
			{Name: "expression", Requirement: requires(t, policy.Rules{Expression: `request.method == "GET"`})},
			{Name: "broken", Verifier: says(verifier.Verdict{}, io.EOF)},
		}
	}
	forbidden := func(policy, scope string) gate.Reply {
		return gate.Reply{
			Status: 403, Policy: policy, Body: []byte(`{"error":"the token does not allow this"}`),
			Header: []gate.Header{
				{Name: "WWW-Authenticate", Value: `Bearer realm="api", error="insufficient_scope", error_description="the token is good, but not for this"` + scope},
				{Name: "Content-Type", Value: "application/json"},
				{Name: "Cache-Control", Value: "no-store"},
				{Name: "X-Bearergate-Reason", Value: "insufficient_scope"},
			},
		}
	}
	refused := func(reason string) gate.Reply {
		return gate.Reply{
			Status: 400, Policy: "default", Body: []byte(`{"error":"the request is not acceptable: its path, host or method is unclear"}`),
			Header: []gate.Header{
				{Name: "Content-Type", Value: "application/json"},
				{Name: "Cache-Control", Value: "no-store"},
				{Name: "X-Bearergate-Reason", Value: reason},
			},
		}
	}
	missing := func(policy, realm string) gate.Reply {
		return gate.Reply{
			Status: 401, Policy: policy, Body: []byte(`{"error":"missing or invalid auth token"}`),
			Header: []gate.Header{
				{Name: "WWW-Authenticate", Value: `Bearer realm="` + realm + `"`},
				{Name: "Content-Type", Value: "application/json"},
				{Name: "Cache-Control", Value: "no-store"},
				{Name: "X-Bearergate-Reason", Value: "missing_token"},
			},
		}
	}
	unavailable := func(policy, reason string) gate.Reply {
		return gate.Reply{
			Status: 503, Policy: policy, Body: []byte(`{"error":"the token could not be checked, try again later"}`),
			Header: []gate.Header{
				{Name: "Retry-After", Value: "5"},
				{Name: "Content-Type", Value: "application/json"},
				{Name: "Cache-Control", Value: "no-store"},
				{Name: "X-Bearergate-Reason", Value: reason},
			},
		}
	}
	allow := func(policy string) gate.Reply { return gate.Reply{Status: 200, Policy: policy} }
	change := func(r gate.Request, change func(*gate.Request)) gate.Request {
		change(&r)
		return r
	}
	noToken := func(r gate.Request) gate.Request { return change(r, func(r *gate.Request) { r.Authorization = nil }) }
	preflight := func(r gate.Request) gate.Request { return change(r, func(r *gate.Request) { r.Preflight = true }) }
	names := func(r gate.Request, policy string) gate.Request {
		return change(r, func(r *gate.Request) { r.Policy, r.Named = policy, true })
	}
	for name, test := range map[string]struct {
		request gate.Request
		policy  string
		reason  gate.Reason
		want    gate.Reply
	}{
		"the default policy":                        {asks("GET", "/"), "default", gate.Valid, allow("default")},
		"a public path, without a token":            {noToken(asks("GET", "/public/x")), "public", gate.PublicRoute, allow("public")},
		"a public path, with a bad header":          {change(asks("GET", "/public"), func(r *gate.Request) { r.Authorization = []string{"Bearer a b", "x"} }), "public", gate.PublicRoute, allow("public")},
		"a path that only looks public":             {noToken(asks("GET", "/publicx")), "default", gate.MissingToken, missing("default", "api")},
		"a preflight":                               {preflight(noToken(asks("OPTIONS", "/web"))), "web", gate.Preflight, allow("web")},
		"a preflight where none is let through":     {preflight(noToken(asks("OPTIONS", "/read"))), "read", gate.MissingToken, missing("read", "api")},
		"OPTIONS without the headers":               {noToken(asks("OPTIONS", "/web")), "web", gate.MissingToken, missing("web", "web")},
		"the headers with another method":           {preflight(noToken(asks("GET", "/web"))), "web", gate.MissingToken, missing("web", "web")},
		"scopes that are met":                       {asks("GET", "/read"), "read", gate.Valid, allow("read")},
		"scopes that are not met":                   {asks("GET", "/orders"), "orders", gate.InsufficientScope, forbidden("orders", `, scope="orders:read orders:write"`)},
		"an expression that is met":                 {asks("GET", "/expression"), "expression", gate.Valid, allow("expression")},
		"an expression that is not met":             {asks("PUT", "/expression"), "expression", gate.InsufficientScope, forbidden("expression", "")},
		"a verifier of its own":                     {asks("GET", "/broken"), "broken", gate.VerifierUnavailable, unavailable("broken", "verifier_unavailable")},
		"a path with dots":                          {asks("GET", "/public/../orders"), "default", gate.BadPath, refused("bad_path")},
		"a method in small letters":                 {asks("get", "/orders"), "default", gate.BadMethod, refused("bad_method")},
		"a policy that the edge names":              {names(asks("GET", "/public"), "orders"), "orders", gate.InsufficientScope, forbidden("orders", `, scope="orders:read orders:write"`)},
		"a policy that the edge names, and no path": {names(asks("GET", ""), "public"), "default", gate.BadPath, refused("bad_path")},
		"a policy that is not there":                {names(asks("GET", "/public"), "other"), "default", gate.UnknownPolicy, unavailable("default", "unknown_policy")},
		"a policy without a name":                   {names(asks("GET", "/public"), ""), "default", gate.UnknownPolicy, unavailable("default", "unknown_policy")},
	} {
		t.Run(name, func(t *testing.T) {
			g := several(t, withClaims, policies())
			d := g.Decide(t.Context(), test.request)
			if d.Reason != test.reason || d.Outcome() != test.reason.Outcome() {
				t.Fatalf("decided %v, want %v", d.Reason, test.reason)
			}
			if test.want.Status == http.StatusBadRequest {
				other := test.want
				other.Status, test.want.Forbidden = http.StatusForbidden, &other
			}
			if diff := cmp.Diff(&test.want, g.Reply(&d)); diff != "" {
				t.Errorf("the reply differs (-want +got):\n%s", diff)
			}
			for i, p := range g.Policies() {
				if i == d.Policy && p.Name != test.policy {
					t.Errorf("decided by %s, want %s", p.Name, test.policy)
				}
			}
			if len(g.decided) != 1 || g.decided[0].reason != test.reason || g.decided[0].policy != d.Policy {
				t.Errorf("told of %+v", g.decided)
			}
			if test.reason.Outcome() != gate.Allow {
				if line := g.logs.last(t); line["reason"] != test.reason.String() {
					t.Errorf("the log says %v", line)
				}
			}
		})
	}
}

// TestAFaceRefusesInTheNameOfTheGate: what a face finds out by itself is a 503, and
// told like a decision.
func TestAFaceRefusesInTheNameOfTheGate(t *testing.T) {
	g := newGate(t, unasked)
	for reason, refuse := range map[gate.Reason]func(error) gate.Decision{
		gate.UnclearEdge: g.Unsaid, gate.UntrustedEdge: g.Unbelieved, gate.InternalError: g.Unreadable,
	} {
		d := refuse(errors.New("the edge is odd"))
		if d.Reason != reason || g.Reply(&d).Status != 503 || g.decided[len(g.decided)-1].reason != reason {
			t.Errorf("decided %v, want %v", d.Reason, reason)
		}
		if line := g.logs.last(t); line["detail"] != "the edge is odd" || line["level"] == "INFO" {
			t.Errorf("the log says %v", line)
		}
	}
}

// TestShadowLetsThroughWhatItRefuses, until its end and not a moment longer.
func TestShadowLetsThroughWhatItRefuses(t *testing.T) {
	for name, test := range map[string]struct {
		verify  verify
		request gate.Request
		reason  gate.Reason
	}{
		"no token":             {unasked, with(), gate.MissingToken},
		"a bad token":          {notGood, withToken(), gate.InvalidToken},
		"a token for others":   {says(verifier.Verdict{Valid: true}, nil), withToken(), gate.InsufficientScope},
		"nobody can tell":      {says(verifier.Verdict{}, io.EOF), withToken(), gate.VerifierUnavailable},
		"a call that panicked": {says(verifier.Verdict{}, verifier.Recovered("x", nil)), withToken(), gate.InternalError},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := newGate(t, test.verify, func(o *gate.Options) {
				o.Shadow = time.Now().Add(time.Hour)
				o.Requirement = requires(t, policy.Rules{AllScopes: []string{"a"}})
				o.EdgeCache = time.Minute
				o.Identity = []gate.IdentityHeader{{Name: "X-Partner", Constant: "crm"}}
			})
			time.Sleep(time.Hour - 1) //nolint:forbidigo // in a bubble
			d := g.Decide(t.Context(), test.request)
			if d.Reason != test.reason || !d.Shadow || d.Outcome() != gate.Allow || d.Keep != 0 {
				t.Errorf("%s: decided %v, %v", name, d.Reason, d.Outcome())
			}
			if diff := cmp.Diff(&gate.Reply{Status: 200}, g.Reply(&d)); diff != "" {
				t.Errorf("%s: the reply (-want +got):\n%s", name, diff)
			}
			if removes := g.Removes(&d); !slices.Equal(removes, []string{"authorization", "x-partner"}) {
				t.Errorf("%s: takes off %q", name, removes)
			}
			if last := g.decided[len(g.decided)-1]; !last.shadow || last.reason != test.reason {
				t.Errorf("%s: told of %+v", name, last)
			}
			if line := g.logs.last(t); line["reason"] != test.reason.String() {
				t.Errorf("%s: the log says %v", name, line)
			}
			time.Sleep(time.Nanosecond) //nolint:forbidigo // in a bubble
			d = g.Decide(t.Context(), test.request)
			if d.Reason != test.reason || d.Shadow || d.Outcome() != test.reason.Outcome() || g.Reply(&d).Status < 400 {
				t.Errorf("%s: after its end decided %v, %v", name, d.Reason, d.Outcome())
			}
		})
	}
}

// TestShadowIsOfOnePolicy: a request that falls under none is refused, and so is a
// panic that nobody has decided about.
func TestShadowIsOfOnePolicy(t *testing.T) {
	g := several(t, notGood, []gate.Policy{{Name: "shadow", Shadow: time.Now().Add(time.Hour)}}, func(o *gate.Options) { o.Shadow = time.Now().Add(time.Hour) })
	for _, r := range []gate.Request{asks("GET", "/shadow/.."), asks("GET", "//")} {
		if d := g.Decide(t.Context(), r); d.Reason != gate.BadPath || d.Outcome() != gate.Refused {
			t.Errorf("decided %v, %v", d.Reason, d.Outcome())
		}
	}
	if d := g.Recovered("x"); d.Outcome() != gate.Unavailable {
		t.Errorf("a panic is %v", d.Outcome())
	}
	strict := several(t, notGood, []gate.Policy{{Name: "shadow", Shadow: time.Now().Add(time.Hour)}})
	if d := strict.Decide(t.Context(), asks("GET", "/")); d.Outcome() != gate.Unauthorized {
		t.Errorf("another policy than the one in shadow decided %v", d.Outcome())
	}
}

// TestIdentityHeadersOfAllPoliciesAreTakenOff: an API may believe a header under any
// policy, so that a client must not bring it under another.
func TestIdentityHeadersOfAllPoliciesAreTakenOff(t *testing.T) {
	g := several(t, good, []gate.Policy{
		{Name: "a", Identity: []gate.IdentityHeader{{Name: "X-A", Constant: "1"}, {Name: "X-Both", Constant: "2"}}},
		{Name: "b", Identity: []gate.IdentityHeader{{Name: "x-both", Constant: "3"}}, KeepToken: true},
		{Name: "c", Public: true},
	})
	for path, want := range map[string][]string{
		"/a": {"authorization"},
		"/b": {"x-a"},
		"/c": {"authorization", "x-a", "x-both"},
		"/":  {"authorization", "x-a", "x-both"},
	} {
		d := g.Decide(t.Context(), asks("GET", path))
		if got := g.Removes(&d); d.Outcome() != gate.Allow || !slices.Equal(got, want) {
			t.Errorf("%s: takes off %q, want %q", path, got, want)
		}
	}
}

func TestAnEdgeKeepsNothingLongerThanItsRequirementLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		iat := time.Now().Add(-50 * time.Second).Unix()
		claims := claimsOf(t, `{"iat":`+strconv.FormatInt(iat, 10)+`}`)
		v := says(verifier.Verdict{Valid: true, Claims: claims, Until: time.Now().Add(time.Hour)}, nil)
		for name, test := range map[string]struct {
			rules policy.Rules
			want  time.Duration
		}{
			"an age":          {policy.Rules{MaxAge: time.Minute}, 10 * time.Second},
			"a greater age":   {policy.Rules{MaxAge: time.Hour}, 30 * time.Second},
			"the time itself": {policy.Rules{Expression: "now > timestamp(0)"}, 0},
			"no time":         {policy.Rules{Expression: `request.method == "GET"`}, 30 * time.Second},
		} {
			g := newGate(t, v, func(o *gate.Options) { o.EdgeCache, o.Requirement = 30*time.Second, requires(t, test.rules) })
			if d := g.Decide(t.Context(), asks("GET", "/")); d.Reason != gate.Valid || d.Keep != test.want {
				t.Errorf("%s: %v, kept for %v, want %v", name, d.Reason, d.Keep, test.want)
			}
		}
	})
}

func TestAGateSaysWhatItNeeds(t *testing.T) {
	if needs := newGate(t, good).Needs(); needs != (gate.Needs{}) {
		t.Errorf("one policy needs %+v", needs)
	}
	one := newGate(t, good, func(o *gate.Options) {
		o.Requirement = requires(t, policy.Rules{Expression: `request.host == "a"`})
		o.Preflight = true
	})
	if want := (gate.Needs{Needs: policy.Needs{Host: true, Method: true}, Preflight: true}); one.Needs() != want {
		t.Errorf("%+v, want %+v", one.Needs(), want)
	}
	many := several(t, good, []gate.Policy{{Name: "a"}, {Name: "b", Requirement: requires(t, policy.Rules{Expression: `request.method == "GET"`})}})
	if want := (gate.Needs{Needs: policy.Needs{Path: true, Method: true, Policy: true}}); many.Needs() != want {
		t.Errorf("%+v, want %+v", many.Needs(), want)
	}
	if got, want := strings.Join(many.DependsOn(), " "), "authorization method path policy"; got != want {
		t.Errorf("depends on %s, want %s", got, want)
	}
}

func TestNewRefusesPoliciesThatDoNotFit(t *testing.T) {
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	router, err := policy.NewRouter([]string{policy.DefaultName, "a"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	whole := gate.Policy{Verifier: good, Realm: "api"}
	named := func(name string, change func(*gate.Policy)) gate.Policy {
		p := whole
		p.Name = name
		change(&p)
		return p
	}
	same := func(*gate.Policy) {}
	for name, o := range map[string]gate.Options{
		"policies without a router":     {Policy: whole, Policies: []gate.Policy{named("a", same)}},
		"a router without its policies": {Policy: whole, Router: router},
		"another name":                  {Policy: whole, Router: router, Policies: []gate.Policy{named("b", same)}},
		"a policy without a verifier":   {Policy: whole, Router: router, Policies: []gate.Policy{named("a", func(p *gate.Policy) { p.Verifier = nil })}},
		"a policy without a realm":      {Policy: whole, Router: router, Policies: []gate.Policy{named("a", func(p *gate.Policy) { p.Realm = "" })}},
		"a public policy in shadow":     {Policy: whole, Router: router, Policies: []gate.Policy{named("a", func(p *gate.Policy) { p.Public, p.Shadow = true, time.Now() })}},
		"a public policy that requires": {Policy: whole, Router: router, Policies: []gate.Policy{named("a", func(p *gate.Policy) {
			p.Public, p.Requirement = true, requires(t, policy.Rules{AllScopes: []string{"a"}})
		})}},
	} {
		o.Parser = parser
		if g, err := gate.New(o); err == nil || g != nil {
			t.Errorf("%s: got a gate", name)
		}
	}
}

// TestAPolicyThatIsNotThereIsNoAllow: whoever makes up a decision gets a 503.
func TestAPolicyThatIsNotThereIsNoAllow(t *testing.T) {
	g := newGate(t, good)
	for _, index := range []int{-1, 1} {
		if r := g.Reply(&gate.Decision{Reason: gate.Valid, Policy: index}); r.Status != 503 {
			t.Errorf("policy %d is answered with %d", index, r.Status)
		}
	}
}

// TestDecisionsOfPoliciesAllocateNothing: routes, scopes and the token from memory.
func TestDecisionsOfPoliciesAllocateNothing(t *testing.T) {
	claims := claimsOf(t, `{"scope":"orders:read"}`)
	v := verify(func(context.Context, bearer.Token) (verifier.Verdict, error) {
		return verifier.Verdict{Valid: true, Claims: claims}, nil
	})
	g := several(t, v, []gate.Policy{
		{Name: "orders", Requirement: requires(t, policy.Rules{AllScopes: []string{"orders:read"}})},
		{Name: "public", Public: true},
		{Name: "web", Preflight: true},
	}, func(o *gate.Options) { o.Decided, o.Logger = func(gate.Tally) {}, nil })
	preflight := asks("OPTIONS", "/web")
	preflight.Preflight = true
	for name, r := range map[string]gate.Request{
		"orders": asks("GET", "/orders/4711"), "public": asks("GET", "/public/x"), "default": asks("GET", "/x/y"), "preflight": preflight,
	} {
		allocs := testing.AllocsPerRun(1000, func() {
			d := g.Decide(t.Context(), r)
			if d.Outcome() != gate.Allow || g.Reply(&d) == nil {
				t.Errorf("%s: decided %v", name, d.Reason)
			}
		})
		if allocs != 0 && !raceDetector {
			t.Errorf("%s: %v allocations", name, allocs)
		}
	}
}

// TestIdentityHeadersOfOtherListenersAreTakenOff: an API may stand behind both.
func TestIdentityHeadersOfOtherListenersAreTakenOff(t *testing.T) {
	g := several(t, good, []gate.Policy{{Name: "a", Identity: []gate.IdentityHeader{{Name: "X-A", Constant: "1"}}}},
		func(o *gate.Options) { o.Elsewhere = []string{"X-Other", "x-other", "x-a"} })
	for path, want := range map[string][]string{"/a": {"authorization", "x-other"}, "/": {"authorization", "x-other", "x-a"}} {
		d := g.Decide(t.Context(), asks("GET", path))
		if got := g.Removes(&d); d.Outcome() != gate.Allow || !slices.Equal(got, want) {
			t.Errorf("%s: takes off %q, want %q", path, got, want)
		}
	}
}
