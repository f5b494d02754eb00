package crmnow_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os/exec"
	"strings"
	"testing"

	"github.com/bearergate/bearergate/crmnow"
)

// These tests ask the emulator with the clients of the endpoint's own description:
// curl, and PHP with its cURL. What they send is real, so they judge the emulator.

// run runs a command that must be there, with an input that may be secret.
func run(t *testing.T, input, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if testing.Short() {
			t.Skipf("%s is not on this machine", name)
		}
		t.Fatalf("%v; install it, or leave this test out with -short", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = []string{} // no proxy, no configuration of whoever runs the tests
	cmd.Stdin = strings.NewReader(input)
	var errors strings.Builder
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", name, err, errors.String())
	}
	return string(out)
}

// curl runs curl with a configuration. It prints the reply's status and body.
func curl(t *testing.T, lines ...string) string {
	t.Helper()
	lines = append(lines, "silent", "show-error", "max-time = 20", `write-out = "\n%{http_code}"`)
	out := run(t, strings.Join(lines, "\n"), "curl", "--disable", "--config", "-")
	body, status, _ := strings.Cut(out, "\n")
	return status + " " + body
}

// line is one line of curl's configuration.
func line(name, value string) string {
	return name + ` = "` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value) + `"`
}

// php runs testdata/partner.php.
func php(t *testing.T, input string, args ...string) string {
	t.Helper()
	if run(t, "", "php", "-r", `echo extension_loaded("curl") ? "yes" : "no";`) != "yes" {
		if testing.Short() {
			t.Skip("PHP has no cURL on this machine")
		}
		t.Fatal("PHP has no cURL; install php-curl, or leave this test out with -short")
	}
	return run(t, input, "php", append([]string{"testdata/partner.php"}, args...)...)
}

// tokenOf takes the token out of "200 " and a reply.
func tokenOf(t *testing.T, out string) string {
	t.Helper()
	body, found := strings.CutPrefix(out, "200 ")
	var reply struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := json.Unmarshal([]byte(body), &reply); !found || err != nil || reply.TokenType != "Bearer" || reply.ExpiresIn != 300 {
		t.Fatalf("the reply is %q, %v", out, err)
	}
	return reply.AccessToken
}

func TestCurl(t *testing.T) {
	l := startLocal(t, crmnow.EmulatorOptions{})
	encoded := url.QueryEscape(partnerID) + ":" + url.QueryEscape(partnerSecret)
	fetchAs := func(user string, more ...string) string {
		t.Helper()
		return curl(t, append(more, line("url", l.URL()), line("request", "POST"), line("user", user))...)
	}
	token := tokenOf(t, fetchAs(encoded))

	for _, c := range []struct {
		name, out string
		refusal   crmnow.Refusal
		status    int
	}{
		{"without urlencoding first", fetchAs(partnerID + ":" + partnerSecret), crmnow.RefusedNotEncoded, 401},
		{"swapped", fetchAs(url.QueryEscape(partnerSecret) + ":" + url.QueryEscape(partnerID)), crmnow.RefusedSwapped, 401},
		{"mistyped", fetchAs(encoded + "x"), crmnow.RefusedSecret, 401},
		{"with GET", curl(t, line("url", l.URL()), line("user", encoded)), crmnow.RefusedMethod, 405},
		{"with a body", fetchAs(encoded, line("data", "grant_type=client_credentials")), crmnow.RefusedBody, 400},
		{"without credentials", curl(t, line("url", l.URL()), line("request", "POST")), crmnow.RefusedNoCredentials, 401},
		{"in the URL", curl(t, line("url", l.URL()+"?verifytoken="+token), line("request", "POST")), crmnow.RefusedTokenInURL, 400},
		{"as a file", curl(t, line("url", l.URL()), line("form", "verifytoken=@/dev/null;filename=token.txt")), crmnow.RefusedFile, 400},
	} {
		if !strings.HasPrefix(c.out, fmt.Sprint(c.status, " {")) || !strings.Contains(c.out, `"`+string(c.refusal)+": ") {
			t.Errorf("a token %s: the reply is %s, want %d %s", c.name, c.out, c.status, c.refusal)
		}
	}

	if err := l.Accept(crmnow.NewSecret("own+token/=="), 0); err != nil {
		t.Fatal(err)
	}
	verify := func(lines ...string) string { return curl(t, append(lines, line("url", l.URL()))...) }
	for _, c := range []struct{ name, out, want string }{
		{"--form", verify(line("form", "verifytoken="+token)), "200 " + saysValid},
		{"--form, a token with a plus sign", verify(line("form", "verifytoken=own+token/==")), "200 " + saysValid},
		// In a shell too, curl itself takes these quotes off.
		{"--form with quotes", verify(line("form", `verifytoken="`+token+`"`)), "200 " + saysValid},
		{"--form-string with quotes", verify(line("form-string", `verifytoken="`+token+`"`)), `200 {"result": false, "message": "token invalid: it arrived with quotes around it"}`},
		{"--data", verify(line("data", "verifytoken="+token)), "200 " + saysValid},
		{"--data-urlencode", verify(line("data-urlencode", "verifytoken=own+token/==")), "200 " + saysValid},
		{"--data, which does not encode the plus sign", verify(line("data", "verifytoken=own+token/==")), `200 {"result": false, "message": "token invalid: it arrived with a blank or a line break"}`},
		{"--form with another token", verify(line("form", "verifytoken="+token+"x")), "200 " + saysInvalid},
	} {
		if c.out != c.want {
			t.Errorf("%s: the answer is %s, want %s", c.name, c.out, c.want)
		}
	}
}

func TestPHP(t *testing.T) {
	l := startLocal(t, crmnow.EmulatorOptions{JWTBytes: 4096}) // as long as a token gets
	client := func(id, secret string) string {
		text, err := json.Marshal(map[string]string{"id": id, "secret": secret})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	verify := func(token string) string { return php(t, token, "verify", l.URL()) }
	for _, body := range []string{"custom", "empty"} {
		token := tokenOf(t, php(t, client(partnerID, partnerSecret), "fetch", l.URL(), body))
		if got := verify(token); got != "valid" {
			t.Errorf("a fetched token is %s", got)
		}
		if got := verify(token + "x"); got != "not valid" {
			t.Errorf("another token is %s", got)
		}
		l.Revoke(crmnow.NewSecret(token))
		if got := verify(token); got != "not valid" {
			t.Errorf("a token that was revoked is %s", got)
		}
	}
	for _, wrong := range []string{client(partnerSecret, partnerID), client(partnerID, partnerSecret+"x"), client(partnerID+"x", partnerSecret)} {
		if got := php(t, wrong, "fetch", l.URL(), "custom"); !strings.HasPrefix(got, "401 ") {
			t.Errorf("with wrong credentials the reply is %s", got)
		}
	}

	// The description's own check takes none of these for a yes.
	token := issue(t, l.Emulator)
	for name, fault := range map[string]crmnow.Fault{
		"true in a string": {Body: new(`{"result": "true"}`)},
		"1":                {Body: new(`{"result": 1}`)},
		"no result":        {Body: new(`{"message": "token valid"}`)},
		"other letters":    {Body: new(`{"Result": true}`)},
		"a web page":       {HTML: true},
		"nothing":          {Body: new("")},
		"a redirect":       {Location: "https://login.invalid/"},
		"a status":         {Status: 500},
		"a cut-off answer": {CutAfter: new(20)},
		"a closed door":    {Close: true},
		"a reset":          {Reset: true},
	} {
		setFault(t, l.Emulator, crmnow.Verify, fault)
		if got := verify(token.Reveal()); got != "not valid" {
			t.Errorf("with %s the token is %s", name, got)
		}
	}
	l.ClearFaults()
	if got := verify(token.Reveal()); got != "valid" {
		t.Errorf("without a fault the token is %s", got)
	}
}
