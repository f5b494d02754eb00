package verifier_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/verifier"
)

// secretOf is a secret that is always the same.
func secretOf(text string) func() ([]byte, error) {
	return func() ([]byte, error) { return []byte(text), nil }
}

func newIntrospection(t testing.TB, o verifier.IntrospectionOptions) *verifier.Introspection {
	t.Helper()
	o.Name = "sso"
	if o.Client.ID == "" && o.Client.Authentication != verifier.NoClientAuthentication {
		o.Client.ID, o.Client.Secret = "gateway", secretOf("secret of the gateway")
	}
	v, err := verifier.NewIntrospection(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

// introspect asks about a token with a fresh endpoint that gives one reply.
func introspect(t *testing.T, o verifier.IntrospectionOptions, reply http.HandlerFunc) (v verifier.Verdict, why string, err error) {
	t.Helper()
	e := startEndpoint(t, nil, reply)
	o.URL = e.URL + "/introspect"
	o.Refused = func(_ bearer.Token, text string) { why = text }
	v, err = newIntrospection(t, o).Verify(t.Context(), newTokens(t).parse(t, "token-to-hide"))
	if err != nil {
		expectHidden(t, err.Error(), "token-to-hide", "secret of the gateway")
	}
	return v, why, err
}

// TestRepliesOfServers: what Keycloak, Hydra and Authentik say.
func TestRepliesOfServers(t *testing.T) {
	for name, want := range map[string]struct {
		why, scope, audience string
	}{
		"keycloak":               {scope: "profile", audience: "orders"},
		"keycloak-inactive":      {why: "not active"},
		"keycloak-refresh-token": {why: "typ"},
		"hydra":                  {scope: "orders:write", audience: "orders"},
		"hydra-inactive":         {why: "not active"},
		"hydra-refresh-token":    {why: "token_use"},
		"authentik":              {scope: "openid", audience: "partner"},
		"authentik-inactive":     {why: "not active"},
	} {
		t.Run(name, func(t *testing.T) {
			reply, err := os.ReadFile(filepath.Join("testdata", "introspection", name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			v, why, err := introspect(t, verifier.IntrospectionOptions{}, replies(http.StatusOK, string(reply)))
			if err != nil || v.Valid != (want.why == "") || !strings.Contains(why, want.why) {
				t.Fatalf("the verdict is %+v, %v: %q", v, err, why)
			}
			if !v.Valid {
				if v.Claims != nil || !v.Until.IsZero() {
					t.Errorf("the refusal is %+v", v)
				}
				return
			}
			client, _ := v.Claims.Lookup("client_id")
			if !v.Claims.HasScope(want.scope) || !v.Claims.HasAudience(want.audience) || !client.Is("partner") || !v.Until.Equal(time.Unix(4102444800, 0)) {
				t.Errorf("the verdict is %+v with %v", v, v.Claims.Root().Value())
			}
		})
	}
}

func TestIntrospectionAnswers(t *testing.T) {
	now := time.Now().Unix()
	for _, c := range []struct {
		name, reply string
		why         string // "" is a yes
		issuer      string
	}{
		{name: "yes", reply: `{"active": true}`},
		{name: "no", reply: `{"active": false}`, why: "not active"},
		{name: "no, with more", reply: `{"active": false, "exp": "soon", "scope": 1}`, why: "not active"},
		{name: "expired all the same", reply: fmt.Sprintf(`{"active": true, "exp": %d}`, now), why: "exp"},
		{name: "not begun", reply: fmt.Sprintf(`{"active": true, "nbf": %d}`, now+120), why: "nbf"},
		{name: "not begun by our clock", reply: fmt.Sprintf(`{"active": true, "nbf": %d}`, now+30)},
		{name: "issued in the future", reply: fmt.Sprintf(`{"active": true, "iat": %d}`, now+120), why: "iat"},
		{name: "a bearer token in another letter case", reply: `{"active": true, "token_type": "bearer"}`},
		{name: "a DPoP token", reply: `{"active": true, "token_type": "DPoP"}`, why: "token_type"},
		{name: "a token bound to a certificate", reply: `{"active": true, "cnf": {"x5t#S256": "x"}}`, why: "cnf"},
		{name: "a type that is no string", reply: `{"active": true, "token_type": null}`, why: "token_type"},
		{name: "the issuer", reply: `{"active": true, "iss": "https://sso.example.com"}`, issuer: "https://sso.example.com"},
		{name: "another issuer", reply: `{"active": true, "iss": "https://sso.example.com/"}`, issuer: "https://sso.example.com", why: "iss"},
		{name: "no issuer", reply: `{"active": true}`, issuer: "https://sso.example.com", why: "iss"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, why, err := introspect(t, verifier.IntrospectionOptions{Issuer: c.issuer}, replies(http.StatusOK, c.reply))
			if err != nil || v.Valid != (c.why == "") || !strings.Contains(why, c.why) {
				t.Errorf("the verdict is %+v, %v: %q", v, err, why)
			}
		})
	}
}

func TestIntrospectionRepliesWithoutAnAnswer(t *testing.T) {
	for _, c := range []struct {
		name    string
		reply   http.HandlerFunc
		problem string
	}{
		{"our credentials are wrong", replies(http.StatusUnauthorized, `{"error":"invalid_client"}`), "own credentials"},
		{"forbidden", replies(http.StatusForbidden, `{"active": true}`), "status 403"},
		{"a fault", replies(http.StatusInternalServerError, `{"active": true}`), "status 500"},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/other", http.StatusFound) }, "redirect"},
		{"nothing", replies(http.StatusOK, ``), "broken"},
		{"an empty object", replies(http.StatusOK, `{}`), `no member "active"`},
		{"a page", replies(http.StatusOK, `<html>`), "broken"},
		{"a list", replies(http.StatusOK, `[{"active": true}]`), "not a JSON object"},
		{"a text", replies(http.StatusOK, `{"active": "true"}`), "not a boolean"},
		{"a number", replies(http.StatusOK, `{"active": 1}`), "not a boolean"},
		{"null", replies(http.StatusOK, `{"active": null}`), "not a boolean"},
		{"no and yes", replies(http.StatusOK, `{"active": false, "active": true}`), "twice"},
		{"yes and no", replies(http.StatusOK, `{"active": true, "active": false}`), "twice"},
		{"no and a yes in another letter case", replies(http.StatusOK, `{"active": false, "Active": true}`), "another letter case"},
		{"a yes in another letter case", replies(http.StatusOK, `{"ACTIVE": true}`), "another letter case"},
		{"a yes, and one in another letter case", replies(http.StatusOK, `{"active": true, "activE": true}`), "another letter case"},
		{"a yes deeper down", replies(http.StatusOK, `{"data": {"active": true}}`), `no member "active"`},
		{"something behind it", replies(http.StatusOK, `{"active": true}{"active": false}`), "broken"},
		{"cut off", replies(http.StatusOK, `{"active": true, "scope": "a`), "broken"},
		{"not UTF-8", replies(http.StatusOK, "{\"active\": true, \"sub\": \"\xff\"}"), "UTF-8"},
		{"an end in words", replies(http.StatusOK, `{"active": true, "exp": "4102444800"}`), "exp is not a number"},
		{"claims without bounds", replies(http.StatusOK, `{"active": true, "sub": "`+strings.Repeat("x", 16<<10)+`"}`), "more than 16384 bytes"},
		{"no end of a reply", replies(http.StatusOK, `{"active": true}`+strings.Repeat(" ", 64<<10)), "longer than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, _, err := introspect(t, verifier.IntrospectionOptions{}, c.reply)
			none, ok := errors.AsType[*verifier.NoAnswer](err)
			if !ok || none.Verifier != "sso" || !strings.Contains(err.Error(), c.problem) || v != (verifier.Verdict{}) {
				t.Errorf("the verdict is %+v, %v", v, err)
			}
		})
	}
}

// form returns the fields of a question.
func (q *question) form(t *testing.T) url.Values {
	t.Helper()
	if got := q.header.Get("Content-Type"); got != "application/x-www-form-urlencoded" {
		t.Errorf("the question's type is %q", got)
	}
	form, err := url.ParseQuery(string(q.body))
	if err != nil {
		t.Fatal(err)
	}
	return form
}

func TestClientAuthentication(t *testing.T) {
	const id, secret = "client:1 ü", "p+w%:d &é"
	for _, c := range []struct {
		authentication verifier.ClientAuthentication
		header         string
		fields         url.Values
	}{
		{"", "Basic " + base64.StdEncoding.EncodeToString([]byte("client%3A1+%C3%BC:p%2Bw%25%3Ad+%26%C3%A9")), url.Values{}},
		{verifier.ClientSecretBasic, "Basic " + base64.StdEncoding.EncodeToString([]byte("client%3A1+%C3%BC:p%2Bw%25%3Ad+%26%C3%A9")), url.Values{}},
		{verifier.ClientSecretPost, "", url.Values{"client_id": {id}, "client_secret": {secret}}},
		{verifier.NoClientAuthentication, "", url.Values{}},
	} {
		t.Run(string(c.authentication), func(t *testing.T) {
			e := startEndpoint(t, nil, replies(http.StatusOK, `{"active": true}`))
			v := newIntrospection(t, verifier.IntrospectionOptions{
				URL: e.URL + "/introspect?realm=1", TokenTypeHint: "access_token",
				Client: verifier.ClientCredentials{Authentication: c.authentication, ID: id, Secret: secretOf(secret)},
			})
			if verdict, err := v.Verify(t.Context(), newTokens(t).parse(t, "a+b/c=")); err != nil || !verdict.Valid {
				t.Fatal(verdict, err)
			}
			q := e.asked()[0]
			c.fields.Set("token", "a+b/c=")
			c.fields.Set("token_type_hint", "access_token")
			if got := q.form(t); got.Encode() != c.fields.Encode() {
				t.Errorf("the fields are %v, want %v", got, c.fields)
			}
			if q.method != http.MethodPost || q.target != "/introspect?realm=1" || q.header.Get("Authorization") != c.header || q.header.Get("Accept") != "application/json" {
				t.Errorf("the question is %+v", q)
			}
		})
	}
}

// TestPrivateKeyJWT: each question brings a statement of its own (RFC 7523 §3).
func TestPrivateKeyJWT(t *testing.T) {
	pkcs8 := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	keys := newKeys()
	rsaKey, ecKey := keys["RS256"].key.(*rsa.PrivateKey), keys["ES256"].key.(*ecdsa.PrivateKey)
	sec1, err := x509.MarshalECPrivateKey(ecKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, kind, audience string
		pem                  []byte
	}{
		{"RSA", "RS256", "", pkcs8(rsaKey)},
		{"RSA in PKCS 1", "RS256", "", pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)})},
		{"ECDSA", "ES256", "https://sso.example.com", pkcs8(ecKey)},
		{"ECDSA in SEC 1", "ES256", "", pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})},
		{"Ed25519", "EdDSA", "", pkcs8(keys["EdDSA"].key)},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := startEndpoint(t, nil, replies(http.StatusOK, `{"active": true}`))
			v := newIntrospection(t, verifier.IntrospectionOptions{URL: e.URL + "/introspect", Client: verifier.ClientCredentials{
				Authentication: verifier.PrivateKeyJWT, ID: "gateway", Secret: secretOf(string(c.pem)), KeyID: "key-1", Audience: c.audience,
			}})
			want := c.audience
			if want == "" {
				want = e.URL + "/introspect"
			}
			seen := map[string]bool{}
			for range 2 {
				if verdict, err := v.Verify(t.Context(), newTokens(t).parse(t, "x")); err != nil || !verdict.Valid {
					t.Fatal(verdict, err)
				}
				asked := e.asked()
				form := asked[len(asked)-1].form(t)
				if form.Get("client_id") != "gateway" || form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" || form.Has("client_secret") {
					t.Errorf("the fields are %v", form)
				}
				header, claims := readStatement(t, form.Get("client_assertion"), keys[c.kind].key.Public())
				if header["alg"] != c.kind || header["kid"] != "key-1" {
					t.Errorf("the header is %v", header)
				}
				iat, exp := claims["iat"].(float64), claims["exp"].(float64)
				if claims["iss"] != "gateway" || claims["sub"] != "gateway" || claims["aud"] != want || exp-iat > 60 || exp <= float64(time.Now().Unix()) {
					t.Errorf("the claims are %v", claims)
				}
				jti, _ := claims["jti"].(string)
				if len(jti) < 20 || seen[jti] {
					t.Errorf("the id is %q", jti)
				}
				seen[jti] = true
			}
		})
	}
}

// readStatement checks a signature with the standard library.
func readStatement(t *testing.T, statement string, key crypto.PublicKey) (header, claims map[string]any) {
	t.Helper()
	parts := strings.Split(statement, ".")
	if len(parts) != 3 {
		t.Fatalf("the statement has %d parts", len(parts))
	}
	raw := make([][]byte, 3)
	for i, text := range parts {
		var err error
		if raw[i], err = base64.RawURLEncoding.DecodeString(text); err != nil {
			t.Fatal(err)
		}
	}
	signed := []byte(parts[0] + "." + parts[1])
	sum := sha256.Sum256(signed)
	good := false
	switch key := key.(type) {
	case *rsa.PublicKey:
		good = rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], raw[2]) == nil
	case *ecdsa.PublicKey:
		good = ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(raw[2][:32]), new(big.Int).SetBytes(raw[2][32:]))
	case ed25519.PublicKey:
		good = ed25519.Verify(key, signed, raw[2])
	}
	if !good {
		t.Error("the signature is not good")
	}
	if json.Unmarshal(raw[0], &header) != nil || json.Unmarshal(raw[1], &claims) != nil {
		t.Error("the statement is not JSON")
	}
	return header, claims
}

// TestSecretsThatChange are used at once, and again when the endpoint says that the
// old one is wrong.
func TestSecretsThatChange(t *testing.T) {
	var current atomic.Value
	current.Store("first")
	var reads atomic.Int64
	e := startEndpoint(t, nil, func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != current.Load() {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, `{"active": true}`)
	})
	var mine atomic.Value
	mine.Store("first")
	onRead := func() {}
	v := newIntrospection(t, verifier.IntrospectionOptions{URL: e.URL, Client: verifier.ClientCredentials{ID: "gateway", Secret: func() ([]byte, error) {
		defer onRead()
		reads.Add(1)
		if text := mine.Load().(string); text != "" {
			return []byte(text), nil
		}
		return nil, errors.New("the file is gone")
	}}})
	ask := func(want string, questions int) {
		t.Helper()
		before := len(e.asked())
		verdict, err := v.Verify(t.Context(), newTokens(t).parse(t, "x"))
		got := fmt.Sprint(verdict.Valid)
		if err != nil {
			got = err.Error()
			expectHidden(t, got, "first", "second")
		}
		if !strings.Contains(got, want) || len(e.asked())-before != questions {
			t.Errorf("the verdict is %s after %d questions, want %s after %d", got, len(e.asked())-before, want, questions)
		}
	}
	ask("true", 1)
	current.Store("second")
	mine.Store("second")
	ask("true", 1)
	// It changes while the question is under way.
	current.Store("third")
	onRead = func() { mine.Store("third") }
	ask("true", 2)
	onRead = func() {}
	current.Store("fourth")
	ask("own credentials", 1)
	mine.Store("")
	ask("cannot be read: the file is gone", 0)
}

func TestPrivateKeysThatAreNone(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(small)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"nothing":       "",
		"no PEM":        "secret of the gateway",
		"broken":        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
		"too short":     string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		"a certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
	} {
		t.Run(name, func(t *testing.T) {
			v, _, err := introspect(t, verifier.IntrospectionOptions{Client: verifier.ClientCredentials{
				Authentication: verifier.PrivateKeyJWT, ID: "gateway", Secret: secretOf(text),
			}}, replies(http.StatusOK, `{"active": true}`))
			if _, ok := errors.AsType[*verifier.NoAnswer](err); !ok || !strings.Contains(err.Error(), "private key") {
				t.Errorf("the verdict is %+v, %v", v, err)
			}
		})
	}
}

// TestSignedAnswers (RFC 9701).
func TestSignedAnswers(t *testing.T) {
	keys := newKeys()
	now := time.Now().Unix()
	answer := func(key string, header, claims object) string {
		return keys[key].sign(t, changes{"alg": keys[key].alg, "kid": keys[key].kid, "typ": "token-introspection+jwt"}.with(header),
			changes{"iss": issuerName, "aud": "gateway", "iat": now, "token_introspection": object{"active": true, "scope": "orders:read", "exp": now + 60}}.with(claims))
	}
	for _, c := range []struct {
		name, reply, problem string
		valid                bool
	}{
		{name: "yes", reply: answer("RS256", nil, nil), valid: true},
		{name: "yes, and a line end", reply: answer("RS256", nil, nil) + "\n", valid: true},
		{name: "no", reply: answer("RS256", nil, object{"token_introspection": object{"active": false}})},
		{name: "expired", reply: answer("RS256", nil, object{"token_introspection": object{"active": true, "exp": now - 1}})},
		{name: "not signed", reply: `{"active": true}`, problem: "signed JWT"},
		{name: "signed by another", reply: answer("other", nil, nil), problem: "signature"},
		{name: "signed by nobody", reply: part(t, `{"alg":"none","typ":"token-introspection+jwt"}`) + "." + part(t, `{}`) + ".", problem: "algorithm"},
		{name: "an access token in place of an answer", reply: answer("RS256", object{"typ": "at+jwt"}, nil), problem: "typ"},
		{name: "without a type", reply: answer("RS256", object{"typ": nil}, nil), problem: "typ"},
		{name: "of another server", reply: answer("RS256", nil, object{"iss": "https://evil.example.com"}), problem: "iss"},
		{name: "for another client", reply: answer("RS256", nil, object{"aud": "other"}), problem: "aud"},
		{name: "an old one", reply: answer("RS256", nil, object{"iat": now - 120}), problem: "iat"},
		{name: "one of the future", reply: answer("RS256", nil, object{"iat": now + 120}), problem: "iat"},
		{name: "without a time", reply: answer("RS256", nil, object{"iat": nil}), problem: "iat"},
		{name: "with the answer beside its place", reply: answer("RS256", nil, object{"token_introspection": nil, "active": true}), problem: "token_introspection"},
		{name: "with no object in its place", reply: answer("RS256", nil, object{"token_introspection": "active"}), problem: "token_introspection"},
		{name: "with nothing in its place", reply: answer("RS256", nil, object{"active": true, "token_introspection": object{}}), problem: `no member "active"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			set := newKeySet(t, verifier.KeySetOptions{Read: fromText(keySet(keys["RS256"]))})
			defer set.Close()
			v, _, err := introspect(t, verifier.IntrospectionOptions{Signed: &verifier.SignedAnswers{
				Keys: set, Algorithms: []string{"RS256"}, Issuer: issuerName, Audience: "gateway",
			}}, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Accept") != "application/token-introspection+jwt" {
					t.Errorf("it accepts %q", r.Header.Get("Accept"))
				}
				_, _ = io.WriteString(w, c.reply)
			})
			if c.problem != "" {
				if _, ok := errors.AsType[*verifier.NoAnswer](err); !ok || !strings.Contains(err.Error(), c.problem) {
					t.Errorf("the verdict is %+v, %v", v, err)
				}
				return
			}
			if err != nil || v.Valid != c.valid || v.Valid && (!v.Claims.HasScope("orders:read") || v.Claims.Root().Len() != 3) {
				t.Errorf("the verdict is %+v, %v", v, err)
			}
		})
	}
}

func TestIntrospectionOptionsThatMakeNoSense(t *testing.T) {
	for name, change := range map[string]func(*verifier.IntrospectionOptions){
		"no URL":           func(o *verifier.IntrospectionOptions) { o.URL = "" },
		"a URL in clear":   func(o *verifier.IntrospectionOptions) { o.URL = "http://sso.example.com" },
		"no client":        func(o *verifier.IntrospectionOptions) { o.Client.ID = "" },
		"no secret":        func(o *verifier.IntrospectionOptions) { o.Client.Secret = nil },
		"an unknown way":   func(o *verifier.IntrospectionOptions) { o.Client.Authentication = "tls_client_auth" },
		"signed by nobody": func(o *verifier.IntrospectionOptions) { o.Signed = &verifier.SignedAnswers{} },
		"signed by any method": func(o *verifier.IntrospectionOptions) {
			o.Signed = &verifier.SignedAnswers{Keys: &verifier.KeySet{}, Issuer: "a", Audience: "b"}
		},
	} {
		o := verifier.IntrospectionOptions{Name: "sso", URL: "https://sso.example.com", Client: verifier.ClientCredentials{ID: "a", Secret: secretOf("b")}}
		change(&o)
		if _, err := verifier.NewIntrospection(o); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
