package gate_test

import (
	"net/netip"
	"testing"

	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/verifier"
)

func TestAnEventHasAsMuchOfTheClientAsIsShown(t *testing.T) {
	for name, test := range map[string]struct {
		clients       gate.Clients
		edge          string
		want, network string
	}{
		"IPv4":                  {gate.WholeClients, "192.0.2.77", "192.0.2.77", "192.0.2.77/32"},
		"IPv6":                  {gate.WholeClients, "2001:db8:1:2:3::4", "2001:db8:1:2:3::4", "2001:db8:1:2::/64"},
		"IPv4 in IPv6":          {gate.WholeClients, "::ffff:192.0.2.77", "192.0.2.77", "192.0.2.77/32"},
		"IPv6 with a zone":      {gate.WholeClients, "fe80::1%eth0", "fe80::1", "fe80::/64"},
		"none":                  {gate.WholeClients, "", "invalid IP", "invalid Prefix"},
		"a network":             {gate.ClientNetworks, "192.0.2.77", "192.0.2.0", "192.0.2.0/24"},
		"a network of IPv6":     {gate.ClientNetworks, "2001:db8:1:2:3::4", "2001:db8:1::", "2001:db8:1::/48"},
		"a network, in IPv6":    {gate.ClientNetworks, "::ffff:192.0.2.77", "192.0.2.0", "192.0.2.0/24"},
		"a network of none":     {gate.ClientNetworks, "", "invalid IP", "invalid Prefix"},
		"nothing":               {gate.NoClients, "192.0.2.77", "invalid IP", "invalid Prefix"},
		"nothing of IPv6":       {gate.NoClients, "2001:db8::1", "invalid IP", "invalid Prefix"},
		"what nobody has named": {gate.NoClients + 1, "192.0.2.77", "invalid IP", "invalid Prefix"},
	} {
		t.Run(name, func(t *testing.T) {
			var told []*gate.Event
			g := newGate(t, says(verifier.Verdict{Source: verifier.FromCache}, nil), func(o *gate.Options) {
				o.Clients, o.Sampled = test.clients, func(e *gate.Event) { told = append(told, e) }
			})
			r := withToken()
			r.Headers = headersOf{"": test.edge}
			g.Decide(t.Context(), r)
			if len(told) != 1 || told[0].Client.String() != test.want {
				t.Fatalf("told of %+v", told)
			}
			if got := test.clients.Network(told[0].Client).String(); got != test.network {
				t.Errorf("is counted as %s", got)
			}
			whole, _ := netip.ParseAddr(test.edge)
			if got := test.clients.Network(whole.Unmap().WithZone("")).String(); got != test.network {
				t.Errorf("an event from before the change is counted as %s", got)
			}
		})
	}
}
