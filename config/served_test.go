package config_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/bearergate/bearergate/config"
)

// TestAListenerServesThePoliciesThatItNames over both faces.
func TestAListenerServesThePoliciesThatItNames(t *testing.T) {
	e := local(t)
	g := run(t, `
listeners:
  ext_authz: {address: "127.0.0.1:0", policies: [open], default_policy: inside}
  auth_request: {address: "127.0.0.1:0", trust: {original: x-original, policy: path}}
  admin: {address: "127.0.0.1:0"}
  more:
    - {name: partners, auth_request: {address: "127.0.0.1:0", trust: {original: x-original, policy: path}, policies: [partners]}}
    - {name: named, auth_request: {address: "127.0.0.1:0", trust: {original: x-original}, default_policy: partners}}
policies:
  - {name: open, public: true}
  - {name: partners, identity: [{name: X-Partner, constant: crm}], realm: partners}
  - {name: inside, require: {expression: request.method == "GET"}, realm: inside}
routes:
  - {path: {prefix: /open}, policy: open}
  - {path: {prefix: /v1}, policy: partners}
  - {path: {prefix: /v1/admin}, policy: inside}
`+asking(e.URL()))
	token := "Bearer " + issue(t, e)
	for _, test := range []struct {
		listener, path, uri string
		status              int
		reason, realm       string
	}{
		{"auth_request", "/auth", "/open", 200, "public_route", ""},
		{"auth_request", "/auth", "/v1", 401, "missing_token", "partners"},
		{"auth_request", "/auth", "/v1/admin", 401, "missing_token", "inside"},
		{"auth_request", "/auth", "/", 401, "missing_token", "api"},
		{"partners", "/auth", "/open", 503, "unknown_policy", ""},
		{"partners", "/auth", "/v1", 401, "missing_token", "partners"},
		{"partners", "/auth", "/v1/admin", 503, "unknown_policy", ""},
		{"partners", "/auth/inside", "/v1", 503, "unknown_policy", ""},
		{"partners", "/auth/partners", "/", 401, "missing_token", "partners"},
		{"partners", "/auth/default", "/", 401, "missing_token", "api"},
		{"partners", "/auth", "/", 401, "missing_token", "api"},
		{"named", "/auth", "/open", 200, "public_route", ""},
		{"named", "/auth", "/v1/admin", 401, "missing_token", "inside"},
		{"named", "/auth", "/", 401, "missing_token", "partners"},
	} {
		got := get(t, g.Address(test.listener), test.path, "X-Original-Method", "GET", "X-Original-Host", "a", "X-Original-Uri", test.uri)
		realm := got.header.Get("WWW-Authenticate")
		if got.status != test.status || got.reason() != test.reason || test.realm != "" && !strings.Contains(realm, `realm="`+test.realm+`"`) {
			t.Errorf("%s %s %s: %d %s %s, want %+v", test.listener, test.path, test.uri, got.status, got.reason(), realm, test)
		}
	}
	envoy := g.envoy(t)
	for uri, want := range map[string]string{"/open": "public_route", "/v1": "unknown_policy", "/v1/admin": "valid", "/": "valid"} {
		r := checkRequest("authorization", token)
		r.Attributes.Request.Http.Method, r.Attributes.Request.Http.Host, r.Attributes.Request.Http.Path = "GET", "a", uri
		got, err := envoy.Check(t.Context(), r)
		if reason := got.GetDynamicMetadata().GetFields()["reason"].GetStringValue(); err != nil || reason != want {
			t.Errorf("ext_authz %s: %s, %v; want %s", uri, reason, err, want)
		}
		// The API may stand behind the other listeners, too.
		if removed := got.GetOkResponse().GetHeadersToRemove(); got.GetOkResponse() != nil && !slices.Contains(removed, "x-partner") {
			t.Errorf("ext_authz %s takes off %q", uri, removed)
		}
	}
	for series, want := range map[string]string{
		`bearergate_decisions_total{enforced="true",listener="named",policy="partners",reason="missing_token",source="none"}`:  "1",
		`bearergate_decisions_total{enforced="true",listener="partners",policy="inside",reason="missing_token",source="none"}`: "",
		`bearergate_decisions_total{enforced="true",listener="ext_authz",policy="inside",reason="valid",source="cache"}`:       "1",
	} {
		if got := g.metric(t, series); got != want {
			t.Errorf("%s is %q, want %q", series, got, want)
		}
	}
}

// TestAnEdgeIsKnownByItsCertificate where others may connect, too.
func TestAnEdgeIsKnownByItsCertificate(t *testing.T) {
	e := local(t)
	w := newWallet(t)
	g := run(t, fmt.Sprintf(`
listeners:
  auth_request:
    address: "127.0.0.1:0"
    tls: {%s}
    trust: {original: x-original, client_names: [edge.internal, other-edge.internal]}
policies: [{name: open, public: true}]
routes: [{path: {prefix: /open}, policy: open}]
`, w.mutual())+asking(e.URL()))
	for name, test := range map[string]struct {
		edge   *tls.Config
		status int
		reason string
	}{
		"an edge":               {w.edge(t, "edge.internal"), 200, "public_route"},
		"one with more names":   {w.edge(t, "x.internal", "OTHER-edge.internal"), 200, "public_route"},
		"one with another name": {w.edge(t, "probe.internal"), 503, "untrusted_edge"},
		"one below that name":   {w.edge(t, "x.edge.internal"), 503, "untrusted_edge"},
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+g.Address(config.AuthRequest)+"/auth", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Original-Uri", "/open")
		resp, err := (&http.Transport{DisableKeepAlives: true, TLSClientConfig: test.edge}).RoundTrip(r)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if reason := resp.Header.Get("X-Bearergate-Reason"); resp.StatusCode != test.status || reason != test.reason {
			t.Errorf("%s: %d %s, want %d %s", name, resp.StatusCode, reason, test.status, test.reason)
		}
	}
}
