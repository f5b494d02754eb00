package verifier

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/bearergate/bearergate/bearer"
)

// IntrospectionOptions describe an introspection endpoint. URL and Client are
// required.
type IntrospectionOptions struct {
	// Name stands for the endpoint in errors.
	Name string
	// URL is where the question is sent, whole.
	URL string
	// AllowPlaintext lets tokens and credentials travel over http:// to a host that
	// is not loopback.
	AllowPlaintext bool
	// MaxConnections bounds the connections to the endpoint, idle ones included;
	// 0 means 64.
	MaxConnections int
	// RootCAs may sign the endpoint's certificate; nil means the system's.
	RootCAs *x509.CertPool
	// UserAgent is sent with every question; "" means "bearergate".
	UserAgent string
	// Client is who asks.
	Client ClientCredentials
	// TokenTypeHint is sent along (RFC 7662 §2.1); "" for none.
	TokenTypeHint string
	// Issuer is who must have issued the token, by the answer's iss; "" for anybody.
	Issuer string
	// Signed asks for signed answers (RFC 9701) and takes no others; nil asks for JSON.
	Signed *SignedAnswers
	// Refused, if set, is told of each token that is not good, and why. It is called
	// concurrently.
	Refused func(t bearer.Token, why string)
}

// SignedAnswers are how answers are signed. All are required.
type SignedAnswers struct {
	// Keys are those of the server.
	Keys *KeySet
	// Algorithms are those it may sign with, of [Algorithms].
	Algorithms []string
	// Issuer is the answers' iss, Audience their aud (RFC 9701 §5).
	Issuer, Audience string
}

// Introspection asks an OAuth 2.0 introspection endpoint (RFC 7662): a token is good
// if the answer is a JSON object whose member active is true, and nothing else in it
// says otherwise: that the token has ended or not begun, is no bearer token or no
// access token, or comes from another issuer. It is not good if active is false.
// Every other reply is a [NoAnswer], and so is one that makes too many claims, see
// [ParseClaims]. It remembers nothing. It may be used concurrently.
//
// A 401 says that the gateway's own credentials are wrong, and nothing about the
// token. So it is a [NoAnswer], too.
type Introspection struct {
	client  *client
	auth    *clientAuth
	url     string
	hint    string
	issuer  string
	signed  *SignedAnswers
	signers *signatures // of signed answers
	refused func(bearer.Token, string)
}

// clockSkew is by how much another machine's clock may be ahead.
const clockSkew = time.Minute

// NewIntrospection returns a client of the endpoint. It makes no connection yet.
func NewIntrospection(o IntrospectionOptions) (*Introspection, error) {
	c := newClient(clientOptions{
		name: o.Name, allowPlaintext: o.AllowPlaintext, maxConnections: o.MaxConnections, rootCAs: o.RootCAs, userAgent: o.UserAgent,
	})
	u, err := c.checkURL(o.URL)
	if err != nil {
		return nil, err
	}
	auth, err := newClientAuth(o.Client)
	if err != nil {
		return nil, fmt.Errorf("verifier %s: %w", o.Name, err)
	}
	v := &Introspection{client: c, auth: auth, url: u, hint: o.TokenTypeHint, issuer: o.Issuer, signed: o.Signed, refused: o.Refused}
	if v.refused == nil {
		v.refused = func(bearer.Token, string) {}
	}
	if s := o.Signed; s != nil {
		if s.Keys == nil || s.Issuer == "" || s.Audience == "" {
			return nil, fmt.Errorf("verifier %s: signed answers need keys, an issuer and an audience", o.Name)
		}
		if v.signers, err = newSignatures(s.Keys, s.Algorithms); err != nil {
			return nil, fmt.Errorf("verifier %s: %w", o.Name, err)
		}
	}
	return v, nil
}

// Close closes the idle connections.
func (v *Introspection) Close() { v.client.close() }

// Verify asks the endpoint. The error is a [NoAnswer].
func (v *Introspection) Verify(ctx context.Context, t bearer.Token) (Verdict, error) {
	secret, err := v.auth.secret()
	if err != nil {
		return Verdict{}, v.client.noAnswer("the client's secret cannot be read", err)
	}
	a, status, err := v.ask(ctx, t, secret)
	if status == http.StatusUnauthorized {
		// Maybe the secret was changed a moment ago.
		if now, err1 := v.auth.secret(); err1 == nil && !bytes.Equal(now, secret) {
			a, status, err = v.ask(ctx, t, now)
		}
	}
	if status == http.StatusUnauthorized { // RFC 7662 §2.3
		return Verdict{}, v.client.noAnswer("the endpoint does not take the gateway's own credentials (status 401), which says nothing about the token; are the client's id, secret and authentication right?", nil)
	}
	if err != nil {
		return Verdict{}, err
	}
	claims, err := v.read(ctx, &a)
	if err != nil {
		return Verdict{}, err
	}
	return v.judge(t, claims)
}

// ask sends the question (RFC 7662 §2.1).
func (v *Introspection) ask(ctx context.Context, t bearer.Token, secret []byte) (answer, int, error) {
	form := url.Values{"token": {t.Reveal()}}
	if v.hint != "" {
		form.Set("token_type_hint", v.hint)
	}
	q := &question{method: http.MethodPost, url: v.url, contentType: "application/x-www-form-urlencoded", accept: "application/json"}
	if v.signed != nil {
		q.accept = "application/token-introspection+jwt"
	}
	if err := v.auth.add(q, form, secret, time.Now()); err != nil {
		return answer{}, 0, v.client.noAnswer("the gateway cannot say who it is", err)
	}
	q.body = []byte(form.Encode())
	return v.client.ask(ctx, q)
}

// read returns what an answer says. The error is a [NoAnswer].
func (v *Introspection) read(ctx context.Context, a *answer) (*Claims, error) {
	if v.signed != nil {
		return v.readSigned(ctx, a)
	}
	claims, err := ParseClaims(a.body)
	if err != nil {
		return nil, v.client.noAnswer("the endpoint's reply is no answer; is the URL right?", err)
	}
	return claims, nil
}

// readSigned reads a signed answer (RFC 9701 §5).
func (v *Introspection) readSigned(ctx context.Context, a *answer) (*Claims, error) {
	broken := func(why string) error {
		return v.client.noAnswer("the endpoint's reply is not the signed answer that was asked for: "+why, nil)
	}
	header, claims, refused, err := v.signers.check(ctx, string(bytes.TrimSpace(a.body)))
	if err != nil {
		return nil, err
	}
	if refused != nil {
		return nil, broken(refused.why)
	}
	typ, _ := header.Lookup("typ")
	if text, _ := typ.Text(); mediaType(text) != "token-introspection+jwt" {
		return nil, broken("its typ is not token-introspection+jwt")
	}
	if iss, _ := claims.Lookup("iss"); !iss.Is(v.signed.Issuer) {
		return nil, broken("its iss is not the configured issuer")
	}
	if !claims.HasAudience(v.signed.Audience) {
		return nil, broken("its aud is not the configured audience")
	}
	iat, _ := claims.Lookup("iat")
	given, ok := iat.Time()
	if age := time.Since(given); !ok || age > clockSkew || age < -clockSkew {
		return nil, broken("its iat is not about now; an old answer could be sent again")
	}
	about, _ := claims.Lookup("token_introspection")
	inner := about.asClaims()
	if inner == nil {
		return nil, broken("it has no object token_introspection")
	}
	return inner, nil
}

// judge makes an answer into a verdict (RFC 7662 §2.2).
func (v *Introspection) judge(t bearer.Token, claims *Claims) (Verdict, error) {
	active, err := readActive(claims)
	if err != nil {
		return Verdict{}, v.client.noAnswer("the endpoint's reply is no answer; is the URL right?", err)
	}
	now := time.Now()
	refuse := func(r *refusal) (Verdict, error) {
		v.refused(t, r.why)
		return r.verdict(now), nil
	}
	if !active {
		return refuse(&refusal{why: "the endpoint says that it is not active"})
	}
	named, err := timesOf(claims)
	if err != nil {
		return Verdict{}, v.client.noAnswer("the endpoint's reply is no answer", err)
	}
	if r := named.judge(now, clockSkew); r != nil {
		return refuse(r)
	}
	if r := judgeUse(claims); r != nil {
		return refuse(r)
	}
	if iss, _ := claims.Lookup("iss"); v.issuer != "" && !iss.Is(v.issuer) {
		return refuse(&refusal{why: "its iss is not the configured issuer"})
	}
	return Verdict{Valid: true, Source: FromEndpoint, Learnt: now, Until: named.expires, Claims: claims}, nil
}

// readActive returns what the one member active says. A yes by a name in another
// letter case, or by something that is like true, is none.
func readActive(claims *Claims) (active bool, err error) {
	for name := range claims.Root().Members() {
		if name != "active" && strings.EqualFold(name, "active") {
			return false, errors.New(`the reply has a member "active" in another letter case`)
		}
	}
	member, ok := claims.Lookup("active")
	if !ok {
		return false, errors.New(`the reply has no member "active"`)
	}
	active, ok = member.Bool()
	if !ok {
		return false, errors.New(`the reply's "active" is not a boolean`)
	}
	return active, nil
}
