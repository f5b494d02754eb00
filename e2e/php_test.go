package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/bearergate/bearergate/deploy"
)

// testPHP has the gateway ask a script that real PHP runs. PHP reads the form, writes
// the JSON, and fails, in its own way.
func testPHP(t *testing.T, r *run) {
	tests := map[string]answer{
		"good": allowed, "unknown": invalidToken,
		// What is neither is no answer.
		"string": noVerifier, "number": noVerifier, "null": noVerifier, "list": noVerifier, "warning": noVerifier, "warning-behind": noVerifier,
		"mark": noVerifier, "fatal": noVerifier, "exit": noVerifier, "redirect": noVerifier,
	}
	file := filepath.Join(r.folder(t), "tokens")
	tokens, lines := map[string]string{}, ""
	for how := range tests {
		tokens[how] = r.tokens.invent(40)
		lines += tokens[how] + " " + how + "\n"
	}
	// Every character that a token may have, and one as long as it may be.
	for _, token := range []string{r.tokens.add(b64token + "=="), r.tokens.invent(8192)} {
		tokens[fmt.Sprintf("good, of %d bytes", len(token))] = token
		lines += token + " good\n"
	}
	if err := os.WriteFile(file, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	address := r.ports.free(t)
	p := r.start(t, "PHP", func(ctx context.Context) (*exec.Cmd, error) {
		cmd := exec.CommandContext(ctx, "php", "-S", address, "testdata/getOauthToken.php")
		cmd.Env = append(os.Environ(), "TOKENS="+file)
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = patience
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		return cmd, nil
	})
	eventually(t, "PHP listens", func() error {
		p.mustRun(t)
		return accepts(address)
	})
	s := &stack{run: r, api: r.api}
	// Each answer that is none must not have the breaker keep the next question from PHP.
	s.gateway = r.startGateway(t, "gateway that asks PHP", settings{
		endpoint: "http://" + address + "/v1/getOauthToken.php", timeout: "3s", crm: "    breaker: {failures: 1000, of_last: 1000}\n",
	})
	e := r.startEdge(t, edgeKind{name: "Envoy in front of PHP", recipe: deploy.Envoy()}, s.gateway.settings.gates, r.api.address())
	for how, token := range tokens {
		t.Run(how, func(t *testing.T) {
			want, ok := tests[how]
			if !ok {
				want = allowed
			}
			got, name := e.send(t, request{lines: bearerLine(token)})
			s.check(t, e, got, name, want)
		})
	}
	t.Run("a token that nobody knows", func(t *testing.T) {
		got, name := e.send(t, request{lines: bearerLine(r.tokens.invent(40))})
		s.check(t, e, got, name, invalidToken)
	})
}
