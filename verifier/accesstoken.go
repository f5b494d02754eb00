package verifier

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// refusal is why a token is not good, in words for the operator.
type refusal struct {
	why string
	// until is from when on the same token may be good; zero: never.
	until time.Time
}

// verdict returns what the refusal means for the token.
func (r *refusal) verdict(now time.Time) Verdict {
	return Verdict{Source: FromEndpoint, Learnt: now, Until: r.until}
}

// times are those that a token's claims name (RFC 7519 §4.1.4 to §4.1.6); zero if
// they do not.
type times struct{ expires, notBefore, issued time.Time }

func timesOf(c *Claims) (t times, err error) {
	for name, at := range map[string]*time.Time{"exp": &t.expires, "nbf": &t.notBefore, "iat": &t.issued} {
		claim, ok := c.Lookup(name)
		if !ok {
			continue
		}
		if *at, ok = claim.Time(); !ok {
			return times{}, fmt.Errorf("its %s is not a number", name)
		}
	}
	return t, nil
}

// judge refuses a token that has ended, or begins later than after the leeway. There
// is no leeway at the end: no verdict outlives the token.
func (t *times) judge(now time.Time, leeway time.Duration) *refusal {
	if !t.expires.IsZero() && !now.Before(t.expires) {
		return &refusal{why: "it has expired (exp)"}
	}
	if begin := t.notBefore.Add(-leeway); !t.notBefore.IsZero() && now.Before(begin) {
		return &refusal{why: "it is not good yet (nbf); is the clock of this machine right?", until: begin}
	}
	if begin := t.issued.Add(-leeway); !t.issued.IsZero() && now.Before(begin) {
		return &refusal{why: "it was issued in the future (iat); is the clock of this machine right?", until: begin}
	}
	return nil
}

// judgeUse refuses what is no access token, or none that whoever bears it may use.
// Servers find refresh and ID tokens good as well, and sign them with the same key.
func judgeUse(c *Claims) *refusal {
	// RFC 7662 §2.2 and RFC 6749 §7.1.
	if kind, ok := c.Lookup("token_type"); ok {
		if text, _ := kind.Text(); !strings.EqualFold(text, "Bearer") {
			return &refusal{why: "its token_type is not Bearer"}
		}
	}
	// RFC 7800 §3.1: who has the token must also prove to have a key (RFC 8705, RFC
	// 9449), and nobody here can see that proof.
	if _, ok := c.Lookup("cnf"); ok {
		return &refusal{why: "it is bound to a key (cnf), so it is no bearer token"}
	}
	if use, ok := c.Lookup("token_use"); ok && !use.Is("access_token") && !use.Is("access") { // Hydra, Cognito
		return &refusal{why: "its token_use says that it is no access token"}
	}
	if kind, ok := c.Lookup("typ"); ok { // Keycloak
		text, _ := kind.Text()
		switch strings.ToLower(text) {
		case "id", "refresh", "offline", "logout", "dpop":
			return &refusal{why: "its typ says that it is no access token"}
		}
	}
	return nil
}

// hasAnyAudience reports whether the token is meant for one of these (RFC 7519 §4.1.3).
func hasAnyAudience(c *Claims, audiences []string) bool {
	return slices.ContainsFunc(audiences, c.HasAudience)
}
