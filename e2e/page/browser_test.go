package page

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/bearergate/bearergate/config"
)

// patience is how long something that must happen soon may take on a slow machine.
const patience = 30 * time.Second

// browsers are the names under which Chromium is installed, the smallest first;
// scripts/setup has them, too.
var browsers = []string{"chromium-headless-shell", "chrome-headless-shell", "headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"}

func findBrowser(t *testing.T) string {
	t.Helper()
	for _, name := range browsers {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("there is no Chromium here; make setup installs it")
	return ""
}

// browser is one that is running.
type browser struct {
	context.Context //nolint:containedctx // is what chromedp knows a browser by
}

// open starts a browser, which ends with the test.
func open(t *testing.T) *browser {
	t.Helper()
	var said bytes.Buffer
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(findBrowser(t)), chromedp.UserDataDir(t.TempDir()), chromedp.CombinedOutput(&said),
		chromedp.Headless, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck, chromedp.DisableGPU,
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("hide-scrollbars", true),
		// Whatever is asked for elsewhere is not there.
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"),
	}
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium's own does not run for root
	}
	allocator, stop := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil {
			t.Errorf("the browser did not end well: %v", err)
		}
		cancel()
		stop()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("the browser did not start: %v\n%s", err, said.String())
	}
	return &browser{ctx}
}

// tab is a page that is looked at, with nothing from the tabs before it.
type tab struct {
	context.Context //nolint:containedctx // is what chromedp knows a tab by

	t  *testing.T
	mu sync.Mutex
	// complaints are what the page wrote to the console, and what its policy refused.
	complaints []string
	requests   []string // all URLs that were asked for
}

// look is how a page is looked at.
type look struct {
	width, height int64
	lang          string // what the browser prefers
	dark          bool
	still         bool // without motion
	scriptless    bool
}

// tab opens one.
func (b *browser) tab(t *testing.T, l look) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(b, chromedp.WithNewBrowserContext())
	ctx, end := context.WithTimeout(ctx, 2*patience)
	tab := &tab{Context: ctx, t: t}
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx)
		end()
		cancel()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Listen(ctx, tab.hear); err != nil {
		t.Fatal(err)
	}
	scheme, motion := "light", "no-preference"
	if l.dark {
		scheme = "dark"
	}
	if l.still {
		motion = "reduce"
	}
	if l.width == 0 {
		l.width, l.height = 1200, 900
	}
	if l.lang == "" {
		l.lang = "en"
	}
	call(tab, log.Enable, cdp.Empty{})
	call(tab, network.Enable, network.EnableParams{})
	call(tab, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{Headers: network.Headers{"Accept-Language": l.lang}})
	call(tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: motion},
	}})
	call(tab, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: l.scriptless})
	tab.do(chromedp.EmulateViewport(l.width, l.height))
	return tab
}

func (tab *tab) hear(event any) {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	switch e := event.(type) {
	case *log.EventEntryAdded:
		tab.complaints = append(tab.complaints, fmt.Sprintf("%s: %s", e.Entry.Source, e.Entry.Text))
	case *runtime.EventExceptionThrown:
		tab.complaints = append(tab.complaints, "exception: "+e.ExceptionDetails.Text)
	case *runtime.EventConsoleAPICalled:
		tab.complaints = append(tab.complaints, "console: "+string(e.Type))
	case *network.EventRequestWillBeSent:
		tab.requests = append(tab.requests, e.Request.URL)
	}
}

// isClean sees that nothing was complained about, and nothing asked for elsewhere.
func (tab *tab) isClean(g *gateway) {
	tab.t.Helper()
	tab.mu.Lock()
	defer tab.mu.Unlock()
	if len(tab.complaints) > 0 {
		tab.t.Errorf("the browser complains: %q", tab.complaints)
	}
	for _, one := range tab.requests {
		if u, err := url.Parse(one); err != nil || u.Host != g.Address(config.Admin) {
			tab.t.Errorf("it asked for %s", one)
		}
	}
}

// call calls a command of the protocol.
func call[P, R any](tab *tab, command cdp.Command[P, R], params P) R {
	tab.t.Helper()
	result, err := chromedp.Call(tab.Context, command, params)
	if err != nil {
		tab.t.Fatal(err)
	}
	return result
}

func (tab *tab) do(actions ...chromedp.Action[chromedp.Void]) {
	tab.t.Helper()
	if err := chromedp.Do(tab, actions...); err != nil {
		tab.t.Fatal(err)
	}
}

// eval returns what an expression is.
func eval[T any](tab *tab, expression string) T {
	tab.t.Helper()
	result, err := chromedp.Run(tab, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		tab.t.Fatalf("%.200s: %v", expression, err)
	}
	return result
}

// waitFor waits until an expression is true.
func (tab *tab) waitFor(what, expression string) {
	tab.t.Helper()
	ctx, cancel := context.WithTimeout(tab, patience)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		is, err := chromedp.Run(ctx, chromedp.Evaluate[bool](expression))
		if is {
			return
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			tab.t.Fatalf("%s: not after %v: %v", what, patience, errors.Join(err, ctx.Err()))
		}
	}
}

// text returns the text of an element.
func (tab *tab) text(selector string) string {
	tab.t.Helper()
	return eval[string](tab, fmt.Sprintf("document.querySelector(%q).textContent", selector))
}

// axe sees that the page keeps the rules of axe-core for WCAG 2.2 AA, and its best
// practices.
func (tab *tab) axe() {
	tab.t.Helper()
	files, err := filepath.Glob("../../.cache/axe/*.js")
	if err != nil || len(files) != 1 {
		tab.t.Fatalf("axe-core is not there (%v, %v); make setup fetches it", files, err)
	}
	script, err := os.ReadFile(files[0])
	if err != nil {
		tab.t.Fatal(err)
	}
	_ = eval[bool](tab, string(script)+"; true")
	found := eval[string](tab, `axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}).then((r) => JSON.stringify({
		violations: r.violations.map((v) => ({rule: v.id, nodes: v.nodes.map((n) => n.html.slice(0, 200) + " " + n.failureSummary)})),
		passes: r.passes.map((p) => p.id),
		incomplete: r.incomplete.map((v) => v.id),
	}))`)
	var result struct {
		Violations []struct {
			Rule  string
			Nodes []string
		}
		Passes, Incomplete []string
	}
	if err := json.Unmarshal([]byte(found), &result); err != nil {
		tab.t.Fatal(err)
	}
	for _, v := range result.Violations {
		tab.t.Errorf("axe: %s: %s", v.Rule, strings.Join(v.Nodes, "\n"))
	}
	if !slices.Contains(result.Passes, "color-contrast") {
		tab.t.Errorf("axe has looked at %v alone", result.Passes)
	}
}
