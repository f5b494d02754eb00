package extauthz_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/bearergate/bearergate/extauthz"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/verifier"
)

// header is a line of a denied response, which is to take the place of what an
// earlier filter may have said.
func header(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, Value: value},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

func fields(t *testing.T, values map[string]any) *structpb.Struct {
	t.Helper()
	s, err := structpb.NewStruct(values)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func allowed(t *testing.T, source string, remove ...string) *authv3.CheckResponse {
	t.Helper()
	return &authv3.CheckResponse{
		Status:          &status.Status{Code: int32(codes.OK)},
		HttpResponse:    &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{HeadersToRemove: remove}},
		DynamicMetadata: fields(t, map[string]any{"reason": "valid", "source": source}),
	}
}

func denied(t *testing.T, code codes.Code, reason string, http typev3.StatusCode, body, name, value string) *authv3.CheckResponse {
	t.Helper()
	return &authv3.CheckResponse{
		Status: &status.Status{Code: int32(code), Message: reason},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status: &typev3.HttpStatus{Code: http},
			Headers: []*corev3.HeaderValueOption{
				header(name, value), header("Content-Type", "application/json"),
				header("Cache-Control", "no-store"), header("X-Bearergate-Reason", reason),
			},
			Body: body,
		}},
		DynamicMetadata: fields(t, map[string]any{"reason": reason}),
	}
}

func unauthorized(t *testing.T, reason, challenge string) *authv3.CheckResponse {
	t.Helper()
	return denied(t, codes.Unauthenticated, reason, typev3.StatusCode_Unauthorized,
		`{"error":"missing or invalid auth token"}`, "WWW-Authenticate", `Bearer realm="api"`+challenge)
}

func unavailable(t *testing.T, reason, retryAfter string) *authv3.CheckResponse {
	t.Helper()
	return denied(t, codes.Unavailable, reason, typev3.StatusCode_ServiceUnavailable,
		`{"error":"the token could not be checked, try again later"}`, "Retry-After", retryAfter)
}

// TestEveryKindOfReply wants the whole message for each: Envoy allows a reply
// without a status, and makes up what a refusal lacks.
func TestEveryKindOfReply(t *testing.T) {
	const invalid = `, error="invalid_token", error_description=`
	url := with("")
	url.GetAttributes().GetRequest().GetHttp().Path = "/orders?access_token=" + goodToken
	tests := []struct {
		name    string
		request *authv3.CheckRequest
		want    *authv3.CheckResponse
		reason  gate.Reason
	}{
		{"a good token", with("Bearer " + goodToken), allowed(t, "endpoint", "authorization"), gate.Valid},
		{"a good token, from the cache", with("Bearer " + cachedToken), allowed(t, "cache", "authorization"), gate.Valid},
		{"no token", with(""), unauthorized(t, "missing_token", ""), gate.MissingToken},
		{"a token in the URL", url, unauthorized(t, "token_in_url", invalid+`"the token is in the URL; send it in the Authorization header"`), gate.TokenInURL},
		{"a malformed token", with(`Bearer "x"`), unauthorized(t, "malformed_token", invalid+`"the token is in quotes; send it without them"`), gate.MalformedToken},
		{"two tokens", with("Bearer a,Bearer b"), unauthorized(t, "multiple_tokens", invalid+`"the Authorization header holds more than one credential"`), gate.MultipleTokens},
		{"a token that is not good", with("Bearer unknown"), unauthorized(t, "invalid_token", invalid+`"the token is not good or has ended; fetch a new one"`), gate.InvalidToken},
		{"no answer", with("Bearer " + downToken), unavailable(t, "verifier_unavailable", "5"), gate.VerifierUnavailable},
		{"no answer, and a time to wait", with("Bearer " + busyToken), unavailable(t, "verifier_unavailable", "42"), gate.VerifierUnavailable},
		{"too much to do", with("Bearer " + shedToken), unavailable(t, "overloaded", "5"), gate.Overloaded},
		{"a panic below", with("Bearer " + panicToken), unavailable(t, "internal_error", "5"), gate.InternalError},
		// The gate says yes; it is here that no reply is found.
		{"a panic in this room", with("Bearer " + oddToken), unavailable(t, "internal_error", "5"), gate.InternalError},
	}
	f := start(t, listenTCP(t), extauthz.Options{})
	keeps := start(t, listenTCP(t), extauthz.Options{}, keepToken)
	seen := map[gate.Reason]bool{}
	for _, test := range tests {
		seen[test.reason] = true
		if test.reason.HasVerdict() && test.want.GetDeniedResponse() != nil {
			test.want.GetDynamicMetadata().GetFields()["source"] = structpb.NewStringValue("endpoint")
		}
		for range 2 { // the second finds the messages as they were
			if diff := cmp.Diff(test.want, f.check(t, test.request), protocmp.Transform()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.name, diff)
			}
		}
		if ok := test.want.GetOkResponse(); ok != nil {
			ok.HeadersToRemove = nil
		}
		if diff := cmp.Diff(test.want, keeps.check(t, test.request), protocmp.Transform()); diff != "" {
			t.Errorf("%s, when the token is kept (-want +got):\n%s", test.name, diff)
		}
	}
	for reason := range gate.InsufficientScope { // the others are those of several policies
		if !seen[reason] {
			t.Errorf("no row has the reason %v", reason)
		}
	}
}

func TestEverySourceIsInTheMetadata(t *testing.T) {
	f := start(t, listenTCP(t), extauthz.Options{})
	for source := range verifier.Source(verifier.Sources) {
		reply := f.check(t, with("Bearer from-"+source.String()))
		if diff := cmp.Diff(allowed(t, source.String(), "authorization"), reply, protocmp.Transform()); diff != "" {
			t.Errorf("%v (-want +got):\n%s", source, diff)
		}
	}
}

func TestCredentials(t *testing.T) {
	const good = "Bearer " + goodToken
	type headers = map[string]string
	type list = []*corev3.HeaderValue
	inMap := func(h headers) *authv3.CheckRequest {
		return about(&authv3.AttributeContext_HttpRequest{Path: "/orders", Headers: h})
	}
	inList := func(h ...*corev3.HeaderValue) *authv3.CheckRequest {
		return about(&authv3.AttributeContext_HttpRequest{Path: "/orders", HeaderMap: &corev3.HeaderMap{Headers: h}})
	}
	inBoth := func(h headers, l list) *authv3.CheckRequest {
		return about(&authv3.AttributeContext_HttpRequest{Headers: h, HeaderMap: &corev3.HeaderMap{Headers: l}})
	}
	f := start(t, listenTCP(t), extauthz.Options{})
	for _, test := range []struct {
		name    string
		request *authv3.CheckRequest
		want    gate.Reason
	}{
		{"headers", inMap(headers{"authorization": good}), gate.Valid},
		{"headers, in another letter case", inMap(headers{"AuThOrIzAtIoN": good}), gate.Valid},
		{"header_map, raw value", inList(raw("authorization", good)), gate.Valid},
		{"header_map, in another letter case", inList(raw("AUTHORIZATION", good)), gate.Valid},
		{"header_map, value", inList(&corev3.HeaderValue{Key: "authorization", Value: good}), gate.Valid},
		{"header_map, both values alike", inList(&corev3.HeaderValue{Key: "authorization", Value: good, RawValue: []byte(good)}), gate.Valid},
		{"among other headers", inList(raw(":path", "/orders"), raw("x-authorization", "x"), raw("authorization", good), raw("cookie", good)), gate.Valid},
		{"headers of which one is another's", inMap(headers{"proxy-authorization": good, "authorization": good}), gate.Valid},

		{"both values, different", inList(&corev3.HeaderValue{Key: "authorization", Value: good, RawValue: []byte("Bearer other")}), gate.MultipleTokens},
		{"both values, different, the other good", inList(&corev3.HeaderValue{Key: "authorization", Value: "Bearer other", RawValue: []byte(good)}), gate.MultipleTokens},
		{"headers and header_map", inBoth(headers{"authorization": good}, list{raw("authorization", good)}), gate.MultipleTokens},
		{"headers and an empty one in header_map", inBoth(headers{"authorization": good}, list{raw("authorization", "")}), gate.MultipleTokens},
		{"header_map and an empty one in headers", inBoth(headers{"authorization": ""}, list{raw("authorization", good)}), gate.MultipleTokens},
		{"headers, twice in different letter case", inMap(headers{"authorization": good, "Authorization": good}), gate.MultipleTokens},
		{"headers, twice, one empty", inMap(headers{"authorization": good, "Authorization": ""}), gate.MultipleTokens},
		{"headers, three times", inMap(headers{"authorization": good, "Authorization": good, "AUTHORIZATION": good}), gate.MultipleTokens},
		{"header_map, twice", inList(raw("authorization", good), raw("authorization", good)), gate.MultipleTokens},
		{"header_map, twice in different letter case", inList(raw("authorization", good), raw("Authorization", "Basic x")), gate.MultipleTokens},
		{"header_map, twice, one empty", inList(raw("authorization", ""), raw("authorization", good)), gate.MultipleTokens},
		{"two lines that Envoy joined", inMap(headers{"authorization": good + "," + good}), gate.MultipleTokens},
		{"two lines that Envoy joined, raw", inList(raw("authorization", good+","+good)), gate.MultipleTokens},

		{"a byte over 0x7f that Envoy replaced", inMap(headers{"authorization": good + "!"}), gate.MalformedToken},
		{"a byte over 0x7f", inList(raw("authorization", good+"\xff")), gate.MalformedToken},
		{"a zero byte", inList(raw("authorization", good+"\x00")), gate.MalformedToken},
		{"white space after it", inMap(headers{"authorization": good + " "}), gate.MalformedToken},

		{"white space before it", inMap(headers{"authorization": " " + good}), gate.MissingToken},
		{"an empty value", inMap(headers{"authorization": ""}), gate.MissingToken},
		{"an empty value in header_map", inList(raw("authorization", "")), gate.MissingToken},
		{"another scheme", inMap(headers{"authorization": "Basic " + good}), gate.MissingToken},
		{"other headers that look alike", inMap(headers{"proxy-authorization": good, "x-authorization": good, ":authorization": good, "authorization\x00": good, "": good}), gate.MissingToken},
		{"other headers in header_map", inList(raw("x-forwarded-authorization", good), raw("", good), raw("authorizatıon", good)), gate.MissingToken},
		{"the body", about(&authv3.AttributeContext_HttpRequest{Body: "access_token=" + goodToken, RawBody: []byte(good)}), gate.MissingToken},
		{"everywhere else", &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
			Source:            &authv3.AttributeContext_Peer{Principal: good, Labels: headers{"authorization": good}},
			ContextExtensions: headers{"authorization": good},
			Request:           &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Host: good, Fragment: good, Method: good}},
		}}, gate.MissingToken},

		{"an empty request", &authv3.CheckRequest{}, gate.MissingToken},
		{"empty attributes", &authv3.CheckRequest{Attributes: &authv3.AttributeContext{}}, gate.MissingToken},
		{"no http", &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{}}}, gate.MissingToken},
		{"an empty http", about(&authv3.AttributeContext_HttpRequest{}), gate.MissingToken},
		{"an empty header_map", about(&authv3.AttributeContext_HttpRequest{HeaderMap: &corev3.HeaderMap{}}), gate.MissingToken},
		{"an empty header in header_map", inList(&corev3.HeaderValue{}), gate.MissingToken},

		{"the query", about(&authv3.AttributeContext_HttpRequest{Path: "/x?a=b&access_token=" + goodToken}), gate.TokenInURL},
		{"the query and the header", about(&authv3.AttributeContext_HttpRequest{Path: "/x?access_token=other", Headers: headers{"authorization": good}}), gate.Valid},
	} {
		asked := f.oracle.asked.Load()
		reply := f.check(t, test.request)
		if got := reply.GetDynamicMetadata().GetFields()["reason"].GetStringValue(); got != test.want.String() {
			t.Errorf("%s: decided %s, want %v", test.name, got, test.want)
		}
		if reply.GetStatus() == nil || letThrough(reply) != (test.want == gate.Valid) {
			t.Errorf("%s: the status is %v", test.name, reply.GetStatus())
		}
		if !letThrough(reply) && f.oracle.asked.Load() != asked {
			t.Errorf("%s: the verifier was asked", test.name)
		}
	}
}

// letThrough reports whether Envoy lets a request through after this reply: also
// after one without a status.
func letThrough(r *authv3.CheckResponse) bool { return r.GetStatus().GetCode() == int32(codes.OK) }

// TestChecksAtOnce: the messages are made once and sent to all.
func TestChecksAtOnce(t *testing.T) {
	f := start(t, listenTCP(t), extauthz.Options{})
	tokens := map[string]codes.Code{
		goodToken: codes.OK, cachedToken: codes.OK, "unknown": codes.Unauthenticated, "a,b": codes.Unauthenticated,
		downToken: codes.Unavailable, busyToken: codes.Unavailable, panicToken: codes.Unavailable, oddToken: codes.Unavailable,
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var wg sync.WaitGroup
	for range 20 {
		for token, want := range tokens {
			wg.Go(func() {
				reply, err := f.client.Check(ctx, with("Bearer "+token))
				if err != nil || codes.Code(reply.GetStatus().GetCode()) != want {
					t.Errorf("%s: %v, %v", token, reply, err)
				}
			})
		}
	}
	wg.Wait()
}

// TestTokenIsNotInAnyReply: what Envoy gets may end in its access log.
func TestTokenIsNotInAnyReply(t *testing.T) {
	f := start(t, listenTCP(t), extauthz.Options{})
	for _, authorization := range []string{
		"Bearer " + goodToken, "Bearer " + downToken, "Bearer " + busyToken, "Bearer " + panicToken, "Bearer " + oddToken,
		"Bearer unknown-token", `Bearer "quoted-token"`, "Bearer one-token,Bearer two-token", "Bearer spaced-token token", "Basic basic-token",
	} {
		for _, path := range []string{"/orders", "/orders?access_token=url-token"} {
			r := with(authorization)
			r.GetAttributes().GetRequest().GetHttp().Path = path
			if reply := f.check(t, r).String(); strings.Contains(strings.ReplaceAll(reply, "auth token", ""), "-token") {
				t.Errorf("%s is shown in %s", authorization, reply)
			}
		}
	}
}
