package extauthz

import (
	"context"
	"strings"
	"sync/atomic"
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
	current atomic.Pointer[decider]
}

// decider is a gate, with all that is made of it ahead. It is never changed: a
// request is read, decided and answered by one and the same.
type decider struct {
	gate    *gate.Gate
	needs   gate.Needs
	shape   *shape
	replies replies
}

func newDecider(g *gate.Gate) *decider {
	needs := g.Needs()
	return &decider{gate: g, needs: needs, shape: checkShape(needs), replies: newReplies(g)}
}

// Check decides about a request by the generated types. It returns no error,
// because Envoy would make a reply of its own from it.
func (a *authorization) Check(ctx context.Context, check *authv3.CheckRequest) (r *authv3.CheckResponse, err error) {
	by := a.current.Load()
	defer func() {
		if value := recover(); value != nil {
			d := by.gate.Recovered(value)
			r, err = by.replies.message(&d, by.gate.Reply(&d)), nil
		}
	}()
	d := by.gate.Decide(ctx, request(check, by.needs))
	return by.replies.message(&d, by.gate.Reply(&d)), nil
}

// request returns what the gate needs to know of a request.
func request(check *authv3.CheckRequest, needs gate.Needs) gate.Request {
	http := check.GetAttributes().GetRequest().GetHttp()
	r := gate.Request{Authorization: credentials(http), Target: http.GetPath(), Headers: generatedHeaders{check}}
	if needs.Method {
		r.Method = http.GetMethod()
	}
	if needs.Host {
		r.Host = http.GetHost()
	}
	if needs.Path {
		r.Path, _, _ = strings.Cut(http.GetPath(), "?")
	}
	if needs.Policy {
		r.Policy, r.Named = check.GetAttributes().GetContextExtensions()[policyKey]
	}
	r.Preflight = needs.Preflight && hasHeader(http, originHeader) && hasHeader(http, wantedMethodHeader)
	if needs.RequestID {
		r.RequestID = requestID(http)
	}
	return r
}

// requestID returns the ID of a request; "" if there is more than one.
func requestID(http *authv3.AttributeContext_HttpRequest) string {
	var id identifier
	if value, there := http.GetHeaders()[requestIDHeader]; there {
		id.inMap(value)
	}
	for _, h := range http.GetHeaderMap().GetHeaders() {
		if h.GetKey() == requestIDHeader {
			eachValue(h.GetValue(), string(h.GetRawValue()), id.inList)
		}
	}
	return id.only()
}

// identifier is the ID of a request. It may come once, in one of two places.
type identifier struct {
	mapped, listed string
	there          bool // in the map, where the last of several counts
	count          int  // in the list
}

func (id *identifier) inMap(value string) { id.mapped, id.there = value, true }

func (id *identifier) inList(value string) {
	id.listed = value
	id.count++
}

func (id *identifier) only() string {
	switch {
	case id.there && id.count == 0:
		return id.mapped
	case !id.there && id.count == 1:
		return id.listed
	default:
		return ""
	}
}

// policyKey is by which context_extensions name a policy.
const policyKey = "bearergate_policy"

// The headers of a CORS preflight, besides the method OPTIONS, and the request's ID.
const (
	originHeader       = "origin"
	wantedMethodHeader = "access-control-request-method"
	// The ID that Envoy gives a request, if allowed_headers lets it through.
	requestIDHeader = "x-request-id"
)

func hasHeader(http *authv3.AttributeContext_HttpRequest, name string) bool {
	if _, there := http.GetHeaders()[name]; there {
		return true
	}
	for _, h := range http.GetHeaderMap().GetHeaders() {
		if h.GetKey() == name {
			return true
		}
	}
	return false
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
	gate *gate.Gate
	// dependsOn is what the gate's decisions depend on, for an Envoy that keeps them.
	dependsOn []string
	// allowed are those of each policy that allow.
	allowed []allowed
	refused map[refusedReply]*answer
}

// refusedReply is a reply that refuses, with the source of the verdict that it may
// follow from.
type refusedReply struct {
	reply  *gate.Reply
	source verifier.Source
}

// allowed are the replies of a policy to requests that may go on.
type allowed struct {
	// ready is the reply that is the same for all allowed requests.
	ready *gate.Reply
	// valid holds, by source and by the seconds that an edge may keep it, an allow
	// without what is different for each token.
	valid [verifier.Sources][]*encoded
	// others are those that follow from no verdict.
	others map[gate.Reason]*encoded
}

// newReplies makes the replies ahead.
func newReplies(g *gate.Gate) replies {
	rs := replies{gate: g, dependsOn: g.DependsOn(), refused: map[refusedReply]*answer{}}
	for reason, reply := range g.Replies() {
		if reply.Status == okStatus {
			continue
		}
		for source := range sourcesOf(reason) {
			rs.refused[refusedReply{reply, source}] = refusal(&gate.Decision{Reason: reason, Source: source}, reply)
		}
	}
	for i, p := range g.Policies() {
		reply := g.Allowed(i)
		a := allowed{ready: reply, others: map[gate.Reason]*encoded{}}
		for source := range verifier.Source(verifier.Sources) {
			for keep := time.Duration(0); keep <= p.EdgeCache.Truncate(time.Second); keep += time.Second {
				a.valid[source] = append(a.valid[source], encode(rs.allow(&gate.Decision{Policy: i, Reason: gate.Valid, Source: source, Keep: keep}, reply)))
			}
		}
		for reason := range gate.Reason(gate.Reasons) {
			if d := (gate.Decision{Policy: i, Reason: reason}); reason != gate.Valid && d.Outcome() == gate.Allow {
				a.others[reason] = encode(rs.allow(&d, g.Reply(&d)))
			}
		}
		rs.allowed = append(rs.allowed, a)
	}
	return rs
}

// sourcesOf ranges over the sources that decisions of a reason have.
func sourcesOf(reason gate.Reason) verifier.Source {
	if reason.HasVerdict() {
		return verifier.Sources
	}
	return 1 // the zero Source, which says nothing then
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
		_ = rs.allowed[d.Policy].valid[d.Source] // what nobody knows is a panic, and so no allow
		return rs.allow(d, reply)
	}
	return rs.refusal(d, reply).response
}

// wire returns the reply as it goes over the wire.
func (rs *replies) wire(d *gate.Decision, reply *gate.Reply) *encoded {
	if !allows(d, reply) {
		return rs.refusal(d, reply).encoded
	}
	a := &rs.allowed[d.Policy]
	switch {
	case d.Shadow:
		return encode(rs.allow(d, reply))
	case d.Reason != gate.Valid:
		return a.others[d.Reason]
	}
	ready := a.valid[d.Source][d.Keep/time.Second]
	if reply == a.ready {
		return ready
	}
	return ready.with(reply, d.Keep)
}

func (rs *replies) refusal(d *gate.Decision, reply *gate.Reply) *answer {
	if made, ok := rs.refused[refusedReply{reply, d.Source}]; ok {
		return made
	}
	return refusal(d, reply)
}

// allow makes an OK response. What an Envoy that keeps answers has to know stands
// in the metadata: for how many seconds, for which requests, and what it has to do
// to a request that it lets through itself.
func (rs *replies) allow(d *gate.Decision, reply *gate.Reply) *authv3.CheckResponse {
	ok := &authv3.OkHttpResponse{Headers: overwrite(reply.Identity), HeadersToRemove: rs.gate.Removes(d)}
	about := metadata(d, reply)
	if d.Shadow {
		about.Fields["shadow"] = structpb.NewBoolValue(true)
	}
	if d.Keep > 0 {
		about.Fields[keepKey] = structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{
			"seconds":           structpb.NewNumberValue(d.Keep.Seconds()),
			"depends_on":        listOf(rs.dependsOn),
			"headers_to_remove": listOf(rs.gate.RemovesKept(d)),
		}})
		if len(reply.Identity) > 0 {
			about.Fields[identityKey] = structpb.NewStructValue(textsOf(reply.Identity))
		}
	}
	return &authv3.CheckResponse{
		// Envoy allows a reply without a status too. Ours always have one.
		Status:          &status.Status{Code: int32(codes.OK)},
		HttpResponse:    &authv3.CheckResponse_OkResponse{OkResponse: ok},
		DynamicMetadata: about,
	}
}

// Fields of the dynamic metadata: for an Envoy that keeps answers, and of the token.
const (
	keepKey        = "edge_cache"
	identityKey    = "identity"
	fingerprintKey = "fingerprint"
	claimsKey      = "claims"
)

func textsOf(lines []gate.Header) *structpb.Struct {
	fields := make(map[string]*structpb.Value, len(lines))
	for _, h := range lines {
		fields[h.Name] = structpb.NewStringValue(h.Value)
	}
	return &structpb.Struct{Fields: fields}
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
func refusal(d *gate.Decision, reply *gate.Reply) *answer {
	code := codes.Unavailable
	switch d.Reason.Outcome() {
	case gate.Unauthorized:
		code = codes.Unauthenticated
	case gate.Forbidden:
		code = codes.PermissionDenied
	case gate.Refused:
		code = codes.InvalidArgument
	default:
	}
	return newAnswer(&authv3.CheckResponse{
		Status: &status.Status{Code: int32(code), Message: d.Reason.String()},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode(reply.Status)}, //nolint:gosec // 400 to 503
			Headers: overwrite(reply.Header),
			Body:    string(reply.Body),
		}},
		DynamicMetadata: metadata(d, reply),
	})
}

// metadata is what Envoy's access log can show of the decision.
func metadata(d *gate.Decision, reply *gate.Reply) *structpb.Struct {
	fields := map[string]*structpb.Value{"reason": structpb.NewStringValue(d.Reason.String())}
	if d.Reason.HasVerdict() {
		fields["source"] = structpb.NewStringValue(d.Source.String())
	}
	if reply.Policy != "" {
		fields["policy"] = structpb.NewStringValue(reply.Policy)
	}
	if reply.Fingerprint != "" {
		fields[fingerprintKey] = structpb.NewStringValue(reply.Fingerprint)
	}
	if len(reply.Claims) > 0 {
		fields[claimsKey] = structpb.NewStructValue(textsOf(reply.Claims))
	}
	return &structpb.Struct{Fields: fields}
}
