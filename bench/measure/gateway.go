package measure

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/bearergate/bearergate/crmnow"
)

// Gateway is a gateway that is to be measured. Where nothing is said it has its
// default settings; but a verdict lasts as long as it may, so that none is renewed
// while something is measured.
type Gateway struct {
	Program string   // a built bearergate
	Flags   []string // of serve
	Dir     string   // where its configuration is written to
	Cores   Cores    // the zero Cores are ServerCores

	Tokens   []string // those that its endpoint knows
	Endpoint string   // the URL of another endpoint, instead of one that knows Tokens
	ExtAuthz string   // the settings of its listener, in the form {address: "127.0.0.1:0"}
	Cache    string   // further settings of the cache, in the form max_tokens: 1000
	Verifier string   // and of the verifier
	Policy   string   // and of default_policy
}

// BuildGateway builds bearergate as its users do.
func BuildGateway(ctx context.Context, dir string) (string, error) {
	file := filepath.Join(dir, "bearergate")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", file, "github.com/bearergate/bearergate/cmd/bearergate").CombinedOutput() //nolint:gosec // our own folder
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return file, nil
}

// StartGateway starts a gateway with default settings that asks an emulator which
// knows the tokens.
func StartGateway(ctx context.Context, program string, flags []string, dir string, tokens []string) (*Process, error) {
	return Gateway{Program: program, Flags: flags, Dir: dir, Tokens: tokens}.Start(ctx)
}

// Start starts the gateway.
func (g Gateway) Start(ctx context.Context) (*Process, error) {
	var endpoint *crmnow.Local
	if g.Endpoint == "" {
		var err error
		if endpoint, err = startEndpoint(g.Tokens); err != nil {
			return nil, err
		}
		g.Endpoint = endpoint.URL()
	}
	p, out, err := g.start(ctx)
	if err != nil {
		if endpoint != nil {
			_ = endpoint.Close()
		}
		return nil, err
	}
	p.endpoint = endpoint
	if err := p.awaitListeners(out); err != nil {
		p.Close()
		return nil, err
	}
	p.Drain(out)
	return p, nil
}

func startEndpoint(tokens []string) (*crmnow.Local, error) {
	endpoint, err := crmnow.StartLocal(crmnow.EmulatorOptions{MaxTokens: len(tokens) + 1})
	if err != nil {
		return nil, err
	}
	for _, token := range tokens {
		if err := endpoint.Accept(crmnow.NewSecret(token), time.Hour); err != nil {
			_ = endpoint.Close()
			return nil, err
		}
	}
	return endpoint, nil
}

func (g Gateway) start(ctx context.Context) (*Process, *bufio.Reader, error) {
	if g.ExtAuthz == "" {
		g.ExtAuthz = `{address: "127.0.0.1:0"}`
	}
	if g.Cores == (Cores{}) {
		g.Cores = ServerCores()
	}
	text := fmt.Sprintf("listeners:\n  ext_authz: %s\n  auth_request: {address: \"127.0.0.1:0\"}\n  admin: {address: \"127.0.0.1:0\"}\n"+
		"verifiers:\n  - name: crm\n    verifytoken: {url: %q}\n", g.ExtAuthz, g.Endpoint)
	if g.Verifier != "" {
		text += "    " + g.Verifier + "\n"
	}
	text += "cache:\n  valid_ttl: 300s\n"
	if g.Cache != "" {
		text += "  " + g.Cache + "\n"
	}
	if g.Policy != "" {
		text += "default_policy:\n  " + g.Policy + "\n"
	}
	text += "log: {format: json}\n"
	file, err := os.CreateTemp(g.Dir, "bearergate-*.yaml")
	if err != nil {
		return nil, nil, err
	}
	_, err = file.WriteString(text)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return nil, nil, err
	}
	return StartOn(ctx, g.Cores, g.Program, append([]string{"serve", "--config", file.Name()}, g.Flags...)...)
}

// awaitListeners reads where the gateway listens from its log.
func (p *Process) awaitListeners(out *bufio.Reader) error {
	said := ""
	for p.GRPC == "" || p.HTTP == "" || p.metrics == "" {
		line, err := out.ReadString('\n')
		if err != nil {
			return fmt.Errorf("the gateway ended: %s%s", said, line)
		}
		var entry struct{ Msg, Listener, Address string }
		if json.Unmarshal([]byte(line), &entry) != nil || entry.Msg != "listening" {
			said += line
			continue
		}
		switch entry.Listener {
		case "ext_authz":
			p.GRPC = entry.Address
		case "auth_request":
			p.HTTP = entry.Address
		case "admin":
			p.metrics = entry.Address
		}
	}
	return nil
}
