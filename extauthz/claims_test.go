package extauthz

import (
	"testing"
	"testing/synctest"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/verifier"
)

// TestWhatEnvoyIsToldOfClaims wants the whole message, by both codecs: headers that
// take the place of the client's, the names of those that it has to take off, and what
// it can log.
func TestWhatEnvoyIsToldOfClaims(t *testing.T) {
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	token, err := parser.Parse([]string{"Bearer a-token"})
	if err != nil {
		t.Fatal(err)
	}
	partner := gate.IdentityHeader{Name: "X-Partner", Constant: "crm"}
	sub := gate.IdentityHeader{Name: "X-Sub", Claim: []string{"sub"}}
	roles := gate.IdentityHeader{Name: "X-Roles", Claim: []string{"roles"}}
	logged := gate.Metadata{Fingerprint: true, Claims: []gate.MetadataClaim{{Name: "subject", Path: []string{"sub"}}, {Name: "none", Path: []string{"none"}}}}
	type about = map[string]any
	for name, test := range map[string]struct {
		identity []gate.IdentityHeader
		logs     gate.Metadata
		keep     time.Duration
		claims   string
		headers  []gate.Header
		remove   []string
		metadata about
	}{
		"claims that are there": {
			[]gate.IdentityHeader{partner, sub, roles},
			gate.Metadata{},
			0, `{"sub":"s","roles":["a","b"]}`,
			[]gate.Header{{Name: "X-Partner", Value: "crm"}, {Name: "X-Sub", Value: "s"}, {Name: "X-Roles", Value: "a,b"}},
			[]string{"authorization"},
			about{},
		},
		"one that is not": {
			[]gate.IdentityHeader{partner, sub, roles},
			gate.Metadata{},
			0, `{"sub":"s"}`,
			[]gate.Header{{Name: "X-Partner", Value: "crm"}, {Name: "X-Sub", Value: "s"}},
			[]string{"authorization", "x-roles"},
			about{},
		},
		"none": {[]gate.IdentityHeader{sub, roles}, gate.Metadata{}, 0, `{}`, nil, []string{"authorization", "x-sub", "x-roles"}, about{}},
		"what can be logged": {
			[]gate.IdentityHeader{partner},
			logged, 0, `{"sub":"s"}`,
			[]gate.Header{{Name: "X-Partner", Value: "crm"}},
			[]string{"authorization"},
			about{"fingerprint": token.Fingerprint(), "claims": about{"subject": "s"}},
		},
		"what can be logged of a token without the claim": {nil, logged, 0, `{}`, nil, []string{"authorization"}, about{"fingerprint": token.Fingerprint()}},
		"all of it, kept": {
			[]gate.IdentityHeader{partner, sub, roles},
			logged, 30 * time.Second, `{"sub":"s"}`,
			[]gate.Header{{Name: "X-Partner", Value: "crm"}, {Name: "X-Sub", Value: "s"}},
			[]string{"authorization", "x-roles"},
			about{
				"fingerprint": token.Fingerprint(), "claims": about{"subject": "s"}, "identity": about{"X-Partner": "crm", "X-Sub": "s"},
				"edge_cache": about{"seconds": 30.0, "depends_on": []any{"authorization"}, "headers_to_remove": []any{"authorization", "x-sub", "x-roles"}},
			},
		},
		"none, kept": {
			[]gate.IdentityHeader{sub},
			gate.Metadata{},
			30 * time.Second, `{}`, nil,
			[]string{"authorization", "x-sub"},
			about{"edge_cache": about{"seconds": 30.0, "depends_on": []any{"authorization"}, "headers_to_remove": []any{"authorization", "x-sub"}}},
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			claims, err := verifier.ParseClaims([]byte(test.claims))
			if err != nil {
				t.Fatal(err)
			}
			g, err := gate.New(gate.Options{Parser: parser, Policy: gate.Policy{
				Verifier: always(verifier.Verdict{Valid: true, Source: verifier.FromCache, Until: time.Now().Add(time.Minute), Claims: claims}),
				Realm:    "api", EdgeCache: test.keep, Identity: test.identity, Metadata: test.logs,
			}})
			if err != nil {
				t.Fatal(err)
			}
			test.metadata["reason"], test.metadata["source"] = "valid", "cache"
			metadata, err := structpb.NewStruct(test.metadata)
			if err != nil {
				t.Fatal(err)
			}
			want := &authv3.CheckResponse{
				Status: &status.Status{}, DynamicMetadata: metadata,
				HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{Headers: overwrite(test.headers), HeadersToRemove: test.remove}},
			}
			a := &authorization{}
			a.current.Store(newDecider(g))
			byMessage, byWire := ask(t, a, "Bearer a-token")
			for how, got := range map[string]*authv3.CheckResponse{"by the generated types": byMessage, "by the codec": byWire} {
				if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
					t.Errorf("%s, %s (-want +got):\n%s", name, how, diff)
				}
			}
		})
	}
}

// TestWhatEnvoyCanLogOfARefusedToken is its fingerprint, if the policy says so.
func TestWhatEnvoyCanLogOfARefusedToken(t *testing.T) {
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	token, err := parser.Parse([]string{"Bearer a-token"})
	if err != nil {
		t.Fatal(err)
	}
	g, err := gate.New(gate.Options{Parser: parser, Policy: gate.Policy{
		Verifier: always(verifier.Verdict{Source: verifier.FromDenial}), Realm: "api", Metadata: gate.Metadata{Fingerprint: true},
	}})
	if err != nil {
		t.Fatal(err)
	}
	want, err := structpb.NewStruct(map[string]any{"reason": "invalid_token", "source": "denied", "fingerprint": token.Fingerprint()})
	if err != nil {
		t.Fatal(err)
	}
	a := &authorization{}
	a.current.Store(newDecider(g))
	byMessage, byWire := ask(t, a, "Bearer a-token")
	for _, got := range []*authv3.CheckResponse{byMessage, byWire} {
		if diff := cmp.Diff(want, got.GetDynamicMetadata(), protocmp.Transform()); got.GetDeniedResponse() == nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", got, diff)
		}
	}
}
