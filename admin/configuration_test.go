package admin_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bearergate/bearergate/admin"
	"github.com/bearergate/bearergate/verifier"
)

func TestReloadsAreShownAndCounted(t *testing.T) {
	f := start(t)
	f.Ready()
	since, at := time.UnixMilli(1_800_000_000_250).UTC(), time.UnixMilli(1_800_000_060_500).UTC()
	for _, step := range []struct {
		name    string
		shown   admin.Configuration
		status  string
		metrics map[string]float64
	}{
		{
			"at the start",
			admin.Configuration{File: "b.yaml", InForceSince: since},
			`{"file":"b.yaml","in_force_since":"2027-01-15T08:00:00.25Z"}`,
			map[string]float64{"last_reload_successful{}": 1, "last_reload_success_timestamp_seconds{}": 1_800_000_000.25},
		},
		{
			"a wrong one",
			admin.Configuration{File: "b.yaml", InForceSince: since, LastReload: &admin.Reload{At: at, Result: admin.Refused, Error: "b.yaml:1:1: wrong"}},
			`{"file":"b.yaml","in_force_since":"2027-01-15T08:00:00.25Z","last_reload":{"at":"2027-01-15T08:01:00.5Z","result":"refused","error":"b.yaml:1:1: wrong"}}`,
			map[string]float64{"last_reload_successful{}": 0, "last_reload_success_timestamp_seconds{}": 1_800_000_000.25, `reloads_total{result="refused"}`: 1},
		},
		{
			"the one in force",
			admin.Configuration{InForceSince: since, LastReload: &admin.Reload{At: at, Result: admin.Unchanged}},
			`{"in_force_since":"2027-01-15T08:00:00.25Z","last_reload":{"at":"2027-01-15T08:01:00.5Z","result":"unchanged"}}`,
			map[string]float64{"last_reload_successful{}": 1, "last_reload_success_timestamp_seconds{}": 1_800_000_060.5, `reloads_total{result="unchanged"}`: 1},
		},
		{
			"another",
			admin.Configuration{InForceSince: at, LastReload: &admin.Reload{At: at, Result: admin.Applied, NeedRestart: []string{"log.format"}}},
			`{"in_force_since":"2027-01-15T08:01:00.5Z","last_reload":{"at":"2027-01-15T08:01:00.5Z","result":"applied","need_restart":["log.format"]}}`,
			map[string]float64{"last_reload_successful{}": 1, `reloads_total{result="refused"}`: 1, `reloads_total{result="applied"}`: 1},
		},
	} {
		f.metrics.Configured(&step.shown)
		f.Configured(&step.shown)
		got := f.ask(t, http.MethodGet, "/status")
		if want := `{"status":"ready","configuration":` + step.status + "}\n"; got.StatusCode != http.StatusOK || got.body != want {
			t.Errorf("%s: /status says %d %s, want %s", step.name, got.StatusCode, got.body, want)
		}
		series := f.series(t)
		for name, want := range step.metrics {
			if value, there := series["bearergate_config_"+name]; !there || value != want {
				t.Errorf("%s: %s is %v, want %v", step.name, name, value, want)
			}
		}
	}
}

// TestReadyzNamesAConfigurationThatCannotBeUsed, which is no reason not to be ready.
func TestReadyzNamesAConfigurationThatCannotBeUsed(t *testing.T) {
	f := start(t)
	f.Ready()
	f.Configured(&admin.Configuration{LastReload: &admin.Reload{Result: admin.Refused, Error: "bearergate.yaml:1:1: no"}})
	got := f.ask(t, http.MethodGet, "/readyz")
	if want := `{"status":"ready","parts":[{"part":"configuration","ready":true,"reason":"the file cannot be used; what was in force stays so: see /status"}]}`; got.StatusCode != http.StatusOK || got.body != want+"\n" {
		t.Errorf("/readyz says %d %s, want %s", got.StatusCode, got.body, want)
	}
}

// TestWhatIsNoMoreHasNoSeries: neither a listener, a policy nor a verifier leaves a
// line behind that names it.
func TestWhatIsNoMoreHasNoSeries(t *testing.T) {
	f := start(t)
	stages := admin.Stages{
		Guard: func() verifier.GuardStats { return verifier.GuardStats{} },
		Cache: func() verifier.CacheStats { return verifier.CacheStats{} },
		Keys:  func() verifier.KeyStats { return verifier.KeyStats{} },
	}
	for _, kept := range []string{"kept", "gone"} {
		f.metrics.Decisions(kept+"-listener", []string{"kept-policy", "gone-policy"}, nil)
		f.metrics.Certificate(kept+"-listener", []string{"timeout"})
		f.metrics.Calls(kept + "-verifier")
	}
	f.metrics.Verifiers(map[string]admin.Stages{"kept-verifier": stages, "gone-verifier": stages})
	f.metrics.Shadows(map[string]time.Time{"kept-policy": {}, "gone-policy": {}})
	for _, labels := range []admin.Labels{{Listener: "gone-listener"}, {Listener: "kept-listener", Policy: "gone-policy"}, {Verifier: "gone-verifier"}} {
		f.metrics.Forget(labels)
	}
	f.metrics.Verifiers(map[string]admin.Stages{"kept-verifier": stages})
	f.metrics.Shadows(map[string]time.Time{"kept-policy": {}})
	text := f.ask(t, http.MethodGet, "/metrics").body
	for line := range strings.Lines(text) {
		if strings.Contains(line, "gone") {
			t.Errorf("is left: %s", line)
		}
	}
	for name, want := range map[string]int{
		`bearergate_decisions_total{enforced="true",listener="kept-listener",policy="kept-policy"`: 1,
		`bearergate_certificate_last_reload_successful{listener="kept-listener"}`:                  1,
		`bearergate_tls_handshakes_refused_total{listener="kept-listener"`:                         1,
		`bearergate_verifier_call_duration_seconds_count{outcome="valid",verifier="kept-verifier"`: 1,
		`bearergate_cache_rejected_total{part="good",verifier="kept-verifier"}`:                    1,
		`bearergate_verifier_keys{verifier="kept-verifier"} 0`:                                     1,
		`bearergate_policy_shadow{policy="kept-policy"}`:                                           1,
	} {
		if strings.Count(text, name) < want {
			t.Errorf("%s is not there", name)
		}
	}
	f.metrics.ForgetCertificate("kept-listener")
	for name := range f.series(t) {
		if strings.Contains(name, "certificate") || strings.Contains(name, "handshakes") {
			t.Errorf("of a listener without TLS: %s", name)
		}
	}
}

// TestAnotherServerShowsTheSame, and goes alone.
func TestAnotherServerShowsTheSame(t *testing.T) {
	f := start(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	other := f.Another(admin.Access{})
	served := make(chan error, 1)
	go func() { served <- other.Serve(l) }()
	f.Ready()
	f.Configured(&admin.Configuration{File: "b.yaml"})
	twin := &face{Server: other, client: f.client, url: "http://" + l.Addr().String()}
	for _, path := range []string{"/readyz", "/status"} {
		one, two := f.ask(t, http.MethodGet, path), twin.ask(t, http.MethodGet, path)
		if fmt.Sprint(one.StatusCode, one.body) != fmt.Sprint(two.StatusCode, two.body) || one.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s and %d %s", path, one.StatusCode, one.body, two.StatusCode, two.body)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := other.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	if got := f.ask(t, http.MethodGet, "/readyz"); got.StatusCode != http.StatusOK {
		t.Errorf("the first says %d", got.StatusCode)
	}
}

// TestStatusNamesThePoliciesInShadow, until they are enforced.
func TestStatusNamesThePoliciesInShadow(t *testing.T) {
	f := start(t)
	f.Ready()
	until := time.Date(2999, 1, 2, 3, 4, 5, 0, time.UTC)
	f.metrics.Shadows(map[string]time.Time{"tried": until, "enforced": time.Unix(0, 0)})
	got := f.ask(t, http.MethodGet, "/status")
	if want := `,"in_shadow":{"tried":"2999-01-02T03:04:05Z"}}` + "\n"; !strings.HasSuffix(got.body, want) {
		t.Errorf("/status says %s, want at its end %s", got.body, want)
	}
}
