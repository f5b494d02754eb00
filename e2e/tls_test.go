package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bearergate/bearergate/deploy"
	"github.com/bearergate/bearergate/listen/listentest"
)

// block is the code that a page shows under a heading.
func block(t *testing.T, page, heading string) string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	_, below, found := strings.Cut(string(text), "\n## "+heading+"\n")
	_, below, opened := strings.Cut(below, "\n```")
	_, below, _ = strings.Cut(below, "\n") // the language
	code, _, closed := strings.Cut(below, "```\n")
	if !found || !opened || !closed {
		t.Fatalf("%s has no code under %q", page, heading)
	}
	return code
}

// overTLS are the edges with what their pages say about TLS, and their files in a folder.
func overTLS(t *testing.T, dir string) []edgeKind {
	t.Helper()
	envoy := strings.ReplaceAll(block(t, "../deploy/envoy/README.md", "TLS between Envoy and the gateway"), "/etc/envoy/tls", dir)
	nginx := strings.ReplaceAll(block(t, "../deploy/nginx/README.md", "TLS between nginx and the gateway"), "/etc/nginx/tls", dir)
	const cluster, pass = "    load_assignment:\n      cluster_name: bearergate\n", "proxy_pass http://bearergate/auth;\n"
	return []edgeKind{
		{name: "Envoy over gRPC and TLS", recipe: deploy.Envoy(), changes: [][2]string{{cluster, envoy + cluster}}},
		{name: "Envoy over HTTP and TLS", recipe: deploy.EnvoyHTTP(), changes: [][2]string{{cluster, envoy + cluster}}},
		{name: "nginx over TLS", recipe: deploy.Nginx(), changes: [][2]string{{pass, strings.Replace(pass, "http:", "https:", 1) + nginx}}},
	}
}

// put writes a certificate and its key, each under a name.
func put(t *testing.T, pair listentest.Pair, dir, name string) {
	t.Helper()
	for suffix, text := range map[string][]byte{".crt": pair.Certificate, ".key": pair.Key} {
		// In one step: who reads meanwhile finds a whole file.
		path := filepath.Join(dir, name+suffix)
		if err := os.WriteFile(path+".new", text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
}

// testTLS has the edges speak mutual TLS to the gateway, as their pages say.
func testTLS(t *testing.T, r *run, codec codecKind) {
	own, foreign := listentest.NewAuthority(t), listentest.NewAuthority(t)
	gate := listentest.Leaf{DNS: []string{"gate.internal"}}
	edge := own.Issue(t, listentest.Leaf{DNS: []string{"edge.internal"}})
	for name, test := range map[string]struct {
		gate, edge listentest.Pair
		want       answer
	}{
		"each knows the other":            {own.Issue(t, gate), edge, allowed},
		"the edge has another name":       {own.Issue(t, gate), own.Issue(t, listentest.Leaf{DNS: []string{"other.internal"}}), noGateway},
		"the edge's certificate ended":    {own.Issue(t, gate), own.Issue(t, listentest.Leaf{DNS: []string{"edge.internal"}, From: -2 * time.Hour, Until: -time.Hour}), noGateway},
		"the edge is of another kingdom":  {own.Issue(t, gate), foreign.Issue(t, listentest.Leaf{DNS: []string{"edge.internal"}}), noGateway},
		"the gateway has another name":    {own.Issue(t, listentest.Leaf{DNS: []string{"gate.internal.example.com"}}), edge, noGateway},
		"the gateway is of another realm": {foreign.Issue(t, gate), edge, noGateway},
	} {
		t.Run(name, func(t *testing.T) {
			dir := r.folder(t)
			if err := os.WriteFile(filepath.Join(dir, "gate-ca.crt"), own.PEM(), 0o600); err != nil {
				t.Fatal(err)
			}
			put(t, test.gate, dir, "gate")
			put(t, test.edge, dir, "edge")
			s := r.startStack(t, name+" and "+codec.name, codec.own(overTLS(t, dir)), settings{
				timeout: "3s", flags: codec.flags,
				faces: fmt.Sprintf(", tls: {cert_file: %q, key_file: %q, client_ca_file: %q, client_names: [edge.internal]}",
					dir+"/gate.crt", dir+"/gate.key", dir+"/gate-ca.crt"),
			})
			for _, e := range s.edges {
				t.Run(e.name, func(t *testing.T) {
					got, name := e.send(t, request{lines: bearerLine(s.endpoint.issue(t))})
					s.check(t, e, got, name, test.want)
					if test.want == allowed {
						got, name = e.send(t, request{})
						s.check(t, e, got, name, missingToken)
						testRenewal(t, s, e, func() { put(t, own.Issue(t, gate), dir, "gate") })
					}
				})
			}
		})
	}
}

// testRenewal exchanges the gateway's certificate while an edge asks.
func testRenewal(t *testing.T, s *stack, e *edge, renew func()) {
	lines := bearerLine(s.endpoint.issue(t))
	stop := make(chan struct{})
	var load sync.WaitGroup
	var asked atomic.Int64
	for range 4 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				got, name := e.send(t, request{lines: lines})
				s.check(t, e, got, name, allowed)
				asked.Add(1)
			}
		})
	}
	const message = "the listener's certificate files were read again"
	for range 2 {
		before := s.gateway.says(t, message)
		renew()
		eventually(t, "the gateway reads its certificate", func() error {
			if s.gateway.says(t, message) == before {
				return fmt.Errorf("it has not yet")
			}
			return nil
		})
	}
	close(stop)
	load.Wait()
	if asked.Load() == 0 {
		t.Error("nobody asked")
	}
}

// says is how often a text stands in the gateway's log.
func (g *gateway) says(t *testing.T, text string) int {
	t.Helper()
	log, err := os.ReadFile(g.stderr)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(log), text)
}

// testSockets has the edges ask over unix sockets.
func testSockets(t *testing.T, r *run, codec codecKind) {
	dir := r.folder(t)
	s := r.startStack(t, "unix sockets and "+codec.name, nil, settings{
		timeout: "3s", flags: codec.flags, gates: gates{extAuthz: "unix:" + dir + "/grpc", authRequest: "unix:" + dir + "/http"},
		faces: ", socket: {mode: 0666}", // nginx's workers are another user
	})
	const static = "  - name: bearergate\n    type: STRICT_DNS\n"
	pipe := func(port, name string) [][2]string {
		return [][2]string{
			{static, strings.Replace(static, "STRICT_DNS", "STATIC", 1)},
			{"{ socket_address: { address: 127.0.0.1, port_value: " + port + " } }", "{ pipe: { path: " + dir + "/" + name + " } }"},
		}
	}
	for _, kind := range codec.own([]edgeKind{
		{name: "Envoy over gRPC and a socket", recipe: deploy.Envoy(), changes: pipe("9191", "grpc")},
		{name: "Envoy over HTTP and a socket", recipe: deploy.EnvoyHTTP(), changes: pipe("9192", "http")},
		{name: "nginx over a socket", recipe: deploy.Nginx(), changes: [][2]string{{"server 127.0.0.1:9192;", "server unix:" + dir + "/http;"}}},
	}) {
		t.Run(kind.name, func(t *testing.T) {
			e := r.startEdge(t, kind, gates{}, s.api.address())
			got, name := e.send(t, request{lines: bearerLine(s.endpoint.issue(t))})
			s.check(t, e, got, name, allowed)
			got, name = e.send(t, request{lines: bearerLine(s.run.tokens.invent(40))})
			s.check(t, e, got, name, invalidToken)
		})
	}
}
