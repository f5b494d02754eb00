package admin_test

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"text/template"

	dto "github.com/prometheus/client_model/go"
)

// update has docs/metrics.md written again; make generate says so.
var update = flag.Bool("update", false, "write docs/metrics.md again")

// TestMetricsAreThoseOfTheDocs holds docs/metrics.md against what is shown.
func TestMetricsAreThoseOfTheDocs(t *testing.T) {
	f := start(t)
	whole(f.metrics)
	page := template.Must(template.ParseFiles("testdata/metrics.md.tmpl"))
	var want bytes.Buffer
	if err := page.Execute(&want, metricsTable(t, f.families(t))); err != nil {
		t.Fatal(err)
	}
	const file = "../docs/metrics.md"
	if *update {
		if err := os.WriteFile(file, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Error("docs/metrics.md is out of date; make generate")
	}
}

// metricsTable gives a row for each of our metrics.
func metricsTable(t *testing.T, families map[string]*dto.MetricFamily) string {
	var table strings.Builder
	for _, name := range slices.Sorted(maps.Keys(families)) {
		if !strings.HasPrefix(name, "bearergate_") {
			continue
		}
		family := families[name]
		if family.GetHelp() == "" || strings.Contains(family.GetHelp(), "|") {
			t.Errorf("%s has no help that can stand in a table: %q", name, family.GetHelp())
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", name, strings.ToLower(family.GetType().String()), labelsOf(family), family.GetHelp())
	}
	return strings.TrimSuffix(table.String(), "\n")
}

// labelsOf names the labels of a metric, with their values where these are few and
// always the same.
func labelsOf(family *dto.MetricFamily) string {
	values := map[string][]string{}
	for _, m := range family.GetMetric() {
		for _, l := range m.GetLabel() {
			if !slices.Contains(values[l.GetName()], l.GetValue()) {
				values[l.GetName()] = append(values[l.GetName()], l.GetValue())
			}
		}
	}
	var labels []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		text := "`" + name + "`"
		switch name {
		case "listener", "policy", "verifier", "reason", "version", "go_version", "enforced":
		default:
			slices.Sort(values[name])
			text += " (" + strings.Join(values[name], ", ") + ")"
		}
		labels = append(labels, text)
	}
	return strings.Join(labels, ", ")
}
