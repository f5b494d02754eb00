package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// hurry is how many times faster than in earnest Prometheus waits, computes rates and
// fires in these tests: what the rules call five minutes are four seconds
// here.
const hurry = 75 / slowness

// scrapeEvery leaves some samples in the shortest window of the rules.
const scrapeEvery = slowness * 500 * time.Millisecond

// prometheus is a real one that runs the rules of deploy/prometheus.
type prometheus struct {
	*process
	address string
	native  bool // it keeps native histograms
}

// startPrometheus runs a Prometheus that scrapes the gateways, by job.
func (r *run) startPrometheus(t *testing.T, native bool, targets map[string]string) *prometheus {
	t.Helper()
	dir := r.folder(t)
	var config map[string]any
	decodeYAML(t, "../deploy/prometheus/prometheus.yml", &config)
	global := config["global"].(map[string]any)
	every := scrapeEvery
	if !native {
		every *= 2 // it is there for its queries, not for its alerts
	}
	for _, field := range []string{"scrape_interval", "scrape_timeout", "evaluation_interval"} {
		global[field] = fmt.Sprintf("%dms", every.Milliseconds())
	}
	global["scrape_native_histograms"] = native
	var jobs []any
	for job, target := range targets {
		jobs = append(jobs, map[string]any{"job_name": job, "static_configs": []any{map[string]any{"targets": []any{target}}}})
	}
	config["scrape_configs"] = jobs
	hurriedRules(t, filepath.Join(dir, "bearergate.rules.yml"))
	file := filepath.Join(dir, "prometheus.yml")
	writeYAML(t, file, config)

	p := &prometheus{address: r.ports.free(t), native: native}
	args := []string{
		"--config.file=" + file, "--storage.tsdb.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + p.address,
		"--enable-feature=exemplar-storage",
	}
	program := cmp.Or(os.Getenv("PROMETHEUS"), "prometheus")
	if out, err := exec.CommandContext(t.Context(), cmp.Or(os.Getenv("PROMTOOL"), "promtool"), "check", "config", file).CombinedOutput(); err != nil {
		if !strings.Contains(string(out), "scrape_native_histograms not found") {
			t.Fatalf("promtool check config: %v; make setup installs it\n%s", err, out)
		}
		// An older one, to which the file says what to do.
		delete(global, "scrape_native_histograms")
		writeYAML(t, file, config)
		if native {
			args[len(args)-1] += ",native-histograms"
		}
	}
	p.process = r.start(t, fmt.Sprintf("Prometheus, native histograms %t", native), func(ctx context.Context) (*exec.Cmd, error) {
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = patience
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		return cmd, nil
	})
	eventually(t, p.name+" answers", func() error {
		p.mustRun(t)
		_, err := get(t.Context(), "http://"+p.address+"/-/ready")
		return err
	})
	return p
}

func decodeYAML(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

func writeYAML(t *testing.T, file string, value any) {
	t.Helper()
	text, err := yaml.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// hurriedRules writes the rules with every duration divided, in expressions and in
// for. All else stays as it is.
func hurriedRules(t *testing.T, file string) {
	t.Helper()
	var rules struct {
		Groups []struct {
			Name  string           `yaml:"name"`
			Rules []map[string]any `yaml:"rules"`
		} `yaml:"groups"`
	}
	decodeYAML(t, "../deploy/prometheus/bearergate.rules.yml", &rules)
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			for _, field := range []string{"expr", "for"} {
				if text, ok := rule[field].(string); ok {
					rule[field] = hurried(text)
				}
			}
		}
	}
	writeYAML(t, file, rules)
}

var promDurations = regexp.MustCompile(`\b(\d+)([smhd])\b`)

// hurried divides the durations in a text of Prometheus.
func hurried(text string) string {
	units := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}
	return promDurations.ReplaceAllStringFunc(text, func(found string) string {
		parts := promDurations.FindStringSubmatch(found)
		n, _ := strconv.Atoi(parts[1]) // digits
		return fmt.Sprintf("%dms", (time.Duration(n) * units[parts[2]] / hurry).Milliseconds())
	})
}

// ask calls Prometheus' API.
func (p *prometheus) ask(ctx context.Context, path string, into any) error {
	text, err := get(ctx, "http://"+p.address+"/api/v1/"+path)
	if err != nil {
		return err
	}
	answer := struct {
		Status, Error string
		Data          any
	}{Data: into}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", path, answer.Error)
	}
	return nil
}

// series is what comes of a query: labels, and a value in words.
type series struct {
	Metric map[string]string
	Value  [2]any
	// Histogram is there instead of a value, where that is one.
	Histogram []any
}

func (p *prometheus) query(ctx context.Context, query string) (found []series, err error) {
	var data struct{ Result json.RawMessage }
	if err := p.ask(ctx, "query?query="+url.QueryEscape(query), &data); err != nil {
		return nil, err
	}
	err = json.Unmarshal(data.Result, &found)
	return found, err
}

// alerts returns which alerts of a job fire.
func (p *prometheus) alerts(ctx context.Context, job string) ([]string, error) {
	var data struct {
		Alerts []struct {
			State  string
			Labels map[string]string
		}
	}
	if err := p.ask(ctx, "alerts", &data); err != nil {
		return nil, err
	}
	var firing []string
	for _, a := range data.Alerts {
		if name := a.Labels["alertname"]; a.State == "firing" && a.Labels["job"] == job && !slices.Contains(firing, name) {
			firing = append(firing, name)
		}
	}
	slices.Sort(firing)
	return firing, nil
}

// rulesAreSound fails the test where Prometheus could not compute a rule.
func (p *prometheus) rulesAreSound(t *testing.T) {
	t.Helper()
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	if err := p.ask(t.Context(), "rules", &data); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, group := range data.Groups {
		for _, rule := range group.Rules {
			n++
			if rule.Health != "ok" {
				t.Errorf("%s: %s: %s %s", p.name, rule.Name, rule.Health, rule.LastError)
			}
		}
	}
	if n == 0 {
		t.Errorf("%s has no rules", p.name)
	}
}

// question is a query that must give data at some time.
type question struct{ from, query string }

// questions are all queries that operators find in our files.
func questions(t *testing.T, native bool) (all []question) {
	t.Helper()
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ RefID, Expr string }
		}
		Annotations struct {
			List []struct{ Name, Expr string }
		}
	}
	text, err := os.ReadFile("../deploy/grafana/bearergate.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			all = append(all, question{"panel " + p.Title + ", " + target.RefID, target.Expr})
		}
	}
	for _, a := range board.Annotations.List {
		all = append(all, question{"annotation " + a.Name, a.Expr})
	}
	page, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, code, _ := strings.Cut(string(page), "```promql\n")
	code, _, _ = strings.Cut(code, "```")
	for line := range strings.Lines(code) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") && strings.Contains(line, "_bucket") != native {
			all = append(all, question{"docs/operations.md", hurried(line)})
		}
	}
	// What Grafana puts in the place of its variables.
	chosen := strings.NewReplacer("$__rate_interval", fmt.Sprintf("%ds", 4*slowness), "$__range", "30s", "$job", "bearergate.*", "$instance", ".*",
		"$listener", ".*", "$policy", ".*", "$verifier", ".*")
	for i := range all {
		all[i].query = chosen.Replace(all[i].query)
	}
	return all
}

// askUntilAnswered asks all questions again and again until each has given data or
// ctx ends, and then fails the test for those that never did.
func (p *prometheus) askUntilAnswered(ctx context.Context, t *testing.T) {
	open := map[question]error{}
	for _, q := range questions(t, p.native) {
		open[q] = errors.New("not asked")
	}
	if len(open) < 50 {
		t.Errorf("%s: only %d questions were found", p.name, len(open))
	}
	tick := time.NewTicker(scrapeEvery)
	defer tick.Stop()
	for len(open) > 0 {
		for q := range maps.Clone(open) {
			found, err := p.query(ctx, q.query)
			switch {
			case ctx.Err() != nil:
			case err != nil:
				open[q] = err
			case !slices.ContainsFunc(found, series.says):
				open[q] = fmt.Errorf("no data: %v", found)
			default:
				delete(open, q)
			}
		}
		select {
		case <-tick.C:
			continue
		case <-ctx.Done():
		}
		break
	}
	for q, err := range open {
		t.Errorf("%s: %s was never answered: %v\n%s", p.name, q.from, err, q.query)
	}
}

// says reports whether there is a number.
func (s series) says() bool {
	value, _ := s.Value[1].(string)
	return len(s.Histogram) > 0 || value != "" && value != "NaN"
}

// whatFired returns the names of the alerts that fired at some time, by job.
func (p *prometheus) whatFired(t *testing.T) map[string][]string {
	t.Helper()
	found, err := p.query(t.Context(), `count by (job, alertname) (last_over_time(ALERTS{alertstate="firing"}[10m]))`)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string][]string{}
	for _, s := range found {
		names[s.Metric["job"]] = append(names[s.Metric["job"]], s.Metric["alertname"])
	}
	return names
}

// allAlerts are the names of the alerts that there are.
func allAlerts(t *testing.T) (names []string) {
	t.Helper()
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert string `yaml:"alert"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	decodeYAML(t, "../deploy/prometheus/bearergate.rules.yml", &rules)
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			if rule.Alert != "" {
				names = append(names, rule.Alert)
			}
		}
	}
	return names
}
