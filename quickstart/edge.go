package quickstart

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/bearergate/bearergate/config"
	"github.com/bearergate/bearergate/deploy"
)

// Edges are the proxies that Run can put in front of the API.
func Edges() []string { return []string{"envoy", "nginx"} }

// edge is a real proxy that runs the recipe of deploy.
type edge struct{ name, address string }

// startTime is how long a proxy may take until it accepts connections.
const startTime = 20 * time.Second

func startEdge(ctx context.Context, parts *sync.WaitGroup, name, dir string, gateway *config.Gateway, api string) (*edge, error) {
	recipe, ask, admin := deploy.Envoy(), config.ExtAuthz, "127.0.0.1:0"
	if name == "nginx" {
		recipe, ask, admin = deploy.Nginx(), config.AuthRequest, ""
	}
	program, err := recipe.Find()
	if err != nil {
		return nil, fmt.Errorf("--edge %s: %w", name, err)
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	text, err := recipe.At(deploy.Addresses{Edge: address, API: api, Gateway: gateway.Address(ask), Admin: admin})
	if err != nil {
		return nil, err
	}
	// nginx's workers are another user if this one is root.
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // nothing secret is in it
		return nil, err
	}
	logs, err := os.Create(filepath.Join(dir, "stderr"))
	if err != nil {
		return nil, err
	}
	cmd, err := recipe.Command(ctx, program, dir, text)
	if err != nil {
		return nil, errors.Join(err, logs.Close())
	}
	cmd.Stderr = logs
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("--edge %s: %w", name, err), logs.Close())
	}
	ended := make(chan struct{})
	parts.Go(func() {
		_ = cmd.Wait() // it is told to end, or its words are shown below
		_ = logs.Close()
		close(ended)
	})
	if err := awaitListener(ctx, address, ended); err != nil {
		words, _ := os.ReadFile(logs.Name())
		return nil, fmt.Errorf("--edge %s: %w; its last words:\n%s", name, err, bytes.TrimSpace(words[max(0, len(words)-2000):]))
	}
	return &edge{name, address}, nil
}

// freeAddress returns an address of loopback that was free a moment ago.
func freeAddress(ctx context.Context) (string, error) {
	var listen net.ListenConfig
	l, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// awaitListener waits until somebody accepts connections.
func awaitListener(ctx context.Context, address string, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	var dialer net.Dialer
	for {
		c, err := dialer.DialContext(ctx, "tcp", address)
		if err == nil {
			return c.Close()
		}
		select {
		case <-again.C:
		case <-ended:
			return errors.New("it ended")
		case <-ctx.Done():
			return fmt.Errorf("it does not listen on %s after %v", address, startTime)
		}
	}
}
