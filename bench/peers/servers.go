package main

import (
	"context"
	"embed"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bearergate/bearergate/bench/measure"
)

// The settings of the peers.
//
//go:embed opa/policy.rego opa/config.yaml authorino/main.go oathkeeper/oathkeeper.yaml oathkeeper/rules.json nginx/nginx.conf nginx/lua.conf nginx/wrk.lua
var files embed.FS

// setting writes a file of the settings into the stage's folder, with some texts
// replaced. Each must stand there once.
func (st *stage) setting(name string, replace ...[2]string) (string, error) {
	text, err := files.ReadFile(name)
	if err != nil {
		return "", err
	}
	changed, err := replaced(name, string(text), replace...)
	if err != nil {
		return "", err
	}
	return st.write(name, changed)
}

func replaced(name, text string, replace ...[2]string) (string, error) {
	for _, r := range replace {
		if n := strings.Count(text, r[0]); n != 1 {
			return "", fmt.Errorf("%s: %q stands there %d times, want once", name, r[0], n)
		}
		text = strings.Replace(text, r[0], r[1], 1)
	}
	return text, nil
}

// write writes a file into the stage's folder and returns its name.
func (st *stage) write(name, text string) (string, error) {
	file := filepath.Join(st.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o711); err != nil { //nolint:gosec // nothing secret is in there
		return "", err
	}
	return file, os.WriteFile(file, []byte(text), 0o644) //nolint:gosec // as above
}

func referenceGRPC(ctx context.Context, st *stage, c *contender) error {
	p, err := measure.StartReference(ctx, "grpc")
	if err != nil {
		return err
	}
	c.open = true
	c.speaksGRPC(st, p)
	return nil
}

func referenceHTTP(ctx context.Context, st *stage, c *contender) error {
	p, err := measure.StartReference(ctx, "http")
	if err != nil {
		return err
	}
	c.open = true
	c.speaksHTTP(st, p, measure.AuthRequests)
	return nil
}

func gatewayGRPC(ctx context.Context, st *stage, c *contender) error {
	p, err := measure.StartGateway(ctx, st.gateway, nil, st.dir, st.tokens)
	if err != nil {
		return err
	}
	c.speaksGRPC(st, p)
	return nil
}

func gatewayHTTP(ctx context.Context, st *stage, c *contender) error {
	p, err := measure.StartGateway(ctx, st.gateway, nil, st.dir, st.tokens)
	if err != nil {
		return err
	}
	c.speaksHTTP(st, p, measure.AuthRequests)
	return nil
}

// opa is opa-envoy-plugin with a policy that asks verifytoken.
func opa(ctx context.Context, st *stage, source string, c *contender) error {
	program, err := build(ctx, st, source, "./cmd/opa-envoy-plugin", "opa-envoy-plugin")
	if err != nil {
		return err
	}
	if err := c.asks(ctx, st); err != nil {
		return err
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	config, err := st.setting("opa/config.yaml", [2]string{"127.0.0.1:9191", address})
	if err != nil {
		return err
	}
	policy, err := st.setting("opa/policy.rego")
	if err != nil {
		return err
	}
	data, err := st.write("opa/data.json", fmt.Sprintf(`{"endpoint": "http://%s/verifytoken"}`, c.endpoint.address))
	if err != nil {
		return err
	}
	p, out, err := measure.Start(ctx, program, "run", "--server", "--addr", "127.0.0.1:0", "--log-level", "error", "--disable-telemetry",
		"--config-file", config, policy, data)
	if err != nil {
		return err
	}
	p.GRPC = address
	c.speaksGRPC(st, p)
	c.version = versionOf(ctx, source)
	return c.ready(ctx, st, out)
}

// authorino is Authorino's service in a main of its own.
func authorino(ctx context.Context, st *stage, source string, c *contender) error {
	main, err := st.setting("authorino/main.go")
	if err != nil {
		return err
	}
	// In the checkout, so that its go.mod says what is imported.
	program, err := build(ctx, st, source, main, "authorino-service")
	if err != nil {
		return err
	}
	if err := c.asks(ctx, st); err != nil {
		return err
	}
	p, out, err := measure.Start(ctx, program, "-introspection", "http://"+c.endpoint.address+"/introspect", "-log-level", "error", "-evaluator-cache-size", "16")
	if err != nil {
		return err
	}
	c.speaksGRPC(st, p)
	address, err := out.ReadString('\n')
	if err != nil {
		return fmt.Errorf("it ended: %s", address)
	}
	p.GRPC = strings.TrimSpace(address)
	c.version = versionOf(ctx, source)
	return c.ready(ctx, st, out)
}

// oathkeeper is Oathkeeper's decision API.
func oathkeeper(ctx context.Context, st *stage, source string, c *contender) error {
	program, err := build(ctx, st, source, ".", "oathkeeper")
	if err != nil {
		return err
	}
	if err := c.asks(ctx, st); err != nil {
		return err
	}
	rules, err := st.setting("oathkeeper/rules.json")
	if err != nil {
		return err
	}
	replace := [][2]string{{"file://rules.json", "file://" + rules}, {"http://127.0.0.1/introspect", "http://" + c.endpoint.address + "/introspect"}}
	var address string
	for _, port := range []string{"4455", "9000", "4456"} { // the last is the one that counts
		if address, err = freeAddress(ctx); err != nil {
			return err
		}
		replace = append(replace, [2]string{"port: " + port, "port: " + address[strings.LastIndexByte(address, ':')+1:]})
	}
	config, err := st.setting("oathkeeper/oathkeeper.yaml", replace...)
	if err != nil {
		return err
	}
	p, out, err := measure.Start(ctx, program, "serve", "--config", config, "--disable-telemetry")
	if err != nil {
		return err
	}
	p.HTTP = address
	c.speaksHTTP(st, p, decisionRequests)
	c.version = versionOf(ctx, source)
	return c.ready(ctx, st, out)
}

// decisionRequests are requests to /decisions of the size of ours to /auth.
func decisionRequests(tokens []string) [][]byte {
	requests := make([][]byte, len(tokens))
	for i, token := range tokens {
		requests[i] = []byte("GET /decisions HTTP/1.1\r\nHost: api.example\r\nAuthorization: Bearer " + token +
			"\r\nX-Request-Id: 0b0d4b269b6c4b0f8f3f5f1f6e3f2b1a\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Uri: /v1/contacts?limit=10\r\n\r\n")
	}
	return requests
}

// build builds a program in a checkout as its own project does: without cgo, and
// with nothing changed in there.
func build(ctx context.Context, st *stage, source, what, name string) (string, error) {
	file := filepath.Join(st.dir, "bin", name)
	cmd := exec.CommandContext(ctx, "go", "build", "-mod=readonly", "-o", file, what) //nolint:gosec // what the caller asks for
	cmd.Dir = source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build in %s: %w\n%s", source, err, out)
	}
	return file, nil
}

// versionOf says which version a checkout is.
func versionOf(ctx context.Context, source string) string {
	out, err := exec.CommandContext(ctx, "git", "-C", source, "describe", "--tags", "--always", "--dirty").Output() //nolint:gosec // as above
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// freeAddress returns an address on which nobody listens at this moment, for servers
// that cannot say which one they took.
func freeAddress(ctx context.Context) (string, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
