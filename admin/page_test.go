package admin_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bearergate/bearergate/admin"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/verifier"
)

// TestThePageIsClosed: nothing of it comes from elsewhere, nothing is inline, nobody
// frames it, and nothing of it is stored.
func TestThePageIsClosed(t *testing.T) {
	o := operate(t, admin.Access{})
	for path, content := range map[string]string{
		"/":                    "text/html; charset=utf-8",
		"/?lang=de":            "text/html; charset=utf-8",
		"/page/style.css":      "text/css; charset=utf-8",
		"/page/page.js":        "text/javascript; charset=utf-8",
		"/page/icon.svg":       "image/svg+xml",
		"/configuration":       "text/plain; charset=utf-8",
		"/page/none.css":       "text/plain; charset=utf-8",
		"/page/":               "text/plain; charset=utf-8",
		"/page/page.html.tmpl": "text/plain; charset=utf-8",
	} {
		got := o.ask(t, http.MethodGet, path)
		if got.Header.Get("Content-Type") != content {
			t.Errorf("%s is %q, want %q", path, got.Header.Get("Content-Type"), content)
		}
		if content == "text/plain; charset=utf-8" && path != "/configuration" {
			if got.StatusCode != http.StatusNotFound {
				t.Errorf("%s: %d", path, got.StatusCode)
			}
			continue
		}
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
				"form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
			"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY",
			"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if got.StatusCode != http.StatusOK || got.Header.Get(name) != want {
				t.Errorf("%s: %d, %s is %q", path, got.StatusCode, name, got.Header.Get(name))
			}
		}
		if found := regexp.MustCompile(`(?i)<[^>]* (style|on\w+)=|<style|<script>|javascript:|(src|href|action|url\()=?["'(]?\s*(https?:)?//`).FindString(got.body); found != "" {
			t.Errorf("%s has %q", path, found)
		}
	}
	if got := o.ask(t, http.MethodHead, "/"); got.StatusCode != http.StatusOK || got.body != "" {
		t.Errorf("HEAD: %d %q", got.StatusCode, got.body)
	}
}

// TestWhoMaySeeThePage: whoever may call the API, as far as a browser can say that it
// may; and no page of anybody else.
func TestWhoMaySeeThePage(t *testing.T) {
	for _, test := range []struct {
		name    string
		access  admin.Access
		headers []string
		status  int
		says    string
	}{
		{"whoever is on this machine", admin.Access{}, nil, http.StatusOK, "<!doctype html>"},
		{"by the name of the machine", admin.Access{}, []string{"Host", "localhost:9190"}, http.StatusOK, "<!doctype html>"},
		{"not by a name that somebody has made point here", admin.Access{}, []string{"Host", "evil.example"}, http.StatusForbidden, "call it by its address"},
		{"the page itself", admin.Access{}, []string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "cors"}, http.StatusOK, ""},
		{"who types its address", admin.Access{}, []string{"Sec-Fetch-Site", "none", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, http.StatusOK, ""},
		{"who follows a link", admin.Access{}, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}, http.StatusOK, ""},
		{"not a frame of another page", admin.Access{}, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"}, http.StatusForbidden, "another origin"},
		{"not a script of another page", admin.Access{}, []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "empty"}, http.StatusForbidden, "another origin"},
		{"not one of another port", admin.Access{}, []string{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty"}, http.StatusForbidden, "another origin"},
		{"nobody where a credential is wanted", admin.Access{Credential: func() ([]byte, error) { return []byte(credential), nil }}, []string{"Authorization", "Bearer " + credential}, http.StatusForbidden, "a browser has no way to send one"},
		{"nobody where there is no API", admin.Access{Off: true}, nil, http.StatusNotFound, "404"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := operate(t, test.access)
			for _, path := range []string{"/", "/page/stream", "/page/page.js", "/configuration"} {
				if path == "/page/stream" && test.status == http.StatusOK {
					continue
				}
				got, want := o.ask(t, http.MethodGet, path, test.headers...), test.status
				if test.access.Credential != nil && path != "/" {
					want = http.StatusNotFound
				}
				if got.StatusCode != want || path == "/" && !strings.Contains(got.body, test.says) {
					t.Errorf("%s: %d %.200s", path, got.StatusCode, got.body)
				}
			}
			refused := strings.Count(o.logs.text(), `"level":"WARN","msg":"a request for the status page was refused"`)
			if want := test.status == http.StatusForbidden && test.access.Credential == nil; want != (refused > 0) {
				t.Errorf("the log says of %d refused requests", refused)
			}
		})
	}
}

// TestThePageLeadsToTheWholeConfiguration, as text and as the API shows it, if there is
// one that can be shown.
func TestThePageLeadsToTheWholeConfiguration(t *testing.T) {
	o := operate(t, admin.Access{})
	if strings.Contains(o.ask(t, http.MethodGet, "/").body, `href="configuration"`) {
		t.Error("there is a link, though the configuration was never a file")
	}
	o.Configured(&admin.Configuration{File: "b.yaml"})
	for path, words := range map[string]string{"/": "All that is in force, without secrets", "/?lang=de": "Alles, was in Kraft ist, ohne Geheimnisse"} {
		if !strings.Contains(o.ask(t, http.MethodGet, path).body, `<a href="configuration">`+words+`</a>`) {
			t.Errorf("%s has no link that says %s", path, words)
		}
	}
	if got := o.ask(t, http.MethodGet, "/configuration"); got.StatusCode != http.StatusOK || got.body != "cache: {} # <b>\n" {
		t.Errorf("%d %q", got.StatusCode, got.body)
	}
	o.hidden = errors.New("it did not come from a file")
	if got := o.ask(t, http.MethodGet, "/configuration"); got.StatusCode != http.StatusServiceUnavailable || got.body != "it did not come from a file\n" || got.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %q, %v", got.StatusCode, got.body, got.Header)
	}
}

// TestNoTextOfThePageIsMissing in any language, and each has the same gaps to fill in.
func TestNoTextOfThePageIsMissing(t *testing.T) {
	gaps := regexp.MustCompile(`%[a-z]`)
	type text struct{ where, text string }
	var texts func(where string, v reflect.Value) []text
	texts = func(where string, v reflect.Value) (all []text) {
		switch v.Kind() {
		case reflect.String:
			return []text{{where, v.String()}}
		case reflect.Struct:
			for i := range v.NumField() {
				all = append(all, texts(where+"."+v.Type().Field(i).Name, v.Field(i))...)
			}
		case reflect.Array:
			for i := range v.Len() {
				all = append(all, texts(where, v.Index(i))...)
			}
		case reflect.Map:
			for _, key := range v.MapKeys() {
				all = append(all, texts(where+"["+key.String()+"]", v.MapIndex(key))...)
			}
		default:
			t.Errorf("%s is a %v", where, v.Kind())
		}
		slices.SortStableFunc(all, func(a, b text) int { return strings.Compare(a.where, b.where) })
		return all
	}
	english := texts("", reflect.ValueOf(admin.Languages()[0]).Elem())
	for _, words := range admin.Languages() {
		all := texts("", reflect.ValueOf(words).Elem())
		if len(all) != len(english) || len(all) < 100 {
			t.Fatalf("%d texts, and %d in English", len(all), len(english))
		}
		for i, one := range all {
			if one.where != english[i].where || strings.TrimSpace(one.text) == "" || one.text != strings.TrimSpace(one.text) {
				t.Errorf("%s: %q; in English %s: %q", one.where, one.text, english[i].where, english[i].text)
			}
			if !slices.Equal(gaps.FindAllString(one.text, -1), gaps.FindAllString(english[i].text, -1)) {
				t.Errorf("%s: %q and %q have other gaps", one.where, one.text, english[i].text)
			}
		}
	}
}

func TestLanguageOfThePage(t *testing.T) {
	o := operate(t, admin.Access{})
	for _, test := range []struct{ query, accept, want string }{
		{"", "", "en"},
		{"", "de", "de"},
		{"", "de-AT,de;q=0.9,en;q=0.8", "de"},
		{"", "fr-FR, fr;q=0.9, de;q=0.5, en;q=0.4", "de"},
		{"", "en-GB,de", "en"},
		{"", "de;q=0,en", "en"},
		{"", "fr, *", "en"},
		{"", "DE", "de"},
		{"", "den", "en"},
		{"", strings.Repeat("de-", 2000), "de"},
		{"?lang=en", "de", "en"},
		{"?lang=de", "en", "de"},
		{"?lang=fr", "de", "de"},
		{"?lang=%22%3E%3Cscript%3E", "", "en"},
	} {
		got := o.ask(t, http.MethodGet, "/"+test.query, "Accept-Language", test.accept)
		if !strings.Contains(got.body, `<html lang="`+test.want+`">`) || got.Header.Get("Content-Language") != test.want || got.Header.Get("Vary") != "Accept-Language" {
			t.Errorf("%+v: %.200s", test, got.body)
		}
		other := map[string]string{"en": "de", "de": "en"}[test.want]
		if !strings.Contains(got.body, `href=".?lang=`+other+`"`) {
			t.Errorf("%+v: no link to the other language", test)
		}
		// Only what was asked for stays.
		if asked := strings.Contains(got.body, `href=".?lang=`+test.want+`"`); asked != (test.query == "?lang="+test.want) {
			t.Errorf("%+v: the language stays: %t", test, asked)
		}
	}
}

func TestHowThePageWrites(t *testing.T) {
	for _, test := range []struct {
		rate        float64
		part, whole uint64
		took, span  time.Duration
		want        [2][]string
	}{
		{0, 0, 0, 0, 0, [2][]string{{"0/s", "–", "0 ns", "0 s"}, {"0/s", "–", "0 ns", "0 s"}}},
		{.04, 1, 1000, 999, 59 * time.Second, [2][]string{{"0.0/s", "< 1 %", "999 ns", "59 s"}, {"0,0/s", "< 1 %", "999 ns", "59 s"}}},
		{9.96, 999, 1000, 1500, time.Minute, [2][]string{{"10.0/s", "> 99 %", "1.5 µs", "1 min"}, {"10,0/s", "> 99 %", "1,5 µs", "1 min"}}},
		{1234, 1, 2, 12345678, 25*time.Hour + time.Minute, [2][]string{{"1,234/s", "50 %", "12 ms", "1 d 1 h"}, {"1.234/s", "50 %", "12 ms", "1 d 1 h"}}},
		{1234567, 5, 5, 3 * time.Second, 2*time.Hour + 5*time.Minute, [2][]string{{"1,234,567/s", "100 %", "3.0 s", "2 h 5 min"}, {"1.234.567/s", "100 %", "3,0 s", "2 h 5 min"}}},
	} {
		for i, words := range admin.Languages() {
			if diff := cmp.Diff(test.want[i], words.Written(test.rate, test.part, test.whole, test.took, test.span)); diff != "" {
				t.Errorf("%+v: -want +got\n%s", test, diff)
			}
		}
	}
}

// TestThePageSaysWhatIsWrong, the worst first, in both languages; and where all is
// well, it says that.
func TestThePageSaysWhatIsWrong(t *testing.T) {
	guard, cache := verifier.GuardStats{}, verifier.CacheStats{Good: verifier.PartStats{Entries: 3, Most: 100}}
	denials := verifier.NewDenials()
	watch(t, func(t *testing.T, w *watched) {
		w.server.Ready()
		configuration := &admin.Configuration{File: "b.yaml", InForceSince: time.Now()}
		w.server.Configured(configuration)
		w.server.Operate(&admin.Controls{
			Version: "v1.2.3", Started: time.Now(), Generation: func() uint64 { return 4 }, Denials: denials,
			Listeners: func() []admin.Listener {
				return []admin.Listener{{Name: "edge", Kind: "ext_authz", Address: "unix:/edge", TLS: true}}
			},
			Verifiers: func() map[string]admin.Stages {
				return map[string]admin.Stages{"crm": {
					Guard: func() verifier.GuardStats { return guard },
					Cache: func() verifier.CacheStats { return cache },
				}}
			},
		})
		certificate := w.metrics.Certificate("edge", nil)
		certificate.NotAfter(time.Now().Add(100 * 24 * time.Hour))
		certificate.Reloaded(true)

		var told []string // what was wrong so far
		for _, step := range []struct {
			name, level, english, german string
			do                           func()
		}{
			{"nothing", "good", "All is well", "Alles in Ordnung", func() {}},
			{"a few refusals", "good", "All is well", "Alles in Ordnung", func() { w.decide(29, gate.Tally{Reason: gate.MissingToken}) }},
			{"what a shadow lets through", "good", "All is well", "Alles in Ordnung", func() {
				w.decide(28, gate.Tally{Policy: 1, Reason: gate.InvalidToken, Shadow: true})
				w.decide(2, gate.Tally{Policy: 1, Reason: gate.VerifierUnavailable, Shadow: true})
			}},
			{"a denial is nothing bad", "good", "All is well", "Alles in Ordnung", func() {
				if _, err := denials.DenyFingerprint("0123456789ab", time.Hour, "runs <b>wild", "me"); err != nil {
					t.Fatal(err)
				}
			}},
			{"a full cache", "warn", "The cache of crm is full", "Der Cache von crm ist voll", func() { cache.Good.Entries = 98 }},
			{"an ending certificate", "warn", "The certificate of listener edge ends in 13 d 23 h", "Das Zertifikat von Listener edge endet in 13 d 23 h", func() {
				certificate.NotAfter(time.Now().Add(14*24*time.Hour - time.Minute))
			}},
			{"certificate files", "warn", "The certificate files of listener edge cannot be used", "Die Zertifikatsdateien von Listener edge sind nicht brauchbar", func() { certificate.Reloaded(false) }},
			{"a shadow", "warn", "Policy tried is in shadow", "Richtlinie tried ist im Schattenbetrieb", func() {
				w.metrics.Shadows(map[string]time.Time{"tried": time.Now().Add(time.Hour), "over": time.Now()})
			}},
			{"a configuration that cannot be used", "warn", "The configuration file cannot be used", "Die Konfigurationsdatei ist nicht brauchbar", func() {
				configuration.LastReload = &admin.Reload{At: time.Now(), Result: admin.Refused, Error: "b.yaml:1:1: <no>"}
			}},
			{"many refusals", "warn", " % of all requests were refused in the last minute, most of them with missing_token", " % aller Anfragen wurden in der letzten Minute abgelehnt, die meisten mit missing_token", func() {
				w.decide(5, gate.Tally{Reason: gate.MissingToken})
			}},
			{"an open breaker", "bad", "Verifier crm gives no answers", "Prüfstelle crm antwortet nicht", func() {
				guard.Breaker, guard.Opened = verifier.Open, time.Now().Add(-3*time.Minute)
			}},
			{"no answers", "bad", "2 requests got 503 in the last minute: the verifier gave no answer", "2 Anfragen bekamen in der letzten Minute 503: die Prüfstelle gab keine Antwort", func() {
				w.decide(2, gate.Tally{Reason: gate.VerifierUnavailable})
			}},
			{"a certificate that has ended", "bad", "The certificate of listener edge has ended", "Das Zertifikat von Listener edge ist abgelaufen", func() { certificate.NotAfter(time.Now()) }},
			{"a panic", "bad", "The gateway has a fault of its own", "Das Gateway hat selbst einen Fehler", func() { w.metrics.Panicked() }},
			{"a part that is not ready", "bad", "The gateway is not ready", "Das Gateway ist nicht bereit", func() {
				w.server.Parts(func() []admin.Part { return []admin.Part{{Name: "verifier crm", Reason: "it gave no answers"}} })
			}},
		} {
			step.do()
			pass(time.Second)
			english, german := w.get(t, "/?lang=en"), w.get(t, "/?lang=de")
			if !strings.Contains(english, `<div class="headline `+step.level+`">`) || !strings.Contains(german, `<div class="headline `+step.level+`">`) {
				t.Errorf("%s: the headline is not %s", step.name, step.level)
			}
			for _, text := range []string{step.english, step.german} {
				if !strings.Contains(english+german, text) {
					t.Errorf("%s: the page does not say %q", step.name, text)
				}
			}
			if step.level != "good" {
				told = append(told, step.english)
			}
			for _, text := range told {
				if !strings.Contains(english, text) && !strings.Contains(text, "ends in") {
					t.Errorf("%s: it does not say %q any more", step.name, text)
				}
			}
			if strings.Contains(english, "<b>wild") || strings.Contains(english, "<no>") {
				t.Errorf("%s: what others have written is not escaped", step.name)
			}
		}
		page := w.get(t, "/")
		if bad, warn, info := strings.Index(page, "Verifier crm gives"), strings.Index(page, "Policy tried is"), strings.Index(page, "1 tokens are denied"); bad > warn || warn > info || bad < 0 || info < 0 {
			t.Errorf("the worst is not first: %d, %d, %d", bad, warn, info)
		}
		for _, text := range []string{
			"runs &lt;b&gt;wild", "0123456789ab", "b.yaml:1:1: &lt;no&gt;", "v1.2.3", "<code>b.yaml</code>", "98 of 100", "unix:/edge",
			"<title>wrong · bearergate</title>", "No answers since", "verifier crm", "<code>tried</code>",
		} {
			if !strings.Contains(page, text) {
				t.Errorf("the page does not say %q", text)
			}
		}
	})
}

// get returns the page.
func (w *watched) get(t *testing.T, path string) string {
	t.Helper()
	resp, err := w.client.Get("http://127.0.0.1" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %d %s, %v", path, resp.StatusCode, body, err)
	}
	return string(body)
}

// TestThePageShowsWhatWasDecided by reason and by source, with plots whose columns
// stay as they are while time goes on.
func TestThePageShowsWhatWasDecided(t *testing.T) {
	watch(t, func(t *testing.T, w *watched) {
		if page := w.get(t, "/"); !strings.Contains(page, "Nothing was decided in the last five minutes.") || !strings.Contains(page, "No token was asked about") {
			t.Errorf("before anything happened: %s", page)
		}
		w.decide(1500, gate.Tally{Reason: gate.Valid, Source: verifier.FromCache})
		w.decide(5, gate.Tally{Reason: gate.InvalidToken, Source: verifier.FromEndpoint, Took: 12 * time.Millisecond})
		pass(5 * time.Second)
		w.decide(10, gate.Tally{Reason: gate.Overloaded})
		pass(5 * time.Second)
		paths := func() []string {
			return regexp.MustCompile(`<path class="(?:allow|unauthorized|unavailable)" d="[^"]+"/>`).FindAllString(w.get(t, "/"), -1)
		}
		page := w.get(t, "/")
		for _, text := range []string{
			"at most 300/s, now 0/s, 1,500 in all", "at most 2.0/s, now 2.0/s, 15 in all", "<code>invalid_token</code>", "<code>overloaded</code>",
			"401: the token is missing or not good", "503: nobody could tell", "&gt; 99 %", "&lt; 1 %", "12 ms",
		} {
			if !strings.Contains(page, text) {
				t.Errorf("the page does not say %q", text)
			}
		}
		if strings.Contains(page, "<code>missing_token</code>") {
			t.Error("the page shows a reason that there was not")
		}
		before := paths()
		if len(before) != 6 { // two plots, of one and two outcomes, and three reasons
			t.Fatalf("the plots are %q", before)
		}
		pass(4 * time.Second)
		w.decide(1, gate.Tally{Reason: gate.Preflight})
		from := strings.NewReplacer("M290 ", "M285 ", "M295 ", "M290 ")
		for i, path := range paths()[:3] { // a new column has begun
			if path != from.Replace(before[i]) {
				t.Errorf("a column has changed: %s, was %s", path, before[i])
			}
		}
	})
}

func TestThePageShowsWhatWasRefusedLately(t *testing.T) {
	watch(t, func(t *testing.T, w *watched) {
		if page := w.get(t, "/"); !strings.Contains(page, "Nothing was refused since the start.") {
			t.Errorf("before anything happened: %s", page)
		}
		recent := admin.NewRecent()
		w.server.Operate(&admin.Controls{
			Recent: recent, Denials: verifier.NewDenials(), Generation: func() uint64 { return 1 },
			Listeners: func() []admin.Listener { return nil }, Verifiers: func() map[string]admin.Stages { return nil },
		})
		for i := range 100 {
			pass(time.Second)
			recent.Tell(&gate.Event{At: time.Now(), Reason: gate.Valid, Fingerprint: "allowed"})
			recent.Tell(&gate.Event{At: time.Now(), Reason: gate.InvalidToken, Fingerprint: "token-" + string(rune('A'+i%26)), Policy: "tried", Shadow: i == 99, Client: netip.MustParseAddr("192.0.2.7")})
		}
		recent.Tell(&gate.Event{At: time.Now(), Reason: gate.MalformedToken, Fingerprint: "none", Detail: "there is a <comma>"})
		page := w.get(t, "/")
		rows := regexp.MustCompile(`<td data-label="Token"><code>([^<]*)`).FindAllStringSubmatch(page, -1)
		var got string
		for _, row := range rows {
			got += strings.TrimPrefix(row[1], "token-")
		}
		if got != "noneVUTSRQPONMLKJI" && got != "Vnone"+"UTSRQPONMLKJI" {
			t.Errorf("refused are %s", got)
		}
		if strings.Contains(page, "192.0.2.7") {
			t.Error("the page knows for long where a request came from")
		}
		if !strings.Contains(page, "there is a &lt;comma&gt;") || strings.Count(page, "let through (shadow)") != 1 {
			t.Error("the page does not say what is wrong, or what was let through")
		}
	})
}

// followed is a page that follows the gateway.
type followed struct {
	*http.Response

	lines *bufio.Scanner
}

func (w *watched) follow(t *testing.T, lang string) *followed {
	t.Helper()
	resp, err := w.client.Get("http://127.0.0.1/page/stream?lang=" + lang) //nolint:bodyclose // the test closes it
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("the stream: %d %v", resp.StatusCode, resp.Header)
	}
	f := &followed{resp, bufio.NewScanner(resp.Body)}
	f.lines.Buffer(nil, 1<<20)
	return f
}

// next returns the name of the next event, and its parts; "" at the end.
func (f *followed) next(t *testing.T) (name string, parts map[string]string) {
	t.Helper()
	parts = map[string]string{}
	for f.lines.Scan() {
		line := f.lines.Text()
		if line == "" {
			return name, parts
		}
		if text, ok := strings.CutPrefix(line, "event: "); ok {
			name = text
		}
		if text, ok := strings.CutPrefix(line, "data: "); ok {
			var all []struct{ ID, HTML string }
			if err := json.Unmarshal([]byte(text), &all); err != nil {
				t.Fatal(err)
			}
			for _, part := range all {
				parts[part.ID] = part.HTML
			}
		}
	}
	return "", nil
}

// TestThePageFollowsTheGateway: first with all parts, then with those that have
// changed, and as long as it is open.
func TestThePageFollowsTheGateway(t *testing.T) {
	watch(t, func(t *testing.T, w *watched) {
		events := new(gate.Events)
		denials := verifier.NewDenials()
		w.server.Operate(&admin.Controls{
			Events: events, Denials: denials, Generation: func() uint64 { return 1 },
			Listeners: func() []admin.Listener { return nil }, Verifiers: func() map[string]admin.Stages { return nil },
		})
		f := w.follow(t, "de")
		name, parts := f.next(t)
		all := []string{"cache", "configuration", "decisions", "denials", "latency", "rates", "refused", "state", "talkers", "title", "verifiers"}
		if got := slices.Sorted(maps.Keys(parts)); name != "parts" || !slices.Equal(got, all) || !strings.Contains(parts["denials"], "Kein Token ist gesperrt") {
			t.Errorf("first: %s %v", name, got)
		}
		page := w.get(t, "/")
		for _, id := range all {
			if id != "title" && !strings.Contains(page, `<section id="`+id+`" data-part`) {
				t.Errorf("the page has no place for %s", id)
			}
		}
		begin := time.Now()
		expect := func(when string, want ...string) map[string]string {
			t.Helper()
			name, parts := f.next(t)
			got := slices.Sorted(maps.Keys(parts))
			if name != "parts" || !slices.Equal(got, want) {
				t.Errorf("%s: %s %v, want %v", when, name, got, want)
			}
			return parts
		}
		expect("when nothing but time has changed", "state")
		if took := time.Since(begin); took != 2*time.Second {
			t.Errorf("it came after %v", took)
		}
		if _, err := denials.DenyFingerprint("0123456789ab", time.Hour, "runs wild", "me"); err != nil {
			t.Fatal(err)
		}
		if parts := expect("when a token was denied", "denials", "state"); !strings.Contains(parts["denials"], "runs wild") {
			t.Errorf("the denials are %s", parts["denials"])
		}
		w.server.Ready()
		if parts := expect("when the gateway is ready", "state", "title"); parts["title"] != "in Ordnung · bearergate" {
			t.Errorf("the title is %s", parts["title"])
		}
		for time.Since(begin) < 5*time.Minute {
			expect("when nothing has changed for minutes", "state")
		}
		// One more, so that all streams are there; and one too many.
		others := make([]*followed, 0, 7)
		for range 7 {
			others = append(others, w.follow(t, "en"))
			if name, _ := others[len(others)-1].next(t); name != "parts" {
				t.Errorf("another one: %s", name)
			}
		}
		full := w.follow(t, "en")
		if name, parts := full.next(t); name != "full" || len(parts) != 0 {
			t.Errorf("one too many: %s %v", name, parts)
		}
		if name, _ := full.next(t); name != "" {
			t.Errorf("one too many goes on with %s", name)
		}
		full.Body.Close()
		others[0].Body.Close()
		synctest.Wait()
		again := w.follow(t, "en")
		if name, _ := again.next(t); name != "parts" {
			t.Errorf("when another one has gone: %s", name)
		}
		// They end when the server does, and leave nobody watching.
		var ended sync.WaitGroup
		for _, one := range append(others[1:], again, f) {
			ended.Go(func() {
				_, _ = io.Copy(io.Discard, one.Body)
				one.Body.Close()
			})
		}
		begin = time.Now()
		if err := w.server.Shutdown(context.Background()); err != nil || time.Since(begin) > time.Second {
			t.Errorf("Shutdown after %v: %v", time.Since(begin), err)
		}
		ended.Wait()
		for i := range gate.MaxWatchers {
			if _, err := events.Watch(gate.Filter{}); err != nil {
				t.Errorf("%d can watch: %v", i, err)
			}
		}
	})
}

// TestNobodyIsWaitedFor who follows and does not read.
func TestNobodyIsWaitedFor(t *testing.T) {
	watch(t, func(t *testing.T, w *watched) {
		conn := w.dial()
		defer conn.Close()
		begin := time.Now()
		if _, err := io.WriteString(conn, "GET /page/stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		pass(11 * time.Second)
		if _, err := io.ReadAll(conn); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Error(err)
		}
		if took := time.Since(begin); took != 11*time.Second {
			t.Errorf("it was given up after %v", took)
		}
	})
}
