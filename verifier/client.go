package verifier

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
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
)

// The bounds of what is read from the endpoint, in bytes.
const (
	maxReply       = 64 << 10
	maxReplyHeader = 64 << 10
)

// clientOptions describe who asks, and over what.
type clientOptions struct {
	name           string // stands for the verifier in errors
	allowPlaintext bool   // http:// to a host that is not loopback
	maxConnections int    // idle ones included; 0 means 64
	rootCAs        *x509.CertPool
	userAgent      string // "" means "bearergate"
}

// client asks over HTTP what a verifier has to know. It may be used concurrently.
//
// A question is bounded by its context alone. It is asked a second time only
// if the connection broke before an answer began, which is what a restart of
// the endpoint looks like. Redirects are not followed. HTTPS_PROXY and NO_PROXY
// are obeyed, as [http.ProxyFromEnvironment] reads them. It speaks HTTP/1.1.
type client struct {
	name           string
	allowPlaintext bool
	userAgent      string
	// No http.Client: that would follow redirects and keep cookies, and put the
	// URL into its errors. A token is sent nowhere but to the configured URL.
	transport *http.Transport
	clock     clock
	// answered is when an answer last began, by the monotonic clock.
	answered atomic.Int64
}

func newClient(o clientOptions) *client {
	if o.maxConnections == 0 {
		o.maxConnections = 64
	}
	if o.userAgent == "" {
		o.userAgent = "bearergate"
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
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.rootCAs},
		TLSHandshakeTimeout:    10 * time.Second,
		MaxIdleConns:           o.maxConnections,
		MaxIdleConnsPerHost:    o.maxConnections, // the default of 2 would open and close a TLS connection for most calls of a burst
		MaxConnsPerHost:        o.maxConnections,
		IdleConnTimeout:        60 * time.Second,
		DisableCompression:     true, // the replies are tiny, and a compressed one could be a bomb
		MaxResponseHeaderBytes: maxReplyHeader,
	}
	return &client{
		name:           o.name,
		allowPlaintext: o.allowPlaintext,
		userAgent:      o.userAgent,
		clock:          newClock(),
		transport:      transport,
	}
}

// checkURL returns the URL of an endpoint as it is asked, or says why it must not be.
func (c *client) checkURL(text string) (string, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		return "", fmt.Errorf("verifier %s: the endpoint's URL is not an http or https URL with a host", c.name)
	case u.User != nil:
		return "", fmt.Errorf("verifier %s: the endpoint's URL holds credentials, which are not sent; take them out", c.name)
	case u.Scheme == "http" && !c.allowPlaintext && !IsLoopback(u.Hostname()):
		return "", fmt.Errorf("verifier %s: the endpoint's URL begins with http://, which would send tokens in clear; write https://, or allow plaintext", c.name)
	}
	return u.String(), nil
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

func (c *client) close() { c.transport.CloseIdleConnections() }

// question is what an endpoint is asked.
type question struct {
	method, url   string
	contentType   string // "" if there is no body
	body          []byte
	accept        string
	authorization string // "" for none
	maxReply      int    // 0 means maxReply
}

// answer is a reply with a status of 2xx.
type answer struct {
	contentType string
	body        []byte
}

// ask asks, and again if the connection broke before an answer began. The error is
// a [NoAnswer]; status is 0 if there was no reply.
func (c *client) ask(ctx context.Context, q *question) (a answer, status int, err error) {
	resp, began, err := c.send(ctx, q)
	if err != nil && !began && connectionBroke(err) && ctx.Err() == nil {
		resp, began, err = c.send(ctx, q)
	}
	if err != nil {
		otherwise := "the connection to the endpoint failed"
		if began {
			otherwise += " within a reply, or the reply is not HTTP"
		}
		return answer{}, 0, c.noAnswer(problemOf(ctx, err, otherwise), shown(err))
	}
	defer resp.Body.Close()
	status = resp.StatusCode
	if status == http.StatusSwitchingProtocols {
		// There is no body, only a connection that knows no deadline.
		return answer{}, status, c.refusedToAnswer(resp)
	}
	most := q.maxReply
	if most == 0 {
		most = maxReply
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(most)+1))
	switch {
	case status/100 != 2:
		// The status says more than a body that broke off, so it comes first.
		return answer{}, status, c.refusedToAnswer(resp)
	case err != nil:
		return answer{}, status, c.noAnswer(problemOf(ctx, err, "the endpoint's reply broke off"), shown(err))
	case len(body) > most:
		return answer{}, status, c.noAnswer(fmt.Sprintf("the endpoint's reply is longer than %d bytes; is the URL right?", most), nil)
	}
	return answer{contentType: resp.Header.Get("Content-Type"), body: body}, status, nil
}

// send sends the question once, and reports whether an answer began.
func (c *client) send(ctx context.Context, q *question) (_ *http.Response, began bool, err error) {
	var reused, answered atomic.Bool // set by other goroutines, and maybe late
	begin := c.clock.now().mono
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) { reused.Store(i.Reused) },
		GotFirstResponseByte: func() {
			answered.Store(true)
			c.answered.Store(c.clock.now().mono)
		},
	}), q.method, q.url, bytes.NewReader(q.body))
	if err != nil {
		return nil, false, err
	}
	if q.contentType != "" {
		req.Header.Set("Content-Type", q.contentType)
	}
	req.Header.Set("Accept", q.accept)
	if q.authorization != "" {
		req.Header.Set("Authorization", q.authorization)
	}
	req.Header.Set("User-Agent", c.userAgent)
	resp, err := c.transport.RoundTrip(req)
	// What befell this connection has maybe befallen all that were made before: a
	// firewall that forgets them does not say so, and each of them would cost a
	// question. While answers come on others the endpoint is only slow, and to connect
	// anew would make it slower.
	dead := reused.Load() && c.answered.Load() < begin
	if err != nil && !answered.Load() && (dead || connectionBroke(err)) {
		c.transport.CloseIdleConnections()
	}
	return resp, answered.Load(), err
}

// refusedToAnswer makes a no-answer of a reply whose status is none of an answer.
func (c *client) refusedToAnswer(resp *http.Response) error {
	problem := "the endpoint answered with status " + strconv.Itoa(resp.StatusCode)
	if resp.StatusCode/100 == 3 {
		problem += ", a redirect, which is not followed with a token in hand; write the final URL into the configuration"
	}
	return &NoAnswer{Verifier: c.name, Problem: problem, RetryAfter: retryAfter(resp)}
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

func (c *client) noAnswer(problem string, cause error) error {
	return &NoAnswer{Verifier: c.name, Problem: problem, Cause: cause}
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
