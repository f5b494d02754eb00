package crmnow

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// ErrClosed is what a [Client] answers after [Client.Close].
var ErrClosed = errors.New("fetch token: the client is closed")

// retryPause is how long a failed renewal is left alone while the kept token is
// still good.
const retryPause = 5 * time.Second

// likelySecret is how many bytes a client ID has to have to be taken for a
// secret that was put in its place, and to be kept out of errors like one.
const likelySecret = 12

// ClientOptions describe a partner and the endpoint. ID and Secret are required.
type ClientOptions struct {
	// URL is the endpoint; "" means DefaultURL. It begins with https://, or with
	// http:// and a loopback host.
	URL string
	// ID is the client ID, plain, not encoded in any way.
	ID string
	// Secret is the client secret, plain, not encoded in any way.
	Secret Secret
	// AllowPlaintext lets the secret travel unencrypted to a host other than
	// loopback.
	AllowPlaintext bool
	// Timeout bounds one fetch, from the connection to the end of the reply; 0
	// means 10 s.
	Timeout time.Duration
	// RenewBefore is how long before its end a kept token is replaced; 0 means
	// 30 s. It is never more than half of the token's lifetime.
	RenewBefore time.Duration
	// RootCAs may sign the endpoint's certificate; nil means the system's.
	RootCAs *x509.CertPool
	// UserAgent is sent with each request; "" means "bearergate".
	UserAgent string
	// Dial opens the connections; nil means TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Client fetches tokens as a partner does: POST without a body, and the
// credentials in Authorization: Basic, both parts form-urlencoded before they
// are joined (RFC 6749 §2.3.1). It follows no redirect. HTTPS_PROXY and NO_PROXY
// are obeyed, as [http.ProxyFromEnvironment] reads them.
//
// A Client may be used concurrently. [Client.Close] frees what it holds.
type Client struct {
	url           string
	authorization Secret
	hide          func(string) string // takes what is secret out of a text
	timeout       time.Duration
	renewBefore   time.Duration
	userAgent     string
	transport     *http.Transport

	fetches sync.WaitGroup // one for each flight

	mu      sync.Mutex
	closed  bool
	kept    Grant
	renewAt time.Time // from then on the kept grant is to be replaced
	flight  *flight   // the fetch under way, nil if there is none
}

// flight is a fetch that callers of Token wait for. Its fields other than done
// and cancel may be read once done is closed.
type flight struct {
	done   chan struct{}
	cancel context.CancelFunc
	grant  Grant
	err    error
}

// NewClient returns a client. It makes no connection yet. Errors name the option
// that is wrong, and no secret.
func NewClient(o ClientOptions) (*Client, error) {
	if o.URL == "" {
		o.URL = DefaultURL
	}
	u, err := url.Parse(o.URL)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("the endpoint's URL is not a URL with https:// and a host; write it like " + DefaultURL)
	case u.User != nil:
		return nil, errors.New("the endpoint's URL holds credentials; give them as client ID and secret")
	case u.Scheme == "http" && !o.AllowPlaintext && !isLoopback(u.Hostname()):
		return nil, errors.New("the endpoint's URL begins with http://, which would send the secret unencrypted; write https://")
	}
	// Its error would hold the whole variable, and that may hold a password.
	if _, err := http.ProxyFromEnvironment(&http.Request{URL: u}); err != nil {
		return nil, errors.New("HTTPS_PROXY or HTTP_PROXY does not hold a URL; write it like http://proxy.example:3128")
	}
	secret := o.Secret.Reveal()
	if err := usable("client ID", o.ID); err != nil {
		return nil, err
	}
	if err := usable("client secret", secret); err != nil {
		return nil, err
	}
	if o.Timeout < 0 || o.RenewBefore < 0 {
		return nil, errors.New("the time-out and the time to renew before the end are not negative; 0 gives the default")
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.RenewBefore == 0 {
		o.RenewBefore = 30 * time.Second
	}
	if o.UserAgent == "" {
		o.UserAgent = "bearergate"
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext
	}
	// RFC 6749 Appendix B: a blank becomes a plus sign, as QueryEscape has it.
	joined := url.QueryEscape(o.ID) + ":" + url.QueryEscape(secret)
	encoded := base64.StdEncoding.EncodeToString([]byte(joined))
	hidden := []string{encoded, "(hidden)", secret, "(hidden)", url.QueryEscape(secret), "(hidden)"}
	if len(o.ID) >= likelySecret {
		hidden = append(hidden, o.ID, "(hidden)", url.QueryEscape(o.ID), "(hidden)")
	}
	return &Client{
		url:           u.String(),
		authorization: NewSecret("Basic " + encoded),
		hide:          strings.NewReplacer(hidden...).Replace,
		timeout:       o.Timeout,
		renewBefore:   o.RenewBefore,
		userAgent:     o.UserAgent,
		transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            o.Dial,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs},
			ForceAttemptHTTP2:      true,
			MaxIdleConns:           2,
			IdleConnTimeout:        60 * time.Second,
			DisableCompression:     true, // the reply is small, and a compressed one could be a bomb
			MaxResponseHeaderBytes: maxBody,
		},
	}, nil
}

// usable refuses what cannot be meant as a client ID or secret.
func usable(what, value string) error {
	switch {
	case value == "":
		return fmt.Errorf("the %s is empty; give the one that crm-now issued", what)
	case strings.TrimRight(value, "\r\n") != value:
		return fmt.Errorf("the %s ends with a line break; take it off, for instance with printf instead of echo", what)
	case !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl):
		return fmt.Errorf("the %s holds a control character or is not UTF-8; give it as it was issued, plain", what)
	}
	return nil
}

// isLoopback reports whether a host never leaves this machine.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// Token returns the kept grant, or fetches one if there is none or its end is
// near. Callers that come while a fetch is under way share it. The fetch goes on
// when its callers give up; what it brings is kept.
//
// If a renewal fails while the kept grant is in force, the kept grant is
// returned, and the next renewal is tried 5 s later at the earliest. Otherwise
// the error is a *[FetchError], the cause of ctx, or [ErrClosed]. A failure is
// not remembered.
func (c *Client) Token(ctx context.Context) (Grant, error) {
	if ctx.Err() != nil {
		return Grant{}, fmt.Errorf("fetch token: %w", context.Cause(ctx))
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return Grant{}, ErrClosed
	}
	if now := time.Now(); now.Before(c.renewAt) && c.kept.InForce(now) {
		grant := c.kept
		c.mu.Unlock()
		return grant, nil
	}
	f := c.flight
	if f == nil {
		// Others may wait for this fetch, so it does not end with this caller.
		fetchCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		f = &flight{done: make(chan struct{}), cancel: cancel}
		c.flight = f
		c.fetches.Go(func() {
			defer cancel()
			grant, err := c.fetch(fetchCtx)
			c.land(f, grant, err)
		})
	}
	c.mu.Unlock()
	select {
	case <-f.done:
		return f.grant, f.err
	case <-ctx.Done():
		return Grant{}, fmt.Errorf("fetch token: %w", context.Cause(ctx))
	}
}

// land keeps what a flight brought and lets its callers go.
func (c *Client) land(f *flight, grant Grant, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	switch {
	case c.closed:
		grant, err = Grant{}, ErrClosed
	case err == nil:
		c.kept = grant
		c.renewAt = grant.ExpiresAt.Add(-min(c.renewBefore, grant.ExpiresIn/2))
	case c.kept.InForce(now):
		grant, err = c.kept, nil
		c.renewAt = now.Add(retryPause)
	}
	f.grant, f.err = grant, err
	c.flight = nil
	close(f.done)
}

// Discard forgets the kept grant if its token is the given one, so that the next
// [Client.Token] fetches another. It is for a token that an API refused before
// its end. It revokes nothing.
func (c *Client) Discard(token Secret) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept.AccessToken.Equal(token) {
		c.kept = Grant{}
	}
}

// fetch asks the endpoint for a new token. The error is a *[FetchError].
func (c *Client) fetch(ctx context.Context) (Grant, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, http.NoBody)
	if err != nil {
		return Grant{}, unreached(ctx, err)
	}
	req.Header.Set("Authorization", c.authorization.Reveal())
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.userAgent)
	asked := time.Now()
	// Not an http.Client: it would look into a redirect, and its errors hold URLs.
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return Grant{}, unreached(ctx, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case resp.StatusCode/100 != 2:
		// The status says more than a body that broke off, so it comes first.
		return Grant{}, refused(resp, body, c.hide)
	case err != nil && ctx.Err() != nil:
		return Grant{}, unreached(ctx, err)
	case err != nil:
		return Grant{}, &FetchError{
			Problem: ProblemReply, Status: resp.StatusCode,
			What: "the endpoint's reply broke off", Err: err, Next: "try again",
		}
	case len(body) > maxBody:
		return Grant{}, notUnderstood(resp.StatusCode, body, fmt.Errorf("it is longer than %d bytes", maxBody))
	}
	grant, err := parseGrant(body, asked)
	if err != nil {
		return Grant{}, notUnderstood(resp.StatusCode, body, err)
	}
	return grant, nil
}

// Close ends the fetch that is under way, waits until it has ended, and closes
// the idle connections. The kept token is forgotten.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	c.kept = Grant{}
	if c.flight != nil {
		c.flight.cancel()
	}
	c.mu.Unlock()
	c.fetches.Wait()
	c.transport.CloseIdleConnections()
}
