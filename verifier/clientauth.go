package verifier

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// ClientAuthentication is how the gateway says who it is (RFC 7662 §2.1).
type ClientAuthentication string

const (
	// ClientSecretBasic sends id and secret by HTTP Basic (RFC 6749 §2.3.1).
	ClientSecretBasic ClientAuthentication = "client_secret_basic"
	// ClientSecretPost sends id and secret as form fields (RFC 6749 §2.3.1).
	ClientSecretPost ClientAuthentication = "client_secret_post"
	// PrivateKeyJWT signs a short-lived statement (RFC 7523 §2.2).
	PrivateKeyJWT ClientAuthentication = "private_key_jwt"
	// NoClientAuthentication is for an endpoint that only the gateway can reach.
	NoClientAuthentication ClientAuthentication = "none"
)

// ClientCredentials are what the gateway shows to an introspection endpoint.
type ClientCredentials struct {
	// Authentication is how; "" means ClientSecretBasic.
	Authentication ClientAuthentication
	// ID is the client_id. It is needed, except with NoClientAuthentication.
	ID string
	// Secret returns the client's secret, or its private key in PEM. It is called for
	// each question, so that one that was changed is used at once. What it returns is
	// not kept, and its error names no more than the place.
	Secret func() ([]byte, error)
	// KeyID stands in the header of what PrivateKeyJWT signs; "" for none.
	KeyID string
	// Audience is for whom PrivateKeyJWT signs; "" means the endpoint's URL.
	Audience string
}

// assertionLife is how long a signed statement is good: for one question.
const assertionLife = time.Minute

// clientAuth puts the credentials into questions. It may be used concurrently.
type clientAuth struct {
	ClientCredentials

	mu  sync.Mutex
	pem []byte // what signer was made of
	key any    // the private key, because to read it takes longer than to sign
}

func newClientAuth(c ClientCredentials) (*clientAuth, error) {
	switch c.Authentication {
	case "":
		c.Authentication = ClientSecretBasic
	case ClientSecretBasic, ClientSecretPost, PrivateKeyJWT:
	case NoClientAuthentication:
		return &clientAuth{ClientCredentials: c}, nil
	default:
		return nil, fmt.Errorf("unknown client authentication %q", c.Authentication)
	}
	if c.ID == "" || c.Secret == nil {
		return nil, fmt.Errorf("client authentication by %s needs a client id and a secret", c.Authentication)
	}
	return &clientAuth{ClientCredentials: c}, nil
}

// secret returns what the client proves itself with, nil if with nothing.
func (a *clientAuth) secret() ([]byte, error) {
	if a.Authentication == NoClientAuthentication {
		return nil, nil
	}
	return a.Secret()
}

// add puts the credentials into a question that is a form.
func (a *clientAuth) add(q *question, form url.Values, secret []byte, now time.Time) error {
	switch a.Authentication {
	case ClientSecretBasic:
		// RFC 6749 §2.3.1: both are form-urlencoded before they are joined.
		pair := url.QueryEscape(a.ID) + ":" + url.QueryEscape(string(secret))
		q.authorization = "Basic " + base64.StdEncoding.EncodeToString([]byte(pair))
	case ClientSecretPost:
		form.Set("client_id", a.ID)
		form.Set("client_secret", string(secret))
	case PrivateKeyJWT:
		statement, err := a.sign(q.url, secret, now)
		if err != nil {
			return err
		}
		form.Set("client_id", a.ID)
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", statement)
	case NoClientAuthentication:
	}
	return nil
}

// sign writes the statement that RFC 7523 §3 asks for.
func (a *clientAuth) sign(endpoint string, secret []byte, now time.Time) (string, error) {
	key, err := a.privateKey(secret)
	if err != nil {
		return "", err
	}
	algorithm, err := algorithmFor(key)
	if err != nil {
		return "", err
	}
	options := (&jose.SignerOptions{}).WithType("JWT")
	if a.KeyID != "" {
		options = options.WithHeader("kid", a.KeyID)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, options)
	if err != nil {
		return "", errors.New("the private key cannot sign")
	}
	audience := a.Audience
	if audience == "" {
		audience = endpoint
	}
	payload, err := json.Marshal(map[string]any{
		"iss": a.ID, "sub": a.ID, "aud": audience, "jti": rand.Text(),
		"iat": now.Unix(), "exp": now.Add(assertionLife).Unix(),
	})
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", errors.New("the private key cannot sign")
	}
	return signed.CompactSerialize()
}

func (a *clientAuth) privateKey(text []byte) (any, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.key != nil && bytes.Equal(a.pem, text) {
		return a.key, nil
	}
	key, err := ParsePrivateKey(text)
	if err != nil {
		return nil, err
	}
	a.pem, a.key = bytes.Clone(text), key
	return key, nil
}

// ParsePrivateKey reads a private key for PrivateKeyJWT: PEM with PKCS #8, PKCS #1
// or SEC 1 in it, RSA of at least 2048 bits, ECDSA, or Ed25519. Errors hold nothing of it.
func ParsePrivateKey(text []byte) (any, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("the private key is not in PEM format")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		if rsaKey, err1 := x509.ParsePKCS1PrivateKey(block.Bytes); err1 == nil {
			key, err = rsaKey, nil
		} else if ecKey, err1 := x509.ParseECPrivateKey(block.Bytes); err1 == nil {
			key, err = ecKey, nil
		}
	}
	if err != nil {
		return nil, errors.New("the private key cannot be read; export it again, without a password, as PKCS #8 in PEM format")
	}
	if _, err := algorithmFor(key); err != nil {
		return nil, err
	}
	return key, nil
}

// algorithmFor returns the algorithm that a private key signs with.
func algorithmFor(key any) (jose.SignatureAlgorithm, error) {
	switch key := key.(type) {
	case *rsa.PrivateKey:
		if key.N.BitLen() < minRSABits {
			return "", fmt.Errorf("the private key has less than %d bits", minRSABits)
		}
		return jose.RS256, nil
	case *ecdsa.PrivateKey:
		if algorithm, ok := curves[key.Curve.Params().Name]; ok {
			return algorithm, nil
		}
	case ed25519.PrivateKey:
		return jose.EdDSA, nil
	}
	return "", errors.New("the private key is of a kind that is not used: want RSA, ECDSA with P-256, P-384 or P-521, or Ed25519")
}

// minRSABits is the least length of an RSA key (RFC 7518 §3.3).
const minRSABits = 2048

// curves are the algorithms of the curves, one each (RFC 7518 §3.4).
var curves = map[string]jose.SignatureAlgorithm{
	"P-256": jose.ES256, "P-384": jose.ES384, "P-521": jose.ES512,
}
