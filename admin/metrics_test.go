package admin_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/bearergate/bearergate/admin"
	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/verifier"
)

// whole wires metrics as a gateway with both faces does.
func whole(m *admin.Metrics) {
	m.Decisions("ext_authz", []string{"default"}, nil)
	m.Decisions("auth_request", []string{"default"}, nil)
	m.Shadows(map[string]time.Time{"tried": time.Unix(0, 0)})
	m.Calls("crm")
	m.Certificate("ext_authz", []string{"plaintext", "timeout"})
	m.Verifiers(map[string]admin.Stages{"crm": {
		Guard: func() verifier.GuardStats { return verifier.GuardStats{} },
		Cache: func() verifier.CacheStats { return verifier.CacheStats{} },
	}})
}

// families asks for the metrics.
func (f *face) families(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	got := f.ask(t, http.MethodGet, "/metrics")
	if got.StatusCode != http.StatusOK {
		t.Fatalf("/metrics says %d %s", got.StatusCode, got.body)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(got.body))
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// labels of one series, sorted, as in the text format.
func labels(m *dto.Metric) string {
	var pairs []string
	for _, l := range m.GetLabel() {
		pairs = append(pairs, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}

// series returns the value of each series of ours: the count, for a histogram.
func (f *face) series(t *testing.T) map[string]float64 {
	t.Helper()
	values := map[string]float64{}
	for name, family := range f.families(t) {
		if !strings.HasPrefix(name, "bearergate_") {
			continue
		}
		for _, m := range family.GetMetric() {
			value := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			values[name+"{"+labels(m)+"}"] = value
		}
	}
	return values
}

func TestCertificatesAreMetrics(t *testing.T) {
	f := start(t)
	c := f.metrics.Certificate("ext_authz", []string{"plaintext", "timeout"})
	c.NotAfter(time.Unix(1_800_000_000, 999))
	c.Refused("timeout")
	c.Refused("timeout")
	for _, good := range []bool{true, false, true} {
		c.Reloaded(good)
		want := 0.
		if good {
			want = 1
		}
		got := f.series(t)
		if got[`bearergate_certificate_last_reload_successful{listener="ext_authz"}`] != want {
			t.Errorf("files that can be used: %v, want %v", got, want)
		}
		for name, want := range map[string]float64{
			`bearergate_certificate_not_after_timestamp_seconds{listener="ext_authz"}`:         1_800_000_000,
			`bearergate_tls_handshakes_refused_total{listener="ext_authz",reason="plaintext"}`: 0,
			`bearergate_tls_handshakes_refused_total{listener="ext_authz",reason="timeout"}`:   2,
		} {
			if value, there := got[name]; !there || value != want {
				t.Errorf("%s is %v, want %v", name, value, want)
			}
		}
	}
}

// TestMetricsAreThoseOfTheDocs: every one is there before anything happened, so
// that a rate has a zero to start from and an alert has something to look at.
func TestMetricsAreThoseOfTheDocs(t *testing.T) {
	page, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(page), "| name | labels | what it counts |")
	if !ok {
		t.Fatal("docs/operations.md has no table of the metrics")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	listed := map[string][]string{}
	row := regexp.MustCompile("(?m)^\\| `(bearergate_[a-z_]+)` \\|([^|]*)\\|")
	for _, cells := range row.FindAllStringSubmatch(table, -1) {
		listed[cells[1]] = regexp.MustCompile("[a-z_]+").FindAllString(cells[2], -1)
		slices.Sort(listed[cells[1]])
	}
	f := start(t)
	whole(f.metrics)
	families := f.families(t)
	there := map[string][]string{}
	for name, family := range families {
		if family.GetHelp() == "" {
			t.Errorf("%s has no help", name)
		}
		if !strings.HasPrefix(name, "bearergate_") {
			continue
		}
		there[name] = nil
		for _, l := range family.GetMetric()[0].GetLabel() {
			there[name] = append(there[name], l.GetName())
		}
		slices.Sort(there[name])
	}
	if diff := cmp.Diff(listed, there); diff != "" {
		t.Errorf("docs/operations.md lists other metrics than there are (-listed +there):\n%s", diff)
	}
	for _, name := range []string{"go_goroutines", "go_memstats_alloc_bytes", "process_start_time_seconds", "process_open_fds"} {
		if families[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
	for name, value := range f.series(t) {
		want := 0.0
		if strings.HasPrefix(name, "bearergate_build_info{") {
			want = 1
			if build := fmt.Sprintf("bearergate_build_info{go_version=%q,version=%q}", runtime.Version(), "v1.2.3"); name != build {
				t.Errorf("%s, want %s", name, build)
			}
		}
		if value != want {
			t.Errorf("%s is %v before anything happened", name, value)
		}
	}
}

// TestEveryDecisionHasItsSeries counts one of each, and finds it.
func TestEveryDecisionHasItsSeries(t *testing.T) {
	f := start(t)
	whole(f.metrics)
	decided := f.metrics.Decisions("ext_authz", []string{"default"}, nil) // a second time, as after a reload
	want := f.series(t)
	for reason := range gate.Reason(gate.Reasons) {
		for source := range verifier.Source(verifier.Sources) {
			decided(gate.Tally{Reason: reason, Source: source})
			name := "none"
			if reason.HasVerdict() {
				name = source.String()
			}
			series := fmt.Sprintf("bearergate_decisions_total{enforced=%q,listener=%q,policy=%q,reason=%q,source=%q}", "true", "ext_authz", "default", reason, name)
			if _, ok := want[series]; !ok {
				t.Errorf("%s was not there ahead", series)
			}
			want[series]++
		}
	}
	if diff := cmp.Diff(want, f.series(t)); diff != "" {
		t.Errorf("the series (-want +got):\n%s", diff)
	}
}

func TestCallsAndPanicsAreCounted(t *testing.T) {
	f := start(t)
	whole(f.metrics)
	want := f.series(t)
	called := f.metrics.Calls("crm")
	for outcome := range verifier.Outcome(verifier.Outcomes) {
		for range outcome + 1 {
			called(outcome, 20*time.Millisecond)
		}
		want[fmt.Sprintf("bearergate_verifier_call_duration_seconds{outcome=%q,verifier=%q}", outcome, "crm")] = float64(outcome + 1)
	}
	f.metrics.Panicked()
	f.metrics.Panicked()
	want["bearergate_panics_total{}"] = 2
	if diff := cmp.Diff(want, f.series(t)); diff != "" {
		t.Errorf("the series (-want +got):\n%s", diff)
	}
	for _, m := range f.families(t)["bearergate_verifier_call_duration_seconds"].GetMetric() {
		h := m.GetHistogram()
		if sum := 0.02 * float64(h.GetSampleCount()); h.GetSampleSum() < sum*0.999 || h.GetSampleSum() > sum*1.001 {
			t.Errorf("%s: %v seconds, want %v", labels(m), h.GetSampleSum(), sum)
		}
		if bounds := h.GetBucket(); len(bounds) < 10 || bounds[0].GetUpperBound() > 0.005 || bounds[len(bounds)-2].GetUpperBound() < 30 {
			t.Errorf("%s: the buckets are %v", labels(m), bounds)
		}
	}
}

func TestStagesAreShownAsTheyAre(t *testing.T) {
	f := start(t)
	guard := verifier.GuardStats{Calls: 1, Waiting: 2, Shed: 3, Open: true}
	cache := verifier.CacheStats{Rejected: 4, Denied: 5, Flights: 6}
	f.metrics.Verifiers(map[string]admin.Stages{"crm": {
		Guard: func() verifier.GuardStats { return guard }, Cache: func() verifier.CacheStats { return cache },
	}})
	expect := func(want map[string]float64) {
		t.Helper()
		got := f.series(t)
		for name, value := range want {
			if got["bearergate_"+name+`{verifier="crm"}`] != value {
				t.Errorf("%s is %v, want %v", name, got["bearergate_"+name+`{verifier="crm"}`], value)
			}
		}
	}
	expect(map[string]float64{
		"verifier_calls_in_flight": 1, "verifier_calls_waiting": 2, "verifier_calls_shed_total": 3,
		"verifier_breaker_open": 1, "cache_rejected_total": 4, "cache_denied_tokens": 5,
	})
	guard, cache = verifier.GuardStats{Shed: 7}, verifier.CacheStats{Rejected: 8}
	expect(map[string]float64{
		"verifier_calls_in_flight": 0, "verifier_calls_waiting": 0, "verifier_calls_shed_total": 7,
		"verifier_breaker_open": 0, "cache_rejected_total": 8, "cache_denied_tokens": 0,
	})
}

func TestOpenMetricsIfAskedFor(t *testing.T) {
	f := start(t)
	whole(f.metrics)
	got := f.ask(t, http.MethodGet, "/metrics", "Accept", "application/openmetrics-text; version=1.0.0")
	if !strings.HasPrefix(got.Header.Get("Content-Type"), "application/openmetrics-text") || !strings.HasSuffix(got.body, "# EOF\n") {
		t.Errorf("the type is %s", got.Header.Get("Content-Type"))
	}
}

// TestRequestsMakeNoSeries sends what a hostile client may through gates that
// count, and wants the series to stay those that they were.
func TestRequestsMakeNoSeries(t *testing.T) {
	const secret = "canary-9f3b"
	f := start(t)
	whole(f.metrics)
	before := slices.Sorted(maps.Keys(f.series(t)))
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	verify := asker(func(token bearer.Token) (verifier.Verdict, error) {
		asked++
		switch asked % 6 {
		case 0:
			return verifier.Verdict{Valid: true, Source: verifier.Source(asked % 256)}, nil
		case 1:
			return verifier.Verdict{Source: verifier.Source(asked % 256)}, nil
		case 2:
			return verifier.Verdict{}, &verifier.NoAnswer{Verifier: token.Reveal(), Problem: token.Reveal()}
		case 3:
			return verifier.Verdict{}, fmt.Errorf("%s", token.Reveal())
		case 4:
			panic(token.Reveal())
		default:
			return verifier.Verdict{Valid: true}, nil
		}
	})
	var gates []*gate.Gate
	for _, listener := range []string{"ext_authz", "auth_request"} {
		g, err := gate.New(gate.Options{
			Listener: listener, Parser: parser, Policy: gate.Policy{Verifier: verify, Realm: "api"},
			Decided:  f.metrics.Decisions(listener, []string{"default"}, nil),
			Panicked: func(*verifier.Panic) { f.metrics.Panicked() },
		})
		if err != nil {
			t.Fatal(err)
		}
		gates = append(gates, g)
	}
	requests := 0
	for i := range 2000 {
		name := fmt.Sprintf("%s.%d", secret, i)
		for _, r := range []gate.Request{
			{Authorization: []string{"Bearer " + name}, Target: "/" + name},
			{Authorization: []string{name}, Target: "/?access_token=" + name},
			{Authorization: []string{"Bearer " + name + "\xff\n"}},
			{Authorization: []string{name, name}, Target: name},
		} {
			for _, g := range gates {
				g.Decide(t.Context(), r)
				requests++
			}
		}
	}
	if diff := cmp.Diff(before, slices.Sorted(maps.Keys(f.series(t)))); diff != "" {
		t.Errorf("requests changed the series (-before +after):\n%s", diff)
	}
	var counted float64
	for name, value := range f.series(t) {
		if strings.HasPrefix(name, "bearergate_decisions_total{") {
			counted += value
		}
	}
	if int(counted) != requests {
		t.Errorf("%v decisions were counted, want %d", counted, requests)
	}
	if text := f.ask(t, http.MethodGet, "/metrics").body; strings.Contains(text, "canary") {
		t.Error("a token is in the metrics")
	}
	if text := f.logs.text(); text != "" {
		t.Errorf("the log says %s", text)
	}
}

// asker is a Verifier made of a function.
type asker func(bearer.Token) (verifier.Verdict, error)

func (a asker) Verify(_ context.Context, t bearer.Token) (verifier.Verdict, error) { return a(t) }
