package extauthz

import (
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func TestTheFieldsThatLeadToHeadersAreTheGeneratedOnes(t *testing.T) {
	http := &authv3.AttributeContext_HttpRequest{}
	for _, test := range []struct {
		message proto.Message
		field   protoreflect.Name
		want    protoreflect.FieldNumber
	}{
		{&authv3.CheckRequest{}, "attributes", checkAttributesField},
		{&authv3.AttributeContext{}, "request", checkRequestField},
		{&authv3.AttributeContext_Request{}, "http", checkHTTPField},
		{http, "headers", checkHeadersField},
		{http, "header_map", checkHeaderMapField},
		{&corev3.HeaderMap{}, "headers", checkHeaderField},
		{&corev3.HeaderValue{}, "key", checkKeyField},
		{&corev3.HeaderValue{}, "value", checkValueField},
		{&corev3.HeaderValue{}, "raw_value", checkRawValueField},
	} {
		if got := test.message.ProtoReflect().Descriptor().Fields().ByName(test.field).Number(); got != test.want {
			t.Errorf("%s is field %d, not %d", test.field, got, test.want)
		}
	}
}

// TestBothCodecsFindTheSameHeader, wherever Envoy puts it.
func TestBothCodecsFindTheSameHeader(t *testing.T) {
	plain := map[string]string{"authorization": "Bearer x", "x-request-id": "abc", "x-other": "no"}
	for name, test := range map[string]struct {
		http *authv3.AttributeContext_HttpRequest
		want string
	}{
		"no headers":    {&authv3.AttributeContext_HttpRequest{}, ""},
		"nothing":       {nil, ""},
		"in the map":    {&authv3.AttributeContext_HttpRequest{Headers: plain}, "abc"},
		"as raw values": {&authv3.AttributeContext_HttpRequest{HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{{Key: "x-other", RawValue: []byte("no")}, {Key: "x-request-id", RawValue: []byte("abc")}}}}, "abc"},
		"as values":     {&authv3.AttributeContext_HttpRequest{HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{{Key: "X-Request-Id", Value: "abc"}}}}, "abc"},
		"another one":   {&authv3.AttributeContext_HttpRequest{Headers: map[string]string{"x-request-idx": "abc"}}, ""},
	} {
		check := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: test.http}}}
		wire, err := proto.Marshal(check)
		if err != nil {
			t.Fatal(err)
		}
		q := &question{buf: wire}
		if got := q.Header("x-request-id"); got != test.want {
			t.Errorf("%s: the walk finds %q, want %q", name, got, test.want)
		}
		if got := (generatedHeaders{test.http}).Header("x-request-id"); got != test.want {
			t.Errorf("%s: the generated types give %q, want %q", name, got, test.want)
		}
		for cut := range wire { // whatever is cut off, it ends
			(&question{buf: wire[:cut]}).Header("x-request-id")
		}
	}
	if got := (&question{buf: []byte(strings.Repeat("\xff", 100))}).Header("x"); got != "" {
		t.Errorf("in what is no message it finds %q", got)
	}
}
