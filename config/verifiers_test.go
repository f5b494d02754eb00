package config_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/bearergate/bearergate/config"
)

// server is an authorization server with one key, which signs, publishes its key and introspects.
type server struct {
	*httptest.Server
	mu      sync.Mutex
	key     *ecdsa.PrivateKey
	secret  string
	active  string // the answer to introspections
	asked   int
	fetched int
}

func startServer(t *testing.T) *server {
	t.Helper()
	s := &server{secret: "first secret", active: `{"active": true}`}
	s.rotate(t)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch r.URL.Path {
		case "/.well-known/openid-configuration":
			_ = json.NewEncoder(w).Encode(map[string]string{"issuer": s.URL, "jwks_uri": s.URL + "/keys"})
		case "/keys":
			s.fetched++
			_, _ = io.WriteString(w, s.keys())
		case "/introspect":
			s.asked++
			if _, password, _ := r.BasicAuth(); password != strings.ReplaceAll(s.secret, " ", "+") {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			_, _ = io.WriteString(w, s.active)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) keys() string {
	text, _ := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: s.key.Public(), KeyID: "key-1", Use: "sig", Algorithm: "ES256"}}})
	return string(text)
}

func (s *server) rotate(t *testing.T) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.key = key
}

// token signs one for the audience orders, with changes.
func (s *server) token(t *testing.T, changes map[string]any) string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: s.key, KeyID: "key-1"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	claims := map[string]any{"iss": s.URL, "aud": "orders", "exp": time.Now().Add(time.Hour).Unix(), "jti": rand.Text()}
	maps.Copy(claims, changes)
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (s *server) counts() (asked, fetched int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked, s.fetched
}

// runFile runs a gateway from a file, with the real environment.
func runFile(t *testing.T, text string) *running {
	t.Helper()
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	return runParsed(t, c)
}

func TestAJWTVerifierDoesWhatItsFieldsSay(t *testing.T) {
	s := startServer(t)
	file := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(file, []byte(s.keys()), 0o600); err != nil {
		t.Fatal(err)
	}
	for keys, text := range map[string]string{
		"metadata": "",
		"url":      fmt.Sprintf(", keys: {url: %q}", s.URL+"/keys"),
		"file":     fmt.Sprintf(", keys: {file: %q}", file),
	} {
		t.Run(keys, func(t *testing.T) {
			g := run(t, everywhere+fmt.Sprintf("verifiers: [{name: sso, jwt: {issuer: %q, audiences: [orders], algorithms: [ES256], leeway: 1m%s}}]\n", s.URL, text))
			for name, test := range map[string]struct {
				token  string
				status int
			}{
				"a good one":           {s.token(t, nil), http.StatusOK},
				"for another audience": {s.token(t, map[string]any{"aud": "billing"}), http.StatusUnauthorized},
				"of another issuer":    {s.token(t, map[string]any{"iss": "https://other.example.com"}), http.StatusUnauthorized},
				"within the leeway":    {s.token(t, map[string]any{"nbf": time.Now().Add(30 * time.Second).Unix()}), http.StatusOK},
				"beyond the leeway":    {s.token(t, map[string]any{"nbf": time.Now().Add(2 * time.Minute).Unix()}), http.StatusUnauthorized},
				"opaque":               {"opaque", http.StatusUnauthorized},
			} {
				if got := g.ask(t, test.token); got.status != test.status {
					t.Errorf("%s: got %+v", name, got)
				}
			}
		})
	}
	g := run(t, everywhere+fmt.Sprintf("verifiers: [{name: sso, jwt: {issuer: %q, audiences: [orders], algorithms: [ES256], access_tokens_only: true}}]\n", s.URL))
	if got := g.ask(t, s.token(t, nil)); got.status != http.StatusUnauthorized {
		t.Errorf("a token of no type is taken for an access token: %+v", got)
	}
	g = run(t, everywhere+fmt.Sprintf("verifiers: [{name: sso, jwt: {issuer: %q, audiences: [orders], algorithms: [RS256]}}]\n", s.URL))
	if got := g.ask(t, s.token(t, nil)); got.status != http.StatusUnauthorized {
		t.Errorf("another algorithm is taken: %+v", got)
	}
}

// TestManyTokensWhoseKeysNobodyKnowsLeaveTheWayOpen: there is no breaker that they could open.
func TestManyTokensWhoseKeysNobodyKnowsLeaveTheWayOpen(t *testing.T) {
	s := startServer(t)
	g := run(t, everywhere+fmt.Sprintf("verifiers: [{name: sso, jwt: {issuer: %q, audiences: [orders], algorithms: [ES256], keys: {url: %q}}}]\n", s.URL, s.URL+"/none"))
	for range 50 {
		if got := g.ask(t, s.token(t, nil)); got.status != http.StatusServiceUnavailable || got.reason() != "verifier_unavailable" {
			t.Fatalf("got %+v", got)
		}
	}
	if open := g.metric(t, `bearergate_verifier_breaker_state{state="open",verifier="sso"}`); open != "0" {
		t.Errorf("the breaker is open: %s", open)
	}
}

func TestVerifiersAreAskedInTheirOrder(t *testing.T) {
	s, e := startServer(t), local(t)
	g := run(t, everywhere+fmt.Sprintf(`
verifiers:
  - name: crm
    verifytoken: {url: %q}
  - name: sso
    jwt: {issuer: %q, audiences: [orders], algorithms: [ES256]}
default_policy: {verifiers: [sso, crm]}
`, e.URL(), s.URL))
	if got := g.ask(t, issue(t, e)); got.status != http.StatusOK {
		t.Errorf("a token of crm gets %+v", got)
	}
	if got := g.ask(t, s.token(t, nil)); got.status != http.StatusOK {
		t.Errorf("a token of sso gets %+v", got)
	}
	if got := g.ask(t, s.token(t, map[string]any{"aud": "billing"})); got.status != http.StatusUnauthorized {
		t.Errorf("a token of sso for others gets %+v", got)
	}
	if calls := g.metric(t, `bearergate_verifier_call_duration_seconds_count{outcome="invalid",verifier="crm"}`); calls != "0" {
		t.Errorf("crm was asked about tokens of sso %s times", calls)
	}
}

// TestAForgedTokenNeverReachesTheEndpoint behind a jwt verifier, and both have to agree.
func TestAForgedTokenNeverReachesTheEndpoint(t *testing.T) {
	s, forger := startServer(t), startServer(t)
	t.Setenv("GATEWAY_SECRET", "first secret")
	g := runFile(t, everywhere+fmt.Sprintf(`
verifiers:
  - name: sso
    introspection: {url: %q, client: {id: gateway, secret: {environment: GATEWAY_SECRET}}}
    behind: signed
  - name: signed
    jwt: {issuer: %q, audiences: [orders], algorithms: [ES256]}
default_policy: {verifiers: [sso]}
`, s.URL+"/introspect", s.URL))
	for range 10 {
		if got := g.ask(t, forger.token(t, map[string]any{"iss": s.URL})); got.status != http.StatusUnauthorized {
			t.Errorf("a forged token gets %+v", got)
		}
	}
	if got := g.ask(t, "opaque"); got.status != http.StatusUnauthorized {
		t.Errorf("an opaque token gets %+v", got)
	}
	if asked, _ := s.counts(); asked != 0 {
		t.Errorf("the endpoint was asked %d times", asked)
	}
	if got := g.ask(t, s.token(t, nil)); got.status != http.StatusOK {
		t.Errorf("a good token gets %+v", got)
	}
	s.mu.Lock()
	s.active = `{"active": false}`
	s.mu.Unlock()
	if got := g.ask(t, s.token(t, nil)); got.status != http.StatusUnauthorized {
		t.Errorf("a withdrawn token gets %+v", got)
	}
	if asked, _ := s.counts(); asked != 2 {
		t.Errorf("the endpoint was asked %d times", asked)
	}
}

func TestSecretsComeFromTheirPlaces(t *testing.T) {
	folder := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", folder)
	t.Setenv("GATEWAY_SECRET", "first secret")
	for _, name := range []string{"file.txt", "credential"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte("first secret\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, place := range map[string]string{
		"file":        fmt.Sprintf("file: %q", filepath.Join(folder, "file.txt")),
		"environment": "environment: GATEWAY_SECRET",
		"credential":  "credential: credential",
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t)
			g := runFile(t, everywhere+fmt.Sprintf("verifiers: [{name: sso, introspection: {url: %q, client: {id: gateway, secret: {%s}}}}]\n", s.URL+"/introspect", place))
			if got := g.ask(t, rand.Text()); got.status != http.StatusOK {
				t.Errorf("got %+v", got)
			}
			s.mu.Lock()
			s.secret = "second secret"
			s.mu.Unlock()
			if got := g.ask(t, rand.Text()); got.status != http.StatusServiceUnavailable {
				t.Errorf("with the old secret: got %+v", got)
			}
			if name == "environment" {
				return
			}
			file := filepath.Join(folder, map[string]string{"file": "file.txt", "credential": "credential"}[name])
			if err := os.WriteFile(file, []byte("second secret\r\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := g.ask(t, rand.Text()); got.status != http.StatusOK {
				t.Errorf("with the new secret: got %+v", got)
			}
			for _, e := range g.log.entries(t) {
				if strings.Contains(e.Message+e.Error, "second secret") || strings.Contains(e.Message+e.Error, "first secret") {
					t.Errorf("a secret is in the log: %+v", e)
				}
			}
		})
	}
}

// TestKeysInAFileAreTakenWhenItChanges, without anybody asking for it: what the key from
// before has signed is refused, though it was remembered as good.
func TestKeysInAFileAreTakenWhenItChanges(t *testing.T) {
	s := startServer(t)
	file := filepath.Join(t.TempDir(), "keys.json")
	put := func(keys string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(keys), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(s.keys())
	g := runFrom(t, everywhere+fmt.Sprintf("verifiers: [{name: sso, jwt: {issuer: %q, audiences: [orders], algorithms: [ES256], keys: {file: %q}}}]\n", s.URL, file))
	before := s.token(t, nil)
	if got := g.ask(t, before); got.status != http.StatusOK {
		t.Errorf("a token of the first key gets %+v", got)
	}
	s.rotate(t)
	put(s.keys())
	eventually(t, "end of the first key", func() bool { return g.ask(t, before).status == http.StatusUnauthorized })
	if got := g.ask(t, s.token(t, nil)); got.status != http.StatusOK {
		t.Errorf("a token of the second key gets %+v", got)
	}
	put(`{"keys": []}`) // what cannot be used changes nothing
	eventually(t, "word of it", func() bool { return g.told(t, "ERROR", "the configuration cannot be used") == 1 })
	if got := g.ask(t, s.token(t, nil)); got.status != http.StatusOK {
		t.Errorf("a token of the second key gets %+v, with a file that cannot be used", got)
	}
}

// TestEachVerifierHasItsOwnMemory: what one says of a token is not what another says.
func TestEachVerifierHasItsOwnMemory(t *testing.T) {
	s, e := startServer(t), local(t)
	for range 2 {
		g := run(t, everywhere+fmt.Sprintf(`
verifiers:
  - name: crm
    verifytoken: {url: %q}
    tokens: opaque
  - name: sso
    jwt: {issuer: %q, audiences: [orders], algorithms: [ES256]}
default_policy: {verifiers: [sso, crm]}
`, e.URL(), s.URL))
		opaque, signed := issue(t, e), s.token(t, nil)
		for _, token := range []string{opaque, signed, opaque, signed} {
			if got := g.ask(t, token); got.status != http.StatusOK {
				t.Errorf("got %+v", got)
			}
		}
		for _, name := range []string{"crm", "sso"} {
			if calls := g.metric(t, `bearergate_verifier_call_duration_seconds_count{outcome="valid",verifier="`+name+`"}`); calls != "1" {
				t.Errorf("%s was asked %s times", name, calls)
			}
		}
	}
}

// TestTheExamplesOfTheDocsAreTaken, each as it stands there.
func TestTheExamplesOfTheDocsAreTaken(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"secret.txt", "client.key", "keys.json"} {
		content, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, example := range examplesOf(t, "../docs/verifiers.md", 8) {
		file := strings.ReplaceAll(example.file, "127.0.0.1:9191", "127.0.0.1:0") // a port that is free
		c, err := config.Parse(filepath.Join(folder, "gateway.yaml"), []byte(file), noVariables)
		if err != nil {
			t.Errorf("%s\n%v", file, err)
			continue
		}
		if err := runParsed(t, c).end(); err != nil {
			t.Errorf("%s\n%v", file, err)
		}
	}
}
