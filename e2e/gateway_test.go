package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// gateway is a running bearergate.
type gateway struct {
	*process
	settings settings // with the addresses that it has
	file     string   // of its configuration
}

// buildCommand builds the command as its users do, and with the race detector when
// the tests have it.
func buildCommand(t *testing.T, dir string) string {
	t.Helper()
	file := filepath.Join(dir, "bearergate")
	args := []string{"build", "-o", file}
	if raceDetector {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(t.Context(), "go", append(args, "github.com/bearergate/bearergate/cmd/bearergate")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return file
}

// settings are what the tests choose of the gateway's configuration.
type settings struct {
	endpoint string // the URL to ask
	timeout  string
	// Addresses of the listeners; by default the gateway picks free ports.
	gates
	admin string
	// policy is the default policy and cache what is remembered, in YAML; by default
	// what the gateway makes of nothing.
	policy, cache string
	// faces are further fields of the listeners for edges, such as ", tls: {…}", and
	// trust those of the one for HTTP alone.
	faces, trust string
	// verifiers are further ones, and more is what else stands in the file, in YAML.
	verifiers, more string
	// crm is further fields of the verifier that asks the endpoint, in YAML.
	crm string
	// flags are further flags of serve, and environment further variables.
	flags, environment []string
	// changed, if set, changes how it is started.
	changed func(*exec.Cmd)
}

func (s settings) yaml() string {
	const free = "127.0.0.1:0"
	return fmt.Sprintf(`listeners:
  ext_authz:    {address: %q%s}
  auth_request: {address: %q%s%s}
  admin:        {address: %q, api: {profiles: true}}
verifiers:
  - name: crm
    verifytoken: {url: %q}
    timeout: %s
%s%scache: %s
default_policy: %s
log: {level: debug}
%s`, either(s.extAuthz, free), s.faces, either(s.authRequest, free), s.faces, s.trust, either(s.admin, free),
		s.endpoint, s.timeout, s.crm, s.verifiers, either(s.cache, "{}"), either(s.policy, "{}"), s.more)
}

// startGateway runs bearergate serve and waits until it listens everywhere.
func (r *run) startGateway(t *testing.T, name string, s settings) *gateway {
	t.Helper()
	file := filepath.Join(r.folder(t), "bearergate.yaml")
	if err := os.WriteFile(file, []byte(s.yaml()), 0o644); err != nil {
		t.Fatal(err)
	}
	g := &gateway{settings: s, file: file}
	g.process = r.start(t, name, func(ctx context.Context) (*exec.Cmd, error) {
		cmd := exec.CommandContext(ctx, r.command, append([]string{"serve", "--config", file}, s.flags...)...)
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = patience
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		cmd.Env = slices.Concat(os.Environ(), r.collector.environment(), s.environment)
		if s.changed != nil {
			s.changed(cmd)
		}
		return cmd, nil
	})
	eventually(t, name+" listens", func() error {
		g.mustRun(t)
		at, err := listening(g.stderr)
		if err != nil {
			return err
		}
		for listener, address := range map[string]*string{
			"ext_authz": &g.settings.extAuthz, "auth_request": &g.settings.authRequest, "admin": &g.settings.admin,
		} {
			if *address = at[listener]; *address == "" {
				return fmt.Errorf("%s does not listen yet", listener)
			}
		}
		return nil
	})
	g.watch(t, r)
	t.Cleanup(func() { g.noteShown(t, r) })
	return g
}

// listening reads from the gateway's log which listener listens where.
func listening(log string) (map[string]string, error) {
	text, err := os.ReadFile(log)
	if err != nil {
		return nil, err
	}
	at := map[string]string{}
	for line := range bytes.Lines(text) {
		var entry struct {
			Message  string `json:"msg"`
			Listener string `json:"listener"`
			Address  string `json:"address"`
		}
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // it is being written
		}
		if err := json.Unmarshal(line, &entry); err != nil {
			return nil, fmt.Errorf("a log line that is no JSON: %s", line)
		}
		if entry.Message == "listening" {
			at[entry.Listener] = entry.Address
		}
	}
	return at, nil
}
