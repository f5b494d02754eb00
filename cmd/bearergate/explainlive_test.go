package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// TestAGatewayExplains by a command what a token gets, and why.
func TestAGatewayExplains(t *testing.T) {
	t.Parallel()
	e := endpoint(t)
	g := serve(t, nil, onLoopback(e.URL()))
	good, made := token(t, e), "made-up-by-nobody"
	faces := g.address["auth_request"]
	explain := func(stdin string, want int, args ...string) string {
		t.Helper()
		got := call(t, invocation{args: append([]string{"explain", "--admin", g.address["admin"]}, args...), stdin: stdin, secrets: []string{good, made}})
		expectHidden(t, got.stdout, good, made)
		if got.code != want || got.stderr != "" {
			t.Errorf("%q ended with %d: %s%s", args, got.code, got.stdout, got.stderr)
		}
		return got.stdout
	}
	says := func(text string, want ...string) {
		t.Helper()
		for _, part := range want {
			if !strings.Contains(text, part) {
				t.Errorf("it does not say %q:\n%s", part, text)
			}
		}
	}
	says(explain(good+"\n", exitUnknown, "--token-file", "-"), ", opaque\n", "policy        default\n", "because       no request was named", "verifier      crm: nothing is remembered; breaker closed\n", "answer        not known: ")
	mustGet(t, faces, "/auth", good, http.StatusOK)
	says(explain("Bearer "+good, exitGood, "--token-file", "-", "--url", "https://api.example.com/v1?x=y"), "because       no route matches\n", "verifier      crm: good, learnt ", " ago), used until ", "answer        200, allow: valid, from cache\n")
	text := explain(made, exitNo, "--token-file", file(t, "token", made), "--ask")
	says(text, "answer        401, unauthorized: invalid_token, from endpoint\n", "              WWW-Authenticate: Bearer realm=\"api\", error=\"invalid_token\"", "              {\"error\":\"missing or invalid auth token\"}\n",
		"what to do    Fetch a new token", "was zu tun ist Ein neues Token holen")
	says(explain(`"`+good+`"`, exitNo, "--token-file", "-"), "token         cannot be read: the token is in quotes; send it without them\n", "malformed_token")

	mustGet(t, faces, "/auth", made, http.StatusUnauthorized)
	_, rest, _ := strings.Cut(text, "token         ")
	mark, _, _ := strings.Cut(rest, ",")
	text = explain("", exitGood, "--fingerprint", mark)
	says(text, "token         "+mark+"\n", "lately        ", " unauthorized invalid_token ", "refusals in all, since it is remembered for them: 1", "not known     what verifiers remember of the token", "what to do    Fetch a new token")
	if strings.Contains(text, "answer") {
		t.Errorf("of a fingerprint it says\n%s", text)
	}
	var asJSON struct {
		Fingerprint   string
		RefusedLately string `json:"refused_lately"`
		Recent        []struct{ Reason string }
		Answer        *struct{}
	}
	if err := json.Unmarshal([]byte(explain("", exitGood, "--fingerprint", mark, "-o", "json")), &asJSON); err != nil || asJSON.Fingerprint != mark || asJSON.RefusedLately != "1" || len(asJSON.Recent) != 1 || asJSON.Recent[0].Reason != "invalid_token" || asJSON.Answer != nil {
		t.Errorf("as JSON: %+v, %v", asJSON, err)
	}
	if got := call(t, invocation{args: []string{"deny", "--admin", g.address["admin"], "--fingerprint", mark, "--reason", "runs wild"}}); got.code != exitGood {
		t.Error(got)
	}
	says(explain("", exitNo, "--fingerprint", mark), "denied        until ", ": runs wild (127.0.0.1:", "answer        401, unauthorized: invalid_token, from denied\n")
	expectHidden(t, g.err.String(), good, made)
}
