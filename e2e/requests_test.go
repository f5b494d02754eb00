package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// answer is what a client must get, and why.
type answer struct {
	status int
	reason string // the gateway's word, or one of the two below
}

const (
	// The edge refuses on its own, in its own words.
	ofTheEdge = ""
	// The edge could not ask the gateway, and says so in the gateway's words.
	notAsked = "not asked"
)

var (
	allowed        = answer{http.StatusOK, "valid"}
	missingToken   = answer{http.StatusUnauthorized, "missing_token"}
	malformedToken = answer{http.StatusUnauthorized, "malformed_token"}
	multipleTokens = answer{http.StatusUnauthorized, "multiple_tokens"}
	tokenInURL     = answer{http.StatusUnauthorized, "token_in_url"}
	invalidToken   = answer{http.StatusUnauthorized, "invalid_token"}
	noVerifier     = answer{http.StatusServiceUnavailable, "verifier_unavailable"}
	noGateway      = answer{http.StatusServiceUnavailable, notAsked}
	badRequest     = answer{http.StatusBadRequest, ofTheEdge}
	needsUpgrade   = answer{http.StatusUpgradeRequired, ofTheEdge}
)

const (
	http10 = "HTTP/1.0"
	http11 = "HTTP/1.1"
	http2  = "HTTP/2.0"
)

// credentialCases are requests by what they carry. In lines and query, GOOD, EVERY and
// LONG! are tokens of the endpoint; UNKNOWN, SHORT, LONGEST and TOOLONG are made up.
var credentialCases = []struct {
	name   string
	lines  []string
	query  string
	host   string   // api.example if empty
	protos []string // all that the edge speaks, HTTP/1.0 apart, if empty
	want   answer
	// but is what an edge makes of it that differs, by its own or the recipe's name.
	but map[string]answer
}{
	{name: "a good token", lines: []string{"Authorization: Bearer GOOD"}, want: allowed},
	{name: "the scheme in lower case", lines: []string{"Authorization: bearer GOOD"}, want: allowed},
	{name: "the scheme in capitals", lines: []string{"Authorization: BEARER GOOD"}, want: allowed},
	{name: "the header's name in capitals", lines: []string{"AUTHORIZATION: Bearer GOOD"}, want: allowed},
	{name: "two spaces after the scheme", lines: []string{"Authorization: Bearer  GOOD"}, want: allowed},
	{name: "white space around the value", lines: []string{"Authorization: \t Bearer GOOD \t "}, protos: []string{http11}, want: allowed},
	{name: "a token of every allowed character", lines: []string{"Authorization: Bearer EVERY"}, want: allowed},
	{name: "a token of 4 KiB", lines: []string{"Authorization: Bearer LONG!"}, want: allowed},
	{name: "no header", want: missingToken},
	{name: "an empty header", lines: []string{"Authorization:"}, want: missingToken},
	{name: "a header of white space", lines: []string{"Authorization:   "}, protos: []string{http11}, want: missingToken},
	{name: "another scheme", lines: []string{"Authorization: Basic GOOD"}, want: missingToken},
	{name: "a bearer token inside another scheme", lines: []string{"Authorization: Basic UNKNOWN Bearer GOOD"}, want: missingToken},
	{name: "no scheme", lines: []string{"Authorization: GOOD"}, want: missingToken},
	{name: "a scheme that only begins like it", lines: []string{"Authorization: BearerGOOD"}, want: missingToken},
	{name: "no token", lines: []string{"Authorization: Bearer"}, want: malformedToken},
	{name: "a tab after the scheme", lines: []string{"Authorization: Bearer\tGOOD"}, want: malformedToken},
	{name: "a tab after the space", lines: []string{"Authorization: Bearer \tGOOD"}, want: malformedToken},
	{name: "double quotes", lines: []string{`Authorization: Bearer "GOOD"`}, want: malformedToken},
	{name: "single quotes", lines: []string{`Authorization: Bearer 'GOOD'`}, want: malformedToken},
	{name: "a word after the token", lines: []string{"Authorization: Bearer GOOD x"}, want: malformedToken},
	{name: "two tokens with a space", lines: []string{"Authorization: Bearer GOOD GOOD"}, want: malformedToken},
	{name: "a byte that is not ASCII in the token", lines: []string{"Authorization: Bearer GOOD\xff"}, want: malformedToken},
	{name: "UTF-8 in the token", lines: []string{"Authorization: Bearer ü GOOD"}, want: malformedToken},
	{
		// Without raw headers it arrives as an exclamation mark, which a scheme may have in its name.
		name: "a byte that is not ASCII for a space", lines: []string{"Authorization: Bearer\xa0GOOD"}, want: malformedToken,
		but: map[string]answer{"Envoy over gRPC without raw headers": missingToken, "Envoy over HTTP without raw headers": missingToken},
	},
	{
		// No HTTP, though nginx takes it: to ask about it as it is would be a question that nobody reads.
		name: "a control character in the token", lines: []string{"Authorization: Bearer GOOD\x01"}, protos: []string{http11}, want: badRequest,
		but: map[string]answer{"nginx": malformedToken},
	},
	{
		name: "a deleting character in the token", lines: []string{"Authorization: Bearer \x7fGOOD"}, protos: []string{http11}, want: badRequest,
		but: map[string]answer{"nginx": malformedToken},
	},
	{name: "an exclamation mark in the token", lines: []string{"Authorization: Bearer GOOD!"}, want: malformedToken},
	{name: "an equals sign inside the token", lines: []string{"Authorization: Bearer SHORT=GOOD"}, want: malformedToken},
	{name: "a comma and a second token", lines: []string{"Authorization: Bearer GOOD,Bearer GOOD"}, want: multipleTokens},
	{name: "a comma, a space and a second token", lines: []string{"Authorization: Bearer GOOD, Bearer GOOD"}, want: multipleTokens},
	{
		name: "two headers with one token", lines: []string{"Authorization: Bearer GOOD", "Authorization: Bearer GOOD"}, want: multipleTokens,
		but: map[string]answer{"nginx": badRequest},
	},
	{
		name: "a bad and a good header", lines: []string{"Authorization: Bearer UNKNOWN", "Authorization: Bearer GOOD"}, want: multipleTokens,
		but: map[string]answer{"nginx": badRequest},
	},
	{
		// Envoy leaves an empty header out when it joins two.
		name: "a good and an empty header", lines: []string{"Authorization: Bearer GOOD", "Authorization:"}, want: multipleTokens,
		but: map[string]answer{"nginx": badRequest, "envoy": allowed, "envoy-http": allowed},
	},
	{
		// Envoy joins them to one value, whose scheme is the first.
		name: "two headers of different schemes", lines: []string{"Authorization: Basic UNKNOWN", "authorization: Bearer GOOD"}, want: multipleTokens,
		but: map[string]answer{"nginx": badRequest, "envoy": missingToken, "envoy-http": missingToken},
	},
	{name: "a token that nobody issued", lines: []string{"Authorization: Bearer UNKNOWN"}, want: invalidToken},
	{name: "the beginning of a good token", lines: []string{"Authorization: Bearer HALF"}, want: invalidToken},
	{name: "the longest token", lines: []string{"Authorization: Bearer LONGEST"}, want: invalidToken},
	{name: "a token that is too long", lines: []string{"Authorization: Bearer TOOLONG"}, want: malformedToken},
	{
		name: "the header named as one of this connection alone", protos: []string{http11},
		lines: []string{"Connection: Authorization", "Authorization: Bearer GOOD"}, want: missingToken,
		but: map[string]answer{"nginx": allowed},
	},
	{
		name: "HTTP/1.0", protos: []string{http10}, lines: []string{"Authorization: Bearer GOOD"}, want: allowed,
		but: map[string]answer{"envoy": needsUpgrade, "envoy-http": needsUpgrade},
	},
	{
		name: "HTTP/1.0 without a token", protos: []string{http10}, want: missingToken,
		but: map[string]answer{"envoy": needsUpgrade, "envoy-http": needsUpgrade},
	},
	{name: "a token in the query", query: "?access_token=GOOD", want: tokenInURL},
	{name: "a token in the query after others", query: "?a=1&b=2&access_token=GOOD&c=3", want: tokenInURL},
	{name: "something in the query that the API may know, and a good header", query: "?access_token=1", lines: []string{"Authorization: Bearer GOOD"}, want: allowed},
	{
		// nginx and Envoy take it for a host. Go's HTTP server does not: that of Caddy, and the gateway's if it is asked with this host.
		name: "a host that is none, without a token", host: "user@api.example", protos: []string{http11}, want: missingToken,
		but: map[string]answer{"caddy": badRequest, "envoy-http": badRequest},
	},
	{name: "a token in another header", lines: []string{"X-Access-Token: GOOD", "Proxy-Authorization: Bearer GOOD"}, want: missingToken},
	{name: "headers that look alike", lines: []string{"X-Authorization: Bearer GOOD", "Authorization_: Bearer GOOD"}, want: missingToken},
}

// fill puts tokens in place of the words that stand for them.
func (s *stack) fill(t *testing.T, text string) string {
	t.Helper()
	for word, token := range map[string]func() string{
		"GOOD":    func() string { return s.endpoint.issue(t) },
		"HALF":    func() string { token := s.endpoint.issue(t); return token[:len(token)/2] },
		"EVERY":   func() string { return s.endpoint.accept(t, s.run.tokens.invent(20)+b64token+"==") },
		"LONG!":   func() string { return s.endpoint.accept(t, s.run.tokens.invent(4096)) },
		"UNKNOWN": func() string { return s.run.tokens.invent(40) },
		"SHORT":   func() string { return s.run.tokens.invent(20) },
		"LONGEST": func() string { return s.run.tokens.invent(8192) },
		"TOOLONG": func() string { return s.run.tokens.invent(8193) },
	} {
		if strings.Contains(text, word) {
			text = strings.ReplaceAll(text, word, token())
		}
	}
	return text
}

// testCredentials sends every request through every edge.
func testCredentials(t *testing.T, s *stack) {
	for _, e := range s.edges {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			for _, test := range credentialCases {
				protos := test.protos
				if protos == nil {
					protos = e.speaks()
				}
				want := test.want
				for _, name := range []string{e.asks(), e.name} {
					if other, ok := test.but[name]; ok {
						want = other
					}
				}
				for _, proto := range protos {
					t.Run(test.name+" over "+proto, func(t *testing.T) {
						// One text, so that a word means one token wherever it stands.
						filled := strings.Split(s.fill(t, strings.Join(append([]string{test.query}, test.lines...), "\n")), "\n")
						got, name := e.send(t, request{proto: proto, query: filled[0], host: test.host, lines: filled[1:]})
						s.check(t, e, got, name, want)
					})
				}
			}
		})
	}
}

// testMethods sends every method with and without a token.
func testMethods(t *testing.T, s *stack) {
	for _, e := range s.edges {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			token := s.endpoint.issue(t)
			for _, proto := range e.speaks() {
				for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"} {
					t.Run(method+" over "+proto, func(t *testing.T) {
						const query = "?a=1&b=%20x&access=no"
						got, name := e.send(t, request{proto: proto, method: method, query: query, lines: bearerLine(token)})
						s.run.expect(e, name, allowed)
						arrived := s.api.of(name)
						if got.status != http.StatusOK || len(arrived) != 1 {
							t.Fatalf("with a good token: got %d, and it reached the API %d times", got.status, len(arrived))
						}
						if arrived[0].method != method || arrived[0].uri != "/"+name+query {
							t.Errorf("the API saw %s %s, want %s /%s", arrived[0].method, arrived[0].uri, method, name+query)
						}
						got, name = e.send(t, request{proto: proto, method: method, query: query})
						s.run.expect(e, name, missingToken)
						if arrived := s.api.of(name); got.status != http.StatusUnauthorized || arrived != nil {
							t.Errorf("without a token: got %d, and it reached the API %d times", got.status, len(arrived))
						}
					})
				}
			}
		})
	}
}

// testBodies sends large bodies. They reach the API whole, and only the API.
func testBodies(t *testing.T, s *stack) {
	body := make([]byte, 1<<20)
	_, _ = rand.Read(body) // never fails (Go 1.24 and later)
	for _, e := range s.edges {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			for _, proto := range e.speaks() {
				for name, chunked := range map[string]bool{"of a known length": false, "in chunks": true} {
					t.Run("1 MiB "+name+" over "+proto, func(t *testing.T) {
						q := request{method: http.MethodPost, proto: proto, chunked: chunked, body: bytes.NewReader(body), lines: bearerLine(s.endpoint.issue(t))}
						got, name := e.send(t, q)
						s.check(t, e, got, name, allowed)
						arrived := s.api.of(name)[0]
						if arrived.length != int64(len(body)) || arrived.sum != sha256.Sum256(body) {
							t.Errorf("the API got %d bytes that are not what was sent", arrived.length)
						}
						q.lines, q.body = bearerLine(s.run.tokens.invent(40)), bytes.NewReader(body)
						got, name = e.send(t, q)
						s.check(t, e, got, name, invalidToken)
					})
				}
			}
		})
	}
}

// testAPIAnswers shows that what the API itself answers passes untouched, also where
// the gateway has words of its own for the same status.
func testAPIAnswers(t *testing.T, s *stack) {
	for _, e := range s.edges {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			token := s.endpoint.issue(t)
			for _, status := range []int{201, 400, 401, 403, 404, 429, 500, 502, 503, 504} {
				t.Run(strconv.Itoa(status), func(t *testing.T) {
					got, name := e.send(t, request{path: "/status/" + strconv.Itoa(status), lines: bearerLine(token)})
					if len(s.api.of(name)) != 1 {
						t.Fatal("it did not reach the API once")
					}
					if want := "the API says " + strconv.Itoa(status); got.status != status || got.body != want {
						t.Errorf("got %d %q, want %d %q", got.status, got.body, status, want)
					}
					if got.header.Get("X-Api") != "itself" || got.header.Get("Content-Type") != "text/x-api" {
						t.Errorf("headers of the API are missing: %v", got.header)
					}
					challenge, later := "", ""
					if status == http.StatusUnauthorized {
						challenge = `Custom realm="of the API"`
					}
					if status == http.StatusServiceUnavailable {
						later = "77"
					}
					if values := strings.Join(got.header.Values("WWW-Authenticate"), "|"); values != challenge {
						t.Errorf("WWW-Authenticate: got %q, want %q", values, challenge)
					}
					if values := strings.Join(got.header.Values("Retry-After"), "|"); values != later {
						t.Errorf("Retry-After: got %q, want %q", values, later)
					}
				})
			}
		})
	}
}

// testClaims shows that no client can say what only an edge or the gateway may say.
// The headers that tell it who is calling are the gateway's own.
func testClaims(t *testing.T, s *stack) {
	const lie = "a lie of the client"
	names := []string{
		"X-Bearergate-Reason", "x-bearergate-fingerprint", "X-BEARERGATE-FINGERPRINT", "X_Bearergate_Fingerprint", "X-Bearergate_Fingerprint",
		"x_bearergate-fingerprint", "X_Bearergate_Reason", "X-Bearergate_Reason", "X-Bearergate-Depends-On", "X-Bearergate-Policy", "X-Bearergate-Edge", "X-Original-URI", "X-Original-Method",
		"X-Envoy-Auth-Headers-To-Remove", "X-Envoy-Auth-Partial-Body", "X-Accel-Expires",
	}
	for _, e := range s.edges {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			for _, proto := range e.speaks() {
				t.Run("over "+proto, func(t *testing.T) {
					var lines []string
					for _, name := range names {
						lines = append(lines, name+": "+lie)
					}
					token := s.endpoint.issue(t)
					fingerprints := map[string]bool{}
					for range 5 { // an edge that keeps answers gives the last ones itself
						got, name := e.send(t, request{proto: proto, lines: append(lines, bearerLine(token)...)})
						s.check(t, e, got, name, allowed)
						header := s.api.of(name)[0].header
						for key, values := range header {
							if strings.Contains(strings.ToLower(key), "bearergate") && slices.Contains(values, lie) {
								t.Errorf("the API got the client's %s", key)
							}
						}
						fingerprint := header["X-Bearergate-Fingerprint"]
						if len(fingerprint) != 1 || !regexp.MustCompile("^[0-9a-f]{12}$").MatchString(fingerprint[0]) {
							t.Fatalf("the API is told the fingerprint %q", fingerprint)
						}
						fingerprints[fingerprint[0]] = true
					}
					if len(fingerprints) != 1 {
						t.Errorf("one token has the fingerprints %v", fingerprints)
					}
					got, name := e.send(t, request{proto: proto, lines: lines})
					s.check(t, e, got, name, missingToken)
				})
			}
		})
	}
}

// testPaths shows that Envoy makes a path plain before anybody reads it.
func testPaths(t *testing.T, s *stack) {
	tests := []struct {
		name, path, arrives string
		status              int
	}{
		{"two dots", "/public/../secret", "/secret", http.StatusOK},
		{"a dot", "/a/./b", "/a/b", http.StatusOK},
		{"dots in percent coding", "/public/%2e%2E/secret", "/secret", http.StatusOK},
		{"two slashes", "//a//b", "/a/b", http.StatusOK},
		{"a slash in percent coding", "/a%2Fb", "", http.StatusBadRequest},
		{"a backslash in percent coding", "/a%5Cb", "", http.StatusBadRequest},
	}
	for _, e := range s.edges {
		if e.recipe.Program != "envoy" {
			continue
		}
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			token := s.endpoint.issue(t)
			for _, test := range tests {
				t.Run(test.name, func(t *testing.T) {
					got, name := e.send(t, request{path: test.path, lines: bearerLine(token)})
					if got.status != test.status {
						t.Errorf("got %d, want %d", got.status, test.status)
					}
					arrives := ""
					for _, arrived := range s.api.of(name) {
						arrives += arrived.uri
					}
					if arrives != test.arrives {
						t.Errorf("the API saw %q, want %q", arrives, test.arrives)
					}
				})
			}
		})
	}
}

// testOneTokenManyRequests sends one token again and again through all edges: all of
// them together cost one call.
func testOneTokenManyRequests(t *testing.T, s *stack) {
	const requests, clients = 320, 8
	token := s.endpoint.issue(t)
	var next atomic.Int64
	var group sync.WaitGroup
	for range clients {
		group.Go(func() {
			for i := next.Add(1) - 1; i < requests; i = next.Add(1) - 1 {
				e := s.edges[int(i)%len(s.edges)]
				got, name, err := e.try(t.Context(), request{lines: bearerLine(token)})
				if err != nil || got.status != http.StatusOK || len(s.api.of(name)) != 1 {
					t.Errorf("%s: got %d, %v", e.name, got.status, err)
				}
			}
		})
	}
	group.Wait()
	if calls := s.endpoint.calls(token); calls != 1 {
		t.Errorf("%d requests with one token cost %d calls, want 1", requests, calls)
	}
}

// testOneTokenAtOnce sends a new token many times at once through one edge after the
// other: each time that costs one call.
func testOneTokenAtOnce(t *testing.T, s *stack) {
	const clients = 100
	for _, e := range s.edges {
		t.Run(e.name, func(t *testing.T) {
			token := s.endpoint.issue(t)
			release := s.endpoint.hold(t)
			defer release()
			var group, written sync.WaitGroup
			written.Add(clients)
			for range clients {
				group.Go(func() {
					sent := sync.OnceFunc(written.Done)
					defer sent()
					got, name, err := e.try(t.Context(), request{lines: bearerLine(token), written: sent})
					if err != nil || got.status != http.StatusOK || len(s.api.of(name)) != 1 {
						t.Errorf("got %d, %v", got.status, err)
					}
				})
			}
			s.endpoint.awaitHeld(t, 1)
			written.Wait()
			release()
			group.Wait()
			if calls := s.endpoint.calls(token); calls != 1 {
				t.Errorf("%d requests at once cost %d calls, want 1", clients, calls)
			}
		})
	}
}
