package extauthz

import (
	"context"
	"time"

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
			r, err = a.replies.message(&d, a.gate.Reply(&d)), nil
		}
	}()
	http := check.GetAttributes().GetRequest().GetHttp()
	d := a.gate.Decide(ctx, gate.Request{Authorization: credentials(http), Target: http.GetPath()})
	return a.replies.message(&d, a.gate.Reply(&d)), nil
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
	// remove is the header that Envoy takes off an allowed request, or "".
	remove string
	// dependsOn is what the gate's decisions depend on, for an Envoy that keeps them.
	dependsOn []string
	// identity are the lines that are the same for all allowed requests.
	identity []gate.Header
	// allowed holds, by source and by the seconds that an edge may keep it, an allow
	// without what is different for each token.
	allowed [verifier.Sources][]*encoded
	refused map[*gate.Reply]*answer
}

// newReplies makes the replies ahead. Envoy takes the header named by remove off
// an allowed request; "" leaves all.
func newReplies(g *gate.Gate, remove string) replies {
	rs := replies{remove: remove, dependsOn: g.DependsOn(), refused: map[*gate.Reply]*answer{}}
	for reason, reply := range g.Replies() {
		if reply.Status == okStatus {
			rs.identity = reply.Identity
		} else {
			rs.refused[reply] = refusal(reason, reply)
		}
	}
	for source := range verifier.Source(verifier.Sources) {
		for keep := time.Duration(0); keep <= g.EdgeCache(); keep += time.Second {
			rs.allowed[source] = append(rs.allowed[source], encode(rs.allow(source, keep, rs.identity)))
		}
	}
	return rs
}

const okStatus = int(typev3.StatusCode_OK)

// allows reports whether a reply lets the request through. Both must say it, so
// that no mistake in either does.
func allows(d *gate.Decision, reply *gate.Reply) bool {
	return d.Outcome() == gate.Allow && reply.Status == okStatus
}

// message returns the reply as a message.
func (rs *replies) message(d *gate.Decision, reply *gate.Reply) *authv3.CheckResponse {
	if allows(d, reply) {
		_ = rs.allowed[d.Source] // a source that nobody knows is a panic, and so no allow
		return rs.allow(d.Source, d.Keep, reply.Identity)
	}
	return rs.refusal(d, reply).response
}

// wire returns the reply as it goes over the wire.
func (rs *replies) wire(d *gate.Decision, reply *gate.Reply) *encoded {
	if !allows(d, reply) {
		return rs.refusal(d, reply).encoded
	}
	ready := rs.allowed[d.Source][d.Keep/time.Second]
	if len(reply.Identity) == len(rs.identity) {
		return ready // the gate makes either all or none of the lines for each token
	}
	return ready.with(reply.Identity, d.Keep)
}

func (rs *replies) refusal(d *gate.Decision, reply *gate.Reply) *answer {
	if made, ok := rs.refused[reply]; ok {
		return made
	}
	return refusal(d.Reason, reply)
}

// allow makes an OK response. What an Envoy that keeps answers has to know stands
// in the metadata: for how many seconds, for which requests, and what it has to do
// to a request that it lets through itself.
func (rs *replies) allow(source verifier.Source, keep time.Duration, identity []gate.Header) *authv3.CheckResponse {
	ok := &authv3.OkHttpResponse{Headers: overwrite(identity)}
	if rs.remove != "" {
		ok.HeadersToRemove = []string{rs.remove}
	}
	about := metadata(map[string]string{"reason": gate.Valid.String(), "source": source.String()})
	if keep > 0 {
		about.Fields[keepKey] = structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{
			"seconds":           structpb.NewNumberValue(keep.Seconds()),
			"depends_on":        listOf(rs.dependsOn),
			"headers_to_remove": listOf(ok.GetHeadersToRemove()),
		}})
		if len(identity) > 0 {
			about.Fields[identityKey] = structpb.NewStructValue(identityMetadata(identity))
		}
	}
	return &authv3.CheckResponse{
		// Envoy allows a reply without a status too. Ours always have one.
		Status:          &status.Status{Code: int32(codes.OK)},
		HttpResponse:    &authv3.CheckResponse_OkResponse{OkResponse: ok},
		DynamicMetadata: about,
	}
}

// Fields of the dynamic metadata for an Envoy that keeps answers.
const (
	keepKey     = "edge_cache"
	identityKey = "identity"
)

func identityMetadata(identity []gate.Header) *structpb.Struct {
	values := map[string]string{}
	for _, h := range identity {
		values[h.Name] = h.Value
	}
	return metadata(values)
}

func listOf(values []string) *structpb.Value {
	list := &structpb.ListValue{}
	for _, value := range values {
		list.Values = append(list.Values, structpb.NewStringValue(value))
	}
	return structpb.NewListValue(list)
}

const overwriteAction = corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD

// overwrite makes header lines that take the place of others of the same name.
func overwrite(lines []gate.Header) []*corev3.HeaderValueOption {
	if len(lines) == 0 {
		return nil
	}
	headers := make([]*corev3.HeaderValueOption, len(lines))
	for i, h := range lines {
		headers[i] = &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: h.Name, Value: h.Value},
			AppendAction: overwriteAction,
		}
	}
	return headers
}

// refusal makes a denied response, which carries the reply to the client as it
// is. A status alone would become a 403 without a body.
func refusal(reason gate.Reason, reply *gate.Reply) *answer {
	code := codes.Unavailable
	if reason.Outcome() == gate.Unauthorized {
		code = codes.Unauthenticated
	}
	return newAnswer(&authv3.CheckResponse{
		Status: &status.Status{Code: int32(code), Message: reason.String()},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode(reply.Status)}, //nolint:gosec // 401 or 503
			Headers: overwrite(reply.Header),
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
