package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/bearergate/bearergate/crmnow"
)

// testFingerprints has partners make the fingerprints of their tokens by the lines of
// docs/partners.md, with the programs that stand there. They are those of the gateway.
func testFingerprints(t *testing.T, r *run) {
	const key = "a-key-of-fingerprints-0123456789"
	folder := r.folder(t)
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	keyFile := write("fingerprint.key", key+"\n")
	endpoint := startEndpoint(t, r)
	plain, keyed := fingerprintLines(t)
	for name, test := range map[string]struct {
		more  string
		lines []string
	}{
		"plain":    {"fingerprint: {plain: true}\n", plain},
		"by a key": {"fingerprint: {key: {file: " + keyFile + "}}\n", keyed},
	} {
		t.Run(name, func(t *testing.T) {
			g := r.startGateway(t, "gateway with fingerprints, "+name, settings{
				endpoint: endpoint.url(), timeout: "3s", policy: "{identity: [{name: X-Token, fingerprint: true}]}", more: test.more,
			})
			for _, token := range []string{endpoint.issue(t), r.tokens.invent(8192)} {
				if err := endpoint.Accept(crmnow.NewSecret(token), 0); err != nil {
					t.Fatal(err)
				}
				got := fingerprintAt(t, g, token)
				write("token.txt", token+"\n")
				for _, line := range test.lines {
					cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", line)
					cmd.Dir = folder
					cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(r.command)+":"+os.Getenv("PATH"))
					out, err := cmd.Output()
					if err != nil || string(out) != got+"\n" {
						t.Errorf("%s\nsays %q, %v; the gateway says %s", line, out, err, got)
					}
				}
			}
		})
	}
}

// fingerprintAt returns what the gateway calls a good token.
func fingerprintAt(t *testing.T, g *gateway, token string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.settings.authRequest+"/auth", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	got, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	fingerprint := got.Header.Get("X-Token")
	if !regexp.MustCompile(`^[0-9a-f]{12}$`).MatchString(fingerprint) {
		t.Fatalf("%s, with the fingerprint %q", got.Status, fingerprint)
	}
	return fingerprint
}

// fingerprintLines are those of docs/partners.md, which are the same in both languages.
func fingerprintLines(t *testing.T) (plain, keyed []string) {
	t.Helper()
	text, err := os.ReadFile("../docs/partners.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```bash\n([^`]*fingerprint[^`]*)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) != 4 || blocks[0][1] != blocks[2][1] || blocks[1][1] != blocks[3][1] {
		t.Fatalf("docs/partners.md has %d blocks of lines for fingerprints, or others in German", len(blocks))
	}
	lines := func(block string) []string { return strings.Split(strings.TrimSpace(block), "\n") }
	plain, keyed = lines(blocks[0][1]), lines(blocks[1][1])
	if len(plain) != 3 || len(keyed) != 2 {
		t.Fatalf("there are the lines %q and %q", plain, keyed)
	}
	return plain, keyed
}
