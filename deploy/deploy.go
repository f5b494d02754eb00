// Package deploy holds the recipes that put bearergate behind an edge proxy,
// and what is needed to run them from Go: with other addresses than the ones
// that stand in them, for the quickstart and for the end-to-end tests.
//
// It promises that a recipe is either returned with every address asked for in
// its place, or not at all. It starts nothing and knows nothing of the gateway.
package deploy

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

//go:embed envoy/envoy.yaml envoy/envoy-cache.yaml envoy/envoy-http.yaml nginx/nginx.conf nginx/nginx-cache.conf nginx/nginx-lua.conf caddy/Caddyfile
var recipes embed.FS

// Recipe is the configuration of one edge proxy, as it stands in this folder.
// It is immutable and may be used concurrently.
type Recipe struct {
	// Name says which edge it is, and by which way that asks the gateway.
	Name string
	// Program is the proxy that it is for: envoy, nginx or caddy.
	Program string

	file    string
	edge    []slot
	api     []slot
	gateway []slot
	admin   []slot
	memory  []slot
}

// slot is a piece of a recipe's text that holds an address or a part of one.
type slot struct {
	// text is what stands in the recipe, exactly once.
	text string
	// format makes what replaces it; %[1]s is the host, %[2]s the port, %[3]s
	// both, joined.
	format string
}

// Addresses are the places that a recipe connects, each but the last as
// host:port. An empty one leaves what stands in the recipe.
type Addresses struct {
	// Edge is where clients come in: an IP address and a port. Default 0.0.0.0:8080.
	// Port 0 is for Envoy alone; its admin page then says which port it took.
	Edge string
	// API is what the edge guards. Default 127.0.0.1:3000.
	API string
	// Gateway is the gateway's listener: ext_authz for [Envoy] and [EnvoyCache]
	// (default 127.0.0.1:9191), auth_request for all others (default 127.0.0.1:9192).
	Gateway string
	// Admin is the proxy's own page for operators: an IP address and a port. Default
	// 127.0.0.1:9901 for Envoy and 127.0.0.1:2019 for Caddy; nginx has none.
	Admin string
	// Memory is the folder in which [NginxCache] keeps answers, with the tokens that
	// they are about: an absolute path on a file system in memory. nginx makes the
	// folder. Default /run/bearergate-nginx; the others have none.
	Memory string
}

// Envoy asks the gateway over gRPC.
func Envoy() Recipe {
	return Recipe{
		Name: "envoy", Program: "envoy", file: "envoy/envoy.yaml",
		edge:    []slot{envoyAddress("0.0.0.0", "8080")},
		api:     []slot{envoyAddress("127.0.0.1", "3000")},
		gateway: []slot{envoyAddress("127.0.0.1", "9191")},
		admin:   []slot{envoyAddress("127.0.0.1", "9901")},
	}
}

// EnvoyCache is Envoy that asks over gRPC, and keeps what the gateway allows for as
// long as that says.
func EnvoyCache() Recipe {
	r := Envoy()
	r.Name, r.file = "envoy-cache", "envoy/envoy-cache.yaml"
	return r
}

// EnvoyHTTP is Envoy that asks the gateway over HTTP.
func EnvoyHTTP() Recipe {
	return Recipe{
		Name: "envoy-http", Program: "envoy", file: "envoy/envoy-http.yaml",
		edge:    []slot{envoyAddress("0.0.0.0", "8080")},
		api:     []slot{envoyAddress("127.0.0.1", "3000")},
		gateway: []slot{envoyAddress("127.0.0.1", "9192"), {"uri: http://127.0.0.1:9192\n", "uri: http://%[3]s\n"}},
		admin:   []slot{envoyAddress("127.0.0.1", "9901")},
	}
}

// Nginx asks the gateway with auth_request.
func Nginx() Recipe {
	return Recipe{
		Name: "nginx", Program: "nginx", file: "nginx/nginx.conf",
		edge:    []slot{{"listen 0.0.0.0:8080;", "listen %[3]s;"}},
		api:     []slot{{"server 127.0.0.1:3000;", "server %[3]s;"}},
		gateway: []slot{{"server 127.0.0.1:9192;", "server %[3]s;"}},
	}
}

// NginxCache asks with auth_request, and keeps what the gateway allows for as long
// as that says.
func NginxCache() Recipe {
	r := Nginx()
	r.Name, r.file = "nginx-cache", "nginx/nginx-cache.conf"
	r.memory = []slot{{"proxy_cache_path /run/bearergate-nginx ", "proxy_cache_path %s "}}
	return r
}

// NginxLua does what [NginxCache] does, in memory alone. It needs nginx's Lua module.
func NginxLua() Recipe {
	r := Nginx()
	r.Name, r.file = "nginx-lua", "nginx/nginx-lua.conf"
	return r
}

// Caddy asks the gateway with forward_auth.
func Caddy() Recipe {
	return Recipe{
		Name: "caddy", Program: "caddy", file: "caddy/Caddyfile",
		edge:    []slot{{"\nhttp://:8080 {\n", "\nhttp://:%[2]s {\n"}, {"bind 0.0.0.0\n", "bind %[1]s\n"}},
		api:     []slot{{"reverse_proxy 127.0.0.1:3000", "reverse_proxy %[3]s"}},
		gateway: []slot{{"forward_auth 127.0.0.1:9192 {", "forward_auth %[3]s {"}},
		admin:   []slot{{"admin 127.0.0.1:2019\n", "admin %[3]s\n"}},
	}
}

// Recipes returns all of them.
func Recipes() []Recipe {
	return []Recipe{Envoy(), EnvoyCache(), EnvoyHTTP(), Nginx(), NginxCache(), NginxLua(), Caddy()}
}

func envoyAddress(host, port string) slot {
	const text = "{ socket_address: { address: %s, port_value: %s } }"
	return slot{
		text: fmt.Sprintf(text, host, port),
		// Quoted: an IPv6 address has colons, which mean something in YAML.
		format: fmt.Sprintf(text, `"%[1]s"`, "%[2]s"),
	}
}

// Text returns the recipe as it stands in the folder.
func (r Recipe) Text() (string, error) {
	text, err := recipes.ReadFile(r.file)
	return string(text), err
}

// At returns the recipe with the addresses of a in it. It fails when an address
// cannot be written there, and when the place for it is not found in the recipe
// exactly once: a recipe that was changed must not go on listening elsewhere, or
// ask another gateway, unnoticed.
func (r Recipe) At(a Addresses) (string, error) {
	text, err := r.Text()
	if err != nil {
		return "", err
	}
	for _, place := range []struct {
		name, address string
		slots         []slot
	}{
		{"edge", a.Edge, r.edge},
		{"API", a.API, r.api},
		{"gateway", a.Gateway, r.gateway},
		{"admin", a.Admin, r.admin},
	} {
		if place.address == "" {
			continue
		}
		text, err = put(text, place.address, place.slots)
		if err != nil {
			return "", fmt.Errorf("deploy/%s: address of the %s: %w", r.file, place.name, err)
		}
	}
	if a.Memory != "" {
		text, err = putFolder(text, a.Memory, r.memory)
		if err != nil {
			return "", fmt.Errorf("deploy/%s: folder in memory: %w", r.file, err)
		}
	}
	return text, nil
}

func put(text, address string, slots []slot) (string, error) {
	host, port, err := splitAddress(address)
	if err != nil {
		return "", err
	}
	return fill(text, slots, host, port, address)
}

// putFolder refuses what would mean something else than a path in a
// configuration file.
func putFolder(text, path string, slots []slot) (string, error) {
	if !filepath.IsAbs(path) || strings.ContainsFunc(path, func(c rune) bool { return notInHost(c) && c != '/' }) {
		return "", fmt.Errorf("%q: want an absolute path of letters, digits, and any of / . - _", path)
	}
	return fill(text, slots, path)
}

// fill puts what the values say in place of each slot.
func fill(text string, slots []slot, values ...any) (string, error) {
	if len(slots) == 0 {
		return "", errors.New("this recipe has no place for it")
	}
	for _, s := range slots {
		if n := strings.Count(text, s.text); n != 1 {
			return "", fmt.Errorf("%q stands %d times in the recipe, want once; the recipe and deploy.go must change together", s.text, n)
		}
		text = strings.Replace(text, s.text, fmt.Sprintf(s.format, values...), 1)
	}
	return text, nil
}

// splitAddress takes a host:port apart. It refuses what would mean something
// else than an address in a configuration file.
func splitAddress(address string) (host, port string, err error) {
	i := strings.LastIndexByte(address, ':')
	if i < 0 {
		return "", "", fmt.Errorf("%q: want host:port", address)
	}
	host, port = address[:i], address[i+1:]
	if inner, ok := strings.CutPrefix(host, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); !ok || strings.Trim(inner, "0123456789abcdefABCDEF:.") != "" {
			return "", "", fmt.Errorf("%q: want [IPv6 address]:port", address)
		}
		host = inner
	} else if host == "" || strings.ContainsFunc(host, notInHost) {
		return "", "", fmt.Errorf("%q: want host:port with a name or an IP address, an IPv6 address in brackets", address)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", "", fmt.Errorf("%q: want a port from 0 to 65535", address)
	}
	return host, port, nil
}

func notInHost(c rune) bool {
	return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_'
}

// EnvoyAdminFile is the file, in the folder given to [Recipe.Command], into which
// Envoy writes the address of its admin page.
const EnvoyAdminFile = "admin.address"

// stopTime is how long a proxy that was told to stop may take before it is killed.
const stopTime = 5 * time.Second

// Command writes config, made by [Recipe.At], into dir, and returns the command
// that runs the proxy with it in the foreground. Everything the proxy writes on
// its own goes to dir too, save what it logs on standard output (requests) and
// standard error (trouble), which are the caller's to set. Started as root,
// nginx works as the user nobody, who must be able to enter dir.
//
// The proxy is told to stop when ctx ends and, on Linux, when this process does.
func (r Recipe) Command(ctx context.Context, program, dir, config string) (*exec.Cmd, error) {
	// The programs change their working directory or take names as relative to
	// folders of their own.
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, filepath.Base(r.file))
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil { //nolint:gosec // a recipe holds no secret, and nginx's workers run as another user
		return nil, err
	}
	var args []string
	switch r.Program {
	case "envoy":
		args = []string{"-c", file, "--disable-hot-restart", "--admin-address-path", filepath.Join(dir, EnvoyAdminFile)}
	case "nginx":
		args = []string{"-p", dir, "-e", "stderr", "-c", file, "-g", "daemon off; pid nginx.pid;"}
	case "caddy":
		args = []string{"run", "--config", file, "--adapter", "caddyfile"}
	default:
		return nil, fmt.Errorf("no way to run %q is known", r.Program)
	}
	cmd := exec.CommandContext(ctx, program, args...) //nolint:gosec // the program is what the caller found or was told to run
	cmd.Dir = dir
	// Caddy keeps certificates and its last configuration below its user's home.
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTime
	cmd.SysProcAttr = endWithParent()
	return cmd, nil
}
