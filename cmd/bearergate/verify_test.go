package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/bearergate/bearergate/crmnow"
)

// ask calls the command verify about a token. It may not be seen anywhere.
func ask(t *testing.T, url, token string, c invocation) result {
	t.Helper()
	c.args = append([]string{"verify", "--url", url, "--token-file", "-"}, c.args...)
	c.stdin = token + "\n"
	c.secrets = append(c.secrets, token)
	got := call(t, c)
	expectHidden(t, got.stdout, c.secrets...)
	return got
}

func TestVerifySaysWhatTheEndpointSays(t *testing.T) {
	e := partnersEndpoint(t)
	good := token(t, e)
	for name, test := range map[string]struct {
		url, token string
		fault      crmnow.Fault
		c          invocation
		code       int
		result     string // in JSON
		text       string
	}{
		"a good token":              {token: good, code: exitGood, result: "valid", text: "the token is good"},
		"a good token, by form":     {token: good, c: invocation{args: []string{"--encoding", "form"}}, code: exitGood, result: "valid", text: "the token is good"},
		"a token that nobody knows": {token: "made-up-by-nobody", code: exitNo, result: "invalid", text: "the token is not good"},
		"a token in quotes":         {token: `"` + good + `"`, code: exitNo, result: "malformed", text: "this cannot be a token: "},
		"two tokens":                {token: good + " " + good, code: exitNo, result: "malformed", text: "this cannot be a token: "},
		"the scheme with it":        {token: "Bearer " + good, code: exitNo, result: "malformed", text: "this cannot be a token: "},
		"an endpoint that is away":  {url: nobody(t), token: good, code: exitUnknown, result: "no_answer", text: "nobody could tell: "},
		"an endpoint in trouble":    {token: good, fault: crmnow.Fault{Status: 500}, code: exitUnknown, result: "no_answer", text: "nobody could tell: "},
		"a web page":                {token: good, fault: crmnow.Fault{HTML: true}, code: exitUnknown, result: "no_answer", text: "nobody could tell: "},
		"garbage":                   {token: good, fault: crmnow.Fault{Body: new(`{"result":"true"}`)}, code: exitUnknown, result: "no_answer", text: "nobody could tell: "},
		"a yes that is cut off":     {token: good, fault: crmnow.Fault{CutAfter: new(15)}, code: exitUnknown, result: "no_answer", text: "nobody could tell: "},
		"a redirect":                {token: good, fault: crmnow.Fault{Location: "https://login.example.com/"}, code: exitUnknown, result: "no_answer", text: "nobody could tell: "},
		"a refused question":        {token: good, fault: crmnow.Fault{Status: 401}, code: exitUnknown, result: "no_answer", text: "nobody could tell: "},
		"an endpoint that is silent": {
			token: good, fault: crmnow.Fault{Hang: true}, c: invocation{args: []string{"--timeout", "50ms"}},
			code: exitUnknown, result: "no_answer", text: "nobody could tell: ",
		},
		"a proxy that is away": {
			url: "https://api.example.com/", token: good, code: exitUnknown, result: "no_answer", text: "nobody could tell: ",
			c: invocation{environment: []string{"HTTPS_PROXY=http://operator:hunter2@" + hostOf(nobody(t))}, secrets: []string{"hunter2"}},
		},
		"plain HTTP that is allowed": { // the proxy that stands for the other machine is the endpoint itself
			url: "http://api.example.com" + crmnow.Path, token: good, code: exitGood, result: "valid", text: "the token is good",
			c: invocation{args: []string{"--allow-plaintext"}, environment: []string{"HTTP_PROXY=http://" + e.Address()}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			e.ClearFaults()
			if err := e.SetFault(crmnow.Verify, test.fault); err != nil {
				t.Fatal(err)
			}
			if test.url == "" {
				test.url = e.URL()
			}
			got := ask(t, test.url, test.token, test.c)
			if got.code != test.code || got.stderr != "" {
				t.Errorf("ended with %d: %s; want %d", got.code, got.stderr, test.code)
			}
			if !strings.HasPrefix(got.stdout, test.text) || strings.Count(got.stdout, "\n") != 1 {
				t.Errorf("says %q, want %q", got.stdout, test.text)
			}

			test.c.args = append(test.c.args, "--output", "json")
			got = ask(t, test.url, test.token, test.c)
			var said struct {
				Result string `json:"result"`
				Detail string `json:"detail"`
				Took   *int   `json:"took_ms"`
			}
			decoder := json.NewDecoder(strings.NewReader(got.stdout))
			decoder.DisallowUnknownFields()
			if err := decoder.Decode(&said); err != nil || got.code != test.code || got.stderr != "" {
				t.Fatalf("got %+v, %v", got, err)
			}
			known := said.Result == "valid" || said.Result == "invalid"
			if said.Result != test.result || said.Took == nil || known != (said.Detail == "") {
				t.Errorf("says %s", got.stdout)
			}
		})
	}
}

func TestVerifyRefusesToAskWrongly(t *testing.T) {
	for name, test := range map[string]struct {
		url, token, stderr string
	}{
		"plain HTTP to another machine": {"http://api.example.com/", "made-up", "begins with http://"},
		"no URL":                        {"api.example.com", "made-up", "is not an http or https URL"},
		"a URL with a bad port":         {"https://partner:hunter2@api.example.com:port/", "made-up", "is not an http or https URL"},
		"no token":                      {"https://api.example.com/", "", "the token from standard input is empty"},
		"a file that holds no token":    {"https://api.example.com/", strings.Repeat("x", maxSecretBytes), "the token from standard input is longer than 65536 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			got := call(t, invocation{
				args: []string{"verify", "--url", test.url, "--token-file", "-"}, stdin: test.token + "\n", secrets: []string{"hunter2", "made-up", "xxx"},
			})
			if got.code != exitWrong || got.stdout != "" || !strings.Contains(got.stderr, test.stderr) || strings.Count(got.stderr, "\n") != 1 {
				t.Errorf("got %+v, want %q", got, test.stderr)
			}
		})
	}
}

// The example in the help of verify.
func TestVerifyTakesWhatTokenGives(t *testing.T) {
	e := partnersEndpoint(t)
	fetched := fetch(t, e.URL(), invocation{args: []string{"--client-secret-file", "-"}, stdin: partner.secret})
	if fetched.code != exitGood {
		t.Fatalf("got %+v", fetched)
	}
	token := strings.TrimSuffix(fetched.stdout, "\n")
	if got := ask(t, e.URL(), token, invocation{}); got.code != exitGood {
		t.Errorf("got %+v", got)
	}
	path := file(t, "token", fetched.stdout)
	if got := call(t, invocation{args: []string{"verify", "--url", e.URL(), "--token-file", path}, secrets: []string{token}}); got.code != exitGood {
		t.Errorf("got %+v", got)
	}
}

// signed is a JWT for orders by a key, with a name for its issuer.
func signed(t *testing.T, key *ecdsa.PrivateKey, issuer string, end time.Time) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "key-1"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(map[string]any{"iss": issuer, "aud": "orders", "exp": end.Unix()})
	if err != nil {
		t.Fatal(err)
	}
	object, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := object.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestVerifyAsksWhomTheConfigurationNames, of every kind.
func TestVerifyAsksWhomTheConfigurationNames(t *testing.T) {
	e := partnersEndpoint(t)
	var keys [2]*ecdsa.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	const active = "an-active-token"
	introspection := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "gate" || password != "a+secret" {
			w.WriteHeader(http.StatusUnauthorized)
		} else if r.FormValue("token") == active {
			_, _ = io.WriteString(w, `{"active":true}`)
		} else {
			_, _ = io.WriteString(w, `{"active":false}`)
		}
	}))
	t.Cleanup(introspection.Close)
	path := explainFile(t, `
listeners: {ext_authz: {address: "127.0.0.1:0"}}
verifiers:
  - {name: crm, verifytoken: {url: "`+e.URL()+`"}}
  - {name: sso, tokens: opaque, introspection: {url: "`+introspection.URL+`", client: {id: gate, secret: {file: SECRET}}}}
  - {name: away, timeout: 50ms, introspection: {url: "`+nobody(t)+`", client: {id: gate, secret: {file: SECRET}}}}
  - {name: partner, jwt: {issuer: "https://partner.example.com", audiences: [orders], algorithms: [ES256], keys: {file: keys.json}}}
default_policy: {verifiers: [crm]}
policies:
  - {name: several, verifiers: [partner, sso, crm], require: {expression: "false"}}
  - {name: away, verifiers: [away]}
  - {name: open, public: true}
`)
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: keys[0].Public(), KeyID: "key-1", Use: "sig", Algorithm: "ES256"}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(path), "keys.json"), set, 0o600); err != nil {
		t.Fatal(err)
	}
	good, soon := token(t, e), time.Now().Add(time.Hour)
	partners := signed(t, keys[0], "https://partner.example.com", soon)
	for name, test := range map[string]struct {
		token string
		args  []string
		code  int
		says  string
	}{
		"the default policy":                 {good, nil, exitGood, "the token is good"},
		"another token":                      {active, nil, exitNo, "the token is not good"},
		"by introspection":                   {active, []string{"--verifier", "sso"}, exitGood, "the token is good"},
		"not by introspection":               {good, []string{"--verifier", "sso"}, exitNo, "sso: "},
		"a JWT":                              {partners, []string{"--verifier", "partner"}, exitGood, "the token is good"},
		"a JWT by another key":               {signed(t, keys[1], "https://partner.example.com", soon), []string{"--verifier", "partner"}, exitNo, "partner: "},
		"a JWT that has ended":               {signed(t, keys[0], "https://partner.example.com", time.Now().Add(-time.Minute)), []string{"--verifier", "partner"}, exitNo, "not good"},
		"a policy: the first for the token":  {partners, []string{"--policy", "several"}, exitGood, "the token is good"},
		"a policy: the second for the token": {active, []string{"--policy", "several"}, exitGood, "the token is good"},
		"a policy: only one is asked":        {good, []string{"--policy", "several"}, exitNo, "sso: "},
		"nobody answers":                     {good, []string{"--policy", "away"}, exitUnknown, "nobody could tell: "},
		"no token":                           {"x y", nil, exitNo, "this cannot be a token: "},
		"a public policy":                    {good, []string{"--policy", "open"}, exitWrong, "the policy is public: it asks nobody about tokens"},
		"a policy that there is not":         {good, []string{"--policy", "other"}, exitWrong, "there is no policy with that name"},
		"a verifier that there is not":       {good, []string{"--verifier", "other"}, exitWrong, "there is no verifier with that name"},
		"both":                               {good, []string{"--verifier", "sso", "--policy", "open"}, exitWrong, "[policy verifier]"},
		"a URL beside it":                    {good, []string{"--url", e.URL()}, exitWrong, "[config url]"},
	} {
		t.Run(name, func(t *testing.T) {
			got := call(t, invocation{
				args: append([]string{"verify", "--config", path, "--token-file", "-"}, test.args...), stdin: test.token + "\n",
				secrets: []string{test.token, "a secret"},
			})
			expectHidden(t, got.stdout, test.token, "a secret")
			if got.code != test.code || !strings.Contains(got.stdout+got.stderr, test.says) || (got.code == exitWrong) != (got.stdout == "") {
				t.Errorf("got %+v, want %d %s", got, test.code, test.says)
			}
		})
	}
	if got := call(t, invocation{args: []string{"verify", "--policy", "several", "--token-file", "-"}, stdin: good}); got.code != exitWrong || !strings.Contains(got.stderr, "give --config FILE too") {
		t.Errorf("got %+v", got)
	}
}
