package extauthz

import (
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/bearergate/bearergate/gate"
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
		{&authv3.AttributeContext{}, "source", checkSourceField},
		{&authv3.AttributeContext_Peer{}, "address", checkPeerAddressField},
		{&corev3.Address{}, "socket_address", checkSocketAddressField},
		{&corev3.Address{}, "pipe", checkPipeField},
		{&corev3.Address{}, "envoy_internal_address", checkInternalField},
		{&corev3.SocketAddress{}, "address", checkAddressField},
	} {
		if got := test.message.ProtoReflect().Descriptor().Fields().ByName(test.field).Number(); got != test.want {
			t.Errorf("%s is field %d, not %d", test.field, got, test.want)
		}
	}
}

// TestTheKindsOfAddressAreKnown: the walk lets a later one of another kind take the place
// of one.
func TestTheKindsOfAddressAreKnown(t *testing.T) {
	kinds := (&corev3.Address{}).ProtoReflect().Descriptor().Oneofs().ByName("address")
	if kinds.Fields().Len() != 3 {
		t.Errorf("Envoy has %d kinds of address; see question.source", kinds.Fields().Len())
	}
}

func TestBothCodecsFindTheSameClient(t *testing.T) {
	socket := func(host string) *corev3.Address {
		return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 41234},
		}}}
	}
	for name, test := range map[string]struct {
		source *corev3.Address
		want   string
	}{
		"an IPv4 address":  {socket("192.0.2.7"), "192.0.2.7"},
		"an IPv6 address":  {socket("2001:db8::7"), "2001:db8::7"},
		"what is no IP":    {socket("edge.example.com"), "invalid IP"},
		"an empty one":     {socket(""), "invalid IP"},
		"a unix socket":    {&corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: "/run/x.sock"}}}, "invalid IP"},
		"no address":       {&corev3.Address{}, "invalid IP"},
		"no source at all": {nil, "invalid IP"},
	} {
		check := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
			Source: &authv3.AttributeContext_Peer{Address: test.source}, Destination: &authv3.AttributeContext_Peer{Address: socket("198.51.100.1")},
		}}
		wire, err := proto.Marshal(check)
		if err != nil {
			t.Fatal(err)
		}
		for how, headers := range map[string]gate.Headers{"the walk": &question{buf: wire}, "the generated types": generatedHeaders{check}} {
			if got := headers.Client().String(); got != test.want {
				t.Errorf("%s, by %s: %s, want %s", name, how, got, test.want)
			}
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
		if got := (generatedHeaders{check}).Header("x-request-id"); got != test.want {
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
