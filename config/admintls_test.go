package config_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/bearergate/bearergate/config"
	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
)

// TestTheAdminAPISpeaksGRPC as grpc-go does: without TLS, with it, and with who calls
// proved by a certificate. The page stays where browsers find it.
func TestTheAdminAPISpeaksGRPC(t *testing.T) {
	w := newWallet(t)
	for name, test := range map[string]struct {
		tls    string
		caller *tls.Config // nil: without TLS
		who    string
		want   codes.Code
	}{
		"without TLS":                       {"", nil, "127.0.0.1:", codes.OK},
		"over TLS":                          {w.lines(""), w.edge(t), "127.0.0.1:", codes.OK},
		"with a certificate":                {w.mutual(), w.edge(t, "operator.example"), "operator.example at 127.0.0.1:", codes.OK},
		"with a certificate of a name":      {w.mutual() + ", client_names: [operator.example]", w.edge(t, "operator.example"), "operator.example at 127.0.0.1:", codes.OK},
		"with a certificate of another one": {w.mutual() + ", client_names: [operator.example]", w.edge(t, "other.example"), "", codes.Unavailable},
		"without a certificate":             {w.mutual(), w.edge(t), "", codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			lines, transport := "", insecure.NewCredentials()
			if test.caller != nil {
				lines, transport = ", tls: {"+test.tls+"}", credentials.NewTLS(test.caller)
			}
			g := run(t, fmt.Sprintf("listeners: {auth_request: {address: \"127.0.0.1:0\"}, admin: {address: \"127.0.0.1:0\"%s}}\n", lines)+asking("https://api.example.com/"))
			address := g.Address(config.Admin)
			conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(transport))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			const service = "/bearergate.admin.v1.AdminService/"
			denied := new(adminv1.DenyResponse)
			err = conn.Invoke(t.Context(), service+"Deny", &adminv1.DenyRequest{Which: &adminv1.DenyRequest_Fingerprint{Fingerprint: "0123456789ab"}, Reason: "x"}, denied)
			if status.Code(err) != test.want || !strings.HasPrefix(denied.GetDenial().GetWho(), test.who) {
				t.Fatalf("Deny: %v, %v", denied, err)
			}
			if test.want != codes.OK {
				return
			}
			stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, service+"Tail")
			if err != nil {
				t.Fatal(err)
			}
			first := new(adminv1.TailResponse)
			for _, err := range []error{stream.SendMsg(&adminv1.TailRequest{}), stream.CloseSend(), stream.RecvMsg(first)} {
				if err != nil {
					t.Fatal(err)
				}
			}
			get(t, g.Address(config.AuthRequest), "/auth")
			for len(first.GetDecisions()) == 0 {
				if err := stream.RecvMsg(first); err != nil {
					t.Fatal(err)
				}
			}
			if got := first.GetDecisions()[0].GetReason(); got != "missing_token" {
				t.Errorf("Tail says %s", got)
			}
			if test.caller == nil {
				return
			}
			for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
				transport := &http.Transport{TLSClientConfig: test.caller, ForceAttemptHTTP2: protocol == "HTTP/2.0"}
				resp, err := (&http.Client{Transport: transport}).Get("https://" + address + "/livez")
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				transport.CloseIdleConnections()
				if resp.StatusCode != http.StatusOK || resp.Proto != protocol {
					t.Errorf("/livez says %d by %s, want it by %s", resp.StatusCode, resp.Proto, protocol)
				}
			}
		})
	}
}
