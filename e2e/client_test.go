package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"testing"
	"time"
)

// request is what a client sends.
type request struct {
	method string // GET if empty
	host   string // api.example if empty
	// path is by default one of its own, which names the request in the edge's log. The
	// word CASE in it stands for that name.
	path  string
	query string // with its question mark
	// lines are header lines, sent as they stand here, without an end of line. Over
	// HTTP/2 they are cut at the colon.
	lines   []string
	body    io.Reader
	chunked bool   // the body is sent without saying how long it is
	proto   string // HTTP/1.1 if empty; HTTP/1.0 or HTTP/2.0
	// written is called when the edge has been sent all of an HTTP/1 request.
	written func()
}

func (q request) authority() string { return either(q.host, "api.example") }

// reply is what a client gets.
type reply struct {
	status int
	proto  string
	header http.Header
	body   string
}

func (r reply) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s %d\n", r.proto, r.status)
	_ = r.header.Write(&text)
	fmt.Fprintf(&text, "\n%s", r.body)
	return text.String()
}

// send sends a request to the edge and returns the reply, and the name under which
// the API knows the request.
func (e *edge) send(t testing.TB, q request) (reply, string) {
	t.Helper()
	r, name, err := e.try(t.Context(), q)
	if err != nil {
		t.Fatalf("%s: %v", e.name, err)
	}
	return r, name
}

// try is send for goroutines that must not end the test.
func (e *edge) try(ctx context.Context, q request) (reply, string, error) {
	name := e.run.nextCase()
	q.lines = append([]string{caseHeader + ": " + name}, q.lines...)
	q.method = either(q.method, http.MethodGet)
	q.path = strings.ReplaceAll(either(q.path, "/CASE"), "CASE", name) + q.query
	q.proto = either(q.proto, "HTTP/1.1")
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	exchange := e.overHTTP1
	if q.proto == "HTTP/2.0" {
		exchange = e.overHTTP2
	}
	r, err := exchange(ctx, q)
	if err != nil {
		return reply{}, name, fmt.Errorf("%s %s: %w", q.proto, q.method, err)
	}
	e.run.outputs.addText("reply of "+e.name+" to "+name, r.String())
	return r, name, nil
}

func either(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

// overHTTP1 writes the request to a connection of its own, byte for byte: no HTTP
// client sends what some of these requests hold.
func (e *edge) overHTTP1(ctx context.Context, q request) (reply, error) {
	dial := (&net.Dialer{}).DialContext
	if e.tls != nil {
		dial = (&tls.Dialer{Config: e.tls}).DialContext
	}
	c, err := dial(ctx, "tcp", e.address)
	if err != nil {
		return reply{}, err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(deadline); err != nil {
			return reply{}, err
		}
	}
	var head bytes.Buffer
	fmt.Fprintf(&head, "%s %s %s\r\nHost: %s\r\n", q.method, q.path, q.proto, q.authority())
	for _, line := range q.lines {
		fmt.Fprintf(&head, "%s\r\n", line)
	}
	var body []byte
	if q.body != nil {
		if body, err = io.ReadAll(q.body); err != nil {
			return reply{}, err
		}
		if q.chunked {
			head.WriteString("Transfer-Encoding: chunked\r\n")
			body = inChunks(body)
		} else {
			fmt.Fprintf(&head, "Content-Length: %d\r\n", len(body))
		}
	}
	head.WriteString("\r\n")
	// An edge may refuse before it has read the body; then writing fails, and the
	// reply is there all the same.
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = c.Write(append(head.Bytes(), body...))
		if q.written != nil {
			q.written()
		}
	}()
	defer func() { _ = c.Close(); <-done }()

	sent := &http.Request{Method: q.method}
	got, err := http.ReadResponse(bufio.NewReader(c), sent)
	if err != nil {
		return reply{}, err
	}
	return read(got)
}

func inChunks(body []byte) []byte {
	var chunked bytes.Buffer
	for len(body) > 0 {
		n := min(len(body), 4096)
		fmt.Fprintf(&chunked, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	chunked.WriteString("0\r\n\r\n")
	return chunked.Bytes()
}

func (e *edge) overHTTP2(ctx context.Context, q request) (reply, error) {
	raw, query, _ := strings.Cut(q.path, "?")
	path, err := url.PathUnescape(raw)
	if err != nil {
		return reply{}, err
	}
	r := (&http.Request{
		Method: q.method,
		URL:    &url.URL{Scheme: "http", Host: e.address, Path: path, RawPath: raw, RawQuery: query},
		Host:   q.authority(),
		Header: http.Header{},
	}).WithContext(ctx)
	for _, line := range q.lines {
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return reply{}, fmt.Errorf("%q is no header line", line)
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		r.Header[name] = append(r.Header[name], strings.TrimPrefix(value, " "))
	}
	if q.body != nil {
		r.Body = io.NopCloser(q.body)
		r.ContentLength = -1
	}
	got, err := e.http2.RoundTrip(r)
	if err != nil {
		return reply{}, err
	}
	return read(got)
}

func read(r *http.Response) (reply, error) {
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return reply{}, fmt.Errorf("body of a %d: %w", r.StatusCode, err)
	}
	return reply{status: r.StatusCode, proto: r.Proto, header: r.Header, body: string(body)}, nil
}

// newHTTP2 returns a transport that speaks HTTP/2 from the first byte, without TLS.
func newHTTP2(t *testing.T) *http.Transport {
	transport := &http.Transport{Protocols: new(http.Protocols), IdleConnTimeout: time.Minute}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}
