package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/bearergate/bearergate/bench/load"
	"github.com/bearergate/bearergate/bench/measure"
)

// contender is a server under load.
type contender struct {
	name    string
	missing string // why it is not measured, if it is not
	version string
	turns   []measure.Turn

	server   *measure.Process
	beside   *measure.Process // a gateway that works for it
	endpoint *endpoint        // whom a peer asks about tokens
	open     bool             // it allows everything
	// allows asks about one token.
	allows func(ctx context.Context, token string) (bool, error)
	// take measures a turn.
	take  takeFunc
	close []func()
}

// takeFunc measures a turn.
type takeFunc func(ctx context.Context, duration time.Duration) (measure.Turn, error)

// end ends all that the contender has started.
func (c *contender) end() {
	for _, end := range slices.Backward(c.close) {
		end()
	}
	c.close = nil
}

// speaksGRPC makes it a contender that is sent checks.
func (c *contender) speaksGRPC(st *stage, p *measure.Process) {
	c.server, c.close = p, append(c.close, p.Close)
	c.allows = func(ctx context.Context, token string) (bool, error) { return checkAllows(ctx, st.kind, p.GRPC, token) }
	c.take = c.takeLoad(func(ctx context.Context) (*load.Load, error) {
		checks, err := st.kind.Checks(st.tokens)
		if err != nil {
			return nil, err
		}
		return measure.NewGRPCLoad(ctx, p.GRPC, checks)
	})
}

// speaksHTTP makes it a contender that is sent requests.
func (c *contender) speaksHTTP(st *stage, p *measure.Process, requests func(tokens []string) [][]byte) {
	c.server, c.close = p, append(c.close, p.Close)
	c.allows = requestsAllow(p.HTTP, requests)
	c.take = c.takeLoad(func(ctx context.Context) (*load.Load, error) {
		return measure.NewHTTPLoad(ctx, p.HTTP, requests(st.tokens))
	})
}

// takeLoad measures a turn with a load. That connects in the first turn: a server may
// not wait long for a first request.
func (c *contender) takeLoad(connect func(context.Context) (*load.Load, error)) takeFunc {
	var l *load.Load
	return func(ctx context.Context, duration time.Duration) (measure.Turn, error) {
		if l == nil {
			connected, err := connect(ctx)
			if err != nil {
				return measure.Turn{}, err
			}
			l, c.close = connected, append(c.close, func() { _ = connected.Close() })
		}
		return measure.Take(ctx, c.server, l, duration)
	}
}

// checkAllows sends a check of a token and tells whether it was allowed. An error
// means that there was no answer.
func checkAllows(ctx context.Context, k measure.Kind, address, token string) (bool, error) {
	checks, err := k.Checks([]string{token})
	if err != nil {
		return false, err
	}
	var check authv3.CheckRequest
	if err := proto.Unmarshal(checks[0], &check); err != nil {
		return false, err
	}
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return false, err
	}
	defer conn.Close()
	response, err := authv3.NewAuthorizationClient(conn).Check(ctx, &check)
	if err != nil {
		return false, err
	}
	return response.GetStatus() != nil && response.GetStatus().GetCode() == 0, nil
}

// requestsAllow asks with requests.
func requestsAllow(address string, requests func(tokens []string) [][]byte) func(context.Context, string) (bool, error) {
	return func(ctx context.Context, token string) (bool, error) {
		return requestAllows(ctx, address, requests([]string{token})[0])
	}
}

// requestAllows sends a request, and tells whether it was allowed. An error means
// that there was no answer.
func requestAllows(ctx context.Context, address string, request []byte) (bool, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := conn.Write(request); err != nil {
		return false, err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return false, err
	}
	return response.StatusCode == http.StatusOK, response.Body.Close()
}

// asks starts an endpoint for it.
func (c *contender) asks(ctx context.Context, st *stage) error {
	e, err := startEndpoint(ctx, st.tokens)
	if err != nil {
		return err
	}
	c.endpoint, c.close = e, append(c.close, e.close)
	return nil
}

// ready waits until a peer that was just started allows the first token. What it has
// written is part of the error.
func (c *contender) ready(ctx context.Context, st *stage, out io.Reader) error {
	written := &tail{}
	c.server.Drain(io.TeeReader(out, written))
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		allowed, err := c.allowsInTime(ctx, st.tokens[0])
		if allowed {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("does not get ready: %w\n%s", errors.Join(err, ctx.Err()), written)
		}
	}
}

// warm lets a contender ask about each token, takes the endpoint away, and sees that
// nothing changes.
func (c *contender) warm(ctx context.Context, st *stage) error {
	if err := c.checksTokens(ctx, st); err != nil {
		return err
	}
	if c.endpoint != nil {
		if asked := c.endpoint.asked.Load(); asked < int64(len(st.tokens)) {
			return fmt.Errorf("its endpoint was asked %d times about %d tokens", asked, len(st.tokens))
		}
		c.endpoint.close()
	}
	for _, p := range []*measure.Process{c.server, c.beside} {
		if p != nil {
			p.CloseEndpoint()
		}
	}
	if err := c.checksTokens(ctx, st); err != nil {
		return fmt.Errorf("without the endpoint: %w", err)
	}
	return nil
}

// checksTokens sees that each token is allowed and a made-up one is not.
func (c *contender) checksTokens(ctx context.Context, st *stage) error {
	for n, token := range st.tokens {
		if allowed, err := c.allowsInTime(ctx, token); err != nil || !allowed {
			return fmt.Errorf("token %d is not allowed: %w", n, cmp.Or(err, errRefused))
		}
	}
	allowed, err := c.allowsInTime(ctx, st.madeUp)
	switch {
	case err != nil:
		return fmt.Errorf("a made-up token: %w", err)
	case allowed != c.open:
		return fmt.Errorf("a made-up token: allowed is %t", allowed)
	default:
		return nil
	}
}

var errRefused = errors.New("refused")

func (c *contender) allowsInTime(ctx context.Context, token string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return c.allows(ctx, token)
}

// tail keeps the last that a server wrote.
type tail struct {
	mu   sync.Mutex
	text []byte
}

// Write keeps p.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-4096):]
	return len(p), nil
}

// String returns what was kept.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.text)
}
