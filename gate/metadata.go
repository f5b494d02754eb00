package gate

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/verifier"
)

// Metadata are what an edge can log of a token, besides what it can log of each
// decision. They go to the edge, not to the API and not to the client.
type Metadata struct {
	// Fingerprint is the token's, whatever was decided about it.
	Fingerprint bool
	// Claims are claims of good tokens, at most MaxMetadata.
	Claims []MetadataClaim
}

// MetadataClaim is a claim by a name of the operator's.
type MetadataClaim struct {
	// Name is what it is called in the log: see [CheckMetadataName].
	Name string
	// Path are the names that lead to the claim, from the outermost object inwards.
	Path []string
}

// MaxMetadata is the most claims that can be logged of a token.
const MaxMetadata = 8

// maxMetadataValue is the longest value of such a claim, in bytes.
const maxMetadataValue = 256

// CheckMetadataName says what is wrong with the name of a claim in the log, with a
// verb in front.
func CheckMetadataName(name string) error {
	if name == "" || len(name) > 63 || strings.ContainsFunc(name, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-'
	}) {
		return errors.New("is no name; write 1 to 63 lower case letters, digits, - and _")
	}
	return nil
}

func (m *Metadata) any() bool { return m.Fingerprint || len(m.Claims) > 0 }

func (m *Metadata) check() error {
	if len(m.Claims) > MaxMetadata {
		return fmt.Errorf("%d claims in the metadata: want at most %d", len(m.Claims), MaxMetadata)
	}
	seen := map[string]bool{}
	for _, c := range m.Claims {
		if err := CheckMetadataName(c.Name); err != nil {
			return fmt.Errorf("the name of claim %q in the metadata %w", c.Name, err)
		}
		if seen[c.Name] || len(c.Path) == 0 {
			return fmt.Errorf("claim %s in the metadata: want a path, and a name of its own", c.Name)
		}
		seen[c.Name] = true
	}
	return nil
}

// tell writes into a reply what the edge can log of a token. Claims that are no good
// for a log are left out: nothing is decided by them.
func (m *Metadata) tell(r *Reply, t bearer.Token, claims *verifier.Claims) {
	if m.Fingerprint {
		r.Fingerprint = t.Fingerprint()
	}
	for _, c := range m.Claims {
		claim, _ := claims.Path(c.Path...)
		value, err := textOf(claim)
		if err != nil || value == "" || len(value) > maxMetadataValue || strings.ContainsFunc(value, func(r rune) bool { return !unicode.IsPrint(r) }) {
			continue
		}
		r.Claims = append(r.Claims, Header{c.Name, value})
	}
}
