package crmnow

import (
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
)

// Refusal is why an [Emulator] refused a request. Most of them are what the
// endpoint's description says partners get wrong. The reply's body is the JSON
// object of RFC 6749 §5.2: error is its code, and error_description begins with
// the Refusal and says what to do.
type Refusal string

// The refusals, each with the status of the reply.
const (
	// RefusedPath: the path is not Path. 404.
	RefusedPath Refusal = "path"
	// RefusedMethod: the method is not POST. 405.
	RefusedMethod Refusal = "method"
	// RefusedTokenInURL: a token is in the URL. 400.
	RefusedTokenInURL Refusal = "token_in_url" //nolint:gosec // a reason, not a credential
	// RefusedTooLarge: the body is longer than 64 KiB. 413.
	RefusedTooLarge Refusal = "too_large"
	// RefusedBroken: the form is broken or cut off. 400.
	RefusedBroken Refusal = "broken_form"
	// RefusedNoForm: there is a body, and it is no form. 415.
	RefusedNoForm Refusal = "no_form"
	// RefusedBody: a token is fetched with a body. 400.
	RefusedBody Refusal = "body"
	// RefusedTwice: there are several fields verifytoken. 400.
	RefusedTwice Refusal = "verifytoken_twice"
	// RefusedFile: verifytoken is sent as a file. 400.
	RefusedFile Refusal = "verifytoken_as_file"
	// RefusedNoCredentials: there is no Authorization header. 401.
	RefusedNoCredentials Refusal = "no_credentials"
	// RefusedNotBasic: Authorization is not Basic, or there are several. 401.
	RefusedNotBasic Refusal = "not_basic"
	// RefusedNotBase64: what follows Basic is not Base64. 401.
	RefusedNotBase64 Refusal = "not_base64"
	// RefusedNoColon: ID and secret are not joined by a colon, or one is empty. 401.
	RefusedNoColon Refusal = "no_colon"
	// RefusedLineBreak: a line break was encoded with the secret. 401.
	RefusedLineBreak Refusal = "line_break"
	// RefusedNotEncoded: ID and secret were joined without urlencoding. 401.
	RefusedNotEncoded Refusal = "not_urlencoded"
	// RefusedEncodedTwice: ID and secret were urlencoded twice, or together with
	// the colon between them. 401.
	RefusedEncodedTwice Refusal = "urlencoded_twice"
	// RefusedSwapped: the ID is in the place of the secret. 401.
	RefusedSwapped Refusal = "swapped"
	// RefusedClient: no client has this ID. 401.
	RefusedClient Refusal = "unknown_client"
	// RefusedSecret: the secret is not this client's. 401.
	RefusedSecret Refusal = "wrong_secret"
	// RefusedFull: the emulator remembers as many tokens as it may. 503.
	RefusedFull Refusal = "too_many_tokens"
)

// refusals gives each its status, its code of RFC 6749 §5.2, and what to do. The
// texts keep to the alphabet that the RFC allows: no quotes, no backslash.
var refusals = map[Refusal]struct {
	status int
	code   string
	remedy string
}{
	RefusedPath:   {http.StatusNotFound, "not_found", "the endpoint is " + Path},
	RefusedMethod: {http.StatusMethodNotAllowed, "invalid_request", "use POST, to fetch a token as well as to verify one"},
	RefusedTokenInURL: {
		http.StatusBadRequest, "invalid_request",
		"a token never goes into the URL; send it as the form field verifytoken",
	},
	RefusedTooLarge: {http.StatusRequestEntityTooLarge, "invalid_request", "the body is longer than 64 KiB"},
	RefusedBroken:   {http.StatusBadRequest, "invalid_request", "the form is broken or cut off"},
	RefusedNoForm: {
		http.StatusUnsupportedMediaType, "invalid_request",
		"to fetch a token send no body; to verify one send the form field verifytoken, as multipart/form-data or application/x-www-form-urlencoded",
	},
	RefusedBody: {
		http.StatusBadRequest, "invalid_request",
		"to fetch a token send no body, the credentials are in the Authorization header; to verify one send the form field verifytoken",
	},
	RefusedTwice: {http.StatusBadRequest, "invalid_request", "send one field verifytoken"},
	RefusedFile:  {http.StatusBadRequest, "invalid_request", "send verifytoken as a field, not as a file"},
	RefusedNoCredentials: {
		http.StatusUnauthorized, "invalid_client",
		"the Authorization header is missing; perhaps a proxy on the way takes it off",
	},
	RefusedNotBasic:  {http.StatusUnauthorized, "invalid_client", "send one Authorization header, of the scheme Basic"},
	RefusedNotBase64: {http.StatusUnauthorized, "invalid_client", "behind Basic and one blank comes Base64, with padding and without line breaks"},
	RefusedNoColon: {
		http.StatusUnauthorized, "invalid_client",
		"Base64 is over the wrong string: it is over the urlencoded client ID, a colon, the urlencoded client secret",
	},
	RefusedLineBreak: {http.StatusUnauthorized, "invalid_client", "there is a line break in what was Base64-coded; use printf instead of echo"},
	RefusedNotEncoded: {
		http.StatusUnauthorized, "invalid_client",
		"form-urlencode client ID and client secret, each of them, before you join and Base64-code them",
	},
	RefusedEncodedTwice: {
		http.StatusUnauthorized, "invalid_client",
		"form-urlencode client ID and client secret once, each of them, and not the colon between them",
	},
	RefusedSwapped: {http.StatusUnauthorized, "invalid_client", "client ID and client secret are swapped; the ID comes first"},
	RefusedClient:  {http.StatusUnauthorized, "invalid_client", "no client has this ID; perhaps it is mistyped"},
	RefusedSecret:  {http.StatusUnauthorized, "invalid_client", "the client secret is wrong; perhaps it is mistyped"},
	RefusedFull: {
		http.StatusServiceUnavailable, "temporarily_unavailable",
		"the emulator remembers as many tokens as it may; keep a token until shortly before its end",
	},
}

func (why Refusal) reply() reply {
	r := refusals[why]
	// Strings always marshal.
	body, _ := json.Marshal(struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}{r.code, string(why) + ": " + r.remedy})
	a := reply{status: r.status, header: map[string]string{}, body: body, outcome: "refused: " + string(why)}
	switch r.status {
	case http.StatusUnauthorized:
		a.header["WWW-Authenticate"] = `Basic realm="crm-now emulator"` // RFC 6749 §5.2
	case http.StatusMethodNotAllowed:
		a.header["Allow"] = http.MethodPost
	case http.StatusServiceUnavailable:
		a.header["Retry-After"] = "10"
	}
	return a
}

// authenticate returns the ID of the client whose credentials these are.
func (e *Emulator) authenticate(headers []string) (string, Refusal) {
	if len(headers) == 0 {
		return "", RefusedNoCredentials
	}
	scheme, encoded, _ := strings.Cut(headers[0], " ")
	if len(headers) > 1 || !strings.EqualFold(scheme, "Basic") {
		return "", RefusedNotBasic
	}
	decoded, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return "", RefusedNotBase64
	}
	joined := string(decoded)
	if id, secret, encoded := split(joined); encoded && e.accepts(id, secret) {
		return id, ""
	}
	return "", e.diagnose(joined)
}

// diagnose finds out which mistake was made with credentials that are wrong.
func (e *Emulator) diagnose(joined string) Refusal {
	rawID, rawSecret, _ := strings.Cut(joined, ":")
	id, secret, encoded := split(joined)
	once, _ := url.QueryUnescape(joined) // "" if it is not encoded
	innerID, innerSecret, _ := split(once)
	switch {
	case strings.ContainsAny(joined+id+secret, "\r\n"): // neither part has one
		return RefusedLineBreak
	case e.acceptsPlain(joined):
		return RefusedNotEncoded
	case encoded && (e.accepts(innerID, innerSecret) || e.acceptsPlain(once)):
		return RefusedEncodedTwice
	case rawID == "" || rawSecret == "":
		return RefusedNoColon
	case e.accepts(secret, id):
		return RefusedSwapped
	case !encoded:
		return RefusedNotEncoded
	case e.clients[id].IsZero():
		return RefusedClient
	default:
		return RefusedSecret
	}
}

// split takes apart and decodes what was joined. encoded reports whether both
// parts can have come out of form-urlencoding; a part that cannot be decoded is "".
func split(joined string) (id, secret string, encoded bool) {
	rawID, rawSecret, _ := strings.Cut(joined, ":")
	id, idErr := url.QueryUnescape(rawID)
	secret, secretErr := url.QueryUnescape(rawSecret)
	return id, secret, idErr == nil && secretErr == nil && urlencoded(rawID) && urlencoded(rawSecret)
}

func (e *Emulator) accepts(id, secret string) bool {
	known := e.clients[id]
	return !known.IsZero() && known.Equal(NewSecret(secret))
}

// acceptsPlain reports whether a text is an ID and a secret joined as they are.
// Either may have colons of its own.
func (e *Emulator) acceptsPlain(joined string) bool {
	for id, secret := range e.clients {
		if subtle.ConstantTimeCompare([]byte(joined), []byte(id+":"+secret.Reveal())) == 1 {
			return true
		}
	}
	return false
}

// urlencoded reports whether a text can have come out of form-urlencoding. It
// lets pass the few characters that encodeURIComponent of browsers leaves as they
// are; they mean the same both ways.
func urlencoded(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return false
		default:
			return !strings.ContainsRune("-._*+%~!'()", r)
		}
	})
}
