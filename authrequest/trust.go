package authrequest

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/policy"
)

// Trust says what a listener believes of what stands in a request. Whatever a
// client can write itself, because the edge does not set it on every request, is
// not to be believed.
type Trust struct {
	// Original is where the edge says what it was asked itself.
	Original Original
	// Policy is where the edge names the policy, if it does.
	Policy PolicyFrom
	// Secret, if it is not empty, is what the header X-Bearergate-Edge must hold, or
	// else the request is not the edge's.
	Secret string
	// Client, if it is set, says whether the client certificate of a connection, which
	// was verified, is an edge's. A connection without one is nobody's.
	Client func(*x509.Certificate) bool
	// ClientFrom is where the edge says from where a request comes, for the operator to
	// see.
	ClientFrom ClientFrom
	// Peers, if there are any, are the addresses of edges; others are refused.
	Peers []netip.Prefix
}

// Original is where an edge says what it was asked.
type Original uint8

const (
	// NoOriginal means that it does not say, or cannot be believed.
	NoOriginal Original = iota
	// XOriginal means X-Original-URI, X-Original-Method and X-Original-Host.
	XOriginal
	// XForwarded means X-Forwarded-Uri, X-Forwarded-Method and X-Forwarded-Host.
	XForwarded
	// AsAsked means that the edge asks as it was asked: with the same method and Host,
	// and the path behind the prefix, as Envoy's HTTP ext_authz does.
	AsAsked
)

// PolicyFrom is where an edge names a policy.
type PolicyFrom uint8

const (
	// NoPolicy means that it names none.
	NoPolicy PolicyFrom = iota
	// PolicyFromPath means the one segment behind the prefix: /auth/partners.
	PolicyFromPath
	// PolicyFromHeader means X-Bearergate-Policy.
	PolicyFromHeader
)

// Headers by which edges speak to this one.
const (
	PolicyHeader = "X-Bearergate-Policy"
	SecretHeader = "X-Bearergate-Edge" //nolint:gosec // the name, not the secret
)

// trust is a Trust, made ready.
type trust struct {
	Trust

	needs                gate.Needs
	secret               [sha256.Size]byte
	method, host, target string // the headers
}

func newTrust(t Trust, needs gate.Needs) trust {
	made := trust{Trust: t, needs: needs, secret: sha256.Sum256([]byte(t.Secret))}
	switch t.Original {
	case XOriginal:
		made.method, made.host, made.target = "X-Original-Method", "X-Original-Host", "X-Original-Uri"
	case XForwarded:
		made.method, made.host, made.target = "X-Forwarded-Method", "X-Forwarded-Host", "X-Forwarded-Uri"
	case NoOriginal, AsAsked:
	}
	return made
}

// Why a request is not believed. They hold nothing of it.
var (
	errNoSecret = errors.New("the request does not have the one header " + SecretHeader + " with the secret of the edge; see trust.secret of the listener")
	errClient   = errors.New("the connection has no client certificate with a name of trust.client_names")
	errPeer     = errors.New("the request does not come from an address of trust.peers")
	errNotAsked = errors.New("the path does not begin with " + Prefix + " and a slash")
)

// check reports whether a request comes from the edge.
func (t *trust) check(r *http.Request) error {
	if t.Secret != "" {
		values := r.Header[SecretHeader]
		if len(values) != 1 {
			return errNoSecret
		}
		// Digests have one length, so the time tells nothing of the secret's.
		if got := sha256.Sum256([]byte(values[0])); subtle.ConstantTimeCompare(got[:], t.secret[:]) != 1 {
			return errNoSecret
		}
	}
	if t.Client != nil {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 || !t.Client(r.TLS.VerifiedChains[0][0]) {
			return errClient
		}
	}
	if len(t.Peers) == 0 {
		return nil
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return errPeer
	}
	for _, peer := range t.Peers {
		if peer.Contains(from.Addr().Unmap()) {
			return nil
		}
	}
	return errPeer
}

// facts returns what the gate needs to know of a request. What the edge does not
// say once is an error: it would be the client's word, or nobody's.
func (t *trust) facts(r *http.Request) (f policy.Facts, err error) {
	if t.needs.Policy {
		if err := t.policy(r, &f); err != nil {
			return f, err
		}
	}
	if t.Original == AsAsked {
		f.Method, f.Host = r.Method, r.Host
		rest, ok := strings.CutPrefix(r.RequestURI, Prefix)
		if !ok || rest == "" || rest[0] != '/' {
			return f, errNotAsked
		}
		f.Path, _, _ = strings.Cut(rest, "?")
		return f, nil
	}
	if t.needs.Method {
		if f.Method, err = one(r, t.method); err != nil {
			return f, err
		}
	}
	if t.needs.Host {
		if f.Host, err = one(r, t.host); err != nil {
			return f, err
		}
	}
	if t.needs.Path {
		if f.Path, err = one(r, t.target); err != nil {
			return f, err
		}
		f.Path, _, _ = strings.Cut(f.Path, "?")
	}
	return f, nil
}

// policy finds the policy that the edge names.
func (t *trust) policy(r *http.Request, f *policy.Facts) error {
	switch t.Policy {
	case PolicyFromPath:
		name := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, Prefix), "/")
		f.Policy, f.Named = name, name != ""
	case PolicyFromHeader:
		switch values := r.Header[PolicyHeader]; len(values) {
		case 0:
		case 1:
			f.Policy, f.Named = values[0], true
		default:
			return fmt.Errorf("the edge sends %s more than once", PolicyHeader)
		}
	case NoPolicy:
	}
	return nil
}

// one returns the value of a header that must be there once.
func one(r *http.Request, name string) (string, error) {
	if name == "" {
		return "", errors.New("nothing that the edge says is believed; set trust.original")
	}
	values := r.Header[name]
	if len(values) != 1 {
		return "", fmt.Errorf("the edge sends %s %d times; it must set it on every request", name, len(values))
	}
	return values[0], nil
}
