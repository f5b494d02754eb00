package gate

import (
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/verifier"
)

// Reply is what the edge is to answer for a [Decision], the same for every
// face. It is shared by all requests with the same fate: read it, never change
// it.
type Reply struct {
	// Status is an HTTP status: 200, 400, 401, 403 or 503.
	Status int
	// Policy is the name of the policy whose reply it is; "" if there is only one.
	Policy string
	// Header lines, in order, with the names in the usual letter case. An allowed
	// request has none.
	Header []Header
	// Body is the body of a refusal; an allowed request has none.
	Body []byte
	// Forbidden is the same refusal as a 403, if it is a 400: for an edge to which a
	// 400 cannot be said.
	Forbidden *Reply
	// Identity lines tell the API who is calling, and take the place of what the
	// client says under these names. A refusal has none.
	Identity []Header
	// Absent names, in lower case, the identity headers that the edge has to take off
	// besides, because the token does not have their claims.
	Absent []string
	// Fingerprint and Claims are for the log of the edge alone.
	Fingerprint string
	Claims      []Header
}

// Header is one header line.
type Header struct{ Name, Value string }

// ReasonHeader names the reason of a refusal to whoever got it.
const ReasonHeader = "X-Bearergate-Reason"

// DependsOnHeader tells an edge that keeps answers on what they depend: names of
// facts, joined with a comma and a space.
const DependsOnHeader = "X-Bearergate-Depends-On"

// BodyHeader holds the body of a refusal, for an edge that reads no bodies.
const BodyHeader = "X-Bearergate-Body"

// TokenHeader says "keep" if the API is to see the token: for an edge that else takes
// it off.
const TokenHeader = "X-Bearergate-Token" //nolint:gosec // the name of a header

const (
	// What callers of crm-now's APIs are told, word for word.
	unauthorizedBody = `{"error":"missing or invalid auth token"}`
	unavailableBody  = `{"error":"the token could not be checked, try again later"}`
	forbiddenBody    = `{"error":"the token does not allow this"}`
	refusedBody      = `{"error":"the request is not acceptable: its path, host or method is unclear"}`
)

// The bounds of Retry-After in seconds. The lower one is also what is said when
// nobody said anything.
const (
	minRetryAfter = 5 * time.Second
	maxRetryAfter = 5 * time.Minute
)

// replies are made ahead for all fates but those that are not the same for all
// requests.
type replies struct {
	realm    string
	policy   string
	scope    string
	identity identity
	wording  *wording
	metadata Metadata
	// personal says that allows are not the same for all tokens.
	personal bool
	// plain are those that follow from the reason alone.
	plain [Reasons]*Reply
	// faults are those that say what is wrong with the credential.
	faults map[error]*Reply
	// shadowed is for all that are let through though they are refused.
	shadowed *Reply
}

// newReplies makes the replies of a policy, which is called shown if there are
// several.
func newReplies(p *Policy, shown string) (*replies, error) {
	if realm := p.Realm; realm == "" || len(realm) > 128 || strings.ContainsFunc(realm, func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' }) {
		return nil, fmt.Errorf("realm %q: want 1 to 128 printable ASCII characters without quotes and backslashes", realm)
	}
	id, err := newIdentity(p.Identity)
	if err != nil {
		return nil, err
	}
	if err := p.Metadata.check(); err != nil {
		return nil, err
	}
	w, mistakes := newWording(p.Wording, p.Name, p.Realm)
	if len(mistakes) > 0 {
		return nil, fmt.Errorf("the wording's %s %s", mistakes[0].Field, mistakes[0].Text)
	}
	rs := &replies{
		realm: p.Realm, policy: shown, scope: p.Requirement.Scope(), identity: id, wording: w, metadata: p.Metadata,
		personal: id.personal || p.Metadata.any(),
		faults:   map[error]*Reply{}, shadowed: withoutVerdict(shown),
	}
	for reason := range Reason(Reasons) {
		rs.plain[reason] = rs.build(saying{reason: reason, description: facts[reason].describe, retryAfter: minRetryAfter})
	}
	for _, fault := range bearer.Faults() {
		rs.faults[fault] = rs.build(saying{reason: reasonOf(fault), description: fault.Error(), retryAfter: minRetryAfter})
	}
	return rs, nil
}

// of returns the reply for a decision.
func (rs *replies) of(d *Decision) *Reply {
	switch {
	case d.Reason >= Reasons:
		return rs.plain[InternalError]
	case d.Shadow:
		return rs.letThrough(d)
	case d.own != nil:
		return d.own
	case d.fault != nil:
		return rs.faults[d.fault]
	case d.RetryAfter > minRetryAfter:
		return rs.build(sayingOf(d, ""))
	default:
		return rs.plain[d.Reason]
	}
}

// letThrough is the reply to what is refused in shadow alone.
func (rs *replies) letThrough(d *Decision) *Reply {
	if d.own == nil {
		return rs.shadowed
	}
	r := *rs.shadowed
	r.Fingerprint, r.Claims = d.own.Fingerprint, d.own.Claims
	return &r
}

func sayingOf(d *Decision, requestID string) saying {
	s := saying{reason: d.Reason, description: facts[d.Reason].describe, retryAfter: d.RetryAfter, requestID: requestID}
	if d.fault != nil {
		s.description = d.fault.Error()
	}
	return s
}

// allow gives a decision that allows its own reply. An error says that a claim cannot
// be passed on.
func (rs *replies) allow(d *Decision, t bearer.Token, claims *verifier.Claims) error {
	r, err := rs.identity.allow(t, claims, rs.policy)
	if err != nil {
		return err
	}
	rs.metadata.tell(r, t, claims)
	d.own = r
	return nil
}

// refuse gives a decision about a token its own reply, if an edge is told of the token.
func (rs *replies) refuse(d *Decision, t bearer.Token, claims *verifier.Claims) {
	if rs.metadata.any() {
		r := *rs.of(d)
		rs.metadata.tell(&r, t, claims)
		d.own = &r
	}
}

// name gives a decision that refuses a reply that names the request.
func (rs *replies) name(d *Decision, requestID string) {
	if !rs.wording.personal || !isRequestID(requestID) {
		return
	}
	r := rs.build(sayingOf(d, requestID))
	if d.own != nil {
		r.Fingerprint, r.Claims = d.own.Fingerprint, d.own.Claims
	}
	d.own = r
}

// all yields the replies made ahead.
func (rs *replies) all() iter.Seq2[Reason, *Reply] {
	return func(yield func(Reason, *Reply) bool) {
		for reason, reply := range rs.plain {
			if !yield(Reason(reason), reply) {
				return
			}
		}
		for fault, reply := range rs.faults {
			if !yield(reasonOf(fault), reply) {
				return
			}
		}
	}
}

// build is the one place where a reply is made that is no verdict's own.
func (rs *replies) build(s saying) *Reply {
	s.status = s.reason.Outcome().Status()
	if s.reason.Outcome() == Allow {
		if s.reason != Valid || rs.personal {
			return withoutVerdict(rs.policy)
		}
		r, _ := rs.identity.allow(bearer.Token{}, nil, rs.policy) // there are no claims in it
		return r
	}
	r := rs.refusal(s)
	if s.reason.Outcome() == Refused {
		s.status = http.StatusForbidden
		r.Forbidden = rs.refusal(s)
	}
	return r
}

func (rs *replies) refusal(s saying) *Reply {
	r := &Reply{Status: s.status, Policy: rs.policy}
	switch s.reason.Outcome() {
	case Refused:
	case Forbidden, Unauthorized:
		r.Header = append(r.Header, Header{"WWW-Authenticate", rs.challenge(s.reason, s.description)})
	default:
		r.Header = append(r.Header, Header{"Retry-After", seconds(s.retryAfter)})
	}
	body, contentType := rs.wording.body(s)
	r.Body = body
	r.Header = append(r.Header,
		Header{"Content-Type", contentType},
		Header{"Cache-Control", "no-store"},
		Header{ReasonHeader, s.reason.String()})
	return r
}

// seconds writes a time to wait, within its bounds.
func seconds(retryAfter time.Duration) string {
	return strconv.FormatInt(int64((min(max(retryAfter, minRetryAfter), maxRetryAfter)+time.Second-1)/time.Second), 10)
}

// challenge writes the one challenge of a 401 or 403 (RFC 6750 §3). A request that
// carries no Bearer credential is told no error (§3.1).
func (rs *replies) challenge(reason Reason, description string) string {
	text := `Bearer realm="` + rs.realm + `"`
	if at := rs.wording.ResourceMetadata; at != "" {
		text += `, resource_metadata="` + at + `"` // RFC 9728 §5.1
	}
	if reason == MissingToken {
		return text
	}
	code := "invalid_token"
	if reason.Outcome() == Forbidden {
		code = "insufficient_scope"
	}
	text += `, error="` + code + `"`
	if description != "" {
		text += `, error_description="` + description + `"`
	}
	if reason == InsufficientScope && rs.scope != "" {
		text += `, scope="` + rs.scope + `"` // RFC 6750 §3: what would suffice
	}
	return text
}

// ErrorBody returns a JSON body in the form of the refusals', for what a face
// refuses before there is a decision.
func ErrorBody(text string) []byte {
	body, _ := json.Marshal(struct { // a string always marshals
		Error string `json:"error"`
	}{text})
	return body
}
