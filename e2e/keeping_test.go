package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bearergate/bearergate/crmnow"
	"github.com/bearergate/bearergate/deploy"
)

// life is how long the gateway of these tests uses an answer, and lets an edge use it.
const life = 4 * time.Second

// keepers are the edges that keep answers, with several workers.
func keepers() []edgeKind {
	return []edgeKind{
		{
			name: "Envoy with three workers that keep answers", recipe: deploy.EnvoyCache(), args: []string{"--concurrency", "3"},
			changes: [][2]string{{"local LIMIT = 5000", "local LIMIT = 20"}},
		},
		{
			name: "nginx with three workers that keep answers", recipe: deploy.NginxCache(),
			changes: [][2]string{
				{"worker_processes auto;", "worker_processes 3;"},
				{"keys_zone=bearergate:2m", "keys_zone=bearergate:32k"},
				{"auth_request_set $gate_fingerprint", "auth_request_set $gate_partner $upstream_http_x_partner;\nauth_request_set $gate_fingerprint"},
				{"proxy_set_header X-Bearergate-Fingerprint", "proxy_set_header X-Partner $gate_partner;\nproxy_set_header X-Bearergate-Fingerprint"},
			},
		},
		{
			name: "nginx with three workers that keep answers in Lua", recipe: deploy.NginxLua(),
			changes: [][2]string{
				{"worker_processes auto;", "worker_processes 3;"},
				{"lua_shared_dict bearergate 2m;", "lua_shared_dict bearergate 32k;"},
				{`local TOLD = { "gate_reason",`, `local TOLD = { "gate_partner", "gate_reason",`},
				{"auth_request_set $gate_fingerprint", "auth_request_set $gate_partner $upstream_http_x_partner;\nauth_request_set $gate_fingerprint"},
				{"proxy_set_header X-Bearergate-Fingerprint", "proxy_set_header X-Partner $gate_partner;\nproxy_set_header X-Bearergate-Fingerprint"},
			},
		},
	}
}

// testKeeping is about edges that keep what the gateway allows. A gateway stands
// behind each edge alone, so that its decisions can be counted.
func testKeeping(t *testing.T, r *run, codec codecKind) {
	kinds := codec.own(keepers())
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			s := r.startStack(t, kind.name+" and "+codec.name, []edgeKind{kind}, settings{
				timeout: "3s", flags: codec.flags,
				cache: fmt.Sprintf("{valid_ttl: %s, invalid_ttl: 1ms, refresh_before: 0s}", life),
				policy: fmt.Sprintf("{edge_cache: %s, identity: [{name: X-Partner, constant: crm now}, "+
					"{name: X-Bearergate-Fingerprint, fingerprint: true}]}", life),
			})
			k := &keeper{s, s.edges[0]}
			t.Run("a token that was withdrawn stops in time", k.testWithdrawn)
			t.Run("a token that has ended stops in time", k.testEnded)
			t.Run("two tokens share no answer", k.testTwoTokens)
			t.Run("two hosts share no answer", k.testTwoHosts)
			t.Run("refusals are not kept", k.testRefusals)
			t.Run("no client brings what lets it through", k.testForgeries)
			t.Run("a flood of tokens stays within bounds", k.testFlood)
		})
	}
	t.Run("the gateway is asked seldom, and the API told all the same", func(t *testing.T) {
		for _, kind := range kinds {
			t.Run(kind.name, func(t *testing.T) {
				t.Parallel()
				// No answer ends while this runs.
				s := r.startStack(t, kind.name+" and "+codec.name+", for long", []edgeKind{kind}, settings{
					timeout: "3s", flags: codec.flags, cache: "{valid_ttl: 300s, refresh_before: 0s}",
					policy: "{edge_cache: 300s, identity: [{name: X-Partner, constant: crm now}, {name: X-Bearergate-Fingerprint, fingerprint: true}]}",
				})
				(&keeper{s, s.edges[0]}).testAskedSeldom(t)
			})
		}
	})
	t.Run("two policies share no answer", func(t *testing.T) {
		for _, kind := range kinds {
			t.Run(kind.name, func(t *testing.T) {
				t.Parallel()
				testTwoPolicies(t, r, kind, codec)
			})
		}
	})
	t.Run("under several policies", func(t *testing.T) {
		for _, kind := range kinds {
			t.Run(kind.name, func(t *testing.T) {
				t.Parallel()
				testKeepingUnderPolicies(t, r, kind, codec)
			})
		}
	})
	if codec.flags == nil { // where nobody is asked, the codec does not matter
		t.Run("what is asked about by nobody is refused", func(t *testing.T) {
			t.Parallel()
			testNobodyAsked(t, r)
		})
	}
	t.Run("more than an edge compares is not kept", func(t *testing.T) {
		for _, kind := range kinds {
			// As if the gateway had named something of which the edge knows nothing.
			switch kind.recipe.Program {
			case "envoy":
				kind.changes = append(kind.changes, [2]string{"COVERED = { authorization = true,", "COVERED = { authorization = false,"})
			default:
				kind.changes = append(kind.changes, [2]string{`        "~^200 valid authorization(, host)?$" 0;`, `        "~^200 valid host$" 0;`})
			}
			kind.name += ", but not these"
			t.Run(kind.name, func(t *testing.T) {
				t.Parallel()
				s := r.startStack(t, kind.name, []edgeKind{kind}, settings{timeout: "3s", flags: codec.flags, policy: "{edge_cache: 60s}"})
				k := &keeper{s, s.edges[0]}
				token := s.endpoint.issue(t)
				begin := k.decisions(t)
				for range 20 {
					k.ask(t, token, allowed)
				}
				if asked := k.decisions(t) - begin; asked != 20 {
					t.Errorf("the gateway was asked %d times about 20 requests", asked)
				}
			})
		}
	})
}

// testNobodyAsked: the line that asks was lost, and all that comes after it is there.
func testNobodyAsked(t *testing.T, r *run) {
	kind := edgeKind{
		name: "nginx with Lua that asks nobody", recipe: deploy.NginxLua(),
		changes: [][2]string{{"            auth_request /_bearergate;\n", ""}},
	}
	s := r.startStack(t, kind.name, []edgeKind{kind}, settings{timeout: "3s", policy: "{edge_cache: 60s}"})
	got, name := s.edges[0].send(t, request{lines: bearerLine(s.endpoint.issue(t))})
	if got.status != http.StatusServiceUnavailable || len(s.api.of(name)) > 0 {
		t.Errorf("got %d %q, and the API %d requests", got.status, got.body, len(s.api.of(name)))
	}
}

// keeper is a stack with one edge.
type keeper struct {
	*stack

	edge *edge
}

// ask sends a request on a connection of its own, so that it may come to any worker.
func (k *keeper) ask(t *testing.T, token string, want answer, lines ...string) arrival {
	t.Helper()
	got, name := k.edge.send(t, request{lines: append(bearerLine(token), lines...)})
	k.check(t, k.edge, got, name, want)
	if want != allowed {
		return arrival{}
	}
	return k.api.of(name)[0]
}

// decisions returns how many the gateway has made.
func (k *keeper) decisions(t *testing.T) int {
	t.Helper()
	page, err := get(t.Context(), "http://"+k.gateway.settings.admin+"/metrics")
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for _, line := range regexp.MustCompile(`(?m)^bearergate_decisions_total\{.*\} (\d+)$`).FindAllStringSubmatch(page, -1) {
		n, err := strconv.Atoi(line[1])
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// testAskedSeldom: in a hundred requests, most of which the edge answers itself,
// the API sees what it would see if each was asked about.
func (k *keeper) testAskedSeldom(t *testing.T) {
	const requests = 100
	token := k.endpoint.issue(t)
	begin := k.decisions(t)
	seen := map[string]bool{}
	for range requests {
		h := k.ask(t, token, allowed, "X-Partner: a lie", "x-partner: another", "X_Partner: a third", "X-Bearergate-Fingerprint: a lie").header
		if partner := h["X-Partner"]; len(partner) != 1 || partner[0] != "crm now" {
			t.Fatalf("the API is told X-Partner: %q", partner)
		}
		for name := range h {
			if strings.Contains(name, "_") {
				t.Fatalf("the API got the client's %s", name)
			}
		}
		seen[h.Get("X-Bearergate-Fingerprint")] = true
	}
	if len(seen) != 1 || seen[""] {
		t.Errorf("the API is told the fingerprints %v", seen)
	}
	// Each of the three workers once.
	if asked := k.decisions(t) - begin; asked < 1 || asked > 3 {
		t.Errorf("the gateway was asked %d times about %d requests", asked, requests)
	}
}

// stops sends the token until it is refused, and fails when that takes longer than
// an answer that was there at the beginning may live.
func (k *keeper) stops(t *testing.T, token string) {
	t.Helper()
	since, refused := time.Now(), 0
	// What was allowed before lives no longer than this. A second more is for an
	// answer that was long on its way on a busy machine.
	for limit := life + time.Second; refused < 30; {
		sent := time.Since(since)
		got, _ := k.edge.send(t, request{lines: bearerLine(token)})
		switch got.status {
		case http.StatusUnauthorized:
			refused++
		case http.StatusOK:
			refused = 0 // by another worker
			if sent > limit {
				t.Fatalf("it passes after %s", sent)
			}
		default:
			t.Fatalf("got %d", got.status)
		}
	}
}

// warm has every worker know a token.
func (k *keeper) warm(t *testing.T, token string) {
	t.Helper()
	for range 30 {
		k.ask(t, token, allowed)
	}
}

func (k *keeper) testWithdrawn(t *testing.T) {
	token := k.endpoint.issue(t)
	k.warm(t, token)
	if !k.endpoint.Revoke(crmnow.NewSecret(token)) {
		t.Fatal("the endpoint does not know the token")
	}
	k.stops(t, token)
}

func (k *keeper) testEnded(t *testing.T) {
	grant, err := k.endpoint.Issue(2 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	token := k.run.tokens.add(grant.AccessToken.Reveal())
	k.ask(t, token, allowed)
	k.stops(t, token)
}

func (k *keeper) testTwoTokens(t *testing.T) {
	one, two := k.endpoint.issue(t), k.endpoint.issue(t)
	k.warm(t, one)
	first := k.ask(t, one, allowed).header.Get("X-Bearergate-Fingerprint")
	for range 30 {
		if second := k.ask(t, two, allowed).header.Get("X-Bearergate-Fingerprint"); second == first {
			t.Fatal("the second token has the fingerprint of the first")
		}
		// One that begins, ends or is written like it.
		for _, other := range []string{one[:len(one)-1], one + "x", strings.ToLower(one), "x" + one} {
			if other != one {
				k.ask(t, k.run.tokens.add(other), invalidToken)
			}
		}
	}
	k.ask(t, k.run.tokens.invent(40), invalidToken)
}

// testTwoHosts: what was allowed for one host is asked about for another.
func (k *keeper) testTwoHosts(t *testing.T) {
	token := k.endpoint.issue(t)
	k.warm(t, token)
	for i := range 5 {
		begin := k.decisions(t)
		got, name := k.edge.send(t, request{host: fmt.Sprintf("other-%d.example", i), lines: bearerLine(token)})
		k.check(t, k.edge, got, name, allowed)
		if asked := k.decisions(t) - begin; asked != 1 {
			t.Errorf("the gateway was asked %d times about a request to another host, want once", asked)
		}
	}
}

// testTwoPolicies has two doors in one edge, each with a gateway of its own: what one
// gateway allows, the other is asked about.
func testTwoPolicies(t *testing.T, r *run, kind edgeKind, codec codecKind) {
	with := settings{timeout: "3s", flags: codec.flags, policy: fmt.Sprintf("{edge_cache: %s}", life)}
	second := r.startStack(t, kind.name+", the second policy", nil, with)
	door := r.ports.free(t)
	kind.name += ", with two policies"
	kind.changes = append(kind.changes[:0:0], secondDoor(t, kind.recipe, door, second.gateway.settings.gates)...)
	first := r.startStack(t, kind.name, []edgeKind{kind}, with)
	one := first.edges[0]
	other := *one
	other.address = door
	ask := func(e *edge, s *stack, token string, want answer) {
		t.Helper()
		got, name := e.send(t, request{lines: bearerLine(token)})
		s.check(t, e, got, name, want)
	}
	ones, others := first.endpoint.issue(t), second.endpoint.issue(t)
	for range 30 {
		ask(one, first, ones, allowed)
		ask(&other, second, others, allowed)
	}
	for range 30 {
		ask(&other, second, ones, invalidToken)
		ask(one, first, others, invalidToken)
	}
}

// testKeepingUnderPolicies: as the recipes stand, nothing is kept when the gateway has
// several policies. With the change that they tell of, a request by another method or
// path is asked about, since it may fall under another policy.
func testKeepingUnderPolicies(t *testing.T, r *run, kind edgeKind, codec codecKind) {
	compares := kind
	compares.name += ", and compare method and path"
	// In both recipes of nginx.
	kept := [][2]string{
		{`        "~^200 valid authorization(, host)?$" 0;`, ""},
		{`        # "~^200 valid authorization(, method)`, `        "~^200 valid authorization(, method)`},
	}
	switch kind.recipe.Name {
	case deploy.EnvoyCache().Name:
		compares.changes = append(slices.Clip(kind.changes),
			[2]string{"local BY_PATH = false", "local BY_PATH = true"}, [2]string{"local ROUTES_NAME_NONE = false", "local ROUTES_NAME_NONE = true"})
	case deploy.NginxLua().Name:
		compares.changes = append(slices.Concat(kind.changes, kept),
			[2]string{`            set $gate_key "http://bearergate/auth /_bearergate $host`, `            # set $gate_key "http://bearergate/auth /_bearergate $host`},
			[2]string{`            # set $gate_key "http://bearergate/auth /_bearergate $request_method`, `            set $gate_key "http://bearergate/auth /_bearergate $request_method`})
	default:
		compares.changes = append(slices.Concat(kind.changes, kept),
			[2]string{`            proxy_cache_key "$proxy_host $uri $host`, `            # proxy_cache_key "$proxy_host $uri $host`},
			[2]string{`            # proxy_cache_key "$proxy_host $uri $request_method`, `            proxy_cache_key "$proxy_host $uri $request_method`})
	}
	s := r.startStack(t, kind.name+", under policies", []edgeKind{kind, compares}, settings{
		timeout: "3s", flags: codec.flags, policy: "{edge_cache: 60s}", trust: ", trust: {original: x-original, policy: path}",
		more: `policies:
  - {name: reading, edge_cache: 60s, realm: reading, require: {expression: 'request.method == "GET"'}}
routes:
  - {hosts: [api.example], path: {prefix: /read}, policy: reading}
`,
	})
	k, keeps := &keeper{s, s.edges[0]}, &keeper{s, s.edges[1]}
	token := s.endpoint.issue(t)
	ask := func(k *keeper, method, path string, want answer) {
		t.Helper()
		got, name := k.edge.send(t, request{method: method, path: path, lines: bearerLine(token)})
		if got.status != want.status || len(s.api.of(name)) > 0 != (want == allowed) {
			t.Errorf("%s: %s %s: got %d, want %d", k.edge.name, method, path, got.status, want.status)
		}
	}
	const requests = 40
	begin := k.decisions(t)
	for range requests {
		ask(k, "GET", "/read/x", allowed)
	}
	if asked := k.decisions(t) - begin; asked != requests {
		t.Errorf("the gateway was asked %d times about %d requests, though the edge does not compare all", asked, requests)
	}
	begin = keeps.decisions(t)
	for range requests {
		ask(keeps, "GET", "/read/x", allowed)
		ask(keeps, "POST", "/other", allowed)
	}
	if asked := keeps.decisions(t) - begin; asked > requests/2 {
		t.Errorf("the gateway was asked %d times about %d requests that are alike", asked, 2*requests)
	}
	for range requests / 4 {
		ask(keeps, "POST", "/read/x", insufficientScope)
		ask(keeps, "POST", "/read/x/../../other", map[bool]answer{true: badPath, false: allowed}[kind.recipe.Program == "nginx"])
		ask(keeps, "POST", "/other/../read/x", map[bool]answer{true: badPath, false: insufficientScope}[kind.recipe.Program == "nginx"])
	}
}

// secondDoor returns the changes that give a recipe another door with another gateway
// behind it, and all else alike.
func secondDoor(t *testing.T, recipe deploy.Recipe, door string, gateway gates) [][2]string {
	t.Helper()
	text, err := recipe.Text()
	if err != nil {
		t.Fatal(err)
	}
	between := func(begin, end string) string {
		_, rest, found := strings.Cut(text, begin)
		part, _, ends := strings.Cut(rest, end)
		if !found || !ends {
			t.Fatalf("%q to %q is not in the recipe", begin, end)
		}
		return begin + part
	}
	if recipe.Program == "nginx" {
		server := strings.NewReplacer("0.0.0.0:8080", door, "http://bearergate/", "http://another/", "127.0.0.1:9192", gateway.authRequest)
		const anchor = "    # When to come back: what the gateway says"
		upstream := strings.Replace(between("    upstream bearergate {", "    upstream api {"), "upstream bearergate", "upstream another", 1)
		return [][2]string{{anchor, server.Replace(upstream) + server.Replace(between("    server {\n        listen 0.0.0.0:8080", "\n    }\n}\n")) + "\n    }\n" + anchor}}
	}
	place := func(address string) string {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("{ socket_address: { address: %s, port_value: %s } }", host, port)
	}
	listener := strings.NewReplacer(
		"name: edge", "name: another", "{ socket_address: { address: 0.0.0.0, port_value: 8080 } }", place(door),
		"cluster_name: bearergate", "cluster_name: another",
	).Replace(between("  - name: edge\n", "  clusters:\n"))
	_, cluster, found := strings.Cut(text, "  - name: bearergate\n    type:")
	if !found {
		t.Fatal("the gateway's cluster is not in the recipe")
	}
	cluster = "  - name: another\n    type:" + strings.NewReplacer(
		"cluster_name: bearergate", "cluster_name: another",
		"{ socket_address: { address: 127.0.0.1, port_value: 9191 } }", place(gateway.extAuthz),
	).Replace(cluster)
	return [][2]string{{"  clusters:\n", listener + "  clusters:\n" + cluster}}
}

func (k *keeper) testRefusals(t *testing.T) {
	token := k.run.tokens.invent(40)
	for range 10 {
		k.ask(t, token, invalidToken)
	}
	begin := k.decisions(t)
	for range 10 {
		k.ask(t, k.run.tokens.invent(40), invalidToken)
	}
	if asked := k.decisions(t) - begin; asked != 10 {
		t.Errorf("the gateway was asked %d times about 10 requests that it refused", asked)
	}
	token = k.run.tokens.invent(40)
	end := k.endpoint.trouble(t, crmnow.Fault{Status: http.StatusInternalServerError, Times: 1})
	defer end()
	k.ask(t, token, noVerifier)
	end()
	k.endpoint.accept(t, token)
	// The next question is answered, whoever was asked before.
	for range 10 {
		k.ask(t, token, allowed)
	}
}

// testForgeries sends what lets a request through when others say it: an answer of
// the gateway, or words of an edge to itself.
func (k *keeper) testForgeries(t *testing.T) {
	good := k.endpoint.issue(t)
	k.warm(t, good)
	lines := []string{
		"bearergate: kept", "kept: true", "X-Bearergate-Kept: true", "X-Bearergate-Depends-On: authorization", "X-Bearergate-Reason: valid",
		"X-Accel-Expires: 300", "Cache-Control: max-age=300, only-if-cached", "X-Envoy-Dynamic-Metadata: bearergate.kept=true",
		"X-Envoy-Filter-Metadata: {\"bearergate\":{\"kept\":true}}", "If-None-Match: *", "Range: bytes=0-0", "Cookie: kept=true",
	}
	for range 10 {
		got, name := k.edge.send(t, request{lines: lines})
		k.check(t, k.edge, got, name, missingToken)
		k.ask(t, k.run.tokens.invent(40), invalidToken, lines...)
		// A good token that is known to every worker, and something beside it.
		twice := multipleTokens
		if k.edge.recipe.Program == "nginx" {
			twice = badRequest
		}
		k.ask(t, good, twice, bearerLine(good)...)
		k.ask(t, k.run.tokens.invent(40), twice, bearerLine(good)...)
		k.ask(t, good+","+good, multipleTokens)
	}
}

// testFlood: more good tokens than there is room for all pass, and leave no more
// behind than there is room for.
func (k *keeper) testFlood(t *testing.T) {
	const tokens = 500
	asked := make([]string, tokens)
	for i := range asked {
		asked[i] = k.endpoint.issue(t)
		k.ask(t, asked[i], allowed)
	}
	switch k.edge.recipe.Name {
	case deploy.NginxLua().Name:
		// Those that came last are there, if anything is.
		begin := k.decisions(t)
		for _, token := range slices.Backward(asked) {
			k.ask(t, token, allowed)
		}
		if kept := tokens - (k.decisions(t) - begin); kept < 1 || kept > 256 {
			t.Errorf("nginx kept %d answers", kept)
		}
		return
	case deploy.NginxCache().Name:
		files := 0
		err := filepath.WalkDir(k.edge.memory, func(_ string, entry fs.DirEntry, err error) error {
			if err == nil && entry.Type().IsRegular() {
				files++
			}
			return err
		})
		// 32 KiB are less than 256 of the 128 bytes that nginx has for each.
		if err != nil || files < 10 || files > 256 {
			t.Errorf("nginx keeps %d answers, %v", files, err)
		}
		return
	}
	most := 0
	eventually(t, "Envoy has logged its last request", func() error {
		text, err := os.ReadFile(k.edge.stdout)
		if err != nil {
			return err
		}
		lines := 0
		for line := range bytes.Lines(text) {
			var entry logEntry
			if json.Unmarshal(line, &entry) == nil {
				lines++
				most = max(most, entry.KeptAnswers)
			}
		}
		if lines < tokens {
			return fmt.Errorf("%d lines", lines)
		}
		return nil
	})
	// Two generations of 20.
	if most > 40 || most <= 20 {
		t.Errorf("a worker of Envoy keeps up to %d answers", most)
	}
}
