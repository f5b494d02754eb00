package page

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/bearergate/bearergate/crmnow"
)

// parts are all of the page, by their ids.
var parts = []string{"state", "rates", "latency", "verifiers", "cache", "refused", "decisions", "talkers", "configuration", "denials"}

// TestStatusPage looks at the page of a gateway that decides.
func TestStatusPage(t *testing.T) {
	b, g := open(t), start(t, reporting)
	good := g.token(t)
	g.have(t, good)
	tests := []struct {
		name string
		run  func(t *testing.T, b *browser, g *gateway)
	}{
		{"every part is there, for everybody", everyPart},
		{"it follows the gateway", follows},
		{"it explains a token, and shows it nowhere", explains},
		{"it is whole without JavaScript", scriptless},
		{"it is dark for who likes it dark", dark},
		{"it fits a narrow screen", narrow},
		{"it can be walked through by the keyboard", keyboard},
		{"it moves nothing", still},
	}
	t.Run("it leaves the reader's place alone", func(t *testing.T) { leavesAlone(t, b, g) })
	t.Run("at work", func(t *testing.T) {
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel() // most of them wait for the next time that the page changes
				test.run(t, b, g)
			})
		}
	})
	t.Run("it says so when the gateway gets no answers, and when it is gone", func(t *testing.T) { trouble(t, b, g, good) })
}

// have has decisions of all kinds made.
func (g *gateway) have(t *testing.T, good string) {
	t.Helper()
	for _, one := range []struct {
		path, authorization string
		status              int
	}{
		{"/v1/orders", "Bearer " + good, 200},
		{"/v1/orders", "Bearer " + good, 200},
		{"/v1/orders", "", 401},
		{"/v1/orders", "Bearer not-a-good-token", 401},
		{"/v1/orders", "Bearer two words", 401},
		{"/v1//orders", "Bearer " + good, 403},         // nginx knows no 400 here
		{"/reports/1", "Bearer not-a-good-token", 200}, // in shadow
	} {
		g.expect(t, one.path, one.authorization, one.status)
	}
}

func (g *gateway) expect(t *testing.T, path, authorization string, want int) {
	t.Helper()
	if status, err := g.decide(t.Context(), path, authorization); err != nil || status != want {
		t.Fatalf("%s: %d, %v; want %d", path, status, err, want)
	}
}

func everyPart(t *testing.T, b *browser, g *gateway) {
	for _, l := range []look{{lang: "en"}, {lang: "de", dark: true}, {lang: "de", width: 320, height: 640}, {lang: "en", width: 320, height: 640, dark: true}} {
		t.Run(fmt.Sprintf("%+v", l), func(t *testing.T) {
			tab := b.tab(t, l)
			tab.do(chromedp.Navigate(g.url("/")))
			tab.waitFor("the plots", "document.querySelectorAll('#rates .plot path:not(.grid)').length >= 3")
			tab.waitFor("the stream", "document.getElementById('live').className.includes('on')")
			if lang := eval[string](tab, "document.documentElement.lang"); lang != l.lang {
				t.Errorf("the page is in %q", lang)
			}
			for _, id := range parts {
				if text := strings.TrimSpace(tab.text("#" + id)); len(text) < 20 {
					t.Errorf("%s says %q", id, text)
				}
			}
			for _, text := range []string{"invalid_token", "missing_token", "malformed_token", "bad_path", "v1.4.0", "reports", "127.0.0.1", "verifier crm"} {
				if !strings.Contains(tab.text("body"), text) {
					t.Errorf("the page does not say %q", text)
				}
			}
			if broken := eval[[]string](tab, "[...document.querySelectorAll('a[href^=\"#\"]')].map((a) => a.getAttribute('href')).filter((to) => !document.querySelector(to))"); len(broken) > 0 {
				t.Errorf("links lead nowhere: %v", broken)
			}
			if twice := eval[[]string](tab, "[...document.querySelectorAll('[id]')].map((e) => e.id).filter((id, i, all) => all.indexOf(id) != i)"); len(twice) > 0 {
				t.Errorf("ids are there twice: %v", twice)
			}
			tab.axe()
			tab.isClean(g)
		})
	}
}

// follows drives real decisions, and waits for the page to show them.
func follows(t *testing.T, b *browser, g *gateway) {
	tab := b.tab(t, look{})
	tab.do(chromedp.Navigate(g.url("/")))
	tab.waitFor("the stream", "document.getElementById('live').textContent == 'Live'")
	for range 40 {
		g.expect(t, "/v1/orders", "Bearer seen-live-only", 401)
	}
	g.expect(t, "/v1/orders", "Bearer "+g.token(t), 200)
	tab.waitFor("a refused request", "/invalid_token/.test(document.querySelector('#decisions tbody').textContent)")
	tab.waitFor("an allowed one", "/valid asked just now/.test(document.querySelector('#decisions tbody').textContent)")
	tab.waitFor("how many were not shown", "/^\\d+ more since/.test(document.querySelector('#decisions > p').textContent)")
	tab.waitFor("what was refused lately", "document.querySelectorAll('#refused tbody tr').length == 15")
	tab.waitFor("the rate", "[...document.querySelectorAll('#rates tbody tr')].some((r) => /^invalid_token/.test(r.textContent) && parseInt(r.cells[3].textContent) >= 40)")
	tab.waitFor("the headline", "/refused in the last minute, most of them with invalid_token/.test(document.querySelector('#state').textContent)")
	if title := eval[string](tab, "document.title"); title != "look · bearergate" {
		t.Errorf("the title is %q", title)
	}

	// It pauses, and goes on.
	tab.do(chromedp.Click(chromedp.ID("pause")))
	tab.waitFor("the pause", "document.getElementById('live').textContent == 'Paused' && document.getElementById('pause').textContent == 'Resume'")
	clock := tab.text("#state time")
	count := tab.requested("/page/stream")
	tab.waitFor("a later second", fmt.Sprintf("Date.now() > %d", time.Now().Add(3*time.Second).UnixMilli()))
	if later := tab.text("#state time"); later != clock || tab.requested("/page/stream") != count {
		t.Errorf("paused at %s, it shows %s", clock, later)
	}
	tab.do(chromedp.Click(chromedp.ID("pause")))
	tab.waitFor("the stream again", fmt.Sprintf("document.getElementById('live').textContent == 'Live' && document.querySelector('#state time').textContent != %q", clock))
	tab.isClean(g)
}

// requested returns how often a path was asked for.
func (tab *tab) requested(path string) (n int) {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	for _, one := range tab.requests {
		if strings.Contains(one, path) {
			n++
		}
	}
	return n
}

// leavesAlone: what the reader has focused or chosen stays so while the page changes
// around it.
func leavesAlone(t *testing.T, b *browser, g *gateway) {
	tab := b.tab(t, look{})
	tab.do(chromedp.Navigate(g.url("/")))
	tab.waitFor("the stream", "document.getElementById('live').textContent == 'Live'")
	_ = eval[bool](tab, `(() => {
		window.held = document.querySelector("#state a");
		held.focus();
		getSelection().selectAllChildren(document.querySelector("#configuration dd"));
		return true;
	})()`)
	clock := tab.text("#state time")
	tab.waitFor("a change", fmt.Sprintf("document.querySelector('#state time').textContent != %q", clock))
	if !eval[bool](tab, "document.activeElement === held && held.isConnected") {
		t.Error("the focus is lost")
	}
	if chosen := eval[string](tab, "String(getSelection())"); chosen == "" {
		t.Error("the selection is lost")
	}
}

func scriptless(t *testing.T, b *browser, g *gateway) {
	tab := b.tab(t, look{scriptless: true, lang: "de"})
	tab.do(chromedp.Navigate(g.url("/")))
	for _, id := range parts {
		if text := strings.TrimSpace(tab.text("#" + id)); len(text) < 20 {
			t.Errorf("%s says %q", id, text)
		}
	}
	for _, text := range []string{"invalid_token", "Mit JavaScript erscheinen hier die Entscheidungen", "Alle 10 Sekunden neu laden"} {
		if !strings.Contains(tab.text("body"), text) {
			t.Errorf("the page does not say %q", text)
		}
	}
	if eval[bool](tab, "getComputedStyle(document.getElementById('pause')).display != 'none'") {
		t.Error("there is a button that does nothing")
	}
	if tab.requested("/page/stream") > 0 {
		t.Error("the stream is open")
	}
	// Links do what the script does: again, at once or by itself, and in the other language.
	if eval[bool](tab, "!!document.querySelector('meta[http-equiv=refresh]')") {
		t.Error("the page loads again by itself, and nobody has asked for it")
	}
	tab.follow("Alle 10 Sekunden neu laden")
	if content := eval[string](tab, "document.querySelector('meta[http-equiv=refresh]').content"); content != "10" {
		t.Errorf("it loads again after %q seconds", content)
	}
	tab.follow("Neu laden")
	if eval[bool](tab, "!!document.querySelector('meta[http-equiv=refresh]')") {
		t.Error("it does not stop loading again")
	}
	tab.follow("English")
	tab.follow("Reload")
	if lang := eval[string](tab, "document.documentElement.lang"); lang != "en" {
		t.Errorf("the language does not stay: %s", lang)
	}
	tab.isClean(g)
}

// follow follows a link by its text, as a click does.
func (tab *tab) follow(text string) {
	tab.t.Helper()
	to := eval[string](tab, fmt.Sprintf("[...document.querySelectorAll('a')].find((a) => a.textContent == %q).href", text))
	tab.do(chromedp.Navigate(to))
}

func dark(t *testing.T, b *browser, g *gateway) {
	brightness := func(l look) (ground, ink float64) {
		tab := b.tab(t, l)
		tab.do(chromedp.Navigate(g.url("/")))
		of := func(property string) float64 {
			return eval[float64](tab, "getComputedStyle(document.documentElement)."+property+".match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part), 0) / 765")
		}
		tab.isClean(g)
		return of("backgroundColor"), of("color")
	}
	if ground, ink := brightness(look{}); ground < .8 || ink > .3 {
		t.Errorf("by day the ground is %.2f bright, the ink %.2f", ground, ink)
	}
	if ground, ink := brightness(look{dark: true}); ground > .2 || ink < .8 {
		t.Errorf("by night the ground is %.2f bright, the ink %.2f", ground, ink)
	}
}

func narrow(t *testing.T, b *browser, g *gateway) {
	for _, lang := range []string{"en", "de"} {
		tab := b.tab(t, look{width: 320, height: 640, lang: lang})
		tab.do(chromedp.Navigate(g.url("/")))
		tab.waitFor("the decisions", "document.getElementById('live').className.includes('on')")
		if width := eval[int](tab, "document.scrollingElement.scrollWidth"); width > 320 {
			t.Errorf("%s: the page is %d wide: %s", lang, width, eval[string](tab, "[...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > 320).map((e) => e.outerHTML.slice(0, 120)).slice(0, 5).join('\\n')"))
		}
		if small := eval[[]string](tab, "[...document.querySelectorAll('a, button')].filter((e) => e.getClientRects().length && !e.closest('p, li:not(nav li), .skip') && e.getBoundingClientRect().height < 24).map((e) => e.outerHTML)"); len(small) > 0 {
			t.Errorf("%s: too small to be hit: %v", lang, small)
		}
		tab.isClean(g)
	}
}

func keyboard(t *testing.T, b *browser, g *gateway) {
	tab := b.tab(t, look{})
	tab.do(chromedp.Navigate(g.url("/")))
	tab.waitFor("the stream", "document.getElementById('live').textContent == 'Live'")
	tab.do(chromedp.KeyEvent(kb.Tab))
	if !eval[bool](tab, "document.activeElement.className == 'skip' && document.activeElement.getBoundingClientRect().top >= 0") {
		t.Fatal("the first key does not show the link to the status")
	}
	tab.do(chromedp.KeyEvent(kb.Enter))
	tab.waitFor("the status", "document.activeElement.id == 'main'")
	_ = eval[bool](tab, "document.activeElement.blur() || true")
	tab.do(chromedp.Navigate(g.url("/")))
	all := eval[int](tab, "[...document.querySelectorAll('a, button, textarea, input, summary')].filter((e) => e.checkVisibility()).length")
	var seen []string
	for range all + 1 {
		tab.do(chromedp.KeyEvent(kb.Tab))
		at := eval[string](tab, `(() => {
			const e = document.activeElement;
			if (e == document.body) return "";
			const style = getComputedStyle(e), box = e.getBoundingClientRect();
			const seen = style.outlineStyle != "none" && parseFloat(style.outlineWidth) >= 2 && box.bottom > 0 && box.top < innerHeight;
			return e.tagName + " " + (e.id || e.getAttribute("href")) + " " + e.textContent.trim() + (seen ? "" : " IS NOT SEEN");
		})()`)
		if at == "" || len(seen) > 0 && at == seen[0] {
			break
		}
		seen = append(seen, at)
	}
	if len(seen) != all {
		t.Errorf("the keyboard comes to %d of %d: %q", len(seen), all, seen)
	}
	for _, one := range seen {
		if strings.HasSuffix(one, "IS NOT SEEN") {
			t.Error(one)
		}
	}
	tab.isClean(g)
}

func still(t *testing.T, b *browser, g *gateway) {
	for _, l := range []look{{}, {still: true}} {
		tab := b.tab(t, l)
		tab.do(chromedp.Navigate(g.url("/")))
		tab.waitFor("the stream", "document.getElementById('live').className.includes('on')")
		if behaviour := eval[string](tab, "getComputedStyle(document.documentElement).scrollBehavior"); behaviour != "auto" {
			t.Errorf("the page scrolls %s", behaviour)
		}
		if moving := eval[int](tab, "document.getAnimations().length"); moving > 0 {
			t.Errorf("%d things move", moving)
		}
	}
}

// trouble is the last: nothing is left of the gateway then.
func trouble(t *testing.T, b *browser, g *gateway, good string) {
	tab := b.tab(t, look{lang: "de"})
	tab.do(chromedp.Navigate(g.url("/")))
	tab.waitFor("the stream", "document.getElementById('live').textContent == 'Live'")
	if err := g.endpoint.SetFault(crmnow.Verify, crmnow.Fault{Status: 500}); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		g.expect(t, "/v1/orders", fmt.Sprintf("Bearer unseen-%d", i), 503)
	}
	g.expect(t, "/v1/orders", "Bearer "+good, 200)
	tab.waitFor("the breaker", "/^Prüfstelle crm antwortet nicht/.test(document.querySelector('#state').textContent.trim())")
	tab.waitFor("the title, and that it is said", "document.title == 'Störung · bearergate' && document.getElementById('announce').textContent == document.title")
	if text := tab.text("#verifiers"); !strings.Contains(text, "antwortet nicht") || !strings.Contains(text, "Ohne Antwort seit") {
		t.Errorf("the verifiers: %s", text)
	}
	tab.waitFor("the requests without an answer", "/bekamen in der letzten Minute 503/.test(document.querySelector('#state').textContent)")
	tab.axe()
	tab.isClean(g)

	// A page that is open does not hold the gateway up, and says that it is gone.
	begin := time.Now()
	g.stop(t)
	if took := time.Since(begin); took > 4*time.Second { // its shutdown_timeout is 5 s
		t.Errorf("the gateway took %v to stop", took)
	}
	tab.waitFor("that it is gone", "document.getElementById('live').textContent.startsWith('Keine Verbindung zum Gateway')")
	tab.mu.Lock()
	defer tab.mu.Unlock()
	for _, one := range tab.complaints {
		if !strings.Contains(one, "net::ERR_") { // nobody answers there, which is true
			t.Errorf("the browser complains: %s", one)
		}
	}
}

// explains pastes a token into the box, in both languages, and looks for it in all that
// comes back and in all that was asked for.
func explains(t *testing.T, b *browser, g *gateway) {
	for _, test := range []struct {
		look

		ask, known, advice, unknown string
	}{
		{look{lang: "en"}, "Ask the verifier", "the verifier says no", "What whoever sends it should do", "It is not known without asking the verifier."},
		{look{lang: "de", width: 320, height: 640, dark: true}, "Die Prüfstelle fragen", "die Prüfstelle sagt Nein", "Was der Absender tun sollte", "Das weiß ohne Rückfrage bei der Prüfstelle niemand."},
		{look{lang: "en", scriptless: true}, "Ask the verifier", "the verifier says no", "What whoever sends it should do", "It is not known without asking the verifier."},
	} {
		t.Run(fmt.Sprintf("%+v", test.look), func(t *testing.T) {
			tab := b.tab(t, test.look)
			token := rand.Text() + "-pasted"
			tab.do(chromedp.Navigate(g.url("/")))
			submit := func(what string) {
				tab.do(chromedp.SendKeys(chromedp.ID("token"), token))
				if _, err := chromedp.RunResponse(tab, chromedp.Click(chromedp.CSS("form button"))); err != nil {
					t.Fatal(err)
				}
				for _, text := range []string{eval[string](tab, "document.documentElement.outerHTML"), eval[string](tab, "location.href"), eval[string](tab, "document.getElementById('token').value")} {
					if strings.Contains(text, token) {
						t.Errorf("%s: the token is in %.300s", what, text)
					}
				}
				if at := eval[string](tab, "location.pathname + location.hash"); at != "/explain#answer" {
					t.Errorf("%s: the answer is at %s", what, at)
				}
				if test.width > 0 && eval[int](tab, "document.scrollingElement.scrollWidth") > int(test.width) {
					t.Errorf("%s: the answer is too wide", what)
				}
			}
			submit("unasked")
			if text := tab.text("#answer"); !strings.Contains(text, test.unknown) {
				t.Errorf("unasked: %s", text)
			}
			if text := tab.text("label[for=ask]"); !strings.HasPrefix(text, test.ask) {
				t.Errorf("the box says %q", text)
			}
			tab.do(chromedp.Click(chromedp.ID("ask")))
			submit("asked")
			text := tab.text("#answer")
			for _, want := range []string{"401", "invalid_token", test.known, test.advice, "www-authenticate"} {
				if !strings.Contains(strings.ToLower(text), strings.ToLower(want)) {
					t.Errorf("asked: it does not say %q: %s", want, text)
				}
			}
			if !test.scriptless {
				tab.axe()
			}
			tab.mu.Lock()
			defer tab.mu.Unlock()
			for _, one := range tab.requests {
				if strings.Contains(one, token) {
					t.Errorf("the token is in the URL %s", one)
				}
			}
			if len(tab.complaints) > 0 {
				t.Errorf("the browser complains: %q", tab.complaints)
			}
		})
	}
}
