package policy_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bearergate/bearergate/policy"
	"github.com/bearergate/bearergate/verifier"
)

func claimsOf(t testing.TB, object string) *verifier.Claims {
	t.Helper()
	if object == "" {
		return nil
	}
	claims, err := verifier.ParseClaims([]byte(object))
	if err != nil {
		t.Fatal(err)
	}
	return claims
}

func requirement(t testing.TB, rules policy.Rules) *policy.Requirement {
	t.Helper()
	r, err := policy.NewRequirement(rules)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// claim is a rule about a claim at the top.
func claim(name string) policy.ClaimRule { return policy.ClaimRule{Path: []string{name}} }

func equal(name, value string) policy.Rules {
	rule := claim(name)
	rule.Equal = value
	return policy.Rules{Claims: []policy.ClaimRule{rule}}
}

func contains(value string, path ...string) policy.Rules {
	return policy.Rules{Claims: []policy.ClaimRule{{Path: path, Contains: value}}}
}

func oneOf(name string, values ...string) policy.Rules {
	return policy.Rules{Claims: []policy.ClaimRule{{Path: []string{name}, OneOf: values}}}
}

func TestRequirementsAreMetOrNot(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	facts := policy.Facts{Method: "GET", Host: "API.example.com:443", Path: "/v1/%61dmin"}
	expression := func(text string) policy.Rules { return policy.Rules{Expression: text} }
	for name, test := range map[string]struct {
		rules  policy.Rules
		claims string
		unmet  string // a part of the error; "" if it is met
	}{
		"each scope":                          {policy.Rules{AllScopes: []string{"a", "b"}}, `{"scope":"b c a"}`, ""},
		"not each scope":                      {policy.Rules{AllScopes: []string{"a", "b"}}, `{"scope":"a c"}`, "scopes.all"},
		"a part of a scope":                   {policy.Rules{AllScopes: []string{"order"}}, `{"scope":"orders"}`, "scopes.all"},
		"a scope in other letters":            {policy.Rules{AllScopes: []string{"a"}}, `{"scope":"A"}`, "scopes.all"},
		"a list of scopes":                    {policy.Rules{AllScopes: []string{"a"}}, `{"scp":["b","a"]}`, ""},
		"no scopes":                           {policy.Rules{AllScopes: []string{"a"}}, `{}`, "scopes.all"},
		"any scope":                           {policy.Rules{AnyScopes: []string{"a", "b"}}, `{"scope":"b"}`, ""},
		"not any scope":                       {policy.Rules{AnyScopes: []string{"a", "b"}}, `{"scope":"c"}`, "scopes.any"},
		"all and any, with all alone":         {policy.Rules{AllScopes: []string{"a"}, AnyScopes: []string{"b"}}, `{"scope":"a"}`, "scopes.any"},
		"an audience":                         {policy.Rules{Audience: []string{"x", "y"}}, `{"aud":"y"}`, ""},
		"an audience in a list":               {policy.Rules{Audience: []string{"x", "y"}}, `{"aud":["z","x"]}`, ""},
		"another audience":                    {policy.Rules{Audience: []string{"x"}}, `{"aud":"xx"}`, "audience"},
		"no audience":                         {policy.Rules{Audience: []string{"x"}}, `{}`, "audience"},
		"a claim that is equal":               {equal("sub", "me"), `{"sub":"me"}`, ""},
		"a claim that is not equal":           {equal("sub", "me"), `{"sub":"meme"}`, "claims[0] (sub)"},
		"a claim that is a list":              {equal("sub", "me"), `{"sub":["me"]}`, "claims[0] (sub)"},
		"a claim that is not there":           {equal("sub", "me"), `{}`, "claims[0] (sub)"},
		"a claim in another object":           {equal("sub", "me"), `{"x":{"sub":"me"}}`, "claims[0] (sub)"},
		"a number as it is written":           {equal("level", "3"), `{"level":3}`, ""},
		"a number written in another way":     {equal("level", "3"), `{"level":3.0}`, "claims[0]"},
		"a boolean":                           {equal("admin", "true"), `{"admin":true}`, ""},
		"the other boolean":                   {equal("admin", "true"), `{"admin":false}`, "claims[0]"},
		"null":                                {equal("admin", "null"), `{"admin":null}`, "claims[0]"},
		"a list that holds it":                {contains("b", "groups"), `{"groups":["a","b"]}`, ""},
		"a list that holds a number":          {contains("2", "groups"), `{"groups":[1,2]}`, ""},
		"a list that does not hold it":        {contains("b", "groups"), `{"groups":["ab",["b"]]}`, "claims[0]"},
		"a text that holds it":                {contains("b", "groups"), `{"groups":"abc"}`, "claims[0]"},
		"a text that is it":                   {contains("b", "groups"), `{"groups":"b"}`, ""},
		"a list deep inside":                  {contains("b", "realm_access", "roles"), `{"realm_access":{"roles":["b"]}}`, ""},
		"a path through a list":               {contains("b", "realm_access", "roles"), `{"realm_access":[{"roles":["b"]}]}`, "claims[0] (realm_access.roles)"},
		"a name with a dot is one name":       {contains("b", "realm_access.roles"), `{"realm_access.roles":["b"]}`, ""},
		"one of some":                         {oneOf("azp", "a", "b"), `{"azp":"b"}`, ""},
		"none of them":                        {oneOf("azp", "a", "b"), `{"azp":"c"}`, "claims[0]"},
		"young":                               {policy.Rules{MaxAge: time.Minute}, `{"iat":1799999940}`, ""},
		"too old":                             {policy.Rules{MaxAge: time.Minute}, `{"iat":1799999939}`, "max_token_age"},
		"a little ahead":                      {policy.Rules{MaxAge: time.Minute}, `{"iat":1800000060}`, ""},
		"from the future":                     {policy.Rules{MaxAge: time.Minute}, `{"iat":1800000061}`, "future"},
		"of no age":                           {policy.Rules{MaxAge: time.Minute}, `{"iat":"1800000000"}`, "does not say when"},
		"no claims at all":                    {policy.Rules{AllScopes: []string{"a"}}, "", "the verifier gave none"},
		"an expression about claims":          {expression(`claims.sub == "me" && "b" in claims.groups`), `{"sub":"me","groups":["b"]}`, ""},
		"an expression that is false":         {expression(`claims.sub == "me"`), `{"sub":"you"}`, "expression"},
		"an expression about a missing claim": {expression(`claims.sub == "me"`), `{}`, "expression, because it failed"},
		"the opposite about a missing claim":  {expression(`claims.sub != "me"`), `{}`, "expression, because it failed"},
		"has":                                 {expression(`!has(claims.sub)`), `{}`, ""},
		"has, when there are no claims":       {expression(`!has(claims.sub)`), "", "the verifier gave none"},
		"a claim of another type":             {expression(`claims.sub.startsWith("x")`), `{"sub":1}`, "expression, because it failed"},
		"a claim of another type is not true": {expression(`claims.admin == true`), `{"admin":"true"}`, "expression"},
		"numbers":                             {expression(`claims.level >= 2 && claims.level == 3`), `{"level":3}`, ""},
		"the method":                          {expression(`request.method == "GET"`), "", ""},
		"the host":                            {expression(`request.host == "api.example.com"`), "", ""},
		"the path, decoded":                   {expression(`request.path.startsWith("/v1/admin")`), "", ""},
		"the time":                            {expression(`now > timestamp("2026-01-01T00:00:00Z") && now.getHours() == 8`), "", ""},
		"a claim's time":                      {expression(`now - timestamp(int(claims.iat)) < duration("5m")`), `{"iat":1799999940}`, ""},
		"what costs too much":                 {expression(`claims.l.all(a, claims.l.all(b, claims.l.all(c, a + b + c != "x")))`), `{"l":["` + strings.Repeat(`a","`, 60) + `"]}`, "expression, because it failed"},
		"nothing":                             {policy.Rules{}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := requirement(t, test.rules).Judge(&facts, claimsOf(t, test.claims), now)
			switch {
			case test.unmet == "" && err != nil:
				t.Error(err)
			case test.unmet == "":
			case err == nil:
				t.Error("it is met")
			default:
				if _, ok := errors.AsType[*policy.Unmet](err); !ok || !strings.Contains(err.Error(), test.unmet) {
					t.Errorf("%v; want %s", err, test.unmet)
				}
			}
		})
	}
}

func TestAFactThatCannotBeReadMeetsNoExpression(t *testing.T) {
	for _, test := range []struct {
		expression string
		facts      policy.Facts
	}{
		{`request.path != "/admin"`, policy.Facts{Path: "/x/../admin"}},
		{`request.host != "a"`, policy.Facts{Host: "a@b"}},
		{`request.method != "POST"`, policy.Facts{Method: "post"}},
	} {
		r := requirement(t, policy.Rules{Expression: test.expression})
		if err := r.Judge(&test.facts, nil, time.Now()); err == nil {
			t.Errorf("%s is met by %+v", test.expression, test.facts)
		}
	}
}

func TestARequirementSaysWhatItNeeds(t *testing.T) {
	for _, test := range []struct {
		rules  policy.Rules
		needs  policy.Needs
		claims bool
		scope  string
	}{
		{policy.Rules{AllScopes: []string{"a"}, AnyScopes: []string{"b", "c"}}, policy.Needs{}, true, "a b"},
		{policy.Rules{AllScopes: []string{"a"}, AnyScopes: []string{"b", "a"}}, policy.Needs{}, true, "a"},
		{policy.Rules{MaxAge: time.Minute}, policy.Needs{}, true, ""},
		{policy.Rules{Expression: `request.method == "GET" || claims.x`}, policy.Needs{Method: true}, true, ""},
		{policy.Rules{Expression: `request.path == request.host`}, policy.Needs{Path: true, Host: true}, false, ""},
		{policy.Rules{Expression: `now.getHours() > 3`}, policy.Needs{}, false, ""},
		{policy.Rules{}, policy.Needs{}, false, ""},
	} {
		r := requirement(t, test.rules)
		if r.Needs() != test.needs || r.NeedsClaims() != test.claims || r.Scope() != test.scope {
			t.Errorf("%+v: needs %+v, claims %v, scope %q", test.rules, r.Needs(), r.NeedsClaims(), r.Scope())
		}
	}
	lines := requirement(t, policy.Rules{
		AllScopes: []string{"a", "b"}, AnyScopes: []string{"c"}, Audience: []string{"d"}, MaxAge: time.Minute, Expression: `claims.x == "y"`,
		Claims: []policy.ClaimRule{{Path: []string{"e", "f"}, Equal: "g"}, {Path: []string{"h"}, Contains: "i"}, {Path: []string{"j"}, OneOf: []string{"k", "l"}}},
	}).Explain()
	if got := strings.Join(lines, "\n"); got != `the token has each of the scopes: a, b
the token has one of the scopes: c
the token's audience (aud) has one of: d
the claim e.f is "g"
the claim h contains "i"
the claim j is one of: k, l
the token was issued (iat) at most 1m0s ago
the expression is true: claims.x == "y"` {
		t.Error(got)
	}
}

// eight is an expression that evaluates another eight times.
func eight(of string) string { return "[1,2,3,4,5,6,7,8].map(x, " + of + ")" }

func TestMistakesInRulesAreAllSaid(t *testing.T) {
	for name, test := range map[string]struct {
		rules policy.Rules
		want  []string
	}{
		"scopes": {
			policy.Rules{AllScopes: []string{"a b", ""}, AnyScopes: []string{`a"`}},
			[]string{"scopes.all[0] is no scope", "scopes.all[1] is no scope", "scopes.any[0] is no scope"},
		},
		"claims": {
			policy.Rules{Claims: []policy.ClaimRule{{Equal: "a"}, claim("a"), {Path: []string{"a"}, Equal: "a", Contains: "b"}, {Path: []string{""}, Equal: "a"}, {Path: []string{"a"}, OneOf: []string{""}}}},
			[]string{"claims[0].path does not name", "claims[1] does not say one thing", "claims[2] does not say one thing", "claims[3].path does not name", "claims[4].one_of has an empty"},
		},
		"an empty audience":               {policy.Rules{Audience: []string{""}}, []string{"audience has an empty value"}},
		"a negative age":                  {policy.Rules{MaxAge: -1}, []string{"max_token_age is negative"}},
		"no expression":                   {policy.Rules{Expression: "claims."}, []string{"expression is no expression: at line 1, column"}},
		"an unknown variable":             {policy.Rules{Expression: "user.name == 'x'"}, []string{"expression is no expression: at line 1, column 1: undeclared reference"}},
		"an unknown fact":                 {policy.Rules{Expression: "request.query == 'x'"}, []string{"expression is no expression: at line 1, column"}},
		"another type":                    {policy.Rules{Expression: "request.method == 1"}, []string{"expression is no expression: at line 1, column 16: found no matching overload"}},
		"an expression of a text":         {policy.Rules{Expression: "request.method"}, []string{"expression is of type string"}},
		"an expression of a claim":        {policy.Rules{Expression: "claims.admin"}, []string{"expression is of type dyn"}},
		"a regular expression":            {policy.Rules{Expression: "request.path.matches('(')"}, []string{"expression cannot be compiled"}},
		"an expression that is long":      {policy.Rules{Expression: "true" + strings.Repeat(" ", 5000)}, []string{"expression is no expression"}},
		"an expression that always costs": {policy.Rules{Expression: eight(eight(eight(eight(eight("1"))))) + ".size() > 0"}, []string{"expression costs too much"}},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := policy.NewRequirement(test.rules)
			if err == nil || r != nil {
				t.Fatal("it is taken")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(test.want) {
				t.Fatalf("%q; want %q", lines, test.want)
			}
			for i, want := range test.want {
				if !strings.Contains(lines[i], want) {
					t.Errorf("%q does not say %q", lines[i], want)
				}
			}
		})
	}
}

func TestJudgingWithoutAnExpressionAllocatesNothing(t *testing.T) {
	r := requirement(t, policy.Rules{
		AllScopes: []string{"a", "b"}, AnyScopes: []string{"c"}, Audience: []string{"api"}, MaxAge: time.Minute,
		Claims: []policy.ClaimRule{{Path: []string{"realm_access", "roles"}, Contains: "x"}, {Path: []string{"sub"}, OneOf: []string{"me", "you"}}},
	})
	now := time.Now()
	claims := claimsOf(t, `{"scope":"c b a","aud":["api"],"iat":`+strconv.FormatInt(now.Unix(), 10)+`,"realm_access":{"roles":["y","x"]},"sub":"you"}`)
	if err := r.Judge(&policy.Facts{}, claims, now); err != nil {
		t.Fatal(err)
	}
	other := claimsOf(t, `{"scope":"c b a","aud":["api"],"iat":`+strconv.FormatInt(now.Unix(), 10)+`,"realm_access":{"roles":["y"]}}`)
	for _, c := range []*verifier.Claims{claims, other, nil} {
		if n := testing.AllocsPerRun(100, func() { _ = r.Judge(&policy.Facts{}, c, now) }); n != 0 {
			t.Errorf("%v: %v allocations", c, n)
		}
	}
}

func BenchmarkJudge(b *testing.B) {
	facts := policy.Facts{Method: "GET", Host: "api.example.com", Path: "/v1/orders"}
	claims := claimsOf(b, `{"iss":"https://id.example.com","sub":"me","aud":["api","web"],"exp":1800000300,"iat":1800000000,"azp":"partner-7","scope":"openid orders:read","realm_access":{"roles":["a","b"]}}`)
	for name, rules := range map[string]policy.Rules{
		"scopes":     {AllScopes: []string{"orders:read"}},
		"roles":      contains("b", "realm_access", "roles"),
		"expression": {Expression: `claims.azp == "partner-7" && request.method == "GET"`},
	} {
		r := requirement(b, rules)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			now := time.Now()
			for b.Loop() {
				if err := r.Judge(&facts, claims, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
