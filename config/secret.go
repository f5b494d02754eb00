package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
)

// maxSecretBytes is the size of the largest secret that is read. A private key in PEM has a few kilobytes.
const maxSecretBytes = 64 << 10

// credentialsVariable names the folder of the credentials that systemd hands over (systemd.exec(5)).
const credentialsVariable = "CREDENTIALS_DIRECTORY"

// secretSource returns a function that gives the secret as it is now, so that one that was changed is used without a
// restart. A variable cannot change. Its errors say what to do and hold nothing of the secret.
func secretSource(secret *configv1.Secret, lookup func(string) (string, bool)) func() ([]byte, error) {
	switch {
	case secret.GetEnvironment() != "":
		value, set := lookup(secret.GetEnvironment())
		return func() ([]byte, error) {
			if !set {
				return nil, errors.New("names an environment variable that is not set; set it, or write another name")
			}
			return trimSecret([]byte(value))
		}
	case secret.GetCredential() != "":
		folder, set := lookup(credentialsVariable)
		return func() ([]byte, error) {
			if !set || folder == "" {
				return nil, fmt.Errorf("names a systemd credential, and %s is not set; start the gateway as a unit with LoadCredential=", credentialsVariable)
			}
			return readSecret(filepath.Join(folder, secret.GetCredential()))
		}
	default:
		return func() ([]byte, error) { return readSecret(secret.GetFile()) }
	}
}

func readSecret(path string) ([]byte, error) {
	text, err := readBounded(path, maxSecretBytes)
	if err != nil {
		return nil, err
	}
	return trimSecret(text)
}

// trimSecret takes off the line ends that editors put behind everything.
func trimSecret(text []byte) ([]byte, error) {
	text = bytes.TrimRight(text, "\r\n")
	if len(text) == 0 {
		return nil, errors.New("is empty; write the secret into it")
	}
	return text, nil
}

// readBounded reads a file that must be there and not larger than it makes sense.
func readBounded(path string, most int) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, errors.New("is not there; write the path of a file, a relative one starts at the folder of this file")
		}
		return nil, errors.New("cannot be read; see that the gateway's user may read it")
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.New("is no file; write the path of a file")
	}
	text, err := io.ReadAll(io.LimitReader(file, int64(most)+1))
	switch {
	case err != nil:
		return nil, errors.New("cannot be read; see that the gateway's user may read it")
	case len(text) > most:
		return nil, fmt.Errorf("has more than %d bytes; name a file that holds nothing else", most)
	}
	return text, nil
}

// isCredential reports whether a name can be that of a systemd credential, which is a file in one folder.
func isCredential(name string) bool {
	return name != "." && name != ".." && len(name) <= 255 && !strings.ContainsAny(name, "/\x00")
}
