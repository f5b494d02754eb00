package crmnow

import (
	"strings"
	"testing"
	"time"
)

func FuzzGrantCanBeUsed(f *testing.F) {
	for _, seed := range []string{
		`{"access_token": "abc", "expires_in": 300, "refresh_expires_in": 0, "token_type": "Bearer", "scope": "realm profile email"}`,
		`{"access_token": "abc", "expires_in": 1e300}`, `{"access_token": "a b"}`, `{"access_token": null}`, `null`, `[]`, `{`, "",
		`{"access_token": "abc", "expires_in": 0.5}`, `{"access_token": "abc", "expires_in": -1e300}`, `{"access_token": "\u0000"}`,
	} {
		f.Add([]byte(seed))
	}
	asked := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f.Fuzz(func(t *testing.T, body []byte) {
		grant, err := parseGrant(body, asked)
		token := grant.AccessToken.Reveal()
		if err != nil {
			if token != "" {
				t.Error("there is a token beside the error")
			}
			return
		}
		if token == "" || strings.Trim(token, " \t\r\n\x00") != token || strings.ContainsAny(token, " \r\n") {
			t.Errorf("the token is %q", token)
		}
		if grant.ExpiresIn < time.Second || grant.ExpiresIn > maxLifetime || !grant.ExpiresAt.Equal(asked.Add(grant.ExpiresIn)) || !grant.InForce(asked) {
			t.Errorf("the grant lasts %s, until %s", grant.ExpiresIn, grant.ExpiresAt)
		}
	})
}
