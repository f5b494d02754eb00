package crmnow

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"
)

// Problem is the kind of trouble that kept a token from being fetched.
type Problem string

// The problems, each with what it means.
const (
	// ProblemCredentials: the endpoint does not accept the client's ID and
	// secret. To try again with the same ones will not help.
	ProblemCredentials Problem = "credentials"
	// ProblemRequest: the endpoint does not accept the request, which something
	// on the way has changed.
	ProblemRequest Problem = "request"
	// ProblemURL: what answers is not the endpoint.
	ProblemURL Problem = "url"
	// ProblemReply: the reply was cut off or cannot be understood.
	ProblemReply Problem = "reply"
	// ProblemUnavailable: the endpoint says that it cannot answer now.
	ProblemUnavailable Problem = "unavailable"
	// ProblemConnection: the endpoint was not reached.
	ProblemConnection Problem = "connection"
	// ProblemTimeout: the endpoint did not answer in time.
	ProblemTimeout Problem = "timeout"
)

// FetchError says why there is no token, and what to look at. It holds neither
// a secret nor a token.
type FetchError struct {
	// Problem is the kind of trouble.
	Problem Problem
	// Status is the HTTP status of the reply, 0 if there was none.
	Status int
	// RetryAfter is how long the endpoint asks to be left alone, 0 if it does
	// not say.
	RetryAfter time.Duration
	// Reply is the error that the endpoint names in its reply (RFC 6749 §5.2), ""
	// if none.
	Reply string
	// What is what happened.
	What string
	// Next is what to look at.
	Next string
	// Err is the cause, nil if there is none but the reply.
	Err error
}

// Error says what happened and what to look at.
func (e *FetchError) Error() string {
	var text strings.Builder
	text.WriteString("fetch token: ")
	text.WriteString(e.What)
	if e.Err != nil {
		text.WriteString(": ")
		text.WriteString(e.Err.Error())
	}
	if e.Reply != "" {
		text.WriteString(" (it says: " + e.Reply + ")")
	}
	if e.Next != "" {
		text.WriteString("; " + e.Next)
	}
	return text.String()
}

// Unwrap returns the cause.
func (e *FetchError) Unwrap() error { return e.Err }

const (
	nextCredentials = "check that client ID and secret are not swapped or mistyped, and that both are given plain: " +
		"each is form-urlencoded before the two are joined and base64-coded, here by this client, elsewhere by whoever writes the header"
	nextURL     = "check the URL"
	nextRequest = "check that nothing on the way changes the request: " +
		"a token is fetched with POST, without a body, with an Authorization header"
	nextPlainHTML = "check the URL, and that no proxy or login page answers in the endpoint's place"
)

// refused says why a reply with a status other than 2xx is no grant.
func refused(resp *http.Response, body []byte, hide func(string) string) *FetchError {
	e := &FetchError{Status: resp.StatusCode, RetryAfter: retryAfter(resp), Reply: errorOf(body, hide)}
	status := "status " + strconv.Itoa(e.Status)
	code, _, _ := strings.Cut(e.Reply, ":")
	switch {
	case e.Status/100 == 3:
		e.Problem = ProblemURL
		e.What = "the endpoint answered with a redirect (" + status + target(resp) + "), which is not followed with a secret in hand"
		e.Next = "check the URL, above all that it begins with https:// and has no other host"
	case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden,
		e.Status == http.StatusBadRequest && (code == "invalid_client" || code == "unauthorized_client"):
		e.Problem = ProblemCredentials
		e.What = "the endpoint does not accept the credentials (" + status + ")"
		e.Next = nextCredentials
	case e.Status == http.StatusProxyAuthRequired:
		e.Problem = ProblemConnection
		e.What = "the proxy on the way asks for credentials (" + status + ")"
		e.Next = "check HTTPS_PROXY"
	case e.Status == http.StatusNotFound, e.Status == http.StatusGone:
		e.Problem = ProblemURL
		e.What = "there is no endpoint at this URL (" + status + ")"
		e.Next = nextURL
	case e.Status == http.StatusTooManyRequests, e.Status == http.StatusRequestTimeout, e.Status >= 500:
		e.Problem = ProblemUnavailable
		e.What = "the endpoint cannot answer now (" + status + ")"
		e.Next = "try again later"
	default:
		e.Problem = ProblemRequest
		e.What = "the endpoint does not accept the request (" + status + ")"
		e.Next = nextRequest
	}
	return e
}

// notUnderstood says why a 2xx reply is no grant.
func notUnderstood(status int, body []byte, err error) *FetchError {
	e := &FetchError{Problem: ProblemReply, Status: status, What: "the endpoint's reply cannot be used", Err: err, Next: nextURL}
	if strings.HasPrefix(strings.TrimLeft(string(body), "\ufeff \t\r\n"), "<") {
		e.Problem, e.Err = ProblemURL, nil
		e.What, e.Next = "a web page came instead of the endpoint's reply", nextPlainHTML
	}
	return e
}

// unreached says why there is no reply at all.
func unreached(ctx context.Context, err error) *FetchError {
	e := &FetchError{Problem: ProblemConnection, Err: err, Next: "check the URL, the network and HTTPS_PROXY"}
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		e.What, e.Next = "given up", ""
	case ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded):
		e.Problem = ProblemTimeout
		e.What = "the endpoint did not answer in time"
	case errors.As(err, &dns):
		e.What = "the endpoint's host name could not be resolved"
	case errors.As(err, &cert):
		e.What, e.Next = "the endpoint's certificate is not trusted", "check the URL and the certificate authorities of this machine"
	case errors.As(err, &record):
		e.What, e.Next = "the endpoint does not speak TLS", "check the URL's port"
	case errors.Is(err, syscall.ECONNREFUSED):
		e.What = "nobody listens at the endpoint"
	default:
		e.What = "the connection to the endpoint failed"
	}
	return e
}

// retryAfter reads the Retry-After of a reply (RFC 9110 §10.2.3), 0 if there is
// none.
func retryAfter(resp *http.Response) time.Duration {
	value := resp.Header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// target names where a redirect points, without what may be secret in an URL.
func target(resp *http.Response) string {
	u, err := resp.Location()
	if err != nil || u.Host == "" {
		return ""
	}
	return fmt.Sprintf(" to %s://%s", plain(u.Scheme, 10), plain(u.Host, 80))
}

// errorOf returns error and error_description of a reply as RFC 6749 §5.2 has
// them, if they are there.
func errorOf(body []byte, hide func(string) string) string {
	var reply map[string]json.RawMessage
	if json.Unmarshal(body, &reply) != nil {
		return ""
	}
	// What is no string is as good as not there.
	text, _ := member[string](reply, "error", "")
	if description, _ := member[string](reply, "error_description", ""); description != "" {
		text = strings.TrimPrefix(text+": "+description, ": ")
	}
	return plain(hide(text), 300)
}

// plain keeps what can be printed of a text that someone else wrote, up to a
// number of characters.
func plain(text string, longest int) string {
	runes := slices.DeleteFunc([]rune(text), func(r rune) bool { return !unicode.IsPrint(r) })
	if len(runes) > longest {
		return string(runes[:longest]) + "..."
	}
	return string(runes)
}
