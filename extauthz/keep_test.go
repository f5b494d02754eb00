package extauthz

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/verifier"
)

// TestWhatAnEnvoyThatKeepsAnswersIsTold wants the whole message, by both codecs.
func TestWhatAnEnvoyThatKeepsAnswersIsTold(t *testing.T) {
	list := func(values ...any) []any { return values }
	const token = "token-of-this-test"
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := parser.Parse([]string{"Bearer " + token})
	if err != nil {
		t.Fatal(err)
	}
	fingerprint := parsed.Fingerprint()
	edgeCache := func(o *gate.Options) { o.EdgeCache = 30 * time.Second }
	keep := func(seconds float64, remove ...any) map[string]any {
		return map[string]any{"seconds": seconds, "depends_on": list("authorization"), "headers_to_remove": list(remove...)}
	}
	partner := gate.IdentityHeader{Name: "x-partner", Constant: "crm"}
	for _, test := range []struct {
		name     string
		change   []func(*gate.Options)
		remove   string
		left     time.Duration // of the verdict's life
		metadata map[string]any
		headers  []gate.Header
	}{
		{"nothing is kept, and nothing told", nil, "authorization", time.Minute, map[string]any{}, nil},
		{
			"as long as the option says",
			[]func(*gate.Options){edgeCache},
			"authorization", time.Minute,
			map[string]any{"edge_cache": keep(30, "authorization")},
			nil,
		},
		{
			"as long as the verdict lives",
			[]func(*gate.Options){edgeCache},
			"authorization", 1999 * time.Millisecond,
			map[string]any{"edge_cache": keep(1, "authorization")},
			nil,
		},
		{"the verdict ends too soon", []func(*gate.Options){edgeCache}, "authorization", 999 * time.Millisecond, map[string]any{}, nil},
		{
			"the API gets the token",
			[]func(*gate.Options){edgeCache},
			"", time.Minute,
			map[string]any{"edge_cache": keep(30)},
			nil,
		},
		{
			"a constant",
			[]func(*gate.Options){tells(partner)},
			"authorization", time.Minute,
			map[string]any{},
			[]gate.Header{{Name: "X-Partner", Value: "crm"}},
		},
		{
			"a constant, kept",
			[]func(*gate.Options){edgeCache, tells(partner)},
			"authorization", time.Minute,
			map[string]any{"edge_cache": keep(30, "authorization"), "identity": map[string]any{"X-Partner": "crm"}},
			[]gate.Header{{Name: "X-Partner", Value: "crm"}},
		},
		{
			"the fingerprint",
			[]func(*gate.Options){tells(gate.IdentityHeader{Name: "X-Token", Fingerprint: true}, partner)},
			"authorization", time.Minute,
			map[string]any{},
			[]gate.Header{{Name: "X-Token", Value: fingerprint}, {Name: "X-Partner", Value: "crm"}},
		},
		{
			"the fingerprint, kept",
			[]func(*gate.Options){edgeCache, tells(partner, gate.IdentityHeader{Name: "X-Token", Fingerprint: true})},
			"authorization", time.Minute,
			map[string]any{
				"edge_cache": keep(30, "authorization"),
				"identity":   map[string]any{"X-Partner": "crm", "X-Token": fingerprint},
			},
			[]gate.Header{{Name: "X-Partner", Value: "crm"}, {Name: "X-Token", Value: fingerprint}},
		},
		{
			"the fingerprint, the verdict ends too soon",
			[]func(*gate.Options){edgeCache, tells(gate.IdentityHeader{Name: "X-Token", Fingerprint: true})},
			"authorization", time.Millisecond,
			map[string]any{},
			[]gate.Header{{Name: "X-Token", Value: fingerprint}},
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			until := time.Now().Add(test.left)
			o := gate.Options{Parser: parser, Policy: gate.Policy{
				Verifier: always(verifier.Verdict{Valid: true, Source: verifier.FromCache, Until: until}), Realm: "api", KeepToken: test.remove == "",
			}}
			for _, set := range test.change {
				set(&o)
			}
			g, err := gate.New(o)
			if err != nil {
				t.Fatal(err)
			}
			test.metadata["reason"], test.metadata["source"] = "valid", "cache"
			metadata, err := structpb.NewStruct(test.metadata)
			if err != nil {
				t.Fatal(err)
			}
			ok := &authv3.OkHttpResponse{Headers: overwrite(test.headers)}
			if test.remove != "" {
				ok.HeadersToRemove = []string{test.remove}
			}
			want := &authv3.CheckResponse{
				Status: &status.Status{}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: ok}, DynamicMetadata: metadata,
			}
			a := &authorization{}
			a.current.Store(newDecider(g))
			byMessage, byWire := ask(t, a, "Bearer "+token)
			if diff := cmp.Diff(want, byMessage, protocmp.Transform()); diff != "" {
				t.Errorf("%s, by the generated types (-want +got):\n%s", test.name, diff)
			}
			if diff := cmp.Diff(want, byWire, protocmp.Transform()); diff != "" {
				t.Errorf("%s, by the codec (-want +got):\n%s", test.name, diff)
			}
			for _, header := range []string{"", "Bearer a,b"} {
				byMessage, byWire := ask(t, a, header)
				for _, refusal := range []*authv3.CheckResponse{byMessage, byWire} {
					if fields := refusal.GetDynamicMetadata().GetFields(); refusal.GetDeniedResponse() == nil || len(fields) != 1 {
						t.Errorf("%s: the refusal of %q is %v", test.name, header, refusal)
					}
				}
			}
		})
	}
}

// ask asks in both ways.
func ask(t *testing.T, a *authorization, header string) (byMessage, byWire *authv3.CheckResponse) {
	t.Helper()
	r := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
		Http: &authv3.AttributeContext_HttpRequest{Headers: map[string]string{"authorization": header}},
	}}}
	byMessage, err := a.Check(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	wire, err := proto.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	byWire = &authv3.CheckResponse{}
	if err := proto.Unmarshal(onWire(t.Context(), newCodec(&a.current), a, mem.BufferSlice{mem.SliceBuffer(wire)}).Materialize(), byWire); err != nil {
		t.Fatal(err)
	}
	return byMessage, byWire
}

// always gives one verdict.
type always verifier.Verdict

func (v always) Verify(context.Context, bearer.Token) (verifier.Verdict, error) {
	return verifier.Verdict(v), nil
}
