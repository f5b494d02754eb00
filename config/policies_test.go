package config_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestPoliciesReachTheFaces asks a gateway about requests that fall under five
// policies.
func TestPoliciesReachTheFaces(t *testing.T) {
	e := local(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("a secret that is long enough\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g := run(t, `
listeners:
  auth_request: {address: "127.0.0.1:0", trust: {original: x-original, policy: path, secret: {file: "`+secret+`"}, peers: [127.0.0.1]}}
  admin: {address: "127.0.0.1:0"}
  more:
    - {name: forwarded, auth_request: {address: "127.0.0.1:0", trust: {original: x-forwarded, policy: header}}}
    - {name: asked, auth_request: {address: "127.0.0.1:0", trust: {original: as-asked}}}
    - {name: elsewhere, auth_request: {address: "127.0.0.1:0", trust: {original: as-asked, peers: [192.0.2.1, 10.0.0.0/8]}}}
policies:
  - {name: open, public: true}
  - {name: web, preflight: allow, realm: web}
  - {name: readers, require: {expression: request.method == "GET"}}
  - {name: tried, shadow: {until: 2099-01-31}}
  - {name: tried-before, shadow: {until: "2020-01-31T12:00:00Z"}}
routes:
  - {hosts: [api.example.com], path: {prefix: /open}, policy: open}
  - {path: {exact: /web}, policy: web}
  - {path: {template: "/orders/*"}, policy: readers}
  - {path: {prefix: /tried}, policy: tried}
  - {path: {prefix: /tried/before}, methods: [PUT], policy: tried-before}
`+asking(e.URL()))
	token := "Bearer " + issue(t, e)
	original := func(kind, method, host, uri string, more ...string) []string {
		return append([]string{kind + "-Method", method, kind + "-Host", host, kind + "-Uri", uri, "X-Bearergate-Edge", "a secret that is long enough"}, more...)
	}
	for _, test := range []struct {
		listener, path string
		headers        []string
		status         int
		reason         string
	}{
		{"auth_request", "/auth", original("X-Original", "GET", "api.example.com", "/open/x"), 200, "public_route"},
		{"auth_request", "/auth", original("X-Original", "GET", "www.example.com", "/open/x"), 401, "missing_token"},
		{"auth_request", "/auth", original("X-Original", "GET", "api.example.com", "/open/../x"), 403, "bad_path"},
		{"auth_request", "/auth", original("X-Original", "OPTIONS", "a", "/web", "Origin", "b", "Access-Control-Request-Method", "PUT"), 200, "preflight"},
		{"auth_request", "/auth", original("X-Original", "GET", "a", "/orders/1", "Authorization", token), 200, ""}, // a good token, where nginx asks
		{"auth_request", "/auth", original("X-Original", "PUT", "a", "/orders/1", "Authorization", token), 403, "insufficient_scope"},
		{"auth_request", "/auth", original("X-Original", "GET", "a", "/tried/before"), 200, "missing_token"},
		{"auth_request", "/auth", original("X-Original", "PUT", "a", "/tried/before"), 401, "missing_token"},
		{"auth_request", "/auth/open", original("X-Original", "PUT", "a", "/"), 200, "public_route"},
		{"auth_request", "/auth/other", original("X-Original", "PUT", "a", "/"), 503, "unknown_policy"},
		{"auth_request", "/auth", original("X-Original", "GET", "a", "/")[:6], 503, "untrusted_edge"},
		{"forwarded", "/auth", original("X-Forwarded", "GET", "api.example.com", "/open/x"), 200, "public_route"},
		{"forwarded", "/auth", original("X-Forwarded", "GET", "a", "/", "X-Bearergate-Policy", "open"), 200, "public_route"},
		{"forwarded", "/auth", original("X-Original", "GET", "api.example.com", "/open/x"), 503, "unclear_edge"},
		{"asked", "/auth/tried/x", nil, 200, "missing_token"},
		{"elsewhere", "/auth/tried/x", nil, 503, "untrusted_edge"},
	} {
		got := get(t, g.Address(test.listener), test.path, test.headers...)
		if got.status != test.status || got.reason() != test.reason {
			t.Errorf("%s %s %q: %d %s, want %d %s", test.listener, test.path, test.headers, got.status, got.reason(), test.status, test.reason)
		}
	}
	for series, want := range map[string]string{
		`bearergate_policy_shadow{policy="tried"}`:        "1",
		`bearergate_policy_shadow{policy="tried-before"}`: "0",
		`bearergate_decisions_total{enforced="false",listener="auth_request",policy="tried",reason="missing_token",source="none"}`:       "1",
		`bearergate_decisions_total{enforced="true",listener="auth_request",policy="tried-before",reason="missing_token",source="none"}`: "1",
		`bearergate_decisions_total{enforced="true",listener="auth_request",policy="open",reason="public_route",source="none"}`:          "2",
	} {
		if got := g.metric(t, series); got != want {
			t.Errorf("%s is %q, want %q", series, got, want)
		}
	}
	loud := slices.ContainsFunc(g.log.entries(t), func(e entry) bool {
		return e.Level == "WARN" && e.Message == "a policy is in shadow: it lets through what it refuses"
	})
	if !loud {
		t.Error("nobody is told of the shadow at start")
	}
}
