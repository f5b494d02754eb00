// Package gate decides about requests: facts in, [Decision] out, and the reply
// that follows from it.
//
// It promises that a request is allowed only with a good verdict in force on
// the one credential that it carries, unless its policy asks for none, that 401 is said only of a credential
// known to be missing, malformed or not good, and 503 whenever nobody could
// tell, a panic included. It knows nothing of the edge that asks.
package gate

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/policy"
	"github.com/bearergate/bearergate/verifier"
)

// Options are what a [Gate] is made of. Parser and the default policy are required.
type Options struct {
	// Policy is the default policy: that of requests which the router sends to no
	// other.
	Policy

	// Policies are the others, in the order of the router's names.
	Policies []Policy
	// Router chooses between them; nil if there is only the default policy.
	Router *policy.Router
	// Elsewhere are the names of identity headers of policies that this gate does not
	// have. They are taken off, too: an API may stand behind several listeners.
	Elsewhere []string
	// Listener is the name of the listener whose requests are decided, for logs.
	Listener string
	// Parser reads the credentials.
	Parser *bearer.Parser
	// Decided, if set, is told of each decision. It is called concurrently, on the
	// way of each request, and must be quick.
	Decided func(Tally)
	// Panicked, if set, is told of each panic that was turned into a 503.
	Panicked func(*verifier.Panic)
	// Trace, if set, traces each decision.
	Trace Trace
	// Events lets decisions be watched; nil means that nobody does.
	Events *Events
	// Sampled, if set, is told of each request that was refused, also if its policy let
	// it through all the same (shadow), and by chance of one in [Sampled] of the others,
	// which then has that weight. It is called concurrently, on the way of these
	// requests, and must be quick.
	Sampled func(*Event)
	// Clients says what of the addresses of clients an Event has.
	Clients Clients
	// Log gets lines about requests; nil means that Logger does.
	Log *RequestLog
	// Logger gets lines about refused requests if there is no Log; nil means none.
	Logger *slog.Logger
}

// Tally is what is counted of a decision.
type Tally struct {
	// Policy is the index of the policy; the default one's is 0.
	Policy int
	Reason Reason
	Source verifier.Source
	// Shadow says that the request was let through all the same.
	Shadow bool
	// Took is how long the decision took, if that was measured; else 0. It is of each
	// that waited for the verifier, and of one in [Sampled] of the others that follow
	// from a verdict.
	Took time.Duration
	// Fingerprint is the token's, if Took is there, unless the request was allowed
	// without waiting.
	Fingerprint string
	// Trace is the id of the request's trace, if Took is there and the trace is kept.
	Trace string
}

// Trace is told when a decision begins, and which headers can be found. The context
// that it returns is that of the decision, the id is that of the trace if it is kept,
// and the function is told how the decision ended. A tally's fingerprint is there if
// the request waited or was refused for its token.
type Trace func(ctx context.Context, headers Headers) (_ context.Context, id string, end func(*Tally))

// Sampled is of how many decisions that wait for nobody one is measured: to read
// the clock would be felt (BenchmarkDecideCached).
const Sampled = 64

// Gate decides about the requests of one listener. It may be used concurrently.
type Gate struct {
	parser   *bearer.Parser
	router   *policy.Router
	policies []*ruling
	decided  func(Tally)
	panicked func(*verifier.Panic)
	trace    Trace
	listener string
	events   *Events
	sampled  func(*Event)
	clients  Clients
	log      *listenerLog
}

// New returns a Gate.
func New(o Options) (*Gate, error) {
	if o.Parser == nil {
		return nil, errors.New("gate: a parser is needed")
	}
	g := &Gate{
		parser: o.Parser, router: o.Router,
		decided: o.Decided, panicked: o.Panicked, trace: o.Trace,
		listener: o.Listener, events: o.Events, sampled: o.Sampled, clients: o.Clients,
	}
	if g.events == nil {
		g.events = new(Events)
	}
	if o.Log == nil {
		o.Log = NewRequestLog(o.Logger)
	}
	g.log = o.Log.of(o.Listener)
	if err := g.makePolicies(append([]Policy{o.Policy}, o.Policies...), o.Elsewhere); err != nil {
		return nil, err
	}
	if g.decided == nil {
		g.decided = func(Tally) {}
	}
	if g.panicked == nil {
		g.panicked = func(*verifier.Panic) {}
	}
	return g, nil
}

// Request is what an edge says of a request. Its strings need to last until the
// decision and no longer. What [Gate.Needs] does not name may be left out.
type Request struct {
	// Facts are what policies are chosen by. They must come from the edge, not from
	// the client.
	policy.Facts

	// Preflight says that the request has the headers by which browsers ask whether
	// they may send another one: Origin and Access-Control-Request-Method.
	Preflight bool
	// Authorization holds all values of the request's Authorization header.
	Authorization []string
	// RequestID is the ID that the edge has given the request; "" if it has none.
	RequestID string
	// Target is the request's target, path and query, as the edge reports it; ""
	// if it does not. It only helps to say why a token is missing, so it need not
	// be trusted.
	Target string
	// Headers finds other headers of the request, for logs; nil if there are none.
	Headers Headers
}

// Headers finds what nobody decides by, and so is looked for only when somebody wants
// to know it.
type Headers interface {
	// Header returns the value of a header, whose name is in lower case: "" if it is
	// not there.
	Header(name string) string
	// Client is where the edge says that the request comes from; the zero Addr if it does
	// not.
	Client() netip.Addr
}

// Decision is what becomes of a request, and why. The zero Decision is a 503.
type Decision struct {
	// Reason says what was decided and why.
	Reason Reason
	// Policy is the index of the policy that decided.
	Policy int
	// Shadow says that the request is let through whatever the reason, because the
	// policy is not enforced yet.
	Shadow bool
	// Source says where the verdict comes from, if Reason follows from one.
	Source verifier.Source
	// Keep is how long an edge that keeps answers may use this one, in whole seconds
	// from when it asked; 0 means not at all. It is 0 unless the request is allowed,
	// and never longer than the verdict lives.
	Keep time.Duration
	// RetryAfter is how long the verifier asked to be left alone, or 0.
	RetryAfter time.Duration

	// fault is what is wrong with the credential: one of bearer.Faults.
	fault error
	// own is the reply, if it is not the same for all requests with the same fate.
	own *Reply
	// waited is how long the verifier was waited for.
	waited time.Duration
	// fingerprint is the token's, if the verifier was waited for, or if the token is the
	// reason of a refusal.
	fingerprint [fingerprintSize]byte
}

// Outcome returns what becomes of the request.
func (d *Decision) Outcome() Outcome {
	if d.Shadow {
		return Allow
	}
	return d.Reason.Outcome()
}

// Decide decides about a request. It waits for the verifier until ctx ends at
// the longest. It does not panic, and allocates nothing if the verdict is
// remembered.
func (g *Gate) Decide(ctx context.Context, r Request) (d Decision) {
	defer func() {
		if value := recover(); value != nil {
			d = g.Recovered(value)
		}
	}()
	if g.trace != nil {
		g.traced(ctx, &r, &d)
	} else {
		g.observed(ctx, &r, &d, "")
	}
	return d
}

// traced decides, and has it traced.
func (g *Gate) traced(ctx context.Context, r *Request, d *Decision) {
	ctx, id, end := g.trace(ctx, r.Headers)
	defer func() { // also if it panics
		end(&Tally{Policy: d.Policy, Reason: d.Reason, Source: d.Source, Shadow: d.Shadow, Fingerprint: d.named()})
	}()
	g.observed(ctx, r, d, id)
}

// observed decides, and counts and logs it. Here and below the decision is made in
// its place: to hand it up costs more than to make it. The trace is its id, if it is
// kept.
func (g *Gate) observed(ctx context.Context, r *Request, d *Decision, trace string) {
	chance := rand.Uint32() //nolint:gosec // nobody gains by guessing it
	chosen := chance%Sampled == 0
	var took time.Duration
	if chosen {
		took = g.measure(ctx, r, d, trace)
	} else {
		took = g.count(ctx, r, d, trace)
	}
	if g.log.wants(chance/Sampled) && d.Reason.Outcome() == Allow {
		g.tellAllowed(d, r)
	}
	if g.events.watchers.Load() != nil || g.sampled != nil && (chosen || d.Reason.Outcome() != Allow) {
		g.tell(r, d, took, chosen)
	}
}

// tellAllowed writes a line about an allowed request.
func (g *Gate) tellAllowed(d *Decision, r *Request) {
	a := about{policy: g.policies[d.Policy].shown, headers: r.Headers}
	if d.Reason == Valid {
		a.token, _ = g.parser.Parse(r.Authorization) // it could be read a moment ago
	}
	g.log.allowed(d, a)
}

// count decides, and counts it. It returns how long the verifier was waited for.
func (g *Gate) count(ctx context.Context, r *Request, d *Decision, trace string) time.Duration {
	g.decide(ctx, r, d)
	g.name(d, r)
	tally := Tally{Policy: d.Policy, Reason: d.Reason, Source: d.Source, Shadow: d.Shadow}
	if d.waited > 0 {
		tally.Took, tally.Fingerprint, tally.Trace = d.waited, string(d.fingerprint[:]), trace
	}
	g.decided(tally)
	return tally.Took
}

// name has a refusal say which request it is about, if the policy's words do.
func (g *Gate) name(d *Decision, r *Request) {
	if r.RequestID != "" && d.Outcome() != Allow {
		g.policies[d.Policy].replies.name(d, r.RequestID)
	}
}

// measure decides, and tells how long that took.
func (g *Gate) measure(ctx context.Context, r *Request, d *Decision, trace string) time.Duration {
	begin := time.Now()
	g.decide(ctx, r, d)
	g.name(d, r)
	tally := Tally{Policy: d.Policy, Reason: d.Reason, Source: d.Source, Shadow: d.Shadow, Fingerprint: d.named()}
	if d.Reason.HasVerdict() || d.waited > 0 {
		tally.Took, tally.Trace = max(time.Since(begin), 1), trace
	}
	g.decided(tally)
	return tally.Took
}

// named returns the fingerprint that a tally has: if the request waited, or was
// refused for its token.
func (d *Decision) named() string {
	if d.waited > 0 || d.Reason.HasVerdict() && d.Reason.Outcome() != Allow {
		return string(d.fingerprint[:])
	}
	return ""
}

func (g *Gate) decide(ctx context.Context, r *Request, d *Decision) {
	index := policy.Default
	if g.router != nil {
		var err error
		if index, err = g.router.Choose(&r.Facts); err != nil {
			*d = g.unclear(r, err)
			return
		}
	}
	p := g.policies[index]
	g.judge(ctx, p, r, d)
	d.Policy = index
	d.Shadow = d.Reason.Outcome() != Allow && p.inShadow()
}

// inShadow reports whether what the policy refuses is let through.
func (p *ruling) inShadow() bool { return !p.Shadow.IsZero() && time.Now().Before(p.Shadow) }

// judge decides about a request by a policy.
func (g *Gate) judge(ctx context.Context, p *ruling, r *Request, d *Decision) {
	switch {
	case p.Public:
		d.Reason = PublicRoute
		return
	case p.Preflight && r.Preflight && r.Method == http.MethodOptions:
		d.Reason = Preflight
		return
	}
	t, err := g.parser.Parse(r.Authorization)
	if err != nil {
		*d = g.unread(p, err, r)
		return
	}
	var v verifier.Verdict
	var left time.Duration
	if p.cache != nil {
		left = p.cache.Recall(&t, &v)
	}
	if left <= 0 {
		v, err = p.Verifier.Verify(ctx, t)
	}
	switch {
	case err != nil:
		*d = g.unanswered(p, t, r, err)
		d.waited = v.Waited
		t.AppendFingerprint(d.fingerprint[:0])
		return
	case !v.Valid:
		*d = g.refused(p, InvalidToken, t, &v, r, nil)
		return
	}
	keep := p.keeping.of(&v, left)
	if p.Requirement != nil {
		now := time.Now()
		if err := p.Requirement.Judge(&r.Facts, v.Claims, now); err != nil {
			*d = g.refused(p, InsufficientScope, t, &v, r, err)
			return
		}
		if keep > 0 {
			keep = min(keep, p.Requirement.Lasts(v.Claims, now).Truncate(time.Second))
		}
	}
	d.Reason, d.Source, d.Keep = Valid, v.Source, keep
	if v.Waited > 0 {
		d.waited = v.Waited
		t.AppendFingerprint(d.fingerprint[:0])
	}
	if p.replies.personal {
		if err := p.replies.allow(d, t, v.Claims); err != nil {
			*d = g.refused(p, UnusableClaim, t, &v, r, err)
		}
	}
}

// refused decides about a request whose token is not good, or not good for it.
func (g *Gate) refused(p *ruling, reason Reason, t bearer.Token, v *verifier.Verdict, r *Request, err error) Decision {
	g.log.refused(reason, about{policy: p.shown, token: t, err: err, headers: r.Headers, shadow: p.inShadow()})
	d := Decision{Reason: reason, Source: v.Source, waited: v.Waited}
	t.AppendFingerprint(d.fingerprint[:0])
	p.replies.refuse(&d, t, v.Claims)
	return d
}

// unclear decides about a request that falls under no policy: it is refused as the
// default policy words it.
func (g *Gate) unclear(r *Request, err error) Decision {
	d := Decision{Reason: NoPolicy(err)}
	g.log.refused(d.Reason, about{err: err, headers: r.Headers})
	return d
}

// NoPolicy returns the reason for which a request is refused that falls under no
// policy, by the error of [policy.Router.Choose].
func NoPolicy(err error) Reason {
	switch {
	case errors.Is(err, policy.ErrPath):
		return BadPath
	case errors.Is(err, policy.ErrHost):
		return BadHost
	case errors.Is(err, policy.ErrMethod):
		return BadMethod
	default:
		return UnknownPolicy
	}
}

// unread decides about a request whose credential could not be read.
func (g *Gate) unread(p *ruling, err error, r *Request) Decision {
	d := Decision{Reason: reasonOf(err), fault: err}
	if d.Reason == MissingToken && hasAccessToken(r.Target) {
		d = Decision{Reason: TokenInURL}
	}
	g.log.refused(d.Reason, about{policy: p.shown, err: err, headers: r.Headers, shadow: p.inShadow()})
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
func (g *Gate) unanswered(p *ruling, t bearer.Token, r *Request, err error) Decision {
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
	g.log.refused(d.Reason, about{policy: p.shown, token: t, err: err, headers: r.Headers, shadow: p.inShadow()})
	p.replies.refuse(&d, t, nil)
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
	return g.refuse(InternalError, p)
}

// Unreadable decides about a request that its face could not read: it is
// unavailable, because nobody knows what it asked for.
func (g *Gate) Unreadable(err error) Decision { return g.refuse(InternalError, err) }

// Unbelieved decides about a request of somebody who does not prove to be the edge
// that the listener is for.
func (g *Gate) Unbelieved(err error) Decision { return g.refuse(UntrustedEdge, err) }

// Unsaid decides about a request of which the edge does not say, or does not say
// once, what policies are chosen by.
func (g *Gate) Unsaid(err error) Decision { return g.refuse(UnclearEdge, err) }

func (g *Gate) refuse(reason Reason, err error) Decision {
	g.decided(Tally{Reason: reason})
	g.log.refused(reason, about{err: err})
	d := Decision{Reason: reason}
	g.tell(nil, &d, 0, false)
	return d
}

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
