package config_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/config"
	"github.com/bearergate/bearergate/crmnow"
	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
)

// newTLS starts an endpoint of a test's own, with a certificate of its own.
func newTLS(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // refused handshakes
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func certificateOf(t *testing.T, s *httptest.Server) []byte {
	t.Helper()
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

// recorder is an endpoint that says yes and notes how it was asked.
type recorder struct {
	mu     sync.Mutex
	kind   string
	agent  string
	fields map[string][]string
}

func (rec *recorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.kind, _, _ = mime.ParseMediaType(r.Header.Get("Content-Type"))
	rec.agent = r.UserAgent()
	_ = r.ParseMultipartForm(1 << 20)
	rec.fields = r.PostForm
	_, _ = io.WriteString(w, `{"result": true}`)
}

func (rec *recorder) asked(t *testing.T, kind, token string) {
	t.Helper()
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if rec.kind != kind || !slices.Equal(rec.fields["verifytoken"], []string{token}) || rec.agent != "bearergate/v1.2.3-test" {
		t.Errorf("asked as %s by %s with %v", rec.kind, rec.agent, rec.fields)
	}
}

func TestVerifytokenFieldsReachTheEndpoint(t *testing.T) {
	for _, test := range []struct{ encoding, kind string }{
		{"", "multipart/form-data"}, {", encoding: multipart", "multipart/form-data"}, {", encoding: form", "application/x-www-form-urlencoded"},
	} {
		t.Run("asked"+test.encoding, func(t *testing.T) {
			rec := &recorder{}
			s := httptest.NewServer(rec)
			t.Cleanup(s.Close)
			g := run(t, everywhere+fmt.Sprintf("verifiers: [{name: crm, verifytoken: {url: %q%s}}]\n", s.URL, test.encoding))
			if got := g.ask(t, "a-token"); got.status != http.StatusOK {
				t.Errorf("got %+v", got)
			}
			rec.asked(t, test.kind, "a-token")
		})
	}

	t.Run("by ca_file", func(t *testing.T) {
		rec := &recorder{}
		s := newTLS(t, rec)
		file := filepath.Join(t.TempDir(), "ca.pem")
		if err := os.WriteFile(file, certificateOf(t, s), 0o600); err != nil {
			t.Fatal(err)
		}
		g := run(t, everywhere+fmt.Sprintf("verifiers: [{name: crm, verifytoken: {url: %q, ca_file: %q}}]\n", s.URL, file))
		if got := g.ask(t, "a-token"); got.status != http.StatusOK {
			t.Errorf("got %+v", got)
		}
		rec.asked(t, "multipart/form-data", "a-token")

		g = run(t, everywhere+asking(s.URL))
		if got := g.ask(t, "a-token"); got.status != http.StatusServiceUnavailable {
			t.Errorf("an unknown authority is trusted: %+v", got)
		}
	})
}

func TestTimeoutReachesTheCall(t *testing.T) {
	e := local(t)
	if err := e.SetFault(crmnow.Verify, crmnow.Fault{Hang: true}); err != nil {
		t.Fatal(err)
	}
	g := run(t, everywhere+asking(e.URL(), "timeout: 50ms"))
	// The fault is in force for as long as it takes, so only the time-out ends it.
	if got := g.ask(t, issue(t, e)); got.status != http.StatusServiceUnavailable || got.reason() != "verifier_unavailable" {
		t.Errorf("got %+v", got)
	}
}

func TestCallsReachTheGuard(t *testing.T) {
	e := local(t)
	if err := e.SetFault(crmnow.Verify, crmnow.Fault{Hang: true}); err != nil {
		t.Fatal(err)
	}
	g := run(t, everywhere+asking(e.URL(), "timeout: 60s", "calls: {max: 1, reserved: 0, max_waiting: 2, max_wait: 60s}"))
	var asked sync.WaitGroup
	for range 3 {
		token := issue(t, e)
		asked.Go(func() {
			if got := g.ask(t, token); got.status != http.StatusOK {
				t.Errorf("got %+v", got)
			}
		})
	}
	eventually(t, "waiting", func() bool { return g.metric(t, `bearergate_verifier_calls_waiting{verifier="crm"}`) == "2" })
	if got := g.ask(t, issue(t, e)); got.status != http.StatusServiceUnavailable || got.reason() != "overloaded" {
		t.Errorf("one more than may wait gets %+v", got)
	}
	e.ClearFaults()
	asked.Wait()
	if stats := e.Stats().Verify; stats.MaxInFlight != 1 || stats.Requests != 3 {
		t.Errorf("the endpoint counted %+v", stats)
	}
}

func TestMaxWaitReachesTheGuard(t *testing.T) {
	e := local(t)
	if err := e.SetFault(crmnow.Verify, crmnow.Fault{Hang: true}); err != nil {
		t.Fatal(err)
	}
	g := run(t, everywhere+asking(e.URL(), "timeout: 60s", "calls: {max: 1, reserved: 0, max_wait: 1ms}"))
	first := issue(t, e)
	var asked sync.WaitGroup
	asked.Go(func() {
		if got := g.ask(t, first); got.status != http.StatusOK {
			t.Errorf("got %+v", got)
		}
	})
	if err := e.AwaitVerifying(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if got := g.ask(t, issue(t, e)); got.status != http.StatusServiceUnavailable || got.reason() != "overloaded" {
		t.Errorf("got %+v", got)
	}
	e.ClearFaults()
	asked.Wait()
}

func TestBreakerFieldsReachTheGuard(t *testing.T) {
	e := local(t)
	if err := e.SetFault(crmnow.Verify, crmnow.Fault{Status: 500}); err != nil {
		t.Fatal(err)
	}
	g := run(t, everywhere+asking(e.URL(), "breaker: {failures: 3, of_last: 3, open_for: 5m}"))
	for i := range 5 {
		if got := g.ask(t, issue(t, e)); got.status != http.StatusServiceUnavailable {
			t.Errorf("question %d: got %+v", i, got)
		}
	}
	if calls := e.Stats().Verify.Requests; calls != 3 {
		t.Errorf("%d calls, want 3 until the breaker opens", calls)
	}
	opened := false
	for _, entry := range g.log.entries(t) {
		opened = opened || entry.Level == "WARN" && entry.To == "open"
	}
	if !opened || g.metric(t, `bearergate_verifier_breaker_state{state="open",verifier="crm"}`) != "1" {
		t.Errorf("the log says %+v", g.log.entries(t))
	}
}

func TestOpenForReachesTheGuard(t *testing.T) {
	e := local(t)
	if err := e.SetFault(crmnow.Verify, crmnow.Fault{Status: 500, Times: 1}); err != nil {
		t.Fatal(err)
	}
	g := run(t, everywhere+asking(e.URL(), "breaker: {failures: 1, of_last: 1, open_for: 10ms}"))
	token := issue(t, e)
	if got := g.ask(t, token); got.status != http.StatusServiceUnavailable {
		t.Errorf("got %+v", got)
	}
	eventually(t, "probe", func() bool { return g.ask(t, token).status == http.StatusOK })
}

// The lives of answers are tested with the cache's own clock elsewhere; here only
// that each field reaches its place.
func TestCacheFieldsReachTheCache(t *testing.T) {
	const short = "1ms"
	verifications := func(e *crmnow.Local, token string) int64 { return e.VerificationsOf(crmnow.NewSecret(token)) }

	t.Run("the defaults", func(t *testing.T) {
		e := local(t)
		g := run(t, everywhere+asking(e.URL()))
		good := issue(t, e)
		for range 5 {
			_ = g.ask(t, good)
			_ = g.ask(t, "made-up")
		}
		if n, m := verifications(e, good), verifications(e, "made-up"); n != 1 || m != 1 {
			t.Errorf("%d and %d questions, want one each", n, m)
		}
	})
	t.Run("valid_ttl", func(t *testing.T) {
		e := local(t)
		g := run(t, everywhere+asking(e.URL())+"cache: {valid_ttl: "+short+"}\n")
		good := issue(t, e)
		eventually(t, "second question", func() bool {
			if got := g.ask(t, good); got.status != http.StatusOK {
				t.Fatalf("got %+v", got)
			}
			return verifications(e, good) > 1
		})
		_, _ = g.ask(t, "made-up"), g.ask(t, "made-up")
		if n := verifications(e, "made-up"); n != 1 {
			t.Errorf("%d questions about a refused token", n)
		}
	})
	t.Run("invalid_ttl", func(t *testing.T) {
		e := local(t)
		g := run(t, everywhere+asking(e.URL())+"cache: {invalid_ttl: "+short+"}\n")
		eventually(t, "second question", func() bool {
			if got := g.ask(t, "made-up"); got.status != http.StatusUnauthorized {
				t.Fatalf("got %+v", got)
			}
			return verifications(e, "made-up") > 1
		})
		good := issue(t, e)
		_, _ = g.ask(t, good), g.ask(t, good)
		if n := verifications(e, good); n != 1 {
			t.Errorf("%d questions about a good token", n)
		}
	})
	t.Run("stale_if_error", func(t *testing.T) {
		e := local(t)
		g := run(t, everywhere+asking(e.URL())+"cache: {valid_ttl: "+short+", stale_if_error: 300s}\n")
		good := issue(t, e)
		if got := g.ask(t, good); got.status != http.StatusOK {
			t.Fatalf("got %+v", got)
		}
		if err := e.Down(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "stale answer", func() bool {
			if got := g.ask(t, good); got.status != http.StatusOK {
				t.Fatalf("got %+v", got)
			}
			return g.metric(t, `bearergate_decisions_total{enforced="true",listener="auth_request",policy="default",reason="valid",source="stale"}`) != "0"
		})
	})
	t.Run("no stale_if_error", func(t *testing.T) {
		e := local(t)
		g := run(t, everywhere+asking(e.URL())+"cache: {valid_ttl: "+short+"}\n")
		good := issue(t, e)
		if got := g.ask(t, good); got.status != http.StatusOK {
			t.Fatalf("got %+v", got)
		}
		if err := e.Down(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "503", func() bool { return g.ask(t, good).status == http.StatusServiceUnavailable })
	})
	t.Run("refresh_before", func(t *testing.T) {
		e := local(t)
		// Half of a life is the most, so every question after that begins another call.
		g := run(t, everywhere+asking(e.URL())+"cache: {valid_ttl: 300ms, refresh_before: 300s}\n")
		good := issue(t, e)
		eventually(t, "second question", func() bool {
			if got := g.ask(t, good); got.status != http.StatusOK {
				t.Fatalf("got %+v", got)
			}
			return verifications(e, good) > 1
		})
	})
}

func TestMaxTokenBytesReachesBothFaces(t *testing.T) {
	e := local(t)
	g := run(t, everywhere+asking(e.URL())+"credential: {max_token_bytes: 64}\n")
	fits, tooLong := strings.Repeat("x", 64), strings.Repeat("x", 65)
	if got := g.ask(t, fits); got.reason() != "invalid_token" {
		t.Errorf("got %+v", got)
	}
	if got := g.ask(t, tooLong); got.reason() != "malformed_token" {
		t.Errorf("got %+v", got)
	}
	envoy := g.envoy(t)
	for token, want := range map[string]string{fits: "invalid_token", tooLong: "malformed_token"} {
		got, err := envoy.Check(t.Context(), checkRequest("authorization", "Bearer "+token))
		if err != nil || got.GetDynamicMetadata().GetFields()["reason"].GetStringValue() != want {
			t.Errorf("got %v, %v; want %s", got, err, want)
		}
	}
	if calls := e.Stats().Verify.Requests; calls != 1 {
		t.Errorf("%d calls", calls)
	}
}

func TestDefaultPolicyReachesBothFaces(t *testing.T) {
	e := local(t)
	for _, test := range []struct {
		policy, realm string
		removed       []string
	}{
		{"", "api", []string{"authorization"}},
		{"default_policy: {realm: \"the shop\", forward_token: strip}\n", "the shop", []string{"authorization"}},
		{"default_policy: {forward_token: keep}\n", "api", nil},
	} {
		t.Run(test.policy, func(t *testing.T) {
			g := run(t, everywhere+asking(e.URL())+test.policy)
			envoy := g.envoy(t)
			token := issue(t, e)
			allowed := g.ask(t, token)
			if got := allowed.header["X-Envoy-Auth-Headers-To-Remove"]; allowed.status != http.StatusOK || !slices.Equal(got, test.removed) {
				t.Errorf("auth_request says %+v", allowed)
			}
			checked, err := envoy.Check(t.Context(), checkRequest("authorization", "Bearer "+token))
			if err != nil || !slices.Equal(checked.GetOkResponse().GetHeadersToRemove(), test.removed) {
				t.Errorf("ext_authz says %v, %v", checked, err)
			}
			challenge := `Bearer realm="` + test.realm + `"`
			if got := get(t, g.Address(config.AuthRequest), "/auth"); got.header.Get("WWW-Authenticate") != challenge {
				t.Errorf("auth_request says %+v", got)
			}
			refused, err := envoy.Check(t.Context(), checkRequest())
			if err != nil || challengeOf(refused) != challenge {
				t.Errorf("ext_authz says %v, %v", refused, err)
			}
		})
	}
}

func TestEdgeCacheReachesBothFaces(t *testing.T) {
	e := local(t)
	for policy, keeps := range map[string]bool{"": false, "default_policy: {edge_cache: 7s}\n": true} {
		t.Run(policy, func(t *testing.T) {
			g := run(t, everywhere+asking(e.URL())+policy)
			token := issue(t, e)
			control := g.ask(t, token).header.Get("Cache-Control")
			checked, err := g.envoy(t).Check(t.Context(), checkRequest("authorization", "Bearer "+token))
			if err != nil {
				t.Fatal(err)
			}
			seconds := checked.GetDynamicMetadata().GetFields()["edge_cache"].GetStructValue().GetFields()["seconds"].GetNumberValue()
			if keeps && (control != "max-age=7" || seconds != 7) || !keeps && (control != "" || seconds != 0) {
				t.Errorf("auth_request says %q, ext_authz %v", control, seconds)
			}
		})
	}
}

func TestIdentityReachesBothFaces(t *testing.T) {
	e := local(t)
	g := run(t, everywhere+asking(e.URL())+"default_policy: {identity: [{name: X-Partner, constant: crm}, {name: x-token, fingerprint: true}]}\n")
	token := issue(t, e)
	got := g.ask(t, token).header
	checked, err := g.envoy(t).Check(t.Context(), checkRequest("authorization", "Bearer "+token))
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string]string{}
	for _, h := range checked.GetOkResponse().GetHeaders() {
		lines[h.GetHeader().GetKey()] = h.GetHeader().GetValue()
	}
	if got.Get("X-Partner") != "crm" || len(got.Get("X-Token")) != 12 || lines["X-Partner"] != "crm" || lines["X-Token"] != got.Get("X-Token") {
		t.Errorf("auth_request says %v, ext_authz %v", got, lines)
	}
}

// TestFingerprintsAreMadeAsSaid: in the log, in what the API is told, in a denial and in
// what is denied, at each gateway.
func TestFingerprintsAreMadeAsSaid(t *testing.T) {
	e := local(t)
	key, err := os.ReadFile("testdata/fingerprint.key")
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		text string
		by   *bearer.Fingerprints // nil if they are other ones at each gateway
	}{
		"by a key": {"fingerprint: {key: {file: testdata/fingerprint.key}}\n", bearer.KeyedFingerprints(bytes.TrimSpace(key))},
		"plain":    {"fingerprint: {plain: true}\n", bearer.PlainFingerprints()},
		"unsaid":   {"", nil},
	} {
		t.Run(name, func(t *testing.T) {
			token := issue(t, e)
			parser, err := bearer.NewParser(0)
			if err != nil {
				t.Fatal(err)
			}
			seen := map[string]bool{}
			for range 2 {
				g := run(t, everywhere+asking(e.URL())+test.text+"default_policy: {identity: [{name: X-Token, fingerprint: true}]}\n")
				fingerprint := g.ask(t, token).header.Get("X-Token")
				seen[fingerprint] = true
				if test.by != nil {
					parsed, err := parser.WithFingerprints(test.by).ParseToken(token)
					if err != nil || fingerprint != parsed.Fingerprint() {
						t.Errorf("the API is told %q, want %v (%v)", fingerprint, parsed, err)
					}
				}
				denial, err := admins(t, g.Address(config.Admin), "").Deny(t.Context(), &adminv1.DenyRequest{
					Which: &adminv1.DenyRequest_Fingerprint{Fingerprint: fingerprint}, Reason: "a test",
				})
				if err != nil || denial.GetDenial().GetFingerprint() != fingerprint {
					t.Fatalf("got %v, %v", denial, err)
				}
				if got := g.ask(t, token).status; got != http.StatusUnauthorized {
					t.Errorf("denied by fingerprint, the token gets %d", got)
				}
				if g.ask(t, issue(t, e)).status != http.StatusOK {
					t.Error("another token is denied")
				}
				if !strings.Contains(g.log.text(), `"token":"`+fingerprint+`"`) {
					t.Errorf("the log does not say %s:\n%s", fingerprint, g.log.text())
				}
			}
			if want := map[bool]int{true: 1, false: 2}[test.by != nil]; len(seen) != want {
				t.Errorf("two gateways have the fingerprints %v", seen)
			}
		})
	}
}

func challengeOf(r *authv3.CheckResponse) string {
	for _, h := range r.GetDeniedResponse().GetHeaders() {
		if strings.EqualFold(h.GetHeader().GetKey(), "WWW-Authenticate") {
			return h.GetHeader().GetValue() + string(h.GetHeader().GetRawValue())
		}
	}
	return ""
}

func TestListenerLimitsReachTheServers(t *testing.T) {
	e := local(t)
	const limit = 8192
	large := strings.Repeat("x", 2*limit+4096) // net/http allows 4096 more than it was told
	narrow := fmt.Sprintf(`listeners:
  ext_authz: {address: "127.0.0.1:0", max_message_bytes: %d, max_concurrent_streams: 1}
  auth_request: {address: "127.0.0.1:0", max_header_bytes: %d}
credential: {max_token_bytes: 64}
`, limit, limit)

	wide := run(t, everywhere+asking(e.URL()))
	g := run(t, narrow+asking(e.URL(), "timeout: 60s"))
	for _, test := range []struct {
		gateway *running
		status  string
		code    codes.Code
	}{{wide, "HTTP/1.1 401 ", codes.OK}, {g, "HTTP/1.1 431 ", codes.ResourceExhausted}} {
		if got := statusLine(t, test.gateway.Address(config.AuthRequest), "X-Large: "+large); !strings.HasPrefix(got, test.status) {
			t.Errorf("auth_request says %s, want %s", got, test.status)
		}
		if _, err := test.gateway.envoy(t).Check(t.Context(), checkRequest("x-large", large)); status.Code(err) != test.code {
			t.Errorf("ext_authz says %v, want %v", err, test.code)
		}
	}

	if err := e.SetFault(crmnow.Verify, crmnow.Fault{Hang: true}); err != nil {
		t.Fatal(err)
	}
	envoy := g.envoy(t)
	var asked sync.WaitGroup
	first, second := issue(t, e), issue(t, e)
	asked.Go(func() {
		if _, err := envoy.Check(context.WithoutCancel(t.Context()), checkRequest("authorization", "Bearer "+first)); err != nil {
			t.Error(err)
		}
	})
	if err := e.AwaitVerifying(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	// The client keeps a second stream back until the first has ended.
	brief, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := envoy.Check(brief, checkRequest("authorization", "Bearer "+second)); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("a second stream gets %v", err)
	}
	if n := e.VerificationsOf(crmnow.NewSecret(second)); n != 0 {
		t.Errorf("the endpoint was asked %d times for the second stream", n)
	}
	e.ClearFaults()
	asked.Wait()
}

// statusLine sends a request with one more header and returns the first line of
// the reply. What comes behind it may break off: nobody reads the rest of a header
// that is too large.
func statusLine(t *testing.T, address, header string) string {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	_, _ = fmt.Fprintf(c, "GET /auth HTTP/1.1\r\nHost: gateway.test\r\n%s\r\n\r\n", header) // the reply tells
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Error(err)
	}
	return line
}

func TestTheVersionStandsInTheMetrics(t *testing.T) {
	g := run(t, everywhere+asking("https://api.example.com/"))
	if body := get(t, g.Address(config.Admin), "/metrics").body; !strings.Contains(body, `bearergate_build_info{go_version="go`) || !strings.Contains(body, `version="v1.2.3-test"`) {
		t.Errorf("not there:\n%s", body)
	}
}
