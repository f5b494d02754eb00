package gate_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/verifier"
)

func TestNewRefusesAnIncompleteGate(t *testing.T) {
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]gate.Options{
		"no parser":   {Policy: gate.Policy{Verifier: good, Realm: "api"}},
		"no verifier": {Parser: parser, Policy: gate.Policy{Realm: "api"}},
		"no realm":    {Parser: parser, Policy: gate.Policy{Verifier: good}},
	} {
		if g, err := gate.New(o); err == nil || g != nil {
			t.Errorf("%s: got a gate", name)
		}
	}
	g, err := gate.New(gate.Options{Parser: parser, Policy: gate.Policy{Verifier: notGood, Realm: "api"}})
	if err != nil {
		t.Fatal(err)
	}
	// What is not needed may be left out.
	if d := g.Decide(t.Context(), withToken()); d.Reason != gate.InvalidToken {
		t.Errorf("the reason is %v", d.Reason)
	}
	if d := g.Recovered("a face's own trouble"); d.Reason != gate.InternalError {
		t.Errorf("the reason is %v", d.Reason)
	}
}

// TestEveryDecision has a row for each way to each reason, and wants the whole
// reply: status, every header line in order, body.
func TestEveryDecision(t *testing.T) {
	const (
		described = `Bearer realm="api", error="invalid_token", error_description="`
		malformed = gate.MalformedToken
		multiple  = gate.MultipleTokens
	)
	noAnswer := func(retryAfter time.Duration) verify {
		return says(verifier.Verdict{}, &verifier.NoAnswer{Verifier: "crm", Problem: "nobody listens", RetryAfter: retryAfter})
	}
	tests := []struct {
		name    string
		request gate.Request
		verify  verify
		reason  gate.Reason
		outcome gate.Outcome
		// says is the challenge of a 401, or the Retry-After of a 503.
		says string
	}{
		{"a good token", withToken(), good, gate.Valid, gate.Allow, ""},
		{"a token that is not good", withToken(), notGood, gate.InvalidToken, gate.Unauthorized, described + `the token is not good or has ended; fetch a new one"`},

		{"no header", with(), unasked, gate.MissingToken, gate.Unauthorized, `Bearer realm="api"`},
		{"an empty header", with(""), unasked, gate.MissingToken, gate.Unauthorized, `Bearer realm="api"`},
		{"another scheme", with("Basic dTpw"), unasked, gate.MissingToken, gate.Unauthorized, `Bearer realm="api"`},
		{"another scheme that mentions Bearer", with("Basic x Bearer y"), unasked, gate.MissingToken, gate.Unauthorized, `Bearer realm="api"`},
		{"a scheme that begins alike", with("Bearerish abc"), unasked, gate.MissingToken, gate.Unauthorized, `Bearer realm="api"`},

		{"a token in the URL", gate.Request{Target: "/x?access_token=" + canary}, unasked, gate.TokenInURL, gate.Unauthorized, described + `the token is in the URL; send it in the Authorization header"`},

		{"the scheme alone", with("Bearer"), unasked, malformed, gate.Unauthorized, described + `there is no token after the word Bearer"`},
		{"the scheme and spaces", with("Bearer  "), unasked, malformed, gate.Unauthorized, described + `there is no token after the word Bearer"`},
		{"a tab after the scheme", with("Bearer\tabc"), unasked, malformed, gate.Unauthorized, described + `the word Bearer and the token are to be separated by spaces alone"`},
		{"quotes", with(`Bearer "abc"`), unasked, malformed, gate.Unauthorized, described + `the token is in quotes; send it without them"`},
		{"two words", with("Bearer abc def"), unasked, malformed, gate.Unauthorized, described + `something follows the token"`},
		{"a byte over 0x7f", with("Bearer ab\xff"), unasked, malformed, gate.Unauthorized, described + `the token has a character that a bearer token cannot have"`},
		{"padding in the middle", with("Bearer a=b"), unasked, malformed, gate.Unauthorized, described + `the token has an equals sign that is not at its end"`},
		{"a token that is too long", with("Bearer " + strings.Repeat("x", bearer.DefaultMaxTokenBytes+1)), unasked, malformed, gate.Unauthorized, described + `the token is too long"`},

		{"two headers", with("Bearer "+canary, "Bearer "+canary), unasked, multiple, gate.Unauthorized, described + `the request has more than one Authorization header"`},
		{"two headers, one empty", with("", "Bearer "+canary), unasked, multiple, gate.Unauthorized, described + `the request has more than one Authorization header"`},
		{"two credentials joined", with("Bearer one,Bearer two"), unasked, multiple, gate.Unauthorized, described + `the Authorization header holds more than one credential"`},

		{"no answer", withToken(), noAnswer(0), gate.VerifierUnavailable, gate.Unavailable, "5"},
		{"no answer, and a time below the least", withToken(), noAnswer(time.Second), gate.VerifierUnavailable, gate.Unavailable, "5"},
		{"no answer, and a time before now", withToken(), noAnswer(-time.Hour), gate.VerifierUnavailable, gate.Unavailable, "5"},
		{"no answer, and the least time", withToken(), noAnswer(5 * time.Second), gate.VerifierUnavailable, gate.Unavailable, "5"},
		{"no answer, and a part of a second more", withToken(), noAnswer(5*time.Second + 1), gate.VerifierUnavailable, gate.Unavailable, "6"},
		{"no answer, and a time", withToken(), noAnswer(42 * time.Second), gate.VerifierUnavailable, gate.Unavailable, "42"},
		{"no answer, and the longest time", withToken(), noAnswer(5 * time.Minute), gate.VerifierUnavailable, gate.Unavailable, "300"},
		{"no answer, and a time beyond the longest", withToken(), noAnswer(24 * time.Hour), gate.VerifierUnavailable, gate.Unavailable, "300"},
		{"no answer, and the longest time there is", withToken(), noAnswer(1<<63 - 1), gate.VerifierUnavailable, gate.Unavailable, "300"},
		{
			"no answer, wrapped", withToken(),
			says(verifier.Verdict{}, fmt.Errorf("while asking: %w", &verifier.NoAnswer{RetryAfter: time.Minute})),
			gate.VerifierUnavailable, gate.Unavailable, "60",
		},
		{
			"an endpoint with too much to do", withToken(),
			says(verifier.Verdict{}, &verifier.NoAnswer{Verifier: "crm", Problem: "too many wait", Overloaded: true}),
			gate.Overloaded, gate.Unavailable, "5",
		},
		{
			"an endpoint with too much to do, and a time", withToken(),
			says(verifier.Verdict{}, &verifier.NoAnswer{Overloaded: true, RetryAfter: 7 * time.Second}),
			gate.Overloaded, gate.Unavailable, "7",
		},
		{"a verifier that is closed", withToken(), says(verifier.Verdict{}, verifier.ErrClosed), gate.VerifierUnavailable, gate.Unavailable, "5"},
		{"an error nobody knows", withToken(), says(verifier.Verdict{}, io.ErrUnexpectedEOF), gate.VerifierUnavailable, gate.Unavailable, "5"},
		{"an error beside a yes", withToken(), says(verifier.Verdict{Valid: true}, io.EOF), gate.VerifierUnavailable, gate.Unavailable, "5"},
		{"an edge that gave up", withToken(), says(verifier.Verdict{}, context.Canceled), gate.VerifierUnavailable, gate.Unavailable, "5"},
		{"a call that panicked", withToken(), says(verifier.Verdict{}, verifier.Recovered("x", nil)), gate.InternalError, gate.Unavailable, "5"},
		{
			"a panic", withToken(),
			verify(func(context.Context, bearer.Token) (verifier.Verdict, error) { panic("x") }),
			gate.InternalError, gate.Unavailable, "5",
		},
	}
	seen := map[gate.Reason]bool{}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := newGate(t, test.verify)
			d := g.Decide(t.Context(), test.request)
			seen[d.Reason] = true
			if d.Reason != test.reason || d.Outcome() != test.outcome {
				t.Fatalf("decided %v: %v, want %v: %v", d.Outcome(), d.Reason, test.outcome, test.reason)
			}
			rest := []gate.Header{
				{Name: "Content-Type", Value: "application/json"},
				{Name: "Cache-Control", Value: "no-store"},
				{Name: "X-Bearergate-Reason", Value: test.reason.String()},
			}
			var want gate.Reply
			switch test.outcome {
			case gate.Allow:
				want = gate.Reply{Status: 200}
			case gate.Unauthorized:
				want = gate.Reply{
					Status: 401,
					Header: append([]gate.Header{{Name: "WWW-Authenticate", Value: test.says}}, rest...),
					Body:   []byte(`{"error":"missing or invalid auth token"}`),
				}
			case gate.Forbidden, gate.Refused: // TestEachPolicyDecidesInItsOwnWay
			case gate.Unavailable:
				want = gate.Reply{
					Status: 503,
					Header: append([]gate.Header{{Name: "Retry-After", Value: test.says}}, rest...),
					Body:   []byte(`{"error":"the token could not be checked, try again later"}`),
				}
			}
			if diff := cmp.Diff(&want, g.Reply(&d)); diff != "" {
				t.Errorf("the reply differs (-want +got):\n%s", diff)
			}
			if len(g.decided) != 1 || g.decided[0].reason != test.reason {
				t.Errorf("told of %v, want one decision, %v", g.decided, test.reason)
			}
		})
	}
	// The others are those of policies and faces; their tests have the rows.
	for reason := range gate.InsufficientScope {
		if !seen[reason] {
			t.Errorf("no row leads to %v", reason)
		}
	}
}

// TestEveryFaultIsDescribed holds the challenge against the grammar of RFC 6750
// §3 for all that can be wrong with a header.
func TestEveryFaultIsDescribed(t *testing.T) {
	g := newGate(t, unasked)
	texts := map[string]bool{}
	for reason, reply := range g.Replies() {
		if reason.Outcome() != gate.Unauthorized {
			continue
		}
		challenge := headerOf(t, reply, "WWW-Authenticate")
		texts[challenge] = true
		rest, ok := strings.CutPrefix(challenge, `Bearer realm="api", error="invalid_token"`)
		if ok == (reason == gate.MissingToken) {
			t.Errorf("%v: the challenge is %s", reason, challenge)
		}
		description, described := strings.CutPrefix(rest, `, error_description="`)
		description, closed := strings.CutSuffix(description, `"`)
		if described && (!closed || description == "" || strings.ContainsFunc(description, func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' })) {
			t.Errorf("%v: RFC 6750 does not allow the error_description %q", reason, description)
		}
	}
	for _, fault := range bearer.Faults() {
		if errors.Is(fault, bearer.ErrMissing) {
			continue
		}
		if !texts[`Bearer realm="api", error="invalid_token", error_description="`+fault.Error()+`"`] {
			t.Errorf("no challenge says that %v", fault)
		}
	}
}

// headerOf returns the value of a header of which there must be one line.
func headerOf(t *testing.T, r *gate.Reply, name string) string {
	t.Helper()
	var values []string
	for _, h := range r.Header {
		if h.Name == name {
			values = append(values, h.Value)
		}
	}
	if len(values) != 1 {
		t.Fatalf("%d lines %s in %v", len(values), name, r.Header)
	}
	return values[0]
}

// TestRepliesYieldsWhatReplyGives: a face makes its own form of these ahead, and
// finds them again by address.
func TestRepliesYieldsWhatReplyGives(t *testing.T) {
	answer := notGood
	g := newGate(t, verify(func(ctx context.Context, token bearer.Token) (verifier.Verdict, error) { return answer(ctx, token) }))
	ahead := map[*gate.Reply]gate.Reason{}
	for reason, reply := range g.Replies() {
		ahead[reply] = reason
	}
	decide := func(r gate.Request) {
		t.Helper()
		d := g.Decide(t.Context(), r)
		if reason, ok := ahead[g.Reply(&d)]; !ok || reason != d.Reason {
			t.Errorf("the reply for %v stands ahead under %v (%t)", d.Reason, reason, ok)
		}
	}
	for _, value := range []string{"", "Basic x", "Bearer", "Bearer\tx", `Bearer "x"`, "Bearer x y", "Bearer x!", "Bearer x=y", "Bearer a,b"} {
		decide(with(value))
	}
	decide(with("Bearer a", "Bearer b"))
	decide(gate.Request{Target: "?access_token"})
	for _, v := range []verify{good, notGood, says(verifier.Verdict{}, io.EOF), says(verifier.Verdict{}, verifier.Recovered("", nil))} {
		answer = v
		decide(withToken())
	}
	for range g.Replies() {
		break // a face may stop early
	}
}

func TestDecisionTellsWhereTheVerdictComesFrom(t *testing.T) {
	until := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, valid := range []bool{true, false} {
		for source := range verifier.Source(verifier.Sources) {
			g := newGate(t, says(verifier.Verdict{Valid: valid, Source: source, Until: until}, nil))
			d := g.Decide(t.Context(), withToken())
			if d.Source != source {
				t.Errorf("valid %t: from %v, want from %v", valid, d.Source, source)
			}
			if want := []decided{{reason: d.Reason, source: source}}; !slices.Equal(g.decided, want) {
				t.Errorf("valid %t: told of %v, want %v", valid, g.decided, want)
			}
		}
	}
}

// TestZeroDecisionIsA503: what is let through is never let through by omission.
func TestZeroDecisionIsA503(t *testing.T) {
	g := newGate(t, unasked)
	for name, d := range map[string]gate.Decision{
		"the zero Decision":       {},
		"a reason nobody knows":   {Reason: gate.Reasons},
		"the last reason of all":  {Reason: 255},
		"one with a time of wait": {RetryAfter: time.Hour},
	} {
		if d.Outcome() != gate.Unavailable || g.Reply(&d).Status != 503 {
			t.Errorf("%s: %v, status %d", name, d.Outcome(), g.Reply(&d).Status)
		}
	}
	var r gate.Reason
	var o gate.Outcome
	if r != gate.InternalError || o != gate.Unavailable || r.Outcome() != gate.Unavailable {
		t.Errorf("the zero Reason is %v, the zero Outcome %v", r, o)
	}
}

// TestVerifierGetsTheTokenAndTheContext: the gate passes on what it was given.
func TestVerifierGetsTheTokenAndTheContext(t *testing.T) {
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, "the edge's")
	g := newGate(t, verify(func(ctx context.Context, token bearer.Token) (verifier.Verdict, error) {
		return verifier.Verdict{Valid: token.Reveal() == canary && ctx.Value(key{}) == "the edge's"}, nil
	}))
	if d := g.Decide(ctx, withToken()); d.Reason != gate.Valid {
		t.Errorf("decided %v", d.Reason)
	}
}

func TestHeaderWinsOverQuery(t *testing.T) {
	const target = "/orders?access_token=" + canary
	for _, test := range []struct {
		name   string
		values []string
		verify verify
		want   gate.Reason
	}{
		{"a good token", []string{"Bearer " + canary}, good, gate.Valid},
		{"a token that is not good", []string{"Bearer " + canary}, notGood, gate.InvalidToken},
		{"a malformed one", []string{"Bearer a b"}, unasked, gate.MalformedToken},
		{"two", []string{"Bearer a", "Bearer b"}, unasked, gate.MultipleTokens},
		{"an empty header", []string{""}, unasked, gate.TokenInURL},
		{"another scheme", []string{"Basic dTpw"}, unasked, gate.TokenInURL},
		{"none", nil, unasked, gate.TokenInURL},
	} {
		g := newGate(t, test.verify)
		if d := g.Decide(t.Context(), gate.Request{Authorization: test.values, Target: target}); d.Reason != test.want {
			t.Errorf("%s: decided %v, want %v", test.name, d.Reason, test.want)
		}
	}
}

// TestPanicIsA503 has a row for each kind of value that a panic can have.
func TestPanicIsA503(t *testing.T) {
	for _, test := range []struct {
		name   string
		panics func(secret string)
		kind   string
	}{
		{"a string", func(secret string) { panic(secret) }, "panic: string"},
		{"an error", func(secret string) { panic(errors.New(secret)) }, "panic: *errors.errorString"},
		{"a wrapped error", func(secret string) { panic(fmt.Errorf("%s: %w", secret, io.EOF)) }, "panic: *fmt.wrapError"},
		{"bytes", func(secret string) { panic([]byte(secret)) }, "panic: []uint8"},
		{"nil", func(secret string) { panic(context.Background().Value(secret)) }, "panic: " + (&runtime.PanicNilError{}).Error()},
		{"an index out of range", func(secret string) {
			values := []byte(secret)
			_ = values[strings.LastIndex(secret, "=")+1]
		}, fmt.Sprintf("panic: runtime error: index out of range [%d] with length %[1]d", len(canary))},
		{"a wrong type", func(secret string) {
			var value any = secret
			_ = value.(int)
		}, "panic: interface conversion: interface {} is string, not int"},
		{"a nil pointer", func(secret string) {
			parsers := map[string]*bearer.Parser{}
			_, _ = parsers[secret].ParseToken(secret)
		}, "panic: runtime error: invalid memory address or nil pointer dereference"},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGate(t, verify(func(_ context.Context, token bearer.Token) (verifier.Verdict, error) {
				test.panics(token.Reveal())
				return verifier.Verdict{Valid: true}, nil
			}))
			d := g.Decide(t.Context(), withToken())
			if d.Reason != gate.InternalError || g.Reply(&d).Status != 503 {
				t.Errorf("decided %v, status %d", d.Reason, g.Reply(&d).Status)
			}
			if want := []decided{{reason: gate.InternalError}}; !slices.Equal(g.decided, want) {
				t.Errorf("told of %v, want %v", g.decided, want)
			}
			if len(g.panics) != 1 || g.panics[0].Error() != test.kind || !strings.Contains(string(g.panics[0].Stack), "TestPanicIsA503") {
				t.Errorf("told of %v, want one panic, %q, with its stack", g.panics, test.kind)
			}
			line := g.logs.last(t)
			if len(g.logs.lines(t)) != 1 || line["level"] != "ERROR" || line["reason"] != "internal_error" || line["detail"] != test.kind {
				t.Errorf("the log says\n%s", g.logs.text())
			}
			if strings.Contains(g.logs.text(), canary) || strings.Contains(string(g.panics[0].Stack), canary) {
				t.Error("the panic's value is shown")
			}
		})
	}
}

// TestPanicOfACallIsCountedOnce: the cache has counted it already, and many may
// have waited for that call.
func TestPanicOfACallIsCountedOnce(t *testing.T) {
	g := newGate(t, says(verifier.Verdict{}, verifier.Recovered(canary, nil)))
	d := g.Decide(t.Context(), withToken())
	if d.Reason != gate.InternalError || len(g.panics) != 0 || len(g.decided) != 1 {
		t.Errorf("decided %v, told of %d panics and %d decisions", d.Reason, len(g.panics), len(g.decided))
	}
	if line := g.logs.last(t); line["level"] != "ERROR" || line["detail"] != "panic: string" {
		t.Errorf("the log says\n%s", g.logs.text())
	}
}

// TestGoexitIsNoPanic: the goroutine of the request ends, as it was told to, and
// nothing was decided.
func TestGoexitIsNoPanic(t *testing.T) {
	g := newGate(t, verify(func(context.Context, bearer.Token) (verifier.Verdict, error) {
		runtime.Goexit()
		return verifier.Verdict{Valid: true}, nil
	}))
	ended := make(chan struct{})
	returned := false
	go func() {
		defer close(ended)
		g.Decide(t.Context(), withToken())
		returned = true
	}()
	<-ended
	if returned || len(g.decided) != 0 || len(g.panics) != 0 || g.logs.text() != "" {
		t.Errorf("returned %t, told of %v and %v, log %q", returned, g.decided, g.panics, g.logs.text())
	}
}

// TestPanicOfTheTellersIsA503: who is told of a decision must not let it through
// by failing, nor end the process, whatever the order.
func TestPanicOfTheTellersIsA503(t *testing.T) {
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]gate.Options{
		"Decided":              {Decided: func(gate.Tally) { panic("always") }},
		"Decided, for a Valid": {Decided: func(c gate.Tally) { _ = [1]int{}[c.Reason] }},
		"Panicked and Decided": {
			Decided:  func(gate.Tally) { panic("always") },
			Panicked: func(*verifier.Panic) { panic("too") },
		},
	} {
		o.Parser, o.Verifier, o.Realm = parser, good, "api"
		g, err := gate.New(o)
		if err != nil {
			t.Fatal(err)
		}
		if d := g.Decide(t.Context(), withToken()); d.Outcome() != gate.Unavailable {
			t.Errorf("%s: decided %v", name, d.Reason)
		}
	}
}

// TestCanaryIsNeverShown sends one secret by every way, and searches all that
// the gate says for it.
func TestCanaryIsNeverShown(t *testing.T) {
	requests := map[string]gate.Request{
		"good":             withToken(),
		"joined":           with("Bearer " + canary + ",Bearer " + canary),
		"twice":            with("Bearer "+canary, canary),
		"quoted":           with(`Bearer "` + canary + `"`),
		"two words":        with("Bearer " + canary + " " + canary),
		"a wrong byte":     with("Bearer " + canary + "!"),
		"another scheme":   with(canary + " " + canary),
		"too long":         with("Bearer " + canary + strings.Repeat("x", bearer.DefaultMaxTokenBytes)),
		"in the URL":       {Target: "/" + canary + "?access_token=" + canary},
		"in the URL's":     {Target: "/x?" + canary + "&access_token&" + canary},
		"in both":          {Authorization: []string{"Bearer " + canary}, Target: "?access_token=" + canary},
		"a missing header": {Target: "/" + canary},
	}
	answers := map[string]verify{
		"good": good, "not good": notGood,
		"no answer": says(verifier.Verdict{}, &verifier.NoAnswer{Verifier: "crm", Problem: "it is down", Cause: io.EOF}),
		"closed":    says(verifier.Verdict{}, verifier.ErrClosed),
		"a panic": func(_ context.Context, token bearer.Token) (verifier.Verdict, error) {
			panic(token)
		},
		"a panic of text": func(_ context.Context, token bearer.Token) (verifier.Verdict, error) {
			panic("Bearer " + token.Reveal())
		},
	}
	for name, request := range requests {
		for answer, v := range answers {
			g := newGate(t, v)
			d := g.Decide(t.Context(), request)
			all := fmt.Sprintf("%s %+v %#v %+v %#v", g.logs.text(), d, d, g.Reply(&d), g.Reply(&d))
			all += string(g.Reply(&d).Body)
			for _, p := range g.panics {
				all += p.Error() + p.Kind + string(p.Stack)
			}
			if strings.Contains(all, "canary") {
				t.Errorf("%s, %s: the token is shown in %s", name, answer, all)
			}
			if d.Outcome() != gate.Allow && len(g.logs.lines(t)) != 1 {
				t.Errorf("%s, %s: a refusal left %d lines", name, answer, len(g.logs.lines(t)))
			}
		}
	}
}
