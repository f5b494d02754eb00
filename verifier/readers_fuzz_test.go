package verifier_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"strings"
	"testing"

	"github.com/bearergate/bearergate/verifier"
)

// FuzzParseKeySet: whatever a key set holds, no key is taken that is secret, or too
// weak, or of another kind.
func FuzzParseKeySet(f *testing.F) {
	keys := newKeys()
	all := make([]*signingKey, 0, len(keys))
	for _, key := range keys {
		f.Add([]byte(keySet(key)))
		all = append(all, key)
	}
	f.Add([]byte(keySet(all...)))
	for _, text := range []string{
		`{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}`, `{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}`, `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA"}]}`,
		`{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}`, `{"keys":[],"keys":null}`, `{"keys":{}}`, `{"Keys":[]}`, `[]`, `null`, "", "\xff",
		`{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}]}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := verifier.ParseKeySet(text)
		if (err == nil) != (len(got) > 0) {
			t.Fatalf("%d keys, %v", len(got), err)
		}
		for _, key := range got {
			switch public := key.Key.(type) {
			case *rsa.PublicKey:
				if public.N.BitLen() < 2048 {
					t.Errorf("an RSA key of %d bits", public.N.BitLen())
				}
			case *ecdsa.PublicKey:
				if _, err := public.ECDH(); err != nil {
					t.Errorf("a point that is not on its curve: %v", err)
				}
			case ed25519.PublicKey:
				if len(public) != ed25519.PublicKeySize {
					t.Errorf("an Ed25519 key of %d bytes", len(public))
				}
			default:
				t.Errorf("a key of type %T", public)
			}
			if key.Use != "" && key.Use != "sig" {
				t.Errorf("a key for %q", key.Use)
			}
		}
	})
}

// FuzzIntrospectionAnswer: a token is active if the reply is one object whose one
// member "active" is true, and by nothing that only looks like it.
func FuzzIntrospectionAnswer(f *testing.F) {
	for _, text := range []string{
		`{"active":true}`, `{"active":false}`, `{"active":"true"}`, `{"active":1}`, `{"Active":true}`, `{"active":false,"ACTIVE":true}`,
		`{"active":true,"active":false}`, `{"active":false,"active":true}`, `{"\u0061ctive":true}`, `{"a":{"active":true}}`, `[{"active":true}]`,
		`{"active":true}{"active":false}`, `{"active":true`, `{"active":null}`, `{}`, "", "\xff", `{"active":true,"x":"\ud800"}`, `{"actıve":true}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, reply []byte) {
		active, err := verifier.ReadActive(reply)
		if err != nil && active {
			t.Fatal("an error that is a yes")
		}
		var plain map[string]any
		if json.Unmarshal(reply, &plain) != nil {
			if err == nil {
				t.Fatal("what is no JSON object is an answer")
			}
			return
		}
		if err != nil {
			return
		}
		if said, ok := plain["active"].(bool); !ok || said != active {
			t.Errorf("active is %v, and read plainly %v", active, plain["active"])
		}
		for name := range plain {
			if name != "active" && strings.EqualFold(name, "active") {
				t.Errorf("there is a member %q besides", name)
			}
		}
	})
}
