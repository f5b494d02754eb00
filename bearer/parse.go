// Package bearer reads the credential of a request: the one Bearer token in
// its Authorization header (RFC 6750 §2.1, RFC 9110 §11.4).
//
// It promises that a [Token] has exactly the syntax the RFCs allow, that one
// request never yields two of them, and that a Token cannot be printed by
// mistake. It does not say whether a token is good; package verifier does.
package bearer

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"sync"
	"unsafe"
)

// What can be wrong with a credential. [Parser.Parse] returns errors that match
// one of these with [errors.Is]; their texts name the exact fault, are fixed,
// and never hold any part of the header.
var (
	// ErrMissing: the request carries no Bearer credential.
	ErrMissing = errors.New("no bearer token")
	// ErrMalformed: there is a Bearer credential that is not 1*SP b64token.
	ErrMalformed = errors.New("malformed bearer token")
	// ErrMultiple: there is more than one Authorization value.
	ErrMultiple = errors.New("more than one credential")
)

// The faults in detail. They are made once, so that a flood of bad headers
// allocates nothing.
var (
	errNoHeader    = newFault(ErrMissing, "the request has no Authorization header")
	errOtherScheme = newFault(ErrMissing, "the Authorization header uses another scheme than Bearer")
	errNoToken     = newFault(ErrMalformed, "there is no token after the word Bearer")
	errSeparator   = newFault(ErrMalformed, "the word Bearer and the token are to be separated by spaces alone")
	errQuotes      = newFault(ErrMalformed, "the token is in quotes; send it without them")
	errTrailing    = newFault(ErrMalformed, "something follows the token")
	errAlphabet    = newFault(ErrMalformed, "the token has a character that a bearer token cannot have")
	errPadding     = newFault(ErrMalformed, "the token has an equals sign that is not at its end")
	errTooLong     = newFault(ErrMalformed, "the token is too long")
	errTwoLines    = newFault(ErrMultiple, "the request has more than one Authorization header")
	errComma       = newFault(ErrMultiple, "the Authorization header holds more than one credential")
)

// Faults returns every error that [Parser.Parse] can give, so that a caller can
// make its answers ahead. Their texts are printable ASCII without quotes and
// backslashes, which is what an error_description may hold (RFC 6750 §3).
func Faults() []error {
	return []error{
		errNoHeader, errOtherScheme,
		errNoToken, errSeparator, errQuotes, errTrailing, errAlphabet, errPadding, errTooLong,
		errTwoLines, errComma,
	}
}

// fault is one of the three errors, with words about what exactly is wrong.
type fault struct {
	kind   error
	detail string
}

func newFault(kind error, detail string) error { return &fault{kind, detail} }

func (f *fault) Error() string { return f.detail }
func (f *fault) Unwrap() error { return f.kind }

// The bounds of a Parser's token length, in bytes.
const (
	DefaultMaxTokenBytes = 8 << 10
	MaxTokenBytes        = 64 << 10
)

// Parser turns header values into Tokens. It may be used concurrently.
type Parser struct {
	maxTokenBytes int
	key           [keyBytes]byte
	fingerprints  *Fingerprints
}

// keyBytes is the length of a Parser's key. 96 random bits can neither be guessed
// nor tried, and leave room for the token in one block of SHA-256: of 43
// characters, which is what 32 random bytes have in base64url.
const keyBytes = 12

// NewParser returns a Parser that accepts tokens of up to maxTokenBytes bytes
// (1 to [MaxTokenBytes]; 0 means [DefaultMaxTokenBytes]) and digests them with
// a random key of its own.
func NewParser(maxTokenBytes int) (*Parser, error) {
	if maxTokenBytes == 0 {
		maxTokenBytes = DefaultMaxTokenBytes
	}
	if maxTokenBytes < 0 || maxTokenBytes > MaxTokenBytes {
		return nil, fmt.Errorf("longest token of %d bytes: want 1 to %d", maxTokenBytes, MaxTokenBytes)
	}
	p := &Parser{maxTokenBytes: maxTokenBytes}
	_, _ = rand.Read(p.key[:]) // never fails (Go 1.24 and later)
	return p, nil
}

// WithMax returns a Parser that accepts tokens of up to another length, and gives
// each token the same digest and fingerprint as this one.
func (p *Parser) WithMax(maxTokenBytes int) (*Parser, error) {
	other, err := NewParser(maxTokenBytes)
	if err != nil {
		return nil, err
	}
	other.key, other.fingerprints = p.key, p.fingerprints
	return other, nil
}

// WithFingerprints returns a Parser that gives each token the same digest as this one,
// and a fingerprint by f; nil means a part of the digest.
func (p *Parser) WithFingerprints(f *Fingerprints) *Parser {
	other := *p
	other.fingerprints = f
	return &other
}

// Parse reads the credential from all values of the request's Authorization
// header, in the form in which an HTTP parser hands them out: without outer
// white space, one string for each header line. A list without values, or with
// one empty value, is a request without credential.
//
// The error matches [ErrMissing], [ErrMalformed] or [ErrMultiple]. For a good
// header of a usual length nothing is allocated.
func (p *Parser) Parse(values []string) (t Token, err error) {
	switch {
	case len(values) == 0:
		return Token{}, errNoHeader
	case len(values) > 1:
		return Token{}, errTwoLines
	case values[0] == "":
		return Token{}, errNoHeader
	}
	value, err := cutScheme(values[0])
	if err == nil {
		err = p.read(value, &t)
	}
	return t, err
}

// ParseToken reads a bare token, as it stands after the scheme: for tools that
// get one from a file or standard input. Its errors match [ErrMalformed] or
// [ErrMultiple].
func (p *Parser) ParseToken(value string) (t Token, err error) {
	err = p.read(value, &t)
	return t, err
}

// read makes a zero Token into the one of a value: in its place, because it is as
// large as to be felt when it is handed up.
func (p *Parser) read(value string, t *Token) error {
	if value == "" {
		return errNoToken
	}
	if len(value) > p.maxTokenBytes {
		return errTooLong
	}
	if err := checkSyntax(value); err != nil {
		return err
	}
	t.data, t.length = unsafe.StringData(value), len(value)
	t.fingerprints = p.fingerprints
	p.digest(value, &t.digest)
	return nil
}

const (
	scheme = "bearer"
	usual  = "Bearer " // how nearly all write it
)

// cutScheme takes the auth-scheme and the 1*SP after it off a header value
// (RFC 9110 §11.4; the scheme's case does not matter, §11.1).
func cutScheme(header string) (string, error) {
	if len(header) > len(usual) && header[:len(usual)] == usual && header[len(usual)] > ' ' {
		return header[len(usual):], nil
	}
	if len(header) < len(scheme) || !strings.EqualFold(header[:len(scheme)], scheme) {
		return "", errOtherScheme
	}
	rest := header[len(scheme):]
	switch {
	case rest == "":
		return "", errNoToken
	case rest[0] != ' ' && isSchemeChar(rest[0]):
		return "", errOtherScheme // "Bearerish abc": the scheme's name only begins alike
	case rest[0] != ' ':
		return "", errSeparator
	}
	for rest != "" && rest[0] == ' ' {
		rest = rest[1:]
	}
	if rest != "" && rest[0] == '\t' {
		return "", errSeparator
	}
	return rest, nil
}

// isSchemeChar reports whether c is an RFC 9110 §5.6.2 tchar, that is, may be
// part of an auth-scheme's name.
func isSchemeChar(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

// checkSyntax checks b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" /
// "+" / "/" ) *"=" (RFC 6750 §2.1).
func checkSyntax(value string) error {
	end := len(value)
	for end > 0 && value[end-1] == '=' {
		end--
	}
	if end == 0 {
		return errAlphabet
	}
	rest := value[:end]
	for len(rest) >= 8 { // eight at a time (BenchmarkParse)
		b := rest[:8]
		if tokenChar[b[0]]&tokenChar[b[1]]&tokenChar[b[2]]&tokenChar[b[3]]&
			tokenChar[b[4]]&tokenChar[b[5]]&tokenChar[b[6]]&tokenChar[b[7]] == 0 {
			break
		}
		rest = rest[8:]
	}
	for i := range len(rest) {
		if tokenChar[rest[i]] == 0 {
			return nameFault(value, end-len(rest)+i)
		}
	}
	return nil
}

// nameFault says what the character at i, which no token may have there, most
// likely means.
func nameFault(value string, i int) error {
	switch {
	case strings.IndexByte(value, ',') >= 0:
		return errComma // also how a proxy joins two header lines (RFC 9110 §5.3)
	case value[i] == '"' || value[i] == '\'':
		return errQuotes
	case value[i] == ' ' || value[i] == '\t':
		return errTrailing
	case value[i] == '=':
		return errPadding
	default:
		return errAlphabet
	}
}

// tokenChar is 1 for the characters of b64token, padding apart.
var tokenChar = func() (table [256]uint8) {
	for c := range 256 {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
			strings.IndexByte("-._~+/", byte(c)) >= 0 {
			table[c] = 1
		}
	}
	return table
}()

// Tokens up to these lengths are digested on the stack. The usual ones have a place
// of their own, since it is cleared each time.
const (
	usualToken = 52
	shortToken = 224
)

// digest returns SHA-256(key || value). The key comes first and has a fixed
// length, so the digests of a secret key are unpredictable; that such a digest
// could be extended does not matter, because none leaves the process.
func (p *Parser) digest(value string, d *Digest) {
	if len(value) <= usualToken {
		var buf [len(p.key) + usualToken]byte
		copy(buf[:], p.key[:])
		n := copy(buf[len(p.key):], value)
		*d = sha256.Sum256(buf[:len(p.key)+n])
		return
	}
	if len(value) <= shortToken {
		var buf [len(p.key) + shortToken]byte
		copy(buf[:], p.key[:])
		n := copy(buf[len(p.key):], value)
		*d = sha256.Sum256(buf[:len(p.key)+n])
		return
	}
	*d = sumOf(nil, p.key[:], value)
}

var digestBuffers = sync.Pool{New: func() any { return new([]byte) }}
