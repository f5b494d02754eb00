package crmnow

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

// Secret is a value that serves whoever holds it: an access token or a client
// secret. It does not show the value: every verb of fmt, every logger and every
// marshaller of the standard library gets "(hidden)" instead, or an address where
// it is an unexported field of what is printed. The one way to the value is
// [Secret.Reveal].
//
// The zero Secret is empty and shows as "(none)". A Secret is immutable and may
// be used concurrently. Secrets are compared with [Secret.Equal], not with ==.
type Secret struct {
	// A closure, because nothing that prints by reflection can look into one.
	reveal func() string
}

// NewSecret returns a Secret that holds the value. An empty value gives the zero
// Secret.
func NewSecret(value string) Secret {
	if value == "" {
		return Secret{}
	}
	return Secret{reveal: func() string { return value }}
}

// Reveal returns the value, for the one request that has to carry it.
func (s Secret) Reveal() string {
	if s.reveal == nil {
		return ""
	}
	return s.reveal()
}

// IsZero reports whether the Secret is empty.
func (s Secret) IsZero() bool { return s.reveal == nil }

// Equal reports whether both hold the same value. It takes the same time
// wherever they differ.
func (s Secret) Equal(other Secret) bool {
	a, b := s.digest(), other.digest()
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// digest stands for a value wherever one is compared or remembered.
type digest [sha256.Size]byte

func (s Secret) digest() digest { return sha256.Sum256([]byte(s.Reveal())) }

// String returns "(hidden)", or "(none)" for the zero Secret.
func (s Secret) String() string {
	if s.IsZero() {
		return "(none)"
	}
	return "(hidden)"
}

// GoString returns what [Secret.String] returns.
func (s Secret) GoString() string { return s.String() }

// Format writes what [Secret.String] returns, whatever the verb and flags.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// LogValue returns what [Secret.String] returns.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText returns what [Secret.String] returns.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
