package measure

import (
	"fmt"
	"maps"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Kind is a kind of check, as Envoy sends it.
type Kind struct {
	Name string

	tokenBytes int
	headers    int // besides authorization and the pseudo headers
	raw        bool
}

// Kinds returns all kinds; the second is the typical one.
func Kinds() []Kind {
	return []Kind{
		{Name: "minimal", tokenBytes: 43},
		{Name: "typical", tokenBytes: 43, headers: 7},
		{Name: "header_map", tokenBytes: 43, headers: 7, raw: true},
		{Name: "large", tokenBytes: 2048, headers: 35},
	}
}

// TokensOf makes the tokens that the requests of a kind carry.
func TokensOf(k Kind, n int) []string {
	tokens := make([]string, n)
	for i := range tokens {
		start := fmt.Sprintf("%s-%04d-", strings.ReplaceAll(k.Name, "_", "-"), i)
		tokens[i] = start + strings.Repeat("x", k.tokenBytes-len(start))
	}
	return tokens
}

// Checks makes a check for each token.
func (k Kind) Checks(tokens []string) ([][]byte, error) {
	checks := make([][]byte, len(tokens))
	for i, token := range tokens {
		var err error
		if checks[i], err = k.Check(token); err != nil {
			return nil, err
		}
	}
	return checks, nil
}

// Check makes a check with a token. The fields and headers are those that Envoy 1.40
// sends, with values of their usual length.
func (k Kind) Check(token string) ([]byte, error) {
	headers := map[string]string{"authorization": "Bearer " + token}
	if k.headers > 0 {
		maps.Copy(headers, map[string]string{
			":authority": "api.example.org", ":method": "GET", ":path": "/v1/contacts?limit=10", ":scheme": "https",
		})
	}
	usual := [][2]string{
		{"accept", "application/json"},
		{"user-agent", "partner-client/4.2"},
		{"x-request-id", "0b0d4b26-9b6c-4b0f-8f3f-5f1f6e3f2b1a"},
		{"x-forwarded-proto", "https"},
		{"x-forwarded-for", "203.0.113.7"},
		{"accept-encoding", "gzip, deflate"},
		{"content-type", "application/json"},
	}
	for i := range k.headers {
		if i < len(usual) {
			headers[usual[i][0]] = usual[i][1]
			continue
		}
		headers[fmt.Sprintf("x-partner-header-%d", i)] = strings.Repeat("v", 24)
	}
	http := &authv3.AttributeContext_HttpRequest{
		Id: "12345678901234567890", Method: "GET", Path: "/v1/contacts?limit=10", Host: "api.example.org",
		Scheme: "https", Protocol: "HTTP/1.1", Size: -1,
	}
	if k.raw {
		http.HeaderMap = &corev3.HeaderMap{}
		for name, value := range headers {
			http.HeaderMap.Headers = append(http.HeaderMap.Headers, &corev3.HeaderValue{Key: name, RawValue: []byte(value)})
		}
	} else {
		http.Headers = headers
	}
	return proto.Marshal(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: peer("203.0.113.7", 51234), Destination: peer("10.0.0.5", 8443),
		Request: &authv3.AttributeContext_Request{Time: timestamppb.New(time.Unix(1_790_000_000, 123_456_000)), Http: http},
		// Envoy sends these two always, empty as they mostly are.
		MetadataContext: &corev3.Metadata{}, RouteMetadataContext: &corev3.Metadata{},
	}})
}

func peer(host string, port uint32) *authv3.AttributeContext_Peer {
	return &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}}
}

// AuthRequests makes the requests that nginx sends for tokens by the recipe.
func AuthRequests(tokens []string) [][]byte {
	requests := make([][]byte, len(tokens))
	for i, token := range tokens {
		requests[i] = []byte("GET /auth HTTP/1.1\r\nHost: api.example.org\r\nAuthorization: Bearer " + token +
			"\r\nX-Request-Id: 0b0d4b269b6c4b0f8f3f5f1f6e3f2b1a\r\nX-Original-Method: GET\r\nX-Original-URI: /v1/contacts?limit=10\r\n\r\n")
	}
	return requests
}
