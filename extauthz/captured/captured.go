// Package captured holds checks as a real Envoy sends them, byte for byte, with
// many settings of its ext_authz filter. Tests read them, fuzzing starts from
// them, and measurements send them.
//
// checks/ has each of them twice: NAME.binpb are the bytes, NAME.txtpb is the same
// message for people to read. make capture has Envoy send them again, and writes
// both; the settings and requests stand in e2e/capture_test.go. Ports, times and
// ids are those of the day; the tokens are made up.
//
// None of this is in the gateway.
package captured

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"strings"
)

// The tokens that are in the checks. No endpoint has ever issued them.
var (
	// Token is in all checks that have one, apart from Large.
	Token = "made-up-token-" + strings.Repeat("0123456789", 3)[:29]
	// LongToken has 2 KiB, as a JWT may.
	LongToken = "made-up-long-token-" + strings.Repeat("0123456789", 203)[:2029]
)

//go:embed checks
var checks embed.FS

// Folder is where the checks are, seen from the root of the project.
const Folder = "extauthz/captured/checks"

// What the names of files end in.
const (
	BinaryFile = ".binpb"
	TextFile   = ".txtpb"
)

// Check is a CheckRequest on the wire.
type Check struct {
	Name    string
	Message []byte
}

// All returns all checks in the order of their names.
func All() ([]Check, error) {
	names, err := fs.Glob(checks, "checks/*"+BinaryFile)
	if err != nil {
		return nil, err
	}
	all := make([]Check, len(names))
	for i, name := range names {
		name = strings.TrimSuffix(strings.TrimPrefix(name, "checks/"), BinaryFile)
		if all[i], err = Named(name); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Named returns one check. The names are those of the files.
func Named(name string) (Check, error) {
	message, err := checks.ReadFile("checks/" + name + BinaryFile)
	if err != nil {
		return Check{}, fmt.Errorf("no check %q was captured: %w", name, err)
	}
	return Check{name, message}, nil
}

// Text returns the message of a check in a form for people.
func (c Check) Text() ([]byte, error) { return checks.ReadFile("checks/" + c.Name + TextFile) }

// WithToken returns the message with another token in place of the one that is in
// it, and nothing else changed. The new one has to be as long: every length around
// it stays what Envoy wrote.
func (c Check) WithToken(token string) ([]byte, error) {
	old := Token
	if bytes.Contains(c.Message, []byte(LongToken)) {
		old = LongToken
	}
	switch n := bytes.Count(c.Message, []byte(old)); {
	case n != 1:
		return nil, fmt.Errorf("check %q has its token %d times, want once", c.Name, n)
	case len(token) != len(old):
		return nil, fmt.Errorf("check %q: the token has %d characters, want %d", c.Name, len(token), len(old))
	}
	return bytes.Replace(c.Message, []byte(old), []byte(token), 1), nil
}
