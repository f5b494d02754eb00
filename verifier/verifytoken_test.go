package verifier_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bearergate/bearergate/verifier"
)

func TestVerifytokenRefusesWhatItCannotUse(t *testing.T) {
	for _, c := range []struct {
		name    string
		options verifier.VerifytokenOptions
		err     string // "" if it can be used
	}{
		{"https", verifier.VerifytokenOptions{URL: "https://api.i1.crm-now.de/v1/getOauthToken.php"}, ""},
		{"https with a port and a query", verifier.VerifytokenOptions{URL: "https://api.example:8443/x?tenant=7"}, ""},
		{"http to localhost", verifier.VerifytokenOptions{URL: "http://LOCALHOST:8080/"}, ""},
		{"http to 127.0.0.1", verifier.VerifytokenOptions{URL: "http://127.0.0.1/"}, ""},
		{"http to 127.9.9.9", verifier.VerifytokenOptions{URL: "http://127.9.9.9/"}, ""},
		{"http to ::1", verifier.VerifytokenOptions{URL: "http://[::1]:80/"}, ""},
		{"http to loopback in IPv6 clothes", verifier.VerifytokenOptions{URL: "http://[::ffff:127.0.0.1]/"}, ""},
		{"http elsewhere, allowed", verifier.VerifytokenOptions{URL: "http://api.example/", AllowPlaintext: true}, ""},
		{"form", verifier.VerifytokenOptions{URL: "https://api.example/", Encoding: verifier.Form}, ""},
		{"multipart", verifier.VerifytokenOptions{URL: "https://api.example/", Encoding: verifier.Multipart}, ""},

		{"nothing", verifier.VerifytokenOptions{}, "not an http or https URL"},
		{"no scheme", verifier.VerifytokenOptions{URL: "api.example/CANARY"}, "not an http or https URL"},
		{"no host", verifier.VerifytokenOptions{URL: "https:///CANARY"}, "not an http or https URL"},
		{"a port alone", verifier.VerifytokenOptions{URL: "https://:443/CANARY"}, "not an http or https URL"},
		{"another scheme", verifier.VerifytokenOptions{URL: "ftp://CANARY.example/"}, "not an http or https URL"},
		{"not a URL", verifier.VerifytokenOptions{URL: "https://CANARY.example/%zz"}, "not an http or https URL"},
		{"credentials", verifier.VerifytokenOptions{URL: "https://CANARY:CANARY@api.example/"}, "holds credentials"},
		{"a user", verifier.VerifytokenOptions{URL: "https://CANARY@api.example/"}, "holds credentials"},
		{"http elsewhere", verifier.VerifytokenOptions{URL: "http://api.example/CANARY"}, "https://, or allow plaintext"},
		{"http to a name that begins like localhost", verifier.VerifytokenOptions{URL: "http://localhost.CANARY.example/"}, "https://, or allow plaintext"},
		{"http to an address that begins like loopback", verifier.VerifytokenOptions{URL: "http://127.0.0.1.CANARY.example/"}, "https://, or allow plaintext"},
		{"http to all addresses", verifier.VerifytokenOptions{URL: "http://0.0.0.0/CANARY"}, "https://, or allow plaintext"},
		{"an unknown encoding", verifier.VerifytokenOptions{URL: "https://api.example/", Encoding: "json"}, `"json"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.options.Name = "crm"
			v, err := verifier.NewVerifytoken(c.options)
			if c.err == "" {
				if err != nil {
					t.Fatalf("it is refused: %v", err)
				}
				v.Close()
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), "verifier crm: ") {
				t.Fatalf("the error is %v; want one with %q", err, c.err)
			}
			expectHidden(t, err.Error(), "CANARY")
		})
	}
}

// The names are those of endpoint.md.
func TestQuestion(t *testing.T) {
	transports, own := speaking(t)
	for transport, settings := range transports {
		for _, value := range []string{
			"x", canary, "AZaz09-._~+/", "====="[:0] + "a=====", "--x--", "verifytoken", strings.Repeat("Aa0+/-._~", 900)[:8000],
		} {
			for _, encoding := range []verifier.Encoding{"", verifier.Multipart, verifier.Form} {
				t.Run(fmt.Sprintf("%s, %s, a token of %d bytes", transport, encoding, len(value)), func(t *testing.T) {
					e := startEndpoint(t, settings, replies(http.StatusOK, saysValid))
					v := newVerifytoken(t, verifier.VerifytokenOptions{
						URL: e.URL + "/v1/getOauthToken.php?tenant=7&x=%20", Encoding: encoding, RootCAs: own.pool, UserAgent: "bearergate/1.2.3",
					})
					before := time.Now()
					verdict, err := v.Verify(t.Context(), newTokens(t).parse(t, value))
					if err != nil || !verdict.Valid || verdict.Source != verifier.FromEndpoint || !verdict.Until.IsZero() ||
						verdict.Learnt.Before(before) || verdict.Learnt.After(time.Now()) {
						t.Errorf("the verdict is %+v, %v", verdict, err)
					}
					asked := e.asked()
					if len(asked) != 1 {
						t.Fatalf("the endpoint was asked %d times", len(asked))
					}
					q := asked[0]
					if q.method != http.MethodPost || q.proto != "HTTP/1.1" || q.target != "/v1/getOauthToken.php?tenant=7&x=%20" || q.host != e.Listener.Addr().String() {
						t.Errorf("the question is %s %s %s to %s", q.method, q.target, q.proto, q.host)
					}
					if q.length != int64(len(q.body)) {
						t.Errorf("the length is given as %d, and is %d", q.length, len(q.body))
					}
					if encoding == verifier.Form {
						if got := string(q.body); got != "verifytoken="+url.QueryEscape(value) {
							t.Errorf("the body is %s", got)
						}
						if got := q.header.Get("Content-Type"); got != "application/x-www-form-urlencoded" {
							t.Errorf("the type is %s", got)
						}
					} else if got := q.token(t); got != value {
						t.Errorf("the token arrives as %s", got)
					}
					expectHeader(t, q.header, value)
				})
			}
		}
	}
}

// expectHeader wants the header lines of a question, and no other.
func expectHeader(t *testing.T, header http.Header, token string) {
	t.Helper()
	for name, values := range header {
		if len(values) != 1 {
			t.Errorf("%s is there %d times", name, len(values))
		}
		if len(token) > 1 && name != "Content-Type" { // whose boundary is anything
			expectHidden(t, name+": "+values[0], token)
		}
		if !slices.Contains([]string{"Accept", "Content-Length", "Content-Type", "User-Agent"}, name) {
			t.Errorf("the question has the header line %s: %s", name, values)
		}
	}
	if header.Get("User-Agent") != "bearergate/1.2.3" || header.Get("Accept") != "application/json" {
		t.Errorf("the header is %v", header)
	}
}

func TestUserAgentWithoutAVersion(t *testing.T) {
	e := startEndpoint(t, nil, replies(http.StatusOK, saysInvalid))
	expectVerdict(t, newVerifytoken(t, verifier.VerifytokenOptions{URL: e.URL}), false)
	if got := e.asked()[0].header.Get("User-Agent"); got != "bearergate" {
		t.Errorf("it calls itself %q", got)
	}
}

func TestNoCookieComesBack(t *testing.T) {
	e := startEndpoint(t, nil, func(w http.ResponseWriter, _ *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "1"})
		_, _ = io.WriteString(w, saysValid)
	})
	v := newVerifytoken(t, verifier.VerifytokenOptions{URL: e.URL})
	for range 2 {
		expectVerdict(t, v, true)
	}
	for _, q := range e.asked() {
		if got := q.header["Cookie"]; got != nil {
			t.Errorf("the question has a cookie: %s", got)
		}
	}
}

func TestEachQuestionIsAskedAnew(t *testing.T) {
	answers := []string{saysValid, saysInvalid, saysValid}
	n := 0
	e := startEndpoint(t, nil, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "max-age=3600")
		_, _ = io.WriteString(w, answers[n])
		n++
	})
	v := newVerifytoken(t, verifier.VerifytokenOptions{URL: e.URL})
	for _, answer := range answers {
		expectVerdict(t, v, answer == saysValid)
	}
}

func TestQuestionThatIsOverBeforeItIsAsked(t *testing.T) {
	e := startEndpoint(t, nil, replies(http.StatusOK, saysValid))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	verdict, err := newVerifytoken(t, verifier.VerifytokenOptions{URL: e.URL}).Verify(ctx, newTokens(t).parse(t, canary))
	none := expectNone(t, verdict, err, "given up")
	if !errors.Is(none.Cause, context.Canceled) || len(e.asked()) != 0 {
		t.Errorf("the cause is %v, and the endpoint was asked %d times", none.Cause, len(e.asked()))
	}
}
