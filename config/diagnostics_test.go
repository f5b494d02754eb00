package config_test

import (
	"strings"
	"testing"

	"github.com/bearergate/bearergate/config"
	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
)

// TestDiagnosticsSayHowTheProcessIs, and of the environment no value that may be a
// secret.
func TestDiagnosticsSayHowTheProcessIs(t *testing.T) {
	const hidden = "s3cr3t-of-the-environment"
	for _, name := range []string{"OTEL_EXPORTER_OTLP_HEADERS", "https_proxy", "BEARERGATE_CLIENT_SECRET", "MY_SECRET", "GOFLAGS"} {
		t.Setenv(name, hidden)
	}
	t.Setenv("GOGC", "200")
	g := run(t, everywhere+asking("https://api.example.com/"))
	got, err := admins(t, g.Address(config.Admin), "").Diagnostics(t.Context(), &adminv1.DiagnosticsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(got.String(), hidden) {
		t.Errorf("a value is shown: %v", got)
	}
	variables := map[string]*adminv1.Variable{}
	for _, v := range got.GetEnvironment() {
		variables[v.GetName()] = v
	}
	if v := variables["GOGC"]; v.GetValue() != "200" || v.GetHidden() {
		t.Errorf("GOGC is %v", v)
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_HEADERS", "https_proxy", "GOFLAGS"} {
		if v := variables[name]; !v.GetHidden() || v.GetValue() != "" {
			t.Errorf("%s is %v", name, v)
		}
	}
	if variables["MY_SECRET"] != nil {
		t.Error("a variable that has nothing to do with it is named")
	}
	facts := map[string]string{}
	for _, f := range got.GetFacts() {
		if f.GetValue() == "" || facts[f.GetName()] != "" {
			t.Errorf("%q is said twice, or nothing of it", f.GetName())
		}
		facts[f.GetName()] = f.GetValue()
	}
	for name, want := range map[string]string{"version": "v1.2.3", "go": "go1.", "processors": "of which it uses", "goroutines": "", "user": ":", "go /gc/gogc:percent": ""} {
		if !strings.Contains(facts[name], want) || facts[name] == "" {
			t.Errorf("%s is %q", name, facts[name])
		}
	}
}
