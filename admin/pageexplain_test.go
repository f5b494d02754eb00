package admin_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bearergate/bearergate/admin"
	"github.com/bearergate/bearergate/gate"
	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
	"github.com/bearergate/bearergate/verifier"
)

// explaining is a server whose page explains, and the last question that came.
type explaining struct {
	*operated

	asked  *admin.Question
	answer admin.Explanation
	recent *admin.Recent
}

func explain(t *testing.T) *explaining {
	t.Helper()
	o := operate(t, admin.Access{})
	e := &explaining{operated: o, recent: admin.NewRecent()}
	o.Operate(&admin.Controls{
		Generation: func() uint64 { return 1 }, Listeners: func() []admin.Listener { return nil },
		Verifiers: func() map[string]admin.Stages { return nil }, Denials: verifier.NewDenials(), Recent: e.recent,
		Explain: func(ctx context.Context, q admin.Question) (*admin.Explanation, error) {
			if _, ok := ctx.Deadline(); !ok {
				t.Error("an explanation may take for ever")
			}
			e.asked = &q
			if q.Listener != "" || q.Host == "nowhere" {
				return nil, errors.New("there is no such <listener>")
			}
			answer := e.answer
			return &answer, nil
		},
	})
	return e
}

// post sends the form, with headers given as name and value.
func (e *explaining) post(t *testing.T, path, body string, headers ...string) reply {
	t.Helper()
	e.asked = nil
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Del(headers[i])
		if headers[i+1] != "" {
			r.Header.Set(headers[i], headers[i+1])
		}
	}
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
	}
	resp, err := e.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp, string(text)}
}

// TestWhoMayHaveATokenExplained: the page itself alone. What is sent from elsewhere is
// not read.
func TestWhoMayHaveATokenExplained(t *testing.T) {
	e := explain(t)
	for _, test := range []struct {
		name    string
		headers []string
		status  int
	}{
		{"the page", nil, http.StatusOK},
		{"the page in an old browser", []string{"Sec-Fetch-Site", "", "Origin", e.url}, http.StatusOK},
		{"another page", []string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden},
		{"another page that opens it", []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, http.StatusForbidden},
		{"a page of another port", []string{"Sec-Fetch-Site", "same-site"}, http.StatusForbidden},
		{"another page in an old browser", []string{"Sec-Fetch-Site", "", "Origin", "http://evil.example"}, http.StatusForbidden},
		{"a page without an origin", []string{"Sec-Fetch-Site", "", "Origin", "null"}, http.StatusForbidden},
		{"what says nothing of where it comes from", []string{"Sec-Fetch-Site", ""}, http.StatusForbidden},
		{"a page whose name was made to point here", []string{"Host", "evil.example"}, http.StatusForbidden},
		{"JSON", []string{"Content-Type", "application/json"}, http.StatusUnsupportedMediaType},
		{"a form with files", []string{"Content-Type", "multipart/form-data; boundary=x"}, http.StatusUnsupportedMediaType},
		{"text", []string{"Content-Type", "text/plain"}, http.StatusUnsupportedMediaType},
	} {
		got := e.post(t, "/explain", "token="+someToken, test.headers...)
		if got.StatusCode != test.status || (e.asked != nil) != (test.status == http.StatusOK) {
			t.Errorf("%s: %d, asked is %v", test.name, got.StatusCode, e.asked)
		}
		if strings.Contains(got.body, someToken) || got.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v %s", test.name, got.Header, got.body)
		}
	}
	if strings.Contains(e.logs.text(), someToken) {
		t.Error("the token is in the log")
	}
	if got := e.ask(t, http.MethodGet, "/explain?token="+someToken); got.StatusCode != http.StatusSeeOther || got.Header.Get("Location") != "./#explain" {
		t.Errorf("GET: %d %v", got.StatusCode, got.Header)
	}
	for _, access := range []admin.Access{{Off: true}, {Credential: func() ([]byte, error) { return []byte(credential), nil }}} {
		o := operate(t, access)
		if got := o.ask(t, http.MethodPost, "/explain", "Sec-Fetch-Site", "same-origin", "Authorization", "Bearer "+credential); got.StatusCode != http.StatusNotFound {
			t.Errorf("where there is no page: %d", got.StatusCode)
		}
	}
}

func TestWhatTheFormAsks(t *testing.T) {
	e := explain(t)
	for _, test := range []struct {
		name, path, body string
		status           int
		want             *admin.Question
	}{
		{"a token", "", "token=abc", 200, &admin.Question{Token: "abc"}},
		{"with spaces around it", "", "token=%0A+abc+%0D%0A", 200, &admin.Question{Token: "abc"}},
		{"a header's value", "", "token=Bearer+abc", 200, &admin.Question{Token: "Bearer abc"}},
		{"a header's line", "", "token=authorization:+Bearer+abc", 200, &admin.Question{Token: "Bearer abc"}},
		{"another line is taken as it is", "", "token=Cookie:+abc", 200, &admin.Question{Token: "Cookie: abc"}},
		{"to be asked about", "", "token=abc&ask=1", 200, &admin.Question{Token: "abc", Ask: true}},
		{"a fingerprint", "", "token=&fingerprint=0123456789ab", 200, &admin.Question{}},
		{"both: the token", "", "token=abc&fingerprint=0123456789ab", 200, &admin.Question{Token: "abc"}},
		{"for a request", "", "token=abc&method=post&url=https://api.example.com/v1/orders?a=b", 200, &admin.Question{Token: "abc", Method: "POST", Host: "api.example.com", Path: "/v1/orders"}},
		{"for a host", "", "token=abc&url=api.example.com:8443", 200, &admin.Question{Token: "abc", Host: "api.example.com:8443", Path: "/"}},
		{"for a host with a query", "", "token=abc&url=api.example.com?x=/", 200, &admin.Question{Token: "abc", Host: "api.example.com", Path: "/"}},
		{"for a path", "", "token=abc&url=/v1%2F%2Fx%23y", 200, &admin.Question{Token: "abc", Path: "/v1//x"}},
		{"a method without a URL", "", "token=abc&method=POST", 200, &admin.Question{Token: "abc"}},
		{"what stands in the URL is not looked at", "?token=xyz&ask=1", "token=abc", 200, &admin.Question{Token: "abc"}},
		{"nothing", "", "", 400, nil},
		{"a token in the URL alone", "?token=xyz", "", 400, nil},
		{"a fingerprint that is none", "", "fingerprint=xyz", 400, nil},
		{"a form that cannot be read", "", "token=%zz", 400, nil},
		{"a form with a semicolon", "", "token=abc;ask=1", 400, nil},
		{"the longest form", "", "token=" + strings.Repeat("x", 128<<10-6), 200, &admin.Question{Token: strings.Repeat("x", 128<<10-6)}},
		{"too long a form", "", "token=" + strings.Repeat("x", 128<<10-5), 413, nil},
		{"too long a host", "", "token=abc&url=" + strings.Repeat("x", 257), 400, nil},
		{"what the gateway does not know", "", "token=abc&url=nowhere/", 400, &admin.Question{Token: "abc", Host: "nowhere", Path: "/"}},
	} {
		got := e.post(t, "/explain"+test.path, test.body)
		if got.StatusCode != test.status || !cmp.Equal(e.asked, test.want) {
			t.Errorf("%s: %d, asked is %.300v", test.name, got.StatusCode, e.asked)
		}
		if !strings.Contains(got.body, `id="answer"`) || test.status != 200 != strings.Contains(got.body, `class="note bad"`) {
			t.Errorf("%s: the page says %.3000s", test.name, got.body)
		}
	}
	if got := e.post(t, "/explain?lang=de", "token=abc&url=nowhere"); !strings.Contains(got.body, "Das lässt sich nicht erklären") || !strings.Contains(got.body, "there is no such &lt;listener&gt;") {
		t.Error("the page does not say what is wrong")
	}
}

// TestACallMayNotTakeForEver by the API either: the deadline is looked at where the
// explanation is made.
func TestACallMayNotTakeForEver(t *testing.T) {
	e := explain(t)
	_, err := e.calls().Explain(t.Context(), &adminv1.ExplainRequest{Which: &adminv1.ExplainRequest_Token{Token: someToken}})
	if err != nil || e.asked == nil {
		t.Errorf("%v, asked is %v", err, e.asked)
	}
}

func aside(d gate.Decision, detail string, reply gate.Reply) *gate.Aside {
	return &gate.Aside{Decision: d, Detail: detail, Reply: &reply}
}

// TestThePageExplains what is known, in both languages, and shows the token nowhere.
func TestThePageExplains(t *testing.T) {
	e := explain(t)
	form := url.Values{"token": {someToken}}.Encode()
	known := admin.Explanation{
		Fingerprint: "0123456789ab", Form: "jwt", Expires: time.Unix(4_000_000_000, 0), Listener: "edge", Policy: "orders",
		Because: []string{"path /v1 & below"}, Requires: []string{"scope <a>"}, Unknown: []string{"the future"},
		Remembered: []admin.Remembered{{Verifier: "crm", Seen: &verifier.Seen{Known: true, Valid: true, Good: true, Until: time.Now().Add(time.Minute)}}},
		Denial:     &verifier.Denial{Fingerprint: "0123456789ab", Reason: "leaked", Who: "me", Until: time.Now().Add(time.Hour)},
	}
	for _, test := range []struct {
		name   string
		change func(x *admin.Explanation)
		path   string
		says   []string
		not    []string
	}{
		{"refused", func(x *admin.Explanation) {
			x.Answer = aside(gate.Decision{Reason: gate.InvalidToken, Source: verifier.FromDenial}, "", gate.Reply{Status: 401, Header: []gate.Header{{Name: "www-authenticate", Value: `Bearer error="invalid_token"`}}, Body: []byte(`{"error":"<x>"}`)})
		}, "", []string{
			`<div class="note bad">`, ">401</span>", "<code>invalid_token</code>", "the verifier says no", "denied by an operator", "leaked", "www-authenticate: Bearer error=",
			"{&#34;error&#34;:&#34;&lt;x&gt;&#34;}", "path /v1 &amp; below", "scope &lt;a&gt;", "the future", "crm", "it is good", "2096-10-02", "JWT", "orders", "edge", "What whoever sends it should do", gate.InvalidToken.Advice().English[:20],
		}, []string{"It is not known without"}},
		{"refused, in German", func(x *admin.Explanation) {
			x.Answer = aside(gate.Decision{Reason: gate.InvalidToken, Source: verifier.FromDenial}, "", gate.Reply{Status: 401})
		}, "?lang=de", []string{"die Prüfstelle sagt Nein", "von Hand gesperrt", "Was der Absender tun sollte", "es ist gültig", gate.InvalidToken.Advice().German[:20]}, []string{"What whoever", gate.InvalidToken.Advice().English[:20]}},
		{"allowed", func(x *admin.Explanation) {
			x.Answer = aside(gate.Decision{Reason: gate.Valid, Source: verifier.FromCache}, "", gate.Reply{Status: 200})
		}, "", []string{`<div class="note good">`, ">200</span>", "the token is good", "remembered"}, []string{"What whoever sends it should do"}},
		{"let through in shadow", func(x *admin.Explanation) {
			x.Answer = aside(gate.Decision{Reason: gate.MalformedToken, Shadow: true}, "it has a <comma>", gate.Reply{Status: 200})
			x.Fault = "it has a <comma>"
		}, "", []string{"let through (shadow)", "it has a &lt;comma&gt;", "What is wrong with it"}, nil},
		{"not known without asking", func(x *admin.Explanation) { x.Unasked, x.Answer = true, &gate.Aside{} }, "", []string{
			`<div class="note info">`, "It is not known without asking the verifier.", "Choose below",
		}, []string{">401</span>", ">503</span>"}},
		{"by its fingerprint", func(x *admin.Explanation) { x.Remembered[0].Seen = nil }, "?lang=de", []string{"nur mit dem Token zu finden"}, nil},
	} {
		e.answer = known
		e.answer.Remembered = append([]admin.Remembered(nil), known.Remembered...)
		test.change(&e.answer)
		got := e.post(t, "/explain"+test.path, form)
		for _, text := range test.says {
			if !strings.Contains(got.body, text) {
				t.Errorf("%s: the page does not say %q", test.name, text)
			}
		}
		for _, text := range append(test.not, someToken) {
			if strings.Contains(got.body, text) {
				t.Errorf("%s: the page says %q", test.name, text)
			}
		}
	}
	e.recent.Tell(&gate.Event{At: time.Now(), Reason: gate.InsufficientScope, Fingerprint: "0123456789ab", Policy: "reports", Client: netip.MustParseAddr("192.0.2.7")})
	if got := e.post(t, "/explain", form); !strings.Contains(got.body, "What was decided of it lately") || !strings.Contains(got.body, "<code>insufficient_scope</code>") || strings.Contains(got.body, "192.0.2.7") {
		t.Errorf("the page does not say what was decided lately, or too much: %s", got.body)
	}
	e.recent.Tell(&gate.Event{At: time.Now(), Reason: gate.Valid, Source: verifier.FromStale, Fingerprint: "0123456789ab"})
	if got := e.post(t, "/explain", form); !strings.Contains(got.body, `<code>valid</code> <span class="quiet">ended, used because nobody can tell`) {
		t.Errorf("the page does not say where the answer came from: %s", got.body)
	}
}
