package config_test

import (
	"fmt"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/bearergate/bearergate/config"
	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
)

// TestTheOperatorSeesWhoIsRefusedMost, with as much of their addresses as is to be
// shown, by what the edges of both faces say.
func TestTheOperatorSeesWhoIsRefusedMost(t *testing.T) {
	e := local(t)
	text := func(trusting, more string) string {
		return "listeners: {ext_authz: {address: \"127.0.0.1:0\"}, auth_request: {address: \"127.0.0.1:0\", trust: {client: " + trusting + "}}, " +
			"admin: {address: \"127.0.0.1:0\"}}\n" + asking(e.URL()) + more
	}
	for name, test := range map[string]struct {
		text string
		want string
	}{
		"in X-Real-IP":       {text("x-real-ip", ""), "[198.51.100.1 192.0.2.7 192.0.2.8]"},
		"in X-Forwarded-For": {text("x-forwarded-for", ""), "[198.51.100.3 192.0.2.7 192.0.2.8]"},
		"not believed":       {text("none", ""), "[192.0.2.7 192.0.2.8]"},
		"networks":           {text("x-real-ip", "client_addresses: networks\n"), "[198.51.100.0/24 192.0.2.0/24]"},
		"nothing":            {text("x-real-ip", "client_addresses: none\n"), "[]"},
	} {
		t.Run(name, func(t *testing.T) {
			g := run(t, test.text)
			for range 3 {
				get(t, g.Address(config.AuthRequest), "/auth", "X-Real-Ip", "198.51.100.1", "X-Forwarded-For", "198.51.100.2, 198.51.100.3")
			}
			for _, client := range []string{"192.0.2.7", "192.0.2.8"} {
				check := checkRequest("authorization", "Bearer made-up")
				check.GetAttributes().Source = &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
					SocketAddress: &corev3.SocketAddress{Address: client, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 1234}},
				}}}
				if _, err := g.envoy(t).Check(t.Context(), check); err != nil {
					t.Fatal(err)
				}
			}
			got, err := admins(t, g.Address(config.Admin), "").Activity(t.Context(), &adminv1.ActivityRequest{})
			if err != nil || len(got.GetTop()) != 2 {
				t.Fatalf("got %v, %v", got, err)
			}
			top := got.GetTop()[0]
			clients := []string{}
			for _, c := range top.GetRefusedClients() {
				clients = append(clients, c.GetName())
			}
			if fmt.Sprint(clients) != test.want {
				t.Errorf("refused most are the clients %v, want %v", clients, test.want)
			}
			tokens := top.GetRefusedTokens()
			if len(tokens) != 2 || tokens[0].GetName() != "none" || tokens[0].GetRequests() != 3 || tokens[0].GetAtLeast() != 3 || tokens[0].GetReason() != "missing_token" || tokens[1].GetReason() != "invalid_token" {
				t.Errorf("refused most are the tokens %v", tokens)
			}
			if policies := top.GetRefusedPolicies(); len(policies) != 1 || policies[0].GetName() != "default" || policies[0].GetRequests() != 5 || len(top.GetAllowedPolicies()) != 0 {
				t.Errorf("got %v", top)
			}
		})
	}
}

func TestWhatIsShownOfClientsChangesWithAReload(t *testing.T) {
	e := local(t)
	text := "listeners: {auth_request: {address: \"127.0.0.1:0\", trust: {client: x-real-ip}}, admin: {address: \"127.0.0.1:0\"}}\n" + asking(e.URL())
	g := runFrom(t, text)
	clients := func() string {
		t.Helper()
		get(t, g.Address(config.AuthRequest), "/auth", "X-Real-Ip", "192.0.2.7")
		got, err := admins(t, g.Address(config.Admin), "").Activity(t.Context(), &adminv1.ActivityRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(got.GetTop()[0].GetRefusedClients())
	}
	before := clients()
	g.become(t, text+"client_addresses: networks\n")
	after := clients()
	if !strings.Contains(before, "192.0.2.7") || strings.Contains(after, "192.0.2.7") || !strings.Contains(after, "192.0.2.0/24") {
		t.Errorf("shown is %s, and then %s", before, after)
	}
}
