package config

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/bearergate/bearergate/bearer"
	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
	"github.com/bearergate/bearergate/verifier"
)

// Asker asks the verifiers of a configuration about a token as a gateway does that
// remembers nothing yet.
type Asker struct {
	// Timeout is how long an answer may take, by the configuration.
	Timeout time.Duration

	verifiers *verifierPool
	asked     verifier.Verifier

	mu  sync.Mutex
	why []Refusal
}

// Refusal is why a verifier found a token not good.
type Refusal struct{ Verifier, Why string }

// Why nobody can be asked.
var (
	errNoVerifier = errors.New("there is no verifier with that name")
	errNoPolicy   = errors.New("there is no policy with that name")
	errPublic     = errors.New("the policy is public: it asks nobody about tokens")
)

// NewAsker returns an Asker of one verifier by name, or of those of a policy, as a
// configuration has them that [Load] or [Parse] returned. Without either name it is
// of the default policy. It is to be closed.
func NewAsker(c *configv1.Config, policyName, verifierName, version string) (*Asker, error) {
	names := []string{verifierName}
	if verifierName == "" {
		all := append([]*configv1.Policy{c.GetDefaultPolicy()}, c.GetPolicies()...)
		i := 0
		if policyName != "" {
			if i = slices.Index(policyNames(c), policyName); i < 0 {
				return nil, errNoPolicy
			}
		}
		if names = askedBy(all[i], c); all[i].GetPublic() {
			return nil, errPublic
		}
	} else if verifierNamed(c, verifierName) == nil {
		return nil, errNoVerifier
	}
	a := &Asker{Timeout: longestAnswer(c), verifiers: newVerifierPool(slog.New(slog.DiscardHandler), func(*verifier.Panic) {}, version)}
	a.verifiers.refused = a.refused
	vs, err := a.verifiers.take(c)
	if err == nil {
		a.asked, err = vs.asked(names)
	}
	if err != nil {
		a.verifiers.close()
		return nil, err
	}
	return a, nil
}

func (a *Asker) refused(name string, _ bearer.Token, why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.why = append(a.why, Refusal{name, why})
}

// Ask asks about a token. Of a token that is not good it returns what verifiers say
// of that, which may be nothing.
func (a *Asker) Ask(ctx context.Context, t bearer.Token) (verifier.Verdict, []Refusal, error) {
	verdict, err := a.asked.Verify(ctx, t)
	a.mu.Lock()
	defer a.mu.Unlock()
	return verdict, slices.Clone(a.why), err
}

// Close frees what is held.
func (a *Asker) Close() { a.verifiers.close() }
