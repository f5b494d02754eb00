package verifier_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/verifier"
)

// named is a Verifier that finds all good and says who it is.
func named(t testing.TB, name string) verifier.Verifier {
	t.Helper()
	claims := parseClaims(t, fmt.Sprintf(`{"by": %q}`, name))
	return &oracle{answer: func(context.Context, bearer.Token) (verifier.Verdict, error) {
		return verifier.Verdict{Valid: true, Learnt: time.Now(), Claims: claims}, nil
	}}
}

func TestWhoIsAsked(t *testing.T) {
	jwt := func(claims string) string { return part(t, `{"alg":"RS256"}`) + "." + part(t, claims) + ".AAAA" }
	for _, c := range []struct{ name, token, want string }{
		{"opaque", "opaque", "opaque"},
		{"opaque with dots", "opaque.with.dots", "opaque"},
		{"a JWT of the first issuer", jwt(`{"iss":"https://a.example.com"}`), "a"},
		{"a JWT of one of two issuers", jwt(`{"iss":"https://c.example.com"}`), "b"},
		{"a JWT of nobody's issuer", jwt(`{"iss":"https://d.example.com"}`), "jwt"},
		{"a JWT without an issuer", jwt(`{}`), "jwt"},
		{"a JWT with two issuers", jwt(`{"iss":["https://a.example.com"]}`), "jwt"},
		{"a JWT that is broken", part(t, `{"alg":"RS256"}`) + ".x.x", "jwt"},
		{"an issuer in another letter case", jwt(`{"iss":"https://A.example.com"}`), "jwt"},
		{"an issuer by another name", jwt(`{"Iss":"https://a.example.com"}`), "jwt"},
	} {
		t.Run(c.name, func(t *testing.T) {
			choose := verifier.NewChoose(
				verifier.Choice{Verifier: named(t, "a"), Kind: verifier.JWTToken, Issuers: []string{"https://a.example.com"}},
				verifier.Choice{Verifier: named(t, "b"), Issuers: []string{"https://b.example.com", "https://c.example.com"}},
				verifier.Choice{Verifier: named(t, "opaque"), Kind: verifier.OpaqueToken},
				verifier.Choice{Verifier: named(t, "jwt"), Kind: verifier.JWTToken},
			)
			tokens := newTokens(t)
			for range 2 { // also when it is known
				v, err := choose.Verify(t.Context(), tokens.parse(t, c.token))
				by, _ := v.Claims.Lookup("by")
				if err != nil || !by.Is(c.want) {
					t.Errorf("asked is %v, %v, want %s", by.Value(), err, c.want)
				}
			}
		})
	}
}

func TestTokensThatNobodyIsFor(t *testing.T) {
	next := &oracle{answer: says(true)}
	choose := verifier.NewChoose(verifier.Choice{Verifier: next, Kind: verifier.JWTToken})
	tokens := newTokens(t)
	for range 2 {
		v, err := choose.Verify(t.Context(), tokens.parse(t, "opaque"))
		if err != nil || v.Valid || v.Source != verifier.FromToken || !v.Until.After(time.Now()) {
			t.Errorf("the verdict is %+v, %v", v, err)
		}
	}
	expectCalls(t, next, 0)
	if v, err := verifier.NewChoose().Verify(t.Context(), tokens.parse(t, "x")); err != nil || v.Valid {
		t.Errorf("of nobody the verdict is %+v, %v", v, err)
	}
}

// TestChoicesAreNotMixedUp when many tokens share a place.
func TestChoicesAreNotMixedUp(t *testing.T) {
	choose := verifier.NewChoose(
		verifier.Choice{Verifier: named(t, "jwt"), Kind: verifier.JWTToken},
		verifier.Choice{Verifier: named(t, "opaque")},
	)
	tokens := newTokens(t)
	for i := range 20_000 {
		value, want := fmt.Sprint("opaque", i), "opaque"
		if i%2 == 0 {
			value, want = part(t, `{"alg":"RS256"}`)+"."+part(t, fmt.Sprintf(`{"jti":"%d"}`, i))+".AAAA", "jwt"
		}
		v, err := choose.Verify(t.Context(), tokens.parse(t, value))
		by, _ := v.Claims.Lookup("by")
		if err != nil || !by.Is(want) {
			t.Fatalf("asked is %v, %v, want %s", by.Value(), err, want)
		}
	}
}

func TestBoth(t *testing.T) {
	now := time.Now()
	early, late := now.Add(time.Minute), now.Add(time.Hour)
	a, b := parseClaims(t, `{"by": "a"}`), parseClaims(t, `{"by": "b"}`)
	good := func(until time.Time, claims *verifier.Claims) verifier.Verdict {
		return verifier.Verdict{Valid: true, Source: verifier.FromCache, Learnt: now, Until: until, Claims: claims}
	}
	no := verifier.Verdict{Source: verifier.FromCache, Learnt: now, Until: early}
	stale := good(late, a)
	stale.Source = verifier.FromStale
	staleBoth := good(early, a)
	staleBoth.Source = verifier.FromStale
	broken := errors.New("nobody knows")
	for _, c := range []struct {
		name          string
		first, second verifier.Verdict
		fails         string // who
		want          verifier.Verdict
		asked         int64 // the second
	}{
		{name: "both say yes", first: good(late, a), second: good(early, nil), want: good(early, a), asked: 1},
		{name: "the first ends first", first: good(early, a), second: good(late, nil), want: good(early, a), asked: 1},
		{name: "the first does not end", first: good(time.Time{}, a), second: good(early, nil), want: good(early, a), asked: 1},
		{name: "the second does not end", first: good(early, a), second: good(time.Time{}, nil), want: good(early, a), asked: 1},
		{name: "both have claims", first: good(late, a), second: good(early, b), want: good(early, b), asked: 1},
		{name: "the first is stale", first: stale, second: good(early, nil), want: staleBoth, asked: 1},
		{name: "the first says no", first: no, second: good(late, b), want: no},
		{name: "the second says no", first: good(late, a), second: no, want: no, asked: 1},
		{name: "the first does not know", first: good(late, a), second: good(late, b), fails: "first"},
		{name: "the second does not know", first: good(late, a), second: good(late, b), fails: "second", asked: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			gives := func(who string, v verifier.Verdict) *oracle {
				return &oracle{answer: func(context.Context, bearer.Token) (verifier.Verdict, error) {
					if who == c.fails {
						return verifier.Verdict{}, broken
					}
					return v, nil
				}}
			}
			second := gives("second", c.second)
			v, err := verifier.NewBoth(gives("first", c.first), second).Verify(t.Context(), newTokens(t).parse(t, "x"))
			if v != c.want || (err != nil) != (c.fails != "") {
				t.Errorf("the verdict is %+v, %v, want %+v", v, err, c.want)
			}
			expectCalls(t, second, c.asked)
		})
	}
}

// TestWhoIsAskedCostsNothing once it is known.
func TestWhoIsAskedCostsNothing(t *testing.T) {
	choose := verifier.NewChoose(
		verifier.Choice{Verifier: &constant{}, Kind: verifier.JWTToken, Issuers: []string{"https://a.example.com"}},
		verifier.Choice{Verifier: &constant{}},
	)
	token := newTokens(t).parse(t, part(t, `{"alg":"RS256"}`)+"."+part(t, `{"iss":"`+strings.Repeat("x", 1000)+`"}`)+".AAAA")
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() { _, _ = choose.Verify(ctx, token) }); n != 0 {
		t.Errorf("it takes %v allocations", n)
	}
}

// constant is a Verifier that only says no.
type constant struct{}

func (*constant) Verify(context.Context, bearer.Token) (verifier.Verdict, error) {
	return verifier.Verdict{}, nil
}

func BenchmarkChoose(b *testing.B) {
	choose := verifier.NewChoose(
		verifier.Choice{Verifier: &constant{}, Kind: verifier.JWTToken, Issuers: []string{"https://a.example.com"}},
		verifier.Choice{Verifier: &constant{}},
	)
	token := newTokens(b).parse(b, part(b, `{"alg":"RS256"}`)+"."+part(b, `{"iss":"https://b.example.com"}`)+".AAAA")
	for b.Loop() {
		if _, err := choose.Verify(b.Context(), token); err != nil {
			b.Fatal(err)
		}
	}
}
