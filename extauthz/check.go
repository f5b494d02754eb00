package extauthz

import (
	"context"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/verifier"
)

// authorization implements envoy.service.auth.v3.Authorization.
type authorization struct {
	authv3.UnimplementedAuthorizationServer
	gate    *gate.Gate
	replies replies
}

// Check decides about a request by the generated types. It returns no error,
// because Envoy would make a reply of its own from it.
func (a *authorization) Check(ctx context.Context, check *authv3.CheckRequest) (r *authv3.CheckResponse, err error) {
	defer func() {
		if value := recover(); value != nil {
			d := a.gate.Recovered(value)
			r, err = a.replies.of(&d, a.gate.Reply(&d)).response, nil
		}
	}()
	http := check.GetAttributes().GetRequest().GetHttp()
	d := a.gate.Decide(ctx, gate.Request{Authorization: credentials(http), Target: http.GetPath()})
	return a.replies.of(&d, a.gate.Reply(&d)).response, nil
}

// credentials returns all values of the Authorization header. Envoy puts the
// headers into one of two places, depending on encode_raw_headers; what stands in
// both, or twice in whatever letter case, is there more than once.
func credentials(http *authv3.AttributeContext_HttpRequest) []string {
	var values []string
	note := func(value string) { values = append(values, value) }
	for _, h := range http.GetHeaderMap().GetHeaders() {
		if isAuthorization(h.GetKey()) {
			eachValue(h.GetValue(), string(h.GetRawValue()), note)
		}
	}
	for key, value := range http.GetHeaders() {
		if isAuthorization(key) {
			note(value)
		}
	}
	return values
}

// answer is a reply in both forms: as a message and as it goes over the wire.
type answer struct {
	response *authv3.CheckResponse
	encoded  *encoded
}

func newAnswer(r *authv3.CheckResponse) *answer { return &answer{r, encode(r)} }

// replies are the gate's replies in Envoy's form, made ahead.
type replies struct {
	allowed [verifier.Sources]*answer
	refused map[*gate.Reply]*answer
}

// newReplies makes the replies ahead. Envoy takes the header named by remove off
// an allowed request; "" leaves all.
func newReplies(g *gate.Gate, remove string) replies {
	rs := replies{refused: map[*gate.Reply]*answer{}}
	for source := range verifier.Source(verifier.Sources) {
		ok := &authv3.OkHttpResponse{}
		if remove != "" {
			ok.HeadersToRemove = []string{remove}
		}
		rs.allowed[source] = newAnswer(&authv3.CheckResponse{
			// Envoy allows a reply without a status too. Ours always have one.
			Status:       &status.Status{Code: int32(codes.OK)},
			HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: ok},
			DynamicMetadata: metadata(map[string]string{
				"reason": gate.Valid.String(), "source": source.String(),
			}),
		})
	}
	for reason, reply := range g.Replies() {
		if reply.Status != okStatus {
			rs.refused[reply] = refusal(reason, reply)
		}
	}
	return rs
}

const okStatus = int(typev3.StatusCode_OK)

func (rs *replies) of(d *gate.Decision, reply *gate.Reply) *answer {
	// Both must say it, so that no mistake in either lets a request through.
	if d.Outcome() == gate.Allow && reply.Status == okStatus {
		return rs.allowed[d.Source]
	}
	if made, ok := rs.refused[reply]; ok {
		return made
	}
	return refusal(d.Reason, reply)
}

// refusal makes a denied response, which carries the reply to the client as it
// is. A status alone would become a 403 without a body.
func refusal(reason gate.Reason, reply *gate.Reply) *answer {
	code := codes.Unavailable
	if reason.Outcome() == gate.Unauthorized {
		code = codes.Unauthenticated
	}
	headers := make([]*corev3.HeaderValueOption, len(reply.Header))
	for i, h := range reply.Header {
		headers[i] = &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: h.Name, Value: h.Value},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}
	}
	return newAnswer(&authv3.CheckResponse{
		Status: &status.Status{Code: int32(code), Message: reason.String()},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode(reply.Status)}, //nolint:gosec // 401 or 503
			Headers: headers,
			Body:    string(reply.Body),
		}},
		DynamicMetadata: metadata(map[string]string{"reason": reason.String()}),
	})
}

// metadata is what Envoy's access log can show of the decision.
func metadata(values map[string]string) *structpb.Struct {
	fields := make(map[string]*structpb.Value, len(values))
	for name, value := range values {
		fields[name] = structpb.NewStringValue(value)
	}
	return &structpb.Struct{Fields: fields}
}
