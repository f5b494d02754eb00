package verifier_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bearergate/bearergate/verifier"
)

// signingKey is a key of an issuer. It signs with the standard library alone, so
// that what checks its signatures is not judged by itself.
type signingKey struct {
	kid, alg string
	key      crypto.Signer
}

// newKeys makes one key of each kind, once: RSA keys take their time.
var newKeys = sync.OnceValue(func() map[string]*signingKey {
	rsaKey := func() *rsa.PrivateKey { k, _ := rsa.GenerateKey(rand.Reader, 2048); return k }
	ec, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	return map[string]*signingKey{
		"RS256": {"rsa-1", "RS256", rsaKey()},
		"ES256": {"ec-1", "ES256", ec},
		"EdDSA": {"ed-1", "EdDSA", ed},
		"other": {"rsa-1", "RS256", rsaKey()}, // has the id of another one
		"new":   {"rsa-2", "RS256", rsaKey()},
	}
})

func part(t testing.TB, value any) string {
	t.Helper()
	if text, ok := value.(string); ok {
		return base64.RawURLEncoding.EncodeToString([]byte(text))
	}
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// sign makes a JWT. Header and claims are strings or are marshalled.
func (k *signingKey) sign(t testing.TB, header, claims any) string {
	t.Helper()
	signed := part(t, header) + "." + part(t, claims)
	return signed + "." + base64.RawURLEncoding.EncodeToString(k.signature(t, signed))
}

func (k *signingKey) signature(t testing.TB, signed string) []byte {
	t.Helper()
	sum := sha256.Sum256([]byte(signed))
	var signature []byte
	var err error
	switch key := k.key.(type) {
	case *rsa.PrivateKey:
		signature, err = rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	case *ecdsa.PrivateKey:
		r, s, err1 := ecdsa.Sign(rand.Reader, key, sum[:])
		signature, err = make([]byte, 64), err1
		r.FillBytes(signature[:32])
		s.FillBytes(signature[32:])
	case ed25519.PrivateKey:
		signature = ed25519.Sign(key, []byte(signed))
	}
	if err != nil {
		t.Fatal(err)
	}
	return signature
}

// jwk returns the public key as RFC 7517 wants it.
func (k *signingKey) jwk() map[string]any {
	b64 := base64.RawURLEncoding.EncodeToString
	jwk := map[string]any{"kid": k.kid, "alg": k.alg, "use": "sig"}
	switch key := k.key.Public().(type) {
	case *rsa.PublicKey:
		maps.Copy(jwk, map[string]any{"kty": "RSA", "n": b64(key.N.Bytes()), "e": "AQAB"})
	case *ecdsa.PublicKey:
		point, _ := key.Bytes()
		maps.Copy(jwk, map[string]any{"kty": "EC", "crv": "P-256", "x": b64(point[1:33]), "y": b64(point[33:])})
	case ed25519.PublicKey:
		maps.Copy(jwk, map[string]any{"kty": "OKP", "crv": "Ed25519", "x": b64(key)})
	}
	return jwk
}

func keySet(keys ...*signingKey) string {
	list := make([]any, 0, len(keys))
	for _, k := range keys {
		list = append(list, k.jwk())
	}
	text, _ := json.Marshal(map[string]any{"keys": list})
	return string(text)
}

// hmacWith signs with a public key as the secret: the old trick with HS256.
func hmacWith(t testing.TB, secret []byte, header, claims any) string {
	t.Helper()
	signed := part(t, header) + "." + part(t, claims)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(signed))
	return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// issuer is an authorization server on loopback, as far as a key set needs one.
type issuer struct {
	*endpoint
	set    atomic.Pointer[string]
	status atomic.Int64
}

func startIssuer(t *testing.T, keys ...*signingKey) *issuer {
	t.Helper()
	i := &issuer{}
	i.publish(keys...)
	i.status.Store(http.StatusOK)
	i.endpoint = startEndpoint(t, nil, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case i.status.Load() != http.StatusOK:
			w.WriteHeader(int(i.status.Load()))
		case r.URL.Path == "/keys":
			_, _ = w.Write([]byte(*i.set.Load()))
		case r.URL.Path == "/oidc/.well-known/openid-configuration", r.URL.Path == "/.well-known/oauth-authorization-server/oauth":
			path := strings.Trim(strings.NewReplacer("/.well-known/openid-configuration", "", "/.well-known/oauth-authorization-server", "").Replace(r.URL.Path), "/")
			_ = json.NewEncoder(w).Encode(map[string]string{"issuer": i.URL + "/" + path, "jwks_uri": i.URL + "/keys"})
		case r.URL.Path == "/wrong/.well-known/openid-configuration":
			_ = json.NewEncoder(w).Encode(map[string]string{"issuer": i.URL + "/other", "jwks_uri": i.URL + "/keys"})
		case r.URL.Path == "/plain/.well-known/openid-configuration":
			_ = json.NewEncoder(w).Encode(map[string]string{"issuer": i.URL + "/plain", "jwks_uri": "http://192.0.2.1/keys"})
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
	return i
}

func (i *issuer) publish(keys ...*signingKey) {
	text := keySet(keys...)
	i.set.Store(&text)
}

func newKeySet(t testing.TB, o verifier.KeySetOptions) *verifier.KeySet {
	t.Helper()
	o.Name = "sso"
	if o.RefreshEvery == 0 {
		o.RefreshEvery = time.Minute
	}
	if o.MaxAge == 0 {
		o.MaxAge = time.Hour
	}
	if o.Pause == 0 {
		o.Pause = 5 * time.Second
	}
	if o.Timeout == 0 {
		o.Timeout = patience
	}
	k, err := verifier.NewKeySet(o)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// fromText is a key set that is at hand.
func fromText(text string) func() ([]byte, error) {
	return func() ([]byte, error) { return []byte(text), nil }
}
