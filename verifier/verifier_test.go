package verifier_test

import (
	"errors"
	"io"
	"testing"

	"github.com/bearergate/bearergate/verifier"
)

// TestNames: they stand in metrics and logs, where dashboards look for them.
func TestNames(t *testing.T) {
	for got, want := range map[string]string{
		verifier.FromEndpoint.String(): "endpoint",
		verifier.FromCache.String():    "cache",
		verifier.FromStale.String():    "stale",
		verifier.FromToken.String():    "token",
		verifier.FromDenial.String():   "denied",
		verifier.Source(200).String():  "source(200)",
		verifier.Valid.String():        "valid",
		verifier.Invalid.String():      "invalid",
		verifier.Unanswered.String():   "no_answer",
		verifier.Outcome(200).String(): "outcome(200)",
		verifier.ErrClosed.Error():     "the verifier is closed",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for s := range verifier.Source(verifier.Sources) {
		if got := s.String(); got[len(got)-1] == ')' {
			t.Errorf("a source has no name: %s", got)
		}
	}
	for o := range verifier.Outcome(verifier.Outcomes) {
		if got := o.String(); got[len(got)-1] == ')' {
			t.Errorf("an outcome has no name: %s", got)
		}
	}
}

func TestZeroVerdictIsARefusal(t *testing.T) {
	if v := (verifier.Verdict{}); v.Valid || !v.Until.IsZero() {
		t.Errorf("it is %+v", v)
	}
}

func TestNoAnswerSaysWhoAndWhy(t *testing.T) {
	none := &verifier.NoAnswer{Verifier: "crm", Problem: "nobody listens"}
	if got := none.Error(); got != "verifier crm: nobody listens" || errors.Unwrap(none) != nil {
		t.Errorf("it is %s", got)
	}
	none.Cause = io.ErrUnexpectedEOF
	if got := none.Error(); got != "verifier crm: nobody listens: unexpected EOF" || !errors.Is(none, io.ErrUnexpectedEOF) {
		t.Errorf("it is %s", got)
	}
}
