package gate

import (
	"encoding/json"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"

	"github.com/bearergate/bearergate/bearer"
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
	// Body is the JSON body of a refusal; an allowed request has none.
	Body []byte
	// Identity lines tell the API who is calling, and take the place of what the
	// client says under these names. A refusal has none.
	Identity []Header
}

// Header is one header line.
type Header struct{ Name, Value string }

// ReasonHeader names the reason of a refusal to whoever got it.
const ReasonHeader = "X-Bearergate-Reason"

// DependsOnHeader tells an edge that keeps answers on what they depend: names of
// facts, joined with a comma and a space.
const DependsOnHeader = "X-Bearergate-Depends-On"

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

// replies are made ahead for all fates but a 503 with a time of its own and an
// allow that is not the same for all tokens.
type replies struct {
	realm    string
	policy   string
	scope    string
	identity identity
	// plain are those that follow from the reason alone.
	plain [Reasons]*Reply
	// faults are those that say what is wrong with the credential.
	faults map[error]*Reply
	// shadowed is for all that are let through though they are refused.
	shadowed *Reply
}

func newReplies(realm, policy, scope string, id identity) (*replies, error) {
	if realm == "" || len(realm) > 128 || strings.ContainsFunc(realm, func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' }) {
		return nil, fmt.Errorf("realm %q: want 1 to 128 printable ASCII characters without quotes and backslashes", realm)
	}
	rs := &replies{
		realm: realm, policy: policy, scope: scope, identity: id,
		faults: map[error]*Reply{}, shadowed: withoutVerdict(policy),
	}
	for reason := range Reason(Reasons) {
		rs.plain[reason] = rs.build(reason, facts[reason].describe, minRetryAfter)
	}
	for _, fault := range bearer.Faults() {
		rs.faults[fault] = rs.build(reasonOf(fault), fault.Error(), minRetryAfter)
	}
	return rs, nil
}

// of returns the reply for a decision.
func (rs *replies) of(d *Decision) *Reply {
	switch {
	case d.Reason >= Reasons:
		return rs.plain[InternalError]
	case d.Shadow:
		return rs.shadowed
	case d.fault != nil:
		return rs.faults[d.fault]
	case d.RetryAfter > minRetryAfter:
		return rs.build(d.Reason, facts[d.Reason].describe, d.RetryAfter)
	case rs.identity.personal && d.Reason == Valid:
		return rs.identity.allow(d, rs.policy)
	default:
		return rs.plain[d.Reason]
	}
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

// build is the one place where a reply is made.
func (rs *replies) build(reason Reason, description string, retryAfter time.Duration) *Reply {
	r := &Reply{Status: reason.Outcome().Status(), Policy: rs.policy}
	switch reason.Outcome() {
	case Allow:
		if reason != Valid || rs.identity.personal {
			return withoutVerdict(rs.policy)
		}
		return rs.identity.allow(&Decision{}, rs.policy)
	case Refused:
		r.Body = []byte(refusedBody)
	case Forbidden:
		r.Header = append(r.Header, Header{"WWW-Authenticate", rs.challenge(reason, description)})
		r.Body = []byte(forbiddenBody)
	case Unauthorized:
		r.Header = append(r.Header, Header{"WWW-Authenticate", rs.challenge(reason, description)})
		r.Body = []byte(unauthorizedBody)
	default:
		seconds := int64((min(max(retryAfter, minRetryAfter), maxRetryAfter) + time.Second - 1) / time.Second)
		r.Header = append(r.Header, Header{"Retry-After", strconv.FormatInt(seconds, 10)})
		r.Body = []byte(unavailableBody)
	}
	r.Header = append(r.Header,
		Header{"Content-Type", "application/json"},
		Header{"Cache-Control", "no-store"},
		Header{ReasonHeader, reason.String()})
	return r
}

// challenge writes the one challenge of a 401 or 403 (RFC 6750 §3). A request that
// carries no Bearer credential is told no error (§3.1).
func (rs *replies) challenge(reason Reason, description string) string {
	text := `Bearer realm="` + rs.realm + `"`
	if reason == MissingToken {
		return text
	}
	code := "invalid_token"
	if reason == InsufficientScope {
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
