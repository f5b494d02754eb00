package deploy

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/statetimeline"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

const dashboardFile = "grafana/bearergate.json"

// board is what the tests look at of the dashboard.
type board struct {
	ID         *int   `json:"id"`
	UID        string `json:"uid"`
	Templating struct {
		List []struct {
			Name  string
			Type  string
			Query json.RawMessage
		}
	}
	Annotations struct {
		List []struct{ Expr string }
	}
	Panels []*panel
}

type panel struct {
	ID          int
	Type        string
	Title       string
	Description string
	Datasource  struct{ Type, UID string }
	GridPos     struct{ H, W, X, Y int }
	FieldConfig struct {
		Defaults struct {
			Unit       string
			Thresholds struct{ Steps []struct{ Value *float64 } }
		}
	}
	Targets []struct {
		RefID        string
		Expr         string
		LegendFormat string
		Datasource   struct{ Type, UID string }
	}
}

func readBoard(t *testing.T) ([]byte, board) {
	t.Helper()
	text, err := os.ReadFile(dashboardFile)
	if err != nil {
		t.Fatal(err)
	}
	var b board
	if err := json.Unmarshal(text, &b); err != nil {
		t.Fatal(err)
	}
	return text, b
}

// TestGrafanaKnowsEveryField holds the dashboard against Grafana's own schema.
func TestGrafanaKnowsEveryField(t *testing.T) {
	known := cog.NewRuntime()
	known.RegisterPanelcfgVariant(stat.VariantConfig())
	known.RegisterPanelcfgVariant(statetimeline.VariantConfig())
	known.RegisterPanelcfgVariant(table.VariantConfig())
	known.RegisterPanelcfgVariant(timeseries.VariantConfig())
	known.RegisterDataqueryVariant(prometheus.VariantConfig())
	// Where nothing is wrong, it gives an error that says nothing.
	problems := func(text []byte) string {
		d := new(dashboard.Dashboard) //nolint:staticcheck // its successor is known to the newest Grafana alone, this one to all
		if err := d.UnmarshalJSONStrict(text); err != nil {
			return err.Error()
		}
		return ""
	}
	text, _ := readBoard(t)
	if found := problems(text); found != "" {
		t.Errorf("a field that Grafana does not know, or misses:\n%s", found)
	}
	if problems(bytes.Replace(text, []byte(`"drawStyle"`), []byte(`"drawStile"`), 1)) == "" {
		t.Error("a field that is misspelt is accepted")
	}
}

// TestTheDashboardIsWhole: it can be imported anywhere, and each panel says what it
// shows.
func TestTheDashboardIsWhole(t *testing.T) {
	_, b := readBoard(t)
	if b.ID != nil || b.UID == "" {
		t.Errorf("id %v, uid %q: only the uid is the same in all installations", b.ID, b.UID)
	}
	var rows []string
	ids := map[int]string{}
	cells := map[[2]int]string{}
	for _, p := range b.Panels {
		if ids[p.ID] != "" || p.ID == 0 {
			t.Errorf("%q and %q have the id %d", ids[p.ID], p.Title, p.ID)
		}
		ids[p.ID] = p.Title
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if cell := [2]int{x, y}; cells[cell] != "" || x >= 24 {
					t.Errorf("%q and %q lie on each other, or beyond the edge", cells[cell], p.Title)
				} else {
					cells[cell] = p.Title
				}
			}
		}
		if p.Type == "row" {
			rows = append(rows, p.Title)
			continue
		}
		if p.Title == "" || p.FieldConfig.Defaults.Unit == "" || len(p.FieldConfig.Defaults.Thresholds.Steps) == 0 {
			t.Errorf("%q has no title, unit or thresholds", p.Title)
		}
		if p.Type == "stat" && (p.Description == "" || len(p.Targets) != 1) {
			t.Errorf("%q: want a description and one query", p.Title)
		}
		if p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("%q asks %q, and has %d queries", p.Title, p.Datasource.UID, len(p.Targets))
		}
		refs := map[string]bool{}
		for _, target := range p.Targets {
			if refs[target.RefID] || target.RefID == "" || target.Datasource.UID != "${datasource}" {
				t.Errorf("%q: query %q of %q", p.Title, target.RefID, target.Datasource.UID)
			}
			refs[target.RefID] = true
			if p.Type != "stat" && p.Type != "table" && target.LegendFormat == "" {
				t.Errorf("%q: query %s has no legend", p.Title, target.RefID)
			}
		}
	}
	want := []string{
		"At a glance", "Decisions", "Latency", "Verifiers and breaker", "Cache", "Load and shedding",
		"Configuration and certificates", "Process",
	}
	if !slices.Equal(rows, want) {
		t.Errorf("the rows are %q, want %q", rows, want)
	}
}

// TestEveryMetricIsOfUse: who adds one says where operators see it.
func TestEveryMetricIsOfUse(t *testing.T) {
	text, _ := readBoard(t)
	rules, err := os.ReadFile("prometheus/" + rulesFile)
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range inMetrics.FindAllSubmatch(page, -1) {
		if !bytes.Contains(text, row[1]) && !bytes.Contains(rules, row[1]) {
			t.Errorf("%s is neither on the dashboard nor in a rule; put it where somebody looks", row[1])
		}
	}
}

var (
	variables = regexp.MustCompile(`\$\{?([a-zA-Z_]+)`)
	selectors = regexp.MustCompile(`([a-zA-Z_:]+)\{([^}]*)\}`)
	allMetric = regexp.MustCompile(`\b(bearergate_|go_|process_)[a-z0-9_]+`)
)

// TestTheDashboardAsksForWhatIsChosen: each query asks for the gateways that are
// chosen, by variables that there are, for metrics that there are.
func TestTheDashboardAsksForWhatIsChosen(t *testing.T) {
	_, b := readBoard(t)
	known := map[string]bool{"__rate_interval": true, "__range": true}
	used := map[string]bool{}
	queries := map[string][]string{}
	for _, v := range b.Templating.List {
		known[v.Name] = true
		if v.Type == "datasource" {
			used[v.Name] = true
			continue
		}
		var query struct{ Query string }
		if err := json.Unmarshal(v.Query, &query); err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		for _, found := range variables.FindAllStringSubmatch(query.Query, -1) {
			if !known[found[1]] {
				t.Errorf("the choice of %s depends on %s, which is not above it", v.Name, found[1])
			}
		}
		for _, problem := range unknownMetrics(t, query.Query, nil) {
			t.Errorf("the choice of %s: %s", v.Name, problem)
		}
	}
	for _, p := range b.Panels {
		for _, target := range p.Targets {
			queries[p.Title] = append(queries[p.Title], target.Expr)
		}
	}
	for _, a := range b.Annotations.List {
		queries["annotations"] = append(queries["annotations"], a.Expr)
	}
	for title, exprs := range queries {
		for _, expr := range exprs {
			for _, found := range variables.FindAllStringSubmatch(expr, -1) {
				if used[found[1]] = true; !known[found[1]] {
					t.Errorf("%q asks by the variable %s, which there is not", title, found[1])
				}
			}
			for _, problem := range unknownMetrics(t, expr, nil) {
				t.Errorf("%q: %s", title, problem)
			}
			chosen := map[string]bool{}
			for _, found := range selectors.FindAllStringSubmatch(expr, -1) {
				for _, label := range []string{"job", "instance"} {
					if !strings.Contains(found[2], label+`=~"$`+label+`"`) && (found[1] != "ALERTS" || label == "job") {
						t.Errorf("%q asks %s for every %s", title, found[1], label)
					}
				}
				for label, has := range labelsOf(t, found[1]) {
					if has && known[label] && !strings.Contains(found[2], label+`=~"$`+label+`"`) {
						t.Errorf("%q asks %s for every %s", title, found[1], label)
					}
				}
				chosen[found[1]] = true
			}
			for _, name := range allMetric.FindAllString(expr, -1) {
				if !chosen[name] && name != "go_version" { // a label
					t.Errorf("%q asks %s for every gateway", title, name)
				}
			}
		}
	}
	for name := range known {
		if !used[name] {
			t.Errorf("nothing asks by the variable %s", name)
		}
	}
}

// labelsOf returns the labels that docs/metrics.md gives a metric.
func labelsOf(t *testing.T, metric string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]bool{}
	for _, suffix := range []string{"", "_bucket", "_count", "_sum"} {
		name := strings.TrimSuffix(metric, suffix)
		row := regexp.MustCompile("(?m)^\\| `" + name + "` \\| \\w+ \\| ([^|]*) \\|").FindSubmatch(text)
		if row == nil {
			continue
		}
		for _, label := range regexp.MustCompile("`([a-z_]+)`").FindAllSubmatch(row[1], -1) {
			labels[string(label[1])] = true
		}
	}
	return labels
}
