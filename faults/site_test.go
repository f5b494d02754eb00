package faults_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/bearergate/bearergate/config"
	"github.com/bearergate/bearergate/crmnow"
)

// site is an endpoint, the network in front of it, and the tokens that were made
// for it. Gateways are added with [site.gateway].
type site struct {
	*crmnow.Emulator
	crossing *crossing
	ports    map[int]bool

	// url is the endpoint's URL as the gateways see it, ca the file with the
	// authority of its certificate, if it has one.
	url, ca string
	host    string
	address string // where the endpoint itself listens
	// Of an endpoint that speaks TLS.
	authority *authority
	shown     *wardrobe

	mu       sync.Mutex
	tokens   []string // every token that was asked about
	gateways []*gateway
}

// newSite starts an endpoint in clear.
func newSite(t *testing.T) *site {
	t.Helper()
	return startSite(t, nil)
}

// newSecureSite starts an endpoint that speaks TLS, and in it one of the protocols.
func newSecureSite(t *testing.T, protocols ...string) *site {
	t.Helper()
	return startSite(t, protocols)
}

func startSite(t *testing.T, protocols []string) *site {
	t.Helper()
	labelled(t)
	emulator, err := crmnow.NewEmulator(crmnow.EmulatorOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s := &site{Emulator: emulator, ports: map[int]bool{}}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	s.crossing = newCrossing(t, s.address)
	s.notePort(t, s.address)
	s.notePort(t, s.crossing.Listen)
	_, port := hostPort(t, s.crossing.Listen)
	// Each site has a name of its own, so that names can be in trouble one by one.
	s.host = fmt.Sprintf("endpoint-%d.invalid", port)
	scheme := "http"
	if protocols != nil {
		scheme = "https"
		s.authority, s.shown = newAuthority(t), &wardrobe{}
		s.shown.Store(s.goodCertificate(t))
		s.ca = s.authority.file(t)
		l = tls.NewListener(l, s.shown.config(protocols...))
	}
	s.url = fmt.Sprintf("%s://%s:%d%s", scheme, s.host, port, crmnow.Path)
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- emulator.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s
}

// straight has the gateways that are started from now on ask the endpoint without a
// network that can fail, which takes time.
func (s *site) straight() { s.url = "http://" + s.address + crmnow.Path }

// notePort remembers the port of a listener of the site.
func (s *site) notePort(t *testing.T, address string) {
	t.Helper()
	_, port := hostPort(t, address)
	s.ports[port] = true
}

func hostPort(t *testing.T, address string) (host string, port int) {
	t.Helper()
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	if port, err = strconv.Atoi(text); err != nil {
		t.Fatal(err)
	}
	return host, port
}

// note remembers a token, which must not be seen in a log.
func (s *site) note(token string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens = append(s.tokens, token)
	return token
}

// issue returns a good token.
func (s *site) issue(t *testing.T) string {
	t.Helper()
	grant, err := s.Issue(0)
	if err != nil {
		t.Fatal(err)
	}
	return s.note(grant.AccessToken.Reveal())
}

// issueMany returns good tokens.
func (s *site) issueMany(t *testing.T, n int) []string {
	t.Helper()
	tokens := make([]string, n)
	for i := range tokens {
		tokens[i] = s.issue(t)
	}
	return tokens
}

// calls returns how often the endpoint was asked about a token.
func (s *site) calls(token string) int {
	return int(s.VerificationsOf(crmnow.NewSecret(token)))
}

// trouble has questions meet a fault of the endpoint itself until end is called.
func (s *site) trouble(t *testing.T, f crmnow.Fault) (end func()) {
	t.Helper()
	if err := s.SetFault(crmnow.Verify, f); err != nil {
		t.Fatal(err)
	}
	return s.ClearFaults
}

// census counts what the site holds, its gateways included. What tests themselves
// keep open is closed first.
func (s *site) census(t *testing.T) census {
	t.Helper()
	for _, g := range s.gateways {
		g.client.CloseIdleConnections()
	}
	n, _ := goroutinesOf(t)
	return census{goroutines: n, sockets: socketsAt(s.ports)}
}

// disconnect ends all connections to the endpoint, also those that are being made:
// a question that was quicker on another leaves one behind, which is kept for later.
func (s *site) disconnect(t *testing.T) {
	t.Helper()
	s.crossing.cut(t)
	_, port := hostPort(t, s.crossing.Listen)
	none := 0
	eventually(t, "nobody connects to the endpoint any more", func() error {
		if n := socketsAt(map[int]bool{port: true}); n > 1 { // there is the listener
			none = 0
			s.crossing.cut(t)
			return fmt.Errorf("there are %d sockets", n)
		}
		none++
		if none < 10 {
			return fmt.Errorf("it was so %d times", none)
		}
		return nil
	})
}

// rest is what a site holds that nobody asks: no connection to the endpoint, and
// none to the gateways but for those of gRPC.
func (s *site) rest(t *testing.T) census {
	t.Helper()
	s.crossing.cut(t)
	last, same := s.census(t), 0
	eventually(t, "the site comes to rest", func() error {
		if now := s.census(t); now == last {
			same++
		} else {
			last, same = now, 0
		}
		if same < 3 { // what is about to end may take a moment
			return fmt.Errorf("it still changes; now it has %v", last)
		}
		return nil
	})
	return last
}

// mustRest waits until the site holds no more than it did at rest.
func (s *site) mustRest(t *testing.T, want census) {
	t.Helper()
	s.crossing.cut(t)
	var now census
	for deadline := time.Now().Add(patience); ; pauseFor(50 * time.Millisecond) {
		now = s.census(t)
		if now.goroutines <= want.goroutines && now.sockets <= want.sockets {
			return
		}
		if time.Now().After(deadline) {
			_, stacks := goroutinesOf(t)
			t.Fatalf("there were %v before the trouble, and now there are %v:\n%s", want, now, stacks)
		}
	}
}

// settings are what tests choose of a gateway's configuration: the text of some of
// its fields. Where one is missing it has the value of [quick].
type settings map[string]string

// quick are settings under which trouble takes little time.
var quick = settings{
	"timeout":        "20s",
	"max":            "8",
	"reserved":       "2",
	"max_waiting":    "100",
	"max_wait":       "1s",
	"failures":       "6",
	"of_last":        "12",
	"open_for":       "100ms",
	"max_tokens":     "10000",
	"valid_ttl":      "300s", // longer than a test takes on a machine that is busy
	"invalid_ttl":    "300s",
	"refresh_before": "0s",
	"stale_if_error": "0s",
}

const configText = `listeners:
  ext_authz:    {address: "127.0.0.1:0"}
  auth_request: {address: "127.0.0.1:0"}
  admin:        {address: "127.0.0.1:0"}
verifiers:
  - name: crm
    verifytoken: {url: "${url}", allow_plaintext: true${ca_file}}
    timeout: ${timeout}
    calls: {max: ${max}, reserved: ${reserved}, max_waiting: ${max_waiting}, max_wait: ${max_wait}}
    breaker: {failures: ${failures}, of_last: ${of_last}, open_for: ${open_for}}
cache:
  max_tokens: ${max_tokens}
  valid_ttl: ${valid_ttl}
  invalid_ttl: ${invalid_ttl}
  refresh_before: ${refresh_before}
  stale_if_error: ${stale_if_error}
log: {level: debug}
`

// text writes the configuration for an endpoint.
func (o settings) text(s *site) string {
	all := maps.Clone(quick)
	maps.Copy(all, o)
	all["url"] = s.url
	all["ca_file"] = ""
	if s.ca != "" {
		all["ca_file"] = fmt.Sprintf(", ca_file: %q", s.ca)
	}
	text := configText
	for name, value := range all {
		text = strings.ReplaceAll(text, "${"+name+"}", value)
	}
	return text
}

// gateway is one that runs in this process.
type gateway struct {
	*config.Gateway
	site   *site
	client *http.Client
	envoy  authv3.AuthorizationClient
	log    *logBuffer
}

// gateway starts a gateway in front of the site's endpoint.
func (s *site) gateway(t *testing.T, o settings) *gateway {
	t.Helper()
	none := func(string) (string, bool) { return "", false }
	c, err := config.Parse("bearergate.yaml", []byte(o.text(s)), none)
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{site: s, log: &logBuffer{}, client: &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: 512}}}
	logger := slog.New(slog.NewJSONHandler(g.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if g.Gateway, err = config.NewGateway(t.Context(), c, logger, "0-test"); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- g.Run(ctx) }()
	t.Cleanup(func() {
		g.client.CloseIdleConnections()
		stop()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		g.checkLog(t)
	})
	conn, err := grpc.NewClient("passthrough:///"+g.Address(config.ExtAuthz), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	g.envoy = authv3.NewAuthorizationClient(conn)
	conn.Connect()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		if !conn.WaitForStateChange(t.Context(), state) {
			t.Fatal("no connection to ext_authz")
		}
	}
	for _, name := range []string{config.ExtAuthz, config.AuthRequest, config.Admin} {
		s.notePort(t, g.Address(name))
	}
	s.gateways = append(s.gateways, g)
	return g
}

// metric reads one of the gateway's metrics.
func (g *gateway) metric(t *testing.T, name string) float64 {
	t.Helper()
	response, err := g.client.Get("http://" + g.Address(config.Admin) + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if found, _, _ := strings.Cut(series, "{"); found == name {
			number, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			return number
		}
	}
	t.Fatalf("the gateway has no metric %s", name)
	return 0
}

// checkLog fails if the gateway panicked, or if a token stands in its log.
func (g *gateway) checkLog(t *testing.T) {
	t.Helper()
	log := g.log.String()
	if strings.Contains(log, `"level":"ERROR"`) {
		t.Errorf("the gateway's log has an error:\n%s", log)
	}
	for _, token := range g.site.tokens {
		if strings.Contains(log, token) {
			t.Errorf("a token stands in the gateway's log:\n%s", log)
			return
		}
	}
}

// logBuffer holds a log that many write to.
type logBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *logBuffer) Write(text []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(text)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}
