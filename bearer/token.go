package bearer

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"unsafe"
)

// Digest is a keyed SHA-256 of a token's value. Its key is random for each
// [Parser], so nobody outside the process can choose tokens whose digests
// collide or fall into one bucket. Digests of different Parsers are unrelated.
type Digest [32]byte

// Token is a credential that matched the b64token syntax of RFC 6750 §2.1. It
// says nothing about whether the token is good.
//
// A Token does not show its value: every verb of fmt, every logger and every
// marshaller of the standard library gets the fingerprint instead, also when
// the Token is an unexported field of something that is printed whole. The one
// way to the value is [Token.Reveal].
//
// The zero Token holds nothing; its value is empty. A Token is immutable and
// may be used concurrently. It shares the memory of the header it was parsed
// from; see [Token.Clone].
type Token struct {
	// Tokens are compared by Digest; == would compare addresses.
	_ [0]func()
	// A pointer, not a string: reflection-based printers follow a string in an
	// unexported field, but print a *byte as an address.
	data   *byte
	length int
	digest Digest
	// fingerprints are the parser's; nil means that they are a part of the digest.
	fingerprints *Fingerprints
}

// Clone returns the token with memory of its own, for who keeps it longer than
// the header it was parsed from is there.
func (t Token) Clone() Token {
	if t.data != nil {
		t.data = unsafe.StringData(strings.Clone(unsafe.String(t.data, t.length)))
	}
	return t
}

// Digest returns the keyed digest of the token's value.
func (t *Token) Digest() *Digest { return &t.digest }

// Reveal returns the token's value, for the one call that has to carry it: the
// question to the verifier. It must not be stored, logged or put into an error.
func (t Token) Reveal() string {
	if t.data == nil {
		return ""
	}
	return unsafe.String(t.data, t.length)
}

// String returns the fingerprint.
func (t Token) String() string { return t.Fingerprint() }

// GoString returns the fingerprint.
func (t Token) GoString() string { return t.Fingerprint() }

// Format writes the fingerprint, whatever the verb and flags.
func (t Token) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, t.Fingerprint()) }

// LogValue returns the fingerprint.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.Fingerprint()) }

// MarshalText returns the fingerprint.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.Fingerprint()), nil }

// MarshalJSON returns the fingerprint as a JSON string.
func (t Token) MarshalJSON() ([]byte, error) { return []byte(`"` + t.Fingerprint() + `"`), nil }
