package verifier_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/bearergate/bearergate/verifier"
)

func TestSecondTry(t *testing.T) {
	good := whole(saysValid)
	for _, c := range []struct {
		name    string
		answers []func(int, *net.TCPConn) bool // the last one goes on
		asked   int
		problem string // "" if there is a verdict
	}{
		{"none is needed", []func(int, *net.TCPConn) bool{write(good)}, 1, ""},
		{"closed before a reply, then answered", []func(int, *net.TCPConn) bool{write(""), write(good)}, 2, ""},
		{"reset before a reply, then answered", []func(int, *net.TCPConn) bool{reset(""), write(good)}, 2, ""},
		{"always closed", []func(int, *net.TCPConn) bool{write("")}, 2, "connection to the endpoint failed: EOF"},
		{"always reset", []func(int, *net.TCPConn) bool{reset("")}, 2, "connection reset by peer"},
		{"closed, then reset, then answered", []func(int, *net.TCPConn) bool{write(""), reset(""), write(good)}, 2, "connection reset by peer"},
		{"closed, then an error", []func(int, *net.TCPConn) bool{write(""), write("HTTP/1.1 500 CANARY\r\nContent-Length: 0\r\n\r\n")}, 2, "status 500"},
		{"closed, then cut off", []func(int, *net.TCPConn) bool{write(""), write(good[:len(good)-1])}, 2, "broke off"},

		{"closed within the status line", []func(int, *net.TCPConn) bool{write(good[:7]), write(good)}, 1, "failed within a reply"},
		{"closed after the status line", []func(int, *net.TCPConn) bool{write(good[:17]), write(good)}, 1, "failed within a reply"},
		{"closed within the header", []func(int, *net.TCPConn) bool{write(good[:30]), write(good)}, 1, "failed within a reply"},
		{"closed before the body", []func(int, *net.TCPConn) bool{write(good[:len(good)-len(saysValid)]), write(good)}, 1, "broke off"},
		{"closed within the body", []func(int, *net.TCPConn) bool{write(good[:len(good)-9]), write(good)}, 1, "broke off"},
		{"closed a byte too early", []func(int, *net.TCPConn) bool{write(good[:len(good)-1]), write(good)}, 1, "broke off"},
		{"a chunk cut off", []func(int, *net.TCPConn) bool{write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n80\r\n" + saysValid), write(good)}, 1, "broke off"},
		{"the last chunk missing", []func(int, *net.TCPConn) bool{
			write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + strconv.FormatInt(int64(len(saysValid)), 16) + "\r\n" + saysValid + "\r\n"), write(good),
		}, 1, "broke off"},
		{"an error cut off", []func(int, *net.TCPConn) bool{write("HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\nx"), write(good)}, 1, "status 503"},
		{"an interim reply and no more", []func(int, *net.TCPConn) bool{write("HTTP/1.1 103 Early Hints\r\n\r\n"), write(good)}, 1, "failed within a reply"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := startRaw(t, func(n int, conn *net.TCPConn) bool {
				return c.answers[min(n, len(c.answers)-1)](n, conn)
			})
			verdict, err := ask(t, newVerifytoken(t, verifier.VerifytokenOptions{URL: e.url}))
			if c.problem != "" {
				expectNone(t, verdict, err, c.problem)
			} else if err != nil || !verdict.Valid {
				t.Errorf("the verdict is %+v, %v", verdict, err)
			}
			asked := e.asked()
			if len(asked) != c.asked {
				t.Fatalf("the endpoint was asked %d times, want %d", len(asked), c.asked)
			}
			for _, q := range asked {
				if got := q.token(t); got != canary || !bytes.Equal(q.body, asked[0].body) {
					t.Errorf("the token arrives as %s", got)
				}
			}
		})
	}
}

// TestReplyWithoutALength is an answer that ends with its connection: HTTP/1.0
// knows no other, and nobody can tell it from one that was cut off, except by the
// JSON.
func TestReplyWithoutALength(t *testing.T) {
	for body, answers := range map[string]bool{saysValid: true, saysValid[:len(saysValid)-1]: false} {
		e := startRaw(t, write("HTTP/1.0 200 OK\r\n\r\n"+body))
		verdict, err := ask(t, newVerifytoken(t, verifier.VerifytokenOptions{URL: e.url}))
		if answers {
			if err != nil || !verdict.Valid {
				t.Errorf("the verdict is %+v, %v", verdict, err)
			}
		} else {
			expectNone(t, verdict, err, "no answer")
		}
	}
}

func TestNoSecondTryWhenTheTimeIsOver(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	e := startRaw(t, func(int, *net.TCPConn) bool {
		cancel()
		<-ctx.Done()
		return false
	})
	verdict, err := newVerifytoken(t, verifier.VerifytokenOptions{URL: e.url}).Verify(ctx, newTokens(t).parse(t, canary))
	expectNone(t, verdict, err, "given up")
	if n := len(e.asked()); n != 1 {
		t.Errorf("the endpoint was asked %d times", n)
	}
}

func TestNobodyListens(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	v := newVerifytoken(t, verifier.VerifytokenOptions{URL: "http://" + listener.Addr().String() + "/getOauthToken"})
	verdict, err := ask(t, v)
	expectNone(t, verdict, err, "nobody listens at the endpoint: dial tcp 127.0.0.1:")
}

func TestHostThatHasNoAddress(t *testing.T) {
	// A label of more than 63 letters cannot be asked for, so no name server is.
	v := newVerifytoken(t, verifier.VerifytokenOptions{URL: "https://" + strings.Repeat("x", 64) + ".example/getOauthToken"})
	verdict, err := ask(t, v)
	expectNone(t, verdict, err, "could not be resolved")
}

// TestErrorsHoldNothingOfTheWire lets an endpoint send the token back in every
// place where a client could pick it up.
func TestErrorsHoldNothingOfTheWire(t *testing.T) {
	head := "HTTP/1.1 200 OK\r\n"
	for name, reply := range map[string]string{
		"the question itself":        "POST /v1/getOauthToken.php HTTP/1.1\r\nHost: " + canary + "\r\n\r\n",
		"another protocol":           "220 " + canary + " ESMTP\r\n",
		"the token alone":            canary + "\r\n",
		"a protocol version":         "HTTP/" + canary + " 200 OK\r\n\r\n",
		"a status":                   "HTTP/1.1 " + canary + " OK\r\n\r\n",
		"a reason":                   "HTTP/1.1 500 " + canary + "\r\nContent-Length: 0\r\n\r\n",
		"a header line without name": head + canary + "\r\n\r\n",
		"a header name with a space": head + "X " + canary + ": x\r\n\r\n",
		"a header value":             head + "X: " + canary + "\r\nContent-Length: 1\r\n\r\nx",
		"a control character":        head + "X: " + canary + "\x00\x01\r\nContent-Length: 1\r\n\r\nx",
		"a length":                   head + "Content-Length: " + canary + "\r\n\r\n",
		"two lengths":                head + "Content-Length: 5\r\nContent-Length: 6" + canary + "\r\n\r\n",
		"a transfer coding":          head + "Transfer-Encoding: " + canary + "\r\n\r\n",
		"a chunk's length":           head + "Transfer-Encoding: chunked\r\n\r\n" + canary + "\r\n",
		"a trailer":                  head + "Transfer-Encoding: chunked\r\n\r\n0\r\n" + canary + "\r\n\r\n",
		"a place":                    "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/" + canary + "\r\nContent-Length: 0\r\n\r\n",
		"Retry-After":                "HTTP/1.1 503 Busy\r\nRetry-After: " + canary + "\r\nContent-Length: 0\r\n\r\n",
		"the body":                   whole(canary),
		"a cookie":                   head + "Set-Cookie: " + canary + "\r\nContent-Length: 0\r\n\r\n",
		"a header without an end":    head + "X: " + strings.Repeat(canary, 4000) + "\r\n\r\n",
		"a protocol to switch to":    "HTTP/1.1 101 " + canary + "\r\nUpgrade: " + canary + "\r\nConnection: Upgrade\r\n\r\n" + canary,
	} {
		t.Run(name, func(t *testing.T) {
			e := startRaw(t, write(reply))
			verdict, err := ask(t, newVerifytoken(t, verifier.VerifytokenOptions{URL: e.url + "?CANARY"}))
			none := expectNone(t, verdict, err, "endpoint")
			for _, verb := range []string{"%v", "%+v", "%#v", "%q", "%s"} {
				expectHidden(t, fmt.Sprintf(verb+verb, none, *none), "CANARY", "getOauthToken")
			}
			if n := len(e.asked()); n != 1 {
				t.Errorf("the endpoint was asked %d times", n)
			}
		})
	}
}

// TestSwitchedProtocol is an endpoint that says it will go on in another protocol
// and then says nothing: the deadline counts there too.
func TestSwitchedProtocol(t *testing.T) {
	release := make(chan struct{})
	e := startRaw(t, func(_ int, conn *net.TCPConn) bool {
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
		<-release
		return false
	})
	defer close(release)
	verdict, err := ask(t, newVerifytoken(t, verifier.VerifytokenOptions{URL: e.url}))
	expectNone(t, verdict, err, "status 101")
}

// TestManyInterimReplies is an endpoint that always has something to say, and
// never the answer.
func TestManyInterimReplies(t *testing.T) {
	e := startRaw(t, func(_ int, conn *net.TCPConn) bool {
		for err := error(nil); err == nil; {
			_, err = io.WriteString(conn, "HTTP/1.1 103 Early Hints\r\nLink: <CANARY>\r\n\r\n")
		}
		return false
	})
	verdict, err := ask(t, newVerifytoken(t, verifier.VerifytokenOptions{URL: e.url}))
	expectNone(t, verdict, err, "endpoint")
}

// TestQuestionOnAConnectionThatTheEndpointHasClosed: between two questions an
// endpoint may close the connection at any time.
func TestQuestionOnAConnectionThatTheEndpointHasClosed(t *testing.T) {
	e := startEndpoint(t, nil, replies(http.StatusOK, saysValid))
	v := newVerifytoken(t, verifier.VerifytokenOptions{URL: e.URL})
	for range 50 {
		expectVerdict(t, v, true)
		e.CloseClientConnections()
	}
	if n := len(e.asked()); n != 50 {
		t.Errorf("the endpoint was asked %d times", n)
	}
	if !slices.ContainsFunc(e.asked(), func(q question) bool { return q.token(t) == canary }) {
		t.Error("the token did not arrive")
	}
}
