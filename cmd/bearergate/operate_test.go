package main

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
)

// TestAGatewayIsOperated by commands, each a process of its own.
func TestAGatewayIsOperated(t *testing.T) {
	t.Parallel()
	e := endpoint(t)
	configuration := onLoopback(e.URL())
	g := serve(t, nil, configuration)
	leaked, wild := token(t, e), token(t, e)
	faces, operators := g.address["auth_request"], g.address["admin"]
	bearergate := func(stdin string, want int, args ...string) string {
		t.Helper()
		got := call(t, invocation{args: append(args, "--admin", operators), stdin: stdin, secrets: []string{leaked, wild}})
		expectHidden(t, got.stdout, leaked, wild)
		if got.code != want {
			t.Errorf("%q ended with %d: %s%s", args, got.code, got.stdout, got.stderr)
		}
		return got.stdout
	}
	for _, value := range []string{leaked, wild} {
		mustGet(t, faces, "/auth", value, http.StatusOK)
	}

	var forgotten struct {
		Fingerprint string `json:"fingerprint"`
	}
	if err := json.Unmarshal([]byte(bearergate(wild+"\n", exitGood, "forget", "--token-file", "-", "--output", "json")), &forgotten); err != nil || len(forgotten.Fingerprint) != 12 {
		t.Fatalf("forget says %+v, %v", forgotten, err)
	}
	mustGet(t, faces, "/auth", wild, http.StatusOK)
	if got := e.Stats().Verify.Requests; got != 3 {
		t.Errorf("%d calls for two tokens and one that was forgotten, want 3", got)
	}

	if got := bearergate(leaked, exitGood, "deny", "--token-file", "-", "--reason", "leaked in a ticket"); !strings.HasPrefix(got, "denied until ") {
		t.Errorf("deny says %s", got)
	}
	mustGet(t, faces, "/auth", leaked, http.StatusUnauthorized)
	mustGet(t, faces, "/auth", wild, http.StatusOK)
	bearergate("", exitGood, "deny", "--fingerprint", forgotten.Fingerprint, "--reason", "runs wild", "--for", "1h")
	mustGet(t, faces, "/auth", wild, http.StatusUnauthorized)
	if got := bearergate("", exitGood, "deny", "--list"); !strings.Contains(got, "leaked in a ticket (127.0.0.1:") || !strings.Contains(got, forgotten.Fingerprint) || strings.Count(got, "\n") != 2 {
		t.Errorf("deny --list says %s", got)
	}
	bearergate("not a token", exitWrong, "deny", "--token-file", "-", "--reason", "x")
	bearergate("", exitWrong, "deny", "--fingerprint", "wild", "--reason", "x")

	text := bearergate("", exitGood, "status")
	for _, want := range []string{"state          ready, ", "bearergate.yaml, number 1 since the start", "listener       auth_request at " + faces, "crm: breaker closed", "denied         2 tokens"} {
		if !strings.Contains(text, want) {
			t.Errorf("status does not say %q:\n%s", want, text)
		}
	}
	var status struct {
		State  string `json:"state"`
		Denied int    `json:"denied"`
	}
	if err := json.Unmarshal([]byte(bearergate("", exitGood, "status", "-o", "json")), &status); err != nil || status.State != "ready" || status.Denied != 2 {
		t.Errorf("status says %+v, %v", status, err)
	}

	if got := bearergate("", exitGood, "reload"); got != "it is the configuration in force\n" {
		t.Errorf("reload says %s", got)
	}
	path := g.Args[len(g.Args)-1]
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(configuration + "cache: {valid_ttl: 20s}\n")
	if got := bearergate("", exitGood, "reload"); got != "another configuration is in force\n" {
		t.Errorf("reload says %s", got)
	}
	write("listeners: []\n")
	if got := bearergate("", exitNo, "reload"); !strings.HasPrefix(got, "the configuration cannot be used; what was in force stays so\n  ") || !strings.Contains(got, "bearergate.yaml:1:") {
		t.Errorf("reload says %s", got)
	}
	mustGet(t, faces, "/auth", leaked, http.StatusUnauthorized)

	shown := bearergate("", exitGood, "config", "show", "--running")
	if !strings.Contains(shown, "valid_ttl: 20s # line ") || !strings.Contains(shown, "invalid_ttl: 10s # default\n") {
		t.Errorf("config show --running says\n%s", shown)
	}
	var script struct {
		Config  struct{ Cache map[string]any }
		Origins map[string]struct{ From string }
	}
	inJSON := bearergate("", exitGood, "config", "show", "--running", "--output", "json")
	if err := json.Unmarshal([]byte(inJSON), &script); err != nil || script.Config.Cache["valid_ttl"] != "20s" || script.Origins["cache.valid_ttl"].From != "file" || script.Origins["cache.invalid_ttl"].From != "default" {
		t.Errorf("config show --running --output json says %v\n%s", err, inJSON)
	}
	if got := bearergate("", exitGood, "breaker", "reset", "--verifier", "crm"); got != "called again from now on: crm\n" {
		t.Errorf("breaker reset says %s", got)
	}
	bearergate("", exitWrong, "breaker", "reset", "--verifier", "nobody")
	if got := bearergate("", exitGood, "log", "--level", "error", "--allowed-one-in", "0"); got != "logged from now on: lines of the level error and above, no allowed requests\n" {
		t.Errorf("log says %s", got)
	}
	if got := bearergate("", exitGood, "status"); !strings.Contains(got, "log            error and above\n") {
		t.Errorf("status says %s", got)
	}
	bearergate("", exitWrong, "log", "--level", "loud")
	if got := bearergate("", exitGood, "log", "--allowed-one-in", "7", "--level", "info"); !strings.Contains(got, "one in 7 allowed requests") {
		t.Errorf("log says %s", got)
	}

	log := g.err.String()
	expectHidden(t, log, leaked, wild)
	for _, called := range []string{"forget", "deny", "reload", "reset_breaker", "set_log"} {
		if !strings.Contains(log, `"call":"`+called+`"`) {
			t.Errorf("the log does not tell of %s", called)
		}
	}
}

func TestWithoutAGatewayNobodyCouldTell(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"status"}, {"reload"}, {"deny", "--fingerprint", "0123456789ab", "--reason", "x"}} {
		got := call(t, invocation{args: append(args, "--admin", "unix:"+t.TempDir()+"/nobody")})
		if got.code != exitUnknown || !strings.HasPrefix(got.stderr, "bearergate: no answer from the gateway: ") || strings.Count(got.stderr, "\n") != 1 {
			t.Errorf("%q: %+v", args, got)
		}
	}
}
