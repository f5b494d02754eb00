package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
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
	// beside are alerts that may fire, too, because callers feel it.
	beside []string
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
			page:   "endpoint-down",
			alerts: []string{"BearergateEndpointDown", "BearergateUnavailable"},
			beside: []string{"BearergateUnavailableSlowly"},
			run: func(t *testing.T, n *night) {
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
			page:   "endpoint-slow",
			alerts: []string{"BearergateEndpointSlow"},
			run: func(t *testing.T, n *night) {
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
			page:   "refusals-rising",
			alerts: []string{"BearergateRefusalsRising"},
			run: func(t *testing.T, n *night) {
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
			alerts: []string{"BearergateGoodTokensRefused"},
			beside: []string{"BearergateRefusalsRising"},
			run: func(t *testing.T, n *night) {
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
			page:   "keys-not-fetched",
			alerts: []string{"BearergateKeysNotFetched"},
			run: func(t *testing.T, n *night) {
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
			page:   "cache-full",
			alerts: []string{"BearergateCacheFull"},
			run: func(t *testing.T, n *night) {
				s := settings{cache: "{max_tokens: 40}", policy: "{shadow: {until: \"2999-01-01\"}}"}
				n.start(t, s)
				tokens := n.pool(t, 150)
				n.load(t, 1, 500*time.Millisecond, n.pool(t, 1))
				n.quiet(t)
				n.load(t, 2, 50*time.Millisecond, tokens)
				n.woken(t)
				n.become(t, strings.Replace(n.gateway.settings.yaml(), "max_tokens: 40", "max_tokens: 1000", 1))
				n.over(t)
			},
		},
		"a certificate ends, and its renewal is broken": {
			page:   "certificate-ending",
			alerts: []string{"BearergateCertificateEnding", "BearergateCertificateEndsToday", "BearergateCertificateReloadFailing"},
			run: func(t *testing.T, n *night) {
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
			page:   "reload-failing",
			alerts: []string{"BearergateReloadFailing"},
			run: func(t *testing.T, n *night) {
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
			page:   "shedding",
			alerts: []string{"BearergateShedding"},
			beside: []string{"BearergateUnavailable", "BearergateUnavailableSlowly"},
			run: func(t *testing.T, n *night) {
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
			page:   "edge-refused",
			alerts: []string{"BearergateEdgeRefused", "BearergateHandshakesRefused"},
			beside: []string{"BearergateUnavailable", "BearergateUnavailableSlowly"},
			run: func(t *testing.T, n *night) {
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
				tokens := n.pool(t, 20)
				n.load(t, 1, 100*time.Millisecond, func() []string {
					return append(tokens(), append(asking, "X-Bearergate-Edge: "+held.Load().(string))...)
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
			page:   "gateway-down",
			alerts: []string{"BearergateDown", "BearergateAllDown"},
			run: func(t *testing.T, n *night) {
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
			alerts: []string{"BearergateNotReady"},
			beside: []string{"BearergateEndpointDown", "BearergateUnavailable", "BearergateUnavailableSlowly"},
			run: func(t *testing.T, n *night) {
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
			alerts: []string{"BearergateRestarting"},
			run: func(t *testing.T, n *night) {
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
