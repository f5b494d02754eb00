package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bearergate/bearergate/crmnow"
	"github.com/bearergate/bearergate/deploy"
)

// behindTwo are the edges with what their pages say about two gateways.
func behindTwo(t *testing.T, first, second gates) []edgeKind {
	t.Helper()
	at := func(address string) string {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("{ socket_address: { address: %q, port_value: %s } }", host, port)
	}
	cluster := block(t, "../deploy/envoy/README.md", "Two gateways")
	const endpoints = "    load_assignment:\n      cluster_name: bearergate\n      endpoints:\n      - lb_endpoints:\n"
	one := endpoints + "        - endpoint:\n            address: " + at(first.extAuthz) + "\n"
	for name, address := range map[string]string{"gateway-1": first.extAuthz, "gateway-2": second.extAuthz} {
		text := "{ socket_address: { address: " + name + ", port_value: 9191 } }"
		if strings.Count(cluster, text) != 1 {
			t.Fatalf("the page of Envoy does not name %s once", name)
		}
		cluster = strings.Replace(cluster, text, at(address), 1)
	}
	servers := strings.Join(regexp.MustCompile(`server gateway-\d:9192[^;]*;`).FindAllString(block(t, "../deploy/nginx/README.md", "Two gateways"), -1), "\n")
	servers = strings.NewReplacer("gateway-1:9192", first.authRequest, "gateway-2:9192", second.authRequest).Replace(servers)
	return []edgeKind{
		{name: "Envoy in front of two gateways", recipe: deploy.Envoy(), changes: [][2]string{{one, cluster}}},
		{name: "nginx in front of two gateways", recipe: deploy.Nginx(), changes: [][2]string{{"server " + first.authRequest + ";", servers}}},
	}
}

// testRolling restarts two gateways, one after the other, while edges send them
// requests with known tokens and with new ones. None is lost.
func testRolling(t *testing.T, r *run) {
	endpoint := startEndpoint(t, r)
	// So that questions about new tokens are under way whenever a gateway stops.
	endpoint.trouble(t, crmnow.Fault{Delay: 100 * time.Millisecond})
	var two [2]*gateway
	for i := range two {
		two[i] = r.startGateway(t, fmt.Sprintf("gateway %d of two", i+1), settings{
			endpoint: endpoint.url(), timeout: "3s", more: "drain_delay: 5s\n",
			admin: r.ports.free(t), gates: gates{extAuthz: r.ports.free(t), authRequest: r.ports.free(t)},
		})
	}
	var clients rollingClients
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var sending sync.WaitGroup
	defer sending.Wait()
	defer stop()
	var envoy *edge
	for _, kind := range behindTwo(t, two[0].settings.gates, two[1].settings.gates) {
		e := r.startEdge(t, kind, two[0].settings.gates, r.api.address())
		if e.admin != "" {
			envoy = e
		}
		known := endpoint.issue(t)
		for _, token := range []func() string{func() string { return known }, func() string { return endpoint.issue(t) }} {
			c := &rollingClient{edge: e, token: token}
			clients = append(clients, c)
		}
	}
	eventually(t, "Envoy finds both gateways healthy", func() error { return healthy(t.Context(), envoy, two[:]) })
	for _, c := range clients {
		sending.Go(func() { c.send(ctx) })
	}
	clients.progress(t, "at first")
	for i, g := range two {
		g.end()
		clients.progress(t, fmt.Sprintf("without gateway %d", i+1))
		two[i] = r.startGateway(t, g.name+", again", g.settings)
		eventually(t, "Envoy finds both gateways healthy", func() error { return healthy(t.Context(), envoy, two[:]) })
		clients.progress(t, fmt.Sprintf("with gateway %d again", i+1))
	}
	stop()
	sending.Wait()
	clients.lostNone(t)
}

// healthy returns an error as long as Envoy finds one of the gateways unhealthy.
func healthy(ctx context.Context, envoy *edge, all []*gateway) error {
	page, err := get(ctx, "http://"+envoy.admin+"/clusters")
	if err != nil {
		return err
	}
	for _, g := range all {
		if !strings.Contains(page, "bearergate::"+g.settings.extAuthz+"::health_flags::healthy\n") {
			return fmt.Errorf("%s is not", g.name)
		}
	}
	return nil
}

// rollingClient sends one request after the other.
type rollingClient struct {
	edge   *edge
	token  func() string
	passed atomic.Int64

	mu    sync.Mutex
	wrong error // the first that did not pass
}

func (c *rollingClient) send(ctx context.Context) {
	pace := time.NewTicker(10 * time.Millisecond)
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
		got, name, err := c.edge.try(context.WithoutCancel(ctx), request{lines: bearerLine(c.token())})
		if err == nil && got.status != http.StatusOK {
			err = fmt.Errorf("%s got %d, X-Bearergate-Reason %q", name, got.status, got.header.Get("X-Bearergate-Reason"))
		}
		if err != nil {
			c.mu.Lock()
			if c.wrong == nil {
				c.wrong = err
			}
			c.mu.Unlock()
			continue
		}
		c.passed.Add(1)
	}
}

func (c *rollingClient) lost() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.wrong
}

// rollingClients send all the time.
type rollingClients []*rollingClient

// progress waits until requests have passed through each edge, old and new tokens alike.
func (cs rollingClients) progress(t *testing.T, when string) {
	t.Helper()
	for _, c := range cs {
		before := c.passed.Load()
		eventually(t, "requests pass "+when+" through "+c.edge.name, func() error {
			if c.passed.Load() < before+20 {
				return fmt.Errorf("%d so far: %w", c.passed.Load(), c.lost())
			}
			return nil
		})
	}
}

// lostNone wants every request to have passed.
func (cs rollingClients) lostNone(t *testing.T) {
	t.Helper()
	for _, c := range cs {
		if err := c.lost(); err != nil {
			t.Errorf("%s: beside %d requests one was lost: %v", c.edge.name, c.passed.Load(), err)
		}
	}
}
