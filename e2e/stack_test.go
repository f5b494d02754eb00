package e2e

import (
	"net/http"
	"strings"
	"testing"
)

// stack is all that stands behind a client: edges, gateway, endpoint and API.
type stack struct {
	run      *run
	api      *api
	endpoint *endpoint
	gateway  *gateway
	edges    []*edge
}

// startStack starts one gateway and an edge of each kind in front of it.
func (r *run) startStack(t *testing.T, name string, kinds []edgeKind, with settings) *stack {
	t.Helper()
	s := &stack{run: r, api: r.api, endpoint: startEndpoint(t, r)}
	with.endpoint = s.endpoint.url()
	s.gateway = r.startGateway(t, "gateway of "+name, with)
	for _, kind := range kinds {
		s.edges = append(s.edges, r.startEdge(t, kind, s.gateway.settings.gates, s.api.address()))
	}
	return s
}

// bearerLine is the header of a client that does everything right.
func bearerLine(token string) []string { return []string{"Authorization: Bearer " + token} }

// The bodies of refusals.
const (
	refusedBody     = `{"error":"missing or invalid auth token"}`
	forbiddenBody   = `{"error":"the token does not allow this"}`
	unclearBody     = `{"error":"the request is not acceptable: its path, host or method is unclear"}`
	unavailableBody = `{"error":"the token could not be checked, try again later"}`
)

// check compares what a client got, and what reached the API, with the answer that
// must be.
func (s *stack) check(t *testing.T, e *edge, got reply, name string, want answer) {
	t.Helper()
	s.checkIn(t, "api", e, got, name, want)
}

// checkIn is check where the policy has another realm.
func (s *stack) checkIn(t *testing.T, realm string, e *edge, got reply, name string, want answer) {
	t.Helper()
	if got.status != want.status {
		t.Fatalf("got %d %q, want %d", got.status, got.body, want.status)
	}
	s.run.expect(e, name, want)
	if want.status == http.StatusOK {
		s.checkAllowed(t, got, name)
		return
	}
	if arrived := s.api.of(name); arrived != nil {
		t.Errorf("it reached the API")
	}
	challenges := got.header.Values("WWW-Authenticate")
	if want.reason == "" {
		return // the edge's own words
	}
	if value := got.header.Values("Content-Type"); len(value) != 1 || value[0] != "application/json" {
		t.Errorf("Content-Type: got %q", value)
	}
	if value := got.header.Values("Cache-Control"); len(value) != 1 || value[0] != "no-store" {
		t.Errorf("Cache-Control: got %q", value)
	}
	switch want.status {
	case http.StatusForbidden, http.StatusBadRequest:
		body, challenge := forbiddenBody, `Bearer realm="`+realm+`", error="`+want.reason+`"`
		if want.reason == badPath.reason { // nobody looked at the token
			body, challenge = unclearBody, ""
		}
		if got.body != body {
			t.Errorf("body: got %q, want %q", got.body, body)
		}
		if len(challenges) > 1 || challenge == "" != (challenges == nil) || !strings.HasPrefix(got.header.Get("WWW-Authenticate"), challenge) {
			t.Errorf("WWW-Authenticate: got %q, want %q…", challenges, challenge)
		}
	case http.StatusUnauthorized:
		if got.body != refusedBody {
			t.Errorf("body: got %q, want %q", got.body, refusedBody)
		}
		if len(challenges) != 1 || !strings.HasPrefix(challenges[0], `Bearer realm="`+realm+`"`) {
			t.Fatalf("WWW-Authenticate: got %q, want one challenge", challenges)
		}
		// RFC 6750 §3.1: a request without credentials is told no error.
		if says := strings.Contains(challenges[0], "error="); says == (want.reason == "missing_token") {
			t.Errorf("WWW-Authenticate: %q for %s", challenges[0], want.reason)
		}
	case http.StatusServiceUnavailable:
		if got.body != unavailableBody {
			t.Errorf("body: got %q, want %q", got.body, unavailableBody)
		}
		if got.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		if challenges != nil {
			t.Errorf("a challenge, though nothing is known against the token: %q", challenges)
		}
	}
}

func (s *stack) checkAllowed(t *testing.T, got reply, name string) {
	t.Helper()
	if got.body != "the API says 200" {
		t.Errorf("body: got %q", got.body)
	}
	arrived := s.api.of(name)
	if len(arrived) != 1 {
		t.Fatalf("it reached the API %d times", len(arrived))
	}
	if values := arrived[0].header.Values("Authorization"); values != nil {
		t.Error("the API got the Authorization header")
	}
}
