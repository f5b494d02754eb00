package authrequest_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/bearergate/bearergate/authrequest"
)

// goodLine is the header that is allowed. A line may go on in the next.
var goodLine = regexp.MustCompile(`(?i)authorization:\s*bearer\s+` + goodToken)

// FuzzWire sends any bytes to the listener. What is not refused has the good
// token in its header, and no answer is a 2xx but 200.
func FuzzWire(f *testing.F) {
	const good = "Authorization: Bearer " + goodToken + "\r\n"
	for _, seed := range []string{
		"",
		"GET /auth HTTP/1.1\r\nHost: a\r\n" + good + "\r\n",
		"GET /auth HTTP/1.1\r\nHost: a\r\n\r\nGET /auth/x?access_token=good-token HTTP/1.1\r\nHost: a\r\n" + good + "\r\n",
		"GET /authx HTTP/1.1\r\nHost: a\r\n" + good + "\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: a\r\n" + good + "\r\n",
		"HEAD /auth HTTP/1.0\r\n" + good + "\r\n",
		"POST /auth HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n" + good + "\r\nhello",
		"POST /auth HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n0\r\n" + good + "\r\n",
		"POST /auth HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
		"GET /auth HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer\r\n " + goodToken + "\r\n\r\n",
		"GET /auth HTTP/1.1\r\nHost: a\r\n" + good + good + "\r\n",
		"GET /auth HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good-token,Bearer good-token\r\n\r\n",
		"CONNECT /auth HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer panic-token\r\n\r\n",
		"GET http://a/auth HTTP/1.1\r\nHost: a\r\nX-Original-URI: /?access_token\r\nAuthorization: Bearer down-token\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	l, err := net.Listen("unix", filepath.Join(f.TempDir(), "s"))
	if err != nil {
		f.Fatal(err)
	}
	server := start(f, l, authrequest.Options{})
	f.Fuzz(func(t *testing.T, request []byte) {
		conn, err := net.Dial("unix", server.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		go func() { // the server may answer, and hang up, before it has read all
			_, _ = conn.Write(request)
			_ = conn.(*net.UnixConn).CloseWrite()
		}()
		answers := bufio.NewReader(conn)
		for {
			// The method is not known here, so a body where none belongs, as after
			// HEAD, is skipped like garbage.
			line, err := answers.ReadSlice('\n')
			if err != nil {
				if errors.Is(err, io.EOF) || isReset(err) {
					return
				}
				t.Fatalf("the answer to %q: %v", request, err)
			}
			if !success.Match(line) {
				continue
			}
			if !bytes.Contains(line, []byte(" 200 ")) {
				t.Fatalf("%q is answered with %s", request, line)
			}
			if !goodLine.Match(request) {
				t.Fatalf("%q is let through", request)
			}
		}
	})
}

var success = regexp.MustCompile(`HTTP/1\.[01] 2\d\d `)

// isReset reports whether the server hung up while there was something to read.
func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}
