package verifier_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/verifier"
)

// someClaims are those of a token as Keycloak makes it, and some that nobody makes.
const someClaims = `{
	"exp": 1790000300, "iat": 1790000000.5, "iss": "https://sso.example.com/realms/partners",
	"aud": ["orders", "account"], "sub": "f:1:anna", "azp": "partner", "scope": "orders:read  orders:write email",
	"realm_access": {"roles": ["offline", "partner"], "depth": {"of": {"it": 3}}},
	"email_verified": false, "active": true, "nothing": null, "": "no name", "big": 1e999, "list": [1, [2, {"a": "b"}], "x y"],
	"scp": ["other"], "quoted": "a\"b\u00fc\n"
}`

func parseClaims(t testing.TB, object string) *verifier.Claims {
	t.Helper()
	claims, err := verifier.ParseClaims([]byte(object))
	if err != nil {
		t.Fatal(err)
	}
	return claims
}

func TestClaims(t *testing.T) {
	claims := parseClaims(t, someClaims)
	at := func(names ...string) verifier.Claim {
		claim, ok := claims.Path(names...)
		if ok != (claim.Kind() != verifier.Absent) {
			t.Errorf("%v is of kind %v, and found: %v", names, claim.Kind(), ok)
		}
		return claim
	}
	text := func(c verifier.Claim) string { s, ok := c.Text(); return fmt.Sprintf("%v %v", s, ok) }
	number := func(c verifier.Claim) string { n, ok := c.Number(); return fmt.Sprintf("%v %v", n, ok) }
	digits := func(c verifier.Claim) string { n, ok := c.Digits(); return fmt.Sprintf("%v %v", n, ok) }
	truth := func(c verifier.Claim) string { b, ok := c.Bool(); return fmt.Sprintf("%v %v", b, ok) }
	date := func(c verifier.Claim) string {
		d, ok := c.Time()
		return d.UTC().Format(time.RFC3339Nano) + fmt.Sprint(" ", ok)
	}
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"a string", text(at("azp")), "partner true"},
		{"a string with escapes", text(at("quoted")), "a\"bü\n true"},
		{"a member without a name", text(at("")), "no name true"},
		{"a name in another letter case", at("Azp").Kind(), verifier.Absent},
		{"a name that is the begin of another", at("az").Kind(), verifier.Absent},
		{"a name from deeper down", at("roles").Kind(), verifier.Absent},
		{"a nested name", number(at("realm_access", "depth", "of", "it")), "3 true"},
		{"a name behind a nested object", truth(at("email_verified")), "false true"},
		{"a path through a string", at("azp", "x").Kind(), verifier.Absent},
		{"a path through a list", at("aud", "").Kind(), verifier.Absent},
		{"a path through nothing", at("no", "such").Kind(), verifier.Absent},
		{"no path", at().Kind(), verifier.Object},
		{"true", truth(at("active")), "true true"},
		{"null", at("nothing").Kind(), verifier.Null},
		{"null is no string", text(at("nothing")), " false"},
		{"null is no boolean", truth(at("nothing")), "false false"},
		{"a number", number(at("exp")), "1.7900003e+09 true"},
		{"a number as written", digits(at("iat")), "1790000000.5 true"},
		{"a number that is too large", number(at("big")), "+Inf false"},
		{"a time", date(at("exp")), "2026-09-21T14:18:20Z true"},
		{"a time with a fraction", date(at("iat")), "2026-09-21T14:13:20.5Z true"},
		{"a string is no time", date(at("iss")), "0001-01-01T00:00:00Z false"},
		{"the length of a list", at("list").Len(), 3},
		{"the length of an object", at("realm_access").Len(), 2},
		{"the length of a string", at("azp").Len(), 0},
		{"the length of nothing", at("no").Len(), 0},
		{"a string is itself", at("azp").Is("partner"), true},
		{"nothing is not even the empty string", at("no").Is(""), false},
		{"a number is not its digits", at("exp").Is("1790000300"), false},
		{"a list holds a string", at("realm_access", "roles").Contains("partner"), true},
		{"a list does not hold a part", at("realm_access", "roles").Contains("part"), false},
		{"a list does not hold what is deeper", at("list").Contains("b"), false},
		{"a string contains itself alone", at("azp").Contains("part"), false},
		{"an object holds nothing", at("realm_access").Contains("partner"), false},
		{"a word", at("scope").HasWord("orders:write"), true},
		{"the last word", at("scope").HasWord("email"), true},
		{"a part of a word", at("scope").HasWord("orders"), false},
		{"two words", at("scope").HasWord("orders:write email"), false},
		{"the empty word", at("scope").HasWord(""), false},
		{"a word of a list", at("list").HasWord("x y"), true},
		{"a word of nothing", at("no").HasWord("x"), false},
		{"a scope", claims.HasScope("orders:read"), true},
		{"a scope of scp beside scope", claims.HasScope("other"), false},
		{"a scope of scp", parseClaims(t, `{"scp": ["other"]}`).HasScope("other"), true},
		{"an audience", claims.HasAudience("orders"), true},
		{"an audience in a string", parseClaims(t, `{"aud": "orders"}`).HasAudience("orders"), true},
		{"another audience", claims.HasAudience("order"), false},
		{"printed", fmt.Sprintf("%+v", verifier.Verdict{Claims: claims}.Claims), "16 claims"},
		{"no claims printed", (*verifier.Claims)(nil).String(), "0 claims"},
		{"a scope of no claims", (*verifier.Claims)(nil).HasScope("x"), false},
		{"the value of no claims", (*verifier.Claims)(nil).Root().Value(), nil},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", c.what, c.got, c.want)
		}
	}
	for range (*verifier.Claims)(nil).Root().Values() {
		t.Error("no claims have a value")
	}
}

func TestWhatAreNoClaims(t *testing.T) {
	for _, c := range []struct{ name, object string }{
		{"nothing", ``},
		{"a list", `["iss"]`},
		{"a string", `"iss"`},
		{"null", `null`},
		{"cut off", `{"iss": "a"`},
		{"a comma too many", `{"iss": "a",}`},
		{"a comment", `{"iss": "a" /* x */}`},
		{"something behind it", `{"iss": "a"} {}`},
		{"not UTF-8", "{\"iss\": \"\xff\"}"},
		{"a name twice", `{"iss": "a", "iss": "b"}`},
		{"a name twice, once with an escape", `{"iss": "a", "\u0069ss": "b"}`},
		{"a name twice deeper down", `{"a": [{"b": {"c": 1, "c": 1}}]}`},
		{"too deep", `{"a": ` + strings.Repeat("[", verifier.MaxClaimsDepth) + strings.Repeat("]", verifier.MaxClaimsDepth) + `}`},
		{"too deep in objects", strings.Repeat(`{"a":`, verifier.MaxClaimsDepth+1) + "1" + strings.Repeat("}", verifier.MaxClaimsDepth+1)},
		{"too many values", `{"a": [1` + strings.Repeat(",1", verifier.MaxClaimsValues-2) + `]}`},
		{"too long", `{"a": "` + strings.Repeat("x", verifier.MaxClaimsBytes) + `"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if claims, err := verifier.ParseClaims([]byte(c.object)); err == nil {
				t.Errorf("they are %v", claims.Root().Value())
			}
		})
	}
}

func TestClaimsUpToTheBounds(t *testing.T) {
	deep := verifier.MaxClaimsDepth - 1
	parseClaims(t, `{"a": `+strings.Repeat("[", deep)+strings.Repeat("]", deep)+`}`)
	parseClaims(t, `{"a": [1`+strings.Repeat(",1", verifier.MaxClaimsValues-3)+`]}`)
	parseClaims(t, `{"a": "`+strings.Repeat("x", verifier.MaxClaimsBytes-9)+`"}`)
}

// FuzzParseClaims: what is read is what encoding/json reads.
func FuzzParseClaims(f *testing.F) {
	for _, object := range []string{someClaims, `{}`, `{"a":[],"b":{}}`, `{"a":"\ud800","\ud800":1}`, `{"a":1,"a":2}`, `[]`, `{"a":-0.0e-0}`, `{"a":1e400}`} {
		f.Add([]byte(object))
	}
	f.Fuzz(func(t *testing.T, object []byte) {
		claims, err := verifier.ParseClaims(object)
		if err != nil {
			return
		}
		var want map[string]any
		if err := json.Unmarshal(object, &want); err != nil {
			if strings.Contains(err.Error(), "cannot unmarshal number") {
				return // what no float64 holds
			}
			t.Fatalf("encoding/json does not take it: %v", err)
		}
		if diff := cmp.Diff(any(want), claims.Root().Value()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestLookupAllocatesNothing(t *testing.T) {
	claims, path := parseClaims(t, someClaims), []string{"realm_access", "roles"}
	var met int
	for what, look := range map[string]func() bool{
		"a scope":    func() bool { return claims.HasScope("email") },
		"a path":     func() bool { c, _ := claims.Path(path...); return c.Contains("partner") },
		"a time":     func() bool { c, _ := claims.Lookup("exp"); _, ok := c.Time(); return ok },
		"a number":   func() bool { c, _ := claims.Lookup("exp"); n, _ := c.Number(); return n == 1790000300 },
		"an absence": func() bool { _, ok := claims.Lookup("none"); return !ok },
		"a range": func() bool {
			c, _ := claims.Lookup("aud")
			for v := range c.Values() {
				if v.Is("account") {
					return true
				}
			}
			return false
		},
	} {
		if n := testing.AllocsPerRun(100, func() {
			if look() {
				met++
			}
		}); n != 0 {
			t.Errorf("%s takes %v allocations", what, n)
		}
	}
	if met != 6*101 {
		t.Errorf("%d were met", met)
	}
}

// TestClaimsLiveAsLongAsTheirVerdict, and refusals have none.
func TestClaimsLiveAsLongAsTheirVerdict(t *testing.T) {
	first, second := parseClaims(t, `{"n": 1}`), parseClaims(t, `{"n": 2}`)
	answers := []verifier.Verdict{
		{Valid: true, Claims: first},
		{Valid: true, Claims: second},
		{Valid: true},
		{Valid: false, Claims: first},
	}
	next := 0
	withCache(t, verifier.CacheOptions{ValidTTL: 10 * time.Second}, func(context.Context, bearer.Token) (verifier.Verdict, error) {
		pass(moment)
		v := answers[next]
		next++
		v.Learnt = time.Now()
		return v, nil
	}, func(t *testing.T, c *verifier.Cache, _ *oracle) {
		token := newTokens(t).parse(t, "x")
		for i, want := range []*verifier.Claims{first, second, nil, nil} {
			for _, source := range []verifier.Source{verifier.FromEndpoint, verifier.FromCache} {
				v := expect(t, c, token, i < 3, source)
				if v.Claims != want {
					t.Errorf("answer %d from the %v has %v, want %v", i, source, v.Claims.Root().Value(), want.Root().Value())
				}
			}
			pass(10 * time.Second)
		}
	})
}

func BenchmarkLookup(b *testing.B) {
	claims := parseClaims(b, someClaims)
	for b.Loop() {
		if !claims.HasScope("email") {
			b.Fatal("it is not there")
		}
	}
}
