package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/bearergate/bearergate/crmnow"
)

// emulate starts the emulator on a free port and returns its URL.
func emulate(t *testing.T, environment []string, args ...string) (p *program, url string) {
	t.Helper()
	p = start(t, environment, append([]string{"emulate", "--listen", "127.0.0.1:0"}, args...)...)
	url = p.awaitLog(t, "listening").URL
	if !strings.HasPrefix(url, "http://127.0.0.1:") || strings.HasPrefix(url, "http://127.0.0.1:0/") || !strings.HasSuffix(url, crmnow.Path) {
		t.Fatalf("it listens at %q", url)
	}
	return p, url
}

// control steers a running emulator.
func control(t *testing.T, url, method, what, body string) (status int, reply string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(url, crmnow.Path)+crmnow.ControlPath+what, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestEmulateMakesUpASecretAndServesOneClient(t *testing.T) {
	t.Parallel()
	p, url := emulate(t, []string{clientIDVariable + "=", clientSecretVariable + "="})
	p.await(t, "credentials", p.out, func(text string) bool { return strings.Count(text, "\n") == 2 })
	id, rest, _ := strings.Cut(strings.TrimPrefix(p.out.String(), "client ID:     "), "\n")
	secret := strings.TrimSuffix(strings.TrimPrefix(rest, "client secret: "), "\n")
	if id != "partner" || len(secret) < 20 || strings.ContainsAny(secret, " \n") {
		t.Fatalf("it prints %q", p.out)
	}
	fetched := call(t, invocation{args: []string{"token", "--url", url, "--client-id", id, "--client-secret-file", "-"}, stdin: secret})
	token := strings.TrimSuffix(fetched.stdout, "\n")
	if fetched.code != exitGood || token == "" {
		t.Fatalf("got %+v", fetched)
	}
	if got := ask(t, url, token, invocation{}); got.code != exitGood {
		t.Errorf("got %+v", got)
	}
	if got := call(t, invocation{args: []string{"token", "--url", url, "--client-id", id, "--client-secret-file", "-"}, stdin: "another"}); got.code != exitNo {
		t.Errorf("got %+v", got)
	}
	if status, body := control(t, url, http.MethodGet, "stats", ""); status != http.StatusNotFound {
		t.Errorf("it can be steered without --control: %d %s", status, body)
	}
	p.signal(t, syscall.SIGINT)
	if code := p.code(t); code != exitGood {
		t.Errorf("ended with %d", code)
	}
	expectHidden(t, p.err.String(), token, secret, "another")
	if strings.Contains(p.err.String(), `"WARN"`) {
		t.Error("it warns of nothing")
	}
}

func TestEmulateTakesItsSecretFromElsewhere(t *testing.T) {
	secret := file(t, "secret", partner.secret+"\n")
	for name, c := range map[string]invocation{
		"a file": {
			args: []string{"--client-id", partner.id, "--client-secret-file", secret}, environment: []string{clientSecretVariable + "=another"},
		},
		"the environment": {environment: []string{clientIDVariable + "=" + partner.id, clientSecretVariable + "=" + partner.secret}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, url := emulate(t, c.environment, c.args...)
			got := fetch(t, url, invocation{args: []string{"--client-secret-file", "-"}, stdin: partner.secret})
			if got.code != exitGood {
				t.Errorf("got %+v", got)
			}
			p.signal(t, syscall.SIGTERM)
			if code := p.code(t); code != exitGood {
				t.Errorf("ended with %d", code)
			}
			expectHidden(t, p.out.String()+p.err.String(), partner.secret, strings.TrimSpace(got.stdout))
			if p.out.String() != "" {
				t.Errorf("it prints %q", p.out)
			}
		})
	}
}

func TestEmulateCanBeBrokenOverHTTP(t *testing.T) {
	t.Parallel()
	p, url := emulate(t, []string{clientIDVariable + "=" + partner.id, clientSecretVariable + "=" + partner.secret},
		"--control", "--lifetime", "30s", "--jwt-bytes", "2048", "--log-format", "json")
	secretOnInput := invocation{args: []string{"--client-secret-file", "-", "--output", "json"}, stdin: partner.secret}
	fetched := fetch(t, url, secretOnInput)
	var grant struct {
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := json.Unmarshal([]byte(fetched.stdout), &grant); err != nil || grant.ExpiresIn != 30 || len(grant.AccessToken) != 2048 {
		t.Fatalf("got %+v, %v", fetched, err)
	}

	status, body := control(t, url, http.MethodPut, "faults", `{"verify": {"status": 503}, "fetch": {"html": true}}`)
	if status != http.StatusOK {
		t.Fatalf("faults: %d %s", status, body)
	}
	if got := ask(t, url, grant.AccessToken, invocation{}); got.code != exitUnknown || !strings.Contains(got.stdout, "503") {
		t.Errorf("got %+v", got)
	}
	if got := fetch(t, url, secretOnInput); got.code != exitUnknown {
		t.Errorf("got %+v", got)
	}
	if status, body = control(t, url, http.MethodDelete, "faults", ""); status != http.StatusOK {
		t.Fatalf("faults: %d %s", status, body)
	}
	if got := ask(t, url, grant.AccessToken, invocation{}); got.code != exitGood {
		t.Errorf("got %+v", got)
	}

	status, body = control(t, url, http.MethodGet, "stats", "")
	var stats crmnow.Stats
	if err := json.Unmarshal([]byte(body), &stats); err != nil || status != http.StatusOK {
		t.Fatalf("stats: %d %s, %v", status, body, err)
	}
	if stats.Fetch.Requests != 2 || stats.Verify.Requests != 2 || stats.Verify.Faulted != 1 || stats.Valid != 1 || stats.Issued != 1 {
		t.Errorf("stats: %s", body)
	}
	p.signal(t, syscall.SIGTERM)
	if code := p.code(t); code != exitGood {
		t.Errorf("ended with %d", code)
	}
	jobs := map[string]int{}
	for _, l := range p.log(t) {
		jobs[l.Job]++
	}
	if jobs["fetch"] != 2 || jobs["verify"] != 2 {
		t.Errorf("it logs %v", jobs)
	}
	expectHidden(t, p.out.String()+p.err.String()+body, grant.AccessToken, partner.secret)
}

// Whoever reaches it can get tokens, and break it.
func TestEmulateWarnsWhenItCanBeReachedFromOutside(t *testing.T) {
	t.Parallel()
	p := start(t, nil, "emulate", "--listen", "0.0.0.0:0")
	p.awaitLog(t, "listening")
	warned := false
	for _, l := range p.log(t) {
		warned = warned || l.Level == "WARN" && strings.Contains(l.Message, "from outside")
	}
	if !warned {
		t.Error("no warning")
	}
}

func TestEmulateDoesNotStartOnATakenAddress(t *testing.T) {
	t.Parallel()
	e := partnersEndpoint(t)
	got := call(t, invocation{args: []string{"emulate", "--listen", e.Address()}})
	if got.code != exitWrong || got.stdout != "" || !strings.Contains(got.stderr, "--listen: ") || !strings.Contains(got.stderr, "address already in use") {
		t.Errorf("got %+v", got)
	}
}
