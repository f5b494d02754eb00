package extauthz_test

import (
	"fmt"
	"maps"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"

	"github.com/bearergate/bearergate/extauthz"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/policy"
)

// policies are five, by host, path and method, or by Envoy's own word.
func policies(t testing.TB) func(*gate.Options) {
	t.Helper()
	below := func(text string) policy.Path { return policy.Path{Kind: policy.PrefixPath, Text: text} }
	router, err := policy.NewRouter([]string{policy.DefaultName, "public", "web", "readers", "tried"}, []policy.Route{
		{Hosts: []string{"api.example.com"}, Path: below("/public"), Policy: "public"},
		{Path: below("/web"), Policy: "web"},
		{Path: below("/orders"), Policy: "readers"},
		{Methods: []string{"TRACE"}, Policy: "tried"},
	})
	if err != nil {
		t.Fatal(err)
	}
	readers, err := policy.NewRequirement(policy.Rules{Expression: `request.method == "GET"`})
	if err != nil {
		t.Fatal(err)
	}
	return func(o *gate.Options) {
		with := func(name string, change func(*gate.Policy)) gate.Policy {
			p := o.Policy
			p.Name = name
			change(&p)
			return p
		}
		o.Router, o.Policies = router, []gate.Policy{
			{Name: "public", Public: true, Realm: "api"},
			with("web", func(p *gate.Policy) { p.Preflight = true }),
			with("readers", func(p *gate.Policy) { p.Requirement = readers }),
			with("tried", func(p *gate.Policy) { p.Shadow = time.Now().Add(time.Hour) }),
		}
		o.Identity = []gate.IdentityHeader{{Name: "X-Partner", Constant: "crm"}}
	}
}

// TestEnvoysRequestsFallUnderTheirPolicies, by both codecs alike.
func TestEnvoysRequestsFallUnderTheirPolicies(t *testing.T) {
	ours := start(t, listenTCP(t), extauthz.Options{}, policies(t))
	generated := start(t, listenTCP(t), extauthz.Options{GeneratedCodec: true}, policies(t))
	type facts struct {
		method, host, path, token string
		headers, extensions       map[string]string
		raw                       bool // headers come in header_map
	}
	cors := map[string]string{"origin": "https://app.example.com", "access-control-request-method": "PUT"}
	for name, test := range map[string]struct {
		facts    facts
		status   int // 200 if it is let through
		reason   string
		policy   string
		metadata map[string]string
	}{
		"the default policy":              {facts{"GET", "a", "/", goodToken, nil, nil, false}, 200, "valid", "default", map[string]string{"source": "endpoint"}},
		"a public route":                  {facts{"GET", "API.example.com:443", "/public/x?y", "", nil, nil, false}, 200, "public_route", "public", nil},
		"another host":                    {facts{"GET", "www.example.com", "/public", "", nil, nil, false}, 401, "missing_token", "default", nil},
		"a preflight":                     {facts{"OPTIONS", "a", "/web", "", cors, nil, false}, 200, "preflight", "web", nil},
		"a preflight in raw headers":      {facts{"OPTIONS", "a", "/web", "", cors, nil, true}, 200, "preflight", "web", nil},
		"no preflight":                    {facts{"OPTIONS", "a", "/web", "", nil, nil, false}, 401, "missing_token", "web", nil},
		"a requirement that is met":       {facts{"GET", "a", "/orders/1", goodToken, nil, nil, false}, 200, "valid", "readers", nil},
		"a requirement that is not met":   {facts{"PUT", "a", "/orders/1", goodToken, nil, nil, false}, 403, "insufficient_scope", "readers", nil},
		"a path with dots":                {facts{"GET", "a", "/public/../orders", goodToken, nil, nil, false}, 400, "bad_path", "default", nil},
		"no path":                         {facts{"CONNECT", "a", "", goodToken, nil, nil, false}, 400, "bad_path", "default", nil},
		"a host that is none":             {facts{"GET", "a@b", "/", goodToken, nil, nil, false}, 400, "bad_host", "default", nil},
		"a method in small letters":       {facts{"get", "a", "/", goodToken, nil, nil, false}, 400, "bad_method", "default", nil},
		"a policy that Envoy names":       {facts{"PUT", "a", "/", goodToken, nil, map[string]string{"bearergate_policy": "readers", "x": "y"}, false}, 403, "insufficient_scope", "readers", nil},
		"a policy that is not there":      {facts{"GET", "a", "/", goodToken, nil, map[string]string{"bearergate_policy": "other"}, false}, 503, "unknown_policy", "default", nil},
		"an empty name":                   {facts{"GET", "a", "/", goodToken, nil, map[string]string{"bearergate_policy": ""}, false}, 503, "unknown_policy", "default", nil},
		"a header is not Envoy's word":    {facts{"GET", "a", "/", "", map[string]string{"bearergate_policy": "public", "x-bearergate-policy": "public"}, nil, false}, 401, "missing_token", "default", nil},
		"a policy in shadow, a bad token": {facts{"TRACE", "a", "/", "unknown", nil, nil, false}, 200, "invalid_token", "tried", map[string]string{"source": "endpoint", "shadow": "true"}},
		"a policy in shadow, no answer":   {facts{"TRACE", "a", "/", downToken, nil, nil, false}, 200, "verifier_unavailable", "tried", map[string]string{"shadow": "true"}},
		"a policy in shadow, a good one":  {facts{"TRACE", "a", "/", goodToken, nil, nil, false}, 200, "valid", "tried", nil},
	} {
		t.Run(name, func(t *testing.T) {
			h := &authv3.AttributeContext_HttpRequest{Method: test.facts.method, Host: test.facts.host, Path: test.facts.path, Headers: map[string]string{}}
			maps.Copy(h.GetHeaders(), test.facts.headers)
			if test.facts.token != "" {
				h.Headers["authorization"] = "Bearer " + test.facts.token
			}
			if test.facts.raw {
				h.HeaderMap = &corev3.HeaderMap{}
				for key, value := range h.GetHeaders() {
					h.HeaderMap.Headers = append(h.HeaderMap.Headers, &corev3.HeaderValue{Key: key, RawValue: []byte(value)})
				}
				h.Headers = nil
			}
			request := about(h)
			request.Attributes.ContextExtensions = test.facts.extensions
			reply := ours.check(t, request)
			if other := generated.check(t, request); !proto.Equal(reply, other) {
				t.Errorf("the codecs answer differently:\n%v\n%v", reply, other)
			}
			status := 200
			if !letThrough(reply) {
				status = int(reply.GetDeniedResponse().GetStatus().GetCode())
			}
			metadata := reply.GetDynamicMetadata().GetFields()
			if status != test.status || metadata["reason"].GetStringValue() != test.reason || metadata["policy"].GetStringValue() != test.policy {
				t.Errorf("%d, %v; want %d %s by %s", status, metadata, test.status, test.reason, test.policy)
			}
			for key, want := range test.metadata {
				if got := fmt.Sprint(metadata[key].AsInterface()); got != want {
					t.Errorf("the metadata says %s: %v, want %s", key, got, want)
				}
			}
			if ok := reply.GetOkResponse(); ok != nil {
				named := len(ok.GetHeaders()) == 1
				removed := len(ok.GetHeadersToRemove()) == 2
				if own := test.policy == "default" && test.reason == "valid"; named != own || removed == own { // it alone has the header
					t.Errorf("sets %v and takes off %v", ok.GetHeaders(), ok.GetHeadersToRemove())
				}
			}
		})
	}
}
