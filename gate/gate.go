// Package gate decides about requests: facts in, [Decision] out, and the reply
// that follows from it.
//
// It promises that a request is allowed only with a good verdict in force on
// the one credential that it carries, that 401 is said only of a credential
// known to be missing, malformed or not good, and 503 whenever nobody could
// tell, a panic included. It knows nothing of the edge that asks.
package gate

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/verifier"
)

// Options are what a [Gate] is made of. Parser, Verifier and Realm are required.
type Options struct {
	// Listener is the name of the listener whose requests are decided, for logs.
	Listener string
	// Parser reads the credentials.
	Parser *bearer.Parser
	// Verifier says whether a token is good.
	Verifier verifier.Verifier
	// Realm stands in the challenge: 1 to 128 printable ASCII characters without
	// quotes and backslashes.
	Realm string
	// EdgeCache is how long an edge that keeps answers may use an allow: 0 for not at
	// all, or 1s to verifier.MaxLife.
	EdgeCache time.Duration
	// Identity are the headers that tell the API who is calling, at most MaxIdentity.
	Identity []IdentityHeader
	// Decided, if set, is told of each decision. It is called concurrently, on the
	// way of each request, and must be quick.
	Decided func(Reason, verifier.Source)
	// Panicked, if set, is told of each panic that was turned into a 503.
	Panicked func(*verifier.Panic)
	// Logger gets lines about refused requests; nil means none.
	Logger *slog.Logger
}

// Gate decides about the requests of one listener. It may be used concurrently.
type Gate struct {
	parser   *bearer.Parser
	verifier verifier.Verifier
	decided  func(Reason, verifier.Source)
	panicked func(*verifier.Panic)
	replies  *replies
	keeping  keeping
	log      *refusalLog
}

// New returns a Gate.
func New(o Options) (*Gate, error) {
	if o.Parser == nil || o.Verifier == nil {
		return nil, errors.New("gate: a parser and a verifier are needed")
	}
	id, err := newIdentity(o.Identity)
	if err != nil {
		return nil, err
	}
	rs, err := newReplies(o.Realm, id)
	if err != nil {
		return nil, err
	}
	k, err := newKeeping(o.EdgeCache)
	if err != nil {
		return nil, err
	}
	g := &Gate{
		parser: o.Parser, verifier: o.Verifier, replies: rs, keeping: k,
		decided: o.Decided, panicked: o.Panicked,
		log: newRefusalLog(o.Logger, o.Listener),
	}
	if g.decided == nil {
		g.decided = func(Reason, verifier.Source) {}
	}
	if g.panicked == nil {
		g.panicked = func(*verifier.Panic) {}
	}
	return g, nil
}

// Request is what an edge says of a request. Its strings need to last until the
// decision and no longer.
type Request struct {
	// Authorization holds all values of the request's Authorization header.
	Authorization []string
	// Target is the request's target, path and query, as the edge reports it; ""
	// if it does not. It only helps to say why a token is missing, so it need not
	// be trusted.
	Target string
}

// Decision is what becomes of a request, and why. The zero Decision is a 503.
type Decision struct {
	// Reason says what was decided and why.
	Reason Reason
	// Source says where the verdict comes from, if Reason follows from one.
	Source verifier.Source
	// Until is when the verdict ends, if Reason follows from one.
	Until time.Time
	// Keep is how long an edge that keeps answers may use this one, in whole seconds
	// from when it asked; 0 means not at all. It is 0 unless the request is allowed,
	// and never longer than the verdict lives.
	Keep time.Duration
	// RetryAfter is how long the verifier asked to be left alone, or 0.
	RetryAfter time.Duration

	// fault is what is wrong with the credential: one of bearer.Faults.
	fault error
	// fingerprint is the token's, if an identity header shows it.
	fingerprint [fingerprintSize]byte
}

// Outcome returns what becomes of the request.
func (d *Decision) Outcome() Outcome { return d.Reason.Outcome() }

// Decide decides about a request. It waits for the verifier until ctx ends at
// the longest. It does not panic, and allocates nothing if the verdict is
// remembered.
func (g *Gate) Decide(ctx context.Context, r Request) (d Decision) {
	defer func() {
		if value := recover(); value != nil {
			d = g.Recovered(value)
		}
	}()
	d = g.decide(ctx, &r)
	g.decided(d.Reason, d.Source)
	return d
}

func (g *Gate) decide(ctx context.Context, r *Request) Decision {
	t, err := g.parser.Parse(r.Authorization)
	if err != nil {
		return g.unread(err, r.Target)
	}
	v, err := g.verifier.Verify(ctx, t)
	switch {
	case err != nil:
		return g.unanswered(t, err)
	case !v.Valid:
		g.log.refused(InvalidToken, t, nil)
		return Decision{Reason: InvalidToken, Source: v.Source, Until: v.Until}
	}
	d := Decision{Reason: Valid, Source: v.Source, Until: v.Until, Keep: g.keeping.of(&v)}
	if g.replies.identity.personal {
		t.AppendFingerprint(d.fingerprint[:0])
	}
	return d
}

// unread decides about a request whose credential could not be read.
func (g *Gate) unread(err error, target string) Decision {
	d := Decision{Reason: reasonOf(err), fault: err}
	if d.Reason == MissingToken && hasAccessToken(target) {
		d = Decision{Reason: TokenInURL}
	}
	g.log.refused(d.Reason, bearer.Token{}, err)
	return d
}

// reasonOf returns the reason for one of bearer.Faults.
func reasonOf(fault error) Reason {
	switch {
	case errors.Is(fault, bearer.ErrMissing):
		return MissingToken
	case errors.Is(fault, bearer.ErrMultiple):
		return MultipleTokens
	default:
		return MalformedToken
	}
}

// unanswered decides about a request whose token nobody could judge.
func (g *Gate) unanswered(t bearer.Token, err error) Decision {
	d := Decision{Reason: VerifierUnavailable}
	var none *verifier.NoAnswer
	var panicked *verifier.Panic
	switch {
	case errors.As(err, &none):
		d.RetryAfter = none.RetryAfter
		if none.Overloaded {
			d.Reason = Overloaded
		}
	case errors.As(err, &panicked):
		d.Reason = InternalError
	}
	g.log.refused(d.Reason, t, err)
	return d
}

// Recovered decides about a request that met a panic, of which recover gave the
// value: it is counted, logged, and unavailable. A face calls it for its own
// panics. It does not panic itself.
func (g *Gate) Recovered(value any) (d Decision) {
	// Whoever is told may be who panicked. What is left then is the zero Decision,
	// which says the same.
	defer func() { _ = recover() }()
	p := verifier.Recovered(value, debug.Stack())
	g.panicked(p)
	d = Decision{Reason: InternalError}
	g.decided(d.Reason, d.Source)
	g.log.refused(d.Reason, bearer.Token{}, p)
	return d
}

// Unreadable decides about a request that its face could not read: it is
// unavailable, because nobody knows what it asked for.
func (g *Gate) Unreadable(err error) Decision {
	d := Decision{Reason: InternalError}
	g.decided(d.Reason, d.Source)
	g.log.refused(d.Reason, bearer.Token{}, err)
	return d
}

// Reply returns the reply that follows from a decision of this gate.
func (g *Gate) Reply(d *Decision) *Reply { return g.replies.of(d) }

// Replies yields each reply that is made ahead, with its reason, so that a face
// can put them into its own form once. Only two are made when they are needed: a
// 503 that names a time of its own, and an allow that tells of the token.
func (g *Gate) Replies() iter.Seq2[Reason, *Reply] { return g.replies.all() }

// hasAccessToken reports whether the query of a target has the parameter
// access_token (RFC 6750 §2.3), by which no token is accepted. The target is
// anybody's: it may be of any form.
func hasAccessToken(target string) bool {
	_, query, _ := strings.Cut(target, "?")
	for query != "" {
		var parameter string
		parameter, query, _ = strings.Cut(query, "&")
		name, _, _ := strings.Cut(parameter, "=")
		if plain, err := url.QueryUnescape(name); err == nil && plain == "access_token" {
			return true
		}
	}
	return false
}
