package gate_test

import (
	"testing"

	"github.com/bearergate/bearergate/gate"
)

// words are what operators write into alerts and dashboards: none may change.
var words = map[gate.Reason]string{
	gate.InternalError:       "internal_error",
	gate.Valid:               "valid",
	gate.MissingToken:        "missing_token",
	gate.MalformedToken:      "malformed_token",
	gate.MultipleTokens:      "multiple_tokens",
	gate.TokenInURL:          "token_in_url",
	gate.InvalidToken:        "invalid_token",
	gate.VerifierUnavailable: "verifier_unavailable",
}

func TestEveryReasonHasItsWord(t *testing.T) {
	if len(words) != gate.Reasons {
		t.Errorf("%d words for %d reasons", len(words), gate.Reasons)
	}
	seen := map[string]gate.Reason{}
	for reason := range gate.Reason(gate.Reasons) {
		word := reason.String()
		if word == "" || word != words[reason] {
			t.Errorf("reason %d is %q, want %q", uint8(reason), word, words[reason])
		}
		if other, ok := seen[word]; ok {
			t.Errorf("%d and %d are both %q", uint8(other), uint8(reason), word)
		}
		seen[word] = reason
	}
	if got := gate.Reason(gate.Reasons).String(); got != "reason(8)" {
		t.Errorf("a reason that is none is %q", got)
	}
}

func TestEveryOutcomeHasItsWord(t *testing.T) {
	for outcome, want := range map[gate.Outcome]string{
		gate.Unavailable: "unavailable", gate.Unauthorized: "unauthorized", gate.Allow: "allow", 9: "outcome(9)",
	} {
		if got := outcome.String(); got != want {
			t.Errorf("outcome %d is %q, want %q", uint8(outcome), got, want)
		}
	}
}

// TestOnlyAGoodVerdictAllows: one reason allows, and no other ever should.
func TestOnlyAGoodVerdictAllows(t *testing.T) {
	for reason := range gate.Reason(gate.Reasons) {
		if allowed := reason.Outcome() == gate.Allow; allowed != (reason == gate.Valid) {
			t.Errorf("%v: allowed is %t", reason, allowed)
		}
	}
}
