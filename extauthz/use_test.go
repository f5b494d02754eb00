package extauthz_test

import (
	"runtime"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/bearergate/bearergate/extauthz"
	"github.com/bearergate/bearergate/gate"
)

// TestAnotherGateDecidesFromNowOn: one that reads more of a request than the gate
// from before. A check that waits while the gates are exchanged ends with the old one.
func TestAnotherGateDecidesFromNowOn(t *testing.T) {
	for name, o := range map[string]extauthz.Options{"by the codec": {}, "by the generated types": {GeneratedCodec: true}} {
		t.Run(name, func(t *testing.T) {
			f := start(t, listenTCP(t), o, func(o *gate.Options) { o.Realm = "before" })
			put := func(token string) *authv3.CheckRequest {
				return about(&authv3.AttributeContext_HttpRequest{
					Method: "PUT", Path: "/orders/1", Host: "a", Headers: map[string]string{"authorization": "Bearer " + token},
				})
			}
			if reply := f.check(t, put(goodToken)); !letThrough(reply) {
				t.Errorf("before: %v", reply)
			}
			held := make(chan *authv3.CheckResponse, 1)
			go func() {
				reply, _ := f.client.Check(t.Context(), put(heldToken))
				held <- reply
			}()
			<-f.oracle.arrived

			f.Use(newGate(t, f.oracle, policies(t)))
			reply := f.check(t, put(goodToken))
			if reason := reply.GetDynamicMetadata().GetFields()["reason"].GetStringValue(); letThrough(reply) || reason != "insufficient_scope" {
				t.Errorf("after: %v", reply)
			}
			close(f.oracle.letGo)
			if reply := <-held; !letThrough(reply) || reply.GetDynamicMetadata().GetFields()["policy"] != nil {
				t.Errorf("what was under way: %v", reply)
			}
		})
	}
}

// TestAGateThatIsUsedNoMoreIsHeldByNobody: what stands behind a gate is closed when
// the last request has let go of it.
func TestAGateThatIsUsedNoMoreIsHeldByNobody(t *testing.T) {
	f := start(t, listenTCP(t), extauthz.Options{})
	gone := make(chan struct{})
	func() {
		g := newGate(t, f.oracle)
		runtime.AddCleanup(g, func(done chan struct{}) { close(done) }, gone)
		f.Use(g)
	}()
	for range 100 { // questions are used again, and may remember
		f.check(t, with("Bearer "+goodToken))
	}
	f.Use(newGate(t, f.oracle))
	for late := time.After(patience); ; {
		runtime.GC()
		select {
		case <-gone:
			return
		case <-late:
			t.Fatal("somebody holds the gate")
		case <-time.After(time.Millisecond):
		}
	}
}
