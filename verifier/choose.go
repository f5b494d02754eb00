package verifier

import (
	"context"
	"encoding/binary"
	"slices"
	"sync/atomic"
	"time"

	"github.com/bearergate/bearergate/bearer"
)

// Kind is a kind of tokens, by their form.
type Kind uint8

const (
	// AnyToken is every token.
	AnyToken Kind = iota
	// OpaqueToken is a token that has not the form of a JWT.
	OpaqueToken
	// JWTToken is a token that has the form of a JWT.
	JWTToken
)

// Choice is a Verifier for some tokens.
type Choice struct {
	Verifier Verifier
	// Kind is of what form they are.
	Kind Kind
	// Issuers, if there are any, are whose they are: JWTs that name one of them as
	// their iss.
	Issuers []string
}

// takes reports whether a token is one of those.
func (c *Choice) takes(issuer string, jwt bool) bool {
	switch {
	case c.Kind == OpaqueToken && jwt, c.Kind == JWTToken && !jwt:
		return false
	default:
		return len(c.Issuers) == 0 || jwt && slices.Contains(c.Issuers, issuer)
	}
}

// TakesAll reports whether there is no token that is not of this choice.
func (c *Choice) TakesAll() bool { return c.Kind == AnyToken && len(c.Issuers) == 0 }

// Choose asks the first of several Verifiers that is for a token, and no other. It
// refuses a token that none is for. It may be used concurrently.
//
// What a token says of itself decides who is asked. That is safe as long as each
// Verifier finds no token good that is not: who lies about the issuer is asked for
// its signature.
type Choose struct {
	choices []Choice
	// recent remembers which choice tokens in use are for, by a part of their digest:
	// to read a token takes longer than to find its verdict. Which place a token has
	// nobody can choose, and one that is taken costs no more than to read the token.
	recent [1 << 12]atomic.Pointer[chosen]
}

type chosen struct {
	digest bearer.Digest
	choice int // -1: none
}

// NewChoose returns a Choose among some, of which the first come first.
func NewChoose(choices ...Choice) *Choose { return &Choose{choices: choices} }

// Verify asks the Verifier that is for the token.
func (c *Choose) Verify(ctx context.Context, t bearer.Token) (Verdict, error) {
	choice := c.choose(&t)
	if choice < 0 {
		now := time.Now()
		return Verdict{Source: FromToken, Learnt: now, Until: now.Add(MaxLife)}, nil
	}
	return c.choices[choice].Verifier.Verify(ctx, t)
}

func (c *Choose) choose(t *bearer.Token) int {
	if len(c.choices) > 0 && c.choices[0].TakesAll() {
		return 0
	}
	d := t.Digest()
	place := &c.recent[binary.LittleEndian.Uint64(d[8:])%uint64(len(c.recent))]
	if known := place.Load(); known != nil && known.digest == *d {
		return known.choice
	}
	issuer, jwt := t.Issuer()
	choice := slices.IndexFunc(c.choices, func(one Choice) bool { return one.takes(issuer, jwt) })
	place.Store(&chosen{digest: *d, choice: choice})
	return choice
}

// Both finds a token good that two Verifiers find good. The first is asked first,
// and the second not at all about what the first refuses: a forged JWT never comes
// to an endpoint behind it. It may be used concurrently.
//
// The verdict lasts as long as both do. Its claims are those of the second, who was
// asked last, or those of the first if the second gives none.
type Both struct{ first, second Verifier }

// NewBoth returns a Both.
func NewBoth(first, second Verifier) *Both { return &Both{first: first, second: second} }

// Verify asks the first, and then the second.
func (b *Both) Verify(ctx context.Context, t bearer.Token) (Verdict, error) {
	first, err := b.first.Verify(ctx, t)
	if err != nil || !first.Valid {
		return first, err
	}
	second, err := b.second.Verify(ctx, t)
	second.Waited += first.Waited
	if err != nil || !second.Valid {
		return second, err
	}
	if second.Until.IsZero() || !first.Until.IsZero() && first.Until.Before(second.Until) {
		second.Until = first.Until
	}
	if second.Claims == nil {
		second.Claims = first.Claims
	}
	if first.Source == FromStale {
		second.Source = FromStale
	}
	return second, nil
}
