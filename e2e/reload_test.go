package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/bearergate/bearergate/crmnow"
	"github.com/bearergate/bearergate/deploy"
)

// become puts another configuration in the place of the gateway's, as operators do.
func (g *gateway) become(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(g.file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(g.file+".new", g.file); err != nil {
		t.Fatal(err)
	}
}

// askedNext finds that somebody asked at the listener that has come.
var askedNext = regexp.MustCompile(`(?m)^bearergate_decisions_total\{[^}]*listener="next",[^}]*reason="valid",source="cache"\} [1-9]`)

// testReload changes a policy, and then moves the listener that nginx asks, while
// both edges send requests with known tokens and with new ones. None is lost, and
// the known ones are asked about once.
func testReload(t *testing.T, r *run) {
	endpoint := startEndpoint(t, r)
	endpoint.trouble(t, crmnow.Fault{Delay: 50 * time.Millisecond}) // so that something is always under way
	s := settings{
		endpoint: endpoint.url(), timeout: "3s", trust: ", trust: {original: x-original}", admin: r.ports.free(t),
		gates: gates{extAuthz: r.ports.free(t), authRequest: r.ports.free(t)},
	}
	g := r.startGateway(t, "gateway that reads its file again", s)
	ctx, stop := context.WithCancel(t.Context())
	var sending sync.WaitGroup
	defer sending.Wait()
	defer stop()
	var clients rollingClients
	edges := map[string]*edge{}
	known := map[string]string{}
	for _, kind := range []edgeKind{
		{name: "Envoy over a reload", recipe: deploy.Envoy()},
		{name: "nginx over a reload", recipe: deploy.Nginx()},
	} {
		e := r.startEdge(t, kind, s.gates, r.api.address())
		edges[e.recipe.Program], known[e.recipe.Program] = e, endpoint.issue(t)
		token := known[e.recipe.Program]
		clients = append(clients,
			&rollingClient{edge: e, token: func() string { return token }},
			&rollingClient{edge: e, token: func() string { return endpoint.issue(t) }})
	}
	for _, c := range clients {
		sending.Go(func() { c.send(ctx) })
	}
	deletes := func(want int) {
		t.Helper()
		for program, e := range edges {
			eventually(t, fmt.Sprintf("%s answers DELETE with %d", e.name, want), func() error {
				got, _, err := e.try(t.Context(), request{method: http.MethodDelete, lines: bearerLine(known[program])})
				if err == nil && got.status != want {
					err = fmt.Errorf("got %d", got.status)
				}
				return err
			})
		}
	}
	clients.progress(t, "at first")
	deletes(http.StatusOK)

	s.policy = "{require: {expression: \"request.method != 'DELETE'\"}}"
	g.become(t, s.yaml())
	deletes(http.StatusForbidden)
	clients.progress(t, "under another policy")

	// A wrong one changes nothing.
	g.become(t, s.yaml()+"nonsense: true\n")
	eventually(t, "the gateway says what is wrong", func() error {
		page, err := get(t.Context(), "http://"+s.admin+"/status")
		if err == nil && !strings.Contains(page, "nonsense") {
			err = errors.New(page)
		}
		return err
	})
	clients.progress(t, "after a wrong file")
	deletes(http.StatusForbidden)

	// nginx is told to ask elsewhere as soon as somebody listens there, and the old
	// address goes when nobody asks there any more.
	before, after := s.authRequest, r.ports.free(t)
	both := strings.Replace(s.yaml(), "  admin: ", fmt.Sprintf("  more: [{name: next, auth_request: {address: %q, trust: {original: x-original}}}]\n  admin: ", after), 1)
	g.become(t, both)
	eventually(t, "the gateway listens where nginx will ask", func() error { return accepts(after) })
	nginx := edges["nginx"]
	file := filepath.Join(nginx.cmd.Dir, "nginx.conf")
	text, err := os.ReadFile(file)
	if err != nil || strings.Count(string(text), "server "+before+";") != 1 {
		t.Fatalf("nginx does not ask at %s: %v", before, err)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), "server "+before+";", "server "+after+";", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := nginx.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nginx asks there", func() error {
		page, err := get(t.Context(), "http://"+s.admin+"/metrics")
		if err == nil && !askedNext.MatchString(page) {
			err = errors.New("no such decisions")
		}
		return err
	})
	clients.progress(t, "over the new address")
	s.authRequest = after
	g.become(t, s.yaml())
	eventually(t, "nobody listens at the old address", func() error {
		if accepts(before) == nil {
			return errors.New("somebody does")
		}
		return nil
	})
	clients.progress(t, "without the old address")
	deletes(http.StatusForbidden)

	stop()
	sending.Wait()
	clients.lostNone(t)
	for program, token := range known {
		if calls := endpoint.calls(token); calls != 1 {
			t.Errorf("the endpoint was asked %d times about the token of %s, want once", calls, program)
		}
	}
}
