package measure

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/bearergate/bearergate/extauthz/captured"
)

// Kind is a kind of check, as a real Envoy sent it.
type Kind struct {
	Name string
	// What is special about it.
	About string

	file string // among the captured checks
}

// Kinds returns all kinds; the second is the typical one.
func Kinds() []Kind {
	return []Kind{
		{Name: "minimal", file: "minimal", About: "`allowed_headers` lets only `authorization` through"},
		{Name: "typical", file: "typical", About: "12 headers"},
		{Name: "header_map", file: "header-map", About: "12 headers with `encode_raw_headers`"},
		{Name: "large", file: "large", About: "40 headers and a token of 2 KiB"},
	}
}

// Typical is the kind that most is measured with.
func Typical() Kind { return Kinds()[1] }

// digits is how many of a token's bytes tell it from the others.
const digits = 7

// MostTokens is how many tokens can be told apart.
const MostTokens = 10_000_000

// Numbered are requests that differ in their tokens alone. A million of them take no
// more memory than one.
type Numbered struct {
	message []byte
	at      int // where the digits stand
	token   string
}

func numbered(message []byte, token string) (*Numbered, error) {
	at := bytes.Index(message, []byte(token))
	if at < 0 || bytes.Count(message, []byte(token)) != 1 || len(token) < digits {
		return nil, fmt.Errorf("the request has its token not once")
	}
	return &Numbered{message: message, at: at + len(token) - digits, token: token[:len(token)-digits]}, nil
}

// Token returns the token of request n.
func (r *Numbered) Token(n int) string { return fmt.Sprintf("%s%0*d", r.token, digits, n) }

// Append appends request n.
func (r *Numbered) Append(to []byte, n int) []byte {
	at := len(to) + r.at
	to = append(to, r.message...)
	for i := at + digits - 1; i >= at; i-- {
		to[i] = byte('0' + n%10)
		n /= 10
	}
	return to
}

// Bytes is how long each request is.
func (r *Numbered) Bytes() int { return len(r.message) }

// Tokens returns the first tokens.
func (r *Numbered) Tokens(count int) []string {
	tokens := make([]string, count)
	for n := range tokens {
		tokens[n] = r.Token(n)
	}
	return tokens
}

// Numbered returns checks of this kind.
func (k Kind) Numbered() (*Numbered, error) {
	check, err := captured.Named(k.file)
	if err != nil {
		return nil, err
	}
	token := captured.Token
	if bytes.Contains(check.Message, []byte(captured.LongToken)) {
		token = captured.LongToken
	}
	return numbered(check.Message, token)
}

// TokensOf makes the tokens that the requests of a kind carry.
func TokensOf(k Kind, count int) ([]string, error) {
	r, err := k.Numbered()
	if err != nil {
		return nil, err
	}
	return r.Tokens(count), nil
}

// Checks makes a check for each token, which has to be as long as those of TokensOf.
func (k Kind) Checks(tokens []string) ([][]byte, error) {
	check, err := captured.Named(k.file)
	if err != nil {
		return nil, err
	}
	checks := make([][]byte, len(tokens))
	for i, token := range tokens {
		if checks[i], err = check.WithToken(token); err != nil {
			return nil, err
		}
	}
	return checks, nil
}

// authRequest is what nginx sends by the recipe.
const authRequest = "GET /auth HTTP/1.1\r\nHost: api.example\r\nAuthorization: Bearer %s" +
	"\r\nX-Request-Id: 0b0d4b269b6c4b0f8f3f5f1f6e3f2b1a\r\nX-Original-Method: GET\r\nX-Original-URI: /v1/contacts?limit=10\r\n\r\n"

// AuthRequests makes the requests that nginx sends for tokens by the recipe.
func AuthRequests(tokens []string) [][]byte {
	requests := make([][]byte, len(tokens))
	for i, token := range tokens {
		requests[i] = fmt.Appendf(nil, authRequest, token)
	}
	return requests
}

// NumberedAuthRequests are the same, with the tokens that checks have.
func NumberedAuthRequests() (*Numbered, error) {
	return numbered([]byte(fmt.Sprintf(authRequest, captured.Token)), captured.Token)
}

// Refused is a token as long as r's that the endpoint does not know.
func (r *Numbered) Refused() string {
	return strings.Repeat("x", len(r.token)) + r.Token(0)[len(r.token):]
}

// Prefix is what all tokens begin with; their numbers follow.
func (r *Numbered) Prefix() string { return r.token }
