package gate

import (
	"context"
	"log/slog"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/policy"
	"github.com/bearergate/bearergate/verifier"
)

// Aside is what would become of a request, and why.
type Aside struct {
	Decision

	// Policy is the name of the policy.
	Policy string
	// Reply is what the edge would answer.
	Reply *Reply
	// Detail says what the log would have as detail; "" if nothing.
	Detail string
}

// DecideAside says what would become of a request if verifiers were those that by makes
// of the ones there are. Nobody is told of it: it is not counted, not logged, not
// traced and not watched. By may be nil: then the verifiers are asked as for any
// request.
func (g *Gate) DecideAside(ctx context.Context, r Request, by func(verifier.Verifier) verifier.Verifier) Aside {
	detail := new(details)
	aside := &Gate{
		parser: g.parser, router: g.router, listener: g.listener,
		decided: func(Tally) {}, panicked: func(*verifier.Panic) {}, events: new(Events),
		log: NewRequestLog(slog.New(detail)).of(g.listener),
	}
	for _, p := range g.policies {
		if by != nil && p.Verifier != nil {
			other := *p
			other.Verifier, other.cache = by(p.Verifier), nil
			p = &other
		}
		aside.policies = append(aside.policies, p)
	}
	d := aside.Decide(ctx, r)
	return Aside{Decision: d, Policy: g.policies[d.Policy].Name, Reply: aside.Reply(&d), Detail: detail.last}
}

// Parse reads the credential of a request, as for a decision.
func (g *Gate) Parse(values []string) (bearer.Token, error) { return g.parser.Parse(values) }

// DefaultPolicy is the name of the policy of requests that the router sends to no other.
func (g *Gate) DefaultPolicy() string { return g.policies[policy.Default].Name }

// details keeps the detail of the last line of a log.
type details struct{ last string }

// Enabled implements [slog.Handler].
func (d *details) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements [slog.Handler].
func (d *details) Handle(_ context.Context, line slog.Record) error {
	line.Attrs(func(a slog.Attr) bool {
		if a.Key == "detail" {
			d.last = a.Value.String()
		}
		return true
	})
	return nil
}

// WithAttrs implements [slog.Handler].
func (d *details) WithAttrs([]slog.Attr) slog.Handler { return d }

// WithGroup implements [slog.Handler].
func (d *details) WithGroup(string) slog.Handler { return d }
