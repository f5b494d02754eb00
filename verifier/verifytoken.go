package verifier

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/bearergate/bearergate/bearer"
)

// Encoding is how the verifytoken field travels.
type Encoding string

const (
	// Multipart is multipart/form-data, which the endpoint's own description uses.
	Multipart Encoding = "multipart"
	// Form is application/x-www-form-urlencoded.
	Form Encoding = "form"
)

// The bounds of what is read from the endpoint, in bytes.
const (
	maxReply       = 64 << 10
	maxReplyHeader = 64 << 10
)

// VerifytokenOptions describe an endpoint. URL is required.
type VerifytokenOptions struct {
	// Name stands for the endpoint in errors.
	Name string
	// URL is where the question is sent, whole.
	URL string
	// AllowPlaintext lets tokens travel over http:// to a host that is not
	// loopback.
	AllowPlaintext bool
	// Encoding is how; "" means Multipart.
	Encoding Encoding
	// MaxConnections bounds the connections to the endpoint, idle ones included;
	// 0 means 64.
	MaxConnections int
	// RootCAs may sign the endpoint's certificate; nil means the system's.
	RootCAs *x509.CertPool
	// UserAgent is sent with every question; "" means "bearergate".
	UserAgent string
}

// Verifytoken asks a crm-now endpoint: POST with the form field verifytoken,
// answered by {"result": true} or {"result": false}. Every other reply is a
// [NoAnswer]. It remembers nothing. It may be used concurrently.
//
// A question is bounded by its context alone. It is asked a second time only
// if the connection broke before an answer began, which is what a restart of
// the endpoint looks like. Redirects are not followed. HTTPS_PROXY and NO_PROXY
// are obeyed, as [http.ProxyFromEnvironment] reads them. It speaks HTTP/1.1.
type Verifytoken struct {
	name      string
	url       string
	encoding  Encoding
	userAgent string
	// No http.Client: that would follow redirects and keep cookies, and put the
	// URL into its errors. A token is sent nowhere but to the configured URL.
	transport *http.Transport
	clock     clock
	// answered is when an answer last began, by the monotonic clock.
	answered atomic.Int64
}

// NewVerifytoken returns a client of the endpoint. It makes no connection yet.
func NewVerifytoken(o VerifytokenOptions) (*Verifytoken, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("verifier %s: the endpoint's URL is not an http or https URL with a host", o.Name)
	}
	if u.User != nil {
		return nil, fmt.Errorf("verifier %s: the endpoint's URL holds credentials, which are not sent; take them out", o.Name)
	}
	if u.Scheme == "http" && !o.AllowPlaintext && !IsLoopback(u.Hostname()) {
		return nil, fmt.Errorf("verifier %s: the endpoint's URL begins with http://, which would send tokens in clear; write https://, or allow plaintext", o.Name)
	}
	switch o.Encoding {
	case "":
		o.Encoding = Multipart
	case Multipart, Form:
	default:
		return nil, fmt.Errorf("verifier %s: unknown encoding %q; use %q or %q", o.Name, o.Encoding, Multipart, Form)
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = 64
	}
	if o.UserAgent == "" {
		o.UserAgent = "bearergate"
	}
	// Over HTTP/2 all questions would go through one connection, and be lost with
	// it. When it is lost without a word it is kept for minutes, and beside it
	// net/http opens more than MaxConnsPerHost.
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	transport := &http.Transport{
		Protocols:              &protocols,
		Proxy:                  http.ProxyFromEnvironment,
		OnProxyConnectResponse: proxyRefused,
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs},
		TLSHandshakeTimeout:    10 * time.Second,
		MaxIdleConns:           o.MaxConnections,
		MaxIdleConnsPerHost:    o.MaxConnections, // the default of 2 would open and close a TLS connection for most calls of a burst
		MaxConnsPerHost:        o.MaxConnections,
		IdleConnTimeout:        60 * time.Second,
		DisableCompression:     true, // the replies are tiny, and a compressed one could be a bomb
		MaxResponseHeaderBytes: maxReplyHeader,
	}
	return &Verifytoken{
		name:      o.Name,
		url:       u.String(),
		encoding:  o.Encoding,
		userAgent: o.UserAgent,
		clock:     newClock(),
		transport: transport,
	}, nil
}

// IsLoopback reports whether a host, without a port, never leaves this machine:
// localhost, 127.0.0.0/8 and ::1. Other names are not looked up: what they mean
// may change.
func IsLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// Close closes the idle connections.
func (v *Verifytoken) Close() { v.transport.CloseIdleConnections() }

// Verify asks the endpoint. The error is a [NoAnswer].
func (v *Verifytoken) Verify(ctx context.Context, t bearer.Token) (Verdict, error) {
	contentType, body, err := v.encode(t)
	if err != nil {
		return Verdict{}, v.noAnswer("the question could not be written", err)
	}
	resp, began, err := v.ask(ctx, contentType, body)
	if err != nil && !began && connectionBroke(err) && ctx.Err() == nil {
		resp, began, err = v.ask(ctx, contentType, body)
	}
	if err != nil {
		otherwise := "the connection to the endpoint failed"
		if began {
			otherwise += " within a reply, or the reply is not HTTP"
		}
		return Verdict{}, v.noAnswer(problemOf(ctx, err, otherwise), shown(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		// There is no body, only a connection that knows no deadline.
		return Verdict{}, v.refusedToAnswer(resp)
	}
	reply, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	switch {
	case resp.StatusCode/100 != 2:
		// The status says more than a body that broke off, so it comes first.
		return Verdict{}, v.refusedToAnswer(resp)
	case err != nil:
		return Verdict{}, v.noAnswer(problemOf(ctx, err, "the endpoint's reply broke off"), shown(err))
	case len(reply) > maxReply:
		return Verdict{}, v.noAnswer(fmt.Sprintf("the endpoint's reply is longer than %d bytes; is the URL right?", maxReply), nil)
	}
	valid, err := parseAnswer(reply)
	if err != nil {
		return Verdict{}, v.noAnswer("the endpoint's reply is no answer; is the URL right?", err)
	}
	return Verdict{Valid: valid, Source: FromEndpoint, Learnt: time.Now()}, nil
}

// ask sends the question once, and reports whether an answer began.
func (v *Verifytoken) ask(ctx context.Context, contentType string, body []byte) (_ *http.Response, began bool, err error) {
	var reused, answered atomic.Bool // set by other goroutines, and maybe late
	begin := v.clock.now().mono
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(c httptrace.GotConnInfo) { reused.Store(c.Reused) },
		GotFirstResponseByte: func() {
			answered.Store(true)
			v.answered.Store(v.clock.now().mono)
		},
	}), http.MethodPost, v.url, bytes.NewReader(body))
	if err != nil {
		return nil, false, err
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", v.userAgent)
	resp, err := v.transport.RoundTrip(req)
	// What befell this connection has maybe befallen all that were made before: a
	// firewall that forgets them does not say so, and each of them would cost a
	// question. While answers come on others the endpoint is only slow, and to connect
	// anew would make it slower.
	dead := reused.Load() && v.answered.Load() < begin
	if err != nil && !answered.Load() && (dead || connectionBroke(err)) {
		v.transport.CloseIdleConnections()
	}
	return resp, answered.Load(), err
}

// encode writes the question. A multipart part takes the token as it is.
func (v *Verifytoken) encode(t bearer.Token) (contentType string, body []byte, err error) {
	if v.encoding == Form {
		return "application/x-www-form-urlencoded", []byte(url.Values{"verifytoken": {t.Reveal()}}.Encode()), nil
	}
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf) // its boundary is random, so no token can contain it
	if err := w.WriteField("verifytoken", t.Reveal()); err != nil {
		return "", nil, err
	}
	if err := w.Close(); err != nil {
		return "", nil, err
	}
	return w.FormDataContentType(), buf.Bytes(), nil
}

func (v *Verifytoken) refusedToAnswer(resp *http.Response) error {
	problem := "the endpoint answered with status " + strconv.Itoa(resp.StatusCode)
	if resp.StatusCode/100 == 3 {
		problem += ", a redirect, which is not followed with a token in hand; write the final URL into the configuration"
	}
	return &NoAnswer{Verifier: v.name, Problem: problem, RetryAfter: retryAfter(resp)}
}

// retryAfter reads the Retry-After of a 429 or 503 (RFC 9110 §10.2.3), 0 if
// there is none, and maxRetryAfter if it is longer.
func retryAfter(resp *http.Response) time.Duration {
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode != http.StatusServiceUnavailable {
		return 0
	}
	value := resp.Header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil || errors.Is(err, strconv.ErrRange) {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(0, time.Until(at)), maxRetryAfter)
	}
	return 0
}

func (v *Verifytoken) noAnswer(problem string, cause error) error {
	return &NoAnswer{Verifier: v.name, Problem: problem, Cause: cause}
}

// problemOf puts a failed exchange into words.
func problemOf(ctx context.Context, err error, otherwise string) string {
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	var op *net.OpError
	var refused *proxyError
	var plain tls.RecordHeaderError
	var timeout net.Error
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return "the question was given up before the endpoint answered"
	case errors.As(err, &refused):
		return "the proxy does not connect to the endpoint"
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return "the proxy cannot be reached; look at HTTPS_PROXY and HTTP_PROXY"
	case ctx.Err() != nil || errors.As(err, &timeout) && timeout.Timeout():
		return "the endpoint did not answer in time"
	case errors.As(err, &dns):
		return "the endpoint's host name could not be resolved"
	case errors.As(err, &cert):
		return "the endpoint's certificate is not trusted"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nobody listens at the endpoint"
	case errors.As(err, &plain):
		return "the endpoint does not speak TLS; is the URL right?"
	default:
		return otherwise
	}
}

// shown returns what of an error may be shown, nil if nothing. Errors of net/http
// quote what came over the wire, and an endpoint may send anything back, the
// token too. So only errors pass that are known to quote nothing of it.
func shown(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op // in the words of the system, the resolver or crypto/tls
	}
	if cert, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return cert
	}
	if refused, ok := errors.AsType[*proxyError](err); ok {
		return refused
	}
	for _, plain := range []error{context.Canceled, context.DeadlineExceeded, io.EOF, io.ErrUnexpectedEOF} {
		if errors.Is(err, plain) {
			return plain
		}
	}
	if strings.HasPrefix(err.Error(), "tls: ") {
		return err
	}
	return nil
}

// proxyError is the error of a proxy that does not connect to the endpoint.
type proxyError struct{ status int }

func (e *proxyError) Error() string { return "it answered with status " + strconv.Itoa(e.status) }

// proxyRefused puts the proxy's status in place of its words.
func proxyRefused(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode != http.StatusOK {
		return &proxyError{resp.StatusCode}
	}
	return nil
}

// connectionBroke reports whether the connection ended before an answer began,
// as it does when the endpoint restarts. net/http repeats a POST by itself only
// if nothing of it was written.
func connectionBroke(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		strings.Contains(err.Error(), "server closed idle connection")
}
