package config_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/bearergate/bearergate/config"
	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
)

// editorSchema is the JSON Schema for editors.
func editorSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	schema, err := jsonschema.NewCompiler().Compile("bearergate.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// asEditorsRead gives a file as an editor's YAML 1.2 reads it: the values of JSON, and nothing else.
func asEditorsRead(t *testing.T, node *yaml.Node) any {
	t.Helper()
	switch node.Kind {
	case yaml.DocumentNode:
		return asEditorsRead(t, node.Content[0])
	case yaml.MappingNode:
		fields := map[string]any{}
		for pair := range slices.Chunk(node.Content, 2) {
			fields[pair[0].Value] = asEditorsRead(t, pair[1])
		}
		return fields
	case yaml.SequenceNode:
		list := []any{}
		for _, entry := range node.Content {
			list = append(list, asEditorsRead(t, entry))
		}
		return list
	default: // a scalar
	}
	switch node.Tag {
	case "!!bool":
		return node.Value == "true"
	case "!!null":
		return nil
	case "!!int", "!!float":
		if digits := regexp.MustCompile(`^(-?)0+(\d)`).ReplaceAllString(node.Value, "$1$2"); json.Valid([]byte(digits)) {
			return json.Number(digits)
		}
	}
	return node.Value
}

// valid holds a file against the schema.
func valid(t *testing.T, schema *jsonschema.Schema, text []byte) error {
	t.Helper()
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return err
	}
	if root.Kind == 0 {
		return schema.Validate(nil)
	}
	return schema.Validate(asEditorsRead(t, &root))
}

func TestTheSchemaForEditorsKnowsEveryField(t *testing.T) {
	text, err := os.ReadFile("bearergate.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	type object struct {
		Properties map[string]struct {
			Description string `json:"description"`
			Default     any    `json:"default"`
		} `json:"properties"`
		Additional *bool `json:"additionalProperties"`
	}
	var file struct {
		object
		ID   string            `json:"$id"`
		Defs map[string]object `json:"$defs"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	if file.ID != config.SchemaURL {
		t.Errorf("it says that it is at %s, and configurations look for it at %s", file.ID, config.SchemaURL)
	}
	file.Defs["Config"] = file.object
	seen := map[string]bool{}
	var walk func(message protoreflect.MessageDescriptor)
	walk = func(message protoreflect.MessageDescriptor) {
		name := string(message.Name())
		if seen[name] {
			return
		}
		seen[name] = true
		def := file.Defs[name]
		if def.Additional == nil || *def.Additional {
			t.Errorf("%s takes unknown fields", name)
		}
		if len(def.Properties) != message.Fields().Len() {
			t.Errorf("%s has %d fields, want %d; make generate", name, len(def.Properties), message.Fields().Len())
		}
		for i := range message.Fields().Len() {
			f := message.Fields().Get(i)
			if property, there := def.Properties[string(f.Name())]; !there || property.Description == "" {
				t.Errorf("%s.%s is not there, or has no description; make generate", name, f.Name())
			}
			if f.Message() != nil && f.Message().FullName() != "google.protobuf.Duration" {
				walk(f.Message())
			}
		}
	}
	walk((&configv1.Config{}).ProtoReflect().Descriptor())
	if len(seen) != len(file.Defs) {
		t.Errorf("has %d messages, want %d; make generate", len(file.Defs), len(seen))
	}
	// Comments of today stand there: these are what editors show.
	for _, f := range fieldsOf(t) {
		def := file.Defs[string(f.Parent().Name())].Properties[string(f.Name())]
		if def.Description != strings.Join(strings.Fields(f.comment), " ") {
			t.Errorf("%s is described as\n%s\nwant\n%s\nmake generate", f.path, def.Description, f.comment)
		}
		if f.fallback != "" && def.Default == nil {
			t.Errorf("%s has no default", f.path)
		}
	}
}

func TestTheSchemaForEditorsTakesWhatTheGatewayTakes(t *testing.T) {
	schema := editorSchema(t)
	files := map[string][]byte{}
	for _, pattern := range []string{"testdata/accepted/*.yaml", "../deploy/systemd/bearergate.yaml"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %d, %v", pattern, len(found), err)
		}
		for _, name := range found {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files[name] = text
		}
	}
	for page, count := range map[string]int{"../docs/policies.md": 6, "../docs/migrate.md": 4, "../docs/verifiers.md": 8, "../README.md": 1} {
		for i, example := range examplesOf(t, page, count) {
			files[page+" "+string(rune('a'+i))] = []byte(example.file)
		}
	}
	files["a sample of every field"] = []byte(sample)
	// What is shown has every default written out.
	setEveryVariable(t)
	for _, name := range []string{"every-field", "smallest"} {
		read, err := config.Read("testdata/accepted/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		if files["shown "+name], err = read.YAML(); err != nil {
			t.Fatal(err)
		}
	}
	for name, value := range map[string]string{
		"numbers and a truth without quotes for texts": "default_policy: {realm: 7}\nlog: {level: info}",
		"variables for all kinds":                      "cache: {max_tokens: \"${A}\", valid_ttl: \"${B}s\"}\nlog: {request_id: \"${C}\", level: \"${D}\"}\ndefault_policy: {realm: \"${E}\"}",
		"a duration of 0 without a unit":               "drain_delay: 0",
		"a duration as Go writes it":                   "shutdown_timeout: 1m.5s",
	} {
		files[name] = []byte(listening + verifying + value + "\n")
	}
	for name, text := range files {
		if err := valid(t, schema, text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// beyondASchema are the refused files that the schema for editors takes, and why: what it cannot see.
const beyondASchema = `
# How long a duration is.
a-duration-that-overflows
a-stale-time-over-300s
a-timeout-out-of-range
a-ttl-over-300s
a-ttl-that-is-zero-or-less
an-edge-cache-out-of-range
an-edge-cache-under-a-second

# How something is written; editors say of some of it what is wrong, without a schema.
a-field-twice
a-number-with-a-fraction
a-number-with-a-zero-in-front
a-second-document-that-is-empty
a-section-twice
a-socket-mode-in-decimal
a-tag
several-documents
utf-16

# The form of an address or a URL.
a-socket-for-a-port
a-socket-with-a-path-too-long
a-socket-with-a-relative-path
a-socket-without-a-path
a-systemd-socket-twice
a-systemd-socket-without-a-name
a-url-that-is-too-long
a-url-with-a-bad-host
a-url-with-a-bad-port
a-url-with-a-broken-query
a-url-with-a-fragment
a-url-with-a-line-break
a-url-with-a-password
a-url-with-a-space
a-url-with-a-token
a-url-with-an-unknown-scheme
a-url-with-half-a-query
a-url-with-port-0
a-url-without-a-host
a-url-without-a-scheme
an-address-that-is-a-port
an-address-that-is-a-url
an-address-with-a-bad-host
an-address-with-a-bad-port
an-address-with-a-named-port
an-address-with-an-empty-port
an-address-without-a-port
an-admin-api-that-is-open
an-admin-credential-for-no-api
an-admin-credential-that-is-none
an-ipv6-address-without-a-port
an-ipv6-address-without-brackets
an-issuer-in-clear
keys-in-clear
plain-http-behind-a-user-name
plain-http-to-a-host-that-looks-like-loopback
plain-http

# The form of a text that has no rule in the schema.
an-issuer-without-metadata
identity-headers-that-cannot-be-sent
identity-headers-with-a-name-that-is-taken
policies-without-good-names

# Files, variables and secrets.
a-certificate-as-a-key
a-certificate-file-that-is-a-folder
a-certificate-file-that-is-broken
a-certificate-file-that-is-missing
a-certificate-file-without-a-certificate
a-key-of-another-certificate
a-key-with-a-passphrase
a-listener-certificate-that-is-missing
a-private-key-that-is-none
a-private-key-with-a-password
a-secret-in-a-file-that-is-not-there
a-secret-in-a-folder
a-secret-in-a-variable-that-is-empty
a-secret-in-a-variable-that-is-not-set
a-secret-in-a-variable-without-a-good-name
a-secret-of-systemd-elsewhere
a-secret-of-systemd-without-systemd
a-socket-that-is-a-folder
a-variable-that-is-empty
a-variable-that-is-not-set
a-variable-with-a-bad-value
a-variable-with-bytes-that-are-not-utf-8
a-variable-with-yaml-in-it
a-variable-without-a-name
an-edge-secret-that-is-not-there
fingerprints-with-a-key-that-is-not-there
fingerprints-with-a-key-that-is-too-short
client-authorities-that-are-none
client-names-that-no-certificate-has
keys-that-are-none
keys-that-are-not-there

# What depends on another field.
a-breaker-that-never-opens
a-certificate-file-for-plain-http
a-client-with-a-key-of-the-wrong-kind
a-client-with-a-secret-for-nothing
a-client-with-a-secret-of-the-wrong-kind
a-client-without-an-id-and-a-secret
a-jwt-verifier-with-what-is-of-no-use
a-list-of-verifiers-that-are-never-asked
a-path-policy-that-nobody-can-be-believed-for
a-public-policy-that-asks
a-reserve-that-leaves-nothing
a-trust-that-cannot-be
a-verifier-that-nobody-asks
an-edge-cache-longer-than-the-answer
an-identity-header-twice
claims-for-the-api-that-nobody-gives
claims-that-nobody-gives
client-names-without-authorities
edges-without-a-certificate
further-listeners-for-the-operator-alone
health-of-a-jwt-verifier
health-of-nobody
keys-in-two-places
keys-with-times-that-make-no-sense
no-room-for-a-large-token
no-room-for-the-token
profiles-without-an-api
routes-that-match-the-same
several-verifiers-and-no-list
tokens-that-no-verifier-can-be-for
two-further-listeners-of-one-name
two-listeners-on-one-address
two-listeners-on-one-port-all-addresses-second
two-listeners-on-one-port-by-name
two-listeners-on-one-port-of-all-addresses
two-listeners-on-one-port-of-both-families
two-listeners-on-one-socket
two-verifiers-with-one-name
verifiers-behind-what-they-cannot-be
`

func TestTheSchemaForEditorsRefusesWhatItCanSee(t *testing.T) {
	schema := editorSchema(t)
	names, err := filepath.Glob("testdata/refused/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var taken []string
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := valid(t, schema, bytes.TrimPrefix(text, []byte("\ufeff"))); err == nil {
			taken = append(taken, strings.TrimSuffix(filepath.Base(name), ".yaml"))
		}
	}
	var beyond []string
	for line := range strings.Lines(beyondASchema) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			beyond = append(beyond, line)
		}
	}
	slices.Sort(taken)
	slices.Sort(beyond)
	if diff := cmp.Diff(beyond, taken); diff != "" {
		t.Errorf("takes (-want +got)\n%s", diff)
	}
	if refused := len(names) - len(taken); refused < 90 {
		t.Errorf("refuses %d of %d", refused, len(names))
	}
}
