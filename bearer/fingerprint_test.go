package bearer_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/bearergate/bearergate/bearer"
)

// byHand makes fingerprints as docs/partners.md tells others to.
func byHand(key, token string) string {
	text := []byte("bearergate fingerprint:" + token)
	if key == "" {
		sum := sha256.Sum256(text)
		return hex.EncodeToString(sum[:6])
	}
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write(text)
	return hex.EncodeToString(mac.Sum(nil)[:6])
}

func TestOthersCanMakeTheSameFingerprint(t *testing.T) {
	for name, key := range map[string]string{
		"plain": "", "a key of 32 bytes": strings.Repeat("k", 32), "one as long as a block": strings.Repeat("k", 64),
		"one that is longer": strings.Repeat("k", 65), "the longest": strings.Repeat("k", 256),
	} {
		t.Run(name, func(t *testing.T) {
			fingerprints := bearer.PlainFingerprints()
			if key != "" {
				fingerprints = bearer.KeyedFingerprints([]byte(key))
			}
			p := newParser(t).WithFingerprints(fingerprints)
			longer, err := p.WithMax(bearer.MaxTokenBytes)
			if err != nil {
				t.Fatal(err)
			}
			var all sync.WaitGroup
			for _, n := range []int{1, 40, 41, 63, 64, 2048, bearer.DefaultMaxTokenBytes} {
				value := strings.Repeat("x", n)
				want := byHand(key, value)
				for _, p := range []*bearer.Parser{p, longer} {
					token, err := p.ParseToken(value)
					if err != nil {
						t.Fatal(err)
					}
					raw := token.RawFingerprint()
					for how, got := range map[string]string{
						"Fingerprint": token.Fingerprint(), "of a clone": token.Clone().Fingerprint(), "String": token.String(),
						"AppendFingerprint": string(token.AppendFingerprint(nil)), "RawFingerprint": hex.EncodeToString(raw[:]),
					} {
						if got != want {
							t.Errorf("%d bytes, %s: got %s, want %s", n, how, got, want)
						}
					}
					all.Go(func() { // many at once share buffers
						for range 100 {
							if got := token.Fingerprint(); got != want {
								t.Errorf("%d bytes, at once: got %s, want %s", n, got, want)
							}
						}
					})
				}
			}
			all.Wait()
			if got := (bearer.Token{}).Fingerprint(); got != "none" {
				t.Errorf("the zero token's is %q", got)
			}
		})
	}
}

// What the cache is keyed by must stay this process's secret, whoever can make
// fingerprints.
func TestFingerprintsSayNothingOfTheDigest(t *testing.T) {
	p := newParser(t)
	plain, err := p.WithFingerprints(bearer.PlainFingerprints()).ParseToken(secret)
	if err != nil {
		t.Fatal(err)
	}
	token, err := p.ParseToken(secret)
	if err != nil {
		t.Fatal(err)
	}
	if *plain.Digest() != *token.Digest() {
		t.Error("the digest is another one")
	}
	if plain.Fingerprint() == token.Fingerprint() {
		t.Error("the fingerprint is a part of the digest")
	}
	if d := token.Digest(); token.Fingerprint() != hex.EncodeToString(d[len(d)-6:]) {
		t.Error("this process's own is not of the end of the digest: a cache finds tokens by the beginning")
	}
	other, err := newParser(t).WithFingerprints(bearer.PlainFingerprints()).ParseToken(secret)
	if err != nil {
		t.Fatal(err)
	}
	if *other.Digest() == *token.Digest() || other.Fingerprint() != plain.Fingerprint() {
		t.Error("of another process, the digest is the same, or the fingerprint is not")
	}
}

func TestAFingerprintAllocatesNothing(t *testing.T) {
	for name, fingerprints := range map[string]*bearer.Fingerprints{
		"of the process": nil, "plain": bearer.PlainFingerprints(), "keyed": bearer.KeyedFingerprints([]byte(secret)),
	} {
		token, err := newParser(t).WithFingerprints(fingerprints).ParseToken(strings.Repeat("x", 2048))
		if err != nil {
			t.Fatal(err)
		}
		var buf [12]byte
		if n := testing.AllocsPerRun(1000, func() { token.AppendFingerprint(buf[:0]) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkFingerprint(b *testing.B) {
	for name, fingerprints := range map[string]*bearer.Fingerprints{
		"of the process": nil, "plain": bearer.PlainFingerprints(), "keyed": bearer.KeyedFingerprints([]byte(secret)),
	} {
		for _, n := range []int{32, 1024} {
			token, err := newParser(b).WithFingerprints(fingerprints).ParseToken(strings.Repeat("x", n))
			if err != nil {
				b.Fatal(err)
			}
			b.Run(fmt.Sprintf("%s, %d-byte token", name, n), func(b *testing.B) {
				b.ReportAllocs()
				var buf [12]byte
				for b.Loop() {
					token.AppendFingerprint(buf[:0])
				}
			})
		}
	}
}
