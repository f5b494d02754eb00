package admin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
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
		Keys:  func() verifier.KeyStats { return verifier.KeyStats{} },
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

// TestMetricsAreThereAhead: every one is there before anything happened, so that a
// rate has a zero to start from and an alert has something to look at.
func TestMetricsAreThereAhead(t *testing.T) {
	f := start(t)
	whole(f.metrics)
	families := f.families(t)
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
		if name == `bearergate_verifier_breaker_state{state="closed",verifier="crm"}` {
			want = 1
		}
		if value != want {
			t.Errorf("%s is %v before anything happened", name, value)
		}
	}
}

// TestNamesAreAsPrometheusHasThem holds ours against Prometheus' own rules.
func TestNamesAreAsPrometheusHasThem(t *testing.T) {
	f := start(t)
	whole(f.metrics)
	problems, err := promlint.New(strings.NewReader(f.ask(t, http.MethodGet, "/metrics").body)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "bearergate_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
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
			called(bearer.Token{}, outcome, 20*time.Millisecond)
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
	guard := verifier.GuardStats{Calls: 1, Waiting: 2, Shed: 3, Breaker: verifier.Open}
	cache := verifier.CacheStats{
		Good:    verifier.PartStats{Entries: 4, Most: 5, Evicted: 6, Rejected: 7, Dropped: 8},
		Refused: verifier.PartStats{Entries: 9, Most: 10, Evicted: 11, Rejected: 12, Dropped: 13},
		Misses:  14, Waiting: 15, Refreshed: 16, Denied: 17, Flights: 18,
	}
	f.metrics.Verifiers(map[string]admin.Stages{"crm": {
		Guard: func() verifier.GuardStats { return guard }, Cache: func() verifier.CacheStats { return cache },
	}})
	shown := func() map[string]float64 {
		stages := map[string]float64{}
		for name, value := range f.series(t) {
			if strings.Contains(name, `verifier="crm"`) {
				stages[strings.Replace(strings.TrimPrefix(name, "bearergate_"), `verifier="crm"`, "", 1)] = value
			}
		}
		return stages
	}
	want := map[string]float64{
		"verifier_calls_in_flight{}": 1, "verifier_calls_waiting{}": 2, "verifier_calls_shed_total{}": 3,
		`verifier_breaker_state{state="open",}`: 1, `verifier_breaker_state{state="closed",}`: 0, `verifier_breaker_state{state="half_open",}`: 0,
		`cache_entries{part="good",}`: 4, `cache_max_entries{part="good",}`: 5, `cache_evictions_total{part="good",}`: 6,
		`cache_rejected_total{part="good",}`: 7, `cache_dropped_total{part="good",}`: 8,
		`cache_entries{part="refused",}`: 9, `cache_max_entries{part="refused",}`: 10, `cache_evictions_total{part="refused",}`: 11,
		`cache_rejected_total{part="refused",}`: 12, `cache_dropped_total{part="refused",}`: 13,
		"cache_misses_total{}": 14, "cache_waiting_requests{}": 15, "cache_refreshes_total{}": 16, "cache_denied_tokens{}": 17,
	}
	if diff := cmp.Diff(want, shown()); diff != "" {
		t.Errorf("the series (-want +got):\n%s", diff)
	}
	guard = verifier.GuardStats{Shed: 20, Breaker: verifier.HalfOpen}
	if got := shown(); got["verifier_calls_shed_total{}"] != 20 || got[`verifier_breaker_state{state="half_open",}`] != 1 || got[`verifier_breaker_state{state="open",}`] != 0 {
		t.Errorf("later it is %v", got)
	}
}

func TestShadowsAreReplaced(t *testing.T) {
	f := start(t)
	for _, step := range []struct {
		until map[string]time.Time
		want  map[string]float64
	}{
		{nil, map[string]float64{}},
		{map[string]time.Time{"a": time.Now().Add(time.Hour), "b": time.Unix(1, 0)}, map[string]float64{"a": 1, "b": 0}},
		{map[string]time.Time{"b": time.Now().Add(time.Hour)}, map[string]float64{"b": 1}},
	} {
		f.metrics.Shadows(step.until)
		got := map[string]float64{}
		for name, value := range f.series(t) {
			if policy, ok := strings.CutPrefix(name, "bearergate_policy_shadow{policy=\""); ok {
				got[strings.TrimSuffix(policy, "\"}")] = value
			}
		}
		if diff := cmp.Diff(step.want, got); diff != "" {
			t.Errorf("the shadows (-want +got):\n%s", diff)
		}
	}
}

// asProtobuf asks for the metrics in the form that knows native histograms.
func (f *face) asProtobuf(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	got := f.ask(t, http.MethodGet, "/metrics", "Accept", string(expfmt.NewFormat(expfmt.TypeProtoDelim)))
	families := map[string]*dto.MetricFamily{}
	decoder := expfmt.NewDecoder(strings.NewReader(got.body), expfmt.NewFormat(expfmt.TypeProtoDelim))
	for {
		var family dto.MetricFamily
		if err := decoder.Decode(&family); errors.Is(err, io.EOF) {
			return families
		} else if err != nil {
			t.Fatal(err)
		}
		families[family.GetName()] = &family
	}
}

// TestHowLongDecisionsTake counts those that were measured by their source, once in
// the counter too, with their token as an example.
func TestHowLongDecisionsTake(t *testing.T) {
	f := start(t)
	decided := f.metrics.Decisions("ext_authz", []string{"default"}, []string{"default"})
	type seen struct {
		count    uint64
		sum      float64
		examples []string
	}
	for _, tally := range []gate.Tally{
		{Reason: gate.Valid, Source: verifier.FromCache, Took: time.Microsecond, Trace: "0af7651916cd43dd8448eb211c80319c"},
		{Reason: gate.Valid, Source: verifier.FromCache},
		{Reason: gate.Valid, Source: verifier.FromEndpoint, Took: time.Second, Fingerprint: "0123456789ab"},
		{Reason: gate.InvalidToken, Source: verifier.FromEndpoint, Took: 2 * time.Second, Fingerprint: "ba9876543210", Trace: "11111111111111111111111111111111"},
		{Reason: gate.InvalidToken, Source: verifier.FromStale, Took: 3 * time.Second, Shadow: true},
		{Reason: gate.VerifierUnavailable, Took: 4 * time.Second, Fingerprint: "111111111111"},
		{Reason: gate.MissingToken},
	} {
		decided(tally)
	}
	families := f.asProtobuf(t)
	got := map[string]seen{}
	for _, m := range families["bearergate_decision_duration_seconds"].GetMetric() {
		h := m.GetHistogram()
		if len(h.GetBucket()) < 10 || h.Schema == nil || h.GetSampleCount() > 0 && len(h.GetPositiveSpan()) == 0 {
			t.Errorf("%s: not a histogram of both kinds: %v", labels(m), h)
		}
		s := seen{count: h.GetSampleCount(), sum: h.GetSampleSum()}
		for _, e := range h.GetExemplars() {
			var about []string
			for _, l := range e.GetLabel() {
				about = append(about, l.GetName()+"="+l.GetValue())
			}
			slices.Sort(about)
			s.examples = append(s.examples, strings.Join(about, " "))
		}
		got[m.GetLabel()[1].GetValue()] = s
	}
	want := map[string]seen{
		"cache":    {1, 1e-6, []string{"trace_id=0af7651916cd43dd8448eb211c80319c"}},
		"endpoint": {2, 3, []string{"token=0123456789ab", "token=ba9876543210 trace_id=11111111111111111111111111111111"}},
		"stale":    {1, 3, nil}, "none": {1, 4, []string{"token=111111111111"}}, "token": {}, "denied": {},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(seen{})); diff != "" {
		t.Errorf("the times (-want +got):\n%s", diff)
	}
	counted := 0.0
	for _, m := range families["bearergate_decisions_total"].GetMetric() {
		counted += m.GetCounter().GetValue()
		if e := m.GetCounter().GetExemplar(); e != nil && m.GetCounter().GetValue() == 0 {
			t.Errorf("%s has an example and no decision", labels(m))
		}
	}
	if counted != 7 {
		t.Errorf("%v decisions were counted, want 7", counted)
	}
	text := f.ask(t, http.MethodGet, "/metrics", "Accept", "application/openmetrics-text; version=1.0.0").body
	const token, trace = `token="ba9876543210"`, `trace_id="11111111111111111111111111111111"`
	text = strings.ReplaceAll(text, trace+","+token, token+","+trace) // they are in no order
	for _, want := range []string{
		`bearergate_decisions_total{enforced="true",listener="ext_authz",policy="default",reason="invalid_token",source="endpoint"} 1.0 # {token="ba9876543210",trace_id="11111111111111111111111111111111"} 1.0`,
		`bearergate_decision_duration_seconds_bucket{listener="ext_authz",source="endpoint",le="1.0"} 1 # {token="0123456789ab"} 1.0`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("OpenMetrics lacks %s", want)
		}
	}
}

func TestCallsNameATokenAsAnExample(t *testing.T) {
	f := start(t)
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	token, err := parser.Parse([]string{"Bearer canary-9f3b"})
	if err != nil {
		t.Fatal(err)
	}
	f.metrics.Calls("crm")(token, verifier.Invalid, time.Second)
	text := f.ask(t, http.MethodGet, "/metrics", "Accept", "application/openmetrics-text; version=1.0.0").body
	if want := `bearergate_verifier_call_duration_seconds_bucket{outcome="invalid",verifier="crm",le="1.0"} 1 # {token="` + token.Fingerprint() + `"}`; !strings.Contains(text, want) {
		t.Errorf("OpenMetrics lacks %s", want)
	}
	if strings.Contains(text, "canary") {
		t.Error("a token is in the metrics")
	}
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

// TestKeysOfAnIssuerAreShown, of a verifier that needs some, and of no other.
func TestKeysOfAnIssuerAreShown(t *testing.T) {
	f := start(t)
	stages := admin.Stages{
		Guard: func() verifier.GuardStats { return verifier.GuardStats{} },
		Cache: func() verifier.CacheStats { return verifier.CacheStats{} },
	}
	withKeys := stages
	withKeys.Keys = func() verifier.KeyStats {
		return verifier.KeyStats{Keys: 3, Fetched: time.UnixMilli(1_800_000_000_500), Fetches: 7, Failures: 2}
	}
	f.metrics.Verifiers(map[string]admin.Stages{"crm": stages, "issuer": withKeys})
	got := f.series(t)
	for name, want := range map[string]float64{
		`bearergate_verifier_keys{verifier="issuer"}`:                               3,
		`bearergate_verifier_keys_fetched_timestamp_seconds{verifier="issuer"}`:     1_800_000_000.5,
		`bearergate_verifier_key_fetches_total{result="fetched",verifier="issuer"}`: 7,
		`bearergate_verifier_key_fetches_total{result="failed",verifier="issuer"}`:  2,
	} {
		if value, ok := got[name]; !ok || value != want {
			t.Errorf("%s is %v, want %v", name, value, want)
		}
	}
	for name := range got {
		if strings.Contains(name, "_key") && strings.Contains(name, `"crm"`) {
			t.Errorf("there is %s", name)
		}
	}
}
