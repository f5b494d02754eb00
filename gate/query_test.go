package gate_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/bearergate/bearergate/gate"
)

func TestTokenInURL(t *testing.T) {
	for _, test := range []struct {
		name, target string
		want         bool
	}{
		{"plain", "/orders?access_token=abc", true},
		{"a later parameter", "/orders?a=1&b=2&access_token=abc&c=3", true},
		{"the root", "/?access_token=abc", true},
		{"no path", "?access_token=abc", true},
		{"a whole URL", "https://api.example/orders?access_token=abc", true},
		{"a name in percent-encoding", "/?%61ccess%5Ftoken=abc", true},
		{"a name all in percent-encoding", "/?%61%63%63%65%73%73%5f%74%6F%6b%65%6e=abc", true},
		{"an empty value", "/?access_token=", true},
		{"no value", "/?access_token", true},
		{"no value, later", "/?a&access_token&b", true},
		{"an equals sign in the value", "/?access_token=a=b==", true},
		{"a broken encoding in the value", "/?access_token=%zz", true},
		{"a broken encoding in an earlier parameter", "/?%zz=1&access_token=abc", true},
		{"a broken encoding in an earlier value", "/?a=%&access_token=abc", true},
		{"empty parameters", "/?&&&access_token=abc&", true},
		{"a semicolon in the value", "/?access_token=a;b=c", true},
		{"a question mark in the value", "/?access_token=a?b", true},
		{"twice", "/?access_token=a&access_token=b", true},

		{"nothing", "", false},
		{"no query", "/access_token=abc", false},
		{"an empty query", "/orders?", false},
		{"in the path", "/access_token/x?a=b", false},
		{"another parameter", "/?token=abc", false},
		{"a longer name", "/?my_access_token=abc&access_tokens=abc", false},
		{"another letter case", "/?Access_Token=abc", false},
		{"in a value", "/?next=access_token=abc", false},
		{"a name that is encoded twice", "/?access%255Ftoken=abc", false},
		{"a broken encoding in the name", "/?access_token%=abc", false},
		{"a space in the name", "/?access+token=abc&+access_token=abc", false},
		// A semicolon separates no parameters any more (URL Standard,
		// application/x-www-form-urlencoded parsing).
		{"after a semicolon", "/?a=1;access_token=abc", false},
		{"before a semicolon", "/?access_token;a=1", false},
		{"after a second question mark", "/?a?access_token=abc", false},
		{"only signs", "/?=&=&==", false},
		{"a lone percent sign", "/?%", false},
	} {
		want := gate.MissingToken
		if test.want {
			want = gate.TokenInURL
		}
		g := newGate(t, unasked)
		if d := g.Decide(t.Context(), gate.Request{Target: test.target}); d.Reason != want {
			t.Errorf("%s: %s is %v, want %v", test.name, test.target, d.Reason, want)
		}
	}
}

// reference is access_token with each character as it is or percent-encoded.
var reference = func() *regexp.Regexp {
	var name strings.Builder
	for _, c := range []string{"a|%61", "c|%63", "c|%63", "e|%65", "s|%73", "s|%73", "_|%5[fF]", "t|%74", "o|%6[fF]", "k|%6[bB]", "e|%65", "n|%6[eE]"} {
		name.WriteString("(?:" + c + ")")
	}
	return regexp.MustCompile(`^` + name.String() + `(?:=(?s:.*))?$`)
}()

// FuzzTokenInURL holds the search in the query against a regular expression.
func FuzzTokenInURL(f *testing.F) {
	for _, seed := range []string{
		"", "?", "/x?access_token=1", "?a&%61ccess_token", "?access_token;", "?%", "??access_token", "?access%5ftoken=%",
		"?access_token&", "?access_token=%zz&b", "?a=1;access_token=2", "?+access_token", "?access_token%00", "?&&=&",
	} {
		f.Add(seed)
	}
	g := newGate(f, unasked)
	f.Fuzz(func(t *testing.T, target string) {
		want := gate.MissingToken
		if _, query, ok := strings.Cut(target, "?"); ok {
			for parameter := range strings.SplitSeq(query, "&") {
				if reference.MatchString(parameter) {
					want = gate.TokenInURL
				}
			}
		}
		if d := g.Decide(t.Context(), gate.Request{Target: target}); d.Reason != want {
			t.Errorf("%q is %v, want %v", target, d.Reason, want)
		}
	})
}
