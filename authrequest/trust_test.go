package authrequest_test

import (
	"crypto/x509"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/bearergate/bearergate/authrequest"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/policy"
)

const edgeSecret = "the secret of the edge"

// routed has a public policy for a host, a path and a method, and one in which
// preflights are let through.
func routed(t testing.TB, routes ...policy.Route) func(*gate.Options) {
	t.Helper()
	router, err := policy.NewRouter([]string{policy.DefaultName, "public", "web"}, routes)
	if err != nil {
		t.Fatal(err)
	}
	return func(o *gate.Options) {
		web := o.Policy
		web.Name, web.Preflight = "web", true
		o.Router, o.Policies = router, []gate.Policy{{Name: "public", Public: true, Realm: "api"}, web}
	}
}

// byAll needs all facts.
func byAll(t testing.TB) func(*gate.Options) {
	t.Helper()
	return routed(
		t,
		policy.Route{Hosts: []string{"api.example.com"}, Path: policy.Path{Kind: policy.PrefixPath, Text: "/public"}, Methods: []string{"GET", "PUT"}, Policy: "public"},
		policy.Route{Path: policy.Path{Kind: policy.PrefixPath, Text: "/web"}, Policy: "web"},
	)
}

// asking is a request without a token.
func asking(line string, headers ...string) string {
	return line + " HTTP/1.1\nHost: gateway\n" + strings.Join(headers, "\n") + strings.Repeat("\n", min(len(headers), 1)) + "\n"
}

func TestWhatAnEdgeSaysIsBelievedAsConfigured(t *testing.T) {
	original := []string{"X-Original-URI: /public/x?y", "X-Original-Method: PUT", "X-Original-Host: api.example.com"}
	forwarded := []string{"X-Forwarded-Uri: /public/x?y", "X-Forwarded-Method: PUT", "X-Forwarded-Host: api.example.com"}
	xOriginal, xForwarded := authrequest.Trust{Original: authrequest.XOriginal}, authrequest.Trust{Original: authrequest.XForwarded}
	asAsked, byPath := authrequest.Trust{Original: authrequest.AsAsked}, authrequest.Trust{Original: authrequest.XOriginal, Policy: authrequest.PolicyFromPath}
	byHeader := authrequest.Trust{Original: authrequest.XOriginal, Policy: authrequest.PolicyFromHeader}
	secret := authrequest.Trust{Original: authrequest.XOriginal, Secret: edgeSecret}
	loopback := authrequest.Trust{Original: authrequest.XOriginal, Peers: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	elsewhere := authrequest.Trust{Original: authrequest.XOriginal, Peers: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("::/0")}}
	with := func(headers []string, more ...string) []string {
		return append(append([]string{}, headers...), more...)
	}
	without := func(headers []string, i int) []string {
		return append(append([]string{}, headers[:i]...), headers[i+1:]...)
	}
	for name, test := range map[string]struct {
		trust   authrequest.Trust
		request string
		status  int
		reason  string
	}{
		"X-Original":                              {xOriginal, asking("GET /auth", original...), 200, "public_route"},
		"X-Original, another method":              {xOriginal, asking("GET /auth", with(without(original, 1), "X-Original-Method: POST")...), 401, "missing_token"},
		"X-Original, another host":                {xOriginal, asking("GET /auth", with(without(original, 2), "X-Original-Host: www.example.com")...), 401, "missing_token"},
		"X-Original, another path":                {xOriginal, asking("GET /auth", with(without(original, 0), "X-Original-URI: /x?/public")...), 401, "missing_token"},
		"X-Original without the path":             {xOriginal, asking("GET /auth", without(original, 0)...), 503, "unclear_edge"},
		"X-Original without the method":           {xOriginal, asking("GET /auth", without(original, 1)...), 503, "unclear_edge"},
		"X-Original without the host":             {xOriginal, asking("GET /auth", without(original, 2)...), 503, "unclear_edge"},
		"X-Original with two paths":               {xOriginal, asking("GET /auth", with(original, "X-Original-Uri: /x")...), 503, "unclear_edge"},
		"X-Original with two methods":             {xOriginal, asking("GET /auth", with(original, "x-original-method: PUT")...), 503, "unclear_edge"},
		"X-Original with two hosts":               {xOriginal, asking("GET /auth", with(original, "X-ORIGINAL-HOST: api.example.com")...), 503, "unclear_edge"},
		"X-Forwarded where X-Original is meant":   {xOriginal, asking("GET /auth", forwarded...), 503, "unclear_edge"},
		"X-Forwarded beside it changes nothing":   {xOriginal, asking("GET /auth", with(original, "X-Forwarded-Uri: /x", "X-Forwarded-Method: POST")...), 200, "public_route"},
		"an underscore is another header":         {xOriginal, asking("GET /auth", with(without(original, 0), "X_Original_URI: /public")...), 503, "unclear_edge"},
		"a path with dots":                        {xOriginal, asking("GET /auth", with(without(original, 0), "X-Original-URI: /public/../x")...), 403, "bad_path"},
		"a whole URL for a path":                  {xOriginal, asking("GET /auth", with(without(original, 0), "X-Original-URI: http://api.example.com/public")...), 403, "bad_path"},
		"two hosts in one line":                   {xOriginal, asking("GET /auth", with(without(original, 2), "X-Original-Host: api.example.com, x")...), 403, "bad_host"},
		"a method in small letters":               {xOriginal, asking("GET /auth", with(without(original, 1), "X-Original-Method: put")...), 403, "bad_method"},
		"X-Forwarded":                             {xForwarded, asking("GET /auth", forwarded...), 200, "public_route"},
		"X-Original where X-Forwarded is meant":   {xForwarded, asking("GET /auth", original...), 503, "unclear_edge"},
		"as asked":                                {asAsked, "PUT /auth/public/x?y HTTP/1.1\nHost: api.example.com:80\n\n", 200, "public_route"},
		"as asked, another method":                {asAsked, "POST /auth/public/x?y HTTP/1.1\nHost: api.example.com:80\n\n", 401, "missing_token"},
		"as asked, an encoded letter":             {asAsked, "GET /auth/%70ublic/x?y HTTP/1.1\nHost: api.example.com:80\n\n", 200, "public_route"},
		"as asked, with dots":                     {asAsked, "GET /auth/public/../x HTTP/1.1\nHost: api.example.com\n\n", 403, "bad_path"},
		"as asked, with an encoded slash":         {asAsked, "GET /auth/public%2f..%2fx HTTP/1.1\nHost: api.example.com\n\n", 403, "bad_path"},
		"as asked, without a path":                {asAsked, "GET /auth HTTP/1.1\nHost: api.example.com\n\n", 503, "unclear_edge"},
		"as asked, headers change nothing":        {asAsked, "GET /auth/x HTTP/1.1\nHost: www.example.com\n" + strings.Join(original, "\n") + "\n\n", 401, "missing_token"},
		"a policy by path":                        {byPath, asking("GET /auth/public", with(without(original, 0), "X-Original-URI: /x")...), 200, "public_route"},
		"a policy by path, unknown":               {byPath, asking("GET /auth/other", original...), 503, "unknown_policy"},
		"a policy by path, and more":              {byPath, asking("GET /auth/public/x", original...), 503, "unknown_policy"},
		"a policy by path, in other letters":      {byPath, asking("GET /auth/Public", original...), 503, "unknown_policy"},
		"no policy by path":                       {byPath, asking("GET /auth/", original...), 200, "public_route"},
		"a policy by path, and a bad path":        {byPath, asking("GET /auth/public", with(without(original, 0), "X-Original-URI: /..")...), 403, "bad_path"},
		"a policy by path, where none is meant":   {xOriginal, asking("GET /auth/public", with(without(original, 0), "X-Original-URI: /x")...), 401, "missing_token"},
		"a policy by header":                      {byHeader, asking("GET /auth", with(original, "X-Bearergate-Policy: default")...), 401, "missing_token"},
		"a policy by header, empty":               {byHeader, asking("GET /auth", with(original, "X-Bearergate-Policy:")...), 503, "unknown_policy"},
		"two policies by header":                  {byHeader, asking("GET /auth", with(original, "X-Bearergate-Policy: public", "X-Bearergate-Policy: public")...), 503, "unclear_edge"},
		"no policy by header":                     {byHeader, asking("GET /auth", original...), 200, "public_route"},
		"a policy by header, where none is meant": {xOriginal, asking("GET /auth", with(without(original, 0), "X-Original-URI: /x", "X-Bearergate-Policy: public")...), 401, "missing_token"},
		"the secret":                              {secret, asking("GET /auth", with(original, "X-Bearergate-Edge: "+edgeSecret)...), 200, "public_route"},
		"no secret":                               {secret, asking("GET /auth", original...), 503, "untrusted_edge"},
		"another secret":                          {secret, asking("GET /auth", with(original, "X-Bearergate-Edge: "+edgeSecret+"x")...), 503, "untrusted_edge"},
		"the secret twice":                        {secret, asking("GET /auth", with(original, "X-Bearergate-Edge: "+edgeSecret, "X-Bearergate-Edge: "+edgeSecret)...), 503, "untrusted_edge"},
		"an address that is known":                {loopback, asking("GET /auth", original...), 200, "public_route"},
		"an address that is not":                  {elsewhere, asking("GET /auth", original...), 503, "untrusted_edge"},
		"a preflight": {
			xOriginal, asking("GET /auth", "X-Original-URI: /web", "X-Original-Method: OPTIONS", "X-Original-Host: a", "Origin: b", "Access-Control-Request-Method: PUT"),
			200, "preflight",
		},
		"half of a preflight": {
			xOriginal, asking("GET /auth", "X-Original-URI: /web", "X-Original-Method: OPTIONS", "X-Original-Host: a", "Origin: b"),
			401, "missing_token",
		},
		"a preflight by the method of the subrequest alone": {
			xOriginal, asking("OPTIONS /auth", "X-Original-URI: /web", "X-Original-Method: PUT", "X-Original-Host: a", "Origin: b", "Access-Control-Request-Method: PUT"),
			401, "missing_token",
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := startTCP(t, authrequest.Options{Trust: test.trust}, byAll(t))
			got := f.ask(t, test.request)
			if got.StatusCode != test.status || got.Header.Get("X-Bearergate-Reason") != test.reason {
				t.Errorf("%d %s, want %d %s", got.StatusCode, got.Header.Get("X-Bearergate-Reason"), test.status, test.reason)
			}
			if strings.Contains(got.body, edgeSecret) {
				t.Errorf("the answer holds the secret: %s", got.body)
			}
		})
	}
}

// TestNobodyIsBelievedUnlessItIsSaid: a gate that goes by path behind a listener that
// trusts nothing refuses everything.
func TestNobodyIsBelievedUnlessItIsSaid(t *testing.T) {
	f := startTCP(t, authrequest.Options{}, byAll(t))
	for _, request := range []string{
		asking("GET /auth/public"),
		asking("GET /auth", "X-Original-URI: /public/x", "X-Original-Method: PUT", "X-Original-Host: api.example.com"),
		asking("GET /auth", "X-Forwarded-Uri: /public/x", "X-Forwarded-Method: PUT", "X-Forwarded-Host: api.example.com"),
	} {
		if got := f.ask(t, request); got.StatusCode != http.StatusServiceUnavailable || got.Header.Get("X-Bearergate-Reason") != "unclear_edge" {
			t.Errorf("%s: %d %s", request, got.StatusCode, got.Header.Get("X-Bearergate-Reason"))
		}
	}
}

// TestAUnixSocketHasNoAddressToKnow: nobody there is one of the peers.
func TestAUnixSocketHasNoAddressToKnow(t *testing.T) {
	f := start(t, newPipes(), authrequest.Options{Trust: authrequest.Trust{Peers: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}})
	if got := f.ask(t, get("Bearer "+goodToken)); got.Header.Get("X-Bearergate-Reason") != "untrusted_edge" {
		t.Error(got.StatusCode, got.Header)
	}
}

// TestAPublicRouteTellsNothingOfTheToken, and has identity headers taken off.
func TestAPublicRouteTellsNothingOfTheToken(t *testing.T) {
	f := startTCP(t, authrequest.Options{Trust: authrequest.Trust{Original: authrequest.XOriginal}}, func(o *gate.Options) {
		o.Identity = []gate.IdentityHeader{{Name: "X-Partner", Constant: "crm"}, {Name: "X-Token", Fingerprint: true}}
	}, byAll(t))
	public := f.ask(t, asking("GET /auth/", "X-Original-URI: /public", "X-Original-Method: GET", "X-Original-Host: api.example.com", "Authorization: Bearer "+goodToken))
	if public.StatusCode != http.StatusOK || public.Header["X-Partner"] != nil || public.Header["X-Token"] != nil {
		t.Errorf("%d %v", public.StatusCode, public.Header)
	}
	if got := public.Header.Get("X-Envoy-Auth-Headers-To-Remove"); got != "authorization,x-partner,x-token" {
		t.Errorf("takes off %q", got)
	}
	if f.oracle.asked.Load() != 0 {
		t.Error("the verifier was asked")
	}
	good := f.ask(t, asking("GET /auth/", "X-Original-URI: /x", "X-Original-Method: GET", "X-Original-Host: api.example.com", "Authorization: Bearer "+goodToken))
	if good.StatusCode != http.StatusOK || good.Header.Get("X-Partner") != "crm" || good.Header.Get("X-Envoy-Auth-Headers-To-Remove") != "authorization" {
		t.Errorf("%d %v", good.StatusCode, good.Header)
	}
}

// TestWhoIsLetThroughWithoutAGoodTokenSaysNothingOfWhoItIs: identity headers of the
// policy itself are taken off, too.
func TestWhoIsLetThroughWithoutAGoodTokenSaysNothingOfWhoItIs(t *testing.T) {
	f := startTCP(t, authrequest.Options{}, func(o *gate.Options) {
		o.Identity = []gate.IdentityHeader{{Name: "X-Partner", Constant: "crm"}, {Name: "X-Token", Fingerprint: true}}
		o.Shadow = time.Now().Add(time.Hour)
	})
	for _, request := range []string{get(""), get("Bearer a-token-that-is-not-good")} {
		got := f.ask(t, request)
		if got.StatusCode != http.StatusOK || got.Header["X-Partner"] != nil || got.Header["X-Token"] != nil {
			t.Errorf("%d %v", got.StatusCode, got.Header)
		}
		if off := got.Header.Get("X-Envoy-Auth-Headers-To-Remove"); off != "authorization,x-partner,x-token" {
			t.Errorf("takes off %q", off)
		}
	}
}

// TestAConnectionWithoutACertificateIsNobodys, whatever its request says.
func TestAConnectionWithoutACertificateIsNobodys(t *testing.T) {
	f := startTCP(t, authrequest.Options{Trust: authrequest.Trust{Client: func(*x509.Certificate) bool { return true }}})
	if got := f.ask(t, asking("GET /auth")); got.StatusCode != http.StatusServiceUnavailable || got.Header.Get("X-Bearergate-Reason") != "untrusted_edge" {
		t.Errorf("%d %s", got.StatusCode, got.Header.Get("X-Bearergate-Reason"))
	}
}
