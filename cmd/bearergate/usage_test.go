package main

import (
	"encoding/json"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/bearergate/bearergate/crmnow"
)

// result is what became of a program that ends by itself.
type result struct {
	code           int
	stdout, stderr string
}

// call runs bearergate to its end. What it wrote is searched for the secrets; only
// a token that was asked for may be there, on standard output.
func call(t *testing.T, c invocation) result {
	t.Helper()
	p := command(c.args...)
	// A partner's own settings and a proxy of this machine have no part in it.
	for _, name := range []string{clientIDVariable, clientSecretVariable, "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"} {
		p.Env = append(p.Env, name+"=")
	}
	p.Env = append(p.Env, c.environment...)
	p.Stdin = strings.NewReader(c.stdin)
	p.Dir = c.dir
	p.run(t)
	code := p.code(t)
	expectHidden(t, p.err.String(), c.secrets...)
	return result{code, p.out.String(), p.err.String()}
}

// invocation is a command line with all that it sees.
type invocation struct {
	args        []string
	environment []string
	stdin       string
	dir         string
	secrets     []string
}

func TestWrongUseEndsWithTwoAndOneLine(t *testing.T) {
	for line, want := range map[string]string{
		"sirve":                   "there is no such command; did you mean serve?; see bearergate --help",
		"no-such-command":         "there is no such command; see bearergate --help",
		"config chek":             "there is no such command; did you mean check?; see bearergate config --help",
		"help no-such-command":    "there is no such command; see bearergate help --help",
		"help serve more":         "there is no such command; see bearergate help --help",
		"completion tcsh":         "see bearergate completion --help",
		"--verbose":               "unknown flag: --verbose; see bearergate --help",
		"serve":                   `required flag(s) "config" not set; see bearergate serve --help`,
		"serve --config":          "flag needs an argument: --config; see bearergate serve --help",
		"serve --config x --port": "unknown flag: --port; see bearergate serve --help",
		"serve bearergate.yaml":   "this command takes flags and no arguments; see bearergate serve --help",
		"config check":            `required flag(s) "config" not set; see bearergate config check --help`,
		"config check -o yaml":    "write one of text, json; see bearergate config check --help",
		"config show":             "at least one of the flags in the group [config running] is required; see bearergate config show --help",
		"deny --fingerprint 9f2c41d0a7be --reason x --for 0s":   "--for: give more than 0, and at most 720h",
		"deny --fingerprint 9f2c41d0a7be --reason x --for 721h": "--for: give more than 0, and at most 720h",
		"log":                                  "give --level, --allowed-one-in, or both",
		"top --interval 0s":                    "--interval: give 100ms to 1m",
		"breaker reset":                        `required flag(s) "verifier" not set; see bearergate breaker reset --help`,
		"config show -o text":                  "write one of yaml, json; see bearergate config show --help",
		"config init":                          "no flags, and no terminal to ask at; give for example --edge envoy; see bearergate config init --help",
		"config init --edge x":                 "write one of envoy, envoy-http, nginx, caddy; see bearergate config init --help",
		"version -o xml":                       "write one of text, json; see bearergate version --help",
		"version 2":                            "this command takes flags and no arguments; see bearergate version --help",
		"quickstart --edge squid":              "--edge squid: write one of envoy, nginx",
		"quickstart --once=maybe":              "see bearergate quickstart --help",
		"emulate --lifetime soon":              "see bearergate emulate --help",
		"emulate --lifetime 1ms":               "a token cannot be good for 1ms; give whole seconds",
		"emulate --jwt-bytes 12":               "the size of tokens is 12 bytes; it is 1024 to 16384",
		"emulate --listen nobody":              "--listen: ",
		"token":                                "no client ID; give --client-id, or set BEARERGATE_CLIENT_ID",
		"token --client-id a":                  "no client secret; give --client-secret-file FILE (- for standard input), or set BEARERGATE_CLIENT_SECRET",
		"verify":                               "no token; give --token-file FILE, or - for standard input",
		"verify --timeout 0s":                  "--timeout: give more than 0, for example 3s",
		"verify --timeout -1s":                 "--timeout: give more than 0, for example 3s",
		"explain --config x":                   "--url: is missing; with --config it is a request that is explained",
		"explain --url https://x":              "give --token-file FILE (- for standard input) or --fingerprint WORD for what a running gateway says, or --config FILE for what that file says",
		"explain --fingerprint x --method PUT": "--method: belongs to a request; give --url, too",
		"explain --config x --fingerprint x":   "see bearergate explain --help",
		"status --timeout 0s":                  "--timeout: give more than 0, for example 3s",
		"status --admin nowhere":               "--admin: is no address; write host:port, unix:/path, or https://host:port",
		"status --ca-file x":                   "--ca-file and --cert-file are for --admin https://host:port",
		"tail --refused --outcome x":           "--refused: stands for outcomes; give it or --outcome",
		"tail orders":                          "this command takes flags and no arguments; see bearergate tail --help",
		"forget":                               "no token; give --token-file FILE, or - for standard input",
		"forget some-token":                    "this command takes flags and no arguments; see bearergate forget --help",
		"deny":                                 "--reason: say why; it stands in the log and in the list",
		"deny --reason x":                      "no token; give --token-file FILE, or - for standard input",
		"deny --list --reason x":               "see bearergate deny --help",
		"verify --encoding gzip":               "write one of multipart, form; see bearergate verify --help",
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			got := call(t, invocation{args: strings.Fields(line)})
			if got.code != exitWrong || got.stdout != "" {
				t.Errorf("ended with %d and wrote %q", got.code, got.stdout)
			}
			if !strings.HasPrefix(got.stderr, "bearergate: ") || strings.Count(got.stderr, "\n") != 1 || !strings.Contains(got.stderr, want) {
				t.Errorf("says %q, want %q", got.stderr, want)
			}
		})
	}
}

func TestACommandThatOnlyHasSubcommandsShowsThem(t *testing.T) {
	for line, want := range map[string]string{"": "serve ", "config": "check ", "completion": "fish "} {
		t.Run(line, func(t *testing.T) {
			code, stdout, stderr := inside(t, strings.Fields(line)...)
			if code != exitWrong || stderr != "" || !strings.Contains(stdout, "\n  "+want) {
				t.Errorf("ended with %d: %s%s", code, stdout, stderr)
			}
		})
	}
}

func TestVersion(t *testing.T) {
	system := runtime.GOOS + "/" + runtime.GOARCH
	got := call(t, invocation{args: []string{"version"}})
	if want := "bearergate " + version() + " (" + runtime.Version() + ", " + system + ")\n"; got != (result{exitGood, want, ""}) {
		t.Errorf("got %+v, want %s", got, want)
	}
	got = call(t, invocation{args: []string{"version", "--output", "json"}})
	var fields map[string]string
	if err := json.Unmarshal([]byte(got.stdout), &fields); err != nil || got.code != exitGood || got.stderr != "" {
		t.Fatalf("got %+v, %v", got, err)
	}
	if len(fields) != 3 || fields["version"] == "" || fields["version"] != version() || fields["go"] != runtime.Version() || fields["system"] != system {
		t.Errorf("got %v", fields)
	}
}

func TestCompletionScriptsAreWhatTheShellsUnderstand(t *testing.T) {
	for shell, test := range map[string]struct {
		holds string   // what makes it work in this shell
		check []string // makes the shell load it and say whether it is in force
	}{
		"bash": {"complete -o default -F __start_bearergate bearergate", []string{"bash", "-c", `source /dev/stdin && complete -p bearergate`}},
		"zsh":  {"#compdef bearergate", []string{"zsh", "-f", "-c", `autoload -U compinit && compinit -D && source /dev/stdin && [[ ${_comps[bearergate]} = _bearergate ]]`}},
		"fish": {"complete -c bearergate", []string{"fish", "--no-config", "-c", `source && complete -C 'bearergate ver' | string match -q 'version*'`}},
	} {
		t.Run(shell, func(t *testing.T) {
			got := call(t, invocation{args: []string{"completion", shell}})
			if got.code != exitGood || got.stderr != "" || !strings.Contains(got.stdout, test.holds) {
				t.Fatalf("ended with %d %s:\n%s", got.code, got.stderr, got.stdout)
			}
			if _, err := exec.LookPath(test.check[0]); err != nil {
				t.Logf("%s is not on this machine, so only the text is looked at", shell)
				return
			}
			cmd := exec.CommandContext(t.Context(), test.check[0], test.check[1:]...)
			cmd.Stdin = strings.NewReader(got.stdout)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s does not take it: %v\n%s", shell, err, out)
			}
		})
	}
}

func TestCompletionKnowsCommands(t *testing.T) {
	for line, want := range map[string]string{
		"":             "breaker completion config deny emulate explain forget help log quickstart reload serve status support-bundle tail token top verify version",
		"help ":        "breaker completion config deny emulate explain forget log quickstart reload serve status support-bundle tail token top verify version",
		"help config ": "check init show",
		"config ":      "check init show",
		"serve ":       "",
	} {
		t.Run(line, func(t *testing.T) {
			code, stdout, _ := inside(t, append(append([]string{"__complete"}, strings.Fields(line)...), "")...)
			var names []string
			for l := range strings.Lines(stdout) {
				if name, _, ok := strings.Cut(l, "\t"); ok && name[0] != '-' {
					names = append(names, name)
				}
			}
			if got := strings.Join(names, " "); code != exitGood || got != want {
				t.Errorf("ended with %d and offers %q, want %q", code, got, want)
			}
		})
	}
}

func TestConfigCheck(t *testing.T) {
	const good, bad, absent = "accepted/smallest.yaml", "refused/unknown-words.yaml", "nowhere.yaml"
	check := func(t *testing.T, file string, more ...string) result {
		t.Helper()
		return call(t, invocation{args: append([]string{"config", "check", "--config", file}, more...), dir: "../../config/testdata"})
	}
	type report struct {
		Good     bool `json:"good"`
		Problems []struct {
			File   string `json:"file"`
			Line   int    `json:"line"`
			Column int    `json:"column"`
			Field  string `json:"field"`
			Text   string `json:"text"`
		} `json:"problems"`
		Warnings []struct {
			File   string `json:"file"`
			Line   int    `json:"line"`
			Column int    `json:"column"`
			Field  string `json:"field"`
			Text   string `json:"text"`
		} `json:"warnings"`
	}
	parse := func(t *testing.T, got result, code int) report {
		t.Helper()
		var r report
		decoder := json.NewDecoder(strings.NewReader(got.stdout))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&r); err != nil || got.code != code || got.stderr != "" {
			t.Fatalf("got %+v, %v; want %d", got, err, code)
		}
		if r.Problems == nil || r.Warnings == nil {
			t.Errorf("problems or warnings are null, not a list: %s", got.stdout)
		}
		return r
	}
	t.Run("good", func(t *testing.T) {
		if got := check(t, good); got != (result{exitGood, good + ": good\n", ""}) {
			t.Errorf("got %+v", got)
		}
		if r := parse(t, check(t, good, "--output", "json"), exitGood); !r.Good || len(r.Problems) != 0 {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("bad", func(t *testing.T) {
		text := check(t, bad)
		if text.code != exitWrong || text.stdout != "" {
			t.Errorf("got %+v", text)
		}
		r := parse(t, check(t, bad, "--output", "json"), exitWrong)
		if r.Good || len(r.Problems) < 2 {
			t.Fatalf("got %+v", r)
		}
		lines := strings.Split(strings.TrimSuffix(strings.TrimPrefix(text.stderr, "bearergate: "), "\n"), "\n")
		if len(lines) != len(r.Problems) {
			t.Errorf("%d lines and %d problems", len(lines), len(r.Problems))
		}
		for i, p := range r.Problems {
			// The two forms say the same: file:line:column: field: text.
			if want := p.File + ":" + number(p.Line) + ":" + number(p.Column) + ": " + p.Field + ": " + p.Text; lines[i] != want {
				t.Errorf("text says %q, json %q", lines[i], want)
			}
			if p.File != bad || p.Line < 1 || p.Column < 1 || p.Field == "" || p.Text == "" {
				t.Errorf("not whole: %+v", p)
			}
		}
	})
	t.Run("bad all over", func(t *testing.T) {
		const all = "refused/mistakes-over-all-features.yaml"
		r := parse(t, check(t, all, "--output", "json"), exitWrong)
		if r.Good || len(r.Problems) != 61 {
			t.Errorf("%d problems", len(r.Problems))
		}
		for _, p := range r.Problems {
			if p.File != all || p.Line < 1 || p.Column < 1 || p.Field == "" || p.Text == "" {
				t.Errorf("not whole: %+v", p)
			}
		}
		// Text is for people, who begin with the first ones.
		if text := check(t, all); strings.Count(text.stderr, "\n") != 51 || !strings.HasSuffix(text.stderr, "\nand 11 more; put these right first\n") {
			t.Errorf("got %+v", text)
		}
	})
	t.Run("hardly meant", func(t *testing.T) {
		path := explainFile(t, warnedFile)
		got := check(t, path)
		if got.code != exitGood || got.stdout != path+": good\n" || !strings.HasPrefix(got.stderr, "bearergate: warning: "+path+":6:25: policies[0].require: needs claims, and verifiers[1] gives none: ") {
			t.Errorf("got %+v", got)
		}
		r := parse(t, check(t, path, "--output", "json"), exitGood)
		if !r.Good || len(r.Problems) != 0 || len(r.Warnings) != 1 || r.Warnings[0].Line != 6 || r.Warnings[0].Field != "policies[0].require" {
			t.Errorf("got %+v", r)
		}
	})
	t.Run("absent", func(t *testing.T) {
		want := "bearergate: " + absent + ": there is no such file; give the path of the configuration file\n"
		if got := check(t, absent); got != (result{exitWrong, "", want}) {
			t.Errorf("got %+v", got)
		}
		r := parse(t, check(t, absent, "--output", "json"), exitWrong)
		if r.Good || len(r.Problems) != 1 || r.Problems[0].File != absent || r.Problems[0].Line != 0 {
			t.Errorf("got %+v", r)
		}
	})
}

// warnedFile is taken, and hardly meant.
const warnedFile = `listeners: {ext_authz: {address: "127.0.0.1:0"}}
verifiers:
  - {name: sso, jwt: {issuer: "https://sso.example.com", audiences: [orders], algorithms: [RS256]}}
  - {name: crm, verifytoken: {url: "https://api.example.com/verify"}}
default_policy: {verifiers: [sso, crm]}
policies: [{name: some, require: {audience: [orders]}, verifiers: [sso, crm]}]
`

func number(n int) string { text, _ := json.Marshal(n); return string(text) }

// partner is what the endpoint of a test knows.
var partner = struct{ id, secret string }{"partner:one/eu", "p&ss w/ö+%41=="}

// partnersEndpoint runs an emulator that knows the partner.
func partnersEndpoint(t *testing.T) *crmnow.Local {
	t.Helper()
	e, err := crmnow.StartLocal(crmnow.EmulatorOptions{Clients: map[string]crmnow.Secret{partner.id: crmnow.NewSecret(partner.secret)}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}
