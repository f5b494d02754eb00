package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bearergate/bearergate/config"
)

func TestConfigInitWritesWhatConfigCheckTakes(t *testing.T) {
	for _, edge := range config.StarterEdges() {
		for verifier, flags := range map[string][]string{
			"verifytoken":   {},
			"introspection": {"--url", "https://sso.example.com/introspect", "--client-id", "gateway"},
			"jwt":           {"--issuer", "https://sso.example.com", "--audience", "orders"},
		} {
			t.Run(edge+" with "+verifier, func(t *testing.T) {
				out := filepath.Join(t.TempDir(), "gateway.yaml")
				line := append([]string{"config", "init", "--edge", edge, "--verifier", verifier}, flags...)
				code, printed, said := inside(t, line...)
				if code != exitGood || printed == "" {
					t.Fatalf("ended with %d: %s", code, said)
				}
				code, stdout, stderr := inside(t, append(line, "--out", out)...)
				text, err := os.ReadFile(out)
				if code != exitGood || stdout != "" || err != nil || string(text) != printed {
					t.Fatalf("ended with %d, %v: %s%s", code, err, stdout, stderr)
				}
				if info, err := os.Stat(out); err != nil || info.Mode().Perm()&^0o644 != 0 {
					t.Errorf("%v, %v", info.Mode(), err)
				}
				if verifier == "introspection" {
					secretFile := filepath.Join(filepath.Dir(out), config.StarterSecret)
					if !strings.Contains(stderr, "now put the secret of the client into "+secretFile) {
						t.Errorf("does not say what is left to do: %s", stderr)
					}
					if err := os.WriteFile(secretFile, []byte("a secret"), 0o600); err != nil {
						t.Fatal(err)
					}
					if _, _, stderr := inside(t, append(line, "--out", out, "--force")...); stderr != "" {
						t.Errorf("says it again: %s", stderr)
					}
				} else if stderr != "" {
					t.Errorf("says %s", stderr)
				}
				if code, stdout, stderr := inside(t, "config", "check", "--config", out); code != exitGood || stderr != "" {
					t.Errorf("config check ended with %d: %s%s", code, stdout, stderr)
				}
				left, err := filepath.Glob(filepath.Join(filepath.Dir(out), ".*"))
				if err != nil || len(left) > 0 {
					t.Errorf("left %q, %v", left, err)
				}
			})
		}
	}
}

func TestConfigInitLeavesAFileAlone(t *testing.T) {
	out := file(t, "gateway.yaml", "mine")
	link := filepath.Join(filepath.Dir(out), "link.yaml")
	if err := os.Symlink("nowhere.yaml", link); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{out, link} {
		code, stdout, stderr := inside(t, "config", "init", "--edge", "envoy", "--out", name)
		if want := "bearergate: --out: " + name + " is there already; name another file, or give --force to write over it\n"; code != exitWrong || stdout != "" || stderr != want {
			t.Errorf("ended with %d: %s%s", code, stdout, stderr)
		}
	}
	if text, err := os.ReadFile(out); err != nil || string(text) != "mine" {
		t.Errorf("changed it into %q, %v", text, err)
	}
	if code, _, stderr := inside(t, "config", "init", "--edge", "envoy", "--out", out, "--force"); code != exitGood || stderr != "" {
		t.Errorf("ended with %d: %s", code, stderr)
	}
	if text, err := os.ReadFile(out); err != nil || !strings.Contains(string(text), "ext_authz:") {
		t.Errorf("did not write over it: %q, %v", text, err)
	}
}

func TestConfigInitSaysWhatIsWrong(t *testing.T) {
	for name, test := range map[string]struct {
		flags []string
		want  string
	}{
		"introspection of nobody":  {[]string{"--verifier", "introspection"}, "--verifier introspection needs --url and --client-id\n"},
		"jwt for nobody":           {[]string{"--verifier", "jwt", "--issuer", "https://sso.example.com"}, "--verifier jwt needs --audience\n"},
		"an issuer that no one is": {[]string{"--issuer", "https://sso.example.com"}, "--verifier verifytoken has no use for --issuer; leave it out\n"},
		"plain http":               {[]string{"--url", "http://api.example.com/"}, "verifiers[0].verifytoken.url: plain http to api.example.com would send tokens in clear; use https, or set allow_plaintext: true\n"},
		"a folder that is not":     {[]string{"--edge", "envoy", "--out", "/nowhere/gateway.yaml"}, "no such file or directory\n"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := inside(t, append([]string{"config", "init"}, test.flags...)...)
			if code != exitWrong || stdout != "" || !strings.HasSuffix(stderr, test.want) {
				t.Errorf("ended with %d: %s%s, want %s", code, stdout, stderr, test.want)
			}
		})
	}
}

func TestTheQuestionsOfConfigInit(t *testing.T) {
	const crm = "https://api.i1.crm-now.de/v1/getOauthToken.php"
	for name, test := range map[string]struct {
		answers string
		want    config.Starter
		file    string
		again   int // how often an answer is not taken
	}{
		"nothing but returns": {"\n\n\n\n", config.Starter{Edge: "envoy", Verifier: "verifytoken", URL: crm}, "bearergate.yaml", 0},
		"introspection":       {"nginx\nintrospection\nhttps://a\n gateway \n\ng.yaml\n", config.Starter{Edge: "nginx", Verifier: "introspection", URL: "https://a", ClientID: "gateway"}, "g.yaml", 0},
		"jwt":                 {"caddy\njwt\nhttps://a\norders\nhttps://a/keys\n\n", config.Starter{Edge: "caddy", Verifier: "jwt", Issuer: "https://a", Audience: "orders", URL: "https://a/keys"}, "bearergate.yaml", 0},
		"wrong words first":   {"squid\ncaddy\nsaml\njwt\n\nhttps://a\norders\n\n\n", config.Starter{Edge: "caddy", Verifier: "jwt", Issuer: "https://a", Audience: "orders"}, "bearergate.yaml", 3},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			got, file, err := askForStarter(strings.NewReader(test.answers), &out)
			if err != nil || got != test.want || file != test.file {
				t.Errorf("got %+v, %s, %v", got, file, err)
			}
			if again := strings.Count(out.String(), "\n"); again != test.again || strings.Count(out.String(), "  ") != test.again {
				t.Errorf("asked again %d times: %s", again, out.String())
			}
		})
	}
	for name, answers := range map[string]string{
		"an end":                "nginx\n",
		"an end at once":        "",
		"nothing that is taken": strings.Repeat("squid\n", maxAnswers),
		"a line without an end": strings.Repeat("x", 4*maxAnswers),
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if got, _, err := askForStarter(strings.NewReader(answers), &out); err == nil {
				t.Errorf("got %+v", got)
			}
		})
	}
}
