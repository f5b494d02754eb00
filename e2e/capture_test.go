package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/template"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/go-cmp/cmp"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/bearergate/bearergate/deploy"
	"github.com/bearergate/bearergate/extauthz/captured"
)

var capture = flag.Bool("capture", false, "write the checks that Envoy sends to "+captured.Folder)

// envoySetting is a way to set up Envoy's filter.
type envoySetting struct {
	// Name is that of the listener which is set up so.
	Name string
	// ExtAuthz are further settings of the filter, in YAML.
	ExtAuthz string
	// Before is a filter that comes first.
	Before string
	// Route are further settings of the route.
	Route string
	// TLS asks clients for a certificate.
	TLS bool
}

func envoySettings() []envoySetting {
	return []envoySetting{
		{Name: "default"},
		{Name: "minimal", ExtAuthz: `allowed_headers: { patterns: [{ exact: authorization, ignore_case: true }] }`},
		{Name: "raw", ExtAuthz: `encode_raw_headers: true`},
		{Name: "body", ExtAuthz: `with_request_body: { max_request_bytes: 256, allow_partial_message: true }`},
		{Name: "body-as-bytes", ExtAuthz: `with_request_body: { max_request_bytes: 256, allow_partial_message: true, pack_as_bytes: true }`},
		{
			Name: "context",
			ExtAuthz: `bootstrap_metadata_labels_key: labels
              metadata_context_namespaces: [edge.tenant]
              route_metadata_context_namespaces: [edge.route]
              disallowed_headers: { patterns: [{ exact: cookie }] }`,
			Before: `- name: envoy.filters.http.set_metadata
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config
              metadata:
              - metadata_namespace: edge.tenant
                value: { tenant: "4711", plan: { name: gold, limits: [10, 2.5, true, null, ""] } }`,
			Route: `metadata: { filter_metadata: { edge.route: { owner: orders, shadow: false } } }
                typed_per_filter_config:
                  envoy.filters.http.ext_authz:
                    "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
                    check_settings: { context_extensions: { policy: orders, virtual_host: api, empty: "" } }`,
		},
		{Name: "tls", ExtAuthz: "include_peer_certificate: true\n              include_tls_session: true", TLS: true},
	}
}

// captureConfig sets up an Envoy with a listener for each setting.
var captureConfig = template.Must(template.New("").Parse(`node:
  id: edge
  cluster: edge
  metadata: { labels: { app: edge, zone: a } }
admin:
  address: { socket_address: { address: 127.0.0.1, port_value: 0 } }
static_resources:
  listeners:
{{- range .Settings}}
  - name: {{.Name}}
    address: { socket_address: { address: 127.0.0.1, port_value: 0 } }
{{- if .TLS}}
    listener_filters:
    - name: envoy.filters.listener.tls_inspector
      typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector }
{{- end}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: edge
          codec_type: AUTO
          # Behind a load balancer: no address of this machine is in the checks.
          use_remote_address: true
          xff_num_trusted_hops: 1
          skip_xff_append: true
          generate_request_id: true
          route_config:
            virtual_hosts:
            - name: api
              domains: ["*"]
              routes:
              - match: { prefix: "/" }
                direct_response: { status: 404 }
                {{.Route}}
          http_filters:
          {{.Before}}
          - name: envoy.filters.http.ext_authz
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
              transport_api_version: V3
              grpc_service: { envoy_grpc: { cluster_name: recorder }, timeout: 20s }
              {{.ExtAuthz}}
          - name: envoy.filters.http.router
            typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
{{- if .TLS}}
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_certificates: [{ certificate_chain: { filename: {{$.Certificate}} }, private_key: { filename: {{$.Key}} } }]
            validation_context: { trusted_ca: { filename: {{$.Certificate}} } }
{{- end}}
{{- end}}
  clusters:
  - name: recorder
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: { http2_protocol_options: {} }
    load_assignment:
      cluster_name: recorder
      endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: {{.Recorder}} } } } }] }]
`))

// capturedRequest is a request that makes Envoy send a check.
type capturedRequest struct {
	name    string // of the check
	setting string // of Envoy; "recipe" is the recipe of deploy/
	request request
}

func capturedRequests() []capturedRequest {
	authorization := "Authorization: Bearer " + captured.Token
	const client = "X-Forwarded-For: 203.0.113.7"
	// With what Envoy adds, these are a dozen headers.
	usual := []string{
		"Accept: application/json", "Accept-Encoding: gzip, deflate", "User-Agent: partner-client/4.2 (linux; amd64) php/8.3.12 curl/8.10.1", client, authorization,
	}
	// And these are 40.
	many := []string{"Authorization: Bearer " + captured.LongToken, "Accept: application/json", "User-Agent: partner-client/4.2", client}
	for i := range 28 {
		many = append(many, fmt.Sprintf("X-Partner-Header-%d: %s", i, strings.Repeat("v", 24)))
	}
	get := func(lines ...string) request {
		return request{path: "/v1/contacts?limit=10&fields=name,email,phone", lines: lines}
	}
	post := func(body string) request {
		q := get(usual...)
		q.method, q.body = http.MethodPost, strings.NewReader(body)
		return q
	}
	over2 := func(q request) request {
		q.proto = http2
		return q
	}
	return []capturedRequest{
		{"recipe", "recipe", get(usual...)},
		{"recipe-http2", "recipe", over2(get(usual...))},
		{"minimal", "minimal", get(usual...)},
		{"typical", "default", get(usual...)},
		{"typical-http2", "default", over2(get(usual...))},
		{"header-map", "raw", get(usual...)},
		{"header-map-http2", "raw", over2(get(usual...))},
		{"large", "default", over2(get(many...))},
		{"large-header-map", "raw", over2(get(many...))},
		{"body", "body", post(`{"name":"Größe","tags":["a","b"]}`)},
		{"body-cut-off", "body", post(strings.Repeat(`{"name":"x"}`, 50))},
		{"body-as-bytes", "body-as-bytes", post("\x00\x01\xff\xfe and text")},
		{"body-that-is-not-utf8", "body", post("\x00\x01\xff\xfe and text")},
		{"context", "context", get(append(usual, "Cookie: session=8e1f5c")...)},
		{"tls", "tls", get(usual...)},
		{"doubled", "default", get(authorization, authorization)},
		{"doubled-http2", "default", over2(get(authorization, authorization))},
		{"doubled-header-map", "raw", get(authorization, authorization)},
		{"no-authorization", "default", get("Accept: */*")},
		{"no-authorization-minimal", "minimal", get("Accept: */*")},
		{"empty-authorization", "default", get("Authorization:")},
		{"basic", "default", get("Authorization: Basic cGFydG5lcjpzZWNyZXQ=")},
		{"odd-bytes", "default", get(authorization+"\xff\x80", "X-Odd: \xc3\xa9\xff\t\x7e")},
		{"odd-bytes-header-map", "raw", get(authorization+"\xff\x80", "X-Odd: \xc3\xa9\xff\t\x7e")},
		{"odd-path", "default", request{path: "/public/%2e%2E/../x//%c3%28?a=%ff&access_token=in-the-url", lines: []string{authorization}}},
		{"spaces", "default", get("authorization:   bearer   " + captured.Token + "  ")},
	}
}

// TestEnvoySendsTheCapturedChecks holds the checks of extauthz/captured against what
// Envoy sends. With -capture it writes them anew.
func TestEnvoySendsTheCapturedChecks(t *testing.T) {
	if testing.Short() {
		t.Skip("real proxies take too long for -short")
	}
	r := &run{root: t.TempDir()}
	rec := startRecorder(t)
	entries := r.startCaptureEnvoy(t, rec)
	entries["recipe"] = r.startEdge(t, edgeKind{name: "Envoy by its recipe", recipe: deploy.Envoy()}, gates{extAuthz: rec.address}, "127.0.0.1:1")

	for _, c := range capturedRequests() {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			e := entries[c.setting]
			c.request.method = either(c.request.method, http.MethodGet)
			c.request.proto = either(c.request.proto, http11)
			exchange := e.overHTTP1
			if c.request.proto == http2 {
				exchange = e.overHTTP2
			}
			got, err := exchange(ctx, c.request)
			if err != nil {
				t.Fatal(err)
			}
			if got.status != http.StatusUnauthorized {
				t.Fatalf("status %d", got.status)
			}
			var message []byte
			select {
			case message = <-rec.checks:
			case <-ctx.Done():
				t.Fatal("Envoy answers without a check")
			}
			if *capture {
				writeCheck(t, c.name, message)
				return
			}
			stored, err := captured.Named(c.name)
			if err != nil {
				t.Fatalf("%v; make capture writes it", err)
			}
			if diff := cmp.Diff(lasting(t, stored.Message), lasting(t, message), protocmp.Transform()); diff != "" {
				t.Errorf("Envoy sends something else now, make capture writes it (-captured +sent):\n%s", diff)
			}
		})
	}
}

// lasting returns a check without what is new each time.
func lasting(t *testing.T, message []byte) *authv3.CheckRequest {
	t.Helper()
	check := &authv3.CheckRequest{}
	if err := proto.Unmarshal(message, check); err != nil {
		t.Fatal(err)
	}
	a := check.GetAttributes()
	for _, peer := range []*authv3.AttributeContext_Peer{a.GetSource(), a.GetDestination()} {
		peer.GetAddress().GetSocketAddress().PortSpecifier = nil
		if peer.GetCertificate() != "" {
			peer.Certificate = "a certificate"
		}
	}
	a.GetRequest().Time = nil
	h := a.GetRequest().GetHttp()
	h.Id = ""
	if h.GetHeaders()["x-request-id"] != "" {
		h.Headers["x-request-id"] = "an id"
	}
	// Over HTTP/2 the client of these tests sends them in any order.
	slices.SortStableFunc(h.GetHeaderMap().GetHeaders(), func(a, b *corev3.HeaderValue) int { return strings.Compare(a.GetKey(), b.GetKey()) })
	for _, header := range h.GetHeaderMap().GetHeaders() {
		if header.GetKey() == "x-request-id" {
			header.RawValue = []byte("an id")
		}
	}
	return check
}

// writeCheck keeps a check in both forms.
func writeCheck(t *testing.T, name string, message []byte) {
	t.Helper()
	check := &authv3.CheckRequest{}
	if err := proto.Unmarshal(message, check); err != nil {
		t.Fatal(err)
	}
	text, err := prototext.MarshalOptions{Multiline: true}.Marshal(check)
	if err != nil {
		t.Fatal(err)
	}
	// prototext adds spaces by chance, lest anybody rely on its bytes.
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
		key, value, ok := strings.Cut(strings.TrimLeft(line, " "), ": ")
		if ok {
			lines[i] = indent + key + ": " + strings.TrimLeft(value, " ")
		}
	}
	base := filepath.Join("..", filepath.FromSlash(captured.Folder), name)
	for file, data := range map[string][]byte{base + captured.BinaryFile: message, base + captured.TextFile: []byte(strings.Join(lines, "\n"))} {
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// recorder keeps the bytes of checks, and refuses the requests.
type recorder struct {
	address string
	checks  chan []byte
}

// wholeMessages leaves messages as they came.
type wholeMessages struct{}

func (wholeMessages) Name() string { return "proto" }

func (wholeMessages) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (wholeMessages) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

func startRecorder(t *testing.T) *recorder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusal, err := proto.Marshal(&authv3.CheckResponse{
		Status: &statuspb.Status{Code: int32(codes.Unauthenticated)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status:  &typev3.HttpStatus{Code: typev3.StatusCode_Unauthorized},
			Headers: []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "connection", Value: "close"}}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{address: l.Addr().String(), checks: make(chan []byte, 100)}
	server := grpc.NewServer(grpc.ForceServerCodecV2(wholeMessages{}), grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		var message []byte
		if err := s.RecvMsg(&message); err != nil {
			return err
		}
		r.checks <- message
		return s.SendMsg(&refusal)
	}))
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return r
}

// startCaptureEnvoy starts an Envoy, and returns its listeners by their names.
func (r *run) startCaptureEnvoy(t *testing.T, rec *recorder) map[string]*edge {
	t.Helper()
	dir := r.folder(t)
	clients := writeCertificate(t, dir)
	_, port, err := net.SplitHostPort(rec.address)
	if err != nil {
		t.Fatal(err)
	}
	var config bytes.Buffer
	if err := captureConfig.Execute(&config, map[string]any{
		"Settings": envoySettings(), "Recorder": port,
		"Certificate": filepath.Join(dir, "cert.pem"), "Key": filepath.Join(dir, "key.pem"),
	}); err != nil {
		t.Fatal(err)
	}
	recipe := deploy.Envoy()
	program, err := recipe.Find()
	if err != nil {
		t.Fatalf("%v; make test installs it", err)
	}
	p := r.start(t, "Envoy with many settings", func(ctx context.Context) (*exec.Cmd, error) {
		return recipe.Command(ctx, program, dir, config.String())
	})
	entries := map[string]*edge{}
	eventually(t, "Envoy has started", func() error {
		p.mustRun(t)
		text, err := os.ReadFile(filepath.Join(dir, deploy.EnvoyAdminFile))
		if err != nil {
			return err
		}
		page, err := get(t.Context(), "http://"+strings.TrimSpace(string(text))+"/listeners?format=json")
		if err != nil {
			return err
		}
		var listeners struct {
			Statuses []struct {
				Name    string `json:"name"`
				Address struct {
					Socket struct {
						Port int `json:"port_value"`
					} `json:"socket_address"`
				} `json:"local_address"`
			} `json:"listener_statuses"`
		}
		if err := json.Unmarshal([]byte(page), &listeners); err != nil {
			return err
		}
		if got, want := len(listeners.Statuses), len(envoySettings()); got != want {
			return fmt.Errorf("%d listeners, want %d", got, want)
		}
		for _, l := range listeners.Statuses {
			address := net.JoinHostPort("127.0.0.1", strconv.Itoa(l.Address.Socket.Port))
			if err := accepts(address); err != nil {
				return err
			}
			entries[l.Name] = &edge{process: p, run: r, name: l.Name, recipe: recipe, address: address, http2: newHTTP2(t)}
		}
		return nil
	})
	entries["tls"].tls = clients
	return entries
}

// writeCertificate makes a certificate that vouches for itself, for both sides of a
// connection, and returns how clients connect.
func writeCertificate(t *testing.T, dir string) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := url.Parse("spiffe://example.org/partner")
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "partner"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"api.example"}, URIs: []*url.URL{id},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, about, about, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	known := x509.NewCertPool()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	known.AddCert(cert)
	return &tls.Config{
		ServerName: "api.example", RootCAs: known, MinVersion: tls.VersionTLS13,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	}
}
