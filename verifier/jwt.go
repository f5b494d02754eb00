package verifier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bearergate/bearergate/bearer"
)

// JWTOptions describe the JWTs of an issuer. Issuer, Audiences, Algorithms and Keys
// are required.
type JWTOptions struct {
	// Name stands for the verifier in errors.
	Name string
	// Issuer is the iss of its tokens, letter by letter.
	Issuer string
	// Audiences are whom tokens must be meant for: one of them in aud.
	Audiences []string
	// Algorithms are those that tokens may be signed with, of [Algorithms].
	Algorithms []string
	// Keys are the issuer's.
	Keys *KeySet
	// AccessTokenOnly takes only what says of itself that it is an access token:
	// typ at+jwt (RFC 9068 §2.1).
	AccessTokenOnly bool
	// Leeway is by how much the issuer's clock may be ahead. A token's end has none.
	Leeway time.Duration
	// Refused, if set, is told of each token that is not good, and why. It is called
	// concurrently.
	Refused func(t bearer.Token, why string)
}

// JWT finds a token good that is a JWT (RFC 7519) signed by its issuer for one of
// the audiences, that has begun and has not ended, names its end, and is an access
// token as far as it says. Everything else it refuses. It asks nobody but its
// [KeySet]; if that does not know the issuer's keys, it is a [NoAnswer]. It may be
// used concurrently.
//
// A token that says that it is an access token (typ at+jwt) must be as RFC 9068 §2.2
// wants it.
type JWT struct {
	options    JWTOptions
	signatures *signatures
}

// NewJWT returns a JWT.
func NewJWT(o JWTOptions) (*JWT, error) {
	switch {
	case o.Issuer == "" || len(o.Audiences) == 0:
		return nil, fmt.Errorf("verifier %s: an issuer and an audience are needed", o.Name)
	case slices.Contains(o.Audiences, ""):
		return nil, fmt.Errorf("verifier %s: an audience is empty", o.Name)
	case o.Keys == nil:
		return nil, fmt.Errorf("verifier %s: the issuer's keys are needed", o.Name)
	case o.Leeway < 0:
		return nil, fmt.Errorf("verifier %s: the leeway is not negative", o.Name)
	}
	s, err := newSignatures(o.Keys, o.Algorithms)
	if err != nil {
		return nil, fmt.Errorf("verifier %s: %w", o.Name, err)
	}
	if o.Refused == nil {
		o.Refused = func(bearer.Token, string) {}
	}
	return &JWT{options: o, signatures: s}, nil
}

// Verify judges the token. The error is a [NoAnswer], or [ErrClosed].
func (j *JWT) Verify(ctx context.Context, t bearer.Token) (Verdict, error) {
	header, claims, refused, err := j.signatures.check(ctx, t.Reveal())
	if err != nil {
		return Verdict{}, err
	}
	now := time.Now()
	var named times
	if refused == nil {
		named, refused = j.judge(header, claims, now)
	}
	if refused != nil {
		j.options.Refused(t, refused.why)
		return refused.verdict(now), nil
	}
	return Verdict{Valid: true, Source: FromEndpoint, Learnt: now, Until: named.expires, Claims: claims}, nil
}

// judge judges what the issuer has signed.
func (j *JWT) judge(header, claims *Claims, now time.Time) (times, *refusal) {
	refuse := func(why string) (times, *refusal) { return times{}, &refusal{why: why} }
	if iss, _ := claims.Lookup("iss"); !iss.Is(j.options.Issuer) {
		return refuse("its iss is not the configured issuer")
	}
	if !hasAnyAudience(claims, j.options.Audiences) {
		return refuse("its aud holds none of the configured audiences")
	}
	named, err := timesOf(claims)
	if err != nil {
		return refuse(err.Error())
	}
	if named.expires.IsZero() {
		return refuse("it does not say when it ends (exp)")
	}
	if r := named.judge(now, j.options.Leeway); r != nil {
		return times{}, r
	}
	if err := j.judgeType(header, claims); err != nil {
		return refuse(err.Error())
	}
	return named, judgeUse(claims)
}

// judgeType looks at what the token says it is (RFC 8725 §3.11).
func (j *JWT) judgeType(header, claims *Claims) error {
	typ, there := header.Lookup("typ")
	text, ok := typ.Text()
	switch {
	case there && !ok:
		return errors.New("its typ is not a string")
	case mediaType(text) == "at+jwt":
		for _, name := range []string{"sub", "client_id", "iat", "jti"} { // besides those that are always needed
			if _, ok := claims.Lookup(name); !ok {
				return fmt.Errorf("it has no %s, which an access token must have (RFC 9068 §2.2)", name)
			}
		}
		return nil
	case j.options.AccessTokenOnly:
		return errors.New("its typ is not at+jwt")
	case there && mediaType(text) != "jwt":
		return errors.New("its typ is that of something else than an access token")
	default:
		return nil
	}
}
