// Package quickstart runs everything that a first look needs on loopback: an
// emulator of the endpoint, the gateway, a small API, and on request a real edge
// proxy in front of it. It sends good and bad requests through all faces and
// shows what became of them.
//
// It is for people who try the gateway, and a check that an installation works.
// It opens no address but on loopback and leaves nothing behind.
package quickstart

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/bearergate/bearergate/config"
	"github.com/bearergate/bearergate/crmnow"
)

// Options say what is run and how it is shown.
type Options struct {
	// Edge is the proxy to put in front of the API: "envoy", "nginx", or "" for none.
	Edge string
	// Once ends after the table. Otherwise everything stays up until ctx ends.
	Once bool
	// JSON writes the table for scripts.
	JSON bool
	// Out gets the table, Logs the gateway's own lines once the table is done.
	Out, Logs io.Writer
	// Colour marks right and wrong in the table.
	Colour bool
	// Command is how this program is called, for the commands to copy.
	Command string
	// Version is the gateway's.
	Version string
}

// The credentials of the one partner. Who reaches the emulator is on this machine.
const clientID = "quickstart"

// Run starts all parts, sends the requests, and prints what became of them. It
// reports whether everything came out as it must. The error says which part could
// not be started, or that ctx ended before the table was done.
func Run(ctx context.Context, o Options) (good bool, err error) {
	whole := ctx
	defer func() {
		if err != nil && whole.Err() != nil {
			err = errors.New("stopped before the table was done")
		}
	}()
	var dir string
	if o.Edge != "" {
		if dir, err = os.MkdirTemp("", "bearergate-quickstart-"); err != nil {
			return false, err
		}
		defer os.RemoveAll(dir) // when all parts have ended: the edge writes there
	}
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()

	secret := rand.Text()
	endpoint, err := crmnow.StartLocal(crmnow.EmulatorOptions{
		Clients: map[string]crmnow.Secret{clientID: crmnow.NewSecret(secret)},
	})
	if err != nil {
		return false, err
	}
	defer endpoint.Close()

	level := new(slog.LevelVar)
	level.Set(slog.LevelError + 1) // the table says it until then
	logger := slog.New(slog.NewTextHandler(o.Logs, &slog.HandlerOptions{Level: level}))
	gateway, err := startGateway(ctx, &parts, endpoint.URL(), logger, o.Version)
	if err != nil {
		return false, err
	}
	api, err := startAPI(ctx, &parts)
	if err != nil {
		return false, err
	}

	stage := &stage{endpoint: endpoint, api: api}
	grpcFace, err := newGRPCFace(gateway.Address(config.ExtAuthz))
	if err != nil {
		return false, err
	}
	defer grpcFace.close()
	stage.faces = append(stage.faces, grpcFace, newHTTPFace("auth_request", "http://"+gateway.Address(config.AuthRequest)+"/auth", nil))
	var edge *edge
	if o.Edge != "" {
		edge, err = startEdge(ctx, &parts, o.Edge, dir, gateway, api.address)
		if err != nil {
			return false, err
		}
		stage.faces = append(stage.faces, newHTTPFace(o.Edge, "http://"+edge.address+"/", api))
	}
	defer stage.close()

	partner, err := crmnow.NewClient(crmnow.ClientOptions{
		URL: endpoint.URL(), ID: clientID, Secret: crmnow.NewSecret(secret), UserAgent: "bearergate-quickstart",
	})
	if err != nil {
		return false, err
	}
	defer partner.Close()
	stage.partner = partner

	rows, err := stage.play(ctx)
	if err != nil {
		return false, err
	}
	good = allRight(rows)
	if o.JSON {
		err = writeJSON(o.Out, rows, good)
	} else {
		err = writeText(o.Out, rows, good, o.Colour)
	}
	if err != nil {
		return false, err
	}
	if o.Once {
		return good, nil
	}

	grant, err := partner.Token(ctx)
	if err != nil {
		return false, err
	}
	level.Set(slog.LevelInfo)
	if !o.JSON {
		invite(o, gateway, endpoint, api, edge, secret, grant)
	}
	<-ctx.Done()
	return good, nil
}

// startGateway runs a gateway that asks the endpoint, on ports of its own.
func startGateway(ctx context.Context, parts *sync.WaitGroup, url string, logger *slog.Logger, version string) (*config.Gateway, error) {
	c, err := config.Parse("quickstart.yaml", fmt.Appendf(nil, configuration, url), func(string) (string, bool) { return "", false })
	if err != nil {
		return nil, err
	}
	gateway, err := config.NewGateway(ctx, c, logger, version)
	if err != nil {
		return nil, err
	}
	parts.Go(func() { _ = gateway.Run(ctx) }) // what fails here is seen in the table
	return gateway, nil
}

// configuration is the smallest one, for free ports and the emulator.
const configuration = `
listeners:
  ext_authz:    {address: "127.0.0.1:0"}
  auth_request: {address: "127.0.0.1:0"}
  admin:        {address: "127.0.0.1:0"}
verifiers:
  - name: crm
    verifytoken: {url: %q}
    timeout: 1s
shutdown_timeout: 2s
`

// invite prints what to try next.
func invite(o Options, gateway *config.Gateway, endpoint *crmnow.Local, api *api, edge *edge, secret string, grant crmnow.Grant) {
	token := grant.AccessToken.Reveal()
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("")
	line("Everything stays up until you press Ctrl-C. Try it:")
	line("")
	line("  TOKEN=%s   # good until %s", token, grant.ExpiresAt.Format(time.TimeOnly))
	line("")
	if edge != nil {
		line("  # the API behind %s", edge.name)
		line("  curl -i http://%s/hello -H \"Authorization: Bearer $TOKEN\"", edge.address)
		line("  curl -i http://%s/hello", edge.address)
		line("")
	}
	line("  # the question that nginx asks")
	line("  curl -i http://%s/auth -H \"Authorization: Bearer $TOKEN\"", gateway.Address(config.AuthRequest))
	line("  curl -i http://%s/auth", gateway.Address(config.AuthRequest))
	line("")
	line("  # what the operator sees: open http://%s/ in a browser, or", gateway.Address(config.Admin))
	line("  curl -s http://%s/metrics | grep ^bearergate", gateway.Address(config.Admin))
	line("")
	line("  # another token, fetched as a partner does")
	line("  TOKEN=$(%s=%s %s token --url %s --client-id %s)", secretVariable, secret, o.Command, endpoint.URL(), clientID)
	line("")
	line("Envoy's face listens on %s (gRPC), the API without any guard on http://%s/.", gateway.Address(config.ExtAuthz), api.address)
	if edge == nil {
		line("To see the API guarded, start this with --edge envoy or --edge nginx.")
	}
	_, _ = io.WriteString(o.Out, b.String())
}

// secretVariable is what the command token reads a client secret from.
const secretVariable = "BEARERGATE_CLIENT_SECRET" //nolint:gosec // a name, not a secret
