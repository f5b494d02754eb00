package gate

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"unsafe"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/verifier"
)

// IdentityHeader is a header that tells the API behind the edge who is calling.
// It holds a constant, the token's fingerprint or one of its claims.
type IdentityHeader struct {
	// Name is the header's name, in any letter case.
	Name string
	// Constant is its value, if it is not empty.
	Constant string
	// Fingerprint says that the value is the fingerprint of the token.
	Fingerprint bool
	// Claim are the names that lead to the claim that it holds, from the outermost
	// object inwards, if there are any: a text, a number, a boolean, or a list of these
	// joined with commas. Without that claim there is no such header, the client's own
	// neither.
	Claim []string
}

// MaxIdentity is the most identity headers that an allowed request can have.
const MaxIdentity = 8

const (
	maxIdentityName  = 64
	maxIdentityValue = 256
	fingerprintSize  = 12
	// The longest value of one claim, and of those of all together: edges read the
	// header of an answer into a buffer of a few KiB.
	maxIdentityClaim  = 1 << 10
	maxIdentityClaims = 2 << 10
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
	strings.ToLower(ReasonHeader), strings.ToLower(DependsOnHeader), strings.ToLower(BodyHeader), strings.ToLower(TokenHeader),
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
	id := identity{headers: slices.Clone(headers)}
	seen := map[string]bool{}
	for i, h := range headers {
		if err := CheckIdentityName(h.Name); err != nil {
			return identity{}, fmt.Errorf("the name of identity header %q %w", h.Name, err)
		}
		id.headers[i].Name = http.CanonicalHeaderKey(h.Name)
		if seen[id.headers[i].Name] {
			return identity{}, fmt.Errorf("identity header %s is there twice", h.Name)
		}
		seen[id.headers[i].Name] = true
		sources := 0
		for _, has := range []bool{h.Constant != "", h.Fingerprint, len(h.Claim) > 0} {
			if has {
				sources++
			}
		}
		if sources != 1 {
			return identity{}, fmt.Errorf("identity header %s: want one of a constant, the fingerprint and a claim", h.Name)
		}
		if h.Constant == "" {
			id.personal = true
		} else if err := CheckIdentityConstant(h.Constant); err != nil {
			return identity{}, fmt.Errorf("the value of identity header %s %w", h.Name, err)
		}
	}
	return id, nil
}

// claims names, in lower case, the headers that a token may leave out.
func (id *identity) claims() []string {
	var names []string
	for _, h := range id.headers {
		if len(h.Claim) > 0 {
			names = append(names, strings.ToLower(h.Name))
		}
	}
	return names
}

// personalReply is an allow for one token, in one piece of memory.
type personalReply struct {
	Reply

	headers     [MaxIdentity]Header
	fingerprint [fingerprintSize]byte
}

// allow returns the reply to an allowed request. An error says that a claim cannot
// be passed on, and holds nothing of it.
func (id *identity) allow(t bearer.Token, claims *verifier.Claims, policy string) (*Reply, error) {
	if len(id.headers) == 0 {
		return &Reply{Status: http.StatusOK, Policy: policy}, nil
	}
	r := &personalReply{Reply: Reply{Status: http.StatusOK, Policy: policy}}
	r.Identity = r.headers[:0]
	fromClaims := 0
	for i := range id.headers {
		h := &id.headers[i]
		value := h.Constant
		switch {
		case h.Fingerprint:
			t.AppendFingerprint(r.fingerprint[:0])
			value = unsafe.String(&r.fingerprint[0], len(r.fingerprint)) // nobody changes it
		case len(h.Claim) > 0:
			claim, _ := claims.Path(h.Claim...)
			var err error
			if value, err = headerOf(claim); err == nil {
				if fromClaims += len(value); fromClaims > maxIdentityClaims {
					err = errTooMuch
				}
			}
			if err != nil {
				return nil, fmt.Errorf("identity header %s: its claim %w", h.Name, err)
			}
			if value == "" {
				r.Absent = append(r.Absent, strings.ToLower(h.Name))
				continue
			}
		}
		r.Identity = append(r.Identity, Header{h.Name, value})
	}
	return &r.Reply, nil
}

// Why a claim cannot be passed on in a header. An API that is not told of a claim
// that is there may take a caller for another one than it is, so the request is
// refused and the header is not just left out.
var (
	errNotPlain  = errors.New("is an object, or a list that holds more than texts, numbers and booleans")
	errAmbiguous = errors.New("is a list with a text in it that is empty, or has a comma or a space at its ends; joined it would read like another list")
	errUnsafe    = errors.New("has other than printable ASCII characters, or a space at its ends")
	errTooLong   = fmt.Errorf("has more than %d bytes", maxIdentityClaim)
	errTooMuch   = fmt.Errorf("makes more than %d bytes together with the others", maxIdentityClaims)
)

// headerOf returns a claim as the value of a header: "" if there is none.
func headerOf(claim verifier.Claim) (string, error) {
	value, err := textOf(claim)
	if err != nil {
		return "", err
	}
	if len(value) > maxIdentityClaim {
		return "", errTooLong
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' || c > '~' {
			return "", errUnsafe
		}
	}
	if value != "" && (value[0] == ' ' || value[len(value)-1] == ' ') {
		return "", errUnsafe // an edge would trim it
	}
	return value, nil
}

// textOf returns a claim as text: a text as it is, a number as it is written, true or
// false, and a list of these joined with commas. What is null, empty or not there is
// "".
func textOf(claim verifier.Claim) (string, error) {
	switch claim.Kind() {
	case verifier.Absent, verifier.Null:
		return "", nil
	case verifier.List:
	default:
		return plainText(claim)
	}
	var b strings.Builder
	for value := range claim.Values() {
		text, err := plainText(value)
		if err != nil {
			return "", err
		}
		if text == "" || strings.Contains(text, ",") || strings.TrimSpace(text) != text {
			return "", errAmbiguous
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

func plainText(claim verifier.Claim) (string, error) {
	switch claim.Kind() {
	case verifier.Text:
		text, _ := claim.Text()
		return text, nil
	case verifier.Number:
		digits, _ := claim.Digits()
		return digits, nil
	case verifier.True:
		return "true", nil
	case verifier.False:
		return "false", nil
	default:
		return "", errNotPlain
	}
}
