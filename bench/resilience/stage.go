package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/bearergate/bearergate/config"
	"github.com/bearergate/bearergate/crmnow"
)

// stageOptions are what a scenario sets.
type stageOptions struct {
	validTTL string
	delay    time.Duration // of each answer of the endpoint
}

// callsMax is the gateway's default for calls.max, which the scenarios hold it to.
const callsMax = 64

// stage is an endpoint and a gateway, both with the defaults but for what the
// scenario sets, and a client.
type stage struct {
	endpoint *crmnow.Local
	client   *http.Client
	url      string
	stop     context.CancelFunc
	running  sync.WaitGroup
}

func newStage(ctx context.Context, o stageOptions, logger *slog.Logger) (*stage, error) {
	endpoint, err := crmnow.StartLocal(crmnow.EmulatorOptions{MaxTokens: 1_000_000})
	if err != nil {
		return nil, err
	}
	if err := endpoint.SetFault(crmnow.Verify, crmnow.Fault{Delay: o.delay}); err != nil {
		return nil, err
	}
	file := fmt.Sprintf("listeners: {auth_request: {address: \"127.0.0.1:0\"}}\n"+
		"verifiers: [{name: crm, verifytoken: {url: %q}}]\ncache: {valid_ttl: %s}\n", endpoint.URL(), o.validTTL)
	c, err := config.Parse("resilience.yaml", []byte(file), func(string) (string, bool) { return "", false })
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	gateway, err := config.NewGateway(ctx, c, logger, "bench")
	if err != nil {
		stop()
		return nil, err
	}
	s := &stage{
		endpoint: endpoint,
		client:   &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8192}, Timeout: 10 * time.Second},
		url:      "http://" + gateway.Address(config.AuthRequest) + "/auth",
		stop:     stop,
	}
	s.running.Go(func() { _ = gateway.Run(ctx) }) // what fails here is seen in the table
	return s, nil
}

func (s *stage) close() {
	s.stop()
	s.running.Wait()
	s.client.CloseIdleConnections()
	_ = s.endpoint.Close()
}

// issue returns new good tokens.
func (s *stage) issue(n int) ([]string, error) {
	tokens := make([]string, n)
	for i := range tokens {
		grant, err := s.endpoint.Issue(0)
		if err != nil {
			return nil, err
		}
		tokens[i] = grant.AccessToken.Reveal()
	}
	return tokens, nil
}

// ask asks the gateway about a token as nginx does, and returns the status.
func (s *stage) ask(ctx context.Context, token string) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, http.NoBody)
	if err != nil {
		return 0, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	got, err := s.client.Do(r)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, got.Body) // or else the connection is lost
	return got.StatusCode, errors.Join(err, got.Body.Close())
}

// warm asks about each token once, as many at a time as the endpoint may get.
func (s *stage) warm(ctx context.Context, tokens []string) error {
	next := make(chan string)
	var group sync.WaitGroup
	for range callsMax / 2 {
		group.Go(func() {
			for token := range next {
				_, _ = s.ask(ctx, token) // what is not warm is seen in the table
			}
		})
	}
	defer group.Wait()
	defer close(next)
	for _, token := range tokens {
		select {
		case next <- token:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
