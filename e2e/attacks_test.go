package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/bearergate/bearergate/deploy"
)

var writePage = flag.Bool("write-attacks", false, "write docs/attacks.md again from the list of attacks")

// attack is a request that somebody made to come past a proxy, an authorizer or a
// policy, as the source tells. In all texts CASE is a name of its own, and CRM,
// READ, WRITE and BAD are tokens.
type attack struct {
	name   string
	source string // advisories or pages, with a space between
	// What is sent over HTTP/1.1: method (GET if empty), target (/private/CASE if empty),
	// host (api.example if empty; none if "-"), header lines, and after the empty line
	// a body, all as they stand here. LENGTH is the body's.
	method, target, host string
	lines                []string
	body                 string
	raw                  string // all of it instead, but for the line that names the case
	// What is sent over HTTP/2 instead: the fields of a header block as they stand here.
	http2 []hpack.HeaderField
	// late says that the body over HTTP/2 comes only when the request is answered.
	late bool
	// good is the good token that the request has, if it has one and says so as it must.
	// It may then reach what that token is good for.
	good string
	// harmless says why it does no harm that it reaches the API through an edge. Without
	// it, it must reach the API through none.
	harmless string
}

// forged marks what a client says under a name that is not its own.
const forged = "forged"

// attackPolicies: below /public, below /partners where the edge names policies, and at
// the host open.example no token is needed. PUT and DELETE below /orders need the
// issuer's token with a scope. All else needs the endpoint's.
const attackPolicies = `policies:
  - {name: open, public: true}
  - {name: partners, public: true}
  - {name: browsers, verifiers: [crm], preflight: allow, identity: [{name: X-Partner, constant: told}]}
  - {name: editors, verifiers: [sso], require: {scopes: {all: ["orders:write"]}}, identity: [{name: X-Partner, constant: told}, {name: X-Editor, constant: told}]}
routes:
  - {path: {prefix: /public}, policy: open}
  - {hosts: [open.example], policy: open}
  - {path: {prefix: /web}, policy: browsers}
  - {path: {prefix: /orders}, methods: [PUT, DELETE], policy: editors}
`

// rawAPI is the API of these tests. Besides what arrives it keeps the bytes of it.
type rawAPI struct {
	server *httptest.Server
	mu     sync.Mutex
	seen   []rawArrival
	bytes  bytes.Buffer
}

// rawArrival is a request as the API saw it.
type rawArrival struct {
	method, target, host string
	header               http.Header
	body                 string
}

func newRawAPI(t *testing.T) *rawAPI {
	t.Helper()
	a := &rawAPI{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a.server = &httptest.Server{Listener: &heard{l, a}, Config: &http.Server{Handler: a, ReadHeaderTimeout: patience}}
	a.server.Start()
	t.Cleanup(a.server.Close)
	return a
}

func (a *rawAPI) address() string { return a.server.Listener.Addr().String() }

func (a *rawAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		http.Error(w, "the body did not arrive", http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	a.seen = append(a.seen, rawArrival{r.Method, r.RequestURI, r.Host, r.Header.Clone(), string(body)})
	a.mu.Unlock()
	_, _ = io.WriteString(w, "the API says 200")
}

// since returns what arrived after the first n requests.
func (a *rawAPI) since(n int) []rawArrival {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.seen[n:])
}

// heard is a listener whose connections note what they read.
type heard struct {
	net.Listener
	api *rawAPI
}

func (l *heard) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &heardConn{c, l.api}, nil
}

type heardConn struct {
	net.Conn
	api *rawAPI
}

func (c *heardConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.api.mu.Lock()
	c.api.bytes.Write(p[:n])
	c.api.mu.Unlock()
	return n, err
}

// testAttacks sends every attack of the list through every edge.
//
// An attack is harmless if of all that reaches the API, however an API may read it,
// nothing is more than the token allows that the request has, and nothing that only
// the gateway may say, and no token, comes from the client.
func testAttacks(t *testing.T, r *run) {
	issuer := newIssuer(t, r)
	reached := &reached{at: map[string]map[string]bool{}}
	for _, codec := range codecs() {
		edges := attackedEdges(t)
		for i := range edges {
			edge := &edges[i]
			if edge.kind.recipe.Name != deploy.Envoy().Name && codec.flags != nil {
				continue // only Envoy's messages are read by them
			}
			t.Run(edge.kind.name+" with "+codec.name, func(t *testing.T) {
				t.Parallel()
				a := newRawAPI(t)
				endpoint := startEndpoint(t, r)
				g := r.startGateway(t, "gateway attacked through "+edge.kind.name+" with "+codec.name, settings{
					endpoint: endpoint.url(), timeout: "3s", flags: codec.flags,
					trust: fmt.Sprintf(", trust: {original: %s, policy: %s, peers: [127.0.0.1]}", edge.original, edge.policy),
					verifiers: fmt.Sprintf("  - name: sso\n    jwt: {issuer: %q, audiences: [orders], algorithms: [ES256], keys: {file: %q}}\n",
						issuerName, issuer.file),
					policy: "{verifiers: [crm], identity: [{name: X-Partner, constant: told}, {name: X-Bearergate-Fingerprint, fingerprint: true}]}",
					more:   attackPolicies,
				})
				s := &attacked{
					edge: r.startEdge(t, edge.kind, g.settings.gates, a.address()), api: a, names: edge.policy == "path" || edge.kind.recipe.Name == deploy.Envoy().Name,
					tokens: map[string]string{
						"CRM": endpoint.issue(t), "READ": issuer.issue(t, "orders:read"), "WRITE": issuer.issue(t, "orders:read orders:write"), "BAD": r.tokens.invent(40),
					},
				}
				s.controls(t)
				for _, attack := range attacks {
					if attack.http2 != nil && !slices.Contains(s.edge.speaks(), http2) {
						continue
					}
					t.Run(attack.name, func(t *testing.T) {
						if s.try(t, attack) {
							reached.note(attack.name, edge.kind.name)
						}
					})
				}
				// Once the edge has ended nothing can come late.
				s.edge.end()
				s.nothingElse(t)
			})
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		for _, attack := range attacks {
			if at := reached.at[attack.name]; attack.harmless != "" && at == nil {
				t.Errorf("%s: it reaches the API through no edge, though the list says why that does no harm", attack.name)
			}
		}
	})
}

// reached notes which attacks reach the API, and where.
type reached struct {
	mu sync.Mutex
	at map[string]map[string]bool
}

func (r *reached) note(attack, edge string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at[attack] == nil {
		r.at[attack] = map[string]bool{}
	}
	r.at[attack][edge] = true
}

type attackedEdge struct {
	kind             edgeKind
	original, policy string // of the listener's trust
}

// attackedEdges are the recipes, with what policies and identity headers need, as
// their pages say.
func attackedEdges(t *testing.T) []attackedEdge {
	t.Helper()
	named := underPolicies(t)
	envoy, nginx := named[0], named[1]
	const exact = "                - { exact: authorization, ignore_case: true }\n"
	envoy.changes = append(envoy.changes, [2]string{exact, exact +
		"                - { exact: origin }\n                - { exact: access-control-request-method }\n"})
	// Envoy waits a second before it closes a connection that it does not understand.
	const seconds = "          request_headers_timeout: 10s\n"
	envoyHTTP, hasty := envoyHTTPWithPolicies(), [2]string{seconds, seconds + "          delayed_close_timeout: 0.05s\n"}
	envoy.changes, envoyHTTP.changes = append(envoy.changes, hasty), append(envoyHTTP.changes, hasty)
	return []attackedEdge{
		{renamed(envoy, "Envoy"), "x-original", "none"},
		{renamed(envoyHTTP, "Envoy over HTTP"), "as-asked", "none"},
		{renamed(nginx, "nginx"), "x-original", "path"},
		{renamed(caddyWithPolicies(), "Caddy"), "x-forwarded", "none"},
	}
}

func renamed(kind edgeKind, name string) edgeKind {
	kind.name = "attacked " + name
	return kind
}

// attacked is an edge and all behind it.
type attacked struct {
	edge   *edge
	api    *rawAPI
	names  bool // the edge names policies
	tokens map[string]string
	known  []string // the names of the cases so far
}

// controls show that the doors of these tests are what the attacks take them for.
func (s *attacked) controls(t *testing.T) {
	t.Helper()
	for _, control := range []struct {
		method, target, host, token string
		status                      int
	}{
		{"GET", "/public/CASE", "", "", 200},
		{"GET", "/CASE", "open.example", "", 200},
		{"GET", "/private/CASE", "", "", 401},
		{"GET", "/private/CASE", "", "BAD", 401},
		{"GET", "/private/CASE", "", "CRM", 200},
		{"GET", "/orders/CASE", "", "CRM", 200},
		{"PUT", "/orders/CASE", "", "CRM", 401},
		{"PUT", "/orders/CASE", "", "READ", 403},
		{"PUT", "/orders/CASE", "", "WRITE", 200},
	} {
		a := attack{method: control.method, target: control.target, host: control.host, good: control.token}
		if control.token != "" {
			a.lines = bearerLine(control.token)
		}
		name, answers, err := s.send(t.Context(), a)
		if err != nil || len(answers) == 0 || answers[0] != control.status {
			t.Fatalf("control %+v (%s): got %v, %v", control, name, answers, err)
		}
	}
}

// try sends an attack and judges it. It reports whether anything reached the API.
func (s *attacked) try(t *testing.T, a attack) bool {
	t.Helper()
	s.api.mu.Lock()
	before, heard := len(s.api.seen), s.api.bytes.Len()
	s.api.mu.Unlock()
	name, answers, err := s.send(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	arrived := s.api.since(before)
	for _, request := range arrived {
		for _, harm := range s.harms(a.good, request) {
			t.Errorf("%s: %s", name, harm)
		}
	}
	s.api.mu.Lock()
	text := string(s.api.bytes.Bytes()[heard:])
	s.api.mu.Unlock()
	for _, harm := range unclearFraming(text) {
		t.Errorf("%s: the API gets %s", name, harm)
	}
	if t.Failed() {
		t.Logf("answers %v; the API got %q", answers, text)
	}
	switch {
	case len(arrived) > 0 && a.harmless == "":
		t.Errorf("%s: it reaches the API: %+v", name, arrived)
	case len(arrived) == 0 && slices.ContainsFunc(answers, func(status int) bool { return status < 400 && status != 101 }):
		t.Errorf("%s: it did not reach the API, but the answers are %v", name, answers)
	}
	return len(arrived) > 0
}

// nothingElse fails the test if anything came to the API that belongs to no attack.
func (s *attacked) nothingElse(t *testing.T) {
	t.Helper()
	for _, request := range s.api.since(0) {
		name := request.header.Get(caseHeader)
		if !slices.Contains(s.known, name) {
			t.Errorf("the API got a request that nobody sent as one: %+v", request)
		}
	}
	s.api.mu.Lock()
	defer s.api.mu.Unlock()
	for word, token := range s.tokens {
		if strings.Contains(s.api.bytes.String(), token) {
			t.Errorf("the API got the token %s", word)
		}
	}
}

// harms are what a request does that it must not.
func (s *attacked) harms(good string, r rawArrival) []string {
	var harms []string
	for _, read := range readings(r) {
		if need := s.needs(read); need != "" && need != good {
			harms = append(harms, fmt.Sprintf("%s %s of %s reaches the API without a token for it, if it reads it like %+v", r.method, r.target, r.host, read))
			break
		}
	}
	for name, values := range r.header {
		folded := fold(name)
		if folded != "x-partner" && folded != "x-editor" && !strings.HasPrefix(folded, "x-bearergate") {
			continue
		}
		if fold(name) != strings.ToLower(name) {
			harms = append(harms, "the client's header "+name+" reaches the API")
		}
		for _, value := range values {
			if strings.Contains(strings.ToLower(value), forged) || len(values) > 1 {
				harms = append(harms, fmt.Sprintf("the API is told %s: %q", name, values))
			}
		}
	}
	if _, ok := r.header["Authorization"]; ok {
		harms = append(harms, "the API got Authorization")
	}
	return harms
}

// needs is what token a request takes: none, or the word for one. It knows the
// policies of these tests, and nothing of how the gateway finds them.
func (s *attacked) needs(r reading) string {
	below := func(prefix string) bool { return r.path == prefix || strings.HasPrefix(r.path, prefix+"/") }
	switch {
	case r.host == "open.example", below("/public"), s.names && below("/partners"):
		return ""
	case below("/web") && r.method == http.MethodOptions && r.preflight:
		return ""
	case below("/orders") && (r.method == http.MethodPut || r.method == http.MethodDelete):
		return "WRITE"
	default:
		return "CRM"
	}
}

// fold is a header's name as an API may read it that knows it as a variable of CGI.
// PHP reads a dot so too.
func fold(name string) string {
	return strings.Map(func(c rune) rune {
		if c < 'a' || c > 'z' {
			if c < '0' || c > '9' {
				return '-'
			}
		}
		return c
	}, strings.ToLower(name))
}

// reading is one of the ways in which an API may read a request.
type reading struct {
	method, host, path string
	preflight          bool
}

// readings are all of them: as it stands, and as frameworks and servers read it that
// decode once more, cut parameters off, take a backslash for a slash, or believe
// headers that name another path, host or method.
func readings(r rawArrival) []reading {
	methods, hosts := []string{r.method}, []string{r.host}
	paths := []string{r.target}
	for name, values := range r.header {
		for _, value := range values {
			switch fold(name) {
			case "x-http-method-override", "x-http-method", "x-method-override", "x-original-method", "x-forwarded-method", "x-envoy-original-method":
				methods = append(methods, strings.ToUpper(value))
			case "x-original-url", "x-rewrite-url", "x-original-uri", "x-forwarded-uri", "x-forwarded-url", "x-forwarded-path", "x-envoy-original-path":
				paths = append(paths, value)
			case "x-forwarded-prefix", "x-script-name":
				paths = append(paths, value+r.target)
			case "x-forwarded-host", "x-original-host", "x-host", "x-forwarded-server", "x-http-host-override", "x-envoy-original-host":
				hosts = append(hosts, strings.Split(value, ",")...)
			case "forwarded":
				for _, match := range regexp.MustCompile(`(?i)host="?([^;,"]*)`).FindAllStringSubmatch(value, -1) {
					hosts = append(hosts, match[1])
				}
			}
		}
	}
	preflight := r.header.Get("Origin") != "" && r.header.Get("Access-Control-Request-Method") != ""
	var all []reading
	for _, target := range paths {
		host, path := cutAbsolute(target)
		at := hosts
		if host != "" {
			at = []string{host}
		}
		for _, path := range pathReadings(path) {
			for _, host := range at {
				for _, method := range methods {
					all = append(all, reading{method, plainHost(host), path, preflight})
				}
			}
		}
	}
	return all
}

// cutAbsolute takes the host off an absolute target.
func cutAbsolute(target string) (host, path string) {
	_, rest, absolute := strings.Cut(target, "://")
	if !absolute || strings.HasPrefix(target, "/") {
		return "", target
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		return rest, "/"
	}
	return rest[:end], rest[end:]
}

// plainHost is a host as servers compare it: without its port and final dot, in lower case.
func plainHost(host string) string {
	host = strings.ToLower(strings.TrimSpace(host))
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.TrimSuffix(host, ".")
}

// pathReadings are the paths that a path may be read as.
func pathReadings(path string) []string {
	first, _, _ := strings.Cut(path, "?")
	found := map[string]bool{first: true}
	todo := []string{first}
	add := func(path string) {
		if !found[path] && len(found) < 4096 {
			found[path] = true
			todo = append(todo, path)
		}
	}
	for len(todo) > 0 {
		path := todo[0]
		todo = todo[1:]
		add(decodedOnce(path))
		add(strings.ReplaceAll(path, `\`, "/"))
		for _, end := range []string{".", " ", "\t", "\x85", "\xa0"} {
			add(strings.TrimSuffix(path, end))
		}
		for _, cut := range []string{"\x00", "#", "?", ";", " ", "\r", "\n"} {
			before, _, _ := strings.Cut(path, cut)
			add(before)
		}
		add(regexp.MustCompile(`;[^/]*`).ReplaceAllString(path, "")) // parameters of segments
		add(regexp.MustCompile(`/{2,}`).ReplaceAllString(path, "/"))
		add(withoutDots(path))
	}
	return slices.Sorted(maps.Keys(found))
}

// decodedOnce decodes what is percent-encoded, and leaves the rest.
func decodedOnce(path string) string {
	return regexp.MustCompile(`%[0-9a-fA-F]{2}`).ReplaceAllStringFunc(path, func(coded string) string {
		var c byte
		_, _ = fmt.Sscanf(coded[1:], "%02x", &c)
		return string([]byte{c})
	})
}

// withoutDots resolves segments of dots (RFC 3986 §5.2.4).
func withoutDots(path string) string {
	var kept []string
	for segment := range strings.SplitSeq(path, "/") {
		switch strings.TrimSpace(segment) {
		case ".":
		case "..":
			if len(kept) > 1 {
				kept = kept[:len(kept)-1]
			}
		default:
			kept = append(kept, segment)
		}
	}
	return strings.Join(kept, "/")
}

// unclearFraming says what of a text that an edge sent makes its requests end in
// different places for different readers.
func unclearFraming(text string) []string {
	var harms []string
	for head := range strings.SplitSeq(text, "\r\n\r\n") {
		lower := strings.ToLower(head)
		if strings.Contains(lower, "\ncontent-length:") && strings.Contains(lower, "\ntransfer-encoding:") {
			harms = append(harms, "both Content-Length and Transfer-Encoding")
		}
		for line := range strings.SplitSeq(lower, "\r\n") {
			if strings.HasPrefix(line, "transfer-encoding") && line != "transfer-encoding: chunked" {
				harms = append(harms, fmt.Sprintf("%q", line))
			}
		}
	}
	return harms
}

// send sends an attack, and returns its name and the status of each answer.
func (s *attacked) send(ctx context.Context, a attack) (name string, answers []int, err error) {
	name = s.edge.run.nextCase()
	s.known = append(s.known, name)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var body string
	fill := func(text string) string {
		text = strings.NewReplacer("CASE", name, "LENGTH", strconv.Itoa(len(body))).Replace(text)
		for word, token := range s.tokens {
			text = regexp.MustCompile(`\b`+word+`\b`).ReplaceAllLiteralString(text, token)
		}
		return text
	}
	body = fill(a.body)
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "tcp", s.edge.address)
	if err != nil {
		return name, nil, err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return name, nil, err
		}
	}
	if a.http2 != nil {
		var fields []hpack.HeaderField
		for _, f := range append(slices.Clone(a.http2), hpack.HeaderField{Name: "x-case", Value: "CASE"}) {
			fields = append(fields, hpack.HeaderField{Name: fill(f.Name), Value: fill(f.Value)})
		}
		answers, err = exchangeHTTP2(c, fields, body, a.late)
		return name, answers, err
	}
	text := a.raw
	if text == "" {
		host := "Host: " + either(a.host, "api.example") + "\r\n"
		if a.host == "-" {
			host = ""
		}
		text = either(a.method, "GET") + " " + either(a.target, "/private/CASE") + " HTTP/1.1\r\n" + host + "X-Case: CASE\r\n"
		for _, line := range a.lines {
			text += line + "\r\n"
		}
		text += "\r\n"
	}
	answers, err = exchangeHTTP1(c, a.method, fill(text)+body)
	return name, answers, err
}

// lastRequest is sent behind an attack once that is answered, so that the edge closes
// the connection when it has answered all that it took for requests. It has no token.
const lastRequest = "GET /private/last HTTP/1.1\r\nHost: api.example\r\nX-Case: last\r\nConnection: close\r\n\r\n"

// exchangeHTTP1 writes a text and returns the status of all answers to it. A
// connection that the edge closes is an answer too, and has no status.
func exchangeHTTP1(c net.Conn, method, text string) ([]int, error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.WriteString(c, text) // the edge may have refused before it has read all
	}()
	defer func() { _ = c.Close(); <-done }()
	var answers []int
	reader := bufio.NewReader(c)
	for {
		r, err := http.ReadResponse(reader, &http.Request{Method: method})
		if err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				return answers, fmt.Errorf("no answer, and the connection stays open: %w", err)
			}
			return answers, nil
		}
		status := r.StatusCode
		if code := r.Header.Get("Grpc-Status"); code != "" && code != "0" {
			status = http.StatusUnauthorized // a refusal in gRPC's words
		}
		answers = append(answers, status)
		_, err = io.Copy(io.Discard, io.LimitReader(r.Body, 1<<20))
		_ = r.Body.Close()
		if r.Close || err != nil {
			return answers, nil // no other answer can come
		}
		if len(answers) == 1 {
			<-done
			if _, err := io.WriteString(c, lastRequest); err != nil {
				return answers, nil
			}
		}
		method = http.MethodGet // a further answer is to another request
	}
}

func TestTheReadingsOfAPathHoldWhatCarelessReadersMakeOfIt(t *testing.T) {
	for path, want := range map[string]string{
		"/public/../private":             "/private",
		"/public/%2e%2e/private":         "/private",
		"/public/%252e%252e/private":     "/private",
		"/public/..;/private":            "/private",
		"/public;/../private":            "/private",
		`/public/..\private`:             "/private",
		"/public/..%5cprivate":           "/private",
		"/public%2f..%2fprivate":         "/private",
		"//private":                      "/private",
		"/private%00/public":             "/private",
		"/private%23/public":             "/private",
		"/private;/public":               "/private",
		"/private%20":                    "/private",
		"/private\xa0":                   "/private",
		"/public/./..//./private?x=/y":   "/private",
		"/public/x/%2e%2e/%2e%2e/orders": "/orders",
	} {
		if got := pathReadings(path); !slices.Contains(got, want) {
			t.Errorf("%q is read as %q, want %q among them", path, got, want)
		}
	}
	for _, path := range []string{"/public/x", "/public/x?y=/../private", "/public/%41", "/public/a.b/c-d"} {
		for _, got := range pathReadings(path) {
			if got != "/public" && !strings.HasPrefix(got, "/public/") {
				t.Errorf("%q is read as %q", path, got)
			}
		}
	}
}

func TestWhatDoesHarmIsSeen(t *testing.T) {
	s := &attacked{}
	header := func(name, value string) http.Header { return http.Header{name: {value}} }
	for name, test := range map[string]struct {
		good string
		r    rawArrival
	}{
		"no token":                    {"", rawArrival{method: "GET", target: "/private/x", host: "api.example"}},
		"a token for something else":  {"CRM", rawArrival{method: "PUT", target: "/orders/x", host: "api.example"}},
		"another method, by a header": {"CRM", rawArrival{method: "GET", target: "/orders/x", host: "api.example", header: header("X-Http-Method-Override", "put")}},
		"another path, by a header":   {"", rawArrival{method: "GET", target: "/public/x", host: "api.example", header: header("X-Original-Url", "/private")}},
		"another host, by a header":   {"", rawArrival{method: "GET", target: "/x", host: "open.example", header: header("X-Forwarded-Host", "api.example")}},
		"an absolute target":          {"", rawArrival{method: "GET", target: "http://api.example/x", host: "open.example"}},
		"somebody's name":             {"", rawArrival{method: "GET", target: "/public/x", header: header("X-Partner", forged)}},
		"somebody's name, with a dot": {"", rawArrival{method: "GET", target: "/public/x", header: header("X.partner", "x")}},
		"a token":                     {"", rawArrival{method: "GET", target: "/public/x", header: header("Authorization", "x")}},
	} {
		if harms := s.harms(test.good, test.r); harms == nil {
			t.Errorf("%s: no harm is seen", name)
		}
	}
	for _, text := range []string{
		"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
		"GET / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
		"GET / HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n",
	} {
		if unclearFraming(text) == nil {
			t.Errorf("no harm is seen in %q", text)
		}
	}
}

func TestThePageOfAttacksIsTheList(t *testing.T) {
	const page, begin, end = "../docs/attacks.md", "<!-- the list -->\n", "<!-- its end -->\n"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), begin)
	_, after, ends := strings.Cut(rest, end)
	if !found || !ends {
		t.Fatalf("%s has no place for the list", page)
	}
	want := before + begin + attackTable() + end + after
	if *writePage {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if want != string(text) {
		t.Errorf("%s is not what the list is; run make attacks", page)
	}
}

func TestEveryAttackHasASource(t *testing.T) {
	names := map[string]bool{}
	source := regexp.MustCompile(`^(CVE-\d{4}-\d{4,}|GHSA(-[23456789cfghjmpqrvwx]{4}){3}|RFC\d+§[0-9.]+|https://[^\s]+)$`)
	for _, a := range attacks {
		if names[a.name] {
			t.Errorf("%s: there twice", a.name)
		}
		names[a.name] = true
		if a.source == "" {
			t.Errorf("%s: no source", a.name)
		}
		for from := range strings.FieldsSeq(a.source) {
			if !source.MatchString(from) {
				t.Errorf("%s: the source %q has no known form", a.name, from)
			}
		}
	}
	if len(attacks) < 60 {
		t.Errorf("%d attacks, want 60 at least", len(attacks))
	}
}

// attackTable is the list as it stands in docs/attacks.md.
func attackTable() string {
	var table strings.Builder
	fmt.Fprintf(&table, "%d attacks.\n\n| attack | source | what becomes of it |\n|---|---|---|\n", len(attacks))
	for _, a := range attacks {
		var sources []string
		for from := range strings.FieldsSeq(a.source) {
			switch {
			case strings.HasPrefix(from, "CVE-"):
				from = "[" + from + "](https://www.cve.org/CVERecord?id=" + from + ")"
			case strings.HasPrefix(from, "GHSA-"):
				from = "[" + from + "](https://github.com/advisories/" + from + ")"
			case strings.HasPrefix(from, "RFC"):
				number, section, _ := strings.Cut(from[len("RFC"):], "§")
				from = "[RFC " + number + " §" + section + "](https://www.rfc-editor.org/rfc/rfc" + number + "#section-" + section + ")"
			default:
				_, place, _ := strings.Cut(from, "://")
				host, _, _ := strings.Cut(place, "/")
				from = "[" + strings.TrimPrefix(host, "www.") + "](" + from + ")"
			}
			sources = append(sources, from)
		}
		fmt.Fprintf(&table, "| %s | %s | %s |\n", strings.ReplaceAll(a.name, "|", `\|`), strings.Join(sources, ", "), either(a.harmless, "refused"))
	}
	return table.String()
}
