package gate

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unsafe"
)

// IdentityHeader is a header that tells the API behind the edge who is calling.
// It holds either a constant or the token's fingerprint.
type IdentityHeader struct {
	// Name is the header's name, in any letter case.
	Name string
	// Constant is its value, if it is not empty.
	Constant string
	// Fingerprint says that the value is the fingerprint of the token.
	Fingerprint bool
}

// MaxIdentity is the most identity headers that an allowed request can have.
const MaxIdentity = 8

const (
	maxIdentityName  = 64
	maxIdentityValue = 256
	fingerprintSize  = 12
)

// CheckIdentityName says what is wrong with the name of an identity header: with
// a verb in front, and what to write instead behind. Names are narrow on purpose.
// An underscore is one API's hyphen, and a header that means something to HTTP,
// to an edge or to the gateway would do more than tell who is calling.
func CheckIdentityName(name string) error {
	const instead = "; write 1 to 64 letters, digits and -, the first one a letter, for example X-Partner"
	switch {
	case name == "":
		return errors.New("is missing; write the header's name, for example X-Partner")
	case len(name) > maxIdentityName:
		return errors.New("is too long for a header's name" + instead)
	case strings.ContainsFunc(name, notInName), !isLetter(rune(name[0])):
		return errors.New("is no name for a header" + instead)
	}
	lower := strings.ToLower(name)
	for _, taken := range takenNames {
		if lower == taken || strings.HasSuffix(taken, "-") && strings.HasPrefix(lower, taken) {
			return errors.New("means something of its own to HTTP, to the edge or to the gateway; write another name, for example X-Partner")
		}
	}
	return nil
}

// CheckIdentityConstant is the same for the text of an identity header.
func CheckIdentityConstant(text string) error {
	printable := func(c rune) bool { return c >= ' ' && c <= '~' }
	if text == "" || len(text) > maxIdentityValue || strings.ContainsFunc(text, func(c rune) bool { return !printable(c) }) ||
		strings.Trim(text, " ") != text {
		return errors.New("cannot be sent in a header; write 1 to 256 printable ASCII characters, the first and the last no space")
	}
	return nil
}

func notInName(c rune) bool { return !isLetter(c) && (c < '0' || c > '9') && c != '-' }

func isLetter(c rune) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

// takenNames are names, and beginnings of names, that identity headers may not
// have: of RFC 9110 and its like, and what edges act upon when they read it in
// the gateway's answer.
var takenNames = []string{
	"accept", "accept-", "access-control-", "age", "allow", "alt-svc", "authorization", "cache-control", "clear-site-data",
	"connection", "content-", "cookie", "cookie2", "date", "early-data", "etag", "expect", "expires", "forwarded", "grpc-", "host",
	"http2-settings", "if-", "keep-alive", "last-modified", "link", "location", "max-forwards", "origin", "pragma", "priority",
	"proxy-", "range", "referer", "refresh", "retry-after", "sec-", "server", "set-cookie", "set-cookie2", "status",
	"strict-transport-security", "te", "trailer", "transfer-encoding", "upgrade", "upgrade-insecure-requests", "user-agent", "vary",
	"via", "warning", "www-authenticate",
	"x-accel-", "x-client-trace-id", "x-content-", "x-envoy-", "x-forwarded-", "x-http-method", "x-http-method-override",
	"x-method-override", "x-original-", "x-real-ip", "x-request-id", "x-rewrite-url", "x-sendfile",
	strings.ToLower(ReasonHeader), strings.ToLower(DependsOnHeader),
}

// identity makes the headers that tell the API who is calling.
type identity struct {
	headers []IdentityHeader
	// personal says that they are not the same for all tokens.
	personal bool
}

func newIdentity(headers []IdentityHeader) (identity, error) {
	if len(headers) > MaxIdentity {
		return identity{}, fmt.Errorf("%d identity headers: want at most %d", len(headers), MaxIdentity)
	}
	id := identity{headers: headers}
	seen := map[string]bool{}
	for _, h := range headers {
		if err := CheckIdentityName(h.Name); err != nil {
			return identity{}, fmt.Errorf("the name of identity header %q %w", h.Name, err)
		}
		lower := strings.ToLower(h.Name)
		if seen[lower] {
			return identity{}, fmt.Errorf("identity header %s is there twice", h.Name)
		}
		seen[lower] = true
		if h.Fingerprint == (h.Constant != "") {
			return identity{}, fmt.Errorf("identity header %s: want a constant or the fingerprint", h.Name)
		}
		if h.Fingerprint {
			id.personal = true
		} else if err := CheckIdentityConstant(h.Constant); err != nil {
			return identity{}, fmt.Errorf("the value of identity header %s %w", h.Name, err)
		}
	}
	return id, nil
}

// personalReply is an allow for one token, in one piece of memory.
type personalReply struct {
	Reply

	headers     [MaxIdentity]Header
	fingerprint [fingerprintSize]byte
}

// allow returns the reply to an allowed request.
func (id *identity) allow(d *Decision, policy string) *Reply {
	if len(id.headers) == 0 {
		return &Reply{Status: http.StatusOK, Policy: policy}
	}
	r := &personalReply{Reply: Reply{Status: http.StatusOK, Policy: policy}, fingerprint: d.fingerprint}
	for i, h := range id.headers {
		value := h.Constant
		if h.Fingerprint {
			value = unsafe.String(&r.fingerprint[0], len(r.fingerprint)) // nobody changes it
		}
		r.headers[i] = Header{http.CanonicalHeaderKey(h.Name), value}
	}
	r.Identity = r.headers[:len(id.headers):len(id.headers)]
	return &r.Reply
}
