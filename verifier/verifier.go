// Package verifier finds out whether a bearer token is good.
//
// A [Verifier] answers the question; the stages of this package answer it
// together, each wrapping the next: [Cache] remembers verdicts and lets all
// requests for one unseen token share one call, [Guard] spares the endpoint and
// keeps room for tokens that were good, and [Measured] tells how long calls take.
// Last comes who knows: [Verifytoken] asks the crm-now endpoint, [Introspection]
// one of RFC 7662, and [JWT] checks an issuer's signature. [Choose] and [Both] make
// one verifier of several. The package promises that
// a verdict is never given for another token, is never used beyond its life, and
// that a question nobody answered is an error: neither a yes nor a no, and never
// remembered as one.
//
// It does not decide about requests; package gate does.
package verifier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bearergate/bearergate/bearer"
)

// Verifier knows, or finds out, whether tokens are good. Implementations may be
// called concurrently.
type Verifier interface {
	// Verify reports whether the token is good. An error means that nobody
	// could tell.
	Verify(ctx context.Context, t bearer.Token) (Verdict, error)
}

// Verdict is an answer about one token. The zero Verdict is a refusal.
type Verdict struct {
	// Valid says that the token is good.
	Valid bool
	// Source says where the answer comes from.
	Source Source
	// Learnt is when the endpoint gave the answer.
	Learnt time.Time
	// Until is when the answer ends; from then on it must not be used. A stage
	// that remembers nothing leaves it zero, unless the answer itself names its end.
	Until time.Time
	// Claims are what came with a good answer. They are nil if nothing did, and with
	// every refusal.
	Claims *Claims
	// Waited is how long the verdict was waited for, also if none came; 0 if it was
	// there.
	Waited time.Duration
}

// MaxLife is the longest time a verdict is used after it was learnt, whatever
// the configuration says. It is the lifetime of a crm-now token.
const MaxLife = 300 * time.Second

// Source says where a verdict comes from.
type Source uint8

const (
	// FromEndpoint means: the endpoint was asked for this request, or for one that
	// arrived together with it.
	FromEndpoint Source = iota
	// FromCache means: the endpoint was asked earlier, and its answer is still in force.
	FromCache
	// FromStale means: the verdict has ended, and is used a little longer because
	// nobody can tell.
	FromStale
	// FromToken means: the token itself says that it has ended, or is of a kind that
	// no verifier is for; nobody was asked.
	FromToken
	// FromDenial means: an operator has denied the token.
	FromDenial

	// Sources is the number of sources.
	Sources = iota
)

// String returns the source's name in logs, metrics and metadata.
func (s Source) String() string {
	switch s {
	case FromEndpoint:
		return "endpoint"
	case FromCache:
		return "cache"
	case FromStale:
		return "stale"
	case FromToken:
		return "token"
	case FromDenial:
		return "denied"
	default:
		return fmt.Sprintf("source(%d)", uint8(s))
	}
}

// NoAnswer is the error of a question that nobody answered. It holds nothing
// of the token and nothing that the endpoint sent.
type NoAnswer struct { //nolint:errname // it is what the error is, not only how it is called
	// Verifier is the configured name of the verifier that was asked.
	Verifier string
	// Problem says what happened, in words for the operator.
	Problem string
	// RetryAfter is after how long it makes sense to ask again; 0 if that is not
	// known.
	RetryAfter time.Duration
	// Overloaded says that the question was not asked, because too many wait.
	Overloaded bool
	// Cause is the error underneath, if there is one.
	Cause error
}

// Error says which verifier gave no answer, and why.
func (e *NoAnswer) Error() string {
	text := fmt.Sprintf("verifier %s: %s", e.Verifier, e.Problem)
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

// Unwrap returns the cause.
func (e *NoAnswer) Unwrap() error { return e.Cause }

// ErrClosed is the error of a question asked while the gateway stops.
var ErrClosed = errors.New("the verifier is closed")

// Panic is the error of a call that ended in a panic. It says where the panic
// came from, but not its value, which may hold anything.
type Panic struct { //nolint:errname // it is what the error is, not only how it is called
	// Kind is the type of the panic's value, with its text if it is a
	// runtime error.
	Kind string
	// Stack is the stack at the panic, as [runtime/debug.Stack] gives it.
	Stack []byte
}

// Recovered makes a Panic of what recover returned.
func Recovered(value any, stack []byte) *Panic {
	kind := fmt.Sprintf("%T", value)
	if err, ok := value.(interface {
		error
		RuntimeError()
	}); ok {
		kind = err.Error()
	}
	return &Panic{Kind: kind, Stack: stack}
}

// Error names the kind of the panic.
func (p *Panic) Error() string { return "panic: " + p.Kind }

// Outcome is how a call to an endpoint ended.
type Outcome uint8

const (
	// Valid means: the endpoint said that the token is good.
	Valid Outcome = iota
	// Invalid means: the endpoint said that it is not.
	Invalid
	// Unanswered means: the endpoint said nothing that counts.
	Unanswered

	// Outcomes is the number of outcomes.
	Outcomes = iota
)

// String returns the outcome's name in metrics.
func (o Outcome) String() string {
	switch o {
	case Valid:
		return "valid"
	case Invalid:
		return "invalid"
	case Unanswered:
		return "no_answer"
	default:
		return fmt.Sprintf("outcome(%d)", uint8(o))
	}
}
