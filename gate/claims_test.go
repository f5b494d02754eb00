package gate_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/policy"
	"github.com/bearergate/bearergate/verifier"
)

func goodWith(t testing.TB, object string) verifier.Verifier {
	t.Helper()
	return says(verifier.Verdict{Valid: true, Claims: claimsOf(t, object)}, nil)
}

// TestWhatTheAPIIsToldOfClaims: the header has the claim, or is to be taken off, or
// the request is refused.
func TestWhatTheAPIIsToldOfClaims(t *testing.T) {
	const absent, refused = "-", "refused"
	quoted := func(n int) string { return `"` + strings.Repeat("x", n) + `"` }
	for claim, want := range map[string]string{
		`"partner-7"`:                    "partner-7",
		`"two words, \"and\" 100% {}$x"`: `two words, "and" 100% {}$x`,
		`7`:                              "7",
		`-1.50e3`:                        "-1.50e3",
		`123456789012345678901`:          "123456789012345678901",
		`true`:                           "true",
		`false`:                          "false",
		`["a","b c",7,true]`:             "a,b c,7,true",
		`["a"]`:                          "a",
		quoted(1024):                     strings.Repeat("x", 1024),

		`null`: absent,
		`""`:   absent,
		`[]`:   absent,

		quoted(1025):          refused,
		`"a\r\nX-Admin: yes"`: refused,
		`"a\nb"`:              refused,
		`"a\u0000"`:           refused,
		`"a\tb"`:              refused,
		`"a\u007f"`:           refused,
		`"Jörg"`:              refused,
		`"\u2028"`:            refused,
		`" a"`:                refused,
		`"a "`:                refused,
		`{"a":"b"}`:           refused,
		`[["a"]]`:             refused,
		`["a",{"b":1}]`:       refused,
		`["a",null]`:          refused,
		`["a,b"]`:             refused, // it would read like two
		`["a",""]`:            refused,
		`["a "," b"]`:         refused,
		`["a\nb"]`:            refused,
		"[" + strings.TrimSuffix(strings.Repeat(quoted(100)+",", 11), ",") + "]": refused,
	} {
		t.Run(fmt.Sprintf("%.40s", claim), func(t *testing.T) {
			g := newGate(t, goodWith(t, `{"deep":{"claim":`+claim+`},"other":"o"}`), identity(
				gate.IdentityHeader{Name: "X-Partner", Constant: "crm"}, gate.IdentityHeader{Name: "x-CLAIM", Claim: []string{"deep", "claim"}},
				gate.IdentityHeader{Name: "X-Missing", Claim: []string{"deep", "missing"}}, gate.IdentityHeader{Name: "X-Through", Claim: []string{"other", "claim"}},
			))
			d := g.Decide(t.Context(), withToken())
			reply := g.Reply(&d)
			if want == refused {
				if d.Reason != gate.UnusableClaim || reply.Status != 403 || reply.Identity != nil || d.Keep != 0 {
					t.Errorf("decided %v, %+v", d.Reason, reply)
				}
				line := g.logs.last(t)
				if detail := fmt.Sprint(line["detail"]); !strings.HasPrefix(detail, "identity header X-Claim: its claim ") {
					t.Errorf("the log says %v", line)
				}
				return
			}
			header, off := []gate.Header{{Name: "X-Partner", Value: "crm"}}, []string{"x-missing", "x-through"}
			if want == absent {
				off = append([]string{"x-claim"}, off...)
			} else {
				header = append(header, gate.Header{Name: "X-Claim", Value: want})
			}
			if diff := cmp.Diff(&gate.Reply{Status: 200, Identity: header, Absent: off}, reply); d.Reason != gate.Valid || diff != "" {
				t.Errorf("decided %v (-want +got):\n%s", d.Reason, diff)
			}
			if removes := g.Removes(&d); !slices.Equal(removes, append([]string{"authorization"}, off...)) {
				t.Errorf("takes off %q", removes)
			}
			if kept := g.RemovesKept(&d); !slices.Equal(kept, []string{"authorization", "x-claim", "x-missing", "x-through"}) {
				t.Errorf("an edge that keeps it takes off %q", kept)
			}
		})
	}
}

// TestAllClaimsTogetherAreNotTooLong: each is short enough, together they are not.
func TestAllClaimsTogetherAreNotTooLong(t *testing.T) {
	for last, want := range map[int]gate.Reason{24: gate.Valid, 25: gate.UnusableClaim} {
		text := fmt.Sprintf(`{"a":%q,"b":%q,"c":%q}`, strings.Repeat("x", 1012), strings.Repeat("x", 1012), strings.Repeat("x", last))
		g := newGate(t, goodWith(t, text), identity(gate.IdentityHeader{Name: "X-A", Claim: []string{"a"}},
			gate.IdentityHeader{Name: "X-B", Claim: []string{"b"}}, gate.IdentityHeader{Name: "X-C", Claim: []string{"c"}}))
		if d := g.Decide(t.Context(), withToken()); d.Reason != want {
			t.Errorf("%d bytes: %v", 2024+last, d.Reason)
		}
	}
}

// TestATokenWithoutClaimsTellsOfNone: one that a verifier judged which gives none.
func TestATokenWithoutClaimsTellsOfNone(t *testing.T) {
	g := newGate(t, good, identity(gate.IdentityHeader{Name: "X-Sub", Claim: []string{"sub"}}))
	d := g.Decide(t.Context(), withToken())
	if diff := cmp.Diff(&gate.Reply{Status: 200, Identity: []gate.Header{}, Absent: []string{"x-sub"}}, g.Reply(&d)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestHeadersOfClaimsAreTakenOffUnderEveryPolicy: the API may believe them under any.
func TestHeadersOfClaimsAreTakenOffUnderEveryPolicy(t *testing.T) {
	router, err := policy.NewRouter([]string{policy.DefaultName, "public", "users"}, []policy.Route{
		{Path: policy.Path{Kind: policy.PrefixPath, Text: "/public"}, Policy: "public"},
		{Path: policy.Path{Kind: policy.PrefixPath, Text: "/users"}, Policy: "users"},
	})
	if err != nil {
		t.Fatal(err)
	}
	v := goodWith(t, `{"sub":"somebody"}`)
	g := newGate(t, v, func(o *gate.Options) {
		o.Router, o.Policies = router, []gate.Policy{
			{Name: "public", Public: true, Realm: "api"},
			{Name: "users", Verifier: v, Realm: "api", Identity: []gate.IdentityHeader{{Name: "X-Sub", Claim: []string{"sub"}}}},
		}
	})
	for path, off := range map[string][]string{
		"/": {"authorization", "x-sub"}, "/public": {"authorization", "x-sub"}, "/users": {"authorization"},
	} {
		r := withToken()
		r.Path = path
		if d := g.Decide(t.Context(), r); d.Outcome() != gate.Allow || !slices.Equal(g.Removes(&d), off) {
			t.Errorf("%s: %v, takes off %q", path, d.Reason, g.Removes(&d))
		}
	}
}

// TestWhatAnEdgeCanLogOfTokens: the fingerprint of every token that was read, and
// claims of good ones as far as they are fit for a log.
func TestWhatAnEdgeCanLogOfTokens(t *testing.T) {
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	token, err := parser.Parse([]string{"Bearer " + canary})
	if err != nil {
		t.Fatal(err)
	}
	fingerprint := token.Fingerprint()
	m := gate.Metadata{Fingerprint: true}
	for _, name := range []string{"sub", "roles", "name", "long", "fits", "control", "object", "missing"} {
		m.Claims = append(m.Claims, gate.MetadataClaim{Name: name, Path: []string{name}})
	}
	const object = `{"sub":"s","roles":["a","b"],"name":"Jörg","control":"a\nb","object":{"x":1},"long":"%0257d","fits":"%0256d"}`
	known := []gate.Header{{Name: "sub", Value: "s"}, {Name: "roles", Value: "a,b"}, {Name: "name", Value: "Jörg"}, {Name: "fits", Value: fmt.Sprintf("%0256d", 0)}}
	claims := claimsOf(t, fmt.Sprintf(object, 0, 0))
	editors, err := policy.NewRequirement(policy.Rules{AllScopes: []string{"edit"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		verifier verifier.Verifier
		request  gate.Request
		change   func(*gate.Options)
		reason   gate.Reason
		token    string
		claims   []gate.Header
	}{
		"a good token":                        {says(verifier.Verdict{Valid: true, Claims: claims}, nil), withToken(), nil, gate.Valid, fingerprint, known},
		"a good token without claims":         {good, withToken(), nil, gate.Valid, fingerprint, nil},
		"one that is not good":                {notGood, withToken(), nil, gate.InvalidToken, fingerprint, nil},
		"one of which nobody can tell":        {says(verifier.Verdict{}, verifier.ErrClosed), withToken(), nil, gate.VerifierUnavailable, fingerprint, nil},
		"one that is not good for this":       {says(verifier.Verdict{Valid: true, Claims: claims}, nil), withToken(), func(o *gate.Options) { o.Requirement = editors }, gate.InsufficientScope, fingerprint, known},
		"one that is let through in shadow":   {notGood, withToken(), func(o *gate.Options) { o.Shadow = time.Now().Add(time.Hour) }, gate.InvalidToken, fingerprint, nil},
		"one whose refusal names the request": {notGood, gate.Request{RequestID: "7", Authorization: []string{"Bearer " + canary}}, worded(wordings["names a request"]), gate.InvalidToken, fingerprint, nil},
		"none":                                {unasked, with(), nil, gate.MissingToken, "", nil},
		"none that can be read":               {unasked, with("Bearer a b"), nil, gate.MalformedToken, "", nil},
	} {
		change := []func(*gate.Options){func(o *gate.Options) { o.Parser, o.Metadata = parser, m }}
		if test.change != nil {
			change = append(change, test.change)
		}
		g := newGate(t, test.verifier, change...)
		d := g.Decide(t.Context(), test.request)
		reply := g.Reply(&d)
		if d.Reason != test.reason || reply.Fingerprint != test.token || (reply.Status == 200) != (d.Outcome() == gate.Allow) {
			t.Errorf("%s: %v, %+v", name, d.Reason, reply)
		}
		if diff := cmp.Diff(test.claims, reply.Claims); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	for _, wrong := range []gate.Metadata{
		{Claims: []gate.MetadataClaim{{Name: "a:b", Path: []string{"a"}}}},
		{Claims: []gate.MetadataClaim{{Name: "a"}}},
		{Claims: []gate.MetadataClaim{{Name: "a", Path: []string{"a"}}, {Name: "a", Path: []string{"b"}}}},
		{Claims: make([]gate.MetadataClaim, 9)},
	} {
		if _, err := gate.New(gate.Options{Parser: parser, Policy: gate.Policy{Verifier: good, Realm: "api", Metadata: wrong}}); err == nil {
			t.Errorf("%v is accepted", wrong)
		}
	}
}
