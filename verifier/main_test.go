package verifier_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/verifier"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// nothing reports whether a verdict is none; that it was waited for may be said all the same.
func nothing(v verifier.Verdict) bool {
	v.Waited = 0
	return v == (verifier.Verdict{})
}

func TestMain(m *testing.M) {
	if os.Getenv(childAsks) != "" {
		runChild(os.Stdout)
		return
	}
	goleak.VerifyTestMain(m)
}

// tokens makes the tokens of one test, whose digests share a key.
type tokens struct{ parser *bearer.Parser }

func newTokens(t testing.TB) *tokens {
	t.Helper()
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	return &tokens{parser}
}

func (ts *tokens) parse(t testing.TB, value string) bearer.Token {
	t.Helper()
	token, err := ts.parser.ParseToken(value)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// expectHidden searches a text for what must not be there.
func expectHidden(t *testing.T, text string, secrets ...string) {
	t.Helper()
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			t.Errorf("a secret is shown: %s", text)
		}
	}
}
