package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

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
	fired := map[string]bool{}
	for job, names := range fine.whatFired(t) {
		for _, name := range names {
			fired[name] = true
			o := outages()[nameOf(jobs, job)]
			// Until it was there, each gateway was down.
			if !slices.Contains(slices.Concat(o.alerts, o.beside, []string{"BearergateDown", "BearergateAllDown"}), name) {
				t.Errorf("%s fired for %s, which it is not about", name, job)
			}
		}
	}
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

func nameOf(jobs map[string]string, job string) string {
	for name, its := range jobs {
		if its == job {
			return name
		}
	}
	return ""
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
