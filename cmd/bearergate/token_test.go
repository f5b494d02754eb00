package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bearergate/bearergate/crmnow"
)

// fetch calls the command token for the partner, who gives everything but the
// secret. No secret may be seen on standard error.
func fetch(t *testing.T, url string, c invocation) result {
	t.Helper()
	c.args = append([]string{"token", "--url", url, "--client-id", partner.id}, c.args...)
	c.secrets = append(c.secrets, partner.secret)
	return call(t, c)
}

// expectToken wants a token on standard output, and nothing else anywhere.
func expectToken(t *testing.T, e *crmnow.Local, got result) {
	t.Helper()
	token, rest, found := strings.Cut(got.stdout, "\n")
	if got.code != exitGood || got.stderr != "" || !found || rest != "" || len(token) < 20 {
		t.Fatalf("got %+v", got)
	}
	if !e.Revoke(crmnow.NewSecret(token)) {
		t.Errorf("the endpoint does not know the token")
	}
}

func TestTokenTakesTheSecretFromEverywhereButTheArguments(t *testing.T) {
	e := partnersEndpoint(t)
	secret := file(t, "secret.txt", partner.secret)
	withLineBreak := file(t, "secret.txt", partner.secret+"\r\n")
	for name, c := range map[string]invocation{
		"from a file":                       {args: []string{"--client-secret-file", secret}},
		"from a file with a line break":     {args: []string{"--client-secret-file", withLineBreak}},
		"from standard input":               {args: []string{"--client-secret-file", "-"}, stdin: partner.secret},
		"from a line of standard input":     {args: []string{"--client-secret-file", "-"}, stdin: partner.secret + "\n"},
		"from the environment":              {environment: []string{clientSecretVariable + "=" + partner.secret}},
		"from a file, not the environment":  {args: []string{"--client-secret-file", secret}, environment: []string{clientSecretVariable + "=wrong"}},
		"with the flag's ID, not another's": {args: []string{"--client-secret-file", secret}, environment: []string{clientIDVariable + "=wrong"}},
	} {
		t.Run(name, func(t *testing.T) { expectToken(t, e, fetch(t, e.URL(), c)) })
	}
	t.Run("with everything from the environment", func(t *testing.T) {
		expectToken(t, e, call(t, invocation{
			args:        []string{"token", "--url", e.URL()},
			environment: []string{clientIDVariable + "=" + partner.id, clientSecretVariable + "=" + partner.secret},
			secrets:     []string{partner.secret},
		}))
	})
}

// The proxy that stands for the other machine is the endpoint itself.
func TestTokenSendsASecretInClearWhenAllowed(t *testing.T) {
	e := partnersEndpoint(t)
	expectToken(t, e, fetch(t, "http://api.example.com"+crmnow.Path, invocation{
		args: []string{"--client-secret-file", "-", "--allow-plaintext"}, stdin: partner.secret,
		environment: []string{"HTTP_PROXY=http://" + e.Address()},
	}))
}

func TestTokenForScripts(t *testing.T) {
	e := partnersEndpoint(t)
	begin := time.Now()
	got := fetch(t, e.URL(), invocation{args: []string{"--client-secret-file", "-", "--output", "json"}, stdin: partner.secret})
	var grant struct {
		AccessToken string    `json:"access_token"`
		TokenType   string    `json:"token_type"`
		ExpiresIn   int       `json:"expires_in"`
		ExpiresAt   time.Time `json:"expires_at"`
		Scope       string    `json:"scope"`
	}
	decoder := json.NewDecoder(strings.NewReader(got.stdout))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&grant); err != nil || got.code != exitGood || got.stderr != "" {
		t.Fatalf("got %+v, %v", got, err)
	}
	if !e.Revoke(crmnow.NewSecret(grant.AccessToken)) {
		t.Error("the endpoint does not know the token")
	}
	if grant.TokenType != "Bearer" || grant.ExpiresIn != 300 || grant.Scope != crmnow.DefaultScope {
		t.Errorf("got %+v", grant)
	}
	lifetime := 300 * time.Second
	if first, last := begin.Add(lifetime-time.Second), time.Now().Add(lifetime); grant.ExpiresAt.Before(first) || grant.ExpiresAt.After(last) {
		t.Errorf("it ends at %v, want %v to %v", grant.ExpiresAt, first, last)
	}
}

func TestTokenSaysWhyThereIsNone(t *testing.T) {
	e := partnersEndpoint(t)
	away := nobody(t)
	for name, test := range map[string]struct {
		url    string
		fault  crmnow.Fault
		c      invocation
		code   int
		stderr string
	}{
		"a wrong secret": {
			c: invocation{stdin: "another-secret", secrets: []string{"another-secret"}}, code: exitNo,
			stderr: "the endpoint does not accept the credentials (status 401)",
		},
		"a request that something on the way has changed": {
			fault: crmnow.Fault{Status: 405}, code: exitNo, stderr: "the endpoint does not accept the request (status 405)",
		},
		"an endpoint that is away":        {url: away, code: exitUnknown, stderr: "nobody listens at the endpoint"},
		"an endpoint in trouble":          {fault: crmnow.Fault{Status: 503}, code: exitUnknown, stderr: "the endpoint cannot answer now (status 503)"},
		"an endpoint that is silent":      {fault: crmnow.Fault{Hang: true}, c: invocation{args: []string{"--timeout", "50ms"}}, code: exitUnknown, stderr: "did not answer in time"},
		"a web page":                      {fault: crmnow.Fault{HTML: true}, code: exitUnknown, stderr: "a web page came instead"},
		"a redirect":                      {fault: crmnow.Fault{Location: "https://login.example.com/?from=api"}, code: exitUnknown, stderr: "https://login.example.com"},
		"a reply that breaks off":         {fault: crmnow.Fault{CutAfter: new(7)}, code: exitUnknown, stderr: "the endpoint's reply broke off"},
		"another path":                    {url: strings.TrimSuffix(e.URL(), ".php"), code: exitUnknown, stderr: "there is no endpoint at this URL (status 404)"},
		"plain HTTP to another machine":   {url: "http://api.example.com/", code: exitWrong, stderr: "begins with http://"},
		"no URL":                          {url: "api.example.com", code: exitWrong, stderr: "is not a URL"},
		"a URL with credentials":          {url: "https://partner:hunter2@api.example.com/", code: exitWrong, c: invocation{secrets: []string{"hunter2"}}, stderr: "holds credentials"},
		"an empty secret":                 {c: invocation{stdin: "\n"}, code: exitWrong, stderr: "the client secret from standard input is empty"},
		"a secret of two lines":           {c: invocation{stdin: "one\ntwo\n", secrets: []string{"one\n", "two"}}, code: exitWrong, stderr: "the client secret holds a control character"},
		"a secret that is a large file":   {c: invocation{stdin: strings.Repeat("x", maxSecretBytes+1)}, code: exitWrong, stderr: "is longer than 65536 bytes"},
		"a secret file that is not there": {c: invocation{args: []string{"--client-secret-file", "nowhere"}}, code: exitWrong, stderr: "the client secret from --client-secret-file: no such file"},
		"a secret file that is a folder":  {c: invocation{args: []string{"--client-secret-file", "."}}, code: exitWrong, stderr: "the client secret from --client-secret-file: is a directory"},
		"a time-out below zero":           {c: invocation{args: []string{"--timeout", "-1s"}}, code: exitWrong, stderr: "not negative"},
		"a proxy that is away":            {url: "https://api.example.com/", c: invocation{environment: []string{"HTTPS_PROXY=http://operator:hunter2@" + hostOf(away)}, secrets: []string{"hunter2"}}, code: exitUnknown, stderr: "HTTPS_PROXY"},
	} {
		t.Run(name, func(t *testing.T) {
			e.ClearFaults()
			if err := e.SetFault(crmnow.Fetch, test.fault); err != nil {
				t.Fatal(err)
			}
			if test.url == "" {
				test.url = e.URL()
			}
			if test.c.stdin == "" {
				test.c.stdin = partner.secret
			}
			test.c.args = append([]string{"--client-secret-file", "-"}, test.c.args...)
			got := fetch(t, test.url, test.c)
			if got.code != test.code || got.stdout != "" {
				t.Errorf("ended with %d and wrote %q; want %d", got.code, got.stdout, test.code)
			}
			if !strings.HasPrefix(got.stderr, "bearergate: ") || strings.Count(got.stderr, "\n") != 1 || !strings.Contains(got.stderr, test.stderr) {
				t.Errorf("says %q, want %q", got.stderr, test.stderr)
			}
		})
	}
}

// nobody returns the URL of a port that belongs to this test and does not listen,
// so that connections to it are refused.
func nobody(t *testing.T) string {
	t.Helper()
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(socket) })
	if err := syscall.Bind(socket, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(socket)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("http://127.0.0.1:%d%s", name.(*syscall.SockaddrInet4).Port, crmnow.Path)
}

func hostOf(url string) string {
	return strings.TrimSuffix(strings.TrimPrefix(url, "http://"), crmnow.Path)
}

func TestTokenSaysAFingerprint(t *testing.T) {
	const token, key = "eyJhbGciOiJub25lIn0.e30.c2lnbmF0dXJl", "0123456789abcdef0123456789abcdef"
	tokenFile, keyFile := file(t, "token.txt", token+"\n"), file(t, "key.txt", key+"\n")
	const plain, keyed = "5f465996b92e\n", "ed81c10ede5f\n"
	for name, c := range map[string]struct {
		invocation

		code   int
		stdout string
		stderr string
	}{
		"from a file":          {invocation{args: []string{"--token-file", tokenFile}}, exitGood, plain, ""},
		"from standard input":  {invocation{args: []string{"--token-file", "-"}, stdin: token}, exitGood, plain, ""},
		"from the environment": {invocation{environment: []string{tokenVariable + "=" + token}}, exitGood, plain, ""},
		"with a key":           {invocation{args: []string{"--token-file", tokenFile, "--key-file", keyFile}}, exitGood, keyed, ""},
		"with a key from standard input": {
			invocation{args: []string{"--token-file", tokenFile, "--key-file", "-"}, stdin: key + "\r\n"}, exitGood, keyed, "",
		},
		"for scripts":      {invocation{args: []string{"--token-file", tokenFile, "-o", "json"}}, exitGood, `{"fingerprint":"` + strings.TrimSpace(plain) + `","by":"plain"}` + "\n", ""},
		"without a token":  {invocation{}, exitWrong, "", "no token; give --token-file FILE"},
		"an empty key":     {invocation{args: []string{"--token-file", tokenFile, "--key-file", ""}}, exitWrong, "", "no key; give --key-file FILE"},
		"a key too short":  {invocation{args: []string{"--token-file", tokenFile, "--key-file", "-"}, stdin: key[1:]}, exitWrong, "", "holds no good key; write 32 to 256"},
		"no token":         {invocation{args: []string{"--token-file", "-"}, stdin: "Bearer " + token}, exitWrong, "", "this cannot be a token"},
		"both at once":     {invocation{args: []string{"--token-file", "-", "--key-file", "-"}, stdin: token}, exitWrong, "", "only one of them can be standard input"},
		"while it fetches": {invocation{args: []string{"--token-file", tokenFile, "--client-id", "partner"}}, exitWrong, "", "client-id"},
	} {
		t.Run(name, func(t *testing.T) {
			c.args = append([]string{"token", "--fingerprint"}, c.args...)
			c.secrets = append(c.secrets, token, key)
			got := call(t, c.invocation)
			if got.code != c.code || got.stdout != c.stdout || !strings.Contains(got.stderr, c.stderr) || (c.stderr == "") != (got.stderr == "") {
				t.Errorf("got %+v", got)
			}
		})
	}
	got := call(t, invocation{args: []string{"token", "--token-file", tokenFile}, secrets: []string{token}})
	if got.code != exitWrong || !strings.Contains(got.stderr, "are for --fingerprint") {
		t.Errorf("got %+v", got)
	}
}
