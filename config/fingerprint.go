package config

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"

	"github.com/bearergate/bearergate/bearer"
	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
)

// minKeyBytes is the length of the shortest key of fingerprints: 16 random bytes in
// hexadecimal. Who has a token and its fingerprint must not find the key by trying.
const minKeyBytes = 32

// CheckFingerprintKey gives what is wrong with a key; nil if it can be one.
func CheckFingerprintKey(key string) error {
	if !isSecret(key) || len(key) < minKeyBytes {
		return errors.New("holds no good key; write 32 to 256 printable ASCII characters, without spaces at the ends, where it says, such as openssl rand -hex 32 makes")
	}
	return nil
}

// checkFingerprint sees that the key is there, and long enough.
func checkFingerprint(config *configv1.Config, around surroundings) []finding {
	secret := config.GetFingerprint().GetKey()
	if secret == nil {
		return nil
	}
	return checkHeld("fingerprint.key", secret, around, CheckFingerprintKey)
}

// fingerprints are made as a configuration says; nil means by the process alone. The
// sum is another one if they are made in another way.
func fingerprints(c *configv1.Fingerprint) (f *bearer.Fingerprints, sum [sha256.Size]byte, err error) {
	switch {
	case c.GetKey() != nil:
		key, err := secretSource(c.GetKey(), os.LookupEnv)()
		if err == nil {
			err = CheckFingerprintKey(string(key))
		}
		if err != nil {
			return nil, sum, fmt.Errorf("fingerprint.key: %w", err)
		}
		return bearer.KeyedFingerprints(key), sha256.Sum256(append([]byte("key "), key...)), nil
	case c.GetPlain():
		return bearer.PlainFingerprints(), sha256.Sum256([]byte("plain")), nil
	default:
		return nil, sum, nil
	}
}
