package verifier

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/url"
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
	client   *client
	url      string
	encoding Encoding
}

// NewVerifytoken returns a client of the endpoint. It makes no connection yet.
func NewVerifytoken(o VerifytokenOptions) (*Verifytoken, error) {
	switch o.Encoding {
	case "":
		o.Encoding = Multipart
	case Multipart, Form:
	default:
		return nil, fmt.Errorf("verifier %s: unknown encoding %q; use %q or %q", o.Name, o.Encoding, Multipart, Form)
	}
	c := newClient(clientOptions{
		name: o.Name, allowPlaintext: o.AllowPlaintext, maxConnections: o.MaxConnections, rootCAs: o.RootCAs, userAgent: o.UserAgent,
	})
	u, err := c.checkURL(o.URL)
	if err != nil {
		return nil, err
	}
	return &Verifytoken{client: c, url: u, encoding: o.Encoding}, nil
}

// Close closes the idle connections.
func (v *Verifytoken) Close() { v.client.close() }

// Verify asks the endpoint. The error is a [NoAnswer].
func (v *Verifytoken) Verify(ctx context.Context, t bearer.Token) (Verdict, error) {
	contentType, body, err := v.encode(t)
	if err != nil {
		return Verdict{}, v.client.noAnswer("the question could not be written", err)
	}
	a, _, err := v.client.ask(ctx, &question{
		method: http.MethodPost, url: v.url, contentType: contentType, body: body, accept: "application/json",
	})
	if err != nil {
		return Verdict{}, err
	}
	valid, err := parseAnswer(a.body)
	if err != nil {
		return Verdict{}, v.client.noAnswer("the endpoint's reply is no answer; is the URL right?", err)
	}
	return Verdict{Valid: valid, Source: FromEndpoint, Learnt: time.Now()}, nil
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
