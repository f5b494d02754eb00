package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"gonum.org/v1/plot/plotter"

	"github.com/bearergate/bearergate/bench/measure"
	"github.com/bearergate/bearergate/bench/page"
	"github.com/bearergate/bearergate/deploy"
)

// edges are whole requests through a proxy.
type edges struct {
	taken
	Edges []edge `json:"edges"`
}

type edge struct {
	Name    string      `json:"name"`
	Version string      `json:"version"`
	Ways    []wayRounds `json:"ways"`
}

// wayRounds are the rounds of one way to run the proxy.
type wayRounds struct {
	Name  string         `json:"name"`
	Turns []measure.Turn `json:"turns"`
}

// way is one way to run a proxy.
type way struct {
	name   string
	recipe deploy.Recipe
	// asks is the address of whom it asks; "" if it asks nobody.
	asks string
	// checks says that a token nobody knows is refused.
	checks bool
	// change makes the recipe into this way. All ways of a proxy have the changes of
	// its kind, too: it answers itself, and writes no access log.
	change func(text string) (string, error)
}

// Names of the ways.
const (
	alone   = "alone"
	withUs  = "with the gateway"
	keeping = "with the gateway, keeping its answers"
	inLua   = "the same in Lua"
)

// What a client of wrk is: as many connections as there are clients at once.
const edgeConnections = 32

func measureEdges(ctx context.Context, b *bench) error {
	// Proxy, gateway and clients share all cores, as on a machine that has them all.
	all := measure.AllCores()
	if err := all.Take(); err != nil {
		return err
	}
	gateway, err := b.typicalGateway(func(g *measure.Gateway) { g.Cores = all })
	if err != nil {
		return err
	}
	us, err := gateway(ctx)
	if err != nil {
		return err
	}
	defer us.Close()
	keeper, err := b.typicalGateway(func(g *measure.Gateway) { g.Cores, g.Policy = all, edgeCacheOn })
	if err != nil {
		return err
	}
	kept, err := keeper(ctx)
	if err != nil {
		return err
	}
	defer kept.Close()
	noop, err := measure.StartReferenceOn(ctx, all, "grpc")
	if err != nil {
		return err
	}
	defer noop.Close()
	e := &edges{taken: take(ctx)}
	for _, proxy := range []struct {
		name string
		ways []way
	}{
		{"Envoy", envoyWays(us, kept, noop)},
		{"nginx", nginxWays(us, kept)},
	} {
		got, err := b.edge(ctx, proxy.name, proxy.ways)
		if err != nil {
			return fmt.Errorf("%s: %w", proxy.name, err)
		}
		e.Edges = append(e.Edges, got)
	}
	b.record.Edges = e
	return nil
}

// edgeCacheOn lets edges keep answers.
const edgeCacheOn = "edge_cache: 60s"

// memoryFolder makes a folder that lies in memory, as nginx's recipe wants it.
func (b *bench) memoryFolder() (string, error) {
	const shared = "/dev/shm"
	folder := b.dir
	if _, err := os.Stat(shared); err == nil {
		folder = shared
	}
	made, err := os.MkdirTemp(folder, "bearergate-bench-")
	if err != nil {
		return "", err
	}
	b.atEnd = append(b.atEnd, func() { _ = os.RemoveAll(made) })
	return made, os.Chmod(made, 0o755) //nolint:gosec // nginx's workers are another user
}

// edge runs a proxy in all ways at once, and lets them take turns.
func (b *bench) edge(ctx context.Context, name string, ways []way) (edge, error) {
	program, err := ways[0].recipe.Find()
	if err != nil {
		return edge{}, err
	}
	got := edge{Name: name, Version: versionOf(ctx, program)}
	var addresses []string
	var stops []func()
	defer func() {
		for _, stop := range stops {
			stop()
		}
	}()
	for i := range ways {
		b.progress.say("starting %s %s", name, ways[i].name)
		address, stop, err := b.startEdge(ctx, program, &ways[i])
		if err != nil {
			return edge{}, fmt.Errorf("%s: %w", ways[i].name, err)
		}
		addresses, stops = append(addresses, address), append(stops, stop)
		got.Ways = append(got.Ways, wayRounds{Name: ways[i].name})
	}
	threads := min(measure.AllCores().Count, edgeConnections)
	for round := -1; round < b.rounds; round++ { // the first one fills caches
		b.progress.say("%s, round %d of %d", name, round+1, b.rounds)
		for i := range ways {
			at := (i + max(round, 0)) % len(ways)
			duration := b.duration
			if round < 0 {
				duration = time.Second
			}
			t, err := b.wrk(ctx, "http://"+addresses[at]+"/v1/contacts?limit=10&fields=name,email,phone", threads, edgeConnections, duration)
			if err != nil {
				return edge{}, fmt.Errorf("%s: %w", ways[at].name, err)
			}
			if round >= 0 {
				got.Ways[at].Turns = append(got.Ways[at].Turns, t)
			}
		}
	}
	return got, nil
}

// startEdge starts a proxy and waits until it answers.
func (b *bench) startEdge(ctx context.Context, program string, w *way) (address string, stop func(), err error) {
	address, err = freeAddress(ctx)
	if err != nil {
		return "", nil, err
	}
	at := deploy.Addresses{Edge: address, Gateway: w.asks}
	switch w.recipe.Name {
	case deploy.NginxCache().Name:
		memory, err := b.memoryFolder()
		if err != nil {
			return "", nil, err
		}
		at.Memory = filepath.Join(memory, "answers")
	case deploy.Envoy().Name, deploy.EnvoyCache().Name:
		at.Admin = "127.0.0.1:0"
	}
	text, err := w.recipe.At(at)
	if err != nil {
		return "", nil, err
	}
	if text, err = w.change(text); err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp(b.dir, "edge-")
	if err != nil {
		return "", nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // nginx's workers are another user
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	cmd, err := w.recipe.Command(ctx, program, dir, text)
	if err != nil {
		cancel()
		return "", nil, err
	}
	log, err := os.Create(filepath.Join(dir, "stderr"))
	if err != nil {
		cancel()
		return "", nil, err
	}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		cancel()
		return "", nil, errors.Join(err, log.Close())
	}
	stop = func() {
		cancel()
		_ = cmd.Wait()
		_ = log.Close()
	}
	if err := awaitEdge(ctx, address, w.checks); err != nil {
		stop()
		said, _ := os.ReadFile(log.Name())
		return "", nil, fmt.Errorf("%w\n%s", err, said)
	}
	return address, stop, nil
}

// freeAddress is an address that nobody listens on at the moment.
func freeAddress(ctx context.Context) (string, error) {
	var c net.ListenConfig
	l, err := c.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// awaitEdge waits until a proxy lets a good token through, and sees what it does with
// one that nobody knows.
func awaitEdge(ctx context.Context, address string, checks bool) error {
	requests, err := measure.Typical().Numbered()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for status := 0; status != http.StatusOK; {
		if status, err = ask(ctx, client, address, requests.Token(0)); status == http.StatusOK {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("a good token gets %d %w", status, errors.Join(err, ctx.Err()))
		case <-time.After(50 * time.Millisecond):
		}
	}
	want := http.StatusOK
	if checks {
		want = http.StatusUnauthorized
	}
	status, err := ask(ctx, client, address, requests.Refused())
	if err == nil && status != want {
		err = fmt.Errorf("a token that nobody knows gets %d, want %d", status, want)
	}
	return err
}

func ask(ctx context.Context, client *http.Client, address, token string) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/v1/contacts", http.NoBody)
	if err != nil {
		return 0, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	got, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, got.Body)
	return got.StatusCode, errors.Join(err, got.Body.Close())
}

func envoyWays(us, kept, noop *measure.Process) []way {
	ways := []way{
		{alone, deploy.Envoy(), "", false, func(text string) (string, error) { return cut(text, envoyAsks) }},
		{"with a no-op", deploy.Envoy(), noop.GRPC, false, asItIs},
		{withUs, deploy.Envoy(), us.GRPC, true, asItIs},
		{keeping, deploy.EnvoyCache(), kept.GRPC, true, asItIs},
	}
	for i := range ways {
		ways[i].change = then(ways[i].change, envoyAnswers)
	}
	return ways
}

func nginxWays(us, kept *measure.Process) []way {
	ways := []way{
		{alone, deploy.Nginx(), "", false, func(text string) (string, error) { return cut(text, nginxAsks) }},
		{"with `return 204` for a gateway", deploy.Nginx(), "", false, func(text string) (string, error) {
			return exchange(text, nginxPasses, "return 204;")
		}},
		{withUs, deploy.Nginx(), us.HTTP, true, asItIs},
		{keeping, deploy.NginxCache(), kept.HTTP, true, asItIs},
		{inLua, deploy.NginxLua(), kept.HTTP, true, asItIs},
	}
	for i := range ways {
		ways[i].change = then(ways[i].change, nginxAnswers)
	}
	return ways
}

func asItIs(text string) (string, error) { return text, nil }

func then(first, second func(string) (string, error)) func(string) (string, error) {
	return func(text string) (string, error) {
		text, err := first(text)
		if err != nil {
			return "", err
		}
		return second(text)
	}
}

// What is changed in the recipes.
var (
	envoyAsks   = regexp.MustCompile(`(?m)^ *- name: envoy\.filters\.http\.ext_authz\n(?s:.*?)( *- name: envoy\.filters\.http\.router\n)`)
	envoyRoute  = regexp.MustCompile(`route: \{ cluster: api, timeout: 30s \}`)
	envoyLog    = regexp.MustCompile(`(?m)^ *access_log:\n(?s:.*?)( *# When the gateway cannot be asked, Envoy itself answers)`)
	nginxAsks   = regexp.MustCompile(`(?m)^ *auth_request /_bearergate;\n`)
	nginxPasses = regexp.MustCompile(`proxy_pass http://bearergate/auth;`)
	nginxRoute  = regexp.MustCompile(`proxy_pass http://api;`)
	nginxLog    = regexp.MustCompile(`access_log /dev/stdout bearergate;`)
)

// envoyAnswers has Envoy answer itself behind all its filters, without a log.
func envoyAnswers(text string) (string, error) {
	text, err := cut(text, envoyLog)
	if err != nil {
		return "", err
	}
	return exchange(text, envoyRoute, `direct_response: { status: 200, body: { inline_string: "ok" } }`)
}

// nginxAnswers has nginx answer itself after it has asked, without a log. An empty_gif
// is content, which comes after auth_request; a return would come before it.
func nginxAnswers(text string) (string, error) {
	text, err := exchange(text, nginxLog, "access_log off;")
	if err != nil {
		return "", err
	}
	return exchange(text, nginxRoute, "empty_gif;")
}

// cut takes away what matches, but for its first group.
func cut(text string, what *regexp.Regexp) (string, error) { return exchange(text, what, "$1") }

// exchange puts something in the place of what matches, which is there once.
func exchange(text string, what *regexp.Regexp, by string) (string, error) {
	if n := len(what.FindAllString(text, -1)); n != 1 {
		return "", fmt.Errorf("%s stands %d times in the recipe, want once; the recipe and bench must change together", what, n)
	}
	return what.ReplaceAllString(text, by), nil
}

var versionNumber = regexp.MustCompile(`\d+\.\d+\.\d+`)

// versionOf asks a program for its version.
func versionOf(ctx context.Context, program string) string {
	flag := "--version"
	if filepath.Base(program) == "nginx" {
		flag = "-v"
	}
	out, _ := exec.CommandContext(ctx, program, flag).CombinedOutput()
	return versionNumber.FindString(string(out))
}

// ratioTo is the median of the rounds' ratios to another way.
func (e *edge) ratioTo(name string, w *wayRounds, figure measure.Figure) string {
	at := slices.IndexFunc(e.Ways, func(w wayRounds) bool { return w.Name == name })
	if at < 0 || &e.Ways[at] == w {
		return "–"
	}
	return times(measure.Ratio(w.Turns, e.Ways[at].Turns, figure))
}

func edgeTables(r *record) string {
	if r.Edges == nil {
		return ""
	}
	tables := []string{r.Edges.String() + "\n"}
	for i := range r.Edges.Edges {
		e := &r.Edges.Edges[i]
		var rows [][]string
		for j := range e.Ways {
			w := &e.Ways[j]
			rows = append(rows, []string{
				w.Name, perSecond(measure.Median(w.Turns, measure.Rate)),
				e.ratioTo(alone, w, measure.Rate), e.ratioTo(e.Ways[1].Name, w, measure.Rate),
				milliseconds(measure.Median(w.Turns, measure.P50)), milliseconds(measure.Median(w.Turns, measure.P99)),
			})
		}
		tables = append(tables, page.Table([]string{e.Name + " " + e.Version, "requests/s", "of alone", "of " + e.Ways[1].Name, "p50", "p99"}, rows))
	}
	return strings.Join(tables, "\n")
}

func edgePlots(r *record) []picture {
	if r.Edges == nil {
		return nil
	}
	var pictures []picture
	for i := range r.Edges.Edges {
		e := &r.Edges.Edges[i]
		p := picture{name: "edge-" + strings.ToLower(e.Name), title: e.Name + ", whole requests per second", y: "requests per second"}
		var values plotter.Values
		for j := range e.Ways {
			p.bars = append(p.bars, e.Ways[j].Name)
			values = append(values, measure.Median(e.Ways[j].Turns, measure.Rate))
		}
		p.layers = []layer{{"", values}}
		pictures = append(pictures, p)
	}
	return pictures
}
