package config_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/bearergate/bearergate/config"
	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
	"github.com/bearergate/bearergate/proto/bearergate/admin/v1/adminv1connect"
)

// admins calls the admin API at an address.
func admins(t *testing.T, address, credential string) adminv1connect.AdminServiceClient {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	client := &http.Client{Transport: bearing(func(r *http.Request) (*http.Response, error) {
		if credential != "" {
			r = r.Clone(r.Context())
			r.Header.Set("Authorization", "Bearer "+credential)
		}
		return transport.RoundTrip(r)
	})}
	return adminv1connect.NewAdminServiceClient(connect.NewClient(connecthttp.NewTransport(client, "http://"+address)))
}

type bearing func(*http.Request) (*http.Response, error)

func (b bearing) RoundTrip(r *http.Request) (*http.Response, error) { return b(r) }

// TestADenialOutlivesAReload, though it makes the verifier anew.
func TestADenialOutlivesAReload(t *testing.T) {
	e := local(t)
	token := issue(t, e)
	text := "listeners: {auth_request: {address: \"127.0.0.1:0\"}, admin: {address: \"127.0.0.1:0\"}}\n" +
		"verifiers: [{name: crm, verifytoken: {url: \"" + e.URL() + "\"}}]\n"
	var level slog.LevelVar
	r := runFrom(t, text, config.LogLevel(&level))
	ask := func() int {
		return get(t, r.Address(config.AuthRequest), "/auth", "Authorization", "Bearer "+token).status
	}
	if got := ask(); got != http.StatusOK {
		t.Fatalf("a good token: %d", got)
	}
	c := admins(t, r.Address(config.Admin), "")
	d, err := c.Deny(t.Context(), &adminv1.DenyRequest{Which: &adminv1.DenyRequest_Token{Token: token}, Reason: "leaked"})
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(); got != http.StatusUnauthorized {
		t.Errorf("a denied token: %d", got)
	}
	r.become(t, text+"cache: {valid_ttl: 30s}\n")
	if got := ask(); got != http.StatusUnauthorized {
		t.Errorf("a denied token, after a reload: %d", got)
	}
	s, err := c.Status(t.Context(), &adminv1.StatusRequest{})
	if err != nil || s.GetConfiguration().GetGeneration() != 2 || s.GetDenied() != 1 || len(s.GetListeners()) != 2 || len(s.GetVerifiers()) != 1 || s.GetVersion() != "v1.2.3-test" {
		t.Errorf("the status is %v, %v", s, err)
	}
	if _, err := c.SetLog(t.Context(), &adminv1.SetLogRequest{Level: "warn"}); err != nil || level.Level() != slog.LevelWarn {
		t.Errorf("SetLog: %v, %v", err, level.Level())
	}
	if _, err := c.ResetBreaker(t.Context(), &adminv1.ResetBreakerRequest{Verifier: "crm"}); err != nil {
		t.Errorf("ResetBreaker: %v", err)
	}
	if log := r.log.text(); strings.Contains(log, token) || !strings.Contains(log, d.GetDenial().GetFingerprint()) {
		t.Errorf("the log says\n%s", log)
	}
}

func TestTheCredentialOfTheAdminAPIIsReadAtEachCall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credential")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const first, second = "the-first-credential", "the-second-credential"
	write(first + "\n")
	g := run(t, fmt.Sprintf("listeners: {ext_authz: {address: \"127.0.0.1:0\"}, admin: {address: \"0.0.0.0:0\", api: {credential: {file: %q}}}}\n", path)+asking("https://api.example.com/"))
	address := strings.Replace(g.Address(config.Admin), "[::]", "127.0.0.1", 1)
	for _, step := range []struct {
		file, sent string
		want       connect.Code
	}{
		{first, first, 0},
		{first, second, connect.CodeUnauthenticated},
		{first, "", connect.CodeUnauthenticated},
		{second, second, 0},
		{second, first, connect.CodeUnauthenticated},
		{"short", "short", connect.CodeUnavailable},
	} {
		write(step.file)
		_, err := admins(t, address, step.sent).Status(t.Context(), &adminv1.StatusRequest{})
		if err == nil && step.want != 0 || err != nil && connect.CodeOf(err) != step.want {
			t.Errorf("with %q in the file and %q sent: %v", step.file, step.sent, err)
		}
	}
	if got := get(t, address, "/livez").status; got != http.StatusOK {
		t.Errorf("/livez says %d", got)
	}
}

func TestTheAdminAPICanBeLeftOut(t *testing.T) {
	g := run(t, "listeners: {ext_authz: {address: \"127.0.0.1:0\"}, admin: {address: \"127.0.0.1:0\", api: {off: true}}}\n"+asking("https://api.example.com/"))
	if _, err := admins(t, g.Address(config.Admin), "").Status(t.Context(), &adminv1.StatusRequest{}); connect.CodeOf(err) != connect.CodeUnimplemented {
		t.Errorf("Status: %v", err)
	}
	if got := get(t, g.Address(config.Admin), "/livez").status; got != http.StatusOK {
		t.Errorf("/livez says %d", got)
	}
}

// TestTheLogNamesTheAdminListenerThatWasCalled, of which there may be several.
func TestTheLogNamesTheAdminListenerThatWasCalled(t *testing.T) {
	r := runFrom(t, "listeners: {auth_request: {address: \"127.0.0.1:0\"}, admin: {address: \"127.0.0.1:0\"}, more: [{name: operators, admin: {address: \"127.0.0.1:0\"}}]}\n"+
		asking("https://api.example.com/"))
	for _, listener := range []string{config.Admin, "operators"} {
		if _, err := admins(t, r.Address(listener), "").SetLog(t.Context(), &adminv1.SetLogRequest{Allowed: &adminv1.SetLogRequest_AllowedOneIn{AllowedOneIn: 7}}); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf(`"msg":"the gateway was changed through the admin API","listener":%q,"who":"127.0.0.1:`, listener)
		if text := r.log.text(); strings.Count(text, want) != 1 {
			t.Errorf("the log has no line like %s:\n%s", want, text)
		}
	}
}
