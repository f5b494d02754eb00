package extauthz_test

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"

	"github.com/bearergate/bearergate/extauthz"
	"github.com/bearergate/bearergate/gate"
)

// TestARefusalNamesTheRequest as Envoy does, by both codecs. A request that Envoy names
// twice, or that a client names, is not named.
func TestARefusalNamesTheRequest(t *testing.T) {
	words := func(o *gate.Options) {
		o.Wording = gate.Wording{ContentType: "text/plain", Template: "{{.reason}} of {{.request_id}}"}
	}
	ours := start(t, listenTCP(t), extauthz.Options{}, words)
	generated := start(t, listenTCP(t), extauthz.Options{GeneratedCodec: true}, words)
	for name, test := range map[string]struct {
		http *authv3.AttributeContext_HttpRequest
		want string
	}{
		"headers":             {&authv3.AttributeContext_HttpRequest{Headers: map[string]string{"x-request-id": "7"}}, "missing_token of 7"},
		"raw headers":         {&authv3.AttributeContext_HttpRequest{HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{raw("x-request-id", "7")}}}, "missing_token of 7"},
		"raw headers, twice":  {&authv3.AttributeContext_HttpRequest{HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{raw("x-request-id", "7"), raw("x-request-id", "8")}}}, "missing_token of "},
		"none":                {&authv3.AttributeContext_HttpRequest{}, "missing_token of "},
		"what cannot be said": {&authv3.AttributeContext_HttpRequest{Headers: map[string]string{"x-request-id": "<b>"}}, "missing_token of "},
		"with a bad token":    {&authv3.AttributeContext_HttpRequest{Headers: map[string]string{"x-request-id": "7", "authorization": "Bearer unknown"}}, "invalid_token of 7"},
		"with no answer":      {&authv3.AttributeContext_HttpRequest{Headers: map[string]string{"x-request-id": "7", "authorization": "Bearer " + busyToken}}, "verifier_unavailable of 7"},
	} {
		reply, other := ours.check(t, about(test.http)), generated.check(t, about(test.http))
		if got := reply.GetDeniedResponse().GetBody(); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
		if !proto.Equal(reply, other) {
			t.Errorf("%s: the codecs answer differently:\n%v\n%v", name, reply, other)
		}
	}
}
