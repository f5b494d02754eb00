package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// explainedFile has something of everything that explain speaks of.
const explainedFile = `
listeners:
  ext_authz: {address: "127.0.0.1:9191"}
verifiers:
  - name: crm
    tokens: opaque
    verifytoken: {url: "https://api.i1.crm-now.de/v1/getOauthToken.php"}
  - name: sso
    jwt: {issuer: "https://sso.example.com", audiences: [orders], algorithms: [RS256], keys: {url: "https://sso.example.com/keys"}}
  - name: inquired
    behind: sso
    introspection: {url: "https://sso.example.com/introspect", client: {id: gate, secret: {file: SECRET}}}
default_policy: {verifiers: [crm]}
policies:
  - {name: open, public: true}
  - {name: web, verifiers: [sso, crm], preflight: allow, edge_cache: 5s, identity: [{name: X-Edge, constant: gate}, {name: X-Caller, fingerprint: true}]}
  - {name: told, verifiers: [sso], identity: [{name: X-Roles, claim: [realm_access, roles]}]}
  - {name: tried, verifiers: [crm], shadow: {until: 2099-01-31}, forward_token: keep}
  - {name: tried-before, verifiers: [crm], shadow: {until: "2020-01-31T12:00:00Z"}}
  - name: editors
    verifiers: [inquired]
    require:
      scopes: {all: ["orders:read"], any: ["orders:write", "orders:admin"]}
      audience: [orders]
      claims:
        - {path: [realm_access, roles], contains: editor}
        - {path: [azp], one_of: [shop, backoffice]}
        - {path: [sub], equals: "7"}
      max_token_age: 10m
      expression: request.host != "other"
routes:
  - {path: {prefix: /v1}, policy: web}
  - {hosts: [api.example.com], path: {prefix: /v1}, policy: open}
  - {hosts: [api.example.com, "*.example.com"], path: {exact: /v1/orders}, policy: tried}
  - {hosts: [api.example.com], path: {exact: /v1/orders}, methods: [PUT, POST], policy: editors}
  - {path: {template: "/*/old"}, policy: tried-before}
  - {hosts: [api.example.com], path: {prefix: /v1}, policy: open}
`

// explainFile puts a configuration into a folder, with the secret that it names.
func explainFile(t *testing.T, text string) string {
	t.Helper()
	path := file(t, "bearergate.yaml", strings.ReplaceAll(text, "SECRET", "secret"))
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "secret"), []byte("a secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestExplainSaysWhichPolicyAndWhy(t *testing.T) {
	path := explainFile(t, explainedFile)
	for name, test := range map[string]struct {
		args []string
		code int
		want string
	}{
		"no route matches": {[]string{"--url", "https://www.example.com/"}, exitGood, `
request       GET www.example.com/
policy        default
because       no route matches
token         crm (verifytoken), for tokens of the form opaque
the API sees  no token
`},
		"several verifiers, preflight, identity and an edge's cache": {[]string{"--url", "http://www.example.net:8080/v1?access_token=hidden", "--method", "OPTIONS"}, exitGood, `
request       OPTIONS www.example.net:8080/v1
policy        web
because       routes[0] matches: path /v1 and below
token         sso (jwt), for tokens of the form jwt, issued by https://sso.example.com
              crm (verifytoken), for tokens of the form opaque
preflight     OPTIONS with Origin and Access-Control-Request-Method passes without a token
the API sees  no token
              X-Edge: gate
              X-Caller: the token's fingerprint
edge cache    an edge may keep an allow for 5s
`},
		"a host before none, and a route that is there twice": {[]string{"--url", "https://API.example.com/v1/x"}, exitGood, `
request       GET API.example.com/v1/x
policy        open
because       routes[1] matches: host api.example.com, path /v1 and below
              as does routes[5], which is equal
              its host comes before routes[0] (path /v1 and below), policy web
token         not looked at: the policy is public
the API sees  no token
`},
		"a method before none, and all that can be required": {[]string{"--url", "https://api.example.com/v1/orders", "--method", "PUT"}, exitGood, `
request       PUT api.example.com/v1/orders
policy        editors
because       routes[3] matches: host api.example.com, path /v1/orders, method PUT, POST
              its methods come before routes[2] (host api.example.com, path /v1/orders), policy tried
              its path comes before routes[1] (host api.example.com, path /v1 and below), policy open
              its path comes before routes[5] (host api.example.com, path /v1 and below), policy open
              its host comes before routes[0] (path /v1 and below), policy web
token         inquired (introspection), after sso has checked the signature
besides       the token has each of the scopes: orders:read
              the token has one of the scopes: orders:write, orders:admin
              the token's audience (aud) has one of: orders
              the claim realm_access.roles contains "editor"
              the claim azp is one of: shop, backoffice
              the claim sub is "7"
              the token was issued (iat) at most 10m0s ago
              the expression is true: request.host != "other"
the API sees  no token
`},
		"a shadow": {[]string{"--url", "https://eu.example.com/v1/orders"}, exitGood, `
request       GET eu.example.com/v1/orders
policy        tried
because       routes[2] matches: host *.example.com, path /v1/orders
              its host comes before routes[0] (path /v1 and below), policy web
token         crm (verifytoken), for tokens of the form opaque
shadow        until 2099-01-31T00:00:00Z everything is let through, and only counted and logged
the API sees  the token, if the edge leaves it there
`},
		"a shadow that is over": {[]string{"--url", "https://www.example.com/v2/old"}, exitGood, `
request       GET www.example.com/v2/old
policy        tried-before
because       routes[4] matches: path like /*/old
token         crm (verifytoken), for tokens of the form opaque
shadow        is over since 2020-01-31T12:00:00Z: the policy is enforced
the API sees  no token
`},
		"the edge names it": {[]string{"--url", "https://www.example.com/v1", "--policy", "open"}, exitGood, `
request       GET www.example.com/v1
policy        open
because       the edge names it, which comes before all routes
              not looked at: routes[0] (path /v1 and below), policy web
token         not looked at: the policy is public
the API sees  no token
`},
		"the edge names one that there is not": {[]string{"--url", "https://www.example.com/v1", "--policy", "opened"}, exitNo, `
request       GET www.example.com/v1
refused       503, unknown_policy: the edge names a policy that is not configured
              before any policy, so a shadow does not let it through
`},
		"a bad path": {[]string{"--url", "https://api.example.com/v1/%2e%2e/x"}, exitNo, `
request       GET api.example.com/v1/%2e%2e/x
refused       400, bad_path: the path is refused: it has a segment of dots
              an HTTP edge is told 403, since nginx makes 500 of a 400
              before any policy, so a shadow does not let it through
`},
		"a bad path and a policy that the edge names": {[]string{"--url", "https://api.example.com//", "--policy", "open"}, exitNo, `
request       GET api.example.com//
refused       400, bad_path: the path is refused: it has a doubled slash
              an HTTP edge is told 403, since nginx makes 500 of a 400
              before any policy, so a shadow does not let it through
`},
		"a path that would move a terminal": {[]string{"--url", "https://api.example.com/\x1b[2J"}, exitNo, `
request       GET api.example.com"/\x1b[2J"
refused       400, bad_path: the path is refused: it has a control character
              an HTTP edge is told 403, since nginx makes 500 of a 400
              before any policy, so a shadow does not let it through
`},
		"a bad host": {[]string{"--url", "https://api..example.com"}, exitNo, `
request       GET api..example.com/
refused       400, bad_host: the host is refused: it is neither a name nor an IP address, with or without a port
              an HTTP edge is told 403, since nginx makes 500 of a 400
              before any policy, so a shadow does not let it through
`},
		"a bad method": {[]string{"--url", "https://api.example.com", "--method", "get"}, exitNo, `
request       get api.example.com/
refused       400, bad_method: the method is refused: it has other characters than capital letters, digits, - and _
              an HTTP edge is told 403, since nginx makes 500 of a 400
              before any policy, so a shadow does not let it through
`},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := inside(t, append([]string{"explain", "--config", path}, test.args...)...)
			if code != test.code || stderr != "" {
				t.Errorf("ended with %d: %s", code, stderr)
			}
			if want := strings.TrimPrefix(test.want, "\n"); stdout != want {
				t.Errorf("says\n%s, want\n%s", stdout, want)
			}
		})
	}
}

// The fields of the JSON form, which scripts go by. They are written out here, not
// taken from the command.
type explained struct {
	Method  string `json:"method"`
	Host    string `json:"host"`
	Path    string `json:"path"`
	Refused *struct {
		Status int    `json:"status"`
		Reason string `json:"reason"`
		Detail string `json:"detail"`
	} `json:"refused"`
	Policy string           `json:"policy"`
	By     string           `json:"by"`
	Routes []explainedRoute `json:"routes"`
	Asks   *explainedAsks   `json:"asks"`
}

type explainedRoute struct {
	Route   string `json:"route"`
	Policy  string `json:"policy"`
	Matches string `json:"matches"`
	Behind  string `json:"behind"`
}

type explainedAsks struct {
	Public       bool                `json:"public"`
	Verifiers    []explainedVerifier `json:"verifiers"`
	Require      []string            `json:"require"`
	Warning      string              `json:"warning"`
	Preflight    string              `json:"preflight"`
	Enforced     bool                `json:"enforced"`
	ShadowUntil  *time.Time          `json:"shadow_until"`
	ForwardToken string              `json:"forward_token"`
	Identity     []explainedIdentity `json:"identity"`
	EdgeCache    string              `json:"edge_cache"`
	Realm        string              `json:"realm"`
}

type explainedVerifier struct {
	Name    string   `json:"name"`
	Kind    string   `json:"kind"`
	Tokens  string   `json:"tokens"`
	Issuers []string `json:"issuers"`
	Behind  string   `json:"behind"`
}

type explainedIdentity struct {
	Name  string `json:"name"`
	Holds string `json:"holds"`
}

// explainJSON calls explain for a script.
func explainJSON(t *testing.T, code int, args ...string) (said explained, text string) {
	t.Helper()
	got, stdout, stderr := inside(t, append([]string{"explain", "--output", "json"}, args...)...)
	decoder := json.NewDecoder(strings.NewReader(stdout))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&said); err != nil || got != code || stderr != "" {
		t.Fatalf("ended with %d, want %d: %s%s: %v", got, code, stdout, stderr, err)
	}
	return said, stdout
}

func TestExplainSaysTheSameToScripts(t *testing.T) {
	path := explainFile(t, explainedFile)
	end := time.Date(2099, 1, 31, 0, 0, 0, 0, time.UTC)
	sso := explainedVerifier{Name: "sso", Kind: "jwt", Tokens: "jwt", Issuers: []string{"https://sso.example.com"}}
	crm := explainedVerifier{Name: "crm", Kind: "verifytoken", Tokens: "opaque"}
	none := []explainedIdentity{}
	for name, test := range map[string]struct {
		args []string
		want explained
	}{
		"the default policy": {[]string{"--url", "https://www.example.com"}, explained{
			Method: "GET", Host: "www.example.com", Path: "/", Policy: "default", By: "default",
			Asks: &explainedAsks{
				Verifiers: []explainedVerifier{crm}, Require: []string{}, Preflight: "refuse", Enforced: true,
				ForwardToken: "strip", Identity: none, EdgeCache: "0s", Realm: "api",
			},
		}},
		"a route": {[]string{"--url", "https://www.example.com/v1", "--method", "POST"}, explained{
			Method: "POST", Host: "www.example.com", Path: "/v1", Policy: "web", By: "route",
			Routes: []explainedRoute{{"routes[0]", "web", "path /v1 and below", ""}},
			Asks: &explainedAsks{
				Verifiers: []explainedVerifier{sso, crm}, Require: []string{}, Preflight: "allow", Enforced: true, ForwardToken: "strip",
				Identity: []explainedIdentity{{"X-Edge", "gate"}, {"X-Caller", "the token's fingerprint"}}, EdgeCache: "5s", Realm: "api",
			},
		}},
		"a shadow": {[]string{"--url", "https://eu.example.com/v1/orders"}, explained{
			Method: "GET", Host: "eu.example.com", Path: "/v1/orders", Policy: "tried", By: "route",
			Routes: []explainedRoute{{"routes[2]", "tried", "host *.example.com, path /v1/orders", ""}, {"routes[0]", "web", "path /v1 and below", "host"}},
			Asks: &explainedAsks{
				Verifiers: []explainedVerifier{crm}, Require: []string{}, Preflight: "refuse", ShadowUntil: &end,
				ForwardToken: "keep", Identity: none, EdgeCache: "0s", Realm: "api",
			},
		}},
		"claims for the API": {[]string{"--url", "https://www.example.com/", "--policy", "told"}, explained{
			Method: "GET", Host: "www.example.com", Path: "/", Policy: "told", By: "edge",
			Asks: &explainedAsks{
				Verifiers: []explainedVerifier{sso}, Require: []string{}, Preflight: "refuse", Enforced: true,
				ForwardToken: "strip", Identity: []explainedIdentity{{"X-Roles", "the token's claim realm_access.roles"}}, EdgeCache: "0s", Realm: "api",
			},
		}},
		"the edge's word": {[]string{"--url", "https://www.example.com/", "--policy", "open"}, explained{
			Method: "GET", Host: "www.example.com", Path: "/", Policy: "open", By: "edge",
			Asks: &explainedAsks{
				Public: true, Verifiers: []explainedVerifier{}, Require: []string{}, Preflight: "refuse", Enforced: true,
				ForwardToken: "strip", Identity: none, EdgeCache: "0s", Realm: "api",
			},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			got, text := explainJSON(t, exitGood, append(test.args, "--config", path)...)
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("says %s", text)
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		got, text := explainJSON(t, exitNo, "--config", path, "--url", "https://api.example.com/a;b")
		if r := got.Refused; r == nil || r.Status != 400 || r.Reason != "bad_path" || !strings.Contains(r.Detail, "semicolon") || got.Policy != "" || got.Asks != nil {
			t.Errorf("says %s", text)
		}
	})
}

// What serve does not read it does not refuse, and what only an expression or a
// preflight reads it does.
func TestExplainChecksWhatServeReads(t *testing.T) {
	const smallest = `
listeners: {ext_authz: {address: "127.0.0.1:9191"}}
verifiers: [{name: crm, verifytoken: {url: "https://api.i1.crm-now.de/v1/getOauthToken.php"}}]
`
	for name, test := range map[string]struct {
		policy, method, url, reason string
	}{
		"nothing":                           {"", "get", "https://a..b/../", ""},
		"a path for an expression":          {"{require: {expression: request.path == '/'}}", "get", "https://a..b/../", "bad_path"},
		"a host for an expression":          {"{require: {expression: request.host == 'a'}}", "get", "https://a..b/../", "bad_host"},
		"a method for preflights":           {"{preflight: allow}", "get", "https://a..b/../", "bad_method"},
		"a path of 8192 bytes":              {"{require: {expression: request.path == '/'}}", "GET", "https://a/" + strings.Repeat("a", 8191), ""},
		"a longer path":                     {"{require: {expression: request.path == '/'}}", "GET", "https://a/" + strings.Repeat("a", 8192), "bad_path"},
		"a part that no client sends (#)":   {"{require: {expression: request.path == '/'}}", "GET", "https://a#b", "bad_path"},
		"a query that is no part of a path": {"{require: {expression: request.path == '/'}}", "GET", "https://a?/../", ""},
	} {
		t.Run(name, func(t *testing.T) {
			text, code := smallest, exitGood
			if test.policy != "" {
				text += "default_policy: " + test.policy + "\n"
			}
			if test.reason != "" {
				code = exitNo
			}
			got, _ := explainJSON(t, code, "--config", explainFile(t, text), "--method", test.method, "--url", test.url)
			if got.Refused == nil && test.reason != "" || got.Refused != nil && got.Refused.Reason != test.reason {
				t.Errorf("says %+v, want %q", got.Refused, test.reason)
			}
		})
	}
}

func TestExplainRefusesWrongUse(t *testing.T) {
	trusting := strings.Replace(explainedFile, `ext_authz: {address: "127.0.0.1:9191"}`,
		`auth_request: {address: "127.0.0.1:9192", trust: {original: x-original}}`, 1)
	for name, test := range map[string]struct {
		file string
		args []string
		want string
	}{
		"no whole URL":               {explainedFile, []string{"--url", "api.example.com/v1"}, "--url: is no whole URL"},
		"another scheme":             {explainedFile, []string{"--url", "ftp://api.example.com/v1"}, "--url: is no whole URL"},
		"a scheme in front of one":   {explainedFile, []string{"--url", "https://http://api.example.com/v1"}, "--url: is no whole URL"},
		"a password":                 {explainedFile, []string{"--url", "https://partner:hunter2@api.example.com/"}, "--url: has a user or a password"},
		"an empty policy":            {explainedFile, []string{"--url", "https://a", "--policy", ""}, "--policy: is empty"},
		"a policy nobody would take": {trusting, []string{"--url", "https://a", "--policy", "open"}, "no listener lets the edge name a policy"},
		"a wrong file":               {"listeners: []", []string{"--url", "https://a"}, "bearergate.yaml:1:"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := inside(t, append([]string{"explain", "--config", explainFile(t, test.file)}, test.args...)...)
			if code != exitWrong || stdout != "" || !strings.HasPrefix(stderr, "bearergate: ") || !strings.Contains(stderr, test.want) || strings.Contains(stderr, "hunter2") {
				t.Errorf("ended with %d: %s%s", code, stdout, stderr)
			}
		})
	}
	t.Run("a listener whose edge may name it by its path", func(t *testing.T) {
		path := explainFile(t, strings.Replace(trusting, "x-original}", "x-original, policy: path}", 1))
		if got, text := explainJSON(t, exitGood, "--config", path, "--url", "https://a", "--policy", "open"); got.Policy != "open" {
			t.Errorf("says %s", text)
		}
	})
}

// The page of policies shows what explain says about its first example.
func TestThePoliciesPageShowsWhatExplainSays(t *testing.T) {
	page, err := os.ReadFile("../../docs/policies.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(page), "```yaml\n")
	example, after, _ := strings.Cut(after, "```\n")
	_, after, _ = strings.Cut(after, "```console\n$ bearergate explain --config bearergate.yaml ")
	line, after, _ := strings.Cut(after, "\n")
	want, _, shown := strings.Cut(after, "```\n")
	code, stdout, stderr := inside(t, append([]string{"explain", "--config", explainFile(t, example)}, strings.Fields(line)...)...)
	if !shown || code != exitGood || stdout != want || stderr != "" {
		t.Errorf("explain ends with %d and says\n%s%s, the page says\n%s", code, stdout, stderr, want)
	}
}

func TestExplainKnowsListenersWithPoliciesOfTheirOwn(t *testing.T) {
	path := explainFile(t, `
listeners:
  ext_authz: {address: "127.0.0.1:9191"}
  admin: {address: "127.0.0.1:9190"}
  more:
    - {name: partners, ext_authz: {address: "127.0.0.1:9193", policies: [web], default_policy: partners}}
    - {name: asked, auth_request: {address: "127.0.0.1:9194", trust: {original: as-asked}}}
verifiers: [{name: crm, verifytoken: {url: "https://api.i1.crm-now.de/v1/getOauthToken.php"}}]
policies: [{name: web}, {name: partners}, {name: inside}]
routes: [{path: {prefix: /v1}, policy: web}, {path: {prefix: /v1/admin}, policy: inside}]
`)
	for name, test := range map[string]struct {
		args   []string
		code   int
		says   string
		stderr string
	}{
		"its default":                     {[]string{"--listener", "partners", "--url", "https://a/"}, exitGood, "policy        partners\nbecause       no route matches\n", ""},
		"one that it serves":              {[]string{"--listener", "partners", "--url", "https://a/v1"}, exitGood, "policy        web\n", ""},
		"one that it does not":            {[]string{"--listener", "partners", "--url", "https://a/v1/admin"}, exitNo, "503, unknown_policy: the request falls under a policy that this listener does not serve\n", ""},
		"what is less specific elsewhere": {[]string{"--listener", "ext_authz", "--url", "https://a/v1/admin"}, exitGood, "routes[0] (path /v1 and below), policy web\n", ""},
		"one that its edge names":         {[]string{"--listener", "partners", "--url", "https://a/", "--policy", "inside"}, exitNo, "503, unknown_policy: the edge names a policy that is not configured\n", ""},
		"an edge that may name none":      {[]string{"--listener", "asked", "--url", "https://a/", "--policy", "inside"}, exitWrong, "", "no listener lets the edge name a policy"},
		"a listener that there is not":    {[]string{"--listener", "partner", "--url", "https://a/"}, exitWrong, "", "there is no such listener for proxies; write ext_authz, auth_request, or a name of listeners.more"},
		"a listener for the operator":     {[]string{"--listener", "admin", "--url", "https://a/"}, exitWrong, "", "there is no such listener for proxies"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := inside(t, append([]string{"explain", "--config", path}, test.args...)...)
			if code != test.code || !strings.Contains(stdout, test.says) || !strings.Contains(stderr, test.stderr) || (test.stderr == "") != (stderr == "") {
				t.Errorf("ended with %d: %s%s", code, stdout, stderr)
			}
		})
	}
}

func TestExplainWarnsOfWhatIsHardlyMeant(t *testing.T) {
	path := explainFile(t, warnedFile)
	code, stdout, stderr := inside(t, "explain", "--config", path, "--url", "https://a/", "--policy", "some")
	if code != exitGood || stderr != "" || !strings.Contains(stdout, "warning       the policy needs claims, and verifiers[1] gives none: ") {
		t.Errorf("ended with %d: %s%s", code, stdout, stderr)
	}
	if said, text := explainJSON(t, exitGood, "--config", path, "--url", "https://a/", "--policy", "some"); !strings.HasPrefix(said.Asks.Warning, "needs claims") {
		t.Errorf("says %s", text)
	}
}
