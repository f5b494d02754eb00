package verifier_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bearergate/bearergate/verifier"
)

func TestRepliesThatAnswer(t *testing.T) {
	for _, c := range []struct {
		name   string
		valid  bool
		answer http.HandlerFunc
	}{
		{"yes", true, replies(http.StatusOK, saysValid)},
		{"no", false, replies(http.StatusOK, saysInvalid)},
		{"another good status", true, replies(http.StatusCreated, saysValid)},
		{"another type", true, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = io.WriteString(w, saysValid)
		}},
		{"in pieces", true, func(w http.ResponseWriter, _ *http.Request) {
			for i := range len(saysValid) {
				_, _ = io.WriteString(w, saysValid[i:i+1])
				w.(http.Flusher).Flush()
			}
		}},
		{"after early hints", true, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Link", "</style.css>; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			_, _ = io.WriteString(w, saysValid)
		}},
		{"as long as allowed", true, replies(http.StatusOK, saysValid+strings.Repeat(" ", 64<<10-len(saysValid)))},
		{"with Retry-After", false, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "60")
			_, _ = io.WriteString(w, saysInvalid)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := startEndpoint(t, nil, c.answer)
			expectVerdict(t, newVerifytoken(t, verifier.VerifytokenOptions{URL: e.URL}), c.valid)
		})
	}
}

func TestRepliesWithoutAnAnswer(t *testing.T) {
	unpacked := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(pack(t, text))
		}
	}
	for _, c := range []struct {
		name    string
		answer  http.HandlerFunc
		problem string
	}{
		{"nothing", replies(http.StatusOK, ""), "no answer"},
		{"no content", replies(http.StatusNoContent, ""), "no answer"},
		{"a web page", replies(http.StatusOK, "<!DOCTYPE html><title>CANARY</title>"), "no answer"},
		{"a token of its own", replies(http.StatusOK, `{"access_token": "CANARY", "expires_in": 300}`), "no answer"},
		{"the token", replies(http.StatusOK, canary), "no answer"},
		{"a result that is no boolean", replies(http.StatusOK, `{"result": "CANARY"}`), "no answer"},
		{"true as a string", replies(http.StatusOK, `{"result": "true"}`), "no answer"},
		{"two results", replies(http.StatusOK, `{"result": false, "result": true}`), "no answer"},
		{"a byte more than allowed", replies(http.StatusOK, saysValid+strings.Repeat(" ", 64<<10+1-len(saysValid))), "longer than 65536 bytes"},
		{"more than allowed, of a length that is not told", func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, saysValid+strings.Repeat(" ", 64<<10))
		}, "longer than 65536 bytes"},
		{"an answer that is packed", unpacked(saysValid), "no answer"},
		{"a bomb", unpacked(saysValid + strings.Repeat(" ", 4<<20)), "no answer"},

		{"multiple choices", replies(http.StatusMultipleChoices, saysValid), "status 300, a redirect"},
		{"not modified", replies(http.StatusNotModified, ""), "status 304"},
		{"bad request", replies(http.StatusBadRequest, saysValid), "status 400"},
		{"unauthorized", replies(http.StatusUnauthorized, saysInvalid), "status 401"},
		{"forbidden", replies(http.StatusForbidden, saysInvalid), "status 403"},
		{"not found", replies(http.StatusNotFound, saysInvalid), "status 404"},
		{"too many requests", replies(http.StatusTooManyRequests, saysValid), "status 429"},
		{"an error with a yes", replies(http.StatusInternalServerError, saysValid), "status 500"},
		{"an error with a no", replies(http.StatusInternalServerError, saysInvalid), "status 500"},
		{"bad gateway", replies(http.StatusBadGateway, "<h1>CANARY</h1>"), "status 502"},
		{"unavailable", replies(http.StatusServiceUnavailable, ""), "status 503"},
		{"gateway time-out", replies(http.StatusGatewayTimeout, ""), "status 504"},
		{"a status that nobody knows", replies(599, saysValid), "status 599"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := startEndpoint(t, nil, c.answer)
			verdict, err := ask(t, newVerifytoken(t, verifier.VerifytokenOptions{URL: e.URL + "/v1/getOauthToken.php?CANARY"}))
			none := expectNone(t, verdict, err, c.problem)
			if none.RetryAfter != 0 {
				t.Errorf("it asks to be left alone for %v", none.RetryAfter)
			}
			if asked := e.asked(); len(asked) != 1 || asked[0].header["Accept-Encoding"] != nil {
				t.Errorf("the questions are %+v, want one that does not ask for gzip", asked)
			}
		})
	}
}

func pack(t *testing.T, text string) []byte {
	t.Helper()
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return packed.Bytes()
}

func TestEndlessReply(t *testing.T) {
	for _, status := range []int{http.StatusOK, http.StatusBadGateway} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			ended := make(chan struct{})
			e := startEndpoint(t, nil, func(w http.ResponseWriter, _ *http.Request) {
				defer close(ended)
				w.WriteHeader(status)
				for err := error(nil); err == nil; { // until the client has had enough
					_, err = w.Write(make([]byte, 4<<10))
				}
			})
			verdict, err := ask(t, newVerifytoken(t, verifier.VerifytokenOptions{URL: e.URL}))
			if status == http.StatusOK {
				expectNone(t, verdict, err, "longer than")
			} else {
				expectNone(t, verdict, err, "status 502")
			}
			select {
			case <-ended:
			case <-time.After(patience):
				t.Error("the connection stays open")
			}
		})
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	target := startEndpoint(t, nil, replies(http.StatusOK, saysValid))
	for _, status := range []int{301, 302, 303, 305, 307, 308} {
		for name, location := range map[string]string{
			"elsewhere": target.URL + "/CANARY", "the same server": "/CANARY", "the same path": "", "not a URL": "http://%zz/CANARY",
		} {
			t.Run(fmt.Sprintf("%d to %s", status, name), func(t *testing.T) {
				e := startEndpoint(t, nil, func(w http.ResponseWriter, _ *http.Request) {
					w.Header()["Location"] = []string{location}
					w.WriteHeader(status)
				})
				verdict, err := ask(t, newVerifytoken(t, verifier.VerifytokenOptions{URL: e.URL}))
				expectNone(t, verdict, err, fmt.Sprintf("status %d, a redirect", status))
				if n := len(e.asked()); n != 1 {
					t.Errorf("the endpoint was asked %d times", n)
				}
			})
		}
	}
	if n := len(target.asked()); n != 0 {
		t.Errorf("the target of the redirects was asked %d times", n)
	}
}

func TestRetryAfter(t *testing.T) {
	in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
	for _, c := range []struct {
		name, value string
		least, most time.Duration
	}{
		{"none", "", 0, 0},
		{"seconds", "7", 7 * time.Second, 7 * time.Second},
		{"no time", "0", 0, 0},
		{"as long as allowed", "60", time.Minute, time.Minute},
		{"longer than makes sense", "61", time.Minute, time.Minute},
		{"days", "864000", time.Minute, time.Minute},
		{"more than a number holds", strings.Repeat("9", 30), time.Minute, time.Minute},
		{"less than nothing", "-5", 0, 0},
		{"with a sign", "+5", 0, 0},
		{"with a fraction", "1.5", 0, 0},
		{"in hexadecimal", "0x10", 0, 0},
		{"with a unit", "5s", 0, 0},
		{"a word", "CANARY", 0, 0},
		{"a date", in(50 * time.Second), 20 * time.Second, 50 * time.Second},
		{"a date in the old form", time.Now().Add(50 * time.Second).UTC().Format(time.ANSIC), 20 * time.Second, 50 * time.Second},
		{"a date that has passed", in(-time.Hour), 0, 0},
		{"a date far away", in(100 * 24 * time.Hour), time.Minute, time.Minute},
		{"a date that is none", "Mon, 99 Foo 2026 00:00:00 GMT", 0, 0},
	} {
		for status, counts := range map[int]bool{429: true, 503: true, 301: false, 400: false, 500: false, 502: false, 504: false} {
			t.Run(fmt.Sprintf("%s with %d", c.name, status), func(t *testing.T) {
				e := startEndpoint(t, nil, func(w http.ResponseWriter, _ *http.Request) {
					if c.value != "" {
						w.Header().Set("Retry-After", c.value)
					}
					w.WriteHeader(status)
				})
				verdict, err := ask(t, newVerifytoken(t, verifier.VerifytokenOptions{URL: e.URL}))
				none := expectNone(t, verdict, err, fmt.Sprintf("status %d", status))
				least, most := c.least, c.most
				if !counts {
					least, most = 0, 0
				}
				if none.RetryAfter < least || none.RetryAfter > most {
					t.Errorf("it asks to be left alone for %v, want %v to %v", none.RetryAfter, least, most)
				}
			})
		}
	}
}

func TestDeadline(t *testing.T) {
	release := make(chan struct{})
	e := startEndpoint(t, nil, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	v := newVerifytoken(t, verifier.VerifytokenOptions{URL: e.URL})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	verdict, err := v.Verify(ctx, newTokens(t).parse(t, canary))
	none := expectNone(t, verdict, err, "did not answer in time")
	if !errors.Is(none.Cause, context.DeadlineExceeded) {
		t.Errorf("the cause is %v", none.Cause)
	}
	if n := len(e.asked()); n > 1 {
		t.Errorf("the endpoint was asked %d times", n)
	}
}

func TestQuestionThatIsGivenUp(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	e := startEndpoint(t, nil, func(http.ResponseWriter, *http.Request) {
		close(asked) // it panics if it is asked twice
		<-release
	})
	defer close(release)
	v := newVerifytoken(t, verifier.VerifytokenOptions{URL: e.URL})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	verdict, err := v.Verify(ctx, newTokens(t).parse(t, canary))
	none := expectNone(t, verdict, err, "given up")
	if !errors.Is(none.Cause, context.Canceled) {
		t.Errorf("the cause is %v", none.Cause)
	}
}

// TestSlowReplies lets a reply come so slowly that the deadline is first, at
// every stage of it.
func TestSlowReplies(t *testing.T) {
	reply := whole(saysValid)
	for _, c := range []struct {
		name    string
		at      int // of the reply come at once
		problem string
	}{
		{"from the beginning", 0, "did not answer in time"},
		{"within the status line", 9, "did not answer in time"},
		{"within the header", 30, "did not answer in time"},
		{"before the body", len(reply) - len(saysValid), "did not answer in time"},
		{"within the body", len(reply) - 5, "did not answer in time"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPipes()
				defer p.Close()
				var server sync.WaitGroup
				server.Go(func() { dribble(t, p, reply, c.at) })
				defer server.Wait()
				v := newVerifytoken(t, verifier.VerifytokenOptions{URL: "http://127.0.0.1:1/v1/getOauthToken.php"})
				v.DialBy(p.dial)
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				begin := time.Now()
				verdict, err := v.Verify(ctx, newTokens(t).parse(t, canary))
				expectNone(t, verdict, err, c.problem)
				if took := time.Since(begin); took != 3*time.Second {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// dribble takes one connection, and sends a reply to the question: some of it at
// once, and then a byte a second.
func dribble(t *testing.T, p *pipes, reply string, at int) {
	conn, err := p.Accept()
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	r, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		t.Error(err)
		return
	}
	if _, err := read(r); err != nil {
		t.Error(err)
		return
	}
	_, err = io.WriteString(conn, reply[:at])
	for rest := reply[at:]; rest != "" && err == nil; rest = rest[1:] {
		<-time.After(time.Second)
		_, err = io.WriteString(conn, rest[:1])
	}
}
