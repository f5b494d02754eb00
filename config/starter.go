package config

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/template"
)

//go:embed starter.yaml.tmpl
var starterText string

// SchemaURL is where the JSON Schema of the file is for editors.
const SchemaURL = "https://raw.githubusercontent.com/bearergate/bearergate/main/config/bearergate.schema.json"

// StarterEdges are the proxies that a [Starter] can be for, and StarterVerifiers the kinds of verifier. The first is taken
// where none is named.
func StarterEdges() []string { return []string{"envoy", "envoy-http", "nginx", "caddy"} }

// StarterVerifiers is described with [StarterEdges].
func StarterVerifiers() []string { return []string{"verifytoken", "introspection", "jwt"} }

// Starter is a first configuration, with comments for who goes on from there.
type Starter struct {
	// Edge is one of [StarterEdges], Verifier one of [StarterVerifiers].
	Edge, Verifier string
	// URL is the endpoint of verifytoken, which has a default, or of introspection. Of jwt it is where the keys are; without
	// it the issuer's metadata say so.
	URL string
	// Issuer is whose tokens they are: needed for jwt, possible for introspection.
	Issuer string
	// Audience is whom the tokens of jwt must be meant for.
	Audience string
	// ClientID is what introspection knows the gateway by.
	ClientID string
}

// StarterSecret is the file beside the configuration that a starter with introspection names. Whoever takes the starter has
// to make it.
const StarterSecret = "introspection.secret" //nolint:gosec // the name of a file

// Missing names what a starter needs and has not, in words of its fields: url, issuer, audience or client-id.
func (s Starter) Missing() []string {
	var missing []string
	need := func(name, value string) {
		if value == "" {
			missing = append(missing, name)
		}
	}
	switch s.Verifier {
	case "introspection":
		need("url", s.URL)
		need("client-id", s.ClientID)
	case "jwt":
		need("issuer", s.Issuer)
		need("audience", s.Audience)
	}
	return missing
}

// Useless names what a starter has and cannot use.
func (s Starter) Useless() []string {
	var useless []string
	for _, one := range []struct {
		name, value string
		kinds       []string
	}{
		{"issuer", s.Issuer, []string{"introspection", "jwt"}},
		{"audience", s.Audience, []string{"jwt"}},
		{"client-id", s.ClientID, []string{"introspection"}},
	} {
		if one.value != "" && !slices.Contains(one.kinds, s.Verifier) {
			useless = append(useless, one.name)
		}
	}
	return useless
}

// Write gives the text of the file. What it returns is what [Read] takes, once [StarterSecret] is there; name is what
// the file will be called, which stands in errors and says where relative files are.
func (s Starter) Write(name string, lookup func(string) (string, bool)) ([]byte, error) {
	switch {
	case !slices.Contains(StarterEdges(), s.Edge):
		return nil, fmt.Errorf("edge: write one of %s", strings.Join(StarterEdges(), ", "))
	case !slices.Contains(StarterVerifiers(), s.Verifier):
		return nil, fmt.Errorf("verifier: write one of %s", strings.Join(StarterVerifiers(), ", "))
	}
	if missing := s.Missing(); len(missing) > 0 {
		return nil, fmt.Errorf("%s needs %s", s.Verifier, strings.Join(missing, " and "))
	}
	if useless := s.Useless(); len(useless) > 0 {
		return nil, fmt.Errorf("%s has no use with %s; leave it out", strings.Join(useless, " and "), s.Verifier)
	}
	if s.Verifier == "verifytoken" && s.URL == "" {
		s.URL = "https://api.i1.crm-now.de/v1/getOauthToken.php"
	}
	parsed, err := template.New("starter").Funcs(template.FuncMap{"quote": quote}).Parse(starterText)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	if err := parsed.Execute(&text, struct {
		Starter
		Schema, Secret string
	}{s, SchemaURL, StarterSecret}); err != nil {
		return nil, err
	}
	if _, err := Parse(name, text.Bytes(), lookup); err != nil {
		if err := besideSecret(err); err != nil {
			return nil, err
		}
	}
	return text.Bytes(), nil
}

// besideSecret leaves out that the secret is not there yet.
func besideSecret(err error) error {
	wrong, ok := errors.AsType[*Error](err)
	if !ok {
		return err
	}
	problems := slices.DeleteFunc(slices.Clone(wrong.Problems), func(p Problem) bool {
		return strings.HasPrefix(p.Field, "verifiers[0].introspection.client.secret")
	})
	if len(problems) == 0 {
		return nil
	}
	return &Error{Problems: problems}
}

// quote writes a text into YAML. What JSON takes for a string YAML does too.
func quote(text string) (string, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(text)
	return strings.TrimSpace(out.String()), err
}
