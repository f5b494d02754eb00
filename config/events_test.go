package config_test

import (
	"strings"
	"testing"

	"github.com/bearergate/bearergate/config"
	"github.com/bearergate/bearergate/gate"
)

// TestDecisionsOfAllListenersCanBeWatched with both codecs. A token is
// nowhere in what is told.
func TestDecisionsOfAllListenersCanBeWatched(t *testing.T) {
	for name, options := range map[string][]config.Option{"our codec": nil, "the generated codec": {config.GeneratedCodec()}} {
		t.Run(name, func(t *testing.T) {
			e := local(t)
			g := run(t, `
listeners:
  ext_authz: {address: "127.0.0.1:0"}
  auth_request: {address: "127.0.0.1:0", trust: {original: x-original}}
  admin: {address: "127.0.0.1:0"}
routes: [{hosts: [api.example.com], methods: [POST], policy: writing}]
policies: [{name: writing}]
log: {request_id: true}
`+asking(e.URL()), options...)
			w, err := g.Events().Watch(gate.Filter{Reasons: []gate.Reason{gate.Valid}})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			good := issue(t, e)
			r := checkRequest("authorization", "Bearer "+good, "x-request-id", "00000001", "cookie", good)
			r.Attributes.Request.Http.Method, r.Attributes.Request.Http.Host, r.Attributes.Request.Http.Path = "POST", "API.example.com:80", "/"+good
			if _, err := g.envoy(t).Check(t.Context(), r); err != nil {
				t.Fatal(err)
			}
			request := []string{"X-Original-Method", "POST", "X-Original-Host", "API.example.com:80", "X-Original-Uri", "/" + good, "X-Request-Id", "00000001"}
			get(t, g.Address(config.AuthRequest), "/auth", request...)
			get(t, g.Address(config.AuthRequest), "/auth", append(request, "Authorization", "Bearer "+good)...)
			for _, listener := range []string{config.ExtAuthz, config.AuthRequest} {
				got := *<-w.Events()
				if len(got.Fingerprint) != 12 || strings.Contains(got.Fingerprint, good) {
					t.Errorf("the fingerprint is %q", got.Fingerprint)
				}
				want := gate.Event{
					At: got.At, Listener: listener, Policy: "writing", Reason: gate.Valid, Source: got.Source, Took: got.Took,
					Fingerprint: got.Fingerprint, Method: "POST", Host: "api.example.com", RequestID: "00000001", Client: got.Client, Weight: 1,
				}
				if got != want {
					t.Errorf("told of %+v, want %+v", got, want)
				}
			}
			if len(w.Events()) != 0 {
				t.Errorf("told of %+v, too", *<-w.Events())
			}
		})
	}
}
