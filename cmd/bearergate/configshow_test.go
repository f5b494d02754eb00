package main

import (
	"encoding/json"
	"strings"
	"testing"
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
