package config_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	"github.com/bearergate/bearergate/config"
	"github.com/bearergate/bearergate/listen/listentest"
)

// over is a listener's part of a configuration: everywhere, with these lines of TLS.
func over(lines string) string {
	l := fmt.Sprintf(`{address: "127.0.0.1:0", tls: {%s}}`, lines)
	return fmt.Sprintf("listeners: {ext_authz: %s, auth_request: %s, admin: {address: \"127.0.0.1:0\"}}\n", l, l)
}

// wallet is a folder with what a gateway needs for mutual TLS, and what its edge does.
type wallet struct {
	*listentest.Authority

	dir string
}

func newWallet(t *testing.T) *wallet {
	t.Helper()
	w := &wallet{listentest.NewAuthority(t), t.TempDir()}
	w.File(t, w.dir)
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.Symlink("..data/"+name, filepath.Join(w.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	w.renew(t)
	return w
}

// renew puts another certificate into the place of the gateway's, and returns its number.
func (w *wallet) renew(t *testing.T) (serial string) {
	t.Helper()
	pair := w.Issue(t, listentest.Leaf{})
	w.put(t, pair)
	return pair.TLS(t).Leaf.SerialNumber.String()
}

// put exchanges the certificate and its key in one step, as Kubernetes does.
func (w *wallet) put(t *testing.T, pair listentest.Pair) {
	t.Helper()
	folder := filepath.Join(w.dir, "..of_"+pair.TLS(t).Leaf.SerialNumber.String())
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	pair.Files(t, folder)
	if err := os.Symlink(filepath.Base(folder), folder+".link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(folder+".link", filepath.Join(w.dir, "..data")); err != nil {
		t.Fatal(err)
	}
}

// lines are the gateway's, with more of them.
func (w *wallet) lines(more string) string {
	return fmt.Sprintf("cert_file: %q, key_file: %q%s", w.dir+"/tls.crt", w.dir+"/tls.key", more)
}

func (w *wallet) mutual() string {
	return w.lines(fmt.Sprintf(", client_ca_file: %q", w.dir+"/ca.pem"))
}

// edge is what an edge speaks with; without a name it has no certificate.
func (w *wallet) edge(t *testing.T, names ...string) *tls.Config {
	t.Helper()
	c := &tls.Config{RootCAs: w.Pool(), MinVersion: tls.VersionTLS12}
	if len(names) > 0 {
		c.Certificates = []tls.Certificate{w.Issue(t, listentest.Leaf{DNS: names}).TLS(t)}
	}
	return c
}

// askOver asks the HTTP face over TLS, on a connection of its own.
func (g *running) askOver(t *testing.T, c *tls.Config, token string) (int, *tls.ConnectionState, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+g.Address(config.AuthRequest)+"/auth", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := (&http.Transport{DisableKeepAlives: true, TLSClientConfig: c.Clone(), ForceAttemptHTTP2: true}).RoundTrip(r)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, resp.TLS, err
}

// envoyOver is a connection to the gRPC face over TLS.
func (g *running) envoyOver(t *testing.T, c *tls.Config) authv3.AuthorizationClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+g.Address(config.ExtAuthz), grpc.WithTransportCredentials(credentials.NewTLS(c.Clone())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return authv3.NewAuthorizationClient(conn)
}

func TestBothFacesSpeakTLSAndKnowTheirEdges(t *testing.T) {
	e := local(t)
	w := newWallet(t)
	token := issue(t, e)
	for name, test := range map[string]struct {
		lines string
		edge  *tls.Config
		want  bool
	}{
		"TLS":                            {w.lines(""), w.edge(t), true},
		"an edge with the right name":    {w.mutual() + ", client_names: [edge.internal]", w.edge(t, "edge.internal"), true},
		"an edge with another name":      {w.mutual() + ", client_names: [edge.internal]", w.edge(t, "other.internal"), false},
		"an edge without a certificate":  {w.mutual(), w.edge(t), false},
		"an edge too old":                {w.lines(", min_version: 1.3"), func() *tls.Config { c := w.edge(t); c.MaxVersion = tls.VersionTLS12; return c }(), false},
		"an edge that does not trust it": {w.lines(""), &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}, false},
	} {
		t.Run(name, func(t *testing.T) {
			g := run(t, over(test.lines)+asking(e.URL()))
			status, state, err := g.askOver(t, test.edge, token)
			if came := err == nil && status == http.StatusOK; came != test.want {
				t.Errorf("auth_request says %d, %v", status, err)
			}
			if state != nil && state.NegotiatedProtocol != "http/1.1" {
				t.Errorf("auth_request speaks %q", state.NegotiatedProtocol)
			}
			checked, err := g.envoyOver(t, test.edge).Check(t.Context(), checkRequest("authorization", "Bearer "+token))
			if came := err == nil && checked.GetStatus().GetCode() == int32(codes.OK); came != test.want {
				t.Errorf("ext_authz says %v, %v", checked, err)
			}
		})
	}
}

func TestTheAdminListenerSpeaksTLS(t *testing.T) {
	w := newWallet(t)
	g := run(t, fmt.Sprintf("listeners: {ext_authz: {address: \"127.0.0.1:0\"}, admin: {address: \"127.0.0.1:0\", tls: {%s}}}\n", w.lines(""))+asking("https://api.example.com/"))
	client := &http.Transport{DisableKeepAlives: true, TLSClientConfig: w.edge(t)}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+g.Address(config.Admin)+"/livez", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("got %s", resp.Status)
	}
}

// serial is the number of the certificate that a listener shows.
func serial(t *testing.T, address string, c *tls.Config) string {
	t.Helper()
	c = c.Clone()
	c.NextProtos = []string{"h2", "http/1.1"}
	conn, err := (&tls.Dialer{Config: c}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// Edges go on asking, on connections they have and on new ones, while one certificate follows the other.
func TestACertificateIsExchangedUnderLoadWithoutAFailedRequest(t *testing.T) {
	e := local(t)
	w := newWallet(t)
	token := issue(t, e)
	g := run(t, over(w.mutual()+", client_names: [edge.internal]")+asking(e.URL()))
	edge := w.edge(t, "edge.internal")

	ctx, stop := context.WithCancel(t.Context())
	var asked atomic.Int64
	var load sync.WaitGroup
	for range 2 {
		load.Go(func() { // a new connection for each request
			for ctx.Err() == nil {
				if status, _, err := g.askOver(t, edge, token); err != nil || status != http.StatusOK {
					t.Errorf("auth_request says %d, %v", status, err)
					return
				}
				asked.Add(1)
			}
		})
		client := g.envoyOver(t, edge)
		load.Go(func() { // one connection for all
			for ctx.Err() == nil {
				checked, err := client.Check(context.WithoutCancel(ctx), checkRequest("authorization", "Bearer "+token))
				if err != nil || checked.GetStatus().GetCode() != int32(codes.OK) {
					t.Errorf("ext_authz says %v, %v", checked, err)
					return
				}
				asked.Add(1)
			}
		})
	}
	for range 3 {
		want := w.renew(t)
		for _, name := range []string{config.ExtAuthz, config.AuthRequest} {
			eventually(t, "new certificate", func() bool { return serial(t, g.Address(name), edge) == want })
		}
	}
	stop()
	load.Wait()
	if n := asked.Load(); n < 20 {
		t.Errorf("only %d requests", n)
	}
	for _, entry := range g.log.entries(t) {
		if entry.Level == "ERROR" || entry.Level == "WARN" && strings.HasPrefix(entry.Message, "a connection was refused") {
			t.Errorf("the log says %+v", entry)
		}
	}
}

func TestABrokenCertificateIsToldAndTheOneBeforeStays(t *testing.T) {
	e := local(t)
	w := newWallet(t)
	g := run(t, over(w.lines(""))+asking(e.URL()))
	before := serial(t, g.Address(config.ExtAuthz), w.edge(t))
	successful := func(want string) func() bool {
		return func() bool {
			return g.metric(t, `bearergate_certificate_last_reload_successful{listener="ext_authz"}`) == want
		}
	}
	if !successful("1")() {
		t.Error("the files of the start do not count as good")
	}
	const secretText = "neither-a-key-nor-to-be-shown"
	if err := os.WriteFile(filepath.Join(w.dir, "tls.key"), []byte(secretText), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "metric of the fault", successful("0"))
	if got := serial(t, g.Address(config.ExtAuthz), w.edge(t)); got != before {
		t.Errorf("certificate %s is shown, want %s", got, before)
	}
	after := w.renew(t)
	eventually(t, "metric of the recovery", successful("1"))
	if got := serial(t, g.Address(config.ExtAuthz), w.edge(t)); got != after {
		t.Errorf("certificate %s is shown, want %s", got, after)
	}
	told := map[string]int{}
	for _, entry := range g.log.entries(t) {
		if strings.Contains(fmt.Sprint(entry), secretText) {
			t.Errorf("the log shows what stands in the file: %+v", entry)
		}
		if entry.Listener == config.ExtAuthz {
			told[entry.Level+" "+entry.Message+" "+entry.Error]++
		}
	}
	for _, line := range []string{
		"ERROR the listener's certificate files cannot be used; what was in force stays so key_file holds no private key; name a PEM file with a BEGIN PRIVATE KEY block",
		"INFO the listener's certificate files were read again ",
	} {
		if told[line] != 1 {
			t.Errorf("the log says %d times %q: %v", told[line], line, told)
		}
	}
}

func TestTheEndOfACertificateIsAMetric(t *testing.T) {
	w := newWallet(t)
	pair := w.Issue(t, listentest.Leaf{From: -2 * time.Hour, Until: -time.Hour})
	w.put(t, pair)
	if err := os.Chmod(w.dir+"/tls.key", 0o644); err != nil {
		t.Fatal(err)
	}
	g := run(t, over(w.lines(""))+asking("https://api.example.com/"))
	value, err := strconv.ParseFloat(g.metric(t, `bearergate_certificate_not_after_timestamp_seconds{listener="auth_request"}`), 64)
	if end := pair.TLS(t).Leaf.NotAfter.Unix(); err != nil || int64(value) != end {
		t.Errorf("the metric says %v, %v; want %d", value, err, end)
	}
	ended, exposed := false, false
	for _, entry := range g.log.entries(t) {
		ended = ended || entry.Level == "WARN" && strings.HasPrefix(entry.Message, "the listener's certificate has ended")
		exposed = exposed || entry.Level == "WARN" && strings.HasPrefix(entry.Message, "every user of this machine can read the listener's private key")
	}
	if !ended || !exposed {
		t.Errorf("the log says %v", g.log.entries(t))
	}
}

func TestRefusedHandshakesAreCountedAllAndLoggedNowAndThen(t *testing.T) {
	w := newWallet(t)
	g := run(t, over(w.mutual())+asking("https://api.example.com/"))
	const flood = 50
	for range flood {
		conn, err := net.Dial("tcp", g.Address(config.ExtAuthz))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	}
	eventually(t, "count", func() bool {
		return g.metric(t, `bearergate_tls_handshakes_refused_total{listener="ext_authz",reason="plaintext"}`) == strconv.Itoa(flood)
	})
	lines := 0
	for _, entry := range g.log.entries(t) {
		if entry.Message == "a connection was refused in its TLS handshake" {
			lines++
			if entry.Level != "WARN" || entry.Listener != config.ExtAuthz {
				t.Errorf("the log says %+v", entry)
			}
		}
	}
	if lines == 0 || lines > 40 { // 20 in a window, and a second one may have begun
		t.Errorf("%d lines", lines)
	}
}

// Who connects and says nothing is not waited for.
func TestAGatewayStopsWithSilentConnections(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	w := newWallet(t)
	g := run(t, over(w.lines(""))+asking("https://api.example.com/")+"shutdown_timeout: 5m\n")
	for _, name := range []string{config.ExtAuthz, config.AuthRequest} {
		conn, err := net.Dial("tcp", g.Address(name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_, _ = io.WriteString(conn, "\x16\x03\x01")
	}
	eventually(t, "readiness", func() bool { return get(t, g.Address(config.Admin), "/readyz").status == http.StatusOK })
	if err := g.end(); err != nil {
		t.Error(err)
	}
	for _, entry := range g.log.entries(t) {
		if entry.Level == "WARN" && strings.HasPrefix(entry.Message, "requests under way were cut off") {
			t.Errorf("the log says %+v", entry)
		}
	}
}

func TestAGatewayWithoutItsKeyListensNowhere(t *testing.T) {
	w := newWallet(t)
	c := parse(t, fmt.Sprintf("listeners: {admin: {address: \"unix:%s/s\"}, ext_authz: {address: \"127.0.0.1:0\", tls: {%s}}}\n", w.dir, w.lines(""))+asking("https://api.example.com/"))
	if err := os.Remove(w.dir + "/tls.key"); err != nil { // between reading the configuration and starting
		t.Fatal(err)
	}
	g, err := config.NewGateway(t.Context(), c, (&journal{}).logger(), "test")
	if g != nil || err == nil || !strings.HasPrefix(err.Error(), "listeners.ext_authz.tls.key_file is not there; ") {
		t.Errorf("got %v, %v", g, err)
	}
	expectClosed(t, "unix:"+w.dir+"/s")
}
