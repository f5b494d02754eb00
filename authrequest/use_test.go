package authrequest_test

import (
	"net/http"
	"testing"

	"github.com/bearergate/bearergate/authrequest"
	"github.com/bearergate/bearergate/gate"
)

// TestAnotherGateDecidesFromNowOn, and other things are believed. A request that
// waits while the gates are exchanged ends with the old one.
func TestAnotherGateDecidesFromNowOn(t *testing.T) {
	f := start(t, newPipes(), authrequest.Options{})
	waiting, other := f.dial(t), f.dial(t)
	waiting.send(t, lines(get("Bearer "+heldToken)))
	<-f.oracle.arrived

	f.Use(newGate(t, f.oracle, func(o *gate.Options) { o.Realm = "after" }), authrequest.Trust{Secret: "a-secret-of-the-edge"})
	other.send(t, lines(get("Bearer "+goodToken)))
	if got := other.receive(t, http.MethodGet); got.StatusCode != http.StatusServiceUnavailable || got.reason() != "untrusted_edge" {
		t.Errorf("after, without the secret: %d %v", got.StatusCode, got.Header)
	}
	other.send(t, lines("GET /auth HTTP/1.1\nHost: gateway\n"+authrequest.SecretHeader+": a-secret-of-the-edge\n\n"))
	if got := other.receive(t, http.MethodGet); got.StatusCode != http.StatusUnauthorized || got.Header.Get("WWW-Authenticate") != `Bearer realm="after"` {
		t.Errorf("after, without a token: %d %v", got.StatusCode, got.Header)
	}
	close(f.oracle.letGo)
	if got := waiting.receive(t, http.MethodGet); got.StatusCode != http.StatusOK {
		t.Errorf("what was under way: %d", got.StatusCode)
	}
}
