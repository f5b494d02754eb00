package verifier

import (
	"context"
	"time"

	"github.com/bearergate/bearergate/bearer"
)

// Measured tells of each question to the Verifier it wraps how it ended, and how
// long it took. It may be used concurrently if the function may.
type Measured struct {
	next Verifier
	tell func(bearer.Token, Outcome, time.Duration)
}

// NewMeasured returns a Measured that tells the function.
func NewMeasured(next Verifier, tell func(bearer.Token, Outcome, time.Duration)) *Measured {
	return &Measured{next: next, tell: tell}
}

// Verify asks the wrapped Verifier.
func (m *Measured) Verify(ctx context.Context, t bearer.Token) (Verdict, error) {
	begin := time.Now()
	outcome := Unanswered // also if it panics
	defer func() { m.tell(t, outcome, time.Since(begin)) }()
	v, err := m.next.Verify(ctx, t)
	switch {
	case err != nil:
	case v.Valid:
		outcome = Valid
	default:
		outcome = Invalid
	}
	return v, err
}
