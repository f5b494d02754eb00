package verifier_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/verifier"
)

// TestModel runs random schedules against the stack as it is in service, with a
// real ristretto and a fake endpoint under it, and holds everything that happens
// against the promises of docs/design.md. What they mean for the verifier stands in
// model_promises_test.go. docs/model.md says which mistakes it was seen to find.
//
// A difference fails with the shortest schedule that shows it, as a list of steps.
// One run is modelRounds times the 100 schedules of rapid.checks. A long one:
//
//	make model CHECKS=5000
//	go test ./verifier -run TestModel -rapid.checks=5000 -timeout=2h
func TestModel(t *testing.T) {
	tokens := newModelTokens(t)
	var schedules, questions, calls atomic.Int64
	var broken atomic.Bool // then the other lanes need not go on
	t.Run("schedules", func(t *testing.T) {
		const lanes = 4 // more than there are usually cores: bubbles wait for each other a lot
		for lane := range lanes {
			t.Run(fmt.Sprint(lane), func(t *testing.T) {
				t.Parallel()
				var failures modelFailures
				defer failures.tell(t)
				for range modelRounds / lanes {
					if broken.Load() {
						return
					}
					rapid.Check(t, func(t *rapid.T) {
						// A list of lists: a list alone is short, and a longest of its own would not shrink.
						steps := slices.Concat(rapid.SliceOfN(rapid.SliceOfN(rapid.Custom(drawModelStep), 1, 6), 1, 12).Draw(t, "steps")...)
						options := drawModelOptions(t)
						broke := true
						defer func() {
							if broke && broken.CompareAndSwap(false, true) {
								failures.after = fmt.Sprint(schedules.Load())
							}
						}()
						rapid.SyncTest(t, func(t *rapid.T) {
							w := newModelWorld(t, tokens, options)
							w.failures = &failures
							defer w.close()
							for _, s := range steps {
								w.take(s)
							}
							w.end()
							questions.Add(int64(len(w.questions)))
							calls.Add(int64(len(w.calls)))
						})
						schedules.Add(1)
						failures.again, broke = false, false
					})
				}
			})
		}
	})
	t.Logf("%d schedules with %d questions and %d calls to the endpoint", schedules.Load(), questions.Load(), calls.Load())
}

// modelFailures keeps the story of the first failure, because one that is a race
// may not come again, and rapid forgets it then.
type modelFailures struct {
	first string
	after string // so many schedules
	again bool   // the last schedule failed too
}

func (f *modelFailures) add(story string) {
	if f.first == "" {
		f.first = story
	}
	f.again = true
}

func (f *modelFailures) tell(t *testing.T) {
	if f.after != "" {
		t.Logf("the first failure came after %s schedules", f.after)
	}
	if f.first != "" && !f.again {
		t.Logf("it did not fail again; this is what happened:\n%s", f.first)
	}
}

// modelToken is one of the tokens of all schedules.
type modelToken struct {
	name    string
	token   bearer.Token
	good    bool          // at first
	expires time.Duration // since the begin; 0 for tokens that do not say
	before  time.Duration // nbf, in the same way
	twin    int           // the token whose digest begins with the same bytes, or -1
}

// The tokens that steps name; the made-up ones come after them.
const (
	firstMadeUp = 5
	madeUp      = 8
)

func newModelTokens(t *testing.T) []modelToken {
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	parse := func(value string) bearer.Token {
		token, err := parser.ParseToken(value)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	var begin time.Time
	synctest.Test(t, func(*testing.T) { begin = time.Now() })
	jwt := func(notBefore, expires time.Duration) bearer.Token {
		encode := base64.RawURLEncoding.EncodeToString
		claims := fmt.Sprintf(`{"nbf":%d,"exp":%d}`, begin.Add(notBefore).Unix(), begin.Add(expires).Unix())
		return parse(encode([]byte(`{"alg":"none"}`)) + "." + encode([]byte(claims)) + ".x")
	}
	tokens := []modelToken{
		{name: "a", token: parse("a"), good: true, twin: -1},
		{name: "b", token: parse("b"), good: true, twin: 2},
		{name: "b's twin", token: parse("twin"), twin: 1},
		{name: "a JWT until 20s", token: jwt(0, 20*time.Second), good: true, expires: 20 * time.Second, twin: -1},
		{name: "a JWT from 10s on", token: jwt(10*time.Second, time.Hour), before: 10 * time.Second, expires: time.Hour, twin: -1},
	}
	for i := range madeUp {
		name := fmt.Sprintf("made-up-%d", i+1)
		tokens = append(tokens, modelToken{name: name, token: parse(name), twin: -1})
	}
	// Two tokens that fall onto one key of the cache. Nobody can find such tokens,
	// as the digest is keyed; the promise is that it would not matter.
	copy(tokens[2].token.Digest()[:8], tokens[1].token.Digest()[:8])
	return tokens
}

// modelStep is one step of a schedule.
type modelStep struct {
	kind   modelKind
	token  int
	number int           // how many ask
	time   time.Duration // how long they wait, or how long nothing is done
	mode   modelMode
}

type modelKind uint8

const (
	stepAsk modelKind = iota
	stepPass
	stepPassToEnd
	stepPassToRefresh
	stepEndpoint
	stepTurn
	stepForget
	stepForgetAmid
	stepGiveUp
	stepFlood
	stepDeny
)

// modelMode is how the endpoint treats calls.
type modelMode uint8

const (
	modeAnswer modelMode = iota
	modeSlow
	modeSlower
	modeHang
	modeBroken
	modePanic
	modeFlap
	modeBusy
)

var (
	modelModes = [...]string{
		"answers at once", "answers after 100ms", "answers after 1.5s", "hangs", "gives no answer", "makes the client panic after 100ms",
		"answers every other call", "wants after 100ms to be left alone, for 3s and 2m by turns",
	}
	modelWaits = [len(modelModes)]time.Duration{
		modeSlow: 100 * time.Millisecond, modeSlower: 1500 * time.Millisecond, modeHang: time.Hour, modePanic: 100 * time.Millisecond, modeBusy: 100 * time.Millisecond,
	}
)

func drawModelStep(t *rapid.T) modelStep {
	s := modelStep{kind: rapid.SampledFrom([]modelKind{
		stepAsk, stepAsk, stepAsk, stepAsk, stepAsk, stepAsk, stepPass, stepPass, stepPass, stepPassToEnd, stepPassToEnd, stepPassToRefresh,
		stepPassToRefresh, stepEndpoint, stepEndpoint, stepEndpoint, stepTurn, stepForget, stepForgetAmid, stepGiveUp, stepFlood, stepDeny,
	}).Draw(t, "kind")}
	if s.kind != stepPass && s.kind != stepEndpoint && s.kind != stepFlood {
		s.token = rapid.SampledFrom([]int{0, 0, 1, 2, 3, 4}).Draw(t, "token")
	}
	switch s.kind {
	case stepAsk:
		s.number = rapid.SampledFrom([]int{1, 1, 3}).Draw(t, "number")
		s.time = rapid.SampledFrom([]time.Duration{0, 0, 50 * time.Millisecond, time.Second}).Draw(t, "patience")
	case stepPass:
		s.time = rapid.SampledFrom([]time.Duration{
			time.Millisecond, 100 * time.Millisecond, time.Second, 3 * time.Second, 11 * time.Second, 65 * time.Second, 5*time.Minute + time.Second,
		}).Draw(t, "time")
	case stepPassToEnd, stepPassToRefresh:
		s.time = rapid.SampledFrom([]time.Duration{0, time.Millisecond, -time.Millisecond, 2 * time.Second}).Draw(t, "offset")
	case stepEndpoint:
		s.mode = modelMode(rapid.IntRange(0, len(modelModes)-1).Draw(t, "mode"))
	case stepFlood:
		s.number = rapid.IntRange(2, madeUp).Draw(t, "number")
	default:
	}
	return s
}

func (s modelStep) describe(tokens []modelToken) string {
	name := tokens[s.token].name
	switch s.kind {
	case stepAsk:
		patience := ""
		if s.time > 0 {
			patience = fmt.Sprintf(" and wait %v at most", s.time)
		}
		return fmt.Sprintf("%d ask for %s%s", s.number, name, patience)
	case stepPass:
		return fmt.Sprintf("%v pass", s.time)
	case stepPassToEnd:
		return fmt.Sprintf("time passes to the end of the verdict on %s %+dms", name, s.time.Milliseconds())
	case stepPassToRefresh:
		return fmt.Sprintf("time passes to where %s is refreshed %+dms", name, s.time.Milliseconds())
	case stepEndpoint:
		return "the endpoint " + modelModes[s.mode]
	case stepTurn:
		return fmt.Sprintf("the endpoint changes its mind about %s", name)
	case stepForget:
		return fmt.Sprintf("Forget %s", name)
	case stepForgetAmid:
		return fmt.Sprintf("3 ask for %s, and Forget comes at the same time", name)
	case stepGiveUp:
		return fmt.Sprintf("all who ask for %s give up", name)
	case stepFlood:
		return fmt.Sprintf("%d made-up tokens come", s.number)
	case stepDeny:
		return fmt.Sprintf("Deny %s", name)
	default:
		return "?"
	}
}

// modelOptions are the bounds in one schedule.
type modelOptions struct {
	cache verifier.CacheOptions
	guard verifier.GuardOptions
}

func drawModelOptions(t *rapid.T) modelOptions {
	draw := func(label string, from ...time.Duration) time.Duration { return rapid.SampledFrom(from).Draw(t, label) }
	pick := func(label string, from ...int) int { return rapid.SampledFrom(from).Draw(t, label) }
	o := modelOptions{
		cache: verifier.CacheOptions{
			Name: "model",
			// With room for one, most tokens are pushed out or never taken in.
			MaxTokens:     pick("max tokens", 64, 64, 64, 1),
			ValidTTL:      draw("valid TTL", 10*time.Second, 60*time.Second, verifier.MaxLife),
			InvalidTTL:    draw("invalid TTL", 2*time.Second, 30*time.Second),
			RefreshBefore: draw("refresh before", 0, 3*time.Second, 20*time.Second),
			StaleIfError:  draw("stale if error", 0, 5*time.Second, verifier.MaxLife),
		},
		guard: verifier.GuardOptions{
			Name:       "model",
			MaxCalls:   pick("max calls", 64, 3, 2),
			MaxWaiting: pick("max waiting", 1000, 2, 0),
			MaxWait:    draw("max wait", time.Second, 5*time.Second),
			Timeout:    2 * time.Second,
			Failures:   pick("failures", 1000, 2),
			OpenFor:    time.Second,
		},
	}
	o.guard.Reserved = min(pick("reserved", 0, 1, 2), o.guard.MaxCalls-1)
	o.guard.OfLast = o.guard.Failures + o.guard.Failures/2
	o.cache.Timeout = draw("time-out", o.guard.MaxWait+o.guard.Timeout, 1500*time.Millisecond)
	return o
}

func (o *modelOptions) String() string {
	c, g := &o.cache, &o.guard
	return fmt.Sprintf("max tokens %d, valid TTL %v, invalid TTL %v, refresh before %v, stale if error %v, time-out %v;\n"+
		"calls %d with %d reserved, waiting %d for %v, time-out %v, breaker %d of %d",
		c.MaxTokens, c.ValidTTL, c.InvalidTTL, c.RefreshBefore, c.StaleIfError, c.Timeout,
		g.MaxCalls, g.Reserved, g.MaxWaiting, g.MaxWait, g.Timeout, g.Failures, g.OfLast)
}

// modelMoment is when something happened. What happened at one moment may have
// happened in any order; the steps are apart, because each waits until nothing
// moves any more.
type modelMoment struct {
	step int
	at   time.Duration // since the begin
}

func (m modelMoment) before(o modelMoment) bool { return m.step < o.step || m.at < o.at }

// What happened in a schedule. Numbers (born, died) say the order in which the
// test saw things begin and end.
type (
	// modelQuestion is one call of Verify.
	modelQuestion struct {
		token      int
		begin, end modelMoment
		patience   time.Duration
		cancel     context.CancelFunc
		gaveUp     bool // by a step
		born, died int

		done    bool
		verdict verifier.Verdict
		err     error
		judged  bool
	}
	// modelFlight is what the Cache asks of the Guard.
	modelFlight struct {
		token      int
		begin, end modelMoment
		born, died int
		void       bool // by a Forget or Deny
		maybe      bool // perhaps void: it began while Forget was called
		rank       modelRank
		call       *modelCall

		done, panicked bool
		verdict        verifier.Verdict
		err            error
		// Between these the life of the answer ends.
		least, most time.Duration

		judgedBegin, judgedEnd bool
	}
	// modelCall is what reaches the endpoint.
	modelCall struct {
		flight     *modelFlight
		begin, end modelMoment
		born, died int

		done       bool
		answered   bool
		retryAfter time.Duration

		judged bool
	}
	// modelChange is one of the breaker.
	modelChange struct {
		from, to string
		at       modelMoment
		born     int

		judged bool
	}
	// modelDenial is the last one of a token.
	modelDenial struct {
		from  modelMoment
		until time.Duration
	}
)

// modelWorld is a stack in a bubble, and everything that happened in it.
type modelWorld struct {
	t       *rapid.T
	tokens  []modelToken
	options modelOptions
	cache   *verifier.Cache
	guard   *verifier.Guard
	start   time.Time

	mu        sync.Mutex
	step      int
	number    int
	mode      modelMode
	good      []bool
	questions []*modelQuestion
	flights   []*modelFlight
	calls     []*modelCall
	changes   []*modelChange
	denials   map[int]modelDenial
	touched   map[int]bool // the tokens of which the Cache was told anything
	// The step in which Forget came while questions were asked, and for which token.
	amid, amidOf int
	panics       int
	measured     int
	closing      bool

	story    []string
	failures *modelFailures
}

func newModelWorld(t *rapid.T, tokens []modelToken, o modelOptions) *modelWorld {
	w := &modelWorld{t: t, tokens: tokens, options: o, start: time.Now(), denials: map[int]modelDenial{}, touched: map[int]bool{}}
	for i := range tokens {
		w.good = append(w.good, tokens[i].good)
	}
	o.guard.StateChanged = func(from, to string) {
		w.note(func(now modelMoment) {
			w.changes = append(w.changes, &modelChange{from: from, to: to, at: now, born: w.number})
		})
	}
	o.cache.Panicked = func(*verifier.Panic) { w.note(func(modelMoment) { w.panics++ }) }
	measured := verifier.NewMeasured(modelEndpoint{w}, func(bearer.Token, verifier.Outcome, time.Duration) { w.note(func(modelMoment) { w.measured++ }) })
	var err error
	if w.guard, err = verifier.NewGuard(measured, o.guard); err != nil {
		t.Fatal(err)
	}
	if w.cache, err = verifier.NewCache(modelBetween{w}, o.cache); err != nil {
		t.Fatal(err)
	}
	return w
}

// note writes down what happened now.
func (w *modelWorld) note(what func(now modelMoment)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.number++
	what(modelMoment{w.step, time.Since(w.start)})
}

func (w *modelWorld) now() modelMoment { return modelMoment{w.step, time.Since(w.start)} }

// find returns the number of a token.
func (w *modelWorld) find(t bearer.Token) int {
	for i := range w.tokens {
		if *w.tokens[i].token.Digest() == *t.Digest() {
			return i
		}
	}
	panic("a token of nobody")
}

// modelBetween stands between Cache and Guard and sees what goes through.
type modelBetween struct{ w *modelWorld }

// modelFlightKey is where a call finds its flight in the context.
type modelFlightKey struct{}

func (b modelBetween) Verify(ctx context.Context, t bearer.Token) (v verifier.Verdict, err error) {
	w := b.w
	f := &modelFlight{token: w.find(t)}
	w.note(func(now modelMoment) {
		f.begin, f.born = now, w.number
		f.maybe = w.amid == w.step && w.amidOf == f.token
		w.flights = append(w.flights, f)
	})
	returned := false
	defer func() {
		w.note(func(now modelMoment) {
			f.done, f.end, f.died = true, now, w.number
			f.verdict, f.err, f.panicked = v, err, !returned
		})
	}()
	v, err = w.guard.Verify(context.WithValue(ctx, modelFlightKey{}, f), t)
	returned = true
	return v, err
}

// modelEndpoint behaves as the schedule wants.
type modelEndpoint struct{ w *modelWorld }

func (e modelEndpoint) Verify(ctx context.Context, t bearer.Token) (verifier.Verdict, error) {
	w := e.w
	c := &modelCall{flight: ctx.Value(modelFlightKey{}).(*modelFlight)}
	var mode modelMode
	var good bool
	var number int
	w.note(func(now modelMoment) {
		c.begin, c.born, c.flight.call = now, w.number, c
		w.calls = append(w.calls, c)
		mode, good, number = w.mode, w.good[w.find(t)], len(w.calls)
		if number > 1000 { // somebody calls without end, which is to be seen
			mode = modeHang
		}
	})
	defer func() { w.note(func(now modelMoment) { c.done, c.end, c.died = true, now, w.number }) }()
	none := func(problem string, retryAfter time.Duration) (verifier.Verdict, error) {
		c.retryAfter = retryAfter
		return verifier.Verdict{}, &verifier.NoAnswer{Verifier: "model", Problem: problem, RetryAfter: retryAfter, Cause: context.Cause(ctx)}
	}
	if wait := modelWaits[mode]; wait > 0 {
		// No two answers come at one moment, so that a schedule runs the same way again.
		arrived := time.NewTimer(wait + time.Duration(number)*time.Microsecond)
		defer arrived.Stop()
		select {
		case <-arrived.C:
		case <-ctx.Done():
			return none("the endpoint did not answer in time", 0)
		}
	}
	switch mode {
	case modeBroken:
		return none("the endpoint answered with status 500", 0)
	case modeBusy:
		retryAfter := 3 * time.Second
		if number%2 == 0 {
			retryAfter = 2 * time.Minute
		}
		return none("the endpoint answered with status 429", retryAfter)
	case modePanic:
		panic("by the schedule")
	case modeFlap:
		if number%2 == 0 {
			return none("the connection to the endpoint failed", 0)
		}
	default:
	}
	c.answered = true
	return verifier.Verdict{Valid: good, Source: verifier.FromEndpoint, Learnt: time.Now()}, nil
}

// take does a step of the schedule, waits until nothing moves, and judges.
func (w *modelWorld) take(s modelStep) {
	w.begin(s.describe(w.tokens))
	token := &w.tokens[s.token]
	switch s.kind {
	case stepAsk:
		for range s.number { // at the same time
			w.ask(s.token, s.time)
		}
	case stepPass:
		w.pass(s.time)
	case stepPassToEnd, stepPassToRefresh:
		w.passTo(s)
	case stepEndpoint:
		w.note(func(modelMoment) { w.mode = s.mode })
	case stepTurn:
		w.note(func(modelMoment) { w.good[s.token] = !w.good[s.token] })
	case stepForget:
		w.void(s.token)
		w.cache.Forget(token.token)
	case stepForgetAmid:
		w.amid, w.amidOf = w.step, s.token
		w.ask(s.token, 0)
		w.ask(s.token, 0)
		w.void(s.token)
		w.cache.Forget(token.token)
		w.ask(s.token, 0)
	case stepGiveUp:
		w.note(func(modelMoment) {
			for _, q := range w.questions {
				if q.token == s.token && !q.done {
					q.gaveUp = true
					q.cancel()
				}
			}
		})
	case stepFlood:
		for i := range s.number { // one after the other: else who is shed would be chance
			w.ask(firstMadeUp+i, 0)
			synctest.Wait()
		}
	case stepDeny:
		w.void(s.token)
		now := w.now()
		w.denials[s.token] = modelDenial{from: now, until: max(now.at+verifier.MaxLife, token.expires)}
		if err := w.cache.Deny(token.token); err != nil {
			w.broken("Deny: %v", err)
		}
	}
	w.settle()
}

func (w *modelWorld) begin(what string) {
	w.note(func(modelMoment) { w.step++ })
	w.story = append(w.story, what)
}

// ask has one more question asked.
func (w *modelWorld) ask(token int, patience time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	if patience > 0 {
		ctx, cancel = context.WithTimeout(context.Background(), patience)
	}
	q := &modelQuestion{token: token, patience: patience, cancel: cancel}
	w.note(func(now modelMoment) {
		w.touched[token] = true
		q.begin, q.born = now, w.number
		w.questions = append(w.questions, q)
	})
	go func() {
		v, err := w.cache.Verify(ctx, w.tokens[token].token)
		w.note(func(now modelMoment) { q.done, q.end, q.died, q.verdict, q.err = true, now, w.number, v, err })
	}()
}

func (w *modelWorld) pass(d time.Duration) {
	if d > 0 {
		<-time.After(d)
	}
}

// passTo lets time pass to a turn in the life of the newest answer of a token.
func (w *modelWorld) passTo(s modelStep) {
	wait := time.Millisecond
	w.note(func(now modelMoment) {
		f := w.newest(s.token, w.number)
		switch {
		case f == nil:
		case s.kind == stepPassToRefresh:
			wait = f.end.at + w.refreshed(f.most) + s.time - now.at
		default:
			wait = f.end.at + f.most + s.time - now.at
		}
	})
	w.pass(wait)
}

// void marks the answers about a token that must not be used any more.
func (w *modelWorld) void(token int) {
	w.note(func(modelMoment) {
		w.touched[token] = true
		for _, f := range w.flights {
			if f.token == token {
				f.void = true
			}
		}
	})
}

// settle waits until nothing moves, and judges what happened.
func (w *modelWorld) settle() {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.judge()
}

// end closes the stack while questions may be waiting.
func (w *modelWorld) end() {
	w.begin("Close")
	w.note(func(modelMoment) { w.closing = true })
	begin := w.now()
	w.cache.Close()
	w.settle()
	if now := w.now(); now != begin {
		w.broken("Close took %v", now.at-begin.at)
	}
	if _, err := w.cache.Verify(context.Background(), w.tokens[firstMadeUp].token); !errors.Is(err, verifier.ErrClosed) {
		w.broken("after Close there is another answer than ErrClosed: %v", err)
	}
}

// close leaves nothing in the bubble, also after a failure.
func (w *modelWorld) close() {
	for _, q := range w.questions {
		q.cancel()
	}
	w.cache.Close()
}

// broken fails the schedule, and prints what happened in it.
func (w *modelWorld) broken(format string, args ...any) {
	w.t.Helper()
	story := w.options.String() + "\n" + strings.Join(w.tell(), "\n")
	w.failures.add(story)
	w.t.Log(story)
	w.t.Fatalf(format, args...)
}

// tell returns all that happened, in order.
func (w *modelWorld) tell() []string {
	type line struct {
		at     modelMoment
		number int
		text   string
	}
	var lines []line
	add := func(at modelMoment, number int, format string, args ...any) {
		lines = append(lines, line{at, number, fmt.Sprintf(format, args...)})
	}
	for i, q := range w.questions {
		name := w.tokens[q.token].name
		switch {
		case !q.done:
			add(q.begin, q.born, "question %d about %s begins to wait", i+1, name)
		case q.err != nil:
			add(q.end, q.died, "question %d about %s: %v", i+1, name, q.err)
		default:
			add(q.end, q.died, "question %d about %s: %s, until %v", i+1, name, describe(q.verdict), q.verdict.Until.Sub(w.start))
		}
	}
	for i, f := range w.flights {
		name := w.tokens[f.token].name
		add(f.begin, f.born, "flight %d for %s begins", i+1, name)
		if f.call != nil {
			add(f.call.begin, f.call.born, "flight %d calls the endpoint", i+1)
		}
		switch {
		case !f.done:
		case f.panicked:
			add(f.end, f.died, "flight %d panics", i+1)
		case f.err != nil:
			add(f.end, f.died, "flight %d lands: %v", i+1, f.err)
		default:
			add(f.end, f.died, "flight %d lands: %s", i+1, describe(f.verdict))
		}
	}
	for _, c := range w.changes {
		add(c.at, c.born, "the breaker, that was %s, is %s", c.from, c.to)
	}
	slices.SortFunc(lines, func(a, b line) int { return a.number - b.number })
	var told []string
	for i, s := range w.story {
		told = append(told, fmt.Sprintf("%2d. %s", i+1, s))
		for _, l := range lines {
			if l.at.step == i+1 {
				told = append(told, fmt.Sprintf("      %-12v %s", l.at.at, l.text))
			}
		}
	}
	return told
}

func describe(v verifier.Verdict) string {
	if v.Valid {
		return "good, from " + v.Source.String()
	}
	return "no, from " + v.Source.String()
}
