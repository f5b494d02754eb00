package config

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/bearergate/bearergate/admin"
	"github.com/bearergate/bearergate/listen"
	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
)

// certificates are those of a listener, and what is told of them from when they
// begin.
type certificates struct {
	*listen.Certificates

	logger  *slog.Logger
	metrics admin.CertificateMetrics

	mu      sync.Mutex
	window  time.Time // when the lines began to be counted
	lines   int
	skipped int64
}

// tlsOptions are what the configuration says of a listener's TLS, but for what it speaks.
func tlsOptions(t *configv1.Tls) listen.TLSOptions {
	o := listen.TLSOptions{
		CertFile:     t.GetCertFile(),
		KeyFile:      t.GetKeyFile(),
		ClientCAFile: t.GetClientCaFile(),
		ClientNames:  t.GetClientNames(),
		MinVersion:   tls.VersionTLS12,
	}
	if t.GetMinVersion() == "1.3" {
		o.MinVersion = tls.VersionTLS13
	}
	return o
}

func (g *Gateway) loadCertificates(e entry) (*certificates, error) {
	o := tlsOptions(e.GetTls())
	switch e.kind {
	case ExtAuthz:
		// RFC 9113 section 3.2: HTTP/2 over TLS is agreed on by ALPN.
		o.Protocols, o.NeedProtocol = []string{"h2"}, true
	case Admin:
		o.Protocols = []string{"h2", "http/1.1"} // gRPC, and all else
	default:
		// No HTTP/2 here: nginx, Caddy and Envoy's HTTP ext_authz ask over HTTP/1.1, and it would be one more thing that
		// a stranger can misuse. Many HTTP/1.1 clients name no protocol.
		o.Protocols = []string{"http/1.1"}
	}
	read, err := listen.LoadCertificates(o)
	if err != nil {
		return nil, fmt.Errorf("%s.tls.%w", e.path, err)
	}
	return &certificates{Certificates: read, logger: g.logger.With(slog.String("listener", e.name))}, nil
}

// begin has the operator shown what becomes of them from now on.
func (c *certificates) begin(listener string, metrics *admin.Metrics) {
	var reasons []string
	for _, reason := range listen.Refusals() {
		reasons = append(reasons, string(reason))
	}
	c.metrics = metrics.Certificate(listener, reasons)
	c.inForce()
}

// inForce tells of the certificate that is shown from now on.
func (c *certificates) inForce() {
	c.metrics.NotAfter(c.NotAfter())
	c.metrics.Reloaded(true)
	if c.KeyExposed() {
		c.logger.Warn("every user of this machine can read the listener's private key; take that right away (chmod 0640 or 0600)")
	}
	now := time.Now()
	switch {
	case now.After(c.NotAfter()):
		c.logger.Warn("the listener's certificate has ended; clients that look will not connect", slog.Time("not_after", c.NotAfter()))
	case now.Before(c.NotBefore()):
		c.logger.Warn("the listener's certificate is not good yet; clients that look will not connect", slog.Time("not_before", c.NotBefore()))
	}
}

// reload reads the files again.
func (c *certificates) reload() {
	switch news, err := c.Reload(); {
	case !news:
	case err != nil:
		c.metrics.Reloaded(false)
		c.logger.Error("the listener's certificate files cannot be used; what was in force stays so",
			slog.Any("error", err), slog.Time("not_after", c.NotAfter()))
	default:
		c.logger.Info("the listener's certificate files were read again", slog.Time("not_after", c.NotAfter()))
		c.inForce()
	}
}

// A listener gets this many lines about refused connections in each window.
const (
	linesPerWindow = 20
	logWindow      = 10 * time.Second
)

// maxDetail is how much is shown of an error: it may hold what the other side sent.
const maxDetail = 200

// refused counts a connection that did not come through its handshake, and tells of it unless many do.
func (c *certificates) refused(reason listen.Refusal, peer net.Addr, err error) {
	c.metrics.Refused(string(reason))
	level := slog.LevelWarn
	if reason == listen.Left {
		level = slog.LevelDebug // a probe that sees whether somebody listens
	}
	ctx := context.Background()
	if !c.logger.Enabled(ctx, level) {
		return
	}
	c.mu.Lock()
	if now := time.Now(); now.Sub(c.window) >= logWindow {
		c.window, c.lines = now, 0
	}
	c.lines++
	if c.lines > linesPerWindow {
		c.skipped++
		c.mu.Unlock()
		return
	}
	skipped := c.skipped
	c.skipped = 0
	c.mu.Unlock()

	detail := err.Error()
	if len(detail) > maxDetail {
		detail = detail[:maxDetail] + "…"
	}
	attrs := []slog.Attr{slog.String("reason", string(reason)), slog.String("detail", detail), slog.String("peer", peer.String())}
	if skipped > 0 {
		attrs = append(attrs, slog.Int64("more_like_this", skipped))
	}
	c.logger.LogAttrs(ctx, level, "a connection was refused in its TLS handshake", attrs...)
}
