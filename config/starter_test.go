package config_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/bearergate/bearergate/config"
)

// starters are all that there can be.
func starters() map[string]config.Starter {
	all := map[string]config.Starter{}
	for _, edge := range config.StarterEdges() {
		for name, s := range map[string]config.Starter{
			"verifytoken":              {Verifier: "verifytoken"},
			"verifytoken elsewhere":    {Verifier: "verifytoken", URL: "https://api.example.com/verify?a=\"b\"&c=\\"},
			"introspection":            {Verifier: "introspection", URL: "https://sso.example.com/introspect", ClientID: "gate: way # 1"},
			"introspection and issuer": {Verifier: "introspection", URL: "https://sso.example.com/introspect", ClientID: "gateway", Issuer: "https://sso.example.com"},
			"jwt":                      {Verifier: "jwt", Issuer: "https://sso.example.com", Audience: "orders, all"},
			"jwt and keys":             {Verifier: "jwt", Issuer: "https://sso.example.com", Audience: "orders", URL: "https://sso.example.com/keys"},
		} {
			s.Edge = edge
			all[edge+" with "+name] = s
		}
	}
	return all
}

func TestEveryStarterIsGoodAndSoIsWhatItsCommentsOffer(t *testing.T) {
	schema := editorSchema(t)
	offer := regexp.MustCompile(`(?m)^( *)# ([a-z_]+: .*)$`)
	for name, s := range starters() {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			path := filepath.Join(folder, "gateway.yaml")
			text, err := s.Write(path, noVariables)
			if err != nil {
				t.Fatal(err)
			}
			secretFile := filepath.Join(folder, config.StarterSecret)
			if s.Verifier == "introspection" {
				if _, err := config.Parse(path, text, noVariables); err == nil || !strings.Contains(err.Error(), "secret.file: ") {
					t.Errorf("is taken without the secret: %v", err)
				}
				if err := os.WriteFile(secretFile, []byte(secret), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if !strings.HasPrefix(string(text), "# yaml-language-server: $schema="+config.SchemaURL+"\n") || regexp.MustCompile(`(?m)[ \t]$`).Match(text) {
				t.Errorf("begins with no schema, or has spaces at the end of a line:\n%s", text)
			}
			offers := offer.ReplaceAllString(string(text), "$1$2")
			if strings.Count(offers, "#") > strings.Count(string(text), "#")-4 {
				t.Errorf("offers little:\n%s", text)
			}
			for from, to := range map[string]string{"gate.pem": "tls/gate.pem", "gate.key": "tls/gate.key"} {
				content, err := os.ReadFile(filepath.Join("testdata", to))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(folder, from), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for _, text := range []string{string(text), offers} {
				c, err := config.Parse(path, []byte(text), noVariables)
				if err != nil {
					t.Fatalf("%v\n%s", err, text)
				}
				if warnings := config.Warnings(c); len(warnings) > 0 {
					t.Errorf("warns of %v", warnings)
				}
				if err := valid(t, schema, []byte(text)); err != nil {
					t.Errorf("%v\n%s", err, text)
				}
				v := c.GetVerifiers()[0]
				if url := v.GetVerifytoken().GetUrl() + v.GetIntrospection().GetUrl() + v.GetJwt().GetKeys().GetUrl(); s.URL != "" && url != s.URL {
					t.Errorf("the URL is %q, want %q", url, s.URL)
				}
				for what, pair := range map[string][2]string{
					"client":   {v.GetIntrospection().GetClient().GetId(), s.ClientID},
					"audience": {strings.Join(v.GetJwt().GetAudiences(), ";"), s.Audience},
				} {
					if pair[0] != pair[1] {
						t.Errorf("%s is %q, want %q", what, pair[0], pair[1])
					}
				}
			}
			// The listener is that of the recipe.
			recipe := regexp.MustCompile(`deploy/[a-z]+/[A-Za-z.-]+`).FindString(string(text))
			content, err := os.ReadFile("../" + recipe)
			if err != nil {
				t.Fatal(err)
			}
			port := map[bool]string{true: "9191", false: "9192"}[s.Edge == "envoy"]
			if !strings.Contains(string(text), "127.0.0.1:"+port) || !strings.Contains(string(content), port) {
				t.Errorf("listens elsewhere than %s asks", recipe)
			}
		})
	}
}

func TestAStarterThatCannotBeGoodIsNotWritten(t *testing.T) {
	for name, test := range map[string]struct {
		starter config.Starter
		want    string
	}{
		"an unknown edge":              {config.Starter{Edge: "squid", Verifier: "jwt"}, "edge: write one of envoy, envoy-http, nginx, caddy"},
		"an unknown verifier":          {config.Starter{Edge: "envoy", Verifier: "saml"}, "verifier: write one of verifytoken, introspection, jwt"},
		"an introspection of nobody":   {config.Starter{Edge: "envoy", Verifier: "introspection"}, "introspection needs url and client-id"},
		"a jwt of nobody":              {config.Starter{Edge: "envoy", Verifier: "jwt"}, "jwt needs issuer and audience"},
		"an audience for verifytoken":  {config.Starter{Edge: "envoy", Verifier: "verifytoken", Audience: "a"}, "audience has no use with verifytoken; leave it out"},
		"plain http":                   {config.Starter{Edge: "envoy", Verifier: "verifytoken", URL: "http://api.example.com"}, "plain http to api.example.com would send tokens in clear"},
		"a secret in the URL":          {config.Starter{Edge: "envoy", Verifier: "verifytoken", URL: "https://me:" + secret + "@api.example.com"}, "verifiers[0].verifytoken.url: "},
		"plain http beside the secret": {config.Starter{Edge: "envoy", Verifier: "introspection", URL: "http://api.example.com", ClientID: "a"}, "plain http to api.example.com"},
		"a variable that is not set":   {config.Starter{Edge: "envoy", Verifier: "verifytoken", URL: "${URL}"}, "needs the environment variable URL"},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := test.starter.Write(filepath.Join(t.TempDir(), "gateway.yaml"), noVariables)
			if err == nil || text != nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), secret) {
				t.Errorf("got %q, %v; want %s", text, err, test.want)
			}
			if strings.Contains(name, "secret") && strings.Contains(err.Error(), "secret.file") {
				t.Errorf("speaks of the secret too: %v", err)
			}
		})
	}
}
