package verifier

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// maxJOSEHeader is how long the header of a signed statement is at most, encoded. It
// is all that is read before the signature is known to be good.
const maxJOSEHeader = 4 << 10

// Algorithms are the signature algorithms that can be named, all of them with a
// public key (RFC 7518 §3.1, RFC 8037 §3.1): a shared secret could be mixed up with
// one, and none is no signature.
func Algorithms() []string {
	return []string{
		"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
	}
}

// signatures tells who signed what. It may be used concurrently.
type signatures struct {
	keys       *KeySet
	algorithms []jose.SignatureAlgorithm
}

func newSignatures(keys *KeySet, algorithms []string) (*signatures, error) {
	if len(algorithms) == 0 {
		return nil, fmt.Errorf("no signature algorithm is named; name at least one of %s", strings.Join(Algorithms(), ", "))
	}
	s := &signatures{keys: keys}
	for _, name := range algorithms {
		if !slices.Contains(Algorithms(), name) {
			return nil, fmt.Errorf("the signature algorithm %q is not one of %s", name, strings.Join(Algorithms(), ", "))
		}
		s.algorithms = append(s.algorithms, jose.SignatureAlgorithm(name))
	}
	return s, nil
}

// check returns the header and the claims of a JWT (RFC 7519 §7.2) whose signature is
// good, or why it is none. The error says that nobody could tell.
//
// Of the key the header names only the id: it cannot bring its own (jwk, x5c), nor
// say where there is one (jku, x5u). Nothing but the header is read before the
// signature is found good.
func (s *signatures) check(ctx context.Context, token string) (header, claims *Claims, _ *refusal, err error) {
	head, rest, _ := strings.Cut(token, ".")
	payload, signature, ok := strings.Cut(rest, ".")
	switch {
	case !ok || strings.Contains(signature, "."):
		return nil, nil, &refusal{why: "it is no signed JWT"}, nil
	case len(head) > maxJOSEHeader:
		return nil, nil, &refusal{why: "its header is too long"}, nil
	case !isBase64(head) || !isBase64(payload) || !isBase64(signature):
		return nil, nil, &refusal{why: "it is not in base64url"}, nil
	}
	header, err = decodeClaims(head)
	if err != nil {
		return nil, nil, &refusal{why: "its header is not well formed"}, nil //nolint:nilerr // nobody signs such a thing
	}
	// RFC 7515 §4.1.11: an extension that is not understood. That goes for all, also
	// for the one that changes what is signed (b64, RFC 7797).
	for _, name := range []string{"crit", "b64"} {
		if _, ok := header.Lookup(name); ok {
			return nil, nil, &refusal{why: "its header wants an extension (" + name + ")"}, nil
		}
	}
	alg, _ := header.Lookup("alg")
	name, _ := alg.Text()
	algorithm := jose.SignatureAlgorithm(name)
	if !slices.Contains(s.algorithms, algorithm) {
		return nil, nil, &refusal{why: "its algorithm is not one of those configured"}, nil
	}
	kid := ""
	if id, ok := header.Lookup("kid"); ok {
		if kid, ok = id.Text(); !ok || kid == "" {
			return nil, nil, &refusal{why: "its kid is not a name"}, nil
		}
	}
	keys, refused, err := s.keys.find(ctx, kid, algorithm)
	if err != nil || refused != nil {
		return nil, nil, refused, err
	}
	signed, err := jose.ParseSignedCompact(token, s.algorithms)
	if err != nil {
		return nil, nil, &refusal{why: "its header is not well formed"}, nil //nolint:nilerr // nobody signs such a thing
	}
	for _, key := range keys {
		content, err := signed.Verify(key)
		if err != nil {
			continue
		}
		claims, err := ParseClaims(content)
		if err != nil {
			return nil, nil, &refusal{why: "it cannot be read: " + err.Error()}, nil //nolint:nilerr // it stays so, whoever reads it again
		}
		return header, claims, nil, nil
	}
	return nil, nil, &refusal{why: "its signature is not good"}, nil
}

// isBase64 reports whether a part of a JWT is written in the one way there is
// (RFC 7515 §2): others would be other tokens that mean the same.
func isBase64(part string) bool {
	_, err := strictBase64.DecodeString(part)
	return err == nil && !strings.ContainsAny(part, "\r\n")
}

var strictBase64 = base64.RawURLEncoding.Strict()

func decodeClaims(part string) (*Claims, error) {
	text, err := strictBase64.DecodeString(part)
	if err != nil {
		return nil, err
	}
	return ParseClaims(text)
}

// mediaType returns the typ of a header in one form (RFC 7515 §4.1.9).
func mediaType(typ string) string {
	return strings.TrimPrefix(strings.ToLower(typ), "application/")
}

// fits reports whether a key is made for an algorithm.
func fits(key any, algorithm jose.SignatureAlgorithm) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return strings.HasPrefix(string(algorithm), "RS") || strings.HasPrefix(string(algorithm), "PS")
	case *ecdsa.PublicKey:
		return curves[key.Curve.Params().Name] == algorithm
	case ed25519.PublicKey:
		return algorithm == jose.EdDSA
	default:
		return false
	}
}
