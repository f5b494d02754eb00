package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/bearergate/bearergate/deploy"
)

// Clients of the authorization server, by the form of their tokens.
const (
	wantsJWT    = "partner-jwt"
	wantsOpaque = "partner-opaque"
)

// authServer is a running authorization server that others have written: the program
// in the folder of that name.
type authServer struct {
	*process
	run        *run
	issuer     string
	secret     string
	secretFile string
	keyFile    string // the private key of the client gateway-with-key
	places     struct {
		Token         string `json:"token_endpoint"`
		Introspection string `json:"introspection_endpoint"`
		Revocation    string `json:"revocation_endpoint"`
	}
}

func buildAuthServer(t *testing.T, dir string) string {
	t.Helper()
	file := filepath.Join(dir, "authserver")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-C", "authserver", "-o", file, ".")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return file
}

func startAuthServer(t *testing.T, r *run, name string) *authServer {
	t.Helper()
	dir := r.folder(t)
	s := &authServer{run: r, secret: r.tokens.invent(30), secretFile: filepath.Join(dir, "secret"), keyFile: filepath.Join(dir, "client.key")}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string][]byte{
		s.secretFile:                       []byte(s.secret),
		s.keyFile:                          pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		filepath.Join(dir, "client.pub"):   pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}),
		filepath.Join(dir, "wrong secret"): []byte("another"),
	} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.process = r.start(t, name, func(ctx context.Context) (*exec.Cmd, error) {
		cmd := exec.CommandContext(ctx, r.authServer, "-secret-file", s.secretFile, "-client-key", filepath.Join(dir, "client.pub"))
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = patience
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		return cmd, nil
	})
	eventually(t, name+" shows its metadata", func() error {
		s.mustRun(t)
		said, err := os.ReadFile(s.stdout)
		if err != nil {
			return err
		}
		s.issuer = strings.TrimSpace(string(said))
		text, err := get(t.Context(), s.issuer+"/.well-known/openid-configuration")
		if err != nil {
			return err
		}
		return json.Unmarshal([]byte(text), &s.places)
	})
	return s
}

// post sends a form as a client with its secret, and reads the answer into answer.
func (s *authServer) post(t *testing.T, place, client string, form url.Values, answer any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, place, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(client, url.QueryEscape(s.secret))
	got, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	if got.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", place, got.Status)
	}
	if answer != nil {
		if err := json.NewDecoder(got.Body).Decode(answer); err != nil {
			t.Fatal(err)
		}
	}
}

// token fetches one as a partner does.
func (s *authServer) token(t *testing.T, client, scope string) string {
	t.Helper()
	var answer struct {
		Token string `json:"access_token"`
	}
	s.post(t, s.places.Token, client, url.Values{"grant_type": {"client_credentials"}, "scope": {scope}}, &answer)
	return s.run.tokens.add(answer.Token)
}

func (s *authServer) revoke(t *testing.T, client, token string) {
	t.Helper()
	s.post(t, s.places.Revocation, client, url.Values{"token": {token}, "token_type_hint": {"access_token"}}, nil)
}

// rotate has the server sign with a new key, and show the old ones still, or not.
func (s *authServer) rotate(t *testing.T, algorithm string, keep bool) {
	t.Helper()
	form := url.Values{"algorithm": {algorithm}}
	if keep {
		form.Set("keep", "1")
	}
	s.post(t, s.issuer+"/control/rotate", wantsJWT, form, nil)
}

// testAuthServer has an authorization server say whose tokens are good: it is asked
// about them in every way in which a client can say who it is, or has signed them.
func testAuthServer(t *testing.T, r *run, codec codecKind) {
	server := startAuthServer(t, r, "the authorization server of "+codec.name)
	more := "policies:\n"
	verifiers := ""
	for name, client := range map[string]string{
		"basic": fmt.Sprintf("{id: gateway, secret: {file: %q}}", server.secretFile),
		"form":  fmt.Sprintf("{authentication: client_secret_post, id: gateway, secret: {file: %q}}", server.secretFile),
		"key":   fmt.Sprintf("{authentication: private_key_jwt, id: gateway-with-key, private_key: {file: %q}, key_id: one, audience: %q}", server.keyFile, server.issuer),
		"wrong": fmt.Sprintf("{id: gateway, secret: {file: %q}}", filepath.Join(filepath.Dir(server.secretFile), "wrong secret")),
	} {
		verifiers += fmt.Sprintf("  - {name: %s, introspection: {url: %q, client: %s}}\n", name, server.places.Introspection, client)
		more += fmt.Sprintf("  - {name: %s, verifiers: [%[1]s], require: {scopes: {all: [\"orders:write\"]}}}\n", name)
	}
	verifiers += fmt.Sprintf("  - {name: signed, jwt: {issuer: %q, audiences: [orders], algorithms: [RS256, ES256], keys: {refresh_every: 1s, pause: 1s}}}\n", server.issuer)
	more += "  - {name: signed, verifiers: [signed], require: {scopes: {all: [\"orders:write\"]}}}\nroutes:\n"
	for _, name := range []string{"basic", "form", "key", "wrong", "signed"} {
		more += fmt.Sprintf("  - {path: {prefix: /%s}, policy: %[1]s}\n", name)
	}
	s := r.startStack(t, "an authorization server and "+codec.name, codec.own([]edgeKind{
		{name: "Envoy in front of an authorization server", recipe: deploy.Envoy()},
		{name: "nginx in front of an authorization server", recipe: deploy.Nginx()},
	}), settings{
		timeout: "3s", flags: codec.flags, trust: ", trust: {original: x-original}", policy: "{verifiers: [crm]}",
		// What is remembered ends soon, so that a revoked token does.
		cache: "{valid_ttl: 1s, invalid_ttl: 1ms, refresh_before: 0s}", verifiers: verifiers, more: more,
	})
	for _, e := range s.edges {
		ask := func(t *testing.T, policy, token string, want answer) {
			t.Helper()
			got, name := e.send(t, request{path: "/" + policy + "/CASE", lines: bearerLine(token)})
			s.check(t, e, got, name, want)
		}
		// becomes asks again and again, since what is remembered has to end first.
		becomes := func(t *testing.T, policy, token string, status int) {
			t.Helper()
			eventually(t, fmt.Sprintf("/%s answers %d", policy, status), func() error {
				got, _, err := e.try(t.Context(), request{path: "/" + policy + "/CASE", lines: bearerLine(token)})
				if err == nil && got.status != status {
					err = fmt.Errorf("got %d", got.status)
				}
				return err
			})
		}
		for _, policy := range []string{"basic", "form", "key", "signed"} {
			t.Run(e.name+", "+policy, func(t *testing.T) {
				jwt, opaque := server.token(t, wantsJWT, "orders:read orders:write"), server.token(t, wantsOpaque, "orders:write")
				ask(t, policy, jwt, allowed)
				ask(t, policy, server.token(t, wantsJWT, "orders:read"), insufficientScope)
				ask(t, policy, jwt[:len(jwt)-4], invalidToken)
				ask(t, policy, r.tokens.invent(40), invalidToken)
				withdrawn := server.token(t, wantsJWT, "orders:write")
				server.revoke(t, wantsJWT, withdrawn)
				if policy == "signed" {
					ask(t, policy, opaque, invalidToken)
					ask(t, policy, withdrawn, allowed) // nobody is asked; it ends when it ends
					return
				}
				ask(t, policy, opaque, allowed)
				ask(t, policy, server.token(t, wantsOpaque, "orders:read"), insufficientScope)
				ask(t, policy, withdrawn, invalidToken)
				server.revoke(t, wantsOpaque, opaque)
				becomes(t, policy, opaque, http.StatusUnauthorized)
				ask(t, policy, opaque, invalidToken)
			})
		}
		t.Run(e.name+", with a wrong secret", func(t *testing.T) {
			ask(t, "wrong", server.token(t, wantsOpaque, "orders:write"), noVerifier)
		})
		t.Run(e.name+", while the server takes other keys", func(t *testing.T) {
			first := server.token(t, wantsJWT, "orders:write")
			ask(t, "signed", first, allowed)
			server.rotate(t, "ES256", true)
			second := server.token(t, wantsJWT, "orders:write")
			becomes(t, "signed", second, http.StatusOK)
			ask(t, "signed", first, allowed)
			server.rotate(t, "RS256", false)
			third := server.token(t, wantsJWT, "orders:write")
			becomes(t, "signed", third, http.StatusOK)
			for _, old := range []string{first, second} {
				becomes(t, "signed", old, http.StatusUnauthorized)
				ask(t, "signed", old, invalidToken)
			}
		})
	}
	jwt, opaque := server.token(t, wantsJWT, "orders:write"), server.token(t, wantsOpaque, "orders:write")
	for _, e := range s.edges {
		got, name := e.send(t, request{path: "/signed/CASE", lines: bearerLine(jwt)})
		s.check(t, e, got, name, allowed)
	}
	server.kill(t)
	for _, e := range s.edges {
		t.Run(e.name+", while the server is away", func(t *testing.T) {
			for policy, want := range map[string]answer{"basic": noVerifier, "form": noVerifier, "key": noVerifier} {
				got, name := e.send(t, request{path: "/" + policy + "/CASE", lines: bearerLine(opaque)})
				s.check(t, e, got, name, want)
			}
			// Its keys are known for an hour yet.
			got, name := e.send(t, request{path: "/signed/CASE", lines: bearerLine(jwt)})
			s.check(t, e, got, name, allowed)
		})
	}
}
