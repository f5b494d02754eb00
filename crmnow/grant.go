package crmnow

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// maxLifetime bounds what a reply may give as expires_in, so that no sum of
// times overflows.
const maxLifetime = 365 * 24 * time.Hour

// Grant is the endpoint's reply to a client whose credentials it accepts
// (RFC 6749 §5.1).
type Grant struct {
	// AccessToken is the token. It does not show itself.
	AccessToken Secret
	// Scope is what the reply gives as scope, "" if nothing.
	Scope string
	// ExpiresIn is the token's lifetime in whole seconds: expires_in of the
	// reply, or DefaultLifetime if the reply has none.
	ExpiresIn time.Duration
	// ExpiresAt is when the lifetime ends, counted from the moment before the
	// request was sent: a slow reply makes it early, never late.
	ExpiresAt time.Time
}

// InForce reports whether the token's lifetime lasts beyond the given time.
func (g Grant) InForce(at time.Time) bool {
	return !g.AccessToken.IsZero() && at.Before(g.ExpiresAt)
}

// parseGrant reads the body of a token reply. The errors hold nothing of it.
func parseGrant(body []byte, asked time.Time) (Grant, error) {
	// A map, because a struct would match names without regard to case.
	var reply map[string]json.RawMessage
	if err := json.Unmarshal(body, &reply); err != nil || reply == nil {
		return Grant{}, errors.New("the reply is not a JSON object")
	}
	token, err := member[string](reply, "access_token", "a string")
	if err != nil {
		return Grant{}, err
	}
	if token == "" {
		return Grant{}, errors.New("the reply has no access_token")
	}
	// VSCHAR of RFC 6749 §A.12 without the blank: all that fits behind "Bearer ".
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return Grant{}, errors.New("the access_token holds a character that an Authorization header cannot carry")
	}
	kind, err := member[string](reply, "token_type", "a string")
	if err != nil {
		return Grant{}, err
	}
	// RFC 6749 §7.1: a token of a type that is not understood must not be used.
	if kind != "" && !strings.EqualFold(kind, "Bearer") {
		return Grant{}, errors.New("the token_type is not Bearer")
	}
	scope, err := member[string](reply, "scope", "a string")
	if err != nil {
		return Grant{}, err
	}
	lifetime := DefaultLifetime
	seconds, err := member[*float64](reply, "expires_in", "a number")
	switch {
	case err != nil:
		return Grant{}, err
	case seconds == nil:
	case *seconds < 1:
		return Grant{}, errors.New("the expires_in says that the token has ended already")
	default:
		lifetime = maxLifetime
		if *seconds < maxLifetime.Seconds() {
			lifetime = time.Duration(*seconds) * time.Second
		}
	}
	return Grant{
		AccessToken: NewSecret(token),
		Scope:       scope,
		ExpiresIn:   lifetime,
		ExpiresAt:   asked.Add(lifetime),
	}, nil
}

// member decodes one member of an object; the zero value if it is not there or
// null.
func member[T any](object map[string]json.RawMessage, name, kind string) (T, error) {
	var value, zero T
	raw, ok := object[name]
	if !ok {
		return zero, nil
	}
	if err := json.Unmarshal(raw, &value); err != nil {
		return zero, fmt.Errorf("the %s is not %s", name, kind)
	}
	return value, nil
}
