package config_test

import (
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/bearergate/bearergate/config"
	"github.com/bearergate/bearergate/policy"
)

// example is a configuration in a page.
type example struct{ file, after string }

// examplesOf gives the configurations in a page, of which there are so many.
func examplesOf(t *testing.T, page string, count int) []example {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var examples []example
	for _, part := range strings.Split(string(text), "```yaml\n")[1:] {
		file, after, found := strings.Cut(part, "```\n")
		if !found {
			t.Errorf("%s has an example without an end:\n%s", page, part)
		}
		examples = append(examples, example{file, after})
	}
	if len(examples) != count {
		t.Errorf("%s has %d examples, want %d", page, len(examples), count)
	}
	return examples
}

// TestTheExamplesOfThePagesAboutPoliciesAreTrue loads every example of these pages,
// and asks it about the requests of the table that follows.
func TestTheExamplesOfThePagesAboutPoliciesAreTrue(t *testing.T) {
	row := regexp.MustCompile("(?m)^\\| `([A-Z]+) (https://\\S+)`(?:, named `(\\S+)`)?(?:, at `(\\S+)`)? \\| (.*) \\|$")
	for page, count := range map[string]int{"policies.md": 6, "migrate.md": 4} {
		for _, example := range examplesOf(t, "../docs/"+page, count) {
			c := parse(t, example.file)
			rows := row.FindAllStringSubmatch(example.after, -1)
			if len(rows) == 0 {
				t.Errorf("%s says nothing about\n%s", page, example.file)
			}
			for _, cells := range rows {
				u, err := url.Parse(cells[2])
				if err != nil {
					t.Fatal(err)
				}
				facts := policy.Facts{Method: cells[1], Host: u.Host, Path: u.EscapedPath(), Policy: cells[3], Named: cells[3] != ""}
				e, err := config.Explain(c, cells[4], facts)
				if err != nil {
					t.Fatal(err)
				}
				got := e.Policy
				switch {
				case e.Refused != nil:
					got = strconv.Itoa(e.Reason.Outcome().Status()) + ", " + e.Reason.String()
				case !e.Shadow.IsZero():
					got += ", in shadow"
				}
				if got != cells[5] {
					t.Errorf("%s %s falls under %s, %s says %s", cells[1], cells[2], got, page, cells[5])
				}
				if cells[4] != "" {
					continue // TestAListenerServesThePoliciesThatItNames
				}
				// What people are told is what requests meet.
				policies, err := config.NewPolicies(c)
				if err != nil {
					t.Fatal(err)
				}
				index, err := policies.Router.Choose(&facts)
				if (err != nil) != (e.Refused != nil) || err == nil && policies.Router.Names()[index] != e.Policy {
					t.Errorf("%s %s: the router says %d, %v; explained is %q, %v", cells[1], cells[2], index, err, e.Policy, e.Refused)
				}
			}
		}
	}
}

// TestTheWayFromPHPIsWatchedByWhatThereIs holds the metrics, labels and reasons of
// docs/migrate.md against docs/metrics.md and docs/operations.md, which other tests
// hold against the gateway.
func TestTheWayFromPHPIsWatchedByWhatThereIs(t *testing.T) {
	page, err := os.ReadFile("../docs/migrate.md")
	if err != nil {
		t.Fatal(err)
	}
	operations, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	listed, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	metrics := regexp.MustCompile(`bearergate_[a-z_]+_(?:total|shadow)(?:\{([^}]*)\})?`).FindAllStringSubmatch(string(page), -1)
	if len(metrics) < 5 {
		t.Fatalf("found %d metrics", len(metrics))
	}
	var words []string
	for _, metric := range metrics {
		name, _, _ := strings.Cut(metric[0], "{")
		line := regexp.MustCompile("(?m)^\\| `" + name + "` \\|[^|]*\\|([^|]*)\\|").FindStringSubmatch(string(listed))
		if line == nil {
			t.Errorf("there is no metric %s", name)
			continue
		}
		for _, label := range regexp.MustCompile(`([a-z]+)=~?"([^"]*)"`).FindAllStringSubmatch(metric[1], -1) {
			if !strings.Contains(line[1], "`"+label[1]+"`") {
				t.Errorf("%s has no label %s", name, label[1])
			}
			if label[1] == "reason" {
				words = append(words, strings.Split(label[2], "|")...)
			}
		}
	}
	_, table, _ := strings.Cut(string(page), "| reason with `enforced=\"false\"` |")
	table, _, _ = strings.Cut(table, "\n\n")
	for _, cell := range regexp.MustCompile(`(?m)^\| ([^|]*) \|`).FindAllStringSubmatch(table, -1) {
		for _, word := range regexp.MustCompile("`([a-z_]+)`").FindAllStringSubmatch(cell[1], -1) {
			words = append(words, word[1])
		}
	}
	slices.Sort(words)
	words = slices.Compact(words)
	if len(words) != 14 {
		t.Errorf("speaks of %d reasons: %q", len(words), words)
	}
	for _, word := range words {
		if !strings.Contains(string(operations), "\n| `"+word+"` |") {
			t.Errorf("there is no reason %s", word)
		}
	}
}
