package verifier_test

import (
	"context"
	"errors"
	"time"

	"github.com/bearergate/bearergate/verifier"
)

// This file is the model: what the promises of docs/design.md mean for what can
// be seen at the three places where the test looks: questions (above the Cache),
// flights (between Cache and Guard) and calls (below the Guard).
//
// A flight is void from the Forget or Deny that came after its begin.

// judge holds all that is new against the promises.
func (w *modelWorld) judge() {
	for _, f := range w.flights {
		if !f.judgedBegin {
			f.rank = w.rank(f)
		}
		if f.done && !f.judgedEnd {
			f.judgedEnd = true
			w.judgeLanding(f)
		}
	}
	for _, q := range w.questions {
		if q.done && !q.judged {
			q.judged = true
			w.judgeAnswer(q)
		}
	}
	for _, f := range w.flights {
		if !f.judgedBegin {
			f.judgedBegin = true
			w.judgeFlight(f)
		}
	}
	for _, c := range w.calls {
		if !c.judged {
			c.judged = true
			w.judgeCall(c)
		}
	}
	for i, c := range w.changes {
		if !c.judged {
			c.judged = true
			w.judgeChange(i, c)
		}
	}
	w.judgeWaiting()
	w.judgeStats()
}

// The states of a token, in the eyes of the model.

// newest returns the answer about a token that stood before a number: the last
// one that is not void.
func (w *modelWorld) newest(token, before int) *modelFlight {
	var found *modelFlight
	for _, f := range w.flights {
		if f.token == token && f.answered() && !f.void && f.died < before && (found == nil || f.died > found.died) {
			found = f
		}
	}
	return found
}

func (f *modelFlight) answered() bool { return f.done && f.err == nil && !f.panicked }

// gone reports whether what a flight brought must not be given to a question.
func (w *modelWorld) gone(f *modelFlight, q *modelQuestion) bool {
	return f.void && (q.begin.step != w.amid || q.token != w.amidOf) // else Forget had not returned yet
}

// denied reports whether a denial that came before a moment is in force at it.
func (w *modelWorld) denied(token int, m modelMoment) bool {
	d, ok := w.denials[token]
	return ok && d.from.before(m) && m.at < d.until
}

// expired reports whether a token has ended by what it says itself.
func (w *modelWorld) expired(token int, at time.Duration) bool {
	t := &w.tokens[token]
	return t.expires != 0 && at >= t.expires
}

// loose reports whether the Cache may lose what it learnt of a token.
func (w *modelWorld) loose(token int) bool {
	if w.options.cache.MaxTokens < len(w.tokens) {
		return true
	}
	return w.tokens[token].twin >= 0 && w.touched[w.tokens[token].twin]
}

// rank is what is known of a token when a flight for it begins.
type modelRank uint8

const (
	rankUnsure modelRank = iota
	rankGood             // it was good within the last 300 s, and nothing said otherwise
	rankUnseen           // it never was
)

func (w *modelWorld) rank(f *modelFlight) modelRank {
	if f.maybe {
		return rankUnsure
	}
	if last := w.newest(f.token, f.born); last != nil && last.verdict.Valid && !last.maybe && !w.loose(f.token) && f.begin.at-last.end.at < verifier.MaxLife {
		return rankGood
	}
	for _, other := range w.flights {
		if other.token == f.token && !other.void && other.answered() && other.verdict.Valid && other.died < f.born {
			return rankUnsure
		}
	}
	return rankUnseen
}

// life sets the bounds of how long an answer may be used (promise 5).
func (w *modelWorld) life(f *modelFlight) {
	o, t := &w.options.cache, &w.tokens[f.token]
	limit := verifier.MaxLife
	if t.expires != 0 {
		limit = min(limit, max(0, t.expires-f.end.at))
	}
	switch {
	case f.verdict.Valid:
		f.least, f.most = min(limit, o.ValidTTL-o.ValidTTL/10), min(limit, o.ValidTTL)
	default:
		f.least, f.most = min(limit, o.InvalidTTL), limit
		switch f.rank {
		case rankGood:
			f.least = f.most
		case rankUnseen:
			f.most = f.least
		default:
		}
		if ahead := t.before - f.end.at; ahead > 0 {
			f.least, f.most = min(f.least, ahead), min(f.most, ahead)
		}
	}
	f.least -= time.Millisecond // lives are whole milliseconds
}

// last reports whether an answer ends with the token itself, so that no later
// one can last longer.
func (w *modelWorld) last(f *modelFlight) bool {
	t := &w.tokens[f.token]
	return t.expires != 0 && f.end.at+f.most > t.expires-time.Millisecond
}

// surely reports whether an answer must be in force.
func (w *modelWorld) surely(f *modelFlight, at time.Duration) bool {
	return f != nil && !f.maybe && !w.loose(f.token) && at < f.end.at+f.least
}

// refreshed is from when on an answer with this life is renewed.
func (w *modelWorld) refreshed(life time.Duration) time.Duration {
	return life - min(w.options.cache.RefreshBefore, life/2)
}

// The promises.

// judgeAnswer judges what a question got.
func (w *modelWorld) judgeAnswer(q *modelQuestion) {
	now := q.end
	gaveUp := q.gaveUp || q.patience > 0 && now.at == q.begin.at+q.patience
	if q.patience > 0 && now.at > q.begin.at+q.patience {
		w.broken("promise 8: a caller waited longer than it wanted")
	}
	deniedBefore := w.denied(q.token, q.begin) && w.denied(q.token, now)
	known := w.newest(q.token, q.born)
	if _, isPanic := errors.AsType[*verifier.Panic](q.err); q.err != nil {
		var failed *modelFlight
		for _, f := range w.flights {
			if f.token == q.token && !w.gone(f, q) && f.done && !f.answered() && f.end == now && (f.panicked && isPanic || errors.Is(q.err, f.err)) {
				failed = f
			}
		}
		switch {
		case w.closing: // nobody can tell any more
		case deniedBefore:
			w.broken("promise 2: an error though the token is denied")
		case w.surely(known, now.at):
			w.broken("promise 8: an error though an answer is in force")
		case w.expired(q.token, q.begin.at):
			w.broken("promise 2: an error though the token has ended")
		case gaveUp && (errors.Is(q.err, context.Canceled) || errors.Is(q.err, context.DeadlineExceeded)):
		case failed == nil:
			w.broken("promise 3: an error that nothing caused now")
		case !isPanic && known != nil && known.verdict.Valid && w.surely(known, now.at-w.stale(known)):
			w.broken("stale: an error though the last answer may be used")
		}
		return
	}
	switch v := q.verdict; v.Source {
	case verifier.FromDenial:
		if d, ok := w.denials[q.token]; v.Valid || !ok || now.before(d.from) || now.at >= d.until {
			w.broken("promise 2: the token is not denied now")
		}
		return
	case verifier.FromToken:
		if v.Valid || !w.expired(q.token, now.at) {
			w.broken("promise 2: the token has not ended")
		}
		return
	default:
	}
	// The answer that it stands on.
	var from *modelFlight
	landed := false // and nobody waits longer than for a landing
	for _, f := range w.flights {
		landed = landed || f.token == q.token && f.done && f.end == now
		if f.token == q.token && f.answered() && f.verdict.Valid == q.verdict.Valid && w.start.Add(f.end.at).Equal(q.verdict.Learnt) && f.died < q.died {
			from = f
		}
	}
	switch {
	case w.denied(q.token, now):
		w.broken("after Deny: an answer of the endpoint is used")
	case from == nil:
		w.broken("promises 1 and 7: the endpoint never said so about this token")
	case w.gone(from, q):
		w.broken("after Forget: an older answer is used")
	case known != nil && known.died > from.died && !known.maybe:
		w.broken("promise 1: an answer is used though there is a newer one")
	case q.begin.before(now) && !landed:
		w.broken("promise 8: a caller waited longer than for the answer")
	case q.verdict.Source == verifier.FromEndpoint && from.end.before(q.begin):
		w.broken("an older answer is shown as a new one")
	}
	w.judgeUse(q, from)
}

// stale is how much longer an answer may be used while nobody can tell.
func (w *modelWorld) stale(f *modelFlight) time.Duration {
	end := f.most + w.options.cache.StaleIfError
	end = min(end, verifier.MaxLife)
	if t := &w.tokens[f.token]; t.expires != 0 {
		end = min(end, t.expires-f.end.at)
	}
	return max(0, end.Truncate(time.Millisecond)-f.most) // lives are whole milliseconds
}

// judgeUse judges when an answer is used (promise 5).
func (w *modelWorld) judgeUse(q *modelQuestion, from *modelFlight) {
	now := q.end
	life := q.verdict.Until.Sub(q.verdict.Learnt)
	most := from.most
	if q.verdict.Source == verifier.FromStale {
		most += w.stale(from)
		nobody := false
		for _, f := range w.flights {
			if _, ok := errors.AsType[*verifier.NoAnswer](f.err); ok && f.token == q.token && f.end == now && !w.gone(f, q) {
				nobody = true
			}
		}
		if !nobody || !q.verdict.Valid {
			w.broken("stale: only a yes, and only while nobody can tell")
		}
		if now.at < from.end.at+from.least {
			w.broken("stale: the answer is still in force")
		}
	} else {
		if life > most || life < from.least {
			w.broken("promise 5: an answer ends after %v, want %v to %v", life, from.least, most)
		}
		from.least, from.most = life, life // now it is known
	}
	if now.at >= from.end.at+min(life, most) && from.end != now {
		w.broken("promise 5: an answer is used after its end")
	}
	if w.expired(q.token, now.at) && q.verdict.Valid {
		w.broken("promise 5: a token is good after its own end")
	}
	w.judgeRenewal(q, from)
}

// renewalPause is how long the Cache waits after a renewal that brought no answer.
const renewalPause = time.Second

// judgeRenewal sees that a busy token is renewed (promise 4).
func (w *modelWorld) judgeRenewal(q *modelQuestion, from *modelFlight) {
	due := from.end.at + w.refreshed(from.most) + time.Millisecond
	if w.options.cache.RefreshBefore == 0 || !from.verdict.Valid || !w.surely(from, q.end.at) || w.last(from) {
		return
	}
	for _, f := range w.flights {
		if f.token != q.token || f == from || f.died != 0 && f.died < from.died {
			continue
		}
		if !f.done || !f.end.before(q.end) {
			return // it is under way
		}
		if !f.answered() {
			due = max(due, f.end.at+renewalPause)
		}
	}
	if q.end.at >= due {
		w.broken("promise 4: a token in use is not refreshed ahead")
	}
}

// judgeFlight judges that a flight was begun.
func (w *modelWorld) judgeFlight(f *modelFlight) {
	now := f.begin
	wanted := false
	for _, q := range w.questions {
		if q.token == f.token && !now.before(q.begin) && (!q.done || !q.end.before(now)) {
			wanted = true
		}
	}
	if !wanted {
		w.broken("promise 4: a call that nobody asked for")
	}
	if w.denied(f.token, now) || w.expired(f.token, now.at) {
		w.broken("a call for a token that is denied or has ended")
	}
	known := w.newest(f.token, f.born)
	for _, other := range w.flights {
		switch {
		case other == f || other.token != f.token || other.void || other.born > f.born:
		case (!other.done || other.died > f.born) && !other.maybe:
			w.broken("promise 4: two calls for a token at the same time")
		case !other.answered() && w.surely(known, now.at) && other.born > known.died && now.at < other.end.at+renewalPause-time.Millisecond:
			w.broken("promise 4: a call that failed to renew an answer is repeated at once")
		}
	}
	if known != nil && known.end == now && known.most >= time.Millisecond && !known.maybe && w.alone(f) {
		w.broken("promise 4: a call though the answer has just come")
	}
	if !w.surely(known, now.at) {
		return
	}
	if known.least >= known.most-time.Millisecond && w.last(known) {
		w.broken("promise 4: a call of which nothing can come")
	}
	if w.options.cache.RefreshBefore == 0 || !known.verdict.Valid || now.at < known.end.at+w.refreshed(known.least)-time.Millisecond {
		w.broken("promise 4: a call though an answer is in force")
	}
}

// alone reports whether nothing happened at a moment about other tokens, which
// might have pushed an answer out.
func (w *modelWorld) alone(f *modelFlight) bool {
	for _, other := range w.flights {
		if other.token != f.token && (other.begin == f.begin || other.done && other.end == f.begin) {
			return false
		}
	}
	return true
}

// judgeLanding judges how a flight ended, and what the Guard did with it.
func (w *modelWorld) judgeLanding(f *modelFlight) {
	o := &w.options
	took := f.end.at - f.begin.at
	if took > o.cache.Timeout {
		w.broken("promise 8: a call took longer than its time-out")
	}
	if f.answered() {
		w.life(f)
	}
	none, isNone := errors.AsType[*verifier.NoAnswer](f.err)
	switch {
	case f.call != nil:
		if f.call.end != f.end || f.call.answered != f.answered() {
			w.broken("the Guard changed what the endpoint said")
		}
	case !isNone:
		w.broken("promise 1: the Guard answered without the endpoint")
	case w.closing && f.end.step == w.step:
	case none.Overloaded:
		waited := took == o.guard.MaxWait || took == o.cache.Timeout
		if !waited && (f.rank == rankGood || w.waiting(f) < o.guard.MaxWaiting) {
			w.broken("promise 8: shed without need")
		}
	case !w.resting(f.end):
		w.broken("promise 3: the Guard did not ask though it could")
	}
}

// waiting counts the flights that waited for their turn when one was shed.
func (w *modelWorld) waiting(f *modelFlight) (count int) {
	for _, other := range w.flights {
		if other != f && !f.end.before(other.begin) && (!other.done || !other.end.before(f.end)) && (other.call == nil || !other.call.begin.before(f.end)) {
			count++
		}
	}
	return count
}

// resting reports whether there was a reason not to call the endpoint.
func (w *modelWorld) resting(now modelMoment) bool {
	for _, c := range w.calls {
		if c.done && c.retryAfter > 0 && !now.before(c.end) && now.at < c.end.at+min(c.retryAfter, time.Minute) {
			return true
		}
	}
	for i, c := range w.changes {
		next := i+1 == len(w.changes) || !w.changes[i+1].at.before(now) // it was the state at that moment
		switch {
		case now.before(c.at) || !next:
		case c.to == "open" && now.at < c.at.at+w.options.guard.OpenFor:
			return true
		case c.to == "half-open":
			for _, probe := range w.calls {
				if !probe.begin.before(c.at) && !now.before(probe.begin) && (!probe.done || !probe.end.before(now)) {
					return true
				}
			}
		}
	}
	return false
}

// judgeCall judges that the endpoint was called (promise 8).
func (w *modelWorld) judgeCall(c *modelCall) {
	o := &w.options.guard
	now := c.begin
	if now.at > c.flight.begin.at+o.MaxWait {
		w.broken("promise 8: a call waited too long for its turn")
	}
	if c.done && c.end.at > now.at+o.Timeout {
		w.broken("promise 8: a call took longer than its time-out")
	}
	atOnce, unseen := 0, 0
	for _, other := range w.calls {
		if other.born <= c.born && (!other.done || other.died > c.born) {
			atOnce++
			if other.flight.rank == rankUnseen {
				unseen++
			}
		}
		if other.done && other.end.before(now) && now.at < other.end.at+min(other.retryAfter, time.Minute) {
			w.broken("promise 8: Retry-After is not obeyed")
		}
	}
	if atOnce > o.MaxCalls {
		w.broken("promise 8: too many calls at once")
	}
	if c.flight.rank == rankUnseen && unseen > o.MaxCalls-o.Reserved {
		w.broken("promise 8: unseen tokens take what is reserved")
	}
	if c.flight.rank == rankUnseen {
		for _, f := range w.flights {
			// What comes in one instant has no order among itself.
			if f.rank == rankUnseen && f.begin.at < c.flight.begin.at && (f.call == nil || now.at < f.call.begin.at) && (!f.done || now.at < f.end.at) {
				w.broken("promise 8: not in the order of arrival")
			}
		}
	}
	state, since := "closed", modelMoment{}
	for _, change := range w.changes {
		if change.at.before(now) || change.at == now && change.to == "half-open" {
			state, since = change.to, change.at
		}
		if change.at == now && change.to != "half-open" {
			return // which came first cannot be seen
		}
	}
	if state == "open" {
		w.broken("promise 8: a call while the breaker is open")
	}
	for _, other := range w.calls {
		if state == "half-open" && other != c && other.born < c.born && !other.begin.before(since) {
			w.broken("promise 8: more than one probe")
		}
	}
}

// judgeChange judges that the breaker changed its state.
func (w *modelWorld) judgeChange(i int, c *modelChange) {
	o := &w.options.guard
	last := modelMoment{}
	if i > 0 {
		last = w.changes[i-1].at
	}
	// The results that may have come before it, the newest first.
	failures, succeeded, failed := 0, false, false
	results := w.results(func(r *modelCall) bool { return !r.end.before(last) && !c.at.before(r.end) })
	for n, r := range results {
		now := r.end == c.at
		if !r.answered && (n < o.OfLast || now) {
			failures++
		}
		succeeded, failed = succeeded || now && r.answered, failed || now && !r.answered
	}
	switch {
	case c.from == "closed" && failures < o.Failures:
		w.broken("the breaker opened after %d failures", failures)
	case c.from == "open" && c.at.at < last.at+o.OpenFor:
		w.broken("the breaker did not stay open")
	case c.from == "half-open" && c.to == "closed" && !succeeded, c.from == "half-open" && c.to == "open" && !failed:
		w.broken("the breaker is %s without a reason", c.to)
	}
}

// results returns ended calls, the one that ended last first.
func (w *modelWorld) results(which func(*modelCall) bool) []*modelCall {
	var found []*modelCall
	for _, c := range w.calls {
		if !c.done || !which(c) {
			continue
		}
		i := 0
		for i < len(found) && found[i].died > c.died {
			i++
		}
		found = append(found[:i], append([]*modelCall{c}, found[i:]...)...)
	}
	return found
}

// judgeWaiting judges who waits while nothing moves.
func (w *modelWorld) judgeWaiting() {
	o := &w.options
	now := w.now()
	for _, q := range w.questions {
		if q.done {
			continue
		}
		if w.closing {
			w.broken("a caller waits after Close")
		}
		if q.gaveUp || q.patience > 0 && now.at >= q.begin.at+q.patience {
			w.broken("promise 8: a caller waits longer than it wants")
		}
		if w.denied(q.token, q.begin) || w.expired(q.token, q.begin.at) || w.surely(w.newest(q.token, q.born), q.begin.at) {
			w.broken("promise 8: a caller waits for what is known")
		}
		flying := false
		for _, f := range w.flights {
			flying = flying || f.token == q.token && !f.done && !f.void
		}
		if !flying {
			w.broken("promise 8: a caller waits for nothing")
		}
	}
	atOnce, notGood := 0, 0
	for _, c := range w.calls {
		if c.done {
			continue
		}
		atOnce++
		if c.flight.rank != rankGood {
			notGood++
		}
		if now.at >= c.begin.at+o.guard.Timeout {
			w.broken("promise 8: a call takes longer than its time-out")
		}
	}
	queue := 0
	for _, f := range w.flights {
		if !f.done && f.call == nil && f.rank == rankUnseen {
			queue++
		}
		switch {
		case f.done:
		case w.closing:
			w.broken("a call is under way after Close")
		case f.call != nil:
		case now.at >= f.begin.at+min(o.guard.MaxWait, o.cache.Timeout):
			w.broken("promise 8: a call waits too long for its turn")
		case atOnce < o.guard.MaxCalls && (f.rank == rankGood || notGood < o.guard.MaxCalls-o.guard.Reserved):
			w.broken("promise 8: a call waits though there is room")
		}
	}
	if queue > o.guard.MaxWaiting {
		w.broken("promise 8: too many wait for their turn")
	}
	// The breaker is open if the last results say so, in whatever order they came.
	if n := len(w.changes); n == 0 || w.changes[n-1].to == "closed" {
		closed := modelMoment{}
		if n > 0 {
			closed = w.changes[n-1].at
		}
		results := w.results(func(r *modelCall) bool { return closed.before(r.end) })
		failures := 0
		for _, r := range results {
			if r.answered {
				break
			}
			failures++
		}
		if failures >= o.guard.Failures {
			w.broken("promise 8: the breaker is closed after %d failures", failures)
		}
	}
}

// judgeStats sees that what is counted is what happens.
func (w *modelWorld) judgeStats() {
	flights, waiting, calls, panics, ended := 0, 0, 0, 0, 0
	unsure := w.loose(0) || w.loose(1) || w.loose(2)
	for _, f := range w.flights {
		unsure = unsure || f.maybe // it may be kept beside ristretto, and it may be void
		switch {
		case f.panicked:
			panics++
		case f.done:
		default:
			if !f.void {
				flights++
			}
			if f.call == nil {
				waiting++
			}
		}
	}
	for _, c := range w.calls {
		if c.done {
			ended++
		} else {
			calls++
		}
	}
	if g := w.guard.Stats(); int(g.Calls) != calls || int(g.Waiting) != waiting {
		w.broken("the Guard counts %d calls and %d waiting, want %d and %d", g.Calls, g.Waiting, calls, waiting)
	}
	if c := w.cache.Stats(); c.Flights != flights && !unsure {
		w.broken("the Cache counts %d flights, want %d", c.Flights, flights)
	}
	if w.panics != panics || w.measured != ended {
		w.broken("%d panics and %d calls were told of, want %d and %d", w.panics, w.measured, panics, ended)
	}
}
