package verifier_test

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"maps"
	"math/big"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/verifier"
)

const issuerName = "https://sso.example.com/realms/partners"

// object is a JSON object that a test writes down.
type object = map[string]any

type changes object

// with returns an object with some members changed; nil takes one out.
func (o changes) with(more object) object {
	all := object{}
	maps.Copy(all, o)
	for name, value := range more {
		if value == nil {
			delete(all, name)
		} else {
			all[name] = value
		}
	}
	return all
}

// goodClaims are those of an access token as RFC 9068 wants it.
func goodClaims() changes {
	now := time.Now().Unix()
	return changes{
		"iss": issuerName, "aud": []string{"orders", "account"}, "sub": "anna", "client_id": "partner", "jti": "1",
		"iat": now, "nbf": now, "exp": now + 300, "scope": "orders:read",
	}
}

type jwtTest struct {
	name    string
	token   func(t *testing.T) string
	why     string // "" if the token is good
	options func(*verifier.JWTOptions)
}

func runJWTTests(t *testing.T, tests []jwtTest) {
	keys := newKeys()
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			set := newKeySet(t, verifier.KeySetOptions{Read: fromText(keySet(keys["RS256"], keys["ES256"], keys["EdDSA"]))})
			defer set.Close()
			why := ""
			o := verifier.JWTOptions{
				Name: "sso", Issuer: issuerName, Audiences: []string{"billing", "orders"}, Algorithms: []string{"RS256", "ES256", "EdDSA"}, Keys: set,
				Leeway: 10 * time.Second, Refused: func(_ bearer.Token, text string) { why = text },
			}
			if c.options != nil {
				c.options(&o)
			}
			j, err := verifier.NewJWT(o)
			if err != nil {
				t.Fatal(err)
			}
			value := c.token(t)
			parser, err := bearer.NewParser(64 << 10)
			if err != nil {
				t.Fatal(err)
			}
			token, err := parser.ParseToken(value)
			if err != nil {
				t.Fatal(err)
			}
			v, err := j.Verify(t.Context(), token)
			if err != nil {
				t.Fatal(err)
			}
			if v.Valid != (c.why == "") || !strings.Contains(why, c.why) || v.Valid != (why == "") {
				t.Errorf("the verdict is %+v: %q, want %q", v, why, c.why)
			}
			if v.Valid != (v.Claims != nil) {
				t.Errorf("the claims are %v", v.Claims)
			}
		})
	}
}

// signed is a token that is signed by a key as it should be, with some changes.
func signed(key string, header, claims object) func(*testing.T) string {
	return func(t *testing.T) string {
		t.Helper()
		k := newKeys()[key]
		return k.sign(t, changes{"alg": k.alg, "kid": k.kid, "typ": "at+jwt"}.with(header), goodClaims().with(claims))
	}
}

func TestGoodJWTs(t *testing.T) {
	now := time.Now().Unix()
	only := func(o *verifier.JWTOptions) { o.AccessTokenOnly = true }
	runJWTTests(t, []jwtTest{
		{name: "by RSA", token: signed("RS256", nil, nil)},
		{name: "by ECDSA", token: signed("ES256", nil, nil)},
		{name: "by Ed25519", token: signed("EdDSA", nil, nil)},
		{name: "without an id of the key, and one that fits", token: signed("RS256", object{"kid": nil}, nil)},
		{name: "of another type that is none", token: signed("RS256", object{"typ": "JWT"}, object{"jti": nil, "client_id": nil, "sub": nil, "iat": nil})},
		{name: "without a type", token: signed("RS256", object{"typ": nil}, nil)},
		{name: "with the whole name of its type", token: signed("RS256", object{"typ": "Application/AT+JWT"}, nil), options: only},
		{name: "for one audience", token: signed("RS256", nil, object{"aud": "billing"})},
		{name: "without a begin", token: signed("RS256", nil, object{"nbf": nil})},
		{name: "of a server whose clock is ahead a little", token: signed("RS256", nil, object{"nbf": now + 8, "iat": now + 8})},
		{name: "with times that have a fraction", token: signed("RS256", nil, object{"exp": float64(now) + 99.5})},
		{name: "that names keys of its own, which are not looked at", token: signed("RS256", object{
			"jku": "https://evil.example.com/keys", "x5u": "https://evil.example.com/cert", "jwk": newKeys()["new"].jwk(),
		}, nil)},
		{name: "of Keycloak's kind", token: signed("RS256", object{"typ": "JWT"}, object{"typ": "Bearer"})},
	})
}

func TestForgedAndUnfitJWTs(t *testing.T) {
	keys := newKeys()
	public, err := x509.MarshalPKIXPublicKey(keys["RS256"].key.Public())
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	now := time.Now().Unix()
	good := func(t *testing.T) (head, payload, signature string) {
		t.Helper()
		parts := strings.Split(signed("ES256", nil, nil)(t), ".")
		return parts[0], parts[1], parts[2]
	}
	hs256 := func(secret []byte) func(t *testing.T) string {
		return func(t *testing.T) string {
			t.Helper()
			return hmacWith(t, secret, object{"alg": "HS256", "kid": "rsa-1", "typ": "at+jwt"}, goodClaims())
		}
	}
	none := func(alg string) func(t *testing.T) string {
		return func(t *testing.T) string {
			t.Helper()
			return part(t, object{"alg": alg, "typ": "at+jwt"}) + "." + part(t, goodClaims()) + "."
		}
	}
	signature := func(change func(r, s *big.Int)) func(t *testing.T) string {
		return func(t *testing.T) string {
			t.Helper()
			head, payload, text := good(t)
			raw, _ := base64.RawURLEncoding.DecodeString(text)
			r, s := new(big.Int).SetBytes(raw[:32]), new(big.Int).SetBytes(raw[32:])
			change(r, s)
			raw = append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
			return head + "." + payload + "." + base64.RawURLEncoding.EncodeToString(raw)
		}
	}
	order := keys["ES256"].key.Public().(*ecdsa.PublicKey).Params().N
	raw := func(header, claims string) func(t *testing.T) string {
		return func(t *testing.T) string { t.Helper(); return keys["RS256"].sign(t, header, claims) }
	}
	const head = `{"alg":"RS256","kid":"rsa-1"}`
	runJWTTests(t, []jwtTest{
		// The algorithm (RFC 8725 §2.1).
		{name: "alg none", token: none("none"), why: "algorithm"},
		{name: "alg None", token: none("None"), why: "algorithm"},
		{name: "alg nOnE", token: none("nOnE"), why: "algorithm"},
		{name: "no alg", token: raw(`{"kid":"rsa-1"}`, `{}`), why: "algorithm"},
		{name: "an alg that is no string", token: raw(`{"alg":["RS256"],"kid":"rsa-1"}`, `{}`), why: "algorithm"},
		{name: "HS256 with the public key in PEM", token: hs256(publicPEM), why: "algorithm"},
		{name: "HS256 with the public key in DER", token: hs256(public), why: "algorithm"},
		{name: "HS256 with an empty secret", token: hs256(nil), why: "algorithm"},
		{name: "an algorithm that is not configured", token: signed("RS256", object{"alg": "PS256"}, nil), why: "algorithm"},
		{name: "an algorithm in another letter case", token: signed("RS256", object{"alg": "rs256"}, nil), why: "algorithm"},
		{name: "the key of another algorithm", token: signed("RS256", object{"kid": "ec-1"}, nil), why: "not made for its algorithm"},
		{name: "RS256 said of an ECDSA signature", token: signed("ES256", object{"alg": "RS256", "kid": "rsa-1"}, nil), why: "signature"},

		// The signature.
		{name: "another's key of the same name", token: signed("other", nil, nil), why: "signature"},
		{name: "no signature", token: func(t *testing.T) string { h, p, _ := good(t); return h + "." + p + "." }, why: "signature"},
		{name: "a signature of zeros (CVE-2022-21449)", token: signature(func(r, s *big.Int) { r.SetInt64(0); s.SetInt64(0) }), why: "signature"},
		{name: "a signature of the group's order", token: signature(func(r, s *big.Int) { r.Set(order); s.Set(order) }), why: "signature"},
		{name: "a signature with r and s exchanged", token: signature(func(r, s *big.Int) { t := new(big.Int).Set(r); r.Set(s); s.Set(t) }), why: "signature"},
		{name: "a signature in ASN.1", token: func(t *testing.T) string {
			h, p, s := good(t)
			raw, _ := base64.RawURLEncoding.DecodeString(s)
			return h + "." + p + "." + base64.RawURLEncoding.EncodeToString(append([]byte{0x30, 0x44, 2, 0x20}, raw...))
		}, why: "signature"},
		{name: "a signature with something behind it", token: func(t *testing.T) string { h, p, s := good(t); return h + "." + p + "." + s + "AAAA" }, why: "signature"},
		{name: "claims of another token", token: func(t *testing.T) string {
			h, _, s := good(t)
			return h + "." + part(t, goodClaims().with(object{"sub": "eve"})) + "." + s
		}, why: "signature"},
		{name: "a header of another token", token: func(t *testing.T) string {
			_, p, s := good(t)
			return part(t, object{"alg": "ES256", "kid": "ec-1"}) + "." + p + "." + s
		}, why: "signature"},
		{name: "a signature in another spelling", token: func(t *testing.T) string {
			h, p, s := good(t) // 64 bytes leave 4 bits that mean nothing
			last := strings.IndexByte(alphabet, s[len(s)-1])
			return h + "." + p + "." + s[:len(s)-1] + string(alphabet[last^1])
		}, why: "base64url"},
		{name: "padding", token: func(t *testing.T) string { h, p, s := good(t); return h + "." + p + "." + s + "==" }, why: "base64url"},

		// The header.
		{name: "a key that it brings itself", token: func(t *testing.T) string {
			return keys["new"].sign(t, object{"alg": "RS256", "jwk": keys["new"].jwk()}, goodClaims())
		}, why: "signature"},
		{name: "a key that it brings itself, by the name of another", token: func(t *testing.T) string {
			return keys["new"].sign(t, object{"alg": "RS256", "kid": "rsa-1", "jwk": keys["new"].jwk()}, goodClaims())
		}, why: "signature"},
		{name: "a place where its key is", token: func(t *testing.T) string {
			return keys["new"].sign(t, object{"alg": "RS256", "kid": "rsa-2", "jku": "http://127.0.0.1:1/keys"}, goodClaims())
		}, why: "not one of the issuer's"},
		{name: "a certificate that it brings itself", token: func(t *testing.T) string {
			return keys["new"].sign(t, object{"alg": "RS256", "kid": "rsa-2", "x5u": "http://127.0.0.1:1/cert", "x5t": "AAAA"}, goodClaims())
		}, why: "not one of the issuer's"},
		{name: "a path for a kid", token: signed("RS256", object{"kid": "../../../dev/null"}, nil), why: "not one of the issuer's"},
		{name: "a query for a kid", token: signed("RS256", object{"kid": "x' UNION SELECT 'secret"}, nil), why: "not one of the issuer's"},
		{name: "a kid in another letter case", token: signed("RS256", object{"kid": "RSA-1"}, nil), why: "not one of the issuer's"},
		{name: "an empty kid", token: signed("RS256", object{"kid": ""}, nil), why: "kid"},
		{name: "a kid that is a number", token: signed("RS256", object{"kid": 1}, nil), why: "kid"},
		{name: "b64 false", token: signed("RS256", object{"b64": false, "crit": []string{"b64"}}, nil), why: "extension"},
		{name: "b64 without crit", token: signed("RS256", object{"b64": false}, nil), why: "extension"},
		{name: "an extension that is critical", token: signed("RS256", object{"crit": []string{"exp"}, "exp": 1}, nil), why: "extension"},
		{name: "an empty crit", token: signed("RS256", object{"crit": []string{}}, nil), why: "extension"},
		{name: "two algs", token: raw(`{"alg":"none","alg":"RS256","kid":"rsa-1"}`, `{}`), why: "header"},
		{name: "a header that is a list", token: raw(`["RS256"]`, `{}`), why: "header"},
		{name: "a header that is too long", token: signed("RS256", object{"x": strings.Repeat("x", 4<<10)}, nil), why: "too long"},
		{name: "a header that is too deep", token: raw(`{"alg":"RS256","x":`+strings.Repeat("[", 1000)+strings.Repeat("]", 1000)+`}`, `{}`), why: "header"},
		{name: "a logout token", token: signed("RS256", object{"typ": "logout+jwt"}, nil), why: "typ"},
		{name: "a proof of possession", token: signed("RS256", object{"typ": "dpop+jwt"}, nil), why: "typ"},
		{name: "a signed answer to an introspection", token: signed("RS256", object{"typ": "token-introspection+jwt"}, nil), why: "typ"},
		{name: "a typ that is no string", token: signed("RS256", object{"typ": 1}, nil), why: "typ"},
		{name: "any JWT where access tokens are wanted", token: signed("RS256", object{"typ": "JWT"}, nil), why: "typ", options: func(o *verifier.JWTOptions) { o.AccessTokenOnly = true }},
		{name: "no typ where access tokens are wanted", token: signed("RS256", object{"typ": nil}, nil), why: "typ", options: func(o *verifier.JWTOptions) { o.AccessTokenOnly = true }},

		// The form.
		{name: "opaque", token: func(*testing.T) string { return "opaque" }, why: "no signed JWT"},
		{name: "two parts", token: func(*testing.T) string { return "e30.e30" }, why: "no signed JWT"},
		{name: "four parts", token: func(t *testing.T) string { return signed("RS256", nil, nil)(t) + ".e30" }, why: "no signed JWT"},
		{name: "encrypted", token: func(t *testing.T) string { return part(t, `{"alg":"dir","enc":"A256GCM"}`) + "..e30.e30.e30" }, why: "no signed JWT"},
		{name: "empty parts", token: func(*testing.T) string { return ".." }, why: "header"},
		{name: "huge", token: signed("RS256", nil, object{"x": strings.Repeat("x", 40<<10)}), why: "bytes"},
		{name: "deep", token: raw(head, `{"x":`+strings.Repeat("[", 10_000)+strings.Repeat("]", 10_000)+`}`), why: "bytes"},
		{name: "deep, but short", token: raw(head, `{"x":`+strings.Repeat("[", 100)+strings.Repeat("]", 100)+`}`), why: "deep"},
		{name: "with a claim twice", token: raw(head, `{"iss":"`+issuerName+`","aud":"orders","exp":9999999999,"sub":"a","sub":"b"}`), why: "twice"},
		{name: "not JSON", token: raw(head, `x`), why: "broken"},
		{name: "a list", token: raw(head, `[]`), why: "not a JSON object"},
		{name: "a JWT in a JWT", token: func(t *testing.T) string {
			return keys["RS256"].sign(t, object{"alg": "RS256", "kid": "rsa-1", "cty": "JWT"}, signed("RS256", nil, nil)(t))
		}, why: "broken"},

		// The claims.
		{name: "expired", token: signed("RS256", nil, object{"exp": now - 1}), why: "expired"},
		{name: "expired within the leeway", token: signed("RS256", nil, object{"exp": now}), why: "expired"},
		{name: "without an end", token: signed("RS256", nil, object{"exp": nil}), why: "exp"},
		{name: "an end in words", token: signed("RS256", nil, object{"exp": "9999999999"}), why: "exp"},
		{name: "an end that is far back", token: signed("RS256", nil, object{"exp": -1e300}), why: "expired"},
		{name: "not begun", token: signed("RS256", nil, object{"nbf": now + 60}), why: "nbf"},
		{name: "issued in the future", token: signed("RS256", nil, object{"iat": now + 60}), why: "iat"},
		{name: "a begin in words", token: signed("RS256", nil, object{"nbf": "0"}), why: "nbf"},
		{name: "another issuer", token: signed("RS256", nil, object{"iss": "https://evil.example.com"}), why: "iss"},
		{name: "an issuer with a slash more", token: signed("RS256", nil, object{"iss": issuerName + "/"}), why: "iss"},
		{name: "no issuer", token: signed("RS256", nil, object{"iss": nil}), why: "iss"},
		{name: "a list of issuers", token: signed("RS256", nil, object{"iss": []string{issuerName}}), why: "iss"},
		{name: "another audience", token: signed("RS256", nil, object{"aud": []string{"stock"}}), why: "aud"},
		{name: "audiences in one text", token: signed("RS256", nil, object{"aud": "orders billing"}), why: "aud"},
		{name: "no audience", token: signed("RS256", nil, object{"aud": nil}), why: "aud"},
		{name: "an access token without a subject", token: signed("RS256", nil, object{"sub": nil}), why: "sub"},
		{name: "an access token without a client", token: signed("RS256", nil, object{"client_id": nil}), why: "client_id"},
		{name: "an ID token of Keycloak", token: signed("RS256", object{"typ": "JWT"}, object{"typ": "ID"}), why: "typ"},
		{name: "a refresh token of Keycloak", token: signed("RS256", object{"typ": "JWT"}, object{"typ": "Refresh"}), why: "typ"},
		{name: "an ID token of Cognito", token: signed("RS256", object{"typ": nil}, object{"token_use": "id"}), why: "token_use"},
		{name: "bound to a key", token: signed("RS256", nil, object{"cnf": object{"jkt": "x"}}), why: "cnf"},
		{name: "of the kind DPoP", token: signed("RS256", nil, object{"token_type": "DPoP"}), why: "token_type"},
	})
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

// TestVerdictsOnJWTsEndWithThem, and a refusal when the token begins.
func TestVerdictsOnJWTsEndWithThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := newKeys()["EdDSA"]
		set := newKeySet(t, verifier.KeySetOptions{Read: fromText(keySet(key))})
		defer set.Close()
		j, err := verifier.NewJWT(verifier.JWTOptions{
			Name: "sso", Issuer: issuerName, Audiences: []string{"orders"}, Algorithms: []string{"EdDSA"}, Keys: set, Leeway: 5 * time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		token := newTokens(t).parse(t, key.sign(t, object{"alg": "EdDSA"}, goodClaims().with(object{"nbf": now.Unix() + 30, "exp": now.Unix() + 60})))
		for _, c := range []struct {
			after time.Duration
			valid bool
			until time.Duration
		}{
			{0, false, 25 * time.Second},
			{25*time.Second - 1, false, 25 * time.Second},
			{25 * time.Second, true, 60 * time.Second},
			{60*time.Second - 1, true, 60 * time.Second},
		} {
			pass(c.after - time.Since(now))
			v, err := j.Verify(t.Context(), token)
			if err != nil || v.Valid != c.valid || !v.Until.Equal(now.Add(c.until).Truncate(time.Second)) {
				t.Errorf("after %v: %+v, %v", c.after, v, err)
			}
		}
		pass(time.Millisecond)
		if v, err := j.Verify(t.Context(), token); err != nil || v.Valid {
			t.Errorf("at its end: %+v, %v", v, err)
		}
	})
}

func TestJWTOptionsThatMakeNoSense(t *testing.T) {
	set := newKeySet(t, verifier.KeySetOptions{Read: fromText("")})
	defer set.Close()
	for name, change := range map[string]func(*verifier.JWTOptions){
		"no issuer":          func(o *verifier.JWTOptions) { o.Issuer = "" },
		"no audience":        func(o *verifier.JWTOptions) { o.Audiences = nil },
		"an empty audience":  func(o *verifier.JWTOptions) { o.Audiences = []string{"a", ""} },
		"no keys":            func(o *verifier.JWTOptions) { o.Keys = nil },
		"no algorithm":       func(o *verifier.JWTOptions) { o.Algorithms = nil },
		"the algorithm none": func(o *verifier.JWTOptions) { o.Algorithms = []string{"RS256", "none"} },
		"a shared secret":    func(o *verifier.JWTOptions) { o.Algorithms = []string{"HS256"} },
		"a negative leeway":  func(o *verifier.JWTOptions) { o.Leeway = -1 },
	} {
		o := verifier.JWTOptions{Name: "sso", Issuer: issuerName, Audiences: []string{"a"}, Algorithms: []string{"RS256"}, Keys: set}
		change(&o)
		if _, err := verifier.NewJWT(o); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// FuzzJWT: what nobody signed is refused, whatever it is.
func FuzzJWT(f *testing.F) {
	key := newKeys()["EdDSA"]
	set := newKeySet(f, verifier.KeySetOptions{Read: fromText(keySet(key))})
	f.Cleanup(set.Close)
	j := judgeOf(f, set)
	good := plainToken(f, key, nil)
	for _, value := range []string{good, good + "A", "a.b.c", "..", "eyJhbGciOiJub25lIn0.e30.", strings.Replace(good, ".", "..", 1)} {
		f.Add(value)
	}
	parser, err := bearer.NewParser(64 << 10)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, value string) {
		token, err := parser.ParseToken(value)
		if err != nil {
			return
		}
		if v, err := j.Verify(t.Context(), token); err != nil || v.Valid != (value == good) {
			t.Errorf("the verdict is %+v, %v", v, err)
		}
	})
}
