package extauthz_test

import (
	"net/http"
	"regexp"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/bearergate/bearergate/extauthz"
)

// asBytes is a codec that leaves messages as they are.
type asBytes struct{}

func (asBytes) Name() string { return "proto" }

func (asBytes) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (asBytes) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// The one header, and the one form of it, that is allowed.
var (
	authorizationName = regexp.MustCompile(`^(?i:authorization)$`)
	goodValue         = regexp.MustCompile(`^(?i:bearer) +` + goodToken + `$`)
)

// isGood says by other means than the server's whether a request is to be
// allowed: Authorization stands in one place and has one value, the good one.
func isGood(r *authv3.CheckRequest) bool {
	var places [][]string
	h := r.GetAttributes().GetRequest().GetHttp()
	for key, value := range h.GetHeaders() {
		if authorizationName.MatchString(key) {
			places = append(places, []string{value})
		}
	}
	for _, header := range h.GetHeaderMap().GetHeaders() {
		if authorizationName.MatchString(header.GetKey()) {
			var values []string
			for _, value := range []string{header.GetValue(), string(header.GetRawValue())} {
				if value != "" {
					values = append(values, value)
				}
			}
			places = append(places, values)
		}
	}
	if len(places) != 1 || len(places[0]) == 0 || places[0][0] != places[0][len(places[0])-1] {
		return false
	}
	return goodValue.MatchString(places[0][0])
}

// FuzzCheck sends any bytes as a CheckRequest. Every reply has a status, says all
// that the client is to get, and allows if and only if the good token is there.
func FuzzCheck(f *testing.F) {
	add := func(r *authv3.CheckRequest) {
		message, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(message)
	}
	const good = "Bearer " + goodToken
	for _, value := range []string{"", good, "bearer  " + goodToken, good + "," + good, "Bearer unknown", "Bearer " + downToken, "Bearer " + panicToken, "Basic x"} {
		add(with(value))
		add(about(&authv3.AttributeContext_HttpRequest{Path: "/?access_token=x", HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{raw("authorization", value)}}}))
		add(about(&authv3.AttributeContext_HttpRequest{HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
			{Key: "Authorization", Value: value, RawValue: []byte(good)}, raw("x", "y"),
		}}}))
		add(about(&authv3.AttributeContext_HttpRequest{
			Headers:   map[string]string{"authorization": good},
			HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{raw("authorization", value)}},
		}))
		add(about(&authv3.AttributeContext_HttpRequest{Headers: map[string]string{"authorization": good, "Authorization": value}}))
	}
	add(&authv3.CheckRequest{})
	f.Add([]byte{})
	f.Add([]byte("\x0a\x00\x0a\x02\x22\x00"))
	f.Add([]byte("no message"))

	ours := start(f, listenUnix(f), extauthz.Options{})
	generated := start(f, listenUnix(f), extauthz.Options{GeneratedCodec: true})
	f.Fuzz(func(t *testing.T, message []byte) {
		request := &authv3.CheckRequest{}
		wellFormed := proto.Unmarshal(message, request) == nil
		if !wellFormed {
			request = &authv3.CheckRequest{} // not what was read until the fault
		}
		var answer []byte
		err := generated.conn.Invoke(t.Context(), authv3.Authorization_Check_FullMethodName, &message, &answer, grpc.ForceCodecV2(asBytes{}))
		if wellFormed {
			checkAnswer(t, request, answer, err)
		} else if err == nil {
			t.Fatalf("the generated types reply to what is no CheckRequest: %q", answer)
		}
		answer = nil
		err = ours.conn.Invoke(t.Context(), authv3.Authorization_Check_FullMethodName, &message, &answer, grpc.ForceCodecV2(asBytes{}))
		// What is no CheckRequest holds no good token, and is refused.
		checkAnswer(t, request, answer, err)
		var reply authv3.CheckResponse
		if !wellFormed && proto.Unmarshal(answer, &reply) == nil && reply.GetDeniedResponse().GetStatus().GetCode() != http.StatusServiceUnavailable {
			t.Fatalf("what is no CheckRequest is answered by %v", &reply)
		}
	})
}

// checkAnswer sees that an answer is whole, and right for the request.
func checkAnswer(t *testing.T, request *authv3.CheckRequest, answer []byte, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("no reply: %v", status.Convert(err))
	}
	reply := &authv3.CheckResponse{}
	if err := proto.Unmarshal(answer, reply); err != nil {
		t.Fatal(err)
	}
	if reply.GetStatus() == nil {
		t.Fatalf("a reply without a status, which allows: %v", reply)
	}
	if letThrough(reply) != isGood(request) {
		t.Fatalf("%v is answered by %v", request, reply)
	}
	if letThrough(reply) {
		return
	}
	denied := reply.GetDeniedResponse()
	switch code := denied.GetStatus().GetCode(); {
	case code != http.StatusUnauthorized && code != http.StatusServiceUnavailable:
		t.Fatalf("refused with status %d", code)
	case denied.GetBody() == "" || len(denied.GetHeaders()) == 0:
		t.Fatalf("refused without words: %v", reply)
	}
}
