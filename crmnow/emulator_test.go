package crmnow_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bearergate/bearergate/crmnow"
)

// header is what goes behind "Basic " for two parts as they are given.
func header(id, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+secret))
}

// fetch is the partner's request for a token, made well.
func fetch() *http.Request {
	return post("", "Authorization", "Basic "+basic)
}

func TestFetchedTokenIsGood(t *testing.T) {
	e := newEmulator(t, crmnow.EmulatorOptions{Clients: partner()})
	got := ask(e, fetch())
	if got.status != http.StatusOK || got.header.Get("Content-Type") != "application/json" || got.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("the reply is %+v", got)
	}
	var reply map[string]any
	if err := json.Unmarshal([]byte(got.body), &reply); err != nil {
		t.Fatal(err)
	}
	token, _ := reply["access_token"].(string)
	want := map[string]any{
		"access_token": token, "expires_in": 300.0, "refresh_expires_in": 0.0,
		"token_type": "Bearer", "scope": "realm profile email",
	}
	if !maps.Equal(reply, want) || len(token) != 43 {
		t.Errorf("the reply is %s", got.body)
	}
	if got := ask(e, question(token)); got.status != http.StatusOK || got.body != saysValid || got.header.Get("Content-Type") != "application/json" {
		t.Errorf("the answer is %+v", got)
	}
}

func TestTokenEndsWithItsLifetime(t *testing.T) {
	for _, c := range []struct {
		name     string
		set, end time.Duration
	}{
		{"300 s, if nothing is said", 0, 300 * time.Second},
		{"as said", 7 * time.Second, 7 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEmulator(t, crmnow.EmulatorOptions{Clients: partner(), Lifetime: c.set})
				var reply struct {
					Token     string `json:"access_token"`
					ExpiresIn int    `json:"expires_in"`
				}
				if err := json.Unmarshal([]byte(ask(e, fetch()).body), &reply); err != nil {
					t.Fatal(err)
				}
				if reply.ExpiresIn != int(c.end.Seconds()) {
					t.Errorf("expires_in is %d", reply.ExpiresIn)
				}
				token := crmnow.NewSecret(reply.Token)
				pass(c.end - 1)
				expectVerdict(t, e, token, saysValid)
				if n := e.Stats().InForce; n != 1 {
					t.Errorf("%d tokens are in force", n)
				}
				pass(1)
				expectVerdict(t, e, token, saysInvalid)
				if n := e.Stats().InForce; n != 0 {
					t.Errorf("%d tokens are in force after the end", n)
				}
			})
		})
	}
}

func TestIssueAcceptAndRevoke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEmulator(t, crmnow.EmulatorOptions{})
		grant, err := e.Issue(20 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if grant.ExpiresIn != 20*time.Second || !grant.ExpiresAt.Equal(time.Now().Add(20*time.Second)) || grant.Scope != crmnow.DefaultScope {
			t.Errorf("the grant is %+v", grant)
		}
		own := crmnow.NewSecret("my.own-token")
		if err := e.Accept(own, 10*time.Second); err != nil {
			t.Fatal(err)
		}
		expectVerdict(t, e, grant.AccessToken, saysValid)
		expectVerdict(t, e, own, saysValid)
		expectVerdict(t, e, crmnow.NewSecret("unknown"), saysInvalid)
		pass(9 * time.Second)
		if err := e.Accept(own, 10*time.Second); err != nil { // once more: it lives longer now
			t.Fatal(err)
		}
		pass(9 * time.Second)
		if n := e.Stats().InForce; n != 2 {
			t.Errorf("%d tokens are in force", n)
		}
		expectVerdict(t, e, own, saysValid)
		if !e.Revoke(grant.AccessToken) || e.Revoke(grant.AccessToken) || e.Revoke(crmnow.NewSecret("unknown")) {
			t.Error("Revoke does not tell whether the token was good")
		}
		expectVerdict(t, e, grant.AccessToken, saysInvalid)
		expectVerdict(t, e, own, saysValid)
		pass(time.Second)
		expectVerdict(t, e, own, saysInvalid)
		if e.Revoke(own) {
			t.Error("a token that has ended was good")
		}
		if s := e.Stats(); s.Issued != 3 || s.InForce != 0 || s.Valid != 4 || s.Invalid != 3 {
			t.Errorf("the counters are %+v", s)
		}

		for _, lifetime := range []time.Duration{-time.Second, time.Millisecond, 1500 * time.Millisecond, 366 * 24 * time.Hour} {
			if _, err := e.Issue(lifetime); err == nil {
				t.Errorf("a token is issued for %s", lifetime)
			}
			if err := e.Accept(own, lifetime); err == nil {
				t.Errorf("a token is accepted for %s", lifetime)
			}
		}
		if err := e.Accept(crmnow.Secret{}, 0); err == nil {
			t.Error("an empty token is accepted")
		}
	})
}

func TestVerificationReadsFormsAsTheyAre(t *testing.T) {
	e := newEmulator(t, crmnow.EmulatorOptions{})
	for _, token := range []string{"plain-._~", "a+b/c==", "with space", `"quoted"`, "ö%41", "-starts-with-a-dash"} {
		good := crmnow.NewSecret(token)
		if err := e.Accept(good, 0); err != nil {
			t.Fatal(err)
		}
		for name, r := range map[string]*http.Request{
			"multipart":                  question(token),
			"multipart, name unquoted":   post(multipartOf(`form-data; name=verifytoken`, token), "Content-Type", typeMultipart),
			"form":                       post(url.Values{"verifytoken": {token}}.Encode(), "Content-Type", typeForm),
			"form with a charset":        post(url.Values{"verifytoken": {token}}.Encode(), "Content-Type", "Application/X-WWW-Form-URLencoded; charset=UTF-8"),
			"form with another field":    post(url.Values{"verifytoken": {token}, "x": {"y"}}.Encode(), "Content-Type", typeForm),
			"with an Authorization line": post(url.Values{"verifytoken": {token}}.Encode(), "Content-Type", typeForm, "Authorization", "Bearer x"),
		} {
			if got := ask(e, r); got.status != http.StatusOK || got.body != saysValid {
				t.Errorf("%s: the answer about %q is %d %s", name, token, got.status, got.body)
			}
		}
		if n := e.VerificationsOf(good); n != 6 {
			t.Errorf("%d questions about %q are counted", n, token)
		}
	}
	encoded := `form-data; name="verifytoken"` + "\r\nContent-Transfer-Encoding: quoted-printable"
	if got := ask(e, post(multipartOf(encoded, "plain=2D._~"), "Content-Type", typeMultipart)); got.body != saysInvalid {
		t.Errorf("the answer to a part that names an encoding is %s", got.body)
	}
	// A multipart part takes the bytes as they are; nothing is decoded or trimmed.
	for _, changed := range []string{"plain-._~ ", " plain-._~", "plain%2D._~", "plain-._~\n", "PLAIN-._~", "plain-._"} {
		if got := ask(e, question(changed)); !strings.HasPrefix(got.body, `{"result": false`) {
			t.Errorf("the answer about %q is %s", changed, got.body)
		}
	}
}

func TestAnswerTellsAnObviousMistake(t *testing.T) {
	e := newEmulator(t, crmnow.EmulatorOptions{})
	token := issue(t, e).Reveal()
	for sent, want := range map[string]string{
		"":                "verifytoken is empty",
		`"` + token + `"`: "quotes",
		"'" + token + "'": "quotes",
		token + `"`:       "quotes",
		"Bearer " + token: "without the word Bearer",
		"bearer " + token: "without the word Bearer",
		token + "\n":      "line break",
		" " + token:       "blank",
		"Bearer":          "invalid or expired",
		token + "x":       "invalid or expired",
	} {
		got := ask(e, question(sent))
		var reply map[string]any
		if err := json.Unmarshal([]byte(got.body), &reply); err != nil {
			t.Fatal(err)
		}
		message, _ := reply["message"].(string)
		if got.status != http.StatusOK || !strings.HasPrefix(got.body, `{"result": false,`) || !strings.Contains(message, want) {
			t.Errorf("the answer about %q is %d %s", sent, got.status, got.body)
		}
		expectHidden(t, got.body, token)
	}
}

func TestEveryMistakeIsRefused(t *testing.T) {
	const goodForm = "verifytoken=abc"
	at := func(target string, r *http.Request) *http.Request {
		u, err := url.Parse(target)
		if err != nil {
			t.Fatal(err)
		}
		r.URL = u
		return r
	}
	by := func(method string, r *http.Request) *http.Request {
		r.Method = method
		return r
	}
	enc := url.QueryEscape
	id, secret := enc(partnerID), enc(partnerSecret)
	basicLine := func(value string) *http.Request { return post("", "Authorization", value) }
	cases := []struct {
		name    string
		request *http.Request
		refusal crmnow.Refusal
		status  int
	}{
		{"another path", at("/v1/getoauthtoken.php", fetch()), crmnow.RefusedPath, 404},
		{"a path below", at(crmnow.Path+"/", fetch()), crmnow.RefusedPath, 404},
		{"a token fetched with GET", by(http.MethodGet, fetch()), crmnow.RefusedMethod, 405},
		{"a token fetched with PUT", by(http.MethodPut, fetch()), crmnow.RefusedMethod, 405},
		{"a token verified with GET", at(crmnow.Path+"?verifytoken=abc", by(http.MethodGet, fetch())), crmnow.RefusedTokenInURL, 400},
		{"a token verified in the URL", at(crmnow.Path+"?x=y&verifytoken=abc", fetch()), crmnow.RefusedTokenInURL, 400},
		{"a token as a URL parameter", at(crmnow.Path+"?access_token=abc", fetch()), crmnow.RefusedTokenInURL, 400},

		{"a token fetched with a body", post("grant_type=client_credentials", "Content-Type", typeForm, "Authorization", "Basic "+basic), crmnow.RefusedBody, 400},
		{"a token fetched with a multipart body", post(multipartOf(`form-data; name="grant_type"`, "x"), "Content-Type", typeMultipart, "Authorization", "Basic "+basic), crmnow.RefusedBody, 400},
		{"a field of another letter case", post("VerifyToken=abc", "Content-Type", typeForm), crmnow.RefusedBody, 400},
		{"a body that is JSON", post(`{"verifytoken": "abc"}`, "Content-Type", "application/json"), crmnow.RefusedNoForm, 415},
		{"a body without a type", post(goodForm), crmnow.RefusedNoForm, 415},
		{"a body of a broken type", post(goodForm, "Content-Type", typeForm+"; ;"), crmnow.RefusedNoForm, 415},
		{"two fields verifytoken", post(goodForm+"&"+goodForm, "Content-Type", typeForm), crmnow.RefusedTwice, 400},
		{
			"two parts verifytoken",
			post(strings.TrimSuffix(multipartOf(`form-data; name="verifytoken"`, "abc"), "--\r\n")+"\r\n"+
				strings.SplitN(multipartOf(`form-data; name="verifytoken"`, "abc"), "\r\n", 2)[1], "Content-Type", typeMultipart),
			crmnow.RefusedTwice, 400,
		},
		{"a token sent as a file", post(multipartOf(`form-data; name="verifytoken"; filename="token.txt"`, "abc"), "Content-Type", typeMultipart), crmnow.RefusedFile, 400},
		{"a form with a broken escape", post("verifytoken=%zz", "Content-Type", typeForm), crmnow.RefusedBroken, 400},
		{"a multipart body that is cut off", post(strings.TrimSuffix(multipartOf(`form-data; name="verifytoken"`, "abc"), "--\r\n"), "Content-Type", typeMultipart), crmnow.RefusedBroken, 400},
		{"a multipart body that is cut off within the token", post(strings.SplitAfter(multipartOf(`form-data; name="verifytoken"`, "abc"), "ab")[0], "Content-Type", typeMultipart), crmnow.RefusedBroken, 400},
		{"a multipart body without a boundary", post(multipartOf(`form-data; name="verifytoken"`, "abc"), "Content-Type", "multipart/form-data"), crmnow.RefusedBroken, 400},
		{"a multipart body with another boundary", post(multipartOf(`form-data; name="verifytoken"`, "abc"), "Content-Type", "multipart/form-data; boundary=other"), crmnow.RefusedBroken, 400},
		{"a body of more than 64 KiB", post(goodForm+strings.Repeat("c", 64<<10), "Content-Type", typeForm), crmnow.RefusedTooLarge, 413},

		{"no Authorization, as behind a proxy that strips it", post(""), crmnow.RefusedNoCredentials, 401},
		{"a misspelt header", post("", "Authorisation", "Basic "+basic), crmnow.RefusedNoCredentials, 401},
		{"two headers", post("", "Authorization", "Basic "+basic, "Authorization", "Basic "+basic), crmnow.RefusedNotBasic, 401},
		{"a Bearer header", basicLine("Bearer " + basic), crmnow.RefusedNotBasic, 401},
		{"quotes around the header", basicLine(`"Basic ` + basic + `"`), crmnow.RefusedNotBasic, 401},
		{"no scheme", basicLine(basic), crmnow.RefusedNotBasic, 401},
		{"what is not Base64", basicLine("Basic " + id + ":" + secret), crmnow.RefusedNotBase64, 401},
		{"Base64 without padding", basicLine("Basic " + strings.TrimRight(basic, "=")), crmnow.RefusedNotBase64, 401},
		{"Base64 that was wrapped", basicLine("Basic " + basic[:20] + " " + basic[20:]), crmnow.RefusedNotBase64, 401},
		{"Base64 in quotes", basicLine(`Basic "` + basic + `"`), crmnow.RefusedNotBase64, 401},
		{"two blanks after Basic", basicLine("Basic  " + basic), crmnow.RefusedNotBase64, 401},
		{"nothing after Basic", basicLine("Basic"), crmnow.RefusedNoColon, 401},
		{"Base64 over the secret alone", basicLine("Basic " + base64.StdEncoding.EncodeToString([]byte(secret))), crmnow.RefusedNoColon, 401},
		{"Base64 over another joint", basicLine("Basic " + base64.StdEncoding.EncodeToString([]byte(id+"|"+secret))), crmnow.RefusedNoColon, 401},
		{"an empty secret", basicLine(header(id, "")), crmnow.RefusedNoColon, 401},
		{"an empty ID", basicLine(header("", secret)), crmnow.RefusedNoColon, 401},
		{"a line break encoded with the secret, as echo does", basicLine(header(id, secret+"\n")), crmnow.RefusedLineBreak, 401},
		{"a line break urlencoded with the secret", basicLine(header(id, secret+"%0A")), crmnow.RefusedLineBreak, 401},
		{"Base64 without urlencoding first", basicLine(header(partnerID, partnerSecret)), crmnow.RefusedNotEncoded, 401},
		{"the ID alone is urlencoded", basicLine(header(id, partnerSecret)), crmnow.RefusedNotEncoded, 401},
		{"all but the equals signs is urlencoded", basicLine(header(id, strings.ReplaceAll(secret, "%3D", "="))), crmnow.RefusedNotEncoded, 401},
		{"a broken escape", basicLine(header(id, "%zz")), crmnow.RefusedNotEncoded, 401},
		{"both urlencoded twice", basicLine(header(enc(id), enc(secret))), crmnow.RefusedEncodedTwice, 401},
		{"urlencoded with the colon", basicLine("Basic " + base64.StdEncoding.EncodeToString([]byte(enc(partnerID+":"+partnerSecret)))), crmnow.RefusedEncodedTwice, 401},
		{"ID and secret swapped", basicLine(header(secret, id)), crmnow.RefusedSwapped, 401},
		{"a mistyped ID", basicLine(header(id+"x", secret)), crmnow.RefusedClient, 401},
		{"a mistyped secret", basicLine(header(id, secret+"x")), crmnow.RefusedSecret, 401},
		{"a secret of another letter case", basicLine(header(id, strings.ToUpper(secret))), crmnow.RefusedSecret, 401},
	}
	met := map[crmnow.Refusal]bool{crmnow.RefusedFull: true} // has a test of its own
	for _, c := range cases {
		met[c.refusal] = true
		t.Run(c.name, func(t *testing.T) {
			e := newEmulator(t, crmnow.EmulatorOptions{Clients: partner()})
			expectRefused(t, e, ask(e, c.request), c.refusal, c.status)
			if s := e.Stats(); !maps.Equal(s.Refused, map[crmnow.Refusal]int64{c.refusal: 1}) || s.Issued != 0 || s.Valid != 0 {
				t.Errorf("the counters are %+v", s)
			}
		})
	}
	for _, refusal := range crmnow.AllRefusals() {
		if !met[refusal] {
			t.Errorf("no case is refused as %s", refusal)
		}
	}
}

// expectRefused wants a reply as RFC 6749 §5.2 has it, without a secret.
func expectRefused(t *testing.T, e *crmnow.Emulator, got answer, why crmnow.Refusal, status int) {
	t.Helper()
	var reply struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if err := json.Unmarshal([]byte(got.body), &reply); err != nil {
		t.Fatalf("the reply is no JSON object: %d %s", got.status, got.body)
	}
	remedy, found := strings.CutPrefix(reply.Description, string(why)+": ")
	if got.status != status || !found || len(remedy) < 10 || reply.Error == "" {
		t.Errorf("the reply is %d %s, want %d %s", got.status, got.body, status, why)
	}
	if got.header.Get("Content-Type") != "application/json" || got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("the headers are %v", got.header)
	}
	if challenge := got.header.Get("WWW-Authenticate"); strings.HasPrefix(challenge, "Basic realm=") != (status == http.StatusUnauthorized) {
		t.Errorf("with status %d the challenge is %q", status, challenge)
	}
	if allow := got.header.Get("Allow"); (allow == http.MethodPost) != (status == http.StatusMethodNotAllowed) {
		t.Errorf("with status %d the header Allow is %q", status, allow)
	}
	// RFC 6749 §5.2: %x20-21 / %x23-5B / %x5D-7E.
	if strings.ContainsFunc(reply.Error+reply.Description, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
		t.Errorf("the texts hold what RFC 6749 does not allow: %s", got.body)
	}
	expectHidden(t, got.body, partnerID, partnerSecret, url.QueryEscape(partnerSecret), basic)
}

func TestCredentialsThatMeanTheSameAreAccepted(t *testing.T) {
	e := newEmulator(t, crmnow.EmulatorOptions{Clients: map[string]crmnow.Secret{
		partnerID: crmnow.NewSecret(partnerSecret), "it's (me)!*~": crmnow.NewSecret("a:b c"),
	}})
	for name, line := range map[string]string{
		"as urlencode of PHP writes them":        header("it%27s+%28me%29%21%2A%7E", "a%3Ab+c"),
		"as encodeURIComponent of browsers does": header("it's%20(me)!*~", "a%3Ab%20c"),
		"as Java's URLEncoder does":              header("it%27s+%28me%29%21*%7E", "a%3Ab+c"),
		"with small hexadecimal digits":          header("it%27s+%28me%29%21*%7e", "a%3ab+c"),
		"with the scheme in lower case":          "basic " + basic,
		"of the other client":                    "Basic " + basic,
	} {
		if got := ask(e, post("", "Authorization", line)); got.status != http.StatusOK {
			t.Errorf("credentials %s are refused: %s", name, got.body)
		}
	}
	// One client's secret does not open another's door.
	if got := ask(e, post("", "Authorization", header(url.QueryEscape(partnerID), "a%3Ab+c"))); got.status != http.StatusUnauthorized {
		t.Errorf("another client's secret is answered with %d", got.status)
	}
}

func TestMissingEncodingIsSeenInWhatLooksEncoded(t *testing.T) {
	e := newEmulator(t, crmnow.EmulatorOptions{Clients: map[string]crmnow.Secret{"acme": crmnow.NewSecret("a+b%41")}})
	expectRefused(t, e, ask(e, post("", "Authorization", header("acme", "a+b%41"))), crmnow.RefusedNotEncoded, http.StatusUnauthorized)
	if got := ask(e, post("", "Authorization", header("acme", "a%2Bb%2541"))); got.status != http.StatusOK {
		t.Errorf("the reply is %d %s", got.status, got.body)
	}
}

func TestEmptyTypedFormIsAFetch(t *testing.T) {
	// PHP's cURL with CURLOPT_POSTFIELDS set to "" sends the type of a form.
	e := newEmulator(t, crmnow.EmulatorOptions{Clients: partner()})
	if got := ask(e, post("", "Authorization", "Basic "+basic, "Content-Type", typeForm)); got.status != http.StatusOK {
		t.Errorf("the reply is %d %s", got.status, got.body)
	}
}

func TestBodyOf64KiBIsRead(t *testing.T) {
	e := newEmulator(t, crmnow.EmulatorOptions{})
	token := strings.Repeat("t", 64<<10-len("verifytoken="))
	if err := e.Accept(crmnow.NewSecret(token), 0); err != nil {
		t.Fatal(err)
	}
	if got := ask(e, post("verifytoken="+token, "Content-Type", typeForm)); got.body != saysValid {
		t.Errorf("the answer is %d %s", got.status, got.body)
	}
	endless := post("", "Content-Type", typeForm)
	endless.Body, endless.ContentLength = io.NopCloser(zeros{}), -1
	expectRefused(t, e, ask(e, endless), crmnow.RefusedTooLarge, http.StatusRequestEntityTooLarge)
}

// zeros is a body without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestNumberOfTokensIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEmulator(t, crmnow.EmulatorOptions{Clients: partner(), MaxTokens: 2})
		for range 2 {
			if got := ask(e, fetch()); got.status != http.StatusOK {
				t.Fatalf("the reply is %d %s", got.status, got.body)
			}
		}
		full := ask(e, fetch())
		expectRefused(t, e, full, crmnow.RefusedFull, http.StatusServiceUnavailable)
		if full.header.Get("Retry-After") != "10" {
			t.Errorf("the headers are %v", full.header)
		}
		if _, err := e.Issue(0); err == nil {
			t.Error("one token too many is issued")
		}
		if err := e.Accept(crmnow.NewSecret("x"), 0); err == nil {
			t.Error("one token too many is accepted")
		}
		pass(crmnow.DefaultLifetime)
		token := issue(t, e)
		expectVerdict(t, e, token, saysValid)
		issue(t, e)
		// A token that is remembered takes no more room when it is accepted again,
		// and a token that was revoked gives its room back.
		for range 10 {
			if err := e.Accept(token, 0); err != nil {
				t.Fatal(err)
			}
			e.Revoke(token)
			token = issue(t, e)
		}
		expectVerdict(t, e, token, saysValid)
		if n := e.Stats().InForce; n != 2 {
			t.Errorf("%d tokens are in force", n)
		}
		pass(crmnow.DefaultLifetime)
		if n := e.Stats().InForce; n != 0 {
			t.Errorf("%d tokens are in force after their end", n)
		}
	})
}

func TestNumberOfCountedTokensIsBounded(t *testing.T) {
	e := newEmulator(t, crmnow.EmulatorOptions{MaxTokens: 2})
	for range 2 {
		for _, token := range []string{"first", "second", "third"} {
			ask(e, question(token))
		}
	}
	for token, want := range map[string]int64{"first": 2, "second": 2, "third": 0, "fourth": 0} {
		if n := e.VerificationsOf(crmnow.NewSecret(token)); n != want {
			t.Errorf("%d questions about the %s token are counted, want %d", n, token, want)
		}
	}
	if n := e.Stats().Verify.Requests; n != 6 {
		t.Errorf("%d questions are counted", n)
	}
}

func TestTokensInTheShapeOfAJWT(t *testing.T) {
	sizes := []int{4096, 16384}
	for size := 1024; size < 1040; size++ { // every remainder
		sizes = append(sizes, size)
	}
	for _, size := range sizes {
		e := newEmulator(t, crmnow.EmulatorOptions{Clients: partner(), JWTBytes: size, Lifetime: time.Minute})
		var reply struct {
			Token string `json:"access_token"`
		}
		if err := json.Unmarshal([]byte(ask(e, fetch()).body), &reply); err != nil {
			t.Fatal(err)
		}
		if len(reply.Token) != size {
			t.Errorf("a token has %d bytes, want %d", len(reply.Token), size)
		}
		parts := strings.Split(reply.Token, ".")
		if len(parts) != 3 {
			t.Fatalf("a token has %d parts", len(parts))
		}
		decoded := make([][]byte, 3)
		for i, part := range parts {
			var err error
			if decoded[i], err = base64.RawURLEncoding.Strict().DecodeString(part); err != nil {
				t.Fatalf("part %d of a token of %d bytes: %v", i, size, err)
			}
		}
		var head struct{ Alg string }
		var claims struct {
			Sub      string
			Iat, Exp int64
		}
		if err := errors.Join(json.Unmarshal(decoded[0], &head), json.Unmarshal(decoded[1], &claims)); err != nil {
			t.Fatal(err)
		}
		if head.Alg != "RS256" || claims.Sub != partnerID || claims.Exp-claims.Iat != 60 {
			t.Errorf("a token says %+v %+v", head, claims)
		}
		expectVerdict(t, e, crmnow.NewSecret(reply.Token), saysValid)
	}
}

func TestWrongEmulatorOptionsAreRefused(t *testing.T) {
	for _, c := range []struct {
		name, want string
		o          crmnow.EmulatorOptions
	}{
		{"an empty ID", "client ID", crmnow.EmulatorOptions{Clients: map[string]crmnow.Secret{"": crmnow.NewSecret("hunter2")}}},
		{"an empty secret", "client secret", crmnow.EmulatorOptions{Clients: map[string]crmnow.Secret{"a": {}}}},
		{"a secret with a line break", "line break", crmnow.EmulatorOptions{Clients: map[string]crmnow.Secret{"a": crmnow.NewSecret("hunter2\n")}}},
		{"half a second", "whole seconds", crmnow.EmulatorOptions{Lifetime: 500 * time.Millisecond}},
		{"a lifetime before now", "whole seconds", crmnow.EmulatorOptions{Lifetime: -time.Second}},
		{"a short JWT", "1024 to 16384", crmnow.EmulatorOptions{JWTBytes: 1023}},
		{"a long JWT", "1024 to 16384", crmnow.EmulatorOptions{JWTBytes: 16385}},
		{"no tokens", "number of tokens", crmnow.EmulatorOptions{MaxTokens: -1}},
		{
			"an ID that leaves no room in a JWT", "no room for its claims",
			crmnow.EmulatorOptions{JWTBytes: 1024, Clients: map[string]crmnow.Secret{strings.Repeat("x", 1000): crmnow.NewSecret("hunter2")}},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := crmnow.NewEmulator(c.o)
			if err == nil {
				t.Fatal("the options are accepted")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("the error is %v, want %q", err, c.want)
			}
			expectHidden(t, err.Error(), "hunter2")
			if _, err := crmnow.StartLocal(c.o); err == nil {
				t.Error("an emulator is started all the same")
			}
		})
	}
}

func TestCounters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEmulator(t, crmnow.EmulatorOptions{Clients: partner()})
		good := issue(t, e)
		setFault(t, e, crmnow.Verify, crmnow.Fault{Hang: true})
		var callers sync.WaitGroup
		for range 5 {
			callers.Go(func() { expectVerdict(t, e, good, saysValid) })
		}
		if err := e.AwaitVerifying(t.Context(), 5); err != nil {
			t.Fatal(err)
		}
		want := crmnow.JobStats{Requests: 5, Faulted: 5, InFlight: 5, MaxInFlight: 5}
		synctest.Wait()
		if got := e.Stats().Verify; got != want {
			t.Errorf("while they wait the counters are %+v", got)
		}
		e.ClearFaults()
		callers.Wait()
		expectVerdict(t, e, crmnow.NewSecret("bad"), saysInvalid)
		ask(e, fetch())
		ask(e, post(""))
		ask(e, post("a=b", "Content-Type", typeForm))
		ask(e, post("verifytoken=%zz", "Content-Type", typeForm))

		s := e.Stats()
		refused := map[crmnow.Refusal]int64{crmnow.RefusedNoCredentials: 1, crmnow.RefusedBody: 1, crmnow.RefusedBroken: 1}
		if !maps.Equal(s.Refused, refused) {
			t.Errorf("refused are %v", s.Refused)
		}
		s.Refused = nil
		got := fmt.Sprintf("%+v", s)
		wantAll := fmt.Sprintf("%+v", crmnow.Stats{
			Fetch:  crmnow.JobStats{Requests: 3, MaxInFlight: 1},
			Verify: crmnow.JobStats{Requests: 7, Faulted: 5, MaxInFlight: 5},
			Valid:  5, Invalid: 1, Issued: 2, InForce: 2,
		})
		if got != wantAll {
			t.Errorf("the counters are\n%s, want\n%s", got, wantAll)
		}
		if e.VerificationsOf(good) != 5 || e.VerificationsOf(crmnow.NewSecret("bad")) != 1 {
			t.Error("questions about one token are not counted")
		}
		s.Refused = e.Stats().Refused
		s.Refused[crmnow.RefusedPath] = 9
		if e.Stats().Refused[crmnow.RefusedPath] != 0 {
			t.Error("a caller can change the counters")
		}
	})
}

func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEmulator(t, crmnow.EmulatorOptions{})
		await(t, e, func(crmnow.Stats) bool { return true })
		for name, change := range map[string]func(){
			"a token is issued":   func() { issue(t, e) },
			"a question is asked": func() { ask(e, question("x")) },
			"a token is revoked":  func() { e.Revoke(crmnow.NewSecret("x")) },
			"one is refused":      func() { ask(e, httptest.NewRequest(http.MethodPost, "/", http.NoBody)) },
		} {
			looked, woken := 0, make(chan struct{})
			before := e.Stats()
			go func() {
				defer close(woken)
				await(t, e, func(s crmnow.Stats) bool {
					looked++
					return looked > 1 || fmt.Sprint(s) != fmt.Sprint(before)
				})
			}()
			synctest.Wait()
			change()
			synctest.Wait()
			select {
			case <-woken:
			default:
				t.Errorf("nobody is woken when %s", name)
			}
			<-woken
		}
		setFault(t, e, crmnow.Verify, crmnow.Fault{Delay: time.Second})
		go ask(e, question("x"))
		await(t, e, func(s crmnow.Stats) bool { return s.Verify.InFlight == 1 })
		await(t, e, func(s crmnow.Stats) bool { return s.Verify.InFlight == 0 })

		tired := errors.New("tired")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, tired)
		defer cancel()
		err := e.AwaitVerifying(ctx, 1)
		if !errors.Is(err, tired) || !strings.Contains(err.Error(), "InFlight:0") {
			t.Errorf("the error is %v", err)
		}
	})
}

func TestLogSaysWhatBecameOfEachRequest(t *testing.T) {
	var log bytes.Buffer
	e := newEmulator(t, crmnow.EmulatorOptions{Clients: partner(), Logger: slog.New(slog.NewJSONHandler(&log, nil))})
	token := issue(t, e).Reveal()
	inURL := question(token)
	inURL.URL.RawQuery = "access_token=" + token
	requests := []*http.Request{
		question(token),
		question("bad-" + token),
		inURL,
		fetch(),
		post("", "Authorization", header(partnerID, partnerSecret)),
		post("", "Authorization", "Bearer "+token),
	}
	for _, r := range requests {
		ask(e, r)
	}
	var got []string
	for line := range strings.Lines(log.String()) {
		var entry struct {
			Msg, Job, Method, Outcome string
			Status                    int
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %s %s %d %s", entry.Msg, entry.Job, entry.Method, entry.Status, entry.Outcome))
	}
	want := []string{
		"request verify POST 200 token valid",
		"request verify POST 200 token invalid",
		"request none POST 400 refused: token_in_url",
		"request fetch POST 200 token issued",
		"request fetch POST 401 refused: not_urlencoded",
		"request fetch POST 401 refused: not_basic",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the log says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	expectHidden(t, log.String(), token, partnerSecret, partnerID, url.QueryEscape(partnerSecret), basic)
}
