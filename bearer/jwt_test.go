package bearer_test

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/bearergate/bearergate/bearer"
)

// jwt joins header, payload and a signature as a JWT does.
func jwt(header, payload string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(header)) + "." + encode([]byte(payload)) + "." + encode([]byte("signature"))
}

func TestATokenNamesItsTimesOnlyAsAJWTDoes(t *testing.T) {
	const header = `{"alg":"RS256","typ":"JWT"}`
	at := func(seconds int64) time.Time { return time.Unix(seconds, 0) }
	var never time.Time
	tests := map[string]struct {
		token              string
		notBefore, expires time.Time
	}{
		"exp and nbf":                        {jwt(header, `{"nbf":1700000000,"exp":1700000300}`), at(1700000000), at(1700000300)},
		"exp alone":                          {jwt(header, `{"exp":1700000300}`), never, at(1700000300)},
		"a fraction":                         {jwt(header, `{"exp":1700000300.5}`), never, time.Unix(1700000300, 5e8)},
		"an exponent":                        {jwt(header, `{"exp":1.7e9}`), never, at(1700000000)},
		"among other claims":                 {jwt(header, `{"aud":["a"],"realm":{"exp":5},"exp":1700000300,"x":null}`), never, at(1700000300)},
		"zero, which has passed":             {jwt(header, `{"exp":0}`), never, at(1)},
		"a negative one, which has passed":   {jwt(header, `{"exp":-5}`), never, at(1)},
		"one beyond all calendars":           {jwt(header, `{"exp":1e300}`), never, at(1 << 40)},
		"no claims":                          {jwt(header, `{}`), never, never},
		"exp in other letters":               {jwt(header, `{"EXP":5,"Exp":5}`), never, never},
		"exp in a string":                    {jwt(header, `{"exp":"5"}`), never, never},
		"exp is null":                        {jwt(header, `{"exp":null}`), never, never},
		"exp is an object":                   {jwt(header, `{"exp":{}}`), never, never},
		"exp deeper down":                    {jwt(header, `{"a":{"exp":5}}`), never, never},
		"a payload that is an array":         {jwt(header, `[{"exp":5}]`), never, never},
		"a payload that is cut off":          {jwt(header, `{"exp":5`), never, never},
		"a payload with something behind it": {jwt(header, `{"exp":5} {}`), never, never},
		"a header without alg":               {jwt(`{"typ":"JWT"}`, `{"exp":5}`), never, never},
		"a header that is no object":         {jwt(`"alg"`, `{"exp":5}`), never, never},
		"two parts":                          {strings.Join(strings.Split(jwt(header, `{"exp":5}`), ".")[:2], "."), never, never},
		"five parts, as an encrypted one":    {jwt(header, `{"exp":5}`) + ".a.b", never, never},
		"a part that is no base64url":        {"+" + jwt(header, `{"exp":5}`), never, never},
		"opaque":                             {"abcdefghijklmnop", never, never},
		"dots alone":                         {"..", never, never},
	}
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			token, err := parser.ParseToken(test.token)
			if err != nil {
				t.Fatal(err)
			}
			notBefore, expires := token.Times()
			if !notBefore.Equal(test.notBefore) || !expires.Equal(test.expires) {
				t.Errorf("got %v and %v, want %v and %v", notBefore, expires, test.notBefore, test.expires)
			}
		})
	}
	if notBefore, expires := (bearer.Token{}).Times(); !notBefore.IsZero() || !expires.IsZero() {
		t.Errorf("the zero token: got %v and %v", notBefore, expires)
	}
}

func TestATokenNamesItsIssuerOnlyAsAJWTDoes(t *testing.T) {
	const header = `{"alg":"RS256"}`
	for name, test := range map[string]struct {
		token, issuer string
		jwt           bool
	}{
		"an issuer":                  {jwt(header, `{"iss":"https://sso.example.com"}`), "https://sso.example.com", true},
		"no issuer":                  {jwt(header, `{}`), "", true},
		"an issuer in other letters": {jwt(header, `{"ISS":"a"}`), "", true},
		"a list of issuers":          {jwt(header, `{"iss":["a"]}`), "", true},
		"an issuer that is null":     {jwt(header, `{"iss":null}`), "", true},
		"an issuer deeper down":      {jwt(header, `{"a":{"iss":"b"}}`), "", true},
		"claims that are broken":     {jwt(header, `{"iss":"a"`), "", true},
		"a header without alg":       {jwt(`{}`, `{"iss":"a"}`), "", false},
		"five parts":                 {jwt(header, `{"iss":"a"}`) + ".a.b", "", false},
		"opaque":                     {"abcdefgh", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			parser, err := bearer.NewParser(0)
			if err != nil {
				t.Fatal(err)
			}
			token, err := parser.ParseToken(test.token)
			if err != nil {
				t.Fatal(err)
			}
			if issuer, jwt := token.Issuer(); issuer != test.issuer || jwt != test.jwt {
				t.Errorf("got %q and %v", issuer, jwt)
			}
		})
	}
}

func TestACloneHasMemoryOfItsOwn(t *testing.T) {
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	token, err := parser.ParseToken("abcdefgh")
	if err != nil {
		t.Fatal(err)
	}
	clone := token.Clone()
	if clone.Reveal() != "abcdefgh" || *clone.Digest() != *token.Digest() || clone.Fingerprint() != token.Fingerprint() {
		t.Error("the clone is another token")
	}
	if zero := (bearer.Token{}).Clone(); zero.Reveal() != "" {
		t.Error("the clone of nothing is something")
	}
}

// FuzzTimes reads the times of anything that can be a token. A token that names a
// time names one of the years that calendars have.
func FuzzTimes(f *testing.F) {
	f.Add(jwt(`{"alg":"RS256"}`, `{"nbf":1,"exp":2}`))
	f.Add(jwt(`{"alg":null}`, `{"exp":1e400}`))
	f.Add("a.b.c")
	parser, err := bearer.NewParser(bearer.MaxTokenBytes)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, value string) {
		token, err := parser.ParseToken(value)
		if err != nil {
			return
		}
		notBefore, expires := token.Times()
		for _, at := range []time.Time{notBefore, expires} {
			if !at.IsZero() && (at.Unix() < 1 || at.Unix() > 1<<40) {
				t.Errorf("%v is far outside", at)
			}
		}
	})
}
