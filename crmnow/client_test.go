package crmnow_test

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bearergate/bearergate/crmnow"
)

const goodReply = `{"access_token": "abc", "expires_in": 300, "refresh_expires_in": 0, "token_type": "Bearer", "scope": "realm profile email"}`

// endpointThat starts an endpoint that answers as the handler says.
func endpointThat(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL + crmnow.Path
}

// endpointThatSays starts an endpoint with one reply.
func endpointThatSays(t *testing.T, status int, body string) string {
	t.Helper()
	return endpointThat(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

// fetchFails fetches a token that cannot be had.
func fetchFails(t *testing.T, o crmnow.ClientOptions) *crmnow.FetchError {
	t.Helper()
	grant, err := newClient(t, o).Token(t.Context())
	if err == nil {
		t.Fatalf("there is a token: %v", grant)
	}
	if !grant.AccessToken.IsZero() {
		t.Error("there is a token beside the error")
	}
	problem, ok := errors.AsType[*crmnow.FetchError](err)
	if !ok {
		t.Fatalf("the error is no FetchError: %v", err)
	}
	// Whoever prints an error prints all of it.
	printed := fmt.Sprintf("%v %+v %#v", err, problem, *problem)
	expectHidden(t, printed, partnerSecret, "p%26ss+w%2F%C3%B6%2B%2541%3D%3D", partnerID, "partner%3Aone%2Feu", basic)
	if !strings.HasPrefix(err.Error(), "fetch token: ") {
		t.Errorf("the error does not say what was tried: %v", err)
	}
	return problem
}

// basic is the partner's header, made with printf and base64.
const basic = "cGFydG5lciUzQW9uZSUyRmV1OnAlMjZzcyt3JTJGJUMzJUI2JTJCJTI1NDElM0QlM0Q="

func TestClientAsksAsTheDescriptionSays(t *testing.T) {
	for _, c := range []struct {
		name, id, secret, want string
	}{
		{"plain words stay", "partner", "secret", "Basic cGFydG5lcjpzZWNyZXQ="},
		{"each part is form-urlencoded first", partnerID, partnerSecret, "Basic " + basic},
		{"a blank becomes a plus, a percent sign is encoded too", "a b", "%25", "Basic YStiOiUyNTI1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			// The bytes themselves, not what a server makes of them.
			seen := make(chan []string, 1)
			go func() {
				var lines []string
				defer func() { seen <- lines }()
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				text := bufio.NewScanner(conn)
				for text.Scan() && text.Text() != "" {
					lines = append(lines, text.Text())
				}
				_, _ = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(goodReply), goodReply)
				rest, _ := io.ReadAll(conn)
				if len(rest) > 0 {
					lines = append(lines, "a body: "+string(rest))
				}
			}()
			client := newClient(t, crmnow.ClientOptions{
				URL: "http://" + ln.Addr().String() + crmnow.Path, ID: c.id, Secret: crmnow.NewSecret(c.secret),
			})
			grant, err := client.Token(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if grant.AccessToken.Reveal() != "abc" || grant.Scope != "realm profile email" || grant.ExpiresIn != 300*time.Second {
				t.Errorf("the grant is %+v", grant)
			}
			got := <-seen
			slices.Sort(got)
			want := []string{
				"Accept: application/json",
				"Authorization: " + c.want,
				"Content-Length: 0",
				"Host: " + ln.Addr().String(),
				"POST " + crmnow.Path + " HTTP/1.1",
				"User-Agent: bearergate",
			}
			if !slices.Equal(got, want) {
				t.Errorf("the request is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

func TestClientFetchesFromTheEmulatorOverTLS(t *testing.T) {
	e := newEmulator(t, crmnow.EmulatorOptions{Clients: partner()})
	s := httptest.NewTLSServer(e)
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	c := newClient(t, crmnow.ClientOptions{URL: s.URL + crmnow.Path, RootCAs: roots, UserAgent: "tester/1"})
	grant, err := c.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	expectVerdict(t, e, grant.AccessToken, saysValid)
}

func TestClientFollowsNoRedirect(t *testing.T) {
	var elsewhere atomic.Int32
	other := endpointThat(t, func(w http.ResponseWriter, _ *http.Request) {
		elsewhere.Add(1)
		_, _ = io.WriteString(w, goodReply)
	})
	for _, status := range []int{301, 302, 303, 307, 308} {
		for name, location := range map[string]string{
			"to another host": other, "on the same host": "/elsewhere", "without a place": "", "to what is no URL": "http://[",
		} {
			t.Run(fmt.Sprint(status, " ", name), func(t *testing.T) {
				var asked atomic.Int32
				url := endpointThat(t, func(w http.ResponseWriter, _ *http.Request) {
					asked.Add(1)
					if location != "" {
						w.Header().Set("Location", location)
					}
					w.WriteHeader(status)
				})
				err := fetchFails(t, crmnow.ClientOptions{URL: url})
				if err.Problem != crmnow.ProblemURL || err.Status != status || !strings.Contains(err.Error(), "https://") {
					t.Errorf("the error is %+v", err)
				}
				if asked.Load() != 1 || elsewhere.Load() != 0 {
					t.Errorf("%d requests came to the endpoint and %d went elsewhere", asked.Load(), elsewhere.Load())
				}
			})
		}
	}
}

func TestGrantEndsCountedFromTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, p := serveOnPipes(t, crmnow.EmulatorOptions{Lifetime: 70 * time.Second})
		c := newClient(t, crmnow.ClientOptions{URL: onLoopback, Dial: p.Dial})
		setFault(t, e, crmnow.Fetch, crmnow.Fault{Delay: 4 * time.Second})
		asked := time.Now()
		grant, err := c.Token(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := time.Since(asked); got != 4*time.Second {
			t.Fatalf("the reply took %s", got)
		}
		if grant.ExpiresIn != 70*time.Second || !grant.ExpiresAt.Equal(asked.Add(70*time.Second)) {
			t.Errorf("the grant lasts %s, until %s after the request", grant.ExpiresIn, grant.ExpiresAt.Sub(asked))
		}
		if end := grant.ExpiresAt; !grant.InForce(end.Add(-1)) || grant.InForce(end) || (crmnow.Grant{ExpiresAt: end}).InForce(asked) {
			t.Error("the grant is not in force until it ends")
		}
	})
}

func TestGrantLastsAsTheReplySays(t *testing.T) {
	for member, want := range map[string]time.Duration{
		``:                          300 * time.Second,
		`, "expires_in": null`:      300 * time.Second,
		`, "expires_in": 1`:         time.Second,
		`, "expires_in": 60`:        time.Minute,
		`, "expires_in": 60.9`:      time.Minute,
		`, "expires_in": 3e3`:       50 * time.Minute,
		`, "expires_in": 999999999`: 365 * 24 * time.Hour,
		`, "expires_in": 1e300`:     365 * 24 * time.Hour,
	} {
		c := newClient(t, crmnow.ClientOptions{URL: endpointThatSays(t, 200, `{"access_token": "abc", "token_type": "bearer"`+member+`}`)})
		grant, err := c.Token(t.Context())
		if err != nil {
			t.Errorf("with %q: %v", member, err)
		} else if grant.ExpiresIn != want {
			t.Errorf("with %q the grant lasts %s, want %s", member, grant.ExpiresIn, want)
		}
	}
}

func TestCallersShareOneFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, p := serveOnPipes(t, crmnow.EmulatorOptions{})
		c := newClient(t, crmnow.ClientOptions{URL: onLoopback, Dial: p.Dial})
		setFault(t, e, crmnow.Fetch, crmnow.Fault{Hang: true})
		var callers sync.WaitGroup
		grants := make([]crmnow.Grant, 100)
		for i := range grants {
			callers.Go(func() {
				grant, err := c.Token(t.Context())
				if err != nil {
					t.Error(err)
				}
				grants[i] = grant
			})
		}
		synctest.Wait()
		if s := e.Stats(); s.Fetch.InFlight != 1 {
			t.Errorf("%d fetches are under way", s.Fetch.InFlight)
		}
		e.ClearFaults()
		callers.Wait()
		for _, grant := range grants {
			if grant.AccessToken.IsZero() || !grant.AccessToken.Equal(grants[0].AccessToken) {
				t.Fatal("the callers have different tokens")
			}
		}
		if s := e.Stats(); s.Fetch.Requests != 1 || s.Issued != 1 {
			t.Errorf("the counters are %+v", s)
		}
	})
}

func TestFetchOutlivesTheCallerWhoBeganIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, p := serveOnPipes(t, crmnow.EmulatorOptions{})
		c := newClient(t, crmnow.ClientOptions{URL: onLoopback, Dial: p.Dial})
		setFault(t, e, crmnow.Fetch, crmnow.Fault{Delay: 3 * time.Second})
		impatient := errors.New("no patience")
		first, cancel := context.WithTimeoutCause(t.Context(), time.Second, impatient)
		defer cancel()
		if _, err := c.Token(first); !errors.Is(err, impatient) {
			t.Errorf("the first caller gets %v", err)
		}
		if _, err := c.Token(first); !errors.Is(err, impatient) {
			t.Errorf("a caller who is late already gets %v", err)
		}
		if _, err := c.Token(t.Context()); err != nil {
			t.Error(err)
		}
		if n := e.Stats().Fetch.Requests; n != 1 {
			t.Errorf("there were %d fetches", n)
		}
	})
}

func TestTokenIsRenewedBeforeItsEnd(t *testing.T) {
	for _, c := range []struct {
		name                    string
		lifetime, before, renew time.Duration
	}{
		{"30 s before, if nothing is said", 300 * time.Second, 0, 270 * time.Second},
		{"as said", 300 * time.Second, 100 * time.Second, 200 * time.Second},
		{"at half of a short life", 10 * time.Second, 0, 5 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, p := serveOnPipes(t, crmnow.EmulatorOptions{Lifetime: c.lifetime})
				client := newClient(t, crmnow.ClientOptions{URL: onLoopback, Dial: p.Dial, RenewBefore: c.before})
				first, err := client.Token(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				pass(c.renew - 1)
				if again, err := client.Token(t.Context()); err != nil || !again.AccessToken.Equal(first.AccessToken) {
					t.Errorf("the kept token is not used until it is renewed: %v", err)
				}
				pass(1)
				second, err := client.Token(t.Context())
				if err != nil || second.AccessToken.Equal(first.AccessToken) {
					t.Errorf("the token is not renewed: %v", err)
				}
				expectVerdict(t, e, first.AccessToken, saysValid) // there was time left
				if n := e.Stats().Fetch.Requests; n != 2 {
					t.Errorf("there were %d fetches", n)
				}
			})
		})
	}
}

func TestFailedRenewalKeepsTheGoodToken(t *testing.T) {
	for name, fault := range map[string]crmnow.Fault{
		"the endpoint is unavailable":      {Status: 503},
		"the endpoint hangs":               {Hang: true},
		"the endpoint closes":              {Close: true},
		"the endpoint refuses credentials": {Status: 401},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, p := serveOnPipes(t, crmnow.EmulatorOptions{})
				c := newClient(t, crmnow.ClientOptions{URL: onLoopback, Dial: p.Dial, Timeout: time.Second})
				first, err := c.Token(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				setFault(t, e, crmnow.Fetch, fault)
				kept := func() {
					t.Helper()
					if grant, err := c.Token(t.Context()); err != nil || !grant.AccessToken.Equal(first.AccessToken) {
						t.Errorf("the good token is not kept: %v", err)
					}
				}
				asked := func(want int64) {
					t.Helper()
					if n := e.Stats().Fetch.Requests; n != want {
						t.Errorf("there were %d fetches, want %d", n, want)
					}
				}
				pass(270 * time.Second)
				kept()
				asked(2)
				pass(5*time.Second - 1)
				kept()
				asked(2) // an endpoint in trouble is left alone for 5 s
				pass(1)
				kept()
				asked(3)

				pass(time.Until(first.ExpiresAt) - 2*time.Second)
				kept()
				asked(4)
				pass(time.Until(first.ExpiresAt)) // sooner than the 5 s, but the token has ended
				if grant, err := c.Token(t.Context()); err == nil || !grant.AccessToken.IsZero() {
					t.Error("a token is used beyond its end")
				}
				asked(5)
				e.ClearFaults()
				if grant, err := c.Token(t.Context()); err != nil || grant.AccessToken.Equal(first.AccessToken) {
					t.Errorf("a failure is remembered: %v", err)
				}
				asked(6)
			})
		})
	}
}

func TestDiscardForgetsARefusedToken(t *testing.T) {
	l := startLocal(t, crmnow.EmulatorOptions{})
	c := newClient(t, crmnow.ClientOptions{URL: l.URL()})
	token := func() crmnow.Secret {
		t.Helper()
		grant, err := c.Token(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return grant.AccessToken
	}
	first := token()
	c.Discard(crmnow.NewSecret("another"))
	if !token().Equal(first) {
		t.Error("another token's refusal made the client forget its own")
	}
	c.Discard(first)
	second := token()
	if second.Equal(first) || second.IsZero() {
		t.Error("the refused token is used again")
	}
	c.Discard(first) // a late caller's
	if !token().Equal(second) {
		t.Error("an old token's refusal made the client forget the new one")
	}
}

func TestReplyIsBounded(t *testing.T) {
	pad := func(n int) string { return goodReply + strings.Repeat(" ", n-len(goodReply)) }
	t.Run("64 KiB are read", func(t *testing.T) {
		if _, err := newClient(t, crmnow.ClientOptions{URL: endpointThatSays(t, 200, pad(64<<10))}).Token(t.Context()); err != nil {
			t.Error(err)
		}
	})
	for name, handler := range map[string]http.HandlerFunc{
		"one byte more is refused": func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, pad(64<<10+1))
		},
		"headers are bounded": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Long", strings.Repeat("x", 66<<10))
			_, _ = io.WriteString(w, goodReply)
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := fetchFails(t, crmnow.ClientOptions{URL: endpointThat(t, handler)})
			if err.Next == "" {
				t.Errorf("the error names no next step: %v", err)
			}
		})
	}
	t.Run("a body without end is refused", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { // on pipes nothing is buffered on the way
			p := newPipes()
			defer p.Close()
			written := make(chan int, 1)
			go func() {
				n := 0
				defer func() { written <- n }()
				conn, err := p.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				_, _ = http.ReadRequest(bufio.NewReader(conn))
				_, err = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
				for err == nil && n < 1<<20 {
					_, err = io.WriteString(conn, pad(1<<10))
					n += 1 << 10
				}
			}()
			err := fetchFails(t, crmnow.ClientOptions{URL: onLoopback, Dial: p.Dial})
			if n := <-written; err.Problem != crmnow.ProblemReply || n > 80<<10 {
				t.Errorf("%d bytes were taken, and the error is %+v", n, err)
			}
		})
	})
}

func TestReplyIsReadStrictly(t *testing.T) {
	const secret = "do-not-show-this"
	with := func(member string) string { return `{"access_token": "` + secret + `", ` + member + `}` }
	for _, c := range []struct {
		name, body, want string
		problem          crmnow.Problem
	}{
		{"nothing", "", "not a JSON object", crmnow.ProblemReply},
		{"null", "null", "not a JSON object", crmnow.ProblemReply},
		{"a string", `"` + secret + `"`, "not a JSON object", crmnow.ProblemReply},
		{"a list", `["` + secret + `"]`, "not a JSON object", crmnow.ProblemReply},
		{"a broken object", `{"access_token": "` + secret + `"`, "not a JSON object", crmnow.ProblemReply},
		{"an object and something more", with(`"a": 1`) + "{}", "not a JSON object", crmnow.ProblemReply},
		{"a web page", "<!DOCTYPE html><p>" + secret, "web page", crmnow.ProblemURL},
		{"a web page after a byte order mark", "\ufeff\r\n<html>" + secret, "web page", crmnow.ProblemURL},
		{"an empty object", `{}`, "no access_token", crmnow.ProblemReply},
		{"a verdict", `{"result": true, "message": "token valid"}`, "no access_token", crmnow.ProblemReply},
		{"an empty token", `{"access_token": ""}`, "no access_token", crmnow.ProblemReply},
		{"no token but null", `{"access_token": null}`, "no access_token", crmnow.ProblemReply},
		{"another letter case", `{"ACCESS_TOKEN": "` + secret + `"}`, "no access_token", crmnow.ProblemReply},
		{"a number for a token", `{"access_token": 1}`, "access_token is not a string", crmnow.ProblemReply},
		{"a token with a blank", `{"access_token": "` + secret + ` x"}`, "cannot carry", crmnow.ProblemReply},
		{"a token with a line break", `{"access_token": "` + secret + `\r\nX: y"}`, "cannot carry", crmnow.ProblemReply},
		{"a token beyond ASCII", `{"access_token": "` + secret + `ö"}`, "cannot carry", crmnow.ProblemReply},
		{"a token that is no UTF-8", `{"access_token": "` + secret + "\xff" + `"}`, "cannot carry", crmnow.ProblemReply},
		{"another type of token", with(`"token_type": "mac"`), "not Bearer", crmnow.ProblemReply},
		{"a type that is a number", with(`"token_type": 1`), "token_type is not a string", crmnow.ProblemReply},
		{"a scope that is a list", with(`"scope": []`), "scope is not a string", crmnow.ProblemReply},
		{"a lifetime in a string", with(`"expires_in": "300"`), "expires_in is not a number", crmnow.ProblemReply},
		{"a lifetime beyond all numbers", with(`"expires_in": 1e999`), "expires_in is not a number", crmnow.ProblemReply},
		{"a lifetime of nothing", with(`"expires_in": 0`), "has ended already", crmnow.ProblemReply},
		{"a lifetime before its beginning", with(`"expires_in": -1`), "has ended already", crmnow.ProblemReply},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := fetchFails(t, crmnow.ClientOptions{URL: endpointThatSays(t, 200, c.body)})
			if err.Problem != c.problem || err.Status != 200 || err.Next == "" || !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v (%+v), want %q", err, err, c.want)
			}
			expectHidden(t, err.Error(), secret)
		})
	}
}

func TestErrorsSayWhatToLookAt(t *testing.T) {
	for _, c := range []struct {
		name    string
		status  int
		body    string
		problem crmnow.Problem
		next    string
	}{
		{"wrong credentials", 401, `{"error": "invalid_client", "error_description": "no"}`, crmnow.ProblemCredentials, "swapped or mistyped"},
		{"wrong credentials, in a page", 401, "<html>", crmnow.ProblemCredentials, "form-urlencoded before"},
		{"forbidden", 403, "", crmnow.ProblemCredentials, "swapped or mistyped"},
		{"wrong credentials, as Keycloak says it", 400, `{"error": "unauthorized_client"}`, crmnow.ProblemCredentials, "swapped or mistyped"},
		{"a request that was changed", 400, `{"error": "invalid_request"}`, crmnow.ProblemRequest, "nothing on the way changes the request"},
		{"a method that was changed", 405, "", crmnow.ProblemRequest, "fetched with POST"},
		{"another path", 404, "", crmnow.ProblemURL, "check the URL"},
		{"a path that is gone", 410, "", crmnow.ProblemURL, "check the URL"},
		{"a proxy that wants a password", 407, "", crmnow.ProblemConnection, "HTTPS_PROXY"},
		{"too many requests", 429, "", crmnow.ProblemUnavailable, "later"},
		{"a broken endpoint", 500, "<html>", crmnow.ProblemUnavailable, "later"},
		{"an endpoint at rest", 503, "", crmnow.ProblemUnavailable, "later"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := fetchFails(t, crmnow.ClientOptions{URL: endpointThatSays(t, c.status, c.body)})
			if err.Problem != c.problem || err.Status != c.status || !strings.Contains(err.Next, c.next) {
				t.Errorf("the error is %+v", err)
			}
			if text := err.Error(); !strings.Contains(text, fmt.Sprint("status ", c.status)) || !strings.Contains(text, err.Next) {
				t.Errorf("the error reads %s", text)
			}
		})
	}
}

func TestErrorsTellWhatTheEndpointSaysButNoSecret(t *testing.T) {
	say := func(description string) string {
		body, err := json.Marshal(map[string]string{"error": "invalid_client", "error_description": description})
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	for _, c := range []struct{ name, body, want string }{
		{"code and description", say("the secret is wrong"), "invalid_client: the secret is wrong"},
		{"a description alone", `{"error_description": "wrong"}`, "wrong"},
		{"what cannot be printed is left out", say("a\x1b[2J\nb\u202ec"), "invalid_client: a[2Jbc"},
		{"a long text is cut", say(strings.Repeat("ö", 1000)), "invalid_client: " + strings.Repeat("ö", 284) + "..."},
		{"the secret", say("not " + partnerSecret + "!"), "invalid_client: not (hidden)!"},
		{"the secret, urlencoded", say("not p%26ss+w%2F%C3%B6%2B%2541%3D%3D!"), "invalid_client: not (hidden)!"},
		{"the header", say("not Basic " + basic + "!"), "invalid_client: not Basic (hidden)!"},
		{"an ID that may be a secret", say("not " + partnerID + "!"), "invalid_client: not (hidden)!"},
		{"a list", `["invalid_client"]`, ""},
		{"a number", `{"error": 1}`, ""},
		{"a web page", "<html>invalid_client", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := fetchFails(t, crmnow.ClientOptions{URL: endpointThatSays(t, 401, c.body)}); err.Reply != c.want {
				t.Errorf("it says %q, want %q", err.Reply, c.want)
			}
		})
	}
	t.Run("a short ID is a name and stays", func(t *testing.T) {
		err := fetchFails(t, crmnow.ClientOptions{
			URL: endpointThatSays(t, 401, say("not acme")), ID: "acme", Secret: crmnow.NewSecret("sesame-and-poppy"),
		})
		if err.Reply != "invalid_client: not acme" {
			t.Errorf("it says %q", err.Reply)
		}
	})
}

func TestRetryAfterIsRead(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "0": 0, "-1": 0, "soon": 0, "99999999999": 0, "Fri, 31 Dec 1999 23:59:59 GMT": 0,
	} {
		url := endpointThat(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", value)
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		if err := fetchFails(t, crmnow.ClientOptions{URL: url}); err.RetryAfter != want {
			t.Errorf("Retry-After %q is read as %s, want %s", value, err.RetryAfter, want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		e, p := serveOnPipes(t, crmnow.EmulatorOptions{})
		setFault(t, e, crmnow.Fetch, crmnow.Fault{Status: 429, RetryAfter: time.Now().Add(time.Minute).UTC().Format(http.TimeFormat)})
		if err := fetchFails(t, crmnow.ClientOptions{URL: onLoopback, Dial: p.Dial}); err.RetryAfter != time.Minute {
			t.Errorf("a date in a minute is read as %s", err.RetryAfter)
		}
	})
}

func TestErrorsOfTheConnection(t *testing.T) {
	nobody := func(t *testing.T) string {
		l := startLocal(t, crmnow.EmulatorOptions{})
		if err := l.Down(); err != nil {
			t.Fatal(err)
		}
		return l.URL()
	}
	faulty := func(f crmnow.Fault) func(t *testing.T) string {
		return func(t *testing.T) string {
			l := startLocal(t, crmnow.EmulatorOptions{})
			setFault(t, l.Emulator, crmnow.Fetch, f)
			return l.URL()
		}
	}
	for _, c := range []struct {
		name       string
		url        func(t *testing.T) string
		problem    crmnow.Problem
		what, next string
	}{
		{"nobody listens", nobody, crmnow.ProblemConnection, "nobody listens", "check the URL"},
		{"the endpoint closes", faulty(crmnow.Fault{Close: true}), crmnow.ProblemConnection, "connection to the endpoint failed", "check the URL"},
		{"the endpoint resets", faulty(crmnow.Fault{Reset: true}), crmnow.ProblemConnection, "connection to the endpoint failed", "check the URL"},
		{"the reply breaks off", faulty(crmnow.Fault{CutAfter: new(20)}), crmnow.ProblemReply, "broke off", "try again"},
		{"there is no TLS", func(t *testing.T) string {
			return "https" + strings.TrimPrefix(startLocal(t, crmnow.EmulatorOptions{}).URL(), "http")
		}, crmnow.ProblemConnection, "does not speak TLS", "port"},
		{"the certificate is not trusted", func(t *testing.T) string {
			s := httptest.NewUnstartedServer(newEmulator(t, crmnow.EmulatorOptions{}))
			s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
			s.StartTLS()
			t.Cleanup(s.Close)
			return s.URL + crmnow.Path
		}, crmnow.ProblemConnection, "certificate is not trusted", "certificate authorities"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := fetchFails(t, crmnow.ClientOptions{URL: c.url(t), Timeout: patience})
			if err.Problem != c.problem || !strings.Contains(err.What, c.what) || !strings.Contains(err.Next, c.next) {
				t.Errorf("the error is %+v", err)
			}
			expectHidden(t, err.Error(), crmnow.Path)
		})
	}
	t.Run("the name is not known", func(t *testing.T) {
		err := fetchFails(t, crmnow.ClientOptions{
			URL: "https://crm-now.invalid" + crmnow.Path,
			Dial: func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.DNSError{Err: "no such host", Name: "crm-now.invalid", IsNotFound: true}
			},
		})
		if err.Problem != crmnow.ProblemConnection || !strings.Contains(err.What, "host name") {
			t.Errorf("the error is %+v", err)
		}
	})
	t.Run("the endpoint is too slow", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e, p := serveOnPipes(t, crmnow.EmulatorOptions{})
			setFault(t, e, crmnow.Fetch, crmnow.Fault{Hang: true})
			began := time.Now()
			err := fetchFails(t, crmnow.ClientOptions{URL: onLoopback, Dial: p.Dial})
			if err.Problem != crmnow.ProblemTimeout || !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 10*time.Second {
				t.Errorf("after %s the error is %+v", time.Since(began), err)
			}
		})
	})
	t.Run("the rest of the reply is too slow", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := newPipes()
			defer p.Close()
			go func() {
				conn, err := p.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				_, _ = http.ReadRequest(bufio.NewReader(conn))
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
				_, _ = conn.Read(make([]byte, 1)) // until the client goes away
			}()
			err := fetchFails(t, crmnow.ClientOptions{URL: onLoopback, Dial: p.Dial})
			if err.Problem != crmnow.ProblemTimeout {
				t.Errorf("the error is %+v", err)
			}
		})
	})
}

func TestWrongOptionsAreRefused(t *testing.T) {
	good := crmnow.ClientOptions{ID: partnerID, Secret: crmnow.NewSecret(partnerSecret)}
	for _, c := range []struct {
		name, want string
		change     func(o *crmnow.ClientOptions)
	}{
		{"a URL without a scheme", "https://", func(o *crmnow.ClientOptions) { o.URL = "api.example/v1" }},
		{"another scheme", "https://", func(o *crmnow.ClientOptions) { o.URL = "ftp://api.example/v1" }},
		{"a URL without a host", "https://", func(o *crmnow.ClientOptions) { o.URL = "https:///v1" }},
		{"what is no URL", "https://", func(o *crmnow.ClientOptions) { o.URL = "https://%" }},
		{"credentials in the URL", "client ID and secret", func(o *crmnow.ClientOptions) { o.URL = "https://me:hunter2@api.example" }},
		{"plain HTTP", "unencrypted", func(o *crmnow.ClientOptions) { o.URL = "http://api.example/v1" }},
		{"plain HTTP to what looks like loopback", "unencrypted", func(o *crmnow.ClientOptions) { o.URL = "http://127.0.0.1.example/v1" }},
		{"no ID", "client ID is empty", func(o *crmnow.ClientOptions) { o.ID = "" }},
		{"no secret", "client secret is empty", func(o *crmnow.ClientOptions) { o.Secret = crmnow.Secret{} }},
		{"a line break after the secret", "line break", func(o *crmnow.ClientOptions) { o.Secret = crmnow.NewSecret(partnerSecret + "\n") }},
		{"a line break after the ID", "line break", func(o *crmnow.ClientOptions) { o.ID += "\r\n" }},
		{"a control character", "control character", func(o *crmnow.ClientOptions) { o.Secret = crmnow.NewSecret(partnerSecret + "\x00x") }},
		{"a secret that is no UTF-8", "UTF-8", func(o *crmnow.ClientOptions) { o.Secret = crmnow.NewSecret(partnerSecret + "\xff") }},
		{"a time-out before now", "not negative", func(o *crmnow.ClientOptions) { o.Timeout = -1 }},
		{"a renewal after the end", "not negative", func(o *crmnow.ClientOptions) { o.RenewBefore = -1 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := good
			c.change(&o)
			_, err := crmnow.NewClient(o)
			if err == nil {
				t.Fatal("the options are accepted")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v, want %q", err, c.want)
			}
			expectHidden(t, err.Error(), partnerSecret, partnerID, "hunter2")
		})
	}
	for _, url := range []string{"", "https://api.example", "http://127.1.2.3", "http://[::1]:1/x", "http://LocalHost", "http://[::ffff:127.0.0.1]"} {
		o := good
		o.URL = url
		if c, err := crmnow.NewClient(o); err != nil {
			t.Errorf("%s is refused: %v", url, err)
		} else {
			c.Close()
		}
	}
	o := good
	o.URL, o.AllowPlaintext = "http://api.example", true
	if c, err := crmnow.NewClient(o); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
}

func TestClosedClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, p := serveOnPipes(t, crmnow.EmulatorOptions{})
		c := newClient(t, crmnow.ClientOptions{URL: onLoopback, Dial: p.Dial})
		setFault(t, e, crmnow.Fetch, crmnow.Fault{Hang: true})
		waiting := make(chan error)
		go func() {
			_, err := c.Token(t.Context())
			waiting <- err
		}()
		synctest.Wait()
		began := time.Now()
		c.Close()
		if took := time.Since(began); took != 0 {
			t.Errorf("the fetch under way is waited for: %s", took)
		}
		if err := <-waiting; !errors.Is(err, crmnow.ErrClosed) {
			t.Errorf("a caller who waits gets %v", err)
		}
		if _, err := c.Token(t.Context()); !errors.Is(err, crmnow.ErrClosed) {
			t.Errorf("a caller who comes later gets %v", err)
		}
		synctest.Wait()
		if n := e.Stats().Fetch.InFlight; n != 0 {
			t.Errorf("%d fetches are still under way", n)
		}
	})
}

func TestProxyOfTheEnvironment(t *testing.T) {
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	child := func(t *testing.T, proxy string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, binary)
		cmd.Env = append(os.Environ(), fetchAsChild+"=https://crm-now.invalid"+crmnow.Path, "HTTPS_PROXY="+proxy, "https_proxy="+proxy, "NO_PROXY=", "no_proxy=")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		expectHidden(t, string(out), "hunter2", partnerSecret, basic)
		return string(out)
	}
	t.Run("is obeyed, and sees no credentials", func(t *testing.T) {
		seen := make(chan *http.Request, 1)
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			seen <- r
			w.WriteHeader(http.StatusBadGateway)
		}))
		defer proxy.Close()
		out := child(t, "http://me:hunter2@"+strings.TrimPrefix(proxy.URL, "http://"))
		if !strings.Contains(out, "HTTPS_PROXY") {
			t.Errorf("the error does not name the proxy: %s", out)
		}
		r := <-seen
		if r.Method != http.MethodConnect || r.Host != "crm-now.invalid:443" || r.Header.Get("Authorization") != "" {
			t.Errorf("the proxy is asked %s %s with %v", r.Method, r.Host, r.Header)
		}
	})
	t.Run("is not shown when it is wrong", func(t *testing.T) {
		if out := child(t, "http://me:hunter2@proxy example:3128"); !strings.Contains(out, "HTTPS_PROXY") {
			t.Errorf("the error does not name the proxy: %s", out)
		}
	})
}
