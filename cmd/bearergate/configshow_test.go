package main

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
	"github.com/bearergate/bearergate/proto/bearergate/admin/v1/adminv1connect"
)

func TestConfigShow(t *testing.T) {
	const hidden = "s3cr3t"
	t.Setenv("REALM", hidden)
	path := file(t, "gateway.yaml", onLoopback("https://api.example.com/verify?key=hidden", "default_policy: {realm: \"${REALM}\"}"))
	code, text, stderr := inside(t, "config", "show", "--config", path)
	if code != exitGood || stderr != "" || !strings.Contains(text, "      max_waiting: 1000 # default\n") || !strings.Contains(text, "/verify?key=*** # line ") {
		t.Errorf("ended with %d: %s%s", code, text, stderr)
	}
	code, script, stderr := inside(t, "config", "show", "--config", path, "--output", "json")
	var got struct {
		Config  map[string]any            `json:"config"`
		Origins map[string]map[string]any `json:"origins"`
	}
	if err := json.Unmarshal([]byte(script), &got); err != nil || code != exitGood || stderr != "" {
		t.Fatalf("ended with %d, %v: %s%s", code, err, script, stderr)
	}
	if got.Config["shutdown_timeout"] != "10s" || got.Origins["shutdown_timeout"]["from"] != "default" || got.Origins["default_policy.realm"]["hidden"] == nil {
		t.Errorf("shows %s", script)
	}
	for _, shown := range []string{text, script} {
		expectHidden(t, shown, hidden, "key=hidden")
	}
	code, stdout, stderr := inside(t, "config", "show", "--config", file(t, "bad.yaml", "cache: {valid_ttl: 1}\n"))
	if code != exitWrong || stdout != "" || !strings.Contains(stderr, "bad.yaml:1:20: cache.valid_ttl: 1 has no unit") {
		t.Errorf("ended with %d: %s%s", code, stdout, stderr)
	}
}

// showing is a gateway that shows this as its configuration in JSON.
type showing struct {
	adminv1connect.UnimplementedAdminServiceHandler

	json string
}

func (g *showing) GetConfiguration(context.Context, *adminv1.GetConfigurationRequest) (*adminv1.GetConfigurationResponse, error) {
	return &adminv1.GetConfigurationResponse{Yaml: "cache: {}\n", Json: g.json}, nil
}

func TestConfigShowOfARunningGatewayInJSON(t *testing.T) {
	t.Parallel()
	large := `{"config":"` + strings.Repeat("x", 8<<20) + `"}` + "\n"
	for name, test := range map[string]struct {
		json, stdout, stderr string
		code                 int
	}{
		"a large one":                   {json: large, stdout: large},
		"of a gateway that has no JSON": {stderr: "leave --output out", code: exitUnknown},
	} {
		got := call(t, invocation{args: []string{"config", "show", "--running", "-o", "json", "--admin", answered(t, &showing{json: test.json})}})
		if got.code != test.code || got.stdout != test.stdout || !strings.Contains(got.stderr, test.stderr) {
			t.Errorf("%s: ended with %d, %d bytes: %s", name, got.code, len(got.stdout), got.stderr)
		}
	}
}
