package config_test

import (
	"errors"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/bearergate/bearergate/config"
	"github.com/bearergate/bearergate/policy"
)

// TestTheExamplesOfThePoliciesPageAreTrue loads every example of docs/policies.md,
// and asks it about the requests of the table that follows.
func TestTheExamplesOfThePoliciesPageAreTrue(t *testing.T) {
	page, err := os.ReadFile("../docs/policies.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := strings.Split(string(page), "```yaml\n")[1:]
	if len(examples) < 3 {
		t.Fatalf("found %d examples", len(examples))
	}
	row := regexp.MustCompile("(?m)^\\| `([A-Z]+) (https://\\S+)` \\| (.*) \\|$")
	for _, example := range examples {
		text, after, _ := strings.Cut(example, "```\n")
		after, _, _ = strings.Cut(after, "```yaml\n")
		policies, err := config.NewPolicies(parse(t, text))
		if err != nil {
			t.Fatal(err)
		}
		rows := row.FindAllStringSubmatch(after, -1)
		if len(rows) == 0 {
			t.Errorf("nothing is said about\n%s", text)
		}
		for _, cells := range rows {
			u, err := url.Parse(cells[2])
			if err != nil {
				t.Fatal(err)
			}
			facts := policy.Facts{Method: cells[1], Host: u.Host, Path: u.EscapedPath()}
			i, err := policies.Router.Choose(&facts)
			got := policies.Router.Names()[i]
			if errors.Is(err, policy.ErrPath) {
				got = "400, bad_path"
			} else if err != nil {
				t.Errorf("%s %s: %v", cells[1], cells[2], err)
			}
			if got != cells[3] {
				t.Errorf("%s %s falls under %s, the page says %s", cells[1], cells[2], got, cells[3])
			}
		}
	}
}
