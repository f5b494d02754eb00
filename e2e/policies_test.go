package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/bearergate/bearergate/deploy"
)

var (
	publicRoute       = answer{http.StatusOK, "public_route"}
	insufficientScope = answer{http.StatusForbidden, "insufficient_scope"}
	badPath           = answer{http.StatusBadRequest, "bad_path"}
	unknownPolicy     = answer{http.StatusServiceUnavailable, "unknown_policy"}
)

// policies are those of the gateway of these tests. Each is known by its realm, and by
// what it tells the API.
const policies = `policies:
  - {name: open, public: true}
  - {name: reports, realm: reports, verifiers: [opaque], identity: [{name: X-Partner, constant: reports}]}
  - {name: editors, realm: editors, verifiers: [sso], require: {scopes: {all: ["orders:write"]}}, identity: [{name: X-Editor, constant: "yes"}]}
  - {name: partners, realm: partners, verifiers: [opaque], identity: [{name: X-Partner, constant: partners}]}
routes:
  - {path: {prefix: /public}, policy: open}
  - {hosts: ["*.reports.example"], path: {prefix: /v1}, methods: [GET], policy: reports}
  - {path: {template: "/orders/**"}, methods: [PUT, DELETE], policy: editors}
`

// issuer signs tokens.
type issuer struct {
	run    *run
	signer jose.Signer
	file   string // with its keys
}

const issuerName = "https://sso.example.com"

func newIssuer(t *testing.T, r *run) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const id = "one"
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: id}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: id, Algorithm: string(jose.ES256), Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{run: r, signer: signer, file: filepath.Join(r.folder(t), "keys.json")}
	if err := os.WriteFile(i.file, keys, 0o600); err != nil {
		t.Fatal(err)
	}
	return i
}

// issue returns a good token with a scope.
func (i *issuer) issue(t *testing.T, scope string) string {
	t.Helper()
	now := time.Now()
	token, err := jwt.Signed(i.signer).Claims(map[string]any{
		"iss": issuerName, "aud": "orders", "sub": "somebody", "scope": scope,
		"iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return i.run.tokens.add(token)
}

// underPolicies are the edges, which name one policy that the gateway has at /partners
// and one that it has not at /absent, as their pages say.
func underPolicies(t *testing.T) []edgeKind {
	t.Helper()
	const route = "              - match: { prefix: \"/\" }\n"
	named := block(t, "../deploy/envoy/README.md", "A policy that Envoy names")
	envoy := edgeKind{name: "Envoy with policies", recipe: deploy.Envoy(), changes: [][2]string{{
		route, named + strings.ReplaceAll(named, "partners", "absent") + route,
	}}}

	text, err := deploy.Nginx().Text()
	if err != nil {
		t.Fatal(err)
	}
	location := func(begin string) string {
		_, rest, found := strings.Cut(text, begin)
		inside, _, ends := strings.Cut(rest, "\n        }\n")
		if !found || !ends {
			t.Fatalf("%q is not in the recipe", begin)
		}
		return inside
	}
	const guarded, asking = "        location / {\n            auth_request /_bearergate;", "        location = /_bearergate {\n            internal;\n            proxy_pass http://bearergate/auth;"
	first, second, found := strings.Cut(block(t, "../deploy/nginx/README.md", "Policies"), "\n        }\n")
	second, found2 := strings.CutSuffix(second, "\n        }\n")
	if !found || !found2 {
		t.Fatal("nginx's page has no two locations")
	}
	two := first + location(guarded) + "\n        }\n" + second + location(asking) + "\n        }\n"
	// The recipe's own are changed first: the others are made of them as they stood.
	const identity = "            proxy_set_header X-Bearergate-Fingerprint $gate_fingerprint;\n"
	more := "            auth_request_set $gate_partner $upstream_http_x_partner;\n            auth_request_set $gate_editor $upstream_http_x_editor;\n" +
		"            proxy_set_header X-Partner $gate_partner;\n            proxy_set_header X-Editor $gate_editor;\n" + identity
	two = strings.ReplaceAll(two, identity, more)
	changes := [][2]string{{identity, more}, {guarded, two + strings.ReplaceAll(two, "partners", "absent") + guarded}}
	const merges = "        client_max_body_size 10m;\n"
	return []edgeKind{
		envoy,
		{name: "nginx with policies", recipe: deploy.Nginx(), changes: changes},
		{name: "nginx with policies that leaves slashes alone", recipe: deploy.Nginx(), changes: append(changes[:2:2], [2]string{merges, merges + "merge_slashes off;\n"})},
	}
}

// policyCases are requests by the policy they fall under. In token, CRM is one of the
// endpoint, OPAQUE one of the authorization server that only that can read, and READ
// and WRITE are its JWTs, by their scope.
var policyCases = []struct {
	name         string
	method, host string
	path         string
	token        string
	lines        []string
	realm        string // api if empty
	want         answer
	told         [2]string // what the API is told in X-Partner and X-Editor
	on           string    // the programs that it is for; all if empty
}{
	{name: "default", token: "CRM", want: allowed, told: [2]string{"default", ""}},
	{name: "default without a token", want: missingToken},
	{name: "default with the issuer's token", token: "WRITE", want: invalidToken},
	{name: "default with the server's token", token: "OPAQUE", want: invalidToken},
	{name: "public", path: "/public/CASE", want: publicRoute},
	{name: "public with a good token", path: "/public/CASE", token: "CRM", want: publicRoute},
	{name: "public with a bad token", path: "/public/CASE", token: "BAD", want: publicRoute},
	{name: "public in percent coding", path: "/%70ublic/CASE", want: publicRoute},
	{name: "not public, only begins like it", path: "/publications/CASE", want: missingToken},
	{name: "reports", host: "a.reports.example", path: "/v1/CASE", token: "OPAQUE", realm: "reports", want: allowed, told: [2]string{"reports", ""}},
	{name: "reports with the endpoint's token", host: "a.reports.example", path: "/v1/CASE", token: "CRM", realm: "reports", want: invalidToken},
	{name: "reports without a token", host: "a.reports.example", path: "/v1/CASE", realm: "reports", want: missingToken},
	{name: "reports, the host in capitals with a port", host: "A.Reports.EXAMPLE:8080", path: "/v1/CASE", realm: "reports", want: missingToken},
	{name: "reports by another method", method: "POST", host: "a.reports.example", path: "/v1/CASE", want: missingToken},
	{name: "reports at another host", host: "reports.example", path: "/v1/CASE", want: missingToken},
	{name: "reports at another path", host: "a.reports.example", path: "/v2/CASE", want: missingToken},
	{name: "editors", method: "PUT", path: "/orders/CASE", token: "WRITE", realm: "editors", want: allowed, told: [2]string{"", "yes"}},
	{name: "editors without the scope", method: "PUT", path: "/orders/CASE", token: "READ", realm: "editors", want: insufficientScope},
	{name: "editors with a token that is no JWT", method: "PUT", path: "/orders/CASE", token: "OPAQUE", realm: "editors", want: invalidToken},
	{name: "editors with the endpoint's token", method: "PUT", path: "/orders/CASE", token: "CRM", realm: "editors", want: invalidToken},
	{name: "editors without a token", method: "DELETE", path: "/orders/CASE", realm: "editors", want: missingToken},
	{name: "editors by another method", method: "GET", path: "/orders/CASE", token: "CRM", want: allowed, told: [2]string{"default", ""}},
	{name: "named by the edge", path: "/partners/CASE", token: "OPAQUE", realm: "partners", want: allowed, told: [2]string{"partners", ""}},
	{name: "named by the edge, without a token", path: "/partners/CASE", realm: "partners", want: missingToken},
	{name: "named by the edge, with the endpoint's token", path: "/partners/CASE", token: "CRM", realm: "partners", want: invalidToken},
	{name: "an unknown one named by the edge", path: "/absent/CASE", token: "CRM", want: unknownPolicy},
	{name: "an unknown one named by the edge, without a token", path: "/absent/CASE", want: unknownPolicy},

	{name: "the client's word for the path", lines: []string{"X-Original-URI: /public/x", "X-Forwarded-Uri: /public/x", "X-Envoy-Original-Path: /public/x", "X-Original-URL: /public/x"}, want: missingToken},
	{name: "the client's word for the path, twice", lines: []string{"X-Original-URI: /public/x", "x-original-uri: /public/y", "X_Original_URI: /public/z"}, want: missingToken},
	{name: "the client's word for the method", method: "PUT", path: "/orders/CASE", lines: []string{"X-Original-Method: GET", "X-Forwarded-Method: GET", "X-HTTP-Method-Override: GET"}, realm: "editors", want: missingToken},
	{name: "the client's word for the host", path: "/v1/CASE", lines: []string{"X-Original-Host: a.reports.example", "X-Forwarded-Host: a.reports.example"}, want: missingToken},
	{
		name: "the client's word for the policy", want: missingToken,
		lines: []string{"X-Bearergate-Policy: open", "bearergate_policy: open", "X_Bearergate_Policy: open", "X-Bearergate-Edge: open"},
	},
	{name: "the client's word for the policy that the edge names", path: "/partners/CASE", lines: []string{"X-Bearergate-Policy: open", "bearergate_policy: open"}, realm: "partners", want: missingToken},
	{name: "the client's word in the query", path: "/CASE?/public/x&bearergate_policy=open", want: missingToken},

	{name: "an encoded slash", path: "/a/..%2fb/CASE", token: "CRM", want: badPath, on: "nginx caddy"},
	{name: "two slashes", path: "/a//b/CASE", token: "CRM", want: badPath, on: "nginx caddy"},
	{name: "two slashes at the beginning", path: "//public/CASE", want: badPath, on: "nginx caddy"},
	{name: "two dots", path: "/public/../a/CASE", token: "CRM", want: badPath, on: "nginx caddy"},
	{name: "a bad path where the edge names the policy", path: "/partners/..%2f/partners/CASE", token: "CRM", want: badPath, on: "nginx caddy"},
	{name: "an encoded slash, refused by Envoy", path: "/a/..%2fb/CASE", token: "CRM", want: badRequest, on: "envoy"},
	{name: "two slashes, made plain", path: "//public//CASE", want: publicRoute, on: "envoy"},
	{name: "two dots, made plain", path: "/public/../a/CASE", want: missingToken, on: "envoy"},
	{name: "a semicolon", path: "/public;x=1/CASE", want: badPath},
	{name: "encoded twice", path: "/%2570ublic/CASE", token: "CRM", want: badPath},
	{name: "a bad path below a public one", path: "/public/a;b/CASE", want: badPath},
	{name: "a bad path at an unknown policy", path: "/absent/a;b/CASE", want: badPath},
}

// envoyHTTPWithPolicies is Envoy over HTTP, which hands on what the policies of these
// tests tell the API.
func envoyHTTPWithPolicies() edgeKind {
	const fingerprint = "                    - { exact: x-bearergate-fingerprint }\n"
	return edgeKind{name: "Envoy over HTTP with policies", recipe: deploy.EnvoyHTTP(), changes: [][2]string{
		{fingerprint, fingerprint + "                    - { exact: x-partner }\n                    - { exact: x-editor }\n"},
	}}
}

// caddyWithPolicies is Caddy, which does so as its page says.
func caddyWithPolicies() edgeKind {
	const copied = "copy_headers X-Bearergate-Fingerprint"
	const removed = "request_header -X-Bearergate*\n"
	const unsaid = "\t\t@unsaid_fingerprint header_regexp X-Bearergate-Fingerprint ^\\{\n\t\trequest_header @unsaid_fingerprint -X-Bearergate-Fingerprint\n"
	other := func(name string) string {
		return strings.NewReplacer("X-Bearergate-Fingerprint", name, "unsaid_fingerprint", "unsaid_"+name).Replace(unsaid)
	}
	return edgeKind{name: "Caddy with policies", recipe: deploy.Caddy(), changes: [][2]string{
		{copied, copied + " X-Partner X-Editor"},
		{removed, removed + "request_header -X-Partner\nrequest_header -X-Editor\n"},
		{unsaid, unsaid + other("X-Partner") + other("X-Editor")},
	}}
}

// testPolicies has one gateway with five policies and three kinds of verifier behind
// each edge.
func testPolicies(t *testing.T, r *run, codec codecKind) {
	testUnderPolicies(t, r, codec, underPolicies(t), "x-original", true)
	testUnderPolicies(t, r, codec, []edgeKind{envoyHTTPWithPolicies()}, "as-asked", false)
	testUnderPolicies(t, r, codec, []edgeKind{caddyWithPolicies()}, "x-forwarded", false)
}

// testUnderPolicies has edges that say in one way what they were asked, and that name
// policies or not.
func testUnderPolicies(t *testing.T, r *run, codec codecKind, kinds []edgeKind, original string, names bool) {
	t.Helper()
	if kinds = codec.own(kinds); len(kinds) == 0 {
		return
	}
	named := map[bool]string{true: "path", false: "none"}[names]
	server := startAuthServer(t, r, "the authorization server of policies, "+original+" and "+codec.name)
	s := r.startStack(t, "policies, "+original+" and "+codec.name, kinds, settings{
		timeout: "3s", flags: codec.flags, trust: fmt.Sprintf(", trust: {original: %s, policy: %s, peers: [127.0.0.1]}", original, named),
		verifiers: fmt.Sprintf("  - {name: sso, jwt: {issuer: %q, audiences: [orders], algorithms: [RS256]}}\n", server.issuer) +
			fmt.Sprintf("  - {name: opaque, introspection: {url: %q, client: {id: gateway, secret: {file: %q}}}}\n", server.places.Introspection, server.secretFile),
		policy: "{verifiers: [crm], identity: [{name: X-Partner, constant: default}]}",
		more:   policies,
	})
	tokens := map[string]func(t *testing.T) string{
		"CRM":    s.endpoint.issue,
		"BAD":    func(*testing.T) string { return r.tokens.invent(40) },
		"OPAQUE": func(t *testing.T) string { t.Helper(); return server.token(t, wantsOpaque, "orders:read") },
		"READ":   func(t *testing.T) string { t.Helper(); return server.token(t, wantsJWT, "orders:read") },
		"WRITE":  func(t *testing.T) string { t.Helper(); return server.token(t, wantsJWT, "orders:read orders:write") },
	}
	// Nobody believes these, whatever the policy.
	lies := []string{"X-Partner: a lie", "x-partner: another", "X_Partner: a third", "X-Editor: a lie", "X_Editor: another"}
	for _, e := range s.edges {
		for _, test := range policyCases {
			if test.on != "" && !strings.Contains(test.on, e.recipe.Program) {
				continue
			}
			if !names && (strings.HasPrefix(test.path, "/partners/") || strings.HasPrefix(test.path, "/absent/")) {
				continue
			}
			want := test.want
			if want == badPath && (e.recipe.Program == "caddy" || e.recipe.Name == deploy.EnvoyHTTP().Name) {
				want.status = http.StatusForbidden // they hand on what they are told
			}
			for _, proto := range e.speaks() {
				t.Run(e.name+"/"+test.name+" over "+proto, func(t *testing.T) {
					lines := slices.Concat(test.lines, lies)
					if test.token != "" {
						lines = append(lines, bearerLine(tokens[test.token](t))...)
					}
					got, name := e.send(t, request{proto: proto, method: test.method, host: test.host, path: test.path, lines: lines})
					s.checkIn(t, either(test.realm, "api"), e, got, name, want)
					if want == insufficientScope {
						const want = `Bearer realm="editors", error="insufficient_scope", error_description="the token is good, but not for this", scope="orders:write"`
						if challenge := got.header.Get("WWW-Authenticate"); challenge != want {
							t.Errorf("WWW-Authenticate: got %s, want %s", challenge, want)
						}
					}
					if want.status == http.StatusOK {
						told(t, s.api.of(name)[0].header, test.told)
					}
				})
			}
		}
	}
}

// told compares what the API got of who is calling.
func told(t *testing.T, h http.Header, want [2]string) {
	t.Helper()
	for i, name := range []string{"X-Partner", "X-Editor"} {
		if got := strings.Join(h.Values(name), "|"); got != want[i] {
			t.Errorf("the API is told %s: %q, want %q", name, got, want[i])
		}
	}
	for name := range h {
		if strings.HasPrefix(name, "X-Bearergate") {
			t.Errorf("the API is told %s: %q, though the gateway does not say it", name, h[name])
		}
		if strings.Contains(name, "_") {
			t.Errorf("the API got the client's %s", name)
		}
	}
}
