package config_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bearergate/bearergate/config"
)

// claimless is a file with policies that need claims, and a verifier that gives none.
const claimless = `
listeners: {ext_authz: {address: "127.0.0.1:0"}}
verifiers:
  - {name: sso, jwt: {issuer: "https://sso.example.com", audiences: [orders], algorithms: [RS256], keys: {file: KEYS}}}
  - {name: crm, verifytoken: {url: "https://api.example.com/verify"}}
  - {name: behind, behind: sso, verifytoken: {url: "https://api.example.com/verify"}}
default_policy: {verifiers: [sso, crm]}
policies:
  - name: mixed
    verifiers: [sso, crm]
    require: {scopes: {all: [orders]}}
  - {name: good, verifiers: [behind], require: {scopes: {all: [orders]}}}
  - {name: alone, verifiers: [sso], require: {expression: '"a" in claims.roles'}}
  - {name: by-method, verifiers: [sso, crm], require: {expression: request.method == "GET"}}
  - name: expression
    verifiers: [sso, crm]
    require:
      expression: request.method == "GET" || "a" in claims.roles
  - name: told
    verifiers: [sso, crm]
    identity: [{name: X-Partner, constant: crm}, {name: X-User, claim: [sub]}]
    metadata: {claims: [{name: sub, claim: [sub]}]}
  - {name: told-alone, verifiers: [sso], identity: [{name: X-User, claim: [sub]}]}
`

func TestClaimsThatSomeVerifiersDoNotGiveAreWarnedOf(t *testing.T) {
	keys, err := filepath.Abs("testdata/keys.json")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(claimless, "KEYS", keys)), 0o600); err != nil {
		t.Fatal(err)
	}
	read, err := config.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range read.Warnings {
		got = append(got, strings.TrimPrefix(w.String(), path))
	}
	const text = ": needs claims, and verifiers[1] gives none: what reads a claim is never met by tokens that are asked about there (403, insufficient_scope); take it out of the policy's verifiers, or put it behind a jwt verifier"
	const untold = ": needs claims, and verifiers[1] gives none: of tokens that are asked about there nothing is told; take it out of the policy's verifiers, or put it behind a jwt verifier"
	if want := []string{
		":11:5: policies[0].require" + text, ":17:5: policies[4].require" + text,
		":21:65: policies[5].identity[1].claim" + untold, ":22:16: policies[5].metadata.claims" + untold,
	}; !slices.Equal(got, want) {
		t.Errorf("warns\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	g := runParsed(t, read.Config)
	told := 0
	for _, e := range g.log.entries(t) {
		if e.Level == "WARN" && e.Message == "the configuration may not do what is meant" {
			told++
		}
	}
	if told != 4 {
		t.Errorf("the log has %d warnings", told)
	}
}

func TestTheExamplesWarnOfNothing(t *testing.T) {
	for _, path := range []string{"testdata/accepted/smallest.yaml", "testdata/accepted/every-field.yaml"} {
		if read, err := config.Read(path); err != nil || len(read.Warnings) > 0 {
			t.Errorf("%s: %v, %v", path, read.Warnings, err)
		}
	}
}

func TestAnAdminCredentialInClearIsWarnedOf(t *testing.T) {
	for address, want := range map[string]int{"0.0.0.0:9190": 1, "192.0.2.1:9190": 1, "127.0.0.1:9190": 0, "unix:/run/a": 0} {
		c := parse(t, "listeners: {ext_authz: {address: \"127.0.0.1:0\"}, admin: {address: \""+address+"\", api: {credential: {file: testdata/refused/files/credential.txt}}}}\n"+verifying)
		got := config.Warnings(c)
		if len(got) != want || want > 0 && got[0].Field != "listeners.admin.api.credential" {
			t.Errorf("%s: %+v", address, got)
		}
	}
}
