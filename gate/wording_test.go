package gate_test

import (
	"context"
	"encoding/json"
	"fmt"
	"mime"
	"strings"
	"testing"
	"time"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/policy"
	"github.com/bearergate/bearergate/verifier"
)

func worded(w gate.Wording) func(*gate.Options) { return func(o *gate.Options) { o.Wording = w } }

// wordings are one of each kind.
var wordings = map[string]gate.Wording{
	"crm-now":         {},
	"problem":         {Problem: true},
	"problem, typed":  {Problem: true, ProblemTypes: "https://example.com/problems/"},
	"JSON template":   {ContentType: "application/vnd.x+json", Template: `{"why": "{{.reason}}", "says": "{{.detail}}", "in": "{{.realm}}"}`},
	"HTML template":   {ContentType: "text/html; charset=utf-8", Template: "<h1>{{.status}} {{.title}}</h1>\n<p>{{.realm}}</p>\n"},
	"plain template":  {ContentType: "text/plain", Template: "{{.reason}}{{if .retry_after}}, again in {{.retry_after}} s{{end}}"},
	"names a request": {ContentType: "application/json", Template: `{"why": "{{.reason}}", "request": "{{.request_id}}"}`},
	"with metadata":   {ResourceMetadata: "https://api.example.com/.well-known/oauth-protected-resource"},
}

// TestNoWordingMakesARefusalSomethingElse: whatever the words, each reason has its
// status and its headers, and no refusal is a 2xx.
func TestNoWordingMakesARefusalSomethingElse(t *testing.T) {
	own := newGate(t, unasked)
	want := map[string]string{}
	about := func(reason gate.Reason, reply *gate.Reply) string {
		s := fmt.Sprint(reason, reply.Status, reply.Policy, reply.Identity)
		for _, h := range reply.Header {
			if h.Name != "Content-Type" {
				s += "|" + h.Name + ":" + strings.Replace(h.Value, `, resource_metadata="https://api.example.com/.well-known/oauth-protected-resource"`, "", 1)
			}
		}
		return s
	}
	for reason, reply := range own.Replies() {
		want[about(reason, reply)] = reason.String()
	}
	for name, w := range wordings {
		seen := 0
		for reason, reply := range newGate(t, unasked, worded(w)).Replies() {
			if reply.Status/100 == 2 != (reason.Outcome() == gate.Allow) {
				t.Errorf("%s: %v is a %d", name, reason, reply.Status)
			}
			if _, ok := want[about(reason, reply)]; !ok {
				t.Errorf("%s: %v has another reply: %s", name, reason, about(reason, reply))
			}
			if reason.Outcome() == gate.Allow {
				continue
			}
			seen++
			if len(reply.Body) == 0 || len(reply.Body) > gate.MaxBody {
				t.Errorf("%s: %v has a body of %d bytes", name, reason, len(reply.Body))
			}
			kind, _, err := mime.ParseMediaType(headerOf(t, reply, "Content-Type"))
			if err != nil || strings.HasSuffix(kind, "json") && !json.Valid(reply.Body) {
				t.Errorf("%s: %v: %s, %v, %s", name, reason, kind, err, reply.Body)
			}
			if (reply.Forbidden != nil) != (reason.Outcome() == gate.Refused) {
				t.Errorf("%s: %v has another reply for who takes no 400: %v", name, reason, reply.Forbidden)
			}
		}
		if seen < 20 {
			t.Errorf("%s: %d refusals", name, seen)
		}
	}
}

func TestWordsOfRefusals(t *testing.T) {
	const realm = `<shop> & 'sons'`
	for _, test := range []struct {
		wording     string
		request     gate.Request
		contentType string
		body        string
	}{
		{"crm-now", with(), "application/json", `{"error":"missing or invalid auth token"}`},
		{"problem", with(), "application/problem+json", `{"type":"about:blank","title":"Unauthorized","status":401,"detail":"the request has no Authorization header","reason":"missing_token"}`},
		{
			"problem, typed", with("Bearer refused"), "application/problem+json",
			`{"type":"https://example.com/problems/invalid_token","title":"The token is not good","status":401,"detail":"the token is not good or has ended; fetch a new one","reason":"invalid_token"}`,
		},
		{"JSON template", with("Bearer refused"), "application/vnd.x+json", `{"why": "invalid_token", "says": "the token is not good or has ended; fetch a new one", "in": "\u003cshop\u003e \u0026 'sons'"}`},
		{"HTML template", with("Bearer refused"), "text/html; charset=utf-8", "<h1>401 The token is not good</h1>\n<p>&lt;shop&gt; &amp; &#39;sons&#39;</p>\n"},
		{"plain template", with("Bearer refused"), "text/plain", "invalid_token"},
		{"plain template", with("Bearer down"), "text/plain", "verifier_unavailable, again in 5 s"},
		{"plain template", with("Bearer busy"), "text/plain", "verifier_unavailable, again in 42 s"},
		{"names a request", with(), "application/json", `{"why": "missing_token", "request": ""}`},
		{"names a request", gate.Request{RequestID: "7f-3:x"}, "application/json", `{"why": "missing_token", "request": "7f-3:x"}`},
		{"names a request", gate.Request{RequestID: "7f", Authorization: []string{"Bearer busy"}}, "application/json", `{"why": "verifier_unavailable", "request": "7f"}`},
		{"names a request", gate.Request{RequestID: strings.Repeat("x", 128)}, "application/json", `{"why": "missing_token", "request": "` + strings.Repeat("x", 128) + `"}`},
		// What a client may have written is not shown unless it is harmless everywhere.
		{"names a request", gate.Request{RequestID: strings.Repeat("x", 129)}, "application/json", `{"why": "missing_token", "request": ""}`},
		{"names a request", gate.Request{RequestID: `"<script>`}, "application/json", `{"why": "missing_token", "request": ""}`},
		{"names a request", gate.Request{RequestID: "a\nb"}, "application/json", `{"why": "missing_token", "request": ""}`},
		{"names a request", gate.Request{RequestID: "ü"}, "application/json", `{"why": "missing_token", "request": ""}`},
	} {
		g := newGate(t, answers, worded(wordings[test.wording]), func(o *gate.Options) { o.Realm = realm })
		d := g.Decide(t.Context(), test.request)
		reply := g.Reply(&d)
		if got := headerOf(t, reply, "Content-Type"); got != test.contentType || string(reply.Body) != test.body {
			t.Errorf("%s, %v: %s %s, want %s %s", test.wording, d.Reason, got, reply.Body, test.contentType, test.body)
		}
	}
}

// TestAnUnclearRequestIsWordedByTheDefaultPolicy, as a 400 and as the 403
// that some edges need.
func TestAnUnclearRequestIsWordedByTheDefaultPolicy(t *testing.T) {
	router, err := policy.NewRouter([]string{policy.DefaultName}, nil)
	if err != nil {
		t.Fatal(err)
	}
	router.Read(policy.Needs{Path: true})
	g := newGate(t, unasked, worded(wordings["problem"]), func(o *gate.Options) { o.Router = router })
	r := with()
	r.Path = "/a/../b"
	d := g.Decide(t.Context(), r)
	for reply, status := range map[*gate.Reply]int{g.Reply(&d): 400, g.Reply(&d).Forbidden: 403} {
		var problem struct{ Status int }
		if err := json.Unmarshal(reply.Body, &problem); err != nil || problem.Status != status || reply.Status != status {
			t.Errorf("%d says %s, %v", reply.Status, reply.Body, err)
		}
	}
}

func TestTheChallengeNamesTheMetadata(t *testing.T) {
	const at = `, resource_metadata="https://api.example.com/.well-known/oauth-protected-resource"`
	for _, r := range []gate.Request{with(), with("Bearer refused"), with("Bearer a b")} {
		g := newGate(t, answers, worded(wordings["with metadata"]))
		d := g.Decide(t.Context(), r)
		if got := headerOf(t, g.Reply(&d), "WWW-Authenticate"); !strings.HasPrefix(got, `Bearer realm="api"`+at) {
			t.Errorf("%v: %s", d.Reason, got)
		}
	}
}

// TestAWordingThatIsNoneMakesNoGate: config says so first, with line and field.
func TestAWordingThatIsNoneMakesNoGate(t *testing.T) {
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []gate.Wording{
		{Template: "{{.token}}", ContentType: "text/plain"},
		{Template: "{{range 1000000000000}}{{end}}x", ContentType: "text/plain"}, // would take for ever
		{Template: "x"},
		{Template: "x", ContentType: "text/plain", ResourceMetadata: "x"},
		{Problem: true, ProblemTypes: "ftp://x/"},
		{Template: strings.Repeat(" ", 8193) + "x", ContentType: "text/plain"},
	} {
		if _, err := gate.New(gate.Options{Parser: parser, Policy: gate.Policy{Verifier: good, Realm: "api", Wording: w}}); err == nil {
			t.Errorf("%+v is accepted", w)
		}
	}
}

// TestATokenIsInNoBody: there is no field for it, and it comes in by no other.
func TestATokenIsInNoBody(t *testing.T) {
	all := ""
	for _, field := range gate.WordingFields() {
		all += "{{." + field + "}} "
	}
	g := newGate(t, answers, worded(gate.Wording{ContentType: "text/plain", Template: all}))
	for _, r := range []gate.Request{with("Bearer " + canary + "x"), with("Bearer " + canary + ",b"), {RequestID: "7", Target: "/?access_token=" + canary}} {
		d := g.Decide(t.Context(), r)
		if body := string(g.Reply(&d).Body); strings.Contains(body, canary[:12]) || !strings.Contains(body, d.Reason.String()) {
			t.Errorf("%v: %s", d.Reason, body)
		}
	}
}

// answers is a verifier that finds no token good but the canary, and of two nobody can tell.
var answers = verify(func(_ context.Context, t bearer.Token) (verifier.Verdict, error) {
	switch t.Reveal() {
	case "down":
		return verifier.Verdict{}, &verifier.NoAnswer{Verifier: "crm", Problem: "it is down"}
	case "busy":
		return verifier.Verdict{}, &verifier.NoAnswer{Verifier: "crm", Problem: "it is busy", RetryAfter: 42 * time.Second}
	default:
		return verifier.Verdict{Valid: t.Reveal() == canary}, nil
	}
})
