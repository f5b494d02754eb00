package bearer

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strings"
	"time"
)

// Times returns the times that the token names itself, if it has the form of a
// JWT in compact serialization (RFC 7519 §7.2): nbf and exp (§4.1.5, §4.1.4). A
// time that it does not name, or not as a number, is zero, and so are both if
// the token is opaque.
//
// Nothing vouches for what a token says of itself. These times may make a good
// verdict end earlier; they never make a token good.
func (t Token) Times() (notBefore, expires time.Time) {
	payload, ok := t.payload()
	if !ok {
		return notBefore, expires
	}
	claims := members(payload)
	return numericDate(claims["nbf"]), numericDate(claims["exp"])
}

// Issuer reports whether the token has the form of a JWT, and returns the issuer
// that it names itself (RFC 7519 §4.1.1); "" if it names none, or not as a string.
//
// Nothing vouches for that either. It may decide who is asked about the token, and
// not what the answer is.
func (t Token) Issuer() (issuer string, jwt bool) {
	payload, jwt := t.payload()
	if jwt && json.Unmarshal(members(payload)["iss"], &issuer) != nil {
		issuer = ""
	}
	return issuer, jwt
}

// payload returns the claims of a token that has the form of a JWT, encoded.
func (t Token) payload() (payload string, jwt bool) {
	header, rest, ok := strings.Cut(t.Reveal(), ".")
	if !ok {
		return "", false
	}
	payload, signature, ok := strings.Cut(rest, ".")
	return payload, ok && !strings.Contains(signature, ".") && members(header)["alg"] != nil
}

// members returns the members of a JSON object in base64url, nil if it is none.
func members(encoded string) map[string]json.RawMessage {
	text, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return nil
	}
	// A map, not a struct: names in other letter case are other names.
	var object map[string]json.RawMessage
	if json.Unmarshal(text, &object) != nil {
		return nil
	}
	return object
}

// numericDate reads an RFC 7519 §2 NumericDate: seconds since 1970, perhaps with
// a fraction. What lies far outside of any calendar is moved to its border.
func numericDate(raw json.RawMessage) time.Time {
	const first, last = 1, 1 << 40 // 1970 to the year 36812
	var seconds *float64
	if json.Unmarshal(raw, &seconds) != nil || seconds == nil {
		return time.Time{}
	}
	whole, fraction := math.Modf(min(max(*seconds, first), last))
	return time.Unix(int64(whole), int64(fraction*1e9))
}
