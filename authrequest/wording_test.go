package authrequest_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/bearergate/bearergate/authrequest"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/policy"
	"github.com/bearergate/bearergate/verifier"
)

// TestBodiesForEdgesThatReadNone: who asks for it gets the body in a header as well, in
// one line, and nobody else does.
func TestBodiesForEdgesThatReadNone(t *testing.T) {
	own := gate.Wording{ContentType: "text/html; charset=utf-8", Template: "<h1>\n\t{{.status}}\r\n  für {{.request_id}}\n</h1>\n"}
	router, err := policy.NewRouter([]string{policy.DefaultName}, nil)
	if err != nil {
		t.Fatal(err)
	}
	f := startTCP(t, authrequest.Options{Trust: authrequest.Trust{Original: authrequest.XOriginal}}, func(o *gate.Options) {
		o.Wording, o.Router = own, router
		router.Read(policy.Needs{Path: true})
	})
	for _, test := range []struct {
		name, lines string
		status      int
		body        string
		header      []string
	}{
		{"nobody asks", "", 401, "<h1>\n\t401\r\n  für 7\n</h1>\n", nil},
		{"asked", "X-Bearergate-Wants: body\n", 401, "<h1>\n\t401\r\n  für 7\n</h1>\n", []string{"<h1> 401 für 7 </h1>"}},
		{"asked for something else", "X-Bearergate-Wants: bodies\n", 401, "<h1>\n\t401\r\n  für 7\n</h1>\n", nil},
		{"asked twice", "X-Bearergate-Wants: body\nX-Bearergate-Wants: body\n", 401, "<h1>\n\t401\r\n  für 7\n</h1>\n", nil},
		{"asked, with a token that is allowed", "X-Bearergate-Wants: body\nAuthorization: Bearer " + goodToken + "\n", 200, "", nil},
		// nginx says 400 to the client, and is told 403.
		{"asked, about an unclear path", "X-Bearergate-Wants: body\nX-Original-URI: /a/../b\n", 403, "<h1>\n\t403\r\n  für 7\n</h1>\n", []string{"<h1> 400 für 7 </h1>"}},
	} {
		lines := test.lines
		if !strings.Contains(lines, "X-Original-URI") {
			lines += "X-Original-URI: /x\n"
		}
		got := f.ask(t, "GET /auth HTTP/1.1\nHost: gateway\nX-Request-Id: 7\n"+lines+"\n")
		if got.StatusCode != test.status || got.body != test.body || !slices.Equal(got.Header["X-Bearergate-Body"], test.header) {
			t.Errorf("%s: %d %q %q", test.name, got.StatusCode, got.body, got.Header["X-Bearergate-Body"])
		}
		if kind := got.Header.Get("Content-Type"); test.body != "" && kind != own.ContentType {
			t.Errorf("%s: %s", test.name, kind)
		}
	}
	if got := f.ask(t, "GET /auth HTTP/1.1\nHost: gateway\nX-Request-Id: 7\nX-Request-Id: 8\nX-Original-URI: /x\n\n"); strings.ContainsAny(got.body, "78") {
		t.Errorf("a request with two IDs is named: %s", got.body)
	}
}

// TestAnEdgeIsToldToLeaveTheToken, wherever it asks: nginx and Caddy take it off else.
func TestAnEdgeIsToldToLeaveTheToken(t *testing.T) {
	f := startTCP(t, authrequest.Options{}, keepToken)
	for _, path := range []string{"/auth", "/auth/", "/auth/x"} {
		got := f.ask(t, "GET "+path+" HTTP/1.1\nHost: gateway\nAuthorization: Bearer "+goodToken+"\n\n")
		if token := got.Header["X-Bearergate-Token"]; got.StatusCode != http.StatusOK || !slices.Equal(token, []string{"keep"}) {
			t.Errorf("%s: %d %v", path, got.StatusCode, got.Header)
		}
	}
}

// TestWhatIsMissingInATokenIsTakenOff: Envoy is told to, and other edges get no header.
func TestWhatIsMissingInATokenIsTakenOff(t *testing.T) {
	claims, err := verifier.ParseClaims([]byte(`{"sub":"somebody","ends":"a\r\nX-Admin: yes"}`))
	if err != nil {
		t.Fatal(err)
	}
	tells := func(headers ...gate.IdentityHeader) *face {
		return startTCP(t, authrequest.Options{}, func(o *gate.Options) {
			o.Verifier, o.Identity = verdict{Valid: true, Claims: claims}, headers
		})
	}
	sub, roles := gate.IdentityHeader{Name: "X-Sub", Claim: []string{"sub"}}, gate.IdentityHeader{Name: "X-Roles", Claim: []string{"roles"}}
	got := tells(sub, roles).ask(t, get("Bearer "+goodToken))
	if off := got.Header["X-Envoy-Auth-Headers-To-Remove"]; got.StatusCode != http.StatusOK || !slices.Equal(off, []string{"authorization,x-roles"}) ||
		!slices.Equal(got.Header["X-Sub"], []string{"somebody"}) || got.Header["X-Roles"] != nil {
		t.Errorf("%d %v", got.StatusCode, got.Header)
	}
	got = tells(sub, gate.IdentityHeader{Name: "X-Ends", Claim: []string{"ends"}}).ask(t, get("Bearer "+goodToken))
	if got.StatusCode != http.StatusForbidden || got.reason() != "unusable_claim" || got.Header["X-Sub"] != nil || got.Header["X-Admin"] != nil {
		t.Errorf("%d %v", got.StatusCode, got.Header)
	}
}
