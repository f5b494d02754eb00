package authrequest_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bearergate/bearergate/authrequest"
	"github.com/bearergate/bearergate/gate"
)

// TestEveryKindOfAnswer wants status, every header line and body.
func TestEveryKindOfAnswer(t *testing.T) {
	f := startTCP(t, authrequest.Options{})
	keeps := startTCP(t, authrequest.Options{}, keepToken)
	refusal := func(reason, name, value string) http.Header {
		return http.Header{
			name: {value}, "Content-Type": {"application/json"}, "Cache-Control": {"no-store"}, "X-Bearergate-Reason": {reason},
		}
	}
	const (
		challenge  = `Bearer realm="api"`
		described  = challenge + `, error="invalid_token", error_description=`
		notAllowed = `{"error":"missing or invalid auth token"}`
		notKnown   = `{"error":"the token could not be checked, try again later"}`
	)
	for _, test := range []struct {
		name, request string
		status        int
		header        http.Header
		body          string
	}{
		{"a good token, where nginx asks", atPrefix("Bearer " + goodToken), 200, http.Header{}, ""},
		{
			"a good token, where Envoy asks", get("Bearer " + goodToken), 200,
			http.Header{"X-Bearergate-Reason": {"valid"}, "X-Envoy-Auth-Headers-To-Remove": {"authorization"}},
			"",
		},
		{"no header", "GET /auth HTTP/1.1\nHost: gateway\n\n", 401, refusal("missing_token", "Www-Authenticate", challenge), notAllowed},
		{"an empty header", get(""), 401, refusal("missing_token", "Www-Authenticate", challenge), notAllowed},
		{"another scheme", get("Basic dTpw"), 401, refusal("missing_token", "Www-Authenticate", challenge), notAllowed},
		{
			"a token in the URL", "GET /auth?access_token=x HTTP/1.1\nHost: gateway\n\n", 401,
			refusal("token_in_url", "Www-Authenticate", described+`"the token is in the URL; send it in the Authorization header"`), notAllowed,
		},
		{"a malformed token", get("Bearer a b"), 401, refusal("malformed_token", "Www-Authenticate", described+`"something follows the token"`), notAllowed},
		{"two in one line", get("Bearer a,Bearer b"), 401, refusal("multiple_tokens", "Www-Authenticate", described+`"the Authorization header holds more than one credential"`), notAllowed},
		{"a token that is not good", get("Bearer unknown"), 401, refusal("invalid_token", "Www-Authenticate", described+`"the token is not good or has ended; fetch a new one"`), notAllowed},
		{"no answer", get("Bearer " + downToken), 503, refusal("verifier_unavailable", "Retry-After", "5"), notKnown},
		{"no answer, and a time to wait", get("Bearer " + busyToken), 503, refusal("verifier_unavailable", "Retry-After", "42"), notKnown},
		{"too much to do", get("Bearer " + shedToken), 503, refusal("overloaded", "Retry-After", "5"), notKnown},
		{"a panic", get("Bearer " + panicToken), 503, refusal("internal_error", "Retry-After", "5"), notKnown},
		{
			"another path", "GET /metrics HTTP/1.1\nHost: gateway\nAuthorization: Bearer " + goodToken + "\n\n", 404,
			http.Header{"Content-Type": {"application/json"}, "Cache-Control": {"no-store"}},
			`{"error":"nothing is here; ask at /auth or below it"}`,
		},
	} {
		for keep, face := range map[bool]*face{false: f, true: keeps} {
			got := face.ask(t, test.request)
			if got.StatusCode != test.status || got.body != test.body || got.ContentLength != int64(len(test.body)) {
				t.Errorf("%s: %d, %d bytes, %s", test.name, got.StatusCode, got.ContentLength, got.body)
			}
			want := test.header.Clone()
			if keep {
				want.Del("X-Envoy-Auth-Headers-To-Remove")
				if test.status == http.StatusOK {
					want.Set("X-Bearergate-Token", "keep")
					want.Set("X-Bearergate-Reason", "valid") // where there is something to tell, all is told
				}
			}
			delete(got.Header, "Date")
			delete(got.Header, "Content-Length")
			if diff := cmp.Diff(want, got.Header); diff != "" {
				t.Errorf("%s, keep is %t (-want +got):\n%s", test.name, keep, diff)
			}

			// HEAD is told the same, but for the body.
			head := face.ask(t, "HEAD"+strings.TrimPrefix(test.request, "GET"))
			delete(head.Header, "Date")
			delete(head.Header, "Content-Length")
			if head.StatusCode != test.status || head.body != "" || cmp.Diff(want, head.Header) != "" {
				t.Errorf("%s, by HEAD: %d %v %q", test.name, head.StatusCode, head.Header, head.body)
			}
		}
	}
}

func TestAnyMethod(t *testing.T) {
	f := startTCP(t, authrequest.Options{})
	for _, method := range []string{
		"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT",
		"PROPFIND", "MKCOL", "PURGE", "QUERY", "BREW", "get", "M-SEARCH", "X", strings.Repeat("LONG", 50), "!#$%&'*+-.^_`|~1",
	} {
		for _, path := range []string{"/auth", "/auth/orders?x=y"} {
			request := method + " " + path + " HTTP/1.1\nHost: gateway\n"
			if got := f.ask(t, request+"Authorization: Bearer "+goodToken+"\n\n"); got.StatusCode != http.StatusOK {
				t.Errorf("%s %s, a good token: %d", method, path, got.StatusCode)
			}
			if got := f.ask(t, request+"Authorization: Bearer unknown\n\n"); got.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s %s, another token: %d", method, path, got.StatusCode)
			}
			if got := f.ask(t, request+"\n"); got.StatusCode != http.StatusUnauthorized || got.reason() != "missing_token" {
				t.Errorf("%s %s, no token: %d", method, path, got.StatusCode)
			}
		}
	}
}

func TestPaths(t *testing.T) {
	f := startTCP(t, authrequest.Options{})
	for _, test := range []struct {
		target string
		status int // with a good token; 200 where edges ask
	}{
		{"/auth", 200},
		{"/auth/", 200},
		{"/auth?", 200},
		{"/auth?y=1", 200},
		{"/auth/x?y", 200},
		{"/auth/x/y/z", 200},
		{"/auth//x", 200},
		{"/auth//", 200},
		{"/auth/.", 200},
		{"/auth/..", 200},
		{"/auth/../x", 200},
		{"/auth/./x/../../../etc/passwd", 200},
		{"/auth/%2e%2e/x", 200},
		{"/auth/a%2Fb%3Fc%23d", 200},
		{"/auth/%00", 200},
		{"/auth/;a=b", 200},
		{"/auth/ä", 200},
		{"/%61uth/x", 200}, // the same path (RFC 3986 §6.2.2.2)
		{"http://gateway/auth/x", 200},
		{"https://api.example:8443/auth", 200},

		{"/", 404},
		{"/authx", 404},
		{"/auth.", 404},
		{"/auth;x", 404},
		{"/auth%2Ex", 404},
		{"/Auth", 404},
		{"/x/auth", 404},
		{"/x/../auth", 404},
		{"//auth", 404},
		{"//auth/auth", 404},
		{"/./auth", 404},
		{"/?/auth", 404},
		{"/metrics", 404},
		{"/livez", 404},
		{"/favicon.ico", 404},
		{"*", 404},
		{"http://gateway", 404},
		{"http://gateway/", 404},
		{"http://auth/", 404},

		{"auth", 400},
		{"/auth/%zz", 400},
		{"/auth\x01", 400},
	} {
		asked := f.oracle.asked.Load()
		request := "GET " + test.target + " HTTP/1.1\nHost: gateway\n"
		got := f.ask(t, request+"Authorization: Bearer "+goodToken+"\n\n")
		if got.StatusCode != test.status || got.Header.Get("Location") != "" {
			t.Errorf("%s: %d %v, want %d", test.target, got.StatusCode, got.Header, test.status)
		}
		if isAsked := f.oracle.asked.Load() != asked; isAsked != (test.status == 200) {
			t.Errorf("%s: the verifier was asked is %t", test.target, isAsked)
		}
		want := test.status
		if want == 200 {
			want = 401
		}
		if got := f.ask(t, request+"\n"); got.StatusCode != want {
			t.Errorf("%s, no token: %d, want %d", test.target, got.StatusCode, want)
		}
	}
	// Targets that belong to one method. net/http would answer the first with 200.
	for target, status := range map[string]int{
		"OPTIONS *": 404, "CONNECT api.example:443": 404, "CONNECT gateway": 404, "CONNECT /auth": 200, "OPTIONS /auth": 200,
	} {
		if got := f.ask(t, target+" HTTP/1.1\nHost: gateway\nAuthorization: Bearer "+goodToken+"\n\n"); got.StatusCode != status {
			t.Errorf("%s: %d, want %d", target, got.StatusCode, status)
		}
	}
}

func TestAuthorizationLines(t *testing.T) {
	f := startTCP(t, authrequest.Options{})
	const good = "Bearer " + goodToken
	for _, test := range []struct {
		name, lines string
		status      int
		reason      string
	}{
		{"one", "Authorization: " + good, 200, "valid"},
		{"in lower case", "authorization: " + good, 200, "valid"},
		{"in odd letter case", "aUTHORIZATION: " + good, 200, "valid"},
		{"outer white space", "Authorization: \t " + good + " \t", 200, "valid"},
		{"no white space", "Authorization:" + good, 200, "valid"},
		{"named by Connection", "Connection: Authorization\nAuthorization: " + good, 200, "valid"},
		{"two", "Authorization: " + good + "\nAuthorization: Bearer other", 401, "multiple_tokens"},
		{"two, the good one last", "Authorization: Bearer other\nAuthorization: " + good, 401, "multiple_tokens"},
		{"two alike", "Authorization: " + good + "\nAuthorization: " + good, 401, "multiple_tokens"},
		{"two in different letter case", "Authorization: " + good + "\nX: y\nauthorization: " + good, 401, "multiple_tokens"},
		{"two, one empty", "Authorization:\nAuthorization: " + good, 401, "multiple_tokens"},
		{"two of different schemes", "Authorization: Basic dTpw\nAuthorization: " + good, 401, "multiple_tokens"},
		{"a hundred", strings.Repeat("Authorization: "+good+"\n", 100) + "X: y", 401, "multiple_tokens"},
		{"a byte over 0x7f", "Authorization: " + good + "\xff", 401, "malformed_token"},
		{"another header", "Proxy-Authorization: " + good + "\nX-Authorization: " + good + "\nCookie: access_token=" + goodToken, 401, "missing_token"},
		{"in a body", "Content-Type: application/x-www-form-urlencoded\nContent-Length: 23\n\naccess_token=" + goodToken, 401, "missing_token"},
		{"in a trailer", "Transfer-Encoding: chunked\nTrailer: Authorization\n\n0\nAuthorization: " + good, 401, "missing_token"},

		{"white space before the colon", "Authorization : " + good, 400, ""},
		{"a line break in it", "Authorization: Bearer\x0b" + goodToken, 400, ""},
		{"a zero byte", "Authorization: " + good + "\x00", 400, ""},
		{"a name beyond ASCII", "Authorizatıon: " + good, 400, ""},
	} {
		got := f.ask(t, "GET /auth/ HTTP/1.1\nHost: gateway\n"+test.lines+"\n\n")
		if got.StatusCode != test.status || got.reason() != test.reason {
			t.Errorf("%s: %d %s, want %d %s", test.name, got.StatusCode, got.reason(), test.status, test.reason)
		}
	}
}

// TestOriginalURIOnlyExplains: a client may have written those headers, so they
// only tell a missing token from one in the URL.
func TestOriginalURIOnlyExplains(t *testing.T) {
	f := startTCP(t, authrequest.Options{})
	for _, test := range []struct {
		name, target, lines string
		inURL               bool
	}{
		{"none", "/auth", "", false},
		{"nginx, nothing there", "/auth", "X-Original-URI: /orders?x=y\n", false},
		{"nginx", "/auth", "X-Original-URI: /orders?access_token=x\n", true},
		{"Caddy and Traefik", "/auth", "X-Forwarded-Uri: /orders?a=b&access_token=x\n", true},
		{"Caddy adds the query", "/auth?access_token=x", "X-Forwarded-Uri: /orders?access_token=x\n", true},
		{"Envoy has it behind the prefix", "/auth/orders?access_token=x", "", true},
		{"nginx's comes first", "/auth?access_token=x", "X-Original-URI: /orders\nX-Forwarded-Uri: /?access_token=x\n", false},
		{"Caddy's comes before the target", "/auth?access_token=x", "X-Forwarded-Uri: /orders\n", false},
		{"an empty one", "/auth?access_token=x", "X-Original-URI:\n", false},
		{"two lines", "/auth", "X-Original-URI: /a\nX-Original-URI: /?access_token=x\n", false},
		{"another method and path", "/auth", "X-Original-Method: POST\nX-Original-URI: /?%61ccess_token\nX-Forwarded-Host: elsewhere\n", true},
		{"rubbish", "/auth", "X-Original-URI: %zz??&&=;\xff\n", false},
	} {
		for value, want := range map[string]string{
			"":                                     "missing_token",
			"Authorization: Basic x\n":             "missing_token",
			"Authorization:\n":                     "missing_token",
			"Authorization: Bearer good-token\n":   "valid",
			"Authorization: Bearer unknown\n":      "invalid_token",
			"Authorization: Bearer a b\n":          "malformed_token",
			"Authorization: Bearer down-token\n":   "verifier_unavailable",
			"Authorization: a\nAuthorization: b\n": "multiple_tokens",
		} {
			status := map[string]int{"valid": 200, "verifier_unavailable": 503}[want]
			if status == 0 {
				status = 401
			}
			if want == "missing_token" && test.inURL {
				want = "token_in_url"
			}
			if path, _, _ := strings.Cut(test.target, "?"); want == "valid" && path == authrequest.Prefix {
				want = "" // nothing is told there
			}
			got := f.ask(t, "GET "+test.target+" HTTP/1.1\nHost: gateway\n"+test.lines+value+"\n")
			if got.StatusCode != status || got.reason() != want {
				t.Errorf("%s, %q: %d %s, want %d %s", test.name, value, got.StatusCode, got.reason(), status, want)
			}
		}
	}
}

// TestTokenIsNotInAnyAnswer also asks where net/http answers by itself.
func TestTokenIsNotInAnyAnswer(t *testing.T) {
	var logs journal
	f := startTCP(t, authrequest.Options{Logger: logs.logger(), MaxHeaderBytes: 8 << 10})
	const secret = "canary-9f3b"
	for _, request := range []string{
		get("Bearer " + secret),
		get(`Bearer "` + secret + `"`),
		get("Bearer " + secret + ",Bearer " + secret),
		get("Basic " + secret),
		get("Bearer " + secret + "\x00"),
		"GET /auth?access_token=" + secret + " HTTP/1.1\nHost: gateway\n\n",
		"GET /" + secret + "?access_token=" + secret + " HTTP/1.1\nHost: gateway\n\n",
		"GET /auth/%zz" + secret + " HTTP/1.1\nHost: gateway\n\n",
		"GET /auth HTTP/9." + secret + "\nHost: gateway\n\n",
		"GET /auth HTTP/1.1\nHost: " + secret + " " + secret + "\n\n",
		"GET /auth HTTP/1.1\nHost: gateway\nAuthorization: Bearer " + secret + "\n" + secret + "\n\n",
		"GET /auth HTTP/1.1\nHost: gateway\nAuthorization: Bearer " + strings.Repeat(secret, 2000) + "\n\n",
		"POST /auth HTTP/1.1\nHost: gateway\nTransfer-Encoding: " + secret + "\n\n",
	} {
		got := f.ask(t, request)
		if got.StatusCode/100 == 2 {
			t.Errorf("%.60q: %d", request, got.StatusCode)
		}
		var all strings.Builder
		_ = got.Header.Write(&all)
		all.WriteString(got.Status + got.body)
		if strings.Contains(all.String(), "canary") {
			t.Errorf("%.60q: it is shown in %s", request, all.String())
		}
	}
	if text := logs.text(); strings.Contains(text, "canary") {
		t.Errorf("it is in the log: %s", text)
	}
}

// TestReasonsAreTheGates: this face has no words of its own.
func TestReasonsAreTheGates(t *testing.T) {
	f := startTCP(t, authrequest.Options{})
	words := map[string]bool{}
	for reason := range gate.Reason(gate.Reasons) {
		words[reason.String()] = true
	}
	for _, value := range []string{"", "Basic x", "Bearer", "Bearer a,b", "Bearer " + goodToken, "Bearer unknown", "Bearer " + downToken, "Bearer " + panicToken} {
		if reason := f.ask(t, get(value)).reason(); !words[reason] {
			t.Errorf("%q: reason %q", value, reason)
		}
	}
}
