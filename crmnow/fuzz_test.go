package crmnow_test

import (
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/bearergate/bearergate/crmnow"
)

func FuzzEmulatorGivesNothingAway(f *testing.F) {
	multipart := multipartOf(`form-data; name="verifytoken"`, "abc")
	for _, seed := range [][3]string{
		{"", "", "Basic cGFydG5lcjpzZWNyZXQ="},
		{multipart, typeMultipart, ""},
		{multipart, "multipart/form-data", ""},
		{strings.TrimSuffix(multipart, "--\r\n"), typeMultipart, ""},
		{"verifytoken=abc", typeForm, ""},
		{"verifytoken=%zz&verifytoken", typeForm, "Bearer abc"},
		{`{"verifytoken": "abc"}`, "application/json", "Basic Og=="},
		{"", typeForm, "Basic YTpi"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, body, contentType, authorization string) {
		e := newEmulator(t, crmnow.EmulatorOptions{Clients: partner()})
		good := issue(t, e).Reveal()
		got := ask(e, post(body, "Content-Type", contentType, "Authorization", authorization))
		if !utf8.ValidString(got.body) || got.body == "" {
			t.Errorf("the reply is %d %q", got.status, got.body)
		}
		expectHidden(t, got.body, good, partnerSecret)
		// Nobody can guess the token or the partner's credentials, save the seeds.
		s := e.Stats()
		if s.Valid != 0 || s.Issued != 1 && authorization != "Basic "+basic {
			t.Errorf("the counters are %+v", s)
		}
		if got.status == http.StatusOK && s.Invalid+s.Issued != 2 {
			t.Errorf("the reply %s is not counted: %+v", got.body, s)
		}
		// What was asked stands by itself: the good token is good as before.
		expectVerdict(t, e, crmnow.NewSecret(good), saysValid)
	})
}

func FuzzSecretSurvivesTheWay(f *testing.F) {
	for _, seed := range [][2]string{{"partner", "secret"}, {partnerID, partnerSecret}, {"a:b", ":"}, {"%41", "+ "}, {"\u2028", "😀"}, {"~", "-._*!'()"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, id, secret string) {
		e, err := crmnow.NewEmulator(crmnow.EmulatorOptions{Clients: map[string]crmnow.Secret{id: crmnow.NewSecret(secret)}})
		if err != nil {
			return // it cannot be an ID or a secret
		}
		c := newClient(t, crmnow.ClientOptions{URL: onLoopback, ID: id, Secret: crmnow.NewSecret(secret), Dial: newPipes().Dial})
		line := crmnow.AuthorizationOf(c)
		if got := ask(e, post("", "Authorization", line)); got.status != http.StatusOK {
			t.Errorf("the client's credentials are refused: %d %s", got.status, got.body)
		}
	})
}
