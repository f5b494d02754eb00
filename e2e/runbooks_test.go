package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/bearergate/bearergate/crmnow"
	"github.com/bearergate/bearergate/listen/listentest"
)

// outage is a fault that wakes somebody, who then goes by a page of docs/runbooks.
type outage struct {
	page   string
	alerts []string
	// run makes the gateway, the load and the fault. It calls the steps of night in
	// their order.
	run func(t *testing.T, n *night)
}

// unprovoked are the alerts that no test makes fire here.
func unprovoked() []string {
	return []string{
		"BearergatePanics", // there is no known way to make the gateway panic; promtool tests the alert
	}
}

func outages() map[string]outage {
	return map[string]outage{
		"the endpoint goes away": {
			"endpoint-down",
			[]string{"BearergateEndpointDown", "BearergateUnavailable"},
			func(t *testing.T, n *night) {
				// 503 is what callers get of it: both pages lead to the cause.
				n.start(t, settings{cache: "{valid_ttl: 1s, refresh_before: 0s}"})
				tokens := n.pool(t, 60)
				n.load(t, 2, 100*time.Millisecond, tokens)
				n.quiet(t)
				n.endpoint.down(t)
				n.woken(t)
				n.follow(t, "callers-get-503")
				n.endpoint.up(t)
				n.over(t)
			},
		},
		"the endpoint is slow": {
			"endpoint-slow",
			[]string{"BearergateEndpointSlow"},
			func(t *testing.T, n *night) {
				n.start(t, settings{cache: "{valid_ttl: 1s, refresh_before: 0s}"})
				n.load(t, 4, 100*time.Millisecond, n.pool(t, 60))
				n.quiet(t)
				end := n.endpoint.trouble(t, crmnow.Fault{Delay: 1300 * time.Millisecond})
				n.woken(t)
				end()
				n.over(t)
			},
		},
		"a flood of made-up tokens": {
			"refusals-rising",
			[]string{"BearergateRefusalsRising"},
			func(t *testing.T, n *night) {
				n.start(t, settings{trust: ", trust: {client: x-real-ip}"})
				n.load(t, 1, 100*time.Millisecond, n.pool(t, 20))
				n.quiet(t)
				end := n.load(t, 2, 100*time.Millisecond, func() []string {
					return append(bearerLine(n.run.tokens.invent(40)), "X-Real-IP: 192.0.2.7")
				})
				n.woken(t)
				end()
				n.over(t)
			},
		},
		"the endpoint says no to everybody": {
			"",
			[]string{"BearergateGoodTokensRefused"},
			func(t *testing.T, n *night) {
				n.start(t, settings{cache: "{valid_ttl: 1s, refresh_before: 0s}"})
				n.load(t, 1, 100*time.Millisecond, func() []string { return bearerLine(n.endpoint.issue(t)) })
				n.quiet(t)
				no := `{"result": false, "message": "token invalid"}`
				end := n.endpoint.trouble(t, crmnow.Fault{Body: &no})
				n.woken(t)
				end()
				n.over(t)
			},
		},
		"the issuer of tokens goes away": {
			"keys-not-fetched",
			[]string{"BearergateKeysNotFetched"},
			func(t *testing.T, n *night) {
				issuer, address := newIssuer(t, n.run), n.run.ports.free(t)
				away := serveKeys(t, issuer, address)
				n.start(t, settings{
					policy: "{verifiers: [sso, crm]}",
					verifiers: fmt.Sprintf("  - {name: sso, jwt: {issuer: %q, audiences: [orders], algorithms: [ES256], keys: {url: \"http://%s/keys\", refresh_every: 1s, pause: 1s}}}\n",
						issuerName, address),
				})
				n.load(t, 1, 100*time.Millisecond, func() []string { return bearerLine(issuer.issue(t, "orders:read")) })
				n.quiet(t)
				away()
				n.woken(t)
				serveKeys(t, issuer, address)
				n.over(t)
			},
		},
		"more good tokens than there is room for": {
			"cache-full",
			[]string{"BearergateCacheFull"},
			func(t *testing.T, n *night) {
				s := settings{cache: "{max_tokens: 40}", policy: "{shadow: {until: \"2999-01-01\"}}"}
				n.start(t, s)
				tokens := n.pool(t, 150)
				n.load(t, 1, 500*time.Millisecond, func() []string { return nil })
				n.quiet(t)
				n.load(t, 2, 50*time.Millisecond, tokens)
				n.woken(t)
				n.become(t, strings.Replace(n.gateway.settings.yaml(), "max_tokens: 40", "max_tokens: 1000", 1))
				n.over(t)
			},
		},
		"a certificate ends, and its renewal is broken": {
			"certificate-ending",
			[]string{"BearergateCertificateEnding", "BearergateCertificateEndsToday", "BearergateCertificateReloadFailing"},
			func(t *testing.T, n *night) {
				authority := listentest.NewAuthority(t)
				dir := n.run.folder(t)
				good := authority.Issue(t, listentest.Leaf{Until: 60 * 24 * time.Hour})
				put(t, good, dir, "gate")
				n.start(t, settings{faces: fmt.Sprintf(", tls: {cert_file: %q, key_file: %q}", dir+"/gate.crt", dir+"/gate.key")})
				n.quiet(t)
				// It is near its end, and what renews it writes the certificate of another key.
				put(t, authority.Issue(t, listentest.Leaf{Until: time.Hour}), dir, "gate")
				eventually(t, "the gateway has a certificate that ends soon", func() error {
					return n.says("\"the listener's certificate files were read again\"")
				})
				other := authority.Issue(t, listentest.Leaf{Until: 60 * 24 * time.Hour})
				if err := os.WriteFile(filepath.Join(dir, "gate.crt"), other.Certificate, 0o600); err != nil {
					t.Fatal(err)
				}
				n.woken(t)
				put(t, other, dir, "gate")
				n.over(t)
			},
		},
		"a wrong configuration takes the place of the right one": {
			"reload-failing",
			[]string{"BearergateReloadFailing"},
			func(t *testing.T, n *night) {
				n.start(t, settings{})
				n.quiet(t)
				right := n.gateway.settings.yaml()
				n.become(t, right+"nonsense: true\n")
				n.woken(t)
				n.become(t, right)
				n.over(t)
			},
		},
		"more new tokens than the endpoint is asked about": {
			"shedding",
			[]string{"BearergateShedding"},
			func(t *testing.T, n *night) {
				n.start(t, settings{crm: "    calls: {max: 2, reserved: 0, max_waiting: 1}\n"})
				n.endpoint.trouble(t, crmnow.Fault{Delay: 200 * time.Millisecond})
				n.load(t, 1, 100*time.Millisecond, n.pool(t, 1))
				n.quiet(t)
				end := n.load(t, 6, 100*time.Millisecond, func() []string { return bearerLine(n.endpoint.issue(t)) })
				n.woken(t)
				end()
				n.over(t)
			},
		},
		"an edge with another secret, and one without TLS": {
			"edge-refused",
			[]string{"BearergateEdgeRefused", "BearergateHandshakesRefused"},
			func(t *testing.T, n *night) {
				authority := listentest.NewAuthority(t)
				dir := n.run.folder(t)
				put(t, authority.Issue(t, listentest.Leaf{Until: 60 * 24 * time.Hour}), dir, "gate")
				const secret = "the secret of the edge"
				if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(secret), 0o600); err != nil {
					t.Fatal(err)
				}
				n.start(t, settings{
					faces: fmt.Sprintf(", tls: {cert_file: %q, key_file: %q}", dir+"/gate.crt", dir+"/gate.key"),
					trust: fmt.Sprintf(", trust: {original: x-original, secret: {file: %q}}", dir+"/secret"),
				})
				asking := []string{"X-Original-URI: /", "X-Original-Method: GET", "X-Original-Host: api.example"}
				var held atomic.Value // the secret that the edge has
				held.Store(secret)
				n.load(t, 1, 100*time.Millisecond, func() []string {
					return append([]string{"X-Bearergate-Edge: " + held.Load().(string)}, asking...)
				})
				n.quiet(t)
				held.Store("the secret of long ago")
				plain := n.loadAt(t, "http://"+n.gateway.settings.extAuthz, 1, 200*time.Millisecond, func() []string { return nil })
				n.woken(t)
				plain()
				held.Store(secret)
				n.over(t)
			},
		},
		"a gateway is restarted with a wrong configuration": {
			"gateway-down",
			[]string{"BearergateDown", "BearergateAllDown"},
			func(t *testing.T, n *night) {
				n.start(t, settings{})
				n.quiet(t)
				right := n.gateway.settings.yaml()
				n.gateway.end()
				n.become(t, right+"nonsense: true\n")
				var stderr strings.Builder
				cmd := exec.CommandContext(t.Context(), n.run.command, "serve", "--config", n.gateway.file)
				cmd.Stderr = &stderr
				if err := cmd.Run(); err == nil {
					t.Fatal("it started")
				}
				n.noteLog(t, stderr.String())
				n.woken(t)
				n.start(t, n.gateway.settings)
				n.over(t)
			},
		},
		"a gateway follows a verifier that gives no answers": {
			"",
			[]string{"BearergateNotReady"},
			func(t *testing.T, n *night) {
				n.start(t, settings{more: "health: {verifiers: [crm]}\n"})
				n.load(t, 1, 50*time.Millisecond, func() []string { return bearerLine(n.endpoint.issue(t)) })
				n.quiet(t)
				n.endpoint.down(t)
				n.woken(t)
				n.endpoint.up(t)
				n.over(t)
			},
		},
		"a gateway starts again and again": {
			"",
			[]string{"BearergateRestarting"},
			func(t *testing.T, n *night) {
				n.start(t, settings{})
				n.quiet(t)
				for range 3 {
					n.gateway.kill(t)
					n.start(t, n.gateway.settings)
					n.scraped(t)
				}
				n.woken(t)
				n.over(t)
				// What can be gone of the page for which there is no fault.
				steps := readSteps(t, "panics", "From the alert to the cause")
				n.take(t, "step 1 of panics", steps[0])
				n.take(t, "step 3 of panics", steps[2])
			},
		},
	}
}

// testRunbooks has every alert of deploy/prometheus come of a real fault, and goes
// from there to the cause by its page, with the commands as they stand there.
// Durations in the rules are divided by hurry; nothing else of them is changed.
func testRunbooks(t *testing.T, r *run) {
	jobs, targets := map[string]string{}, map[string]string{}
	for name, o := range outages() {
		jobs[name] = fmt.Sprintf("bearergate-%d-%s", len(jobs), o.page)
		targets[jobs[name]] = r.ports.free(t)
	}
	fine := r.startPrometheus(t, true, targets)
	coarse := r.startPrometheus(t, false, targets)
	asked, stop := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	for _, p := range []*prometheus{fine, coarse} {
		asking.Go(func() { p.askUntilAnswered(asked, t) })
	}
	defer asking.Wait()
	defer stop()

	pages := map[string]bool{"panics.md": true, "README.md": true, "callers-get-503.md": true}
	t.Run("night", func(t *testing.T) {
		for name, o := range outages() {
			pages[o.page+".md"] = true
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				o.run(t, &night{run: r, outage: o, prometheus: fine, job: jobs[name], admin: targets[jobs[name]]})
			})
		}
	})
	for _, p := range []*prometheus{fine, coarse} {
		p.rulesAreSound(t)
	}
	fired := fine.whatFired(t)
	for _, name := range allAlerts(t) {
		if fired[name] == slices.Contains(unprovoked(), name) {
			t.Errorf("%s fired: %t", name, fired[name])
		}
	}
	all, err := filepath.Glob("../docs/runbooks/*.md")
	if err != nil || len(all) == 0 {
		t.Fatalf("%v, %v", all, err)
	}
	for _, page := range all {
		if !pages[filepath.Base(page)] {
			t.Errorf("no fault leads to %s", page)
		}
	}
}

// night is an outage while it lasts.
type night struct {
	run        *run
	outage     outage
	prometheus *prometheus
	job        string
	admin      string
	endpoint   *endpoint
	gateway    *gateway
	journal    string   // a folder with what stands for journalctl
	logs       []string // of all gateways that ran here
}

// start starts the gateway, or starts it again.
func (n *night) start(t *testing.T, s settings) {
	t.Helper()
	if n.endpoint == nil {
		n.endpoint = startEndpoint(t, n.run)
	}
	s.endpoint, s.timeout, s.admin = n.endpoint.url(), "3s", n.admin
	if s.authRequest == "" {
		s.extAuthz, s.authRequest = n.run.ports.free(t), n.run.ports.free(t)
	}
	n.gateway = n.run.startGateway(t, "gateway of "+n.job, s)
	if n.journal == "" {
		n.journal = n.run.folder(t)
	}
	n.noteLogFile(t, n.gateway.stderr)
}

// noteLog has the journal tell more.
func (n *night) noteLog(t *testing.T, text string) {
	t.Helper()
	file := filepath.Join(n.run.folder(t), "log")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	n.noteLogFile(t, file)
}

// noteLogFile has journalctl, which the pages call, show a file, too.
func (n *night) noteLogFile(t *testing.T, file string) {
	t.Helper()
	n.logs = append(n.logs, file)
	script := "#!/bin/sh\nexec cat '" + strings.Join(n.logs, "' '") + "'\n"
	if err := os.WriteFile(filepath.Join(n.journal, "journalctl"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
}

// become puts another configuration in the place of the gateway's.
func (n *night) become(t *testing.T, text string) {
	t.Helper()
	n.gateway.become(t, text)
}

// says returns an error as long as a text does not stand in the gateway's log.
func (n *night) says(text string) error {
	log, err := os.ReadFile(n.gateway.stderr)
	if err == nil && !strings.Contains(string(log), text) {
		err = errors.New("it does not say " + text)
	}
	return err
}

// serveKeys shows the keys of an issuer, until it is told to go away or the test ends.
func serveKeys(t *testing.T, i *issuer, address string) (away func()) {
	t.Helper()
	keys, err := os.ReadFile(i.file)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(keys)
	}))
	_ = s.Listener.Close()
	syscall.ForkLock.RLock() // else a program that is being started may still have the listener from before
	s.Listener, err = net.Listen("tcp", address)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	away = sync.OnceFunc(s.Close)
	t.Cleanup(away)
	return away
}

// pool returns good tokens, one after the other and again from the first.
func (n *night) pool(t *testing.T, size int) func() []string {
	t.Helper()
	tokens := make([]string, size)
	for i := range tokens {
		tokens[i] = n.endpoint.issue(t)
	}
	return inTurn(tokens)
}

func inTurn(tokens []string) func() []string {
	var next atomic.Int64
	return func() []string { return bearerLine(tokens[int(next.Add(1))%len(tokens)]) }
}

// load asks the gateway as an HTTP edge does, until end is called or the test ends.
func (n *night) load(t *testing.T, clients int, every time.Duration, lines func() []string) (end func()) {
	t.Helper()
	scheme := "http://"
	if n.gateway.settings.faces != "" {
		scheme = "https://"
	}
	return n.loadAt(t, scheme+n.gateway.settings.authRequest, clients, every, lines)
}

func (n *night) loadAt(t *testing.T, url string, clients int, every time.Duration, lines func() []string) (end func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	transport := &http.Transport{
		MaxIdleConnsPerHost: clients,
		TLSClientConfig:     &tls.Config{InsecureSkipVerify: true}, // which gateway it is, the test knows
	}
	var sending sync.WaitGroup
	for range clients {
		sending.Go(func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/auth", http.NoBody)
				if err != nil {
					t.Error(err)
					return
				}
				for _, line := range lines() {
					name, value, _ := strings.Cut(line, ": ")
					r.Header.Set(name, value)
				}
				// What comes of it is Prometheus' to say: the gateway may be away.
				if got, err := transport.RoundTrip(r); err == nil {
					_ = got.Body.Close()
				}
			}
		})
	}
	end = sync.OnceFunc(func() {
		stop()
		sending.Wait()
		transport.CloseIdleConnections()
	})
	t.Cleanup(end)
	return end
}

// whole is how long an alert may take to come or to end.
const whole = slowness * 60 * time.Second

// scraped waits until Prometheus has asked the gateway that runs now.
func (n *night) scraped(t *testing.T) {
	t.Helper()
	since := float64(time.Now().UnixMilli()) / 1000
	within(t, whole, "Prometheus asks "+n.job, func() error {
		found, err := n.prometheus.query(t.Context(), fmt.Sprintf(`timestamp(up{job=%[1]q}) > %[2]f and up{job=%[1]q} == 1`, n.job, since))
		if err == nil && len(found) == 0 {
			err = errors.New("it has not yet")
		}
		return err
	})
}

// quiet sees that nobody is woken before the fault.
func (n *night) quiet(t *testing.T) {
	t.Helper()
	within(t, whole, "all is well", func() error {
		found, err := n.prometheus.query(t.Context(), fmt.Sprintf(`sum_over_time(up{job=%q}[1m]) >= 10`, n.job))
		if err != nil {
			return err
		}
		firing, err := n.prometheus.alerts(t.Context(), n.job)
		if err == nil && (len(found) == 0 || len(firing) > 0) {
			err = fmt.Errorf("scraped often enough %t, firing %q", len(found) > 0, firing)
		}
		return err
	})
}

// woken waits for the alerts of the outage, and goes from there to the cause.
func (n *night) woken(t *testing.T) {
	t.Helper()
	within(t, whole, fmt.Sprintf("%q fire", n.outage.alerts), func() error {
		firing, err := n.prometheus.alerts(t.Context(), n.job)
		for _, name := range n.outage.alerts {
			if err == nil && !slices.Contains(firing, name) {
				err = fmt.Errorf("%s does not; firing: %q", name, firing)
			}
		}
		return err
	})
	if n.outage.page != "" {
		n.follow(t, n.outage.page)
	}
}

// follow goes the three steps of a page.
func (n *night) follow(t *testing.T, page string) {
	t.Helper()
	steps := readSteps(t, page, "From the alert to the cause")
	if len(steps) != 3 {
		t.Fatalf("%s has %d steps, want three", page, len(steps))
	}
	for i, s := range steps {
		n.take(t, fmt.Sprintf("step %d of %s", i+1, page), s)
	}
}

// over waits until none of the alerts of the outage fires, and sees that what the page
// shows of that is so.
func (n *night) over(t *testing.T) {
	t.Helper()
	within(t, whole, fmt.Sprintf("%q are over", n.outage.alerts), func() error {
		firing, err := n.prometheus.alerts(t.Context(), n.job)
		for _, name := range n.outage.alerts {
			if err == nil && slices.Contains(firing, name) {
				err = fmt.Errorf("%s still fires", name)
			}
		}
		return err
	})
	if n.outage.page == "" {
		return
	}
	for _, s := range readSteps(t, n.outage.page, "It is over when") {
		n.take(t, "the end of "+n.outage.page, s)
	}
}

// step is a command of a page, and what it says when it is this.
type step struct {
	command string
	shows   []*regexp.Regexp
}

var fenced = regexp.MustCompile("(?s)```(sh|text)\n(.*?)```\n")

// readSteps returns the commands below a heading of a page, with what is shown under
// each. There, … stands for anything.
func readSteps(t *testing.T, page, heading string) (steps []step) {
	t.Helper()
	text, err := os.ReadFile("../docs/runbooks/" + page + ".md")
	if err != nil {
		t.Fatal(err)
	}
	_, below, found := strings.Cut(string(text), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("%s has nothing under %q", page, heading)
	}
	below, _, _ = strings.Cut(below, "\n## ")
	for _, block := range fenced.FindAllStringSubmatch(below, -1) {
		if block[1] == "sh" {
			steps = append(steps, step{command: block[2]})
			continue
		}
		if len(steps) == 0 {
			t.Fatalf("%s shows what no command says", page)
		}
		last := &steps[len(steps)-1]
		for line := range strings.Lines(block[2]) {
			pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSuffix(line, "\n")), "…", ".*")
			last.shows = append(last.shows, regexp.MustCompile(pattern))
		}
	}
	for _, s := range steps {
		if len(s.shows) == 0 {
			t.Fatalf("%s does not show what this says:\n%s", page, s.command)
		}
	}
	return steps
}

// take runs the command of a step in a shell, as it stands there, where the gateway's
// configuration is, until it says what the page shows.
func (n *night) take(t *testing.T, what string, s step) {
	t.Helper()
	eventually(t, what+" leads on", func() error {
		cmd := exec.CommandContext(t.Context(), "bash", "-c", s.command)
		cmd.Dir = filepath.Dir(n.gateway.file)
		cmd.Env = append(os.Environ(),
			"PATH="+n.journal+":"+filepath.Dir(n.run.command)+":"+os.Getenv("PATH"),
			"BEARERGATE_ADMIN="+n.gateway.settings.admin)
		cmd.WaitDelay = patience
		out, _ := cmd.CombinedOutput() // a command that finds a fault ends with a code of its own
		n.run.outputs.addText("what "+what+" says", string(out))
		for _, pattern := range s.shows {
			if !pattern.Match(out) {
				return fmt.Errorf("%s\ndoes not say %s, but\n%s", s.command, pattern, out)
			}
		}
		return nil
	})
}
