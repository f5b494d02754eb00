package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/encoding/prototext"

	"github.com/bearergate/bearergate/config"
	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
)

func ofToken(token string) *adminv1.ExplainRequest {
	return &adminv1.ExplainRequest{Which: &adminv1.ExplainRequest_Token{Token: token}}
}

func ofFingerprint(mark string) *adminv1.ExplainRequest {
	return &adminv1.ExplainRequest{Which: &adminv1.ExplainRequest_Fingerprint{Fingerprint: mark}}
}

// TestAGatewayExplainsWhatARequestGets: the same that it gets then, without asking, and
// with as much as there is to know.
func TestAGatewayExplainsWhatARequestGets(t *testing.T) {
	e := local(t)
	g := run(t, `
listeners:
  ext_authz: {address: "127.0.0.1:0"}
  auth_request: {address: "127.0.0.1:0", trust: {original: x-original}}
  admin: {address: "127.0.0.1:0"}
  more: [{name: orders, auth_request: {address: "127.0.0.1:0", trust: {original: x-original}, default_policy: orders}}]
policies:
  - {name: open, public: true}
  - {name: orders, realm: orders, require: {expression: request.method == "PUT"}}
routes:
  - {path: {prefix: /open}, policy: open}
  - {hosts: [orders.example.com], policy: orders}
  - {path: {prefix: /}, policy: default}
`+asking(e.URL()))
	c := admins(t, g.Address(config.Admin), "")
	good, other := issue(t, e), issue(t, e)
	explain := func(r *adminv1.ExplainRequest) *adminv1.ExplainResponse {
		t.Helper()
		got, err := c.Explain(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if text := prototext.Format(got); strings.Contains(text, good) || strings.Contains(text, other) || strings.Contains(text, "made-up") {
			t.Errorf("a token is in %s", text)
		}
		return got
	}
	ask := func(token string) reply {
		return get(t, g.Address(config.AuthRequest), "/auth", "Authorization", "Bearer "+token, "X-Original-Method", "GET", "X-Original-Host", "a.example.com", "X-Original-Uri", "/x")
	}
	calls := func() string {
		return g.metric(t, `bearergate_verifier_call_duration_seconds_count{outcome="valid",verifier="crm"}`)
	}
	decisions := func() string {
		return g.metric(t, `bearergate_decisions_total{enforced="true",listener="ext_authz",policy="default",reason="invalid_token",source="endpoint"}`)
	}

	// Nobody knows this one, and nobody is asked.
	got := explain(ofToken(good))
	if got.GetAnswer() == nil || got.GetAnswer().GetKnown() || got.GetPolicy() != "default" || got.GetListener() != "ext_authz" || got.GetForm() != "opaque" ||
		len(got.GetRemembered()) != 1 || got.GetRemembered()[0].GetAnswer() != "nothing" || got.GetRemembered()[0].GetBreaker() != "closed" ||
		len(got.GetUnknown()) != 2 || !strings.Contains(got.GetUnknown()[0], "policies here go by its method, host, path") || got.GetAdvice() != nil {
		t.Errorf("a new one: %v", got)
	}
	if calls() != "0" {
		t.Errorf("it was asked about %s times", calls())
	}
	mark := got.GetFingerprint()

	// What is remembered.
	if r := ask(good); r.status != 200 {
		t.Fatal(r)
	}
	got = explain(&adminv1.ExplainRequest{Which: ofToken(good).GetWhich(), Host: "a.example.com", Path: "/x?token=made-up"})
	if a := got.GetAnswer(); !a.GetKnown() || a.GetReason() != "valid" || a.GetOutcome() != "allow" || a.GetSource() != "cache" || a.GetStatus() != 200 || a.GetBody() != "" {
		t.Errorf("a good one: %v", got)
	}
	if r := got.GetRemembered()[0]; r.GetAnswer() != "good" || r.GetPart() != "good" || !r.GetUntil().AsTime().After(r.GetLearnt().AsTime()) {
		t.Errorf("a good one is remembered as %v", r)
	}
	if because := got.GetBecause(); len(because) != 1 || because[0] != "routes[2] matches: path / and below" {
		t.Errorf("because %q", because)
	}

	// Other policies: of the host, of the listener, of the edge, none.
	at := func(r *adminv1.ExplainRequest) *adminv1.Answer { return explain(r).GetAnswer() }
	which := ofToken(good).GetWhich()
	for name, test := range map[string]struct {
		request *adminv1.ExplainRequest
		want    string
		status  uint32
	}{
		"of the host":             {&adminv1.ExplainRequest{Which: which, Host: "orders.example.com", Path: "/x"}, "insufficient_scope", 403},
		"of the listener":         {&adminv1.ExplainRequest{Which: which, Listener: "orders"}, "insufficient_scope", 403},
		"that is asked for":       {&adminv1.ExplainRequest{Which: which, Policy: "orders"}, "insufficient_scope", 403},
		"that the edge names":     {&adminv1.ExplainRequest{Which: which, Policy: "orders", Host: "a", Path: "/open"}, "insufficient_scope", 403},
		"that is public":          {&adminv1.ExplainRequest{Which: which, Host: "a", Path: "/open/x"}, "public_route", 200},
		"none, by the path":       {&adminv1.ExplainRequest{Which: which, Host: "a", Path: "/open/../x"}, "bad_path", 400},
		"none, by the edge":       {&adminv1.ExplainRequest{Which: which, Host: "a", Path: "/x", Policy: "nothing"}, "unknown_policy", 503},
		"none, by who asks":       {&adminv1.ExplainRequest{Which: which, Policy: "nothing"}, "unknown_policy", 503},
		"whatever the token is":   {&adminv1.ExplainRequest{Which: ofToken("made-up").GetWhich(), Host: "a", Path: "/open/x"}, "public_route", 200},
		"as it should not be":     {ofToken(`"made-up"`), "malformed_token", 401},
		"as a header":             {ofToken("Authorization: bearer made-up,made-up"), "multiple_tokens", 401},
		"of another scheme":       {ofToken("Basic made-up"), "missing_token", 401},
		"as a header that is one": {&adminv1.ExplainRequest{Which: ofToken("Bearer " + good + "\n").GetWhich()}, "valid", 200},
	} {
		a := at(test.request)
		if !a.GetKnown() || a.GetReason() != test.want || a.GetStatus() != test.status {
			t.Errorf("%s: %v, want %s", name, a, test.want)
		}
	}
	malformed := explain(ofToken(`"made-up"`))
	if malformed.GetFingerprint() != "none" || malformed.GetFault() != "the token is in quotes; send it without them" || malformed.GetAnswer().GetDetail() != malformed.GetFault() || malformed.GetAdvice().GetGerman() == "" {
		t.Errorf("a malformed one: %v", malformed)
	}

	// What a partner gets is what is explained.
	made := ofToken("made-up")
	if calls := g.metric(t, `bearergate_verifier_call_duration_seconds_count{outcome="invalid",verifier="crm"}`); calls != "0" {
		t.Errorf("%s calls", calls)
	}
	made.Ask = true
	got = explain(made)
	if a := got.GetAnswer(); !a.GetKnown() || a.GetReason() != "invalid_token" || a.GetSource() != "endpoint" || got.GetRemembered()[0].GetAnswer() != "refused" || got.GetRemembered()[0].GetPart() != "refused" {
		t.Errorf("one that was asked about: %v", got)
	}
	if !strings.Contains(g.log.text(), `"call":"explain","token":"`+got.GetFingerprint()+`"`) {
		t.Errorf("the log does not say who had the verifier asked:\n%s", g.log.text())
	}
	if decisions() != "0" || strings.Contains(g.log.text(), "request refused") {
		t.Errorf("what was explained is counted %s times, or in the log", decisions())
	}
	r, a := ask("made-up"), explain(ofToken("made-up")).GetAnswer()
	if uint32(r.status) != a.GetStatus() || r.body != a.GetBody() || a.GetSource() != "cache" {
		t.Errorf("a partner gets %+v, explained is %v", r, a)
	}
	for _, h := range a.GetHeader() {
		if r.header.Get(h.GetName()) != h.GetValue() {
			t.Errorf("a partner gets %s: %q, explained is %q", h.GetName(), r.header.Get(h.GetName()), h.GetValue())
		}
	}

	// By the fingerprint.
	got = explain(ofFingerprint(got.GetFingerprint()))
	if got.GetAnswer() != nil || len(got.GetRecent()) != 1 || got.GetRecent()[0].GetReason() != "invalid_token" || got.GetRefusedLately() != 1 || !strings.Contains(got.GetAdvice().GetEnglish(), "Fetch a new token") ||
		len(got.GetUnknown()) != 2 || got.GetRemembered()[0].GetAnswer() != "" || got.GetForm() != "" {
		t.Errorf("one that was refused: %v", got)
	}
	got = explain(ofFingerprint("0123456789ab"))
	if got.GetAnswer() != nil || len(got.GetRecent()) != 0 || len(got.GetUnknown()) != 3 || got.GetAdvice() != nil {
		t.Errorf("one that nobody knows: %v", got)
	}
	if _, err := c.Deny(t.Context(), &adminv1.DenyRequest{Which: &adminv1.DenyRequest_Fingerprint{Fingerprint: mark}, Reason: "runs wild"}); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]*adminv1.ExplainRequest{"the token": ofToken(good), "the fingerprint": ofFingerprint(mark)} {
		got = explain(r)
		if a := got.GetAnswer(); got.GetDenial().GetReason() != "runs wild" || !a.GetKnown() || a.GetReason() != "invalid_token" || a.GetSource() != "denied" || a.GetStatus() != 401 {
			t.Errorf("a denied one, by %s: %v", name, got)
		}
	}
}

// TestAGatewayExplainsWhyAVerifierRefused, by the token and by its fingerprint.
func TestAGatewayExplainsWhyAVerifierRefused(t *testing.T) {
	s := startServer(t)
	g := run(t, everywhere+fmt.Sprintf("verifiers: [{name: sso, jwt: {issuer: %q, audiences: [orders], algorithms: [ES256]}}]\n", s.URL))
	c := admins(t, g.Address(config.Admin), "")
	token := s.token(t, map[string]any{"aud": "billing"})
	if got := g.ask(t, token); got.status != 401 {
		t.Fatal(got)
	}
	got, err := c.Explain(t.Context(), ofToken(token))
	if err != nil {
		t.Fatal(err)
	}
	other, err := c.Explain(t.Context(), ofFingerprint(got.GetFingerprint()))
	if err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]*adminv1.ExplainResponse{"the token": got, "the fingerprint": other} {
		if r := e.GetRemembered(); len(r) != 1 || r[0].GetWhy() != "its aud holds none of the configured audiences" {
			t.Errorf("by %s: %v", name, e)
		}
	}
	if got.GetForm() != "jwt" || got.GetExpires() == nil || got.GetAnswer().GetReason() != "invalid_token" {
		t.Errorf("it is %v", got)
	}
	good := s.token(t, nil)
	if got, err := c.Explain(t.Context(), &adminv1.ExplainRequest{Which: ofToken(good).GetWhich(), Ask: true}); err != nil || got.GetAnswer().GetReason() != "valid" || got.GetRemembered()[0].GetWhy() != "" {
		t.Errorf("a good one: %v, %v", got, err)
	}
}

// TestAGatewayExplainsWhatDecidesNow, after a reload.
func TestAGatewayExplainsWhatDecidesNow(t *testing.T) {
	e := local(t)
	token := issue(t, e)
	text := "listeners: {auth_request: {address: \"127.0.0.1:0\", trust: {original: x-original}}, admin: {address: \"127.0.0.1:0\"}}\n" + asking(e.URL())
	r := runFrom(t, text)
	c := admins(t, r.Address(config.Admin), "")
	reason := func() string {
		t.Helper()
		got, err := c.Explain(t.Context(), &adminv1.ExplainRequest{Which: ofToken(token).GetWhich(), Ask: true})
		if err != nil {
			t.Fatal(err)
		}
		return got.GetAnswer().GetReason()
	}
	if got := reason(); got != "valid" {
		t.Errorf("it is %s", got)
	}
	r.become(t, text+"default_policy: {require: {expression: request.method == \"PUT\"}}\n")
	if got := reason(); got != "insufficient_scope" {
		t.Errorf("after a reload it is %s", got)
	}
}

func TestWhatCannotBeExplained(t *testing.T) {
	g := run(t, everywhere+asking("https://api.example.com/"))
	c := admins(t, g.Address(config.Admin), "")
	long := strings.Repeat("x", 257)
	for name, test := range map[string]struct {
		request *adminv1.ExplainRequest
		want    string
	}{
		"nothing":                    {&adminv1.ExplainRequest{}, "name the token, or its fingerprint"},
		"an empty token":             {ofToken(" \n"), "token: is empty"},
		"no fingerprint":             {ofFingerprint("secret"), "fingerprint: is no fingerprint"},
		"a request without a token":  {ofFingerprint("none"), "fingerprint: is no fingerprint"},
		"to ask about a fingerprint": {&adminv1.ExplainRequest{Which: ofFingerprint("0123456789ab").GetWhich(), Ask: true}, "ask: nobody can be asked"},
		"a host without a path":      {&adminv1.ExplainRequest{Which: ofToken("x").GetWhich(), Host: "a"}, "path: is missing"},
		"a listener that is none":    {&adminv1.ExplainRequest{Which: ofToken("x").GetWhich(), Listener: "admin"}, "there is no such listener for proxies"},
		"a long listener":            {&adminv1.ExplainRequest{Which: ofToken("x").GetWhich(), Listener: long}, "listener: is longer than 256 bytes"},
		"a long host":                {&adminv1.ExplainRequest{Which: ofToken("x").GetWhich(), Host: long, Path: "/"}, "host: is longer than 256 bytes"},
		"a long path":                {&adminv1.ExplainRequest{Which: ofToken("x").GetWhich(), Path: "/" + strings.Repeat("x", 8<<10)}, "path: is longer than 8192 bytes"},
	} {
		_, err := c.Explain(t.Context(), test.request)
		if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
	}
	// A token of the longest kind has room; one that is longer is explained.
	got, err := c.Explain(t.Context(), ofToken(strings.Repeat("x", 64<<10)))
	if err != nil || got.GetFault() != "the token is too long" {
		t.Errorf("a long token: %v, %v", got, err)
	}
}

// TestTheConfigurationInForceIsShown without its secrets, and as it is after a reload.
func TestTheConfigurationInForceIsShown(t *testing.T) {
	const secret = "a-secret-of-the-environment"
	t.Setenv("LIVE_TEST_REALM", secret)
	text := "listeners: {auth_request: {address: \"127.0.0.1:0\"}, admin: {address: \"127.0.0.1:0\"}}\n" +
		"default_policy: {realm: \"${LIVE_TEST_REALM}\"}\n" + asking("https://u:"+secret+"@api.example.com/?key="+secret)
	text = strings.Replace(text, "https://u:"+secret+"@", "https://", 1)
	r := runFrom(t, text)
	c := admins(t, r.Address(config.Admin), "")
	show := func() *adminv1.GetConfigurationResponse {
		t.Helper()
		got, err := c.GetConfiguration(t.Context(), &adminv1.GetConfigurationRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	got := show()
	if strings.Contains(got.GetYaml(), secret) || !strings.Contains(got.GetYaml(), "?key=***") || !strings.Contains(got.GetYaml(), "valid_ttl: 1m # default") {
		t.Errorf("it shows\n%s", got.GetYaml())
	}
	read, err := config.Read(got.GetFile())
	if err != nil {
		t.Fatal(err)
	}
	if want, err := read.YAML(); err != nil || got.GetYaml() != string(want) || got.GetJson() != "" {
		t.Errorf("it shows\n%s\nand config show\n%s%v", got, want, err)
	}
	got, err = c.GetConfiguration(t.Context(), &adminv1.GetConfigurationRequest{Json: true})
	if err != nil {
		t.Fatal(err)
	}
	if want, err := read.JSON(); err != nil || got.GetJson() != string(want) || got.GetYaml() != "" || strings.Contains(got.GetJson(), secret) {
		t.Errorf("in JSON it shows\n%s\nand config show\n%s%v", got, want, err)
	}
	r.become(t, "# a line more\n"+text+"cache: {valid_ttl: 20s}\n")
	if got := show(); !strings.Contains(got.GetYaml(), "valid_ttl: 20s # line 7") {
		t.Errorf("after a reload it shows\n%s", got.GetYaml())
	}
	if err := os.WriteFile(filepath.Clean(got.GetFile()), []byte("listeners: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Reload(t.Context(), &adminv1.ReloadRequest{}); err != nil {
		t.Fatal(err)
	}
	if got := show(); !strings.Contains(got.GetYaml(), "valid_ttl: 20s") {
		t.Errorf("after one that was refused it shows\n%s", got.GetYaml())
	}

	g := run(t, everywhere+asking("https://api.example.com/"))
	if _, err := admins(t, g.Address(config.Admin), "").GetConfiguration(t.Context(), &adminv1.GetConfigurationRequest{}); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Errorf("without a file: %v", err)
	}
}
