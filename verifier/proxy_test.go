package verifier_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/verifier"
)

// http.ProxyFromEnvironment reads the environment once, and knows no proxy for
// loopback. So the test binary asks as a child, with an environment of its own,
// and an endpoint that is elsewhere as far as it knows.
const (
	childAsks  = "VERIFIER_TEST_ASK"   // the URL; that there is one makes the child
	childRoots = "VERIFIER_TEST_ROOTS" // a certificate
	childDials = "VERIFIER_TEST_DIAL"  // where the endpoint is in truth
	elsewhere  = "endpoint.test:443"
)

// runChild asks about the canary and prints what comes of it.
func runChild(out io.Writer) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(os.Getenv(childRoots)))
	v, err := verifier.NewVerifytoken(verifier.VerifytokenOptions{Name: "crm", URL: os.Getenv(childAsks), RootCAs: roots})
	if err != nil {
		_, _ = fmt.Fprint(out, err)
		return
	}
	defer v.Close()
	v.DialBy(func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == elsewhere {
			address = os.Getenv(childDials)
		}
		var dialer net.Dialer
		return dialer.DialContext(ctx, network, address)
	})
	parser, err := bearer.NewParser(0)
	if err != nil {
		panic(err)
	}
	token, err := parser.ParseToken(canary)
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	verdict, err := v.Verify(ctx, token)
	if err != nil {
		_, _ = fmt.Fprint(out, err)
		return
	}
	_, _ = fmt.Fprintf(out, "%v", verdict.Valid)
}

// proxy is an HTTP proxy on loopback that connects to one place only, whatever it
// is asked for.
type proxy struct {
	address string
	mu      sync.Mutex
	asked   []*http.Request
}

func startProxy(t *testing.T, target string) *proxy {
	t.Helper()
	p := &proxy{}
	var tunnels sync.WaitGroup
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.asked = append(p.asked, r)
		p.mu.Unlock()
		there, err := net.Dial("tcp", target)
		if err != nil || r.Method != http.MethodConnect {
			t.Errorf("%s %s: %v", r.Method, r.RequestURI, err)
			return
		}
		here, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Errorf("there is no tunnel: %v", err)
			return
		}
		_, _ = io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n")
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, way := range [][2]net.Conn{{here, there}, {there, here}} {
			tunnels.Go(func() {
				_, _ = io.Copy(way[0], way[1])
				_ = way[0].Close()
				_ = way[1].Close()
			})
		}
	}))
	t.Cleanup(func() {
		server.Close() // which does not wait for tunnels
		p.mu.Lock()
		defer p.mu.Unlock()
		tunnels.Wait()
	})
	p.address = server.Listener.Addr().String()
	return p
}

func TestProxy(t *testing.T) {
	own := newAuthority(t)
	const url = "https://" + elsewhere + "/v1/getOauthToken.php"
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	refusing := func(reply string) string {
		e := startRaw(t, write(reply))
		return strings.TrimPrefix(strings.TrimSuffix(e.url, "/v1/getOauthToken.php"), "http://")
	}
	for _, c := range []struct {
		name, url   string
		environment []string // PROXY is the proxy's address
		want        string
		proxied     bool
	}{
		{"none", url, nil, "true", false},
		{"HTTPS_PROXY", url, []string{"HTTPS_PROXY=http://PROXY"}, "true", true},
		{"in lower case", url, []string{"https_proxy=http://PROXY"}, "true", true},
		{"without a scheme", url, []string{"HTTPS_PROXY=PROXY"}, "true", true},
		{"with a password", url, []string{"HTTPS_PROXY=http://partner:CANARY@PROXY"}, "true", true},
		{"for another scheme", url, []string{"HTTP_PROXY=http://PROXY"}, "true", false},
		{"not for this host", url, []string{"HTTPS_PROXY=http://PROXY", "NO_PROXY=endpoint.test"}, "true", false},
		{"not for this domain", url, []string{"HTTPS_PROXY=http://PROXY", "no_proxy=.test"}, "true", false},
		{"not for loopback", "https://LOOPBACK/v1/getOauthToken.php", []string{"HTTPS_PROXY=http://PROXY"}, "true", false},

		{
			"nobody there", url,
			[]string{"HTTPS_PROXY=http://partner:CANARY@" + closed.Addr().String()},
			"the proxy cannot be reached; look at HTTPS_PROXY and HTTP_PROXY: proxyconnect tcp: dial tcp 127.0.0.1:", false,
		},
		{
			"credentials missing", url,
			[]string{"HTTPS_PROXY=http://partner:CANARY@" + refusing("HTTP/1.1 407 CANARY\r\nContent-Length: 6\r\n\r\nCANARY")},
			"the proxy does not connect to the endpoint: it answered with status 407", false,
		},
		{
			"the endpoint forbidden", url,
			[]string{"HTTPS_PROXY=http://" + refusing("HTTP/1.1 403 CANARY\r\nContent-Length: 0\r\n\r\n")},
			"the proxy does not connect to the endpoint: it answered with status 403", false,
		},
		{
			"another status than 200", url,
			[]string{"HTTPS_PROXY=http://" + refusing("HTTP/1.1 204 CANARY\r\n\r\n")},
			"it answered with status 204", false,
		},
		{"no proxy at all", url, []string{"HTTPS_PROXY=http://" + refusing("220 CANARY ESMTP\r\n")}, "the connection to the endpoint failed", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := "endpoint.test"
			if c.url != url {
				name = ""
			}
			certificate := own.issue(t, leaf{name: name})
			e := startEndpoint(t, &tls.Config{Certificates: []tls.Certificate{certificate}}, replies(http.StatusOK, saysValid))
			there := e.Listener.Addr().String()
			p := startProxy(t, there)

			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			child := exec.CommandContext(ctx, os.Args[0])
			child.Env = []string{
				"GORACE=atexit_sleep_ms=0", "GOCOVERDIR=" + t.TempDir(), childAsks + "=" + strings.Replace(c.url, "LOOPBACK", there, 1),
				childRoots + "=" + own.pem(), childDials + "=" + there,
			}
			for _, variable := range c.environment {
				name, value, _ := strings.Cut(variable, "=")
				child.Env = append(child.Env, name+"="+strings.Replace(value, "PROXY", p.address, 1))
			}
			var out, problems bytes.Buffer
			child.Stdout, child.Stderr = &out, &problems
			if err := child.Run(); err != nil {
				t.Fatalf("%v: %s", err, problems.String())
			}
			expectHidden(t, out.String()+problems.String(), "CANARY", "getOauthToken", "partner")
			if got := out.String(); got != c.want && (c.want == "true" || !strings.Contains(got, c.want)) || problems.Len() != 0 {
				t.Errorf("the child says %q %q, want %q", got, problems.String(), c.want)
			}
			expectProxied(t, p, c.proxied, c.name == "with a password")
			asked := e.asked()
			if (len(asked) == 1) != (c.want == "true") {
				t.Fatalf("the endpoint was asked %d times", len(asked))
			}
			for _, q := range asked {
				if got := q.token(t); got != canary || q.header["Proxy-Authorization"] != nil || q.header["Via"] != nil {
					t.Errorf("the question is %+v", q)
				}
			}
		})
	}
}

// expectProxied wants a proxy to be asked for the endpoint, once, or not at all.
func expectProxied(t *testing.T, p *proxy, proxied, password bool) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !proxied {
		if len(p.asked) != 0 {
			t.Errorf("the proxy was asked %d times", len(p.asked))
		}
		return
	}
	if len(p.asked) != 1 {
		t.Fatalf("the proxy was asked %d times", len(p.asked))
	}
	r := p.asked[0]
	if r.RequestURI != elsewhere || (r.Header["Proxy-Authorization"] != nil) != password || r.Header["Authorization"] != nil {
		t.Errorf("the proxy was asked for %s with %v", r.RequestURI, r.Header)
	}
	expectHidden(t, fmt.Sprint(r.RequestURI, r.Host, r.Header), canary)
}
