package deploy

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// defaults are the ports that stand in the recipes.
var defaults = regexp.MustCompile(`\b(8080|3000|9191|9192|9901|2019)\b`)

// settings returns the lines of a recipe that are not comments.
func settings(text string) []string {
	var lines []string
	for line := range strings.Lines(text) {
		if line, _, _ = strings.Cut(line, "# "); strings.TrimSpace(line) != "" && !strings.HasPrefix(strings.TrimSpace(line), "#") {
			lines = append(lines, strings.TrimRight(line, "\n"))
		}
	}
	return lines
}

func TestAddressesReplaceEveryDefault(t *testing.T) {
	addresses := map[string]Addresses{
		"IPv4": {Edge: "127.0.0.1:41001", API: "10.0.0.2:41002", Gateway: "10.0.0.3:41003", Admin: "127.0.0.1:41004"},
		"name": {Edge: "127.0.0.1:41001", API: "api.internal:41002", Gateway: "gate-1.internal:41003", Admin: "127.0.0.1:41004"},
		"IPv6": {Edge: "[::1]:41001", API: "[fd00::2]:41002", Gateway: "[fd00::3]:41003", Admin: "[::1]:41004"},
	}
	for _, recipe := range Recipes() {
		for name, a := range addresses {
			t.Run(recipe.Name+" with "+name, func(t *testing.T) {
				if recipe.Program == "nginx" {
					a.Admin = ""
				}
				text, err := recipe.At(a)
				if err != nil {
					t.Fatal(err)
				}
				lines := settings(text)
				for _, line := range lines {
					if found := defaults.FindString(line); found != "" {
						t.Errorf("port %s is still there: %s", found, line)
					}
				}
				for _, address := range []string{a.Edge, a.API, a.Gateway, a.Admin} {
					if address == "" {
						continue
					}
					host, port, err := net.SplitHostPort(address)
					if err != nil {
						t.Fatal(err)
					}
					all := strings.Join(lines, "\n")
					if !strings.Contains(all, host) || !strings.Contains(all, port) {
						t.Errorf("%s is not in the recipe", address)
					}
				}
			})
		}
	}
}

// TestWhatNginxAsksByIsTheSameInAllItsRecipes: those that keep answers have all that the
// one has which does not, so that a line that mattered there is not missing here.
func TestWhatNginxAsksByIsTheSameInAllItsRecipes(t *testing.T) {
	lines := func(r Recipe) map[string]int {
		text, err := r.Text()
		if err != nil {
			t.Fatal(err)
		}
		n := map[string]int{}
		for _, line := range settings(text) {
			n[strings.Join(strings.Fields(line), " ")]++
		}
		return n
	}
	for _, r := range []Recipe{NginxCache(), NginxLua()} {
		has := lines(r)
		for line, n := range lines(Nginx()) {
			if line == "proxy_buffer_size 8k;" && has["proxy_buffer_size 16k;"] == n {
				continue // the key has to lie there, too
			}
			if has[line] < n {
				t.Errorf("%s: %q stands there %d times, and in nginx.conf %d times", r.file, line, has[line], n)
			}
		}
	}
}

func TestNoAddressesLeaveTheRecipeAsItStands(t *testing.T) {
	for _, recipe := range Recipes() {
		text, err := recipe.At(Addresses{})
		if err != nil {
			t.Fatal(err)
		}
		onDisk, err := os.ReadFile(recipe.file)
		if err != nil {
			t.Fatal(err)
		}
		if text != string(onDisk) {
			t.Errorf("%s: differs from deploy/%s", recipe.Name, recipe.file)
		}
	}
}

func TestTheFolderInMemoryIsPutInItsPlace(t *testing.T) {
	text, err := NginxCache().At(Addresses{Memory: "/dev/shm/a.b-c_d/1"})
	if err != nil || strings.Contains(strings.Join(settings(text), "\n"), "/run/") || !strings.Contains(text, "proxy_cache_path /dev/shm/a.b-c_d/1 ") {
		t.Errorf("%v, and the recipe is:\n%s", err, text)
	}
	for _, path := range []string{"relative", "./here", "/with space", "/a;b", "/a\n", "/a\"b", "/$host", "/a{"} {
		if text, err := NginxCache().At(Addresses{Memory: path}); err == nil || text != "" {
			t.Errorf("%q is accepted", path)
		}
	}
	if _, err := Nginx().At(Addresses{Memory: "/dev/shm/x"}); err == nil {
		t.Error("the recipe keeps no answers, but its folder is accepted")
	}
}

func TestWhatIsNoAddressIsRefused(t *testing.T) {
	tests := map[string]string{
		"no port":                  "127.0.0.1",
		"no host":                  ":8080",
		"a port that is no number": "127.0.0.1:http",
		"a port that is too large": "127.0.0.1:65536",
		"a negative port":          "127.0.0.1:-1",
		"IPv6 without brackets":    "::1:8080",
		"an open bracket":          "[::1:8080",
		"a URL":                    "http://127.0.0.1:8080",
		"a new line":               "127.0.0.1\n:8080",
		"a space":                  "127.0.0.1 default_server:8080",
		"a semicolon":              "127.0.0.1;:8080",
		"a quote":                  `127.0.0.1":8080`,
		"a brace in brackets":      "[::1}]:8080",
	}
	for name, address := range tests {
		t.Run(name, func(t *testing.T) {
			for _, recipe := range Recipes() {
				for _, a := range []Addresses{{Edge: address}, {API: address}, {Gateway: address}} {
					if text, err := recipe.At(a); err == nil || text != "" {
						t.Errorf("%s: %+v is accepted", recipe.Name, a)
					}
				}
			}
		})
	}
}

func TestAPlaceThatIsNotInTheRecipeOnceIsAnError(t *testing.T) {
	if _, err := Nginx().At(Addresses{Admin: "127.0.0.1:1"}); err == nil {
		t.Error("nginx has no admin page, but its address is accepted")
	}
	for _, recipe := range Recipes() {
		text, err := recipe.Text()
		if err != nil {
			t.Fatal(err)
		}
		for _, slots := range [][]slot{recipe.edge, recipe.api, recipe.gateway, recipe.admin} {
			if slots == nil {
				continue
			}
			changed := map[string]string{
				"missing": strings.Replace(text, slots[0].text, "", 1),
				"twice":   text + slots[0].text,
			}
			for how, text := range changed {
				if got, err := put(text, "127.0.0.1:1", slots); err == nil || got != "" {
					t.Errorf("%s: %q is %s, and no error comes of it", recipe.Name, slots[0].text, how)
				}
			}
		}
	}
}

func TestFindPrefersTheProgramThatTheEnvironmentNames(t *testing.T) {
	dir := t.TempDir()
	named, inPath := filepath.Join(dir, "my-nginx"), filepath.Join(dir, "bin", "nginx")
	if err := os.Mkdir(filepath.Dir(inPath), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{named, inPath} {
		if err := os.WriteFile(file, []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", filepath.Dir(inPath))

	t.Setenv("NGINX", "")
	if got, err := Nginx().Find(); err != nil || got != inPath {
		t.Errorf("without NGINX: got %s, %v; want %s", got, err, inPath)
	}
	t.Setenv("NGINX", named)
	if got, err := Nginx().Find(); err != nil || got != named {
		t.Errorf("with NGINX: got %s, %v; want %s", got, err, named)
	}
	t.Setenv("NGINX", filepath.Join(dir, "absent"))
	if got, err := Nginx().Find(); err == nil || !strings.Contains(err.Error(), "NGINX") {
		t.Errorf("with a wrong NGINX: got %s, %v; want an error that names the variable", got, err)
	}
}

func TestFindLooksForEnvoyInTheCheckoutAndNowhereAbove(t *testing.T) {
	root := t.TempDir()
	envoy := filepath.Join(root, ".cache", "envoy", "bin", "envoy")
	below := filepath.Join(root, "a", "b")
	for _, dir := range []string{filepath.Dir(envoy), below} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(envoy, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", t.TempDir())
	t.Setenv("ENVOY", "")
	t.Chdir(below)

	find := func(module string) (string, error) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(root, "go.mod"), []byte("module "+module+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		return Envoy().Find()
	}
	if got, err := find("github.com/bearergate/bearergate"); err != nil || got != envoy {
		t.Errorf("in the checkout: got %s, %v; want %s", got, err, envoy)
	}
	if got, err := find("example.org/other"); !errors.Is(err, ErrNotInstalled) {
		t.Errorf("in another module: got %s, %v; want ErrNotInstalled", got, err)
	}
}
