package page

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/bearergate/bearergate/config"
	"github.com/bearergate/bearergate/crmnow"
)

// gateway is one with an endpoint to ask, which both end with the test.
type gateway struct {
	*config.Gateway

	endpoint *crmnow.Local
	client   *http.Client
	end      func() error // may be called twice
}

// configuration is that of the quickstart, with a breaker that soon opens.
const configuration = `
listeners:
  auth_request: {address: "127.0.0.1:0", trust: {original: x-original}}
  admin:        {address: "127.0.0.1:0"}
verifiers:
  - name: crm
    verifytoken: {url: %q}
    timeout: 1s
    breaker: {failures: 3, of_last: 3, open_for: 60s}
cache: {max_tokens: 1000, valid_ttl: 300s}
shutdown_timeout: 5s
`

// reporting is a policy in shadow.
const reporting = `
routes:
  - {path: {prefix: /reports}, policy: reports}
policies:
  - {name: reports, shadow: {until: "2099-01-01"}}
`

// start runs a gateway until the test ends, with more of a configuration.
func start(t *testing.T, more string) *gateway {
	t.Helper()
	endpoint, err := crmnow.StartLocal(crmnow.EmulatorOptions{Clients: map[string]crmnow.Secret{"partner": crmnow.NewSecret("a-secret-of-a-partner")}})
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Appendf(nil, configuration+more, endpoint.URL())
	c, err := config.Parse("bearergate.yaml", text, func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{endpoint: endpoint, client: &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: 8}}}
	if g.Gateway, err = config.NewGateway(t.Context(), c, slog.New(slog.DiscardHandler), "v1.4.0"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	g.end = sync.OnceValue(func() error {
		g.client.CloseIdleConnections()
		cancel()
		return errors.Join(<-ended, endpoint.Close())
	})
	t.Cleanup(func() { g.stop(t) })
	return g
}

// stop ends it.
func (g *gateway) stop(t *testing.T) {
	t.Helper()
	if err := g.end(); err != nil {
		t.Errorf("the gateway: %v", err)
	}
}

// url is where the page is.
func (g *gateway) url(path string) string { return "http://" + g.Address(config.Admin) + path }

// token issues one.
func (g *gateway) token(t testing.TB) string {
	t.Helper()
	grant, err := g.endpoint.Issue(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return grant.AccessToken.Reveal()
}

// decide has a request decided, as nginx does, and returns the status.
func (g *gateway) decide(ctx context.Context, path, authorization string) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.Address(config.AuthRequest)+"/auth", http.NoBody)
	if err != nil {
		return 0, err
	}
	r.Header.Set("X-Original-Method", http.MethodGet)
	r.Header.Set("X-Original-Host", "api.example.com")
	r.Header.Set("X-Original-Uri", path)
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	resp, err := g.client.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}
