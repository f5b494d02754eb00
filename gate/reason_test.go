package gate_test

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bearergate/bearergate/gate"
)

// TestReasonsAreThoseOfTheDocs: operators write these words into alerts and
// dashboards, so the page that lists them decides.
func TestReasonsAreThoseOfTheDocs(t *testing.T) {
	page, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(page), "| reason | callers get |")
	if !ok {
		t.Fatal("docs/operations.md has no table of the reasons")
	}
	outcomes := map[string]gate.Outcome{"401": gate.Unauthorized, "503": gate.Unavailable, "403": gate.Forbidden, "400": gate.Refused, "the API's reply": gate.Allow}
	listed := map[string]gate.Outcome{}
	row := regexp.MustCompile("^\\| `([a-z_]+)` \\| ([^|]+) \\|")
	for line := range strings.Lines(table) {
		if line == "\n" && len(listed) > 0 {
			break
		}
		if cells := row.FindStringSubmatch(line); cells != nil {
			outcome, ok := outcomes[cells[2]]
			if !ok {
				t.Errorf("%s: callers get %s, which is no outcome", cells[1], cells[2])
			}
			listed[cells[1]] = outcome
		}
	}
	made := map[string]gate.Outcome{}
	for reason := range gate.Reason(gate.Reasons) {
		if _, twice := made[reason.String()]; twice {
			t.Errorf("two reasons are %v", reason)
		}
		made[reason.String()] = reason.Outcome()
	}
	if diff := cmp.Diff(listed, made); diff != "" {
		t.Errorf("docs/operations.md lists other reasons than there are (-listed +there):\n%s", diff)
	}
	for _, reason := range []gate.Reason{gate.Reasons, 255} {
		if want := fmt.Sprintf("reason(%d)", uint8(reason)); reason.String() != want {
			t.Errorf("a reason that is none is %v, want %s", reason, want)
		}
	}
}

func TestEveryOutcomeHasItsWord(t *testing.T) {
	for outcome, want := range map[gate.Outcome]string{
		gate.Unavailable: "unavailable", gate.Unauthorized: "unauthorized", gate.Allow: "allow",
		gate.Forbidden: "forbidden", gate.Refused: "refused", 9: "outcome(9)",
	} {
		if got := outcome.String(); got != want {
			t.Errorf("outcome %d is %q, want %q", uint8(outcome), got, want)
		}
	}
}

// TestOnlyAGoodVerdictAllows: one reason allows, but for the two of policies that ask
// for no token, and no other ever should.
func TestOnlyAGoodVerdictAllows(t *testing.T) {
	for reason := range gate.Reason(gate.Reasons) {
		if allowed := reason.Outcome() == gate.Allow; allowed != (reason == gate.Valid || reason == gate.PublicRoute || reason == gate.Preflight) {
			t.Errorf("%v: allowed is %t", reason, allowed)
		}
	}
}
