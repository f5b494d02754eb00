package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"
)

// testTrouble goes through a bad night, through all edges at once: the endpoint goes
// and comes back, then the gateway does.
func testTrouble(t *testing.T, s *stack) {
	type client struct {
		known string // a token that was good before the trouble
		fresh string // one that nobody has seen before it
	}
	clients := map[*edge]*client{}
	for _, e := range s.edges {
		clients[e] = &client{known: s.endpoint.issue(t), fresh: s.endpoint.issue(t)}
	}
	ask := func(t *testing.T, e *edge, token string, want answer) {
		t.Helper()
		got, name := e.send(t, request{lines: bearerLine(token)})
		s.check(t, e, got, name, want)
	}
	// all lets every edge take one step at the same time.
	all := func(step string, do func(t *testing.T, e *edge, c *client)) {
		t.Run(step, func(t *testing.T) {
			for _, e := range s.edges {
				t.Run(e.name, func(t *testing.T) {
					t.Parallel()
					do(t, e, clients[e])
				})
			}
		})
	}

	all("a good token passes", func(t *testing.T, e *edge, c *client) {
		ask(t, e, c.known, allowed)
	})
	s.endpoint.down(t)
	all("the endpoint is down", func(t *testing.T, e *edge, c *client) {
		ask(t, e, c.fresh, noVerifier)
		ask(t, e, c.known, allowed)
		ask(t, e, s.run.tokens.invent(40), noVerifier)
	})
	s.endpoint.up(t)
	all("the endpoint is back", func(t *testing.T, e *edge, c *client) {
		// The gateway tries again every second.
		eventually(t, "the token that nobody could check passes through "+e.name, func() error {
			got, _, err := e.try(t.Context(), request{lines: bearerLine(c.fresh)})
			if err == nil && got.status != http.StatusOK {
				err = fmt.Errorf("got %d", got.status)
			}
			return err
		})
		ask(t, e, c.fresh, allowed)
		ask(t, e, s.run.tokens.invent(40), invalidToken)
	})
	for _, fault := range faults() {
		end := s.endpoint.trouble(t, fault.fault)
		all("the endpoint "+fault.name, func(t *testing.T, e *edge, c *client) {
			ask(t, e, s.endpoint.issue(t), noVerifier)
			ask(t, e, c.known, allowed)
		})
		end()
	}

	s.gateway.kill(t)
	all("the gateway is killed", func(t *testing.T, e *edge, c *client) {
		for _, token := range []string{c.known, c.fresh, s.run.tokens.invent(40)} {
			ask(t, e, token, noGateway)
		}
		got, name := e.send(t, request{})
		s.check(t, e, got, name, noGateway)
	})
	begin := time.Now()
	s.restart(t)
	all("the gateway is back", func(t *testing.T, e *edge, c *client) {
		// Envoy waits a little before it tries to connect again.
		eventually(t, e.name+" finds the gateway again", func() error {
			got, _, err := e.try(t.Context(), request{lines: bearerLine(c.known)})
			if err != nil {
				return err
			}
			if got.status != http.StatusOK {
				return fmt.Errorf("got %d, %s after the gateway was started", got.status, time.Since(begin))
			}
			return nil
		})
		ask(t, e, c.known, allowed)
		ask(t, e, s.run.tokens.invent(40), invalidToken)
	})
}

// restart starts the gateway again where it was.
func (s *stack) restart(t *testing.T) {
	t.Helper()
	s.gateway = s.run.startGateway(t, s.gateway.name+", again", s.gateway.settings)
}
