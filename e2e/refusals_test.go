package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/bearergate/bearergate/crmnow"
	"github.com/bearergate/bearergate/deploy"
)

// issueWith returns a good token with these claims besides.
func (i *issuer) issueWith(t *testing.T, more map[string]any) string {
	t.Helper()
	now := time.Now()
	// Without a number of its own, two tokens of one second would be one.
	claims := map[string]any{"iss": issuerName, "aud": "orders", "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "jti": i.run.nextCase()}
	maps.Copy(claims, more)
	token, err := jwt.Signed(i.signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return i.run.tokens.add(token)
}

func (i *issuer) verifier() string {
	return fmt.Sprintf("  - name: sso\n    jwt: {issuer: %q, audiences: [orders], algorithms: [ES256], keys: {file: %q}}\n", issuerName, i.file)
}

// testRefusals is about refusals in other words than crm-now's.
func testRefusals(t *testing.T, r *run) {
	for _, codec := range codecs() {
		t.Run("as problem details with "+codec.name, func(t *testing.T) {
			t.Parallel()
			testProblems(t, r, codec)
		})
		t.Run("by a template with "+codec.name, func(t *testing.T) {
			t.Parallel()
			testTemplate(t, r, codec)
		})
	}
}

// problem is what callers get of RFC 9457.
type problem struct {
	Type, Title, Detail, Reason string
	Status                      int
}

// testProblems: the body, its type and the challenge reach the client through each
// edge. Envoy over HTTP alone has words of its own for a 503.
func testProblems(t *testing.T, r *run, codec codecKind) {
	const metadata = "https://api.example/.well-known/oauth-protected-resource"
	i := newIssuer(t, r)
	s := r.startStack(t, "problems with "+codec.name, edgeKinds(), settings{
		timeout: "3s", flags: codec.flags, verifiers: i.verifier(),
		policy: `{verifiers: [sso, crm], require: {scopes: {all: ["orders:write"]}}, ` +
			`refusal: {body: problem, problem_types: "https://api.example/problems/", resource_metadata: "` + metadata + `"}}`,
	})
	ask := func(t *testing.T, e *edge, proto, path string, want answer, lines ...string) {
		t.Helper()
		got, name := e.send(t, request{proto: proto, path: path, lines: lines})
		if path == "" {
			r.expect(e, name, want)
		}
		if got.status != want.status || s.api.of(name) != nil {
			t.Fatalf("got %d %s, want %+v", got.status, got.body, want)
		}
		if want.status == http.StatusServiceUnavailable {
			if got.header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			if e.asks() == deploy.EnvoyHTTP().Name {
				return // these are its own words
			}
		}
		var p problem
		if kind := got.header.Values("Content-Type"); !slices.Equal(kind, []string{"application/problem+json"}) {
			t.Errorf("Content-Type: got %q", kind)
		}
		if err := json.Unmarshal([]byte(got.body), &p); err != nil || p.Status != want.status || p.Reason != want.reason ||
			p.Type != "https://api.example/problems/"+want.reason || p.Title == "" || p.Detail == "" {
			t.Errorf("got %s, %v", got.body, err)
		}
		challenge := got.header.Values("WWW-Authenticate")
		if want.status == http.StatusServiceUnavailable {
			if challenge != nil {
				t.Errorf("WWW-Authenticate: %q", challenge)
			}
		} else if len(challenge) != 1 || !strings.HasPrefix(challenge[0], `Bearer realm="api", resource_metadata="`+metadata+`"`) {
			t.Errorf("WWW-Authenticate: %q", challenge)
		}
		if value := got.header.Values("Cache-Control"); !slices.Equal(value, []string{"no-store"}) {
			t.Errorf("Cache-Control: %q", value)
		}
	}
	for _, e := range s.edges {
		for _, proto := range e.speaks() {
			t.Run(e.name+" over "+proto, func(t *testing.T) {
				ask(t, e, proto, "", missingToken)
				ask(t, e, proto, "/x.html", missingToken) // whose ending must not make it HTML
				ask(t, e, proto, "", invalidToken, bearerLine(r.tokens.invent(40))...)
				ask(t, e, proto, "", insufficientScope, bearerLine(i.issue(t, "orders:read"))...)
			})
		}
	}
	if err := s.endpoint.SetFault(crmnow.Verify, crmnow.Fault{Status: http.StatusBadGateway}); err != nil {
		t.Fatal(err)
	}
	for _, e := range s.edges {
		t.Run(e.name+" when nobody can tell", func(t *testing.T) {
			ask(t, e, http11, "", answer{http.StatusServiceUnavailable, "verifier_unavailable"}, bearerLine(r.tokens.invent(40))...)
		})
	}
}

// testTemplate: a page of the operator's, which names the request as the edge's log
// does.
func testTemplate(t *testing.T, r *run, codec codecKind) {
	kinds := logging(edgeKinds())
	for i := range kinds {
		if kinds[i].recipe.Program == "envoy" && kinds[i].recipe.Name != deploy.EnvoyHTTP().Name {
			const header = "                - { exact: authorization, ignore_case: true }\n"
			kinds[i].changes = [][2]string{{header, header + "                - { exact: x-request-id, ignore_case: true }\n"}}
		}
	}
	s := r.startStack(t, "a template with "+codec.name, kinds, settings{
		timeout: "3s", flags: codec.flags,
		policy: `{realm: shop, refusal: {body: template, content_type: "text/html; charset=utf-8", ` +
			`template: "<h1>{{.title}}</h1>\n  <p>für {{.realm}}: {{.request_id}}</p>\n"}}`,
	})
	page := regexp.MustCompile(`^<h1>The token is missing</h1>\s+<p>für shop: (.*)</p>\n?$`)
	for _, e := range s.edges {
		t.Run(e.name, func(t *testing.T) {
			got, name := e.send(t, request{lines: []string{"X-Request-Id: <script>"}})
			r.expect(e, name, missingToken)
			parts := page.FindStringSubmatch(got.body)
			if kind := got.header.Values("Content-Type"); got.status != http.StatusUnauthorized || parts == nil || !slices.Equal(kind, []string{"text/html; charset=utf-8"}) {
				t.Fatalf("got %d %q %q", got.status, kind, got.body)
			}
			switch e.recipe.Name {
			case deploy.Caddy().Name, deploy.EnvoyHTTP().Name:
				if parts[1] != "" {
					t.Errorf("it names the request %q", parts[1])
				}
			default:
				e.logs(t, name, func(line string) bool { return parts[1] != "" && strings.Contains(line, `"request_id":"`+parts[1]+`"`) })
			}
		})
	}
}

// logging has Envoys write their logs at once: it takes them ten seconds else.
func logging(kinds []edgeKind) []edgeKind {
	for i := range kinds {
		if kinds[i].recipe.Program == "envoy" {
			kinds[i].args = append(kinds[i].args, "--file-flush-interval-msec", "50")
		}
	}
	return kinds
}

// logs waits for the edge to log a request, and wants the line to be good.
func (e *edge) logs(t *testing.T, name string, good func(line string) bool) {
	t.Helper()
	found := ""
	eventually(t, e.name+" logs "+name, func() error {
		text, err := os.ReadFile(e.stdout)
		if err != nil {
			return err
		}
		for line := range bytes.Lines(text) {
			if bytes.Contains(line, []byte("/"+name+`"`)) && bytes.HasSuffix(line, []byte("\n")) {
				found = string(line)
				return nil
			}
		}
		return fmt.Errorf("nothing is logged yet")
	})
	if !good(found) {
		t.Errorf("it is logged as %s", found)
	}
}

// claimEdges are the recipes with what their pages say of further identity headers.
func claimEdges() []edgeKind {
	recipes := logging(edgeKinds())
	const fingerprint = "            proxy_set_header X-Bearergate-Fingerprint $gate_fingerprint;\n"
	const set, copied = "            auth_request_set $gate_fingerprint", "copy_headers X-Bearergate-Fingerprint"
	const unsaid = "\t\t@unsaid_fingerprint header_regexp X-Bearergate-Fingerprint ^\\{\n\t\trequest_header @unsaid_fingerprint -X-Bearergate-Fingerprint\n"
	const removed, listed = "request_header -X-Bearergate*\n", "                    - { exact: x-bearergate-fingerprint }\n"
	for i := range recipes {
		k := &recipes[i]
		k.name += " that tells of claims"
		switch {
		case k.recipe.Program == "nginx":
			k.changes = [][2]string{
				{set, "            auth_request_set $gate_sub $upstream_http_x_sub;\n            auth_request_set $gate_roles $upstream_http_x_roles;\n" + set},
				{fingerprint, "            proxy_set_header X-Sub $gate_sub;\n            proxy_set_header X-Roles $gate_roles;\n" + fingerprint},
			}
			if k.recipe.Name == deploy.NginxLua().Name {
				k.changes = append(k.changes, [2]string{`local TOLD = { "gate_reason",`, `local TOLD = { "gate_sub", "gate_roles", "gate_reason",`})
			}
		case k.recipe.Program == "caddy":
			other := func(name string) string {
				return strings.NewReplacer("X-Bearergate-Fingerprint", name, "unsaid_fingerprint", "unsaid_"+name).Replace(unsaid)
			}
			k.changes = [][2]string{
				{copied, copied + " X-Sub X-Roles"}, {removed, removed + "request_header -X-Sub\nrequest_header -X-Roles\n"}, {unsaid, unsaid + other("X-Sub") + other("X-Roles")},
			}
		case k.recipe.Name == deploy.EnvoyHTTP().Name:
			k.changes = [][2]string{{listed, listed + "                    - { exact: x-sub }\n                    - { exact: x-roles }\n"}}
		}
	}
	return recipes
}

// claimCases are claims of a good token, and what the API is told in X-Sub and X-Roles.
var claimCases = []struct {
	name   string
	claims map[string]any
	told   [2]string
	want   answer
}{
	{"a text and a list", map[string]any{"sub": "somebody", "realm_access": map[string]any{"roles": []any{"reader", "writer", 7, true}}}, [2]string{"somebody", "reader,writer,7,true"}, allowed},
	{"none", nil, [2]string{}, allowed},
	{"one of the two", map[string]any{"sub": "somebody"}, [2]string{"somebody", ""}, allowed},
	{"null and an empty list", map[string]any{"sub": nil, "realm_access": map[string]any{"roles": []any{}}}, [2]string{}, allowed},
	{"an empty text", map[string]any{"sub": "", "realm_access": "roles"}, [2]string{}, allowed},
	{"a number", map[string]any{"sub": 7}, [2]string{"7", ""}, allowed},
	{"a boolean", map[string]any{"sub": false}, [2]string{"false", ""}, allowed},
	{"what edges may take for orders", map[string]any{"sub": `a{http.request.uri}b{env.HOME} $host ${uri} %REQ(:PATH)% "q" \ ; , #`}, [2]string{`a{http.request.uri}b{env.HOME} $host ${uri} %REQ(:PATH)% "q" \ ; , #`, ""}, allowed},
	{"a long text", map[string]any{"sub": strings.Repeat("l", 1024), "realm_access": map[string]any{"roles": strings.Repeat("m", 1024)}}, [2]string{strings.Repeat("l", 1024), strings.Repeat("m", 1024)}, allowed},
	{"a line break", map[string]any{"sub": "a\r\nX-Roles: admin"}, [2]string{}, unusableClaim},
	{"a zero byte", map[string]any{"sub": "a\x00"}, [2]string{}, unusableClaim},
	{"letters beyond ASCII", map[string]any{"sub": "Jörg"}, [2]string{}, unusableClaim},
	{"an object", map[string]any{"sub": map[string]any{"a": "b"}}, [2]string{}, unusableClaim},
	{"a list that reads like another", map[string]any{"realm_access": map[string]any{"roles": []any{"reader,admin"}}}, [2]string{}, unusableClaim},
	{"too long a text", map[string]any{"sub": strings.Repeat("l", 1025)}, [2]string{}, unusableClaim},
}

var unusableClaim = answer{http.StatusForbidden, "unusable_claim"}

// testClaimHeaders: the API is told what the token says, and never what the client
// says, whether the token says anything or not.
func testClaimHeaders(t *testing.T, r *run) {
	i := newIssuer(t, r)
	lies := []string{
		"X-Sub: a lie", "x-sub: another", "X_Sub: a third", "X-Roles: admin", "x-ROLES: admin", "X_Roles: admin", "X.Roles: admin", "X-Roles:",
		"X-Bearergate-Token: keep", "X-Bearergate-Body: x", "X-Bearergate-Wants: body",
	}
	for _, codec := range codecs() {
		t.Run(codec.name, func(t *testing.T) {
			t.Parallel()
			// With several policies, the log names the policy, and no edge keeps an answer.
			more, policy := "", ""
			if codec.flags != nil {
				more, policy = "policies: [{name: open, public: true}]\n", "default"
			}
			s := r.startStack(t, "claims with "+codec.name, claimEdges(), settings{
				timeout: "3s", flags: codec.flags, verifiers: i.verifier(), more: more,
				policy: "{verifiers: [sso, crm], edge_cache: 30s, identity: [{name: X-Sub, claim: [sub]}, {name: X-Roles, claim: [realm_access, roles]}], " +
					"metadata: {fingerprint: true, claims: [{name: subject, claim: [sub]}]}}",
			})
			for _, e := range s.edges {
				for _, proto := range e.speaks() {
					for _, test := range claimCases {
						t.Run(e.name+"/"+test.name+" over "+proto, func(t *testing.T) {
							token := i.issueWith(t, test.claims)
							for range 3 { // an edge that keeps answers knows it then
								lines := slices.Concat(lies, bearerLine(token))
								if proto == http11 {
									lines = append(lines, "Connection: X-Sub, X-Roles", "Connection: upgrade, X-Sub", "Connection: close")
								}
								got, name := e.send(t, request{proto: proto, lines: lines})
								s.checkClaims(t, e, got, name, test.want, test.told)
							}
						})
					}
				}
			}
			for _, e := range s.edges {
				if e.asks() == deploy.Envoy().Name {
					t.Run(e.name+" logs the token", func(t *testing.T) { s.checkTokenLog(t, e, i, policy) })
				}
				if e.asks() != e.recipe.Name && policy == "" {
					eventually(t, e.name+" has let requests through by answers that it kept", func() error {
						text, err := os.ReadFile(e.stdout)
						if kept := regexp.MustCompile(`"kept":true|"gate_cache":"HIT"`).FindAll(text, -1); err != nil || len(kept) < len(claimCases) {
							return fmt.Errorf("%d were, %w", len(kept), err)
						}
						return nil
					})
				}
			}
		})
	}
}

func (s *stack) checkClaims(t *testing.T, e *edge, got reply, name string, want answer, told [2]string) {
	t.Helper()
	s.run.expect(e, name, want)
	if got.status != want.status {
		t.Fatalf("got %d %q, want %d", got.status, got.body, want.status)
	}
	arrived := s.api.of(name)
	if want != allowed {
		if arrived != nil || got.body != forbiddenBody {
			t.Errorf("got %q, and the API got %v", got.body, arrived)
		}
		return
	}
	s.checkAllowed(t, got, name)
	for i, header := range []string{"X-Sub", "X-Roles"} {
		if values := arrived[0].header[header]; strings.Join(values, "|") != told[i] || len(values) > 1 || told[i] == "" && values != nil {
			t.Errorf("the API is told %s: %q, want %q", header, values, told[i])
		}
	}
	for header := range arrived[0].header {
		if strings.HasPrefix(header, "X-Bearergate") || strings.ContainsAny(header, "_.") {
			t.Errorf("the API got %s", header)
		}
	}
}

// checkTokenLog: the access log of the recipe has what the policy tells of the token.
func (s *stack) checkTokenLog(t *testing.T, e *edge, i *issuer, policy string) {
	t.Helper()
	for line, token := range map[string]string{
		`"reason":"valid","claims":{"subject":"somebody"}`: i.issueWith(t, map[string]any{"sub": "somebody"}),
		`"reason":"valid","claims":null`:                   i.issueWith(t, map[string]any{"sub": strings.Repeat("x", 257)}),
		`"reason":"unusable_claim","claims":null`:          i.issueWith(t, map[string]any{"sub": "a\nb"}),
		`"reason":"invalid_token","claims":null`:           s.run.tokens.invent(40),
	} {
		_, name := e.send(t, request{lines: bearerLine(token)})
		e.logs(t, name, func(text string) bool {
			var got struct {
				Reason, Policy, Fingerprint, Source string
				Claims                              json.RawMessage
			}
			if err := json.Unmarshal([]byte(text), &got); err != nil {
				t.Fatal(err)
			}
			return fmt.Sprintf(`"reason":%q,"claims":%s`, got.Reason, either(string(got.Claims), "null")) == line &&
				got.Policy == policy && got.Source != "" && regexp.MustCompile(`^[0-9a-f]{12}$`).MatchString(got.Fingerprint)
		})
	}
}

// testForwardToken: where the policy says that the API is to see the token, it does,
// behind each edge. That it does not where the policy says nothing, all other tests see.
func testForwardToken(t *testing.T, r *run) {
	// An API of its own: what reaches the others is searched for tokens.
	s := &stack{run: r, api: newAPI(t), endpoint: startEndpoint(t, r)}
	s.gateway = r.startGateway(t, "gateway that leaves the token", settings{
		timeout: "3s", endpoint: s.endpoint.url(), policy: "{forward_token: keep}",
	})
	for _, kind := range edgeKinds() {
		kind.name += ", leaving the token"
		e := r.startEdge(t, kind, s.gateway.settings.gates, s.api.address())
		for _, proto := range e.speaks() {
			t.Run(e.name+" over "+proto, func(t *testing.T) {
				token := s.endpoint.issue(t)
				for range 3 {
					got, name := e.send(t, request{proto: proto, lines: bearerLine(token)})
					arrived := s.api.of(name)
					if got.status != http.StatusOK || len(arrived) != 1 || !slices.Equal(arrived[0].header["Authorization"], []string{"Bearer " + token}) {
						t.Fatalf("got %d, and the API not the token", got.status)
					}
					for header := range arrived[0].header {
						if strings.HasPrefix(header, "X-Bearergate") {
							t.Errorf("the API got %s", header)
						}
					}
				}
				if got, name := e.send(t, request{proto: proto, lines: bearerLine(r.tokens.invent(40))}); got.status != http.StatusUnauthorized || s.api.of(name) != nil {
					t.Errorf("a token that is not good: got %d", got.status)
				}
			})
		}
	}
}
