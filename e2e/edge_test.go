package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/bearergate/bearergate/deploy"
)

// edge is a real proxy that runs a recipe of deploy/.
type edge struct {
	*process
	run     *run
	name    string
	recipe  deploy.Recipe
	address string // where clients come in
	admin   string // Envoy's own page
	memory  string // where nginx keeps answers
	http2   *http.Transport
	tls     *tls.Config // for requests over HTTP/1, if it wants TLS
}

// speaks returns the versions of HTTP that the edge is asked in.
func (e *edge) speaks() []string {
	if e.recipe.Program == "envoy" {
		return []string{http11, http2}
	}
	return []string{http11}
}

// edgeKind is a recipe, perhaps with one setting changed.
type edgeKind struct {
	name   string
	recipe deploy.Recipe
	// changes are put in place of what must be in the recipe.
	changes [][2]string
	// args are further arguments of the program.
	args []string
}

func edgeKinds() []edgeKind {
	return []edgeKind{
		{name: "Envoy over gRPC", recipe: deploy.Envoy()},
		{name: "Envoy over HTTP", recipe: deploy.EnvoyHTTP()},
		{name: "nginx", recipe: deploy.Nginx()},
		{name: "Caddy", recipe: deploy.Caddy()},
		{name: "Envoy that keeps answers", recipe: deploy.EnvoyCache()},
		{name: "nginx that keeps answers", recipe: deploy.NginxCache()},
		{name: "nginx that keeps answers in Lua", recipe: deploy.NginxLua()},
	}
}

// asks is the name of the recipe that the edge's is made of: one that keeps answers
// decides as the other does.
func (e *edge) asks() string {
	return strings.TrimSuffix(strings.TrimSuffix(e.recipe.Name, "-cache"), "-lua")
}

// envoyVariants are the recipes with encode_raw_headers off, which is Envoy's default.
func envoyVariants() []edgeKind {
	off := [][2]string{{"encode_raw_headers: true", "encode_raw_headers: false"}}
	return []edgeKind{
		{name: "Envoy over gRPC without raw headers", recipe: deploy.Envoy(), changes: off},
		{name: "Envoy over HTTP without raw headers", recipe: deploy.EnvoyHTTP(), changes: off},
	}
}

// gates are the addresses of a gateway's listeners.
type gates struct{ extAuthz, authRequest string }

// startEdge runs the recipe in front of the API, asking the gateway.
func (r *run) startEdge(t *testing.T, kind edgeKind, gateway gates, api string) *edge {
	t.Helper()
	program, err := kind.recipe.Find()
	if err != nil {
		t.Fatalf("%v; make test installs it", err)
	}
	addresses := deploy.Addresses{API: api, Gateway: gateway.authRequest}
	if kind.recipe.Name == deploy.NginxCache().Name {
		addresses.Memory = folderInMemory(t)
	}
	switch kind.recipe.Program {
	case "envoy":
		// Two Envoys can share a port without a word, so it picks its own.
		addresses.Edge, addresses.Admin = "127.0.0.1:0", "127.0.0.1:0"
		if kind.recipe.Name != deploy.EnvoyHTTP().Name {
			addresses.Gateway = gateway.extAuthz
		}
	case "caddy":
		addresses.Edge, addresses.Admin = r.ports.free(t), r.ports.free(t)
	default:
		addresses.Edge = r.ports.free(t)
	}
	config, err := kind.recipe.At(addresses)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range kind.changes {
		if strings.Count(config, change[0]) != 1 {
			t.Fatalf("%s: %q is not in the recipe once", kind.name, change[0])
		}
		config = strings.Replace(config, change[0], change[1], 1)
	}

	e := &edge{run: r, name: kind.name, recipe: kind.recipe, address: addresses.Edge, memory: addresses.Memory, http2: newHTTP2(t)}
	dir := r.folder(t)
	t.Cleanup(func() { r.outputs.addFolder(t, kind.name+", what it left", dir) })
	e.process = r.start(t, kind.name, func(ctx context.Context) (*exec.Cmd, error) {
		cmd, err := kind.recipe.Command(ctx, program, dir, config)
		if err == nil {
			cmd.Args = append(cmd.Args, kind.args...)
		}
		return cmd, err
	})
	if kind.recipe.Program == "envoy" {
		eventually(t, kind.name+" has started", func() error {
			e.mustRun(t)
			var err error
			e.admin, e.address, err = envoyAddresses(t.Context(), dir)
			return err
		})
		t.Cleanup(func() { e.noteAdminPages() })
	}
	eventually(t, kind.name+" listens", func() error {
		e.mustRun(t)
		return accepts(e.address)
	})
	return e
}

// envoyAddresses learns from Envoy which ports it has taken.
func envoyAddresses(ctx context.Context, dir string) (admin, edge string, err error) {
	text, err := os.ReadFile(filepath.Join(dir, deploy.EnvoyAdminFile))
	if err != nil {
		return "", "", err
	}
	admin = strings.TrimSpace(string(text))
	page, err := get(ctx, "http://"+admin+"/ready")
	if err != nil {
		return "", "", err
	}
	if !strings.HasPrefix(page, "LIVE") {
		return "", "", fmt.Errorf("not ready: %s", page)
	}
	page, err = get(ctx, "http://"+admin+"/listeners?format=json")
	if err != nil {
		return "", "", err
	}
	var listeners struct {
		Statuses []struct {
			Name    string `json:"name"`
			Address struct {
				Socket struct {
					Address string `json:"address"`
					Port    int    `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	if err := json.Unmarshal([]byte(page), &listeners); err != nil {
		return "", "", err
	}
	for _, status := range listeners.Statuses {
		if socket := status.Address.Socket; status.Name == "edge" {
			return admin, net.JoinHostPort(socket.Address, strconv.Itoa(socket.Port)), nil
		}
	}
	return "", "", fmt.Errorf("there is no listener edge among %d", len(listeners.Statuses))
}

// noteAdminPages has what Envoy shows to operators searched for tokens.
func (e *edge) noteAdminPages() {
	if e.running() != nil {
		return
	}
	for _, page := range []string{"/stats", "/clusters", "/config_dump", "/server_info"} {
		// Cleanup comes after the test's context has ended.
		text, err := get(context.Background(), "http://"+e.admin+page)
		if err == nil {
			e.run.outputs.addText(e.name+", admin page "+page, text)
		}
	}
}

// get returns what a page holds.
func get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	transport := &http.Transport{DisableKeepAlives: true}
	got, err := transport.RoundTrip(r)
	if err != nil {
		return "", err
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	if err == nil && got.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, got.Status)
	}
	return string(text), err
}

// folderInMemory returns the path of a folder that does not exist yet, on a file
// system in memory. nginx's workers, who are another user, can get there.
func folderInMemory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "bearergate-e2e-") //nolint:usetesting // t.TempDir may be on a disk
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "kept")
}
