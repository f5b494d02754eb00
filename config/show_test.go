package config_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/bearergate/bearergate/config"
)

// shown reads a text as a file in a folder of its own, and shows it.
func shown(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	read, err := config.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	yaml, err := read.YAML()
	if err != nil {
		t.Fatal(err)
	}
	return string(yaml)
}

// What is shown is the configuration: written into a file elsewhere it is the same one, but for what is hidden.
func TestWhatIsShownIsTheConfiguration(t *testing.T) {
	setEveryVariable(t)
	for _, file := range []string{"smallest", "every-field", "every-field-from-the-environment"} {
		t.Run(file, func(t *testing.T) {
			whole, err := filepath.Abs("testdata/accepted/" + file + ".yaml")
			if err != nil {
				t.Fatal(err)
			}
			read, err := config.Read(whole)
			if err != nil {
				t.Fatal(err)
			}
			text, err := read.YAML()
			if err != nil {
				t.Fatal(err)
			}
			if want := file == "every-field"; want != strings.Contains(string(text), "?tenant=***") {
				t.Errorf("a value in a query is hidden: %v, want %v\n%s", !want, want, text)
			}
			path := filepath.Join(t.TempDir(), "gateway.yaml")
			if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(text), "=***", "=7")), 0o600); err != nil {
				t.Fatal(err)
			}
			again, err := config.Load(path)
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			if diff := cmp.Diff(read.Config, again, protocmp.Transform()); diff != "" {
				t.Errorf("(-in force +shown)\n%s", diff)
			}
		})
	}
}

func TestWhatIsShownSaysWhereItComesFrom(t *testing.T) {
	t.Setenv("MODE", "0600")
	t.Setenv("TTL", "30s")
	t.Setenv("REALM", secret)
	text := shown(t, `listeners:
  ext_authz: {address: "unix:/run/gate.sock", socket: {mode: "${MODE}"}}
verifiers:
  - name: crm
    verifytoken: {url: "https://api.example.com/verify"}
cache:
  valid_ttl: ${TTL}
default_policy:
  realm: my ${REALM} $${x}
  refusal: {body: template, template: "{\"a\":\n \"b\"}\n"}
`)
	for _, line := range []string{
		"address: unix:/run/gate.sock # line 2",
		"max_concurrent_streams: 1000 # default",
		`mode: "0600" # line 2, from the environment`,
		"name: crm # line 4",
		"timeout: 3s # default",
		"valid_ttl: 30s # line 7, from the environment",
		"realm: my ${REALM} $${x} # line 9, from the environment, not shown whole",
	} {
		if !strings.Contains(text, " "+line+"\n") {
			t.Errorf("does not say %s:\n%s", line, text)
		}
	}
	if strings.Contains(text, secret) {
		t.Errorf("shows a secret:\n%s", text)
	}
}

func TestNoSecretIsShown(t *testing.T) {
	t.Setenv("SECRET", secret)
	for name, test := range map[string]struct{ template, want string }{
		"a user":                          {"https://" + secret + "@api.example.com/x", "https://***@api.example.com/x"},
		"a password":                      {"https://me:" + secret + "@api.example.com/x", "https://***@api.example.com/x"},
		"a password with an at sign":      {"https://me:@" + secret + "@api.example.com/x", "https://***@api.example.com/x"},
		"a password with a space":         {"https://me: " + secret + "@api.example.com/x", "https://***@api.example.com/x"},
		"a value in a query":              {"https://api.example.com/x?a=1&key=" + secret, "https://api.example.com/x?a=***&key=***"},
		"a query that is a value":         {"https://api.example.com/x?" + secret, "https://api.example.com/x?***"},
		"a value with an equals sign":     {"https://api.example.com/x?key==" + secret, "https://api.example.com/x?key=***"},
		"a fragment":                      {"https://api.example.com/x#" + secret, "https://api.example.com/x#***"},
		"a query in a fragment":           {"https://api.example.com/x#y?" + secret, "https://api.example.com/x#***"},
		"a URL in a text":                 {"see <ftp://me:" + secret + "@example.com> or call", "see <ftp://***@example.com> or call"},
		"a second URL in a text":          {"see http://example.com or http://me:" + secret + "@example.com", "see http://example.com or http://***@example.com"},
		"a variable":                      {"see ${SECRET}", "see ${SECRET}"},
		"a variable for a password":       {"https://me:${SECRET}@example.com", "https://***@example.com"},
		"a variable beside a value":       {"https://${SECRET}.example.com/?a=" + secret, "https://${SECRET}.example.com/?a=***"},
		"a text without a URL stays":      {"a=b & c?d=e#f me@example.com", "a=b & c?d=e#f me@example.com"},
		"a URL that has nothing to hide":  {"https://api.example.com/a/b:c", "https://api.example.com/a/b:c"},
		"a variable that is no variable":  {"$${SECRET}", "$${SECRET}"},
		"an at sign behind the authority": {"https://api.example.com/@me", "https://api.example.com/@me"},
	} {
		t.Run(name, func(t *testing.T) {
			written, err := json.Marshal(test.template)
			if err != nil {
				t.Fatal(err)
			}
			text := shown(t, listening+verifying+"default_policy: {refusal: {body: template, content_type: text/plain, template: "+string(written)+"}}\n")
			if strings.Contains(text, secret) {
				t.Errorf("shows it:\n%s", text)
			}
			_, rest, _ := strings.Cut(text, " template: ")
			got, comment, _ := strings.Cut(rest, " # ")
			comment, _, _ = strings.Cut(comment, "\n")
			got = strings.Trim(got, `'"`)
			if got != test.want {
				t.Errorf("shows %s, want %s\n%s", got, test.want, text)
			}
			if told := strings.Contains(comment, "not shown whole"); told != (test.want != test.template || strings.HasPrefix(name, "a variable") && !strings.HasSuffix(name, "no variable")) {
				t.Errorf("says %s", comment)
			}
		})
	}
}

func TestScriptsReadWhatIsShownAndItsOrigin(t *testing.T) {
	t.Setenv("SECRET", secret)
	path := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(path, []byte(listening+verifying+"default_policy: {realm: \"${SECRET}\"}\ndrain_delay: 90s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	read, err := config.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	text, err := read.JSON()
	if err != nil || strings.Contains(string(text), secret) {
		t.Fatalf("%v:\n%s", err, text)
	}
	var got struct {
		Config struct {
			Cache      map[string]any    `json:"cache"`
			Policy     map[string]any    `json:"default_policy"`
			Listeners  map[string]any    `json:"listeners"`
			Verifiers  []json.RawMessage `json:"verifiers"`
			DrainDelay string            `json:"drain_delay"`
		} `json:"config"`
		Origins map[string]config.Origin `json:"origins"`
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	c := got.Config
	if c.DrainDelay != "1m30s" || c.Cache["max_tokens"] != 100000.0 || c.Cache["valid_ttl"] != "1m" || fmt.Sprint(c.Policy["public"]) != "false" ||
		c.Policy["realm"] != "${SECRET}" || len(c.Verifiers) != 1 || c.Listeners["ext_authz"] == nil {
		t.Errorf("shows %s", text)
	}
	for path, want := range map[string]config.Origin{
		"drain_delay":              {From: "file", Line: 4},
		"cache.max_tokens":         {From: "default"},
		"verifiers[0].name":        {From: "file", Line: 2},
		"default_policy.realm":     {From: "environment", Line: 3, Hidden: true},
		"default_policy.preflight": {From: "default"},
	} {
		if got.Origins[path] != want {
			t.Errorf("%s comes from %+v, want %+v", path, got.Origins[path], want)
		}
	}
}
