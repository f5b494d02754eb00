package bearer

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
)

// FingerprintDomain stands in front of a token before its fingerprint is made, so
// that the fingerprint is no part of another digest of the token that somebody may
// hold or publish, such as at_hash (OpenID Connect Core §3.1.3.6).
const FingerprintDomain = "bearergate fingerprint:"

// fingerprintBytes is the length of a fingerprint before it is written down.
const fingerprintBytes = 6

// Fingerprints makes the fingerprints of tokens in a way that others can repeat.
// Without one, a fingerprint is a part of the digest that only this process can make.
// It may be used concurrently.
type Fingerprints struct {
	// A function, which no printer looks into: the key is in it.
	of func(value string) [fingerprintBytes]byte
}

// PlainFingerprints are the beginning of the SHA-256 of [FingerprintDomain] and the
// token: everybody who holds a token can make its fingerprint, and everybody can see
// whether a guess at a token was right.
func PlainFingerprints() *Fingerprints {
	domain := []byte(FingerprintDomain)
	return &Fingerprints{func(value string) [fingerprintBytes]byte {
		sum := sumOf(nil, domain, value)
		return [fingerprintBytes]byte(sum[:])
	}}
}

// KeyedFingerprints are the beginning of the HMAC-SHA-256 (RFC 2104) of the same
// under a key: only who has the key can do either.
func KeyedFingerprints(key []byte) *Fingerprints {
	if len(key) > sha256.BlockSize {
		sum := sha256.Sum256(key)
		key = sum[:]
	}
	pad := func(with byte) []byte {
		block := bytes.Repeat([]byte{with}, sha256.BlockSize)
		for i, b := range key {
			block[i] ^= b
		}
		return block
	}
	inner, outer := append(pad(0x36), FingerprintDomain...), pad(0x5c)
	return &Fingerprints{func(value string) [fingerprintBytes]byte {
		sum := sumOf(outer, inner, value)
		return [fingerprintBytes]byte(sum[:])
	}}
}

// sumOf returns the SHA-256 of first and value, or of outer and that. (crypto/hmac
// would allocate each time.)
func sumOf(outer, first []byte, value string) Digest {
	buf := digestBuffers.Get().(*[]byte)
	*buf = append(append((*buf)[:0], first...), value...)
	sum := sha256.Sum256(*buf)
	clear(*buf)
	if outer != nil {
		*buf = append(append((*buf)[:0], outer...), sum[:]...)
		sum = sha256.Sum256(*buf)
		clear(*buf)
	}
	digestBuffers.Put(buf)
	return sum
}

// RawFingerprint returns the six bytes that [Token.Fingerprint] writes down; those of
// the zero Token mean nothing.
func (t *Token) RawFingerprint() [fingerprintBytes]byte {
	if t.fingerprints != nil && t.data != nil {
		return t.fingerprints.of(t.Reveal())
	}
	// The tail, so that no part of what the cache uses as its key is shown.
	return [fingerprintBytes]byte(t.digest[len(t.digest)-fingerprintBytes:])
}

// Fingerprint returns twelve hexadecimal digits that stand for the token
// wherever people read, and allow no way back to a value that cannot be guessed. Who
// can make the same ones, and how long they last, the Parser's [Fingerprints] say. The
// zero Token's is "none".
func (t Token) Fingerprint() string {
	if t.data == nil {
		return "none"
	}
	return string(t.AppendFingerprint(nil))
}

// AppendFingerprint appends the fingerprint to b.
func (t *Token) AppendFingerprint(b []byte) []byte {
	if t.data == nil {
		return append(b, "none"...)
	}
	raw := t.RawFingerprint()
	return hex.AppendEncode(b, raw[:])
}
