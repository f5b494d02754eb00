package deploy

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/bearergate/bearergate/gate"
)

const (
	rulesFile     = "bearergate.rules.yml"
	ruleTestsFile = "bearergate.rules.test.yml"
)

// rules are what Prometheus reads of the rules' file.
type rules struct {
	Groups []struct {
		Name  string  `yaml:"name"`
		Rules []*rule `yaml:"rules"`
	} `yaml:"groups"`
}

type rule struct {
	Record      string            `yaml:"record,omitempty"`
	Alert       string            `yaml:"alert,omitempty"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for,omitempty"`
	Labels      map[string]string `yaml:"labels,omitempty"`
	Annotations map[string]string `yaml:"annotations,omitempty"`
}

// readRules reads the rules, and returns the alerts by their names besides.
func readRules(t *testing.T) (rules, map[string]*rule) {
	t.Helper()
	var all rules
	decode(t, filepath.Join("prometheus", rulesFile), &all)
	alerts := map[string]*rule{}
	for _, group := range all.Groups {
		for _, r := range group.Rules {
			if r.Alert == "" {
				continue
			}
			if alerts[r.Alert] != nil {
				t.Errorf("there are two alerts %s", r.Alert)
			}
			alerts[r.Alert] = r
		}
	}
	return all, alerts
}

func decode(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// promtool is Prometheus' own judge of configurations and rules: what PROMTOOL
// names, or what is installed.
func promtool(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, cmp.Or(os.Getenv("PROMTOOL"), "promtool"), args...).CombinedOutput()
	return string(out), err
}

// testRules has promtool run tests of rules, which lie in one folder.
func testRules(t *testing.T, dir string) (string, error) {
	t.Helper()
	return promtool(t.Context(), "test", "rules", filepath.Join(dir, ruleTestsFile))
}

func TestPrometheusUnderstandsItsFiles(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"prometheus.yml", rulesFile} {
		text, err := os.ReadFile(filepath.Join("prometheus", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "prometheus.yml")
	out, err := promtool(t.Context(), "check", "config", file)
	if err != nil && strings.Contains(out, "scrape_native_histograms not found") {
		// An older Prometheus: the file says which line to take out.
		text, _ := os.ReadFile(file)
		old := regexp.MustCompile(`(?m)^ *scrape_native_histograms: true\n`).ReplaceAll(text, nil)
		if err := os.WriteFile(file, old, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err = promtool(t.Context(), "check", "config", file)
	}
	if err != nil {
		t.Errorf("promtool check config: %v; make setup installs it\n%s", err, out)
	}
	if out, err := promtool(t.Context(), "check", "rules", filepath.Join(dir, rulesFile)); err != nil || strings.Contains(out, "duplicate") {
		t.Errorf("promtool check rules: %v\n%s", err, out)
	}
}

func TestAlertsFireWhenTheyShould(t *testing.T) {
	if out, err := testRules(t, "prometheus"); err != nil {
		t.Errorf("promtool test rules: %v; make setup installs it\n%s", err, out)
	}
}

// TestTheTestsOfAlertsNoticeWhenOneIsBroken breaks each alert, and has the tests that
// name it fail.
func TestTheTestsOfAlertsNoticeWhenOneIsBroken(t *testing.T) {
	var tests struct {
		RuleFiles []string         `yaml:"rule_files"`
		Interval  string           `yaml:"evaluation_interval"`
		Tests     []map[string]any `yaml:"tests"`
	}
	decode(t, filepath.Join("prometheus", ruleTestsFile), &tests)
	all := tests.Tests
	_, alerts := readRules(t)
	var running sync.WaitGroup
	defer running.Wait()
	turns := make(chan struct{}, 4)
	for _, name := range slices.Sorted(maps.Keys(alerts)) {
		tests.Tests = slices.DeleteFunc(slices.Clone(all), func(test map[string]any) bool {
			return !slices.ContainsFunc(test["alert_rule_test"].([]any), func(c any) bool { return c.(map[string]any)["alertname"] == name })
		})
		if len(tests.Tests) < 2 {
			t.Errorf("%s has %d tests, want one in which it fires, and one that comes near", name, len(tests.Tests))
			continue
		}
		text, err := yaml.Marshal(tests)
		if err != nil {
			t.Fatal(err)
		}
		breaks := map[string]func(*rule){
			"never fires":  func(r *rule) { r.Expr = "vector(1) > 2" },
			"always fires": func(r *rule) { r.Expr, r.For = "vector(1)", "" },
		}
		if alerts[name].For != "" {
			breaks["does not wait"] = func(r *rule) { r.For = "" }
		}
		for how, change := range breaks {
			broken, found := readRules(t)
			change(found[name])
			for i := range broken.Groups { // the others need not be computed
				broken.Groups[i].Rules = slices.DeleteFunc(broken.Groups[i].Rules, func(r *rule) bool { return r.Alert != "" && r.Alert != name })
			}
			dir := t.TempDir()
			changed, err := yaml.Marshal(broken)
			if err != nil {
				t.Fatal(err)
			}
			for file, text := range map[string][]byte{rulesFile: changed, ruleTestsFile: text} {
				if err := os.WriteFile(filepath.Join(dir, file), text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			running.Go(func() {
				turns <- struct{}{}
				defer func() { <-turns }()
				if out, err := testRules(t, dir); err == nil || !strings.Contains(out, "alertname: "+name) {
					t.Errorf("%s %s, and no test notices: %v\n%s", name, how, err, out)
				}
			})
		}
	}
}

const runbookURL = "https://github.com/bearergate/bearergate/blob/main/docs/runbooks/"

// TestAlertsHaveAPage: who is woken finds words, and a page that names the alert.
func TestAlertsHaveAPage(t *testing.T) {
	pages, err := filepath.Glob("../docs/runbooks/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("found %v, %v", pages, err)
	}
	named := map[string]bool{}
	index, err := os.ReadFile("../docs/runbooks/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, alerts := readRules(t)
	for name, alert := range alerts {
		if severity := alert.Labels["severity"]; severity != "critical" && severity != "warning" {
			t.Errorf("%s: severity %q", name, severity)
		}
		for _, what := range []string{"summary", "description"} {
			if alert.Annotations[what] == "" {
				t.Errorf("%s has no %s", name, what)
			}
		}
		page, found := strings.CutPrefix(alert.Annotations["runbook_url"], runbookURL)
		text, err := os.ReadFile("../docs/runbooks/" + page)
		if !found || err != nil {
			t.Errorf("%s: runbook_url: %v", name, err)
			continue
		}
		named[page] = true
		row := "| `" + name + "` | " + alert.Labels["severity"] + ": "
		if !strings.Contains(string(text), row) {
			t.Errorf("%s does not say %q", page, row)
		}
		if !regexp.MustCompile(`\(` + regexp.QuoteMeta(page) + `\) \|.*` + "`" + name + "`").Match(index) {
			t.Errorf("the list of the runbooks does not lead from %s to %s", name, page)
		}
	}
	for _, page := range pages {
		if name := filepath.Base(page); name != "README.md" && !named[name] {
			t.Errorf("no alert leads to %s", name)
		}
	}
}

// TestRulesKnowEveryReason: a new reason must be put among those for which callers
// get 503, or among the other refusals.
func TestRulesKnowEveryReason(t *testing.T) {
	var unavailable, refused []string
	for reason := range gate.Reason(gate.Reasons) {
		switch reason.Outcome() {
		case gate.Unavailable:
			unavailable = append(unavailable, reason.String())
		case gate.Allow:
		default:
			refused = append(refused, reason.String())
		}
	}
	all, _ := readRules(t)
	asked := regexp.MustCompile(`reason=~"([^"]*)"`)
	for _, group := range all.Groups {
		for _, r := range group.Rules {
			want := unavailable
			switch name := cmp.Or(r.Record, r.Alert); {
			case strings.Contains(name, "bearergate_refused"):
				want = refused
			case !strings.Contains(strings.ToLower(name), "unavailable"):
				continue
			}
			for _, found := range asked.FindAllStringSubmatch(r.Expr, -1) {
				got := strings.Split(found[1], "|")
				slices.Sort(got)
				slices.Sort(want)
				if !slices.Equal(got, want) {
					t.Errorf("%s asks for %v, want %v", cmp.Or(r.Record, r.Alert), got, want)
				}
			}
		}
	}
}

// TestRulesAskForMetricsThatThereAre holds the rules against docs/metrics.md.
func TestRulesAskForMetricsThatThereAre(t *testing.T) {
	all, _ := readRules(t)
	recorded := map[string]bool{}
	for _, group := range all.Groups {
		for _, r := range group.Rules {
			recorded[r.Record] = true
		}
	}
	for _, group := range all.Groups {
		for _, r := range group.Rules {
			for _, problem := range unknownMetrics(t, r.Expr, recorded) {
				t.Errorf("%s: %s", cmp.Or(r.Record, r.Alert), problem)
			}
		}
	}
}

var (
	inQuery   = regexp.MustCompile(`[a-z_:]*bearergate_[a-z0-9_:]*`)
	inMetrics = regexp.MustCompile("(?m)^\\| `(bearergate_[a-z_]+)` \\| (\\w+) ")
)

// unknownMetrics says which metrics of a query stand neither in docs/metrics.md nor
// among what rules record.
func unknownMetrics(t *testing.T, query string, recorded map[string]bool) (problems []string) {
	t.Helper()
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	maps.Copy(known, recorded)
	for _, row := range inMetrics.FindAllStringSubmatch(string(text), -1) {
		known[row[1]] = true
		if row[2] == "histogram" {
			known[row[1]+"_bucket"], known[row[1]+"_count"], known[row[1]+"_sum"] = true, true, true
		}
	}
	if len(known) < 20 {
		t.Fatalf("docs/metrics.md has no list of metrics that can be read here")
	}
	for _, name := range inQuery.FindAllString(query, -1) {
		if !known[name] {
			problems = append(problems, "there is no metric "+name)
		}
	}
	return problems
}
