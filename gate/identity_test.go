package gate_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/gate"
)

func identity(headers ...gate.IdentityHeader) func(*gate.Options) {
	return func(o *gate.Options) { o.Identity = headers }
}

// TestWhatTheAPIIsTold: an allowed request has the lines that were asked for, and
// no other request has any.
func TestWhatTheAPIIsTold(t *testing.T) {
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		headers []gate.IdentityHeader
		want    func(fingerprint string) []gate.Header
	}{
		{"nothing", nil, func(string) []gate.Header { return nil }},
		{
			"a constant",
			[]gate.IdentityHeader{{Name: "x-PARTNER", Constant: "crm now"}},
			func(string) []gate.Header { return []gate.Header{{Name: "X-Partner", Value: "crm now"}} },
		},
		{
			"the fingerprint",
			[]gate.IdentityHeader{{Name: "X-Token", Fingerprint: true}},
			func(f string) []gate.Header { return []gate.Header{{Name: "X-Token", Value: f}} },
		},
		{
			"both",
			[]gate.IdentityHeader{{Name: "X-Token", Fingerprint: true}, {Name: "X-Partner", Constant: "crm"}},
			func(f string) []gate.Header {
				return []gate.Header{{Name: "X-Token", Value: f}, {Name: "X-Partner", Value: "crm"}}
			},
		},
	} {
		g := newGate(t, good, identity(test.headers...), func(o *gate.Options) { o.Parser = parser })
		first := map[string]*gate.Reply{}
		for _, value := range []string{canary, "another"} {
			token, err := parser.Parse([]string{"Bearer " + value})
			if err != nil {
				t.Fatal(err)
			}
			d := g.Decide(t.Context(), with("Bearer "+value))
			first[value] = g.Reply(&d)
			want := &gate.Reply{Status: 200, Identity: test.want(token.Fingerprint())}
			if diff := cmp.Diff(want, first[value]); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.name, diff)
			}
		}
		// The second reply has left the first as it was.
		token, _ := parser.Parse([]string{"Bearer " + canary})
		if diff := cmp.Diff(test.want(token.Fingerprint()), first[canary].Identity); diff != "" {
			t.Errorf("%s, later (-want +got):\n%s", test.name, diff)
		}
		for _, r := range []gate.Request{with(), with("Bearer a,b")} {
			d := g.Decide(t.Context(), r)
			if reply := g.Reply(&d); reply.Identity != nil {
				t.Errorf("%s: a refusal, %v, has %v", test.name, d.Reason, reply.Identity)
			}
		}
	}
	g := newGate(t, notGood, identity(gate.IdentityHeader{Name: "X-Token", Fingerprint: true}))
	if d := g.Decide(t.Context(), withToken()); g.Reply(&d).Identity != nil {
		t.Error("a refused token has identity lines")
	}
}

func TestIdentityMustBeFitForAHeader(t *testing.T) {
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	named := func(names ...string) []gate.IdentityHeader {
		var headers []gate.IdentityHeader
		for _, name := range names {
			headers = append(headers, gate.IdentityHeader{Name: name, Constant: "x"})
		}
		return headers
	}
	holds := func(text string) []gate.IdentityHeader {
		return []gate.IdentityHeader{{Name: "X-Partner", Constant: text}}
	}
	for _, test := range []struct {
		name    string
		headers []gate.IdentityHeader
		fine    bool
	}{
		{"a name", named("X-Partner"), true},
		{"a name of 64 characters", named("X" + strings.Repeat("-", 63)), true},
		{"a name of one letter", named("x"), true},
		{"names that only look like others'", named("Hostname", "X-Bearergate-Fingerprint", "Remote-User", "Testing", "Age-Group", "Contents"), true},
		{"as many as may be", named("a", "b", "c", "d", "e", "f", "g", "h"), true},
		{"one more", named("a", "b", "c", "d", "e", "f", "g", "h", "i"), false},
		{"no name", named(""), false},
		{"a name of 65 characters", named("X" + strings.Repeat("-", 64)), false},
		{"a name with an underscore", named("X_Partner"), false},
		{"a name with a colon", named(":path"), false},
		{"a name with a line break", named("X-A\r\nX-B"), false},
		{"a name with a zero byte", named("X-A\x00"), false},
		{"a name with a space", named("X A"), false},
		{"a name that is not ASCII", named("X-Ä"), false},
		{"a name that begins with a digit", named("1-X"), false},
		{"a name twice", named("X-Partner", "x-partner"), false},
		{"the credential", named("AUTHORIZATION"), false},
		{"the host", named("Host"), false},
		{"the length", named("Content-Length"), false},
		{"hop by hop", named("Connection"), false},
		{"hop by hop, the protocol", named("Upgrade"), false},
		{"hop by hop, of a proxy", named("Proxy-Connection"), false},
		{"the coding", named("Transfer-Encoding"), false},
		{"an order to nginx", named("X-Accel-Redirect"), false},
		{"an order to Envoy", named("x-envoy-auth-headers-to-remove"), false},
		{"the gateway's own, the reason", named("x-bearergate-reason"), false},
		{"the gateway's own, what it depends on", named("x-bearergate-depends-on"), false},
		{"who called", named("X-Forwarded-For"), false},

		{"a text", holds("crm-now, \"API\" \\ 100%"), true},
		{"256 characters", holds(strings.Repeat("~", 256)), true},
		{"257 characters", holds(strings.Repeat("~", 257)), false},
		{"a carriage return", holds("a\rb"), false},
		{"a line feed", holds("a\nb"), false},
		{"a zero byte", holds("a\x00b"), false},
		{"a tab", holds("a\tb"), false},
		{"a delete character", holds("a\x7f"), false},
		{"a letter that is not ASCII", holds("ü"), false},
		{"broken UTF-8", holds("a\xff"), false},
		{"a space in front", holds(" a"), false},
		{"a space behind", holds("a "), false},
		{"nothing", holds(""), false},
		{"two sources", []gate.IdentityHeader{{Name: "X-Partner", Constant: "x", Fingerprint: true}}, false},
	} {
		_, err := gate.New(gate.Options{Parser: parser, Policy: gate.Policy{Verifier: good, Realm: "api", Identity: test.headers}})
		if (err == nil) != test.fine {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
