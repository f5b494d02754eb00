package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// units copies the units into a folder. The program is one that is there.
func units(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob("systemd/*.s*")
	if err != nil || len(found) != 4 {
		t.Fatalf("found %v, %v", found, err)
	}
	dir := t.TempDir()
	var copies []string
	for _, path := range found {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text = []byte(strings.ReplaceAll(string(text), "/usr/local/bin/bearergate", "/bin/true"))
		path = filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		copies = append(copies, path)
	}
	return copies
}

// analyze runs systemd's own tool, which asks no running systemd.
func analyze(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", args...).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze %v: %v; make setup installs it\n%s", args[0], err, out)
	}
	return string(out)
}

func TestSystemdUnderstandsEveryLine(t *testing.T) {
	if out := analyze(t, append([]string{"verify", "--man=no"}, units(t)...)...); out != "" {
		t.Errorf("it says %s", out)
	}
}

// The figure is systemd's own, in tenths: 0 is a service that can do nothing, 100
// one that can do everything.
func TestTheServiceIsConfined(t *testing.T) {
	for _, path := range units(t) {
		if filepath.Ext(path) == ".service" {
			analyze(t, "security", "--offline=true", "--no-pager", "--threshold=20", path)
		}
	}
}

func TestTheSocketsAreThoseOfTheConfiguration(t *testing.T) {
	config, err := os.ReadFile("systemd/bearergate.yaml")
	if err != nil {
		t.Fatal(err)
	}
	service, err := os.ReadFile("systemd/bearergate.service")
	if err != nil {
		t.Fatal(err)
	}
	var named, passed []string
	for _, found := range regexp.MustCompile(`"systemd:([^"]+)"`).FindAllSubmatch(config, -1) {
		named = append(named, string(found[1]))
	}
	for _, name := range named {
		text, err := os.ReadFile("systemd/bearergate-" + name + ".socket")
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(`(?m)^FileDescriptorName=(.+)$`).FindSubmatch(text)
		if found == nil || strings.Count(string(text), "\nListenStream=") != 1 {
			t.Fatalf("%s: no name, or not one address", name)
		}
		passed = append(passed, string(found[1]))
		for _, line := range []string{"Sockets=", "Also="} {
			if !regexp.MustCompile(`(?m)^` + line + `.*\bbearergate-` + name + `\.socket\b`).Match(service) {
				t.Errorf("the service has no %s in %s", name, line)
			}
		}
	}
	if len(named) != 3 || !slices.Equal(named, passed) {
		t.Errorf("the configuration names %v, the units pass %v", named, passed)
	}
}
