package gate_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/policy"
	"github.com/bearergate/bearergate/verifier"
)

func TestADecisionAsideIsTheSameAndIsToldNobody(t *testing.T) {
	noAnswer := says(verifier.Verdict{}, &verifier.NoAnswer{Verifier: "crm", Problem: "nobody listens", RetryAfter: 42 * time.Second})
	for name, test := range map[string]struct {
		verify  verify
		request gate.Request
		detail  string
	}{
		"good":         {good, withToken(), ""},
		"not good":     {notGood, withToken(), ""},
		"no answer":    {noAnswer, withToken(), "verifier crm: nobody listens"},
		"missing":      {unasked, with(), "the request has no Authorization header"},
		"malformed":    {unasked, with("Bearer a b"), "something follows the token"},
		"not for this": {says(verifier.Verdict{Valid: true, Claims: claimsOf(t, `{"scope":"read"}`)}, nil), withToken(), "it has not all scopes that are required: write"},
	} {
		t.Run(name, func(t *testing.T) {
			events := new(gate.Events)
			sampled := 0
			g := newGate(t, test.verify, func(o *gate.Options) {
				o.Events = events
				o.Sampled = func(*gate.Event) { sampled++ }
				if name == "not for this" {
					o.Requirement = requires(t, policy.Rules{AllScopes: []string{"write"}})
				}
			})
			w := watch(t, events, gate.Filter{})
			a := g.DecideAside(t.Context(), test.request, nil)
			if len(g.decided) != 0 || g.logs.text() != "" || len(told(w)) != 0 || sampled != 0 {
				t.Errorf("it was told: %v, %s", g.decided, g.logs.text())
			}
			d := g.Decide(t.Context(), test.request)
			r := g.Reply(&d)
			if a.Reason != d.Reason || a.Source != d.Source || a.Reply.Status != r.Status || !bytes.Equal(a.Reply.Body, r.Body) || !slices.Equal(a.Reply.Header, r.Header) || a.Policy != "default" {
				t.Errorf("aside it is %+v with %+v, else %+v with %+v", a.Decision, a.Reply, d, r)
			}
			if test.detail != "" && a.Detail != test.detail && name != "not for this" || name == "not for this" && a.Detail == "" {
				t.Errorf("the detail is %q, want %q", a.Detail, test.detail)
			}
		})
	}
}

// TestADecisionAsideAsksOthers, and changes nothing about who is asked else.
func TestADecisionAsideAsksOthers(t *testing.T) {
	asked := 0
	g := newGate(t, verify(func(context.Context, bearer.Token) (verifier.Verdict, error) {
		asked++
		return verifier.Verdict{Valid: true}, nil
	}))
	a := g.DecideAside(t.Context(), withToken(), func(verifier.Verifier) verifier.Verifier { return notGood })
	if a.Reason != gate.InvalidToken || asked != 0 {
		t.Errorf("aside it is %v, asked %d times", a.Reason, asked)
	}
	if d := g.Decide(t.Context(), withToken()); d.Reason != gate.Valid || asked != 1 {
		t.Errorf("then it is %v, asked %d times", d.Reason, asked)
	}
}

// TestADecisionAsideAsksOthersThanTheMemory, which a request would ask in place.
func TestADecisionAsideAsksOthersThanTheMemory(t *testing.T) {
	g, _ := newCached(t)
	a := g.DecideAside(t.Context(), withToken(), func(verifier.Verifier) verifier.Verifier { return notGood })
	if a.Reason != gate.InvalidToken {
		t.Errorf("aside it is %v", a.Reason)
	}
}

// TestThereIsAdviceForEachRefusal in both languages, and none else; a partner is never
// told to do what does not help.
func TestThereIsAdviceForEachRefusal(t *testing.T) {
	for reason := range gate.Reason(gate.Reasons) {
		a := reason.Advice()
		refused := reason.Outcome() != gate.Allow
		if (a.English != "") != refused || (a.German != "") != refused || refused && a.English == a.German {
			t.Errorf("%v: %+v", reason, a)
		}
		if reason.Outcome() == gate.Unavailable && (!strings.Contains(a.English, "Retry-After") || !strings.Contains(a.German, "Retry-After")) {
			t.Errorf("%v: does not say to wait: %+v", reason, a)
		}
	}
	if a := gate.Reason(200).Advice(); a.English != "" {
		t.Errorf("of no reason: %+v", a)
	}
}
