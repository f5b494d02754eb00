package e2e

import (
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/bearergate/bearergate/deploy"
)

// testQuestions shows that Caddy keeps no connection from one question to the next.
//
// It dials by a variable of the request, which the proxying to the API sets too. So a
// connection for the question that is dialled late, when the request has gone on by
// another one, goes to the API; kept, it has the API answer the next question, and let
// its own requests through.
func testQuestions(t *testing.T, r *run) {
	var connections atomic.Int64
	// It says yes to all.
	gateway := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	gateway.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	gateway.Start()
	defer gateway.Close()
	e := r.startEdge(t, edgeKind{name: "Caddy that asks again and again", recipe: deploy.Caddy()}, gates{authRequest: gateway.Listener.Addr().String()}, r.api.address())
	const requests = 5
	for range requests {
		if got, name := e.send(t, request{}); got.status != http.StatusOK || len(r.api.of(name)) != 1 {
			t.Fatalf("got %d", got.status)
		}
	}
	if n := connections.Load(); n != requests {
		t.Errorf("%d questions took %d connections", requests, n)
	}
}
