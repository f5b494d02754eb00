package config_test

import (
	"errors"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/bearergate/bearergate/config"
	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
)

// These tests hold the comments of config.proto, which operators read, against the code.

// sample is a file with every message in it and no field that has a default.
const sample = `
listeners:
  ext_authz: {address: "unix:/run/a", socket: {}, tls: {cert_file: testdata/tls/gate.pem, key_file: testdata/tls/gate.key}}
  auth_request: {address: "unix:/run/b", socket: {}, tls: {cert_file: testdata/tls/gate.pem, key_file: testdata/tls/gate.key}}
  admin: {address: "unix:/run/c", socket: {}, tls: {cert_file: testdata/tls/gate.pem, key_file: testdata/tls/gate.key}, api: {}}
  more: [{name: partners, ext_authz: {address: "127.0.0.1:0"}}]
verifiers:
  - name: crm
    verifytoken: {url: "https://api.example.com/verify"}
  - name: sso
    tokens: opaque
    introspection:
      url: "https://sso.example.com/introspect"
      client: {id: gateway, secret: {file: testdata/secret.txt}}
      signed: {issuer: "https://sso.example.com", algorithms: [RS256], keys: {url: "https://sso.example.com/keys"}}
  - name: partner
    jwt: {issuer: "https://partner.example.com", audiences: [orders], algorithms: [RS256], keys: {file: testdata/keys.json}}
cache: {}
credential: {}
default_policy: {verifiers: [partner, sso, crm], identity: [{name: X-Partner, constant: crm}], refusal: {}, metadata: {claims: [{name: sub, claim: [sub]}]}}
policies: [{name: partners, verifiers: [partner], identity: [{name: X-Partner, constant: crm}], refusal: {}, metadata: {claims: [{name: sub, claim: [sub]}]}}]
routes: [{policy: partners}]
log: {}
health: {}
`

// schemaFile is the text of config.proto; the generated code has no comments that could be asked.
func schemaFile(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../proto/bearergate/config/v1/config.proto")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// field is a field that holds a value, with what its comment says.
type field struct {
	protoreflect.FieldDescriptor
	path            string
	comment         string
	fallback        string // after "Default:"
	lowest, highest string // after "Range:"
}

// fieldsOf gives every field of the schema that is no message of ours, by its path in the sample.
func fieldsOf(t *testing.T) []field {
	t.Helper()
	comments := map[string]string{}
	message := ""
	var comment []string
	for line := range strings.SplitSeq(schemaFile(t), "\n") {
		line = strings.TrimSpace(line)
		if text, ok := strings.CutPrefix(line, "//"); ok {
			comment = append(comment, strings.TrimSpace(text))
			continue
		}
		if found := regexp.MustCompile(`^message (\w+) {$`).FindStringSubmatch(line); found != nil {
			message = found[1]
		}
		if found := regexp.MustCompile(`^(?:repeated )?[\w.]+ (\w+) = \d+( \[.*|;)$`).FindStringSubmatch(line); found != nil {
			comments[message+"."+found[1]] = strings.Join(comment, " ")
		}
		comment = nil
	}

	var all []field
	var walk func(path string, message protoreflect.MessageDescriptor)
	walk = func(path string, message protoreflect.MessageDescriptor) {
		for i := range message.Fields().Len() {
			f := field{FieldDescriptor: message.Fields().Get(i)}
			f.path = strings.TrimPrefix(path+"."+string(f.Name()), ".")
			// A verifier has one kind, so the sample has one verifier of each.
			f.path = strings.Replace(f.path, "verifiers[0].introspection", "verifiers[1].introspection", 1)
			f.path = strings.Replace(f.path, "verifiers[0].jwt", "verifiers[2].jwt", 1)
			f.comment = comments[string(message.Name())+"."+string(f.Name())]
			if f.comment == "" {
				t.Errorf("%s has no comment", f.path)
			}
			if f.Message() != nil && f.Message().FullName() != "google.protobuf.Duration" {
				if f.IsList() {
					f.path += "[0]"
				}
				if strings.HasPrefix(path, "listeners.more[0]") {
					continue // The same messages again. TestFurtherListenersAreLikeTheFirst.
				}
				walk(f.path, f.Message())
				continue
			}
			if found := regexp.MustCompile(`Default: (\S+)\.(?: |$)`).FindStringSubmatch(f.comment); found != nil {
				f.fallback = found[1]
			}
			if found := regexp.MustCompile(`Range: (\S+) to (\S+)\.(?: |$)`).FindStringSubmatch(f.comment); found != nil {
				f.lowest, f.highest = found[1], found[2]
			}
			all = append(all, f)
		}
	}
	walk("", (&configv1.Config{}).ProtoReflect().Descriptor())
	if len(all) < 20 {
		t.Fatalf("found %d fields", len(all))
	}
	return all
}

func TestEveryFieldIsOfAKindThatIsRead(t *testing.T) {
	for _, f := range fieldsOf(t) {
		switch {
		case f.IsList() && f.Kind() == protoreflect.StringKind:
		case f.IsList() || f.IsMap():
			t.Errorf("%s: tree.go reads no such lists and maps", f.path)
		case f.Kind() == protoreflect.StringKind, f.Kind() == protoreflect.BoolKind, f.Kind() == protoreflect.Uint32Kind:
		case f.Message() != nil: // A duration.
		default:
			t.Errorf("%s: tree.go does not read %s", f.path, f.Kind())
		}
	}
}

func TestTheDefaultsAreThoseOfTheComments(t *testing.T) {
	whole, err := config.Parse("gateway.yaml", []byte(sample), noVariables)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fieldsOf(t) {
		t.Run(f.path, func(t *testing.T) {
			if strings.Contains(f.comment, "Without it, ") {
				return // It depends on others; TestWhatDependsOnOtherFields.
			}
			value := valueAt(t, whole, f.path)
			var got string
			switch v := value.Interface().(type) {
			case protoreflect.Message:
				d, ok := v.Interface().(*durationpb.Duration)
				want, err := time.ParseDuration(f.fallback)
				if !ok || err != nil || !v.IsValid() || d.AsDuration() != want {
					t.Errorf("is %v, the comment says %q: %v", d, f.fallback, err)
				}
				return
			case uint32:
				got = strconv.FormatUint(uint64(v), 10)
			case bool:
				got = strconv.FormatBool(v)
			case string:
				if f.fallback == "" && (v == "" || strings.Contains(f.comment, "Needed.")) {
					return
				}
				got = v
			}
			if got != f.fallback {
				t.Errorf("is %q, the comment says %q", got, f.fallback)
			}
		})
	}
}

func TestWhatDependsOnOtherFields(t *testing.T) {
	for text, want := range map[string]struct {
		reserved uint32
		refresh  time.Duration
	}{
		"":                           {16, 12 * time.Second},
		"    calls: {max: 1}\n":      {0, 12 * time.Second},
		"    calls: {max: 8}\n":      {2, 12 * time.Second},
		"    calls: {reserved: 0}\n": {0, 12 * time.Second},
		"    calls: {max: 8, reserved: 7}\ncache: {valid_ttl: 10s}\n":     {7, 2 * time.Second},
		"cache: {valid_ttl: 10s, refresh_before: 0s}\n":                   {16, 0},
		"cache: {valid_ttl: 10s, refresh_before: 4s, max_tokens: 1000}\n": {16, 4 * time.Second},
	} {
		file := `
listeners:
  ext_authz: {address: "127.0.0.1:0"}
verifiers:
  - name: crm
    verifytoken: {url: "https://api.example.com/verify"}
` + text
		got, err := config.Parse("gateway.yaml", []byte(file), noVariables)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if reserved := got.GetVerifiers()[0].GetCalls().GetReserved(); reserved != want.reserved {
			t.Errorf("%s: calls.reserved is %d, want %d", text, reserved, want.reserved)
		}
		if refresh := got.GetCache().GetRefreshBefore().AsDuration(); refresh != want.refresh {
			t.Errorf("%s: cache.refresh_before is %v, want %v", text, refresh, want.refresh)
		}
	}
}

// indexed takes a name such as verifiers[1] apart; without an index it is -1.
func indexed(name string) (string, int) {
	name, index, found := strings.Cut(name, "[")
	if !found {
		return name, -1
	}
	entry, _ := strconv.Atoi(strings.TrimSuffix(index, "]"))
	return name, entry
}

// valueAt follows a path such as verifiers[0].timeout.
func valueAt(t *testing.T, whole *configv1.Config, path string) protoreflect.Value {
	t.Helper()
	at := protoreflect.ValueOfMessage(whole.ProtoReflect())
	for name := range strings.SplitSeq(path, ".") {
		name, entry := indexed(name)
		message := at.Message()
		at = message.Get(message.Descriptor().Fields().ByName(protoreflect.Name(name)))
		if entry < 0 {
			continue
		}
		if at.List().Len() == 0 { // an entry with nothing in it
			at = at.List().NewElement()
			continue
		}
		at = at.List().Get(entry)
	}
	return at
}

func TestTheRangesAreThoseOfTheComments(t *testing.T) {
	for _, f := range fieldsOf(t) {
		if f.Kind() != protoreflect.Uint32Kind && f.Message() == nil {
			continue
		}
		t.Run(f.path, func(t *testing.T) {
			if f.lowest == "" {
				t.Fatalf("the comment names no range: %s", f.comment)
			}
			below, above := f.around(t)
			values := map[string]bool{below: false, f.lowest: true, f.highest: true, above: false}
			if _, known := values["0"]; !known && f.lowest != "0s" {
				values["0"] = false
			}
			for value, allowed := range values {
				problem, refused := problemAt(t, f.path, value)
				if refused == allowed {
					t.Errorf("%s: refused is %v, the comment says %s to %s: %v", value, refused, f.lowest, f.highest, problem)
				}
				if value == "-1" {
					continue // No number at all for such a field; the schema's rule is not reached.
				}
				if refused && (!strings.Contains(problem.Text, f.lowest) || !strings.Contains(problem.Text, f.highest)) {
					t.Errorf("the error does not name %s and %s: %v", f.lowest, f.highest, problem)
				}
			}
		})
	}
}

// around gives the values that are just out of the range.
func (f field) around(t *testing.T) (below, above string) {
	t.Helper()
	if f.Message() != nil {
		low, lowErr := time.ParseDuration(f.lowest)
		high, highErr := time.ParseDuration(f.highest)
		if err := errors.Join(lowErr, highErr); err != nil {
			t.Fatal(err)
		}
		return (low - 1).String(), (high + 1).String()
	}
	low, lowErr := strconv.ParseInt(f.lowest, 10, 64)
	high, highErr := strconv.ParseInt(f.highest, 10, 64)
	if err := errors.Join(lowErr, highErr); err != nil {
		t.Fatal(err)
	}
	return strconv.FormatInt(low-1, 10), strconv.FormatInt(high+1, 10)
}

// problemAt puts a value into the sample and gives what is then wrong with that field.
func problemAt(t *testing.T, path, value string) (config.Problem, bool) {
	t.Helper()
	var file map[string]any
	if err := yaml.Unmarshal([]byte(sample), &file); err != nil {
		t.Fatal(err)
	}
	// The sizes that must have room for a token leave it, so that each range is seen by itself.
	token := 64
	if strings.HasPrefix(path, "credential.") {
		token = 65536
	}
	file["credential"] = map[string]any{"max_token_bytes": token}
	// The same for a time that must not be longer than another one.
	file["cache"] = map[string]any{"valid_ttl": "300s"}
	// The same for numbers that must be less than another one.
	if verifier, ok := file["verifiers"].([]any)[0].(map[string]any); ok {
		verifier["calls"] = map[string]any{"max": 10000}
		verifier["breaker"] = map[string]any{"failures": 1}
	}
	// The same for times that must not be longer than others.
	long := map[string]any{"pause": "1s", "refresh_every": "1s", "max_age": "168h"}
	switch {
	case strings.HasSuffix(path, ".refresh_every"):
		long["max_age"] = "168h"
	case strings.HasSuffix(path, ".pause"):
		long["refresh_every"] = "24h"
	}
	for i, kind := range map[int]string{1: "introspection", 2: "jwt"} {
		at := file["verifiers"].([]any)[i].(map[string]any)[kind].(map[string]any)
		if kind == "introspection" {
			at = at["signed"].(map[string]any)
		}
		maps.Copy(at["keys"].(map[string]any), long)
	}
	at := file
	names := strings.Split(path, ".")
	for _, name := range names[:len(names)-1] {
		name, entry := indexed(name)
		if entry >= 0 {
			at, _ = at[name].([]any)[entry].(map[string]any)
			continue
		}
		below, there := at[name].(map[string]any)
		if !there {
			below = map[string]any{}
			at[name] = below
		}
		at = below
	}
	at[names[len(names)-1]] = &yaml.Node{Kind: yaml.ScalarNode, Value: value}
	text, err := yaml.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	_, err = config.Parse("gateway.yaml", text, noVariables)
	if err == nil {
		return config.Problem{}, false
	}
	problems := checkProblems(t, "gateway.yaml", err)
	i := slices.IndexFunc(problems, func(p config.Problem) bool { return p.Field == path })
	if i < 0 {
		return config.Problem{}, false
	}
	return problems[i], true
}

func TestTheErrorsNameEveryWordThatIsKnown(t *testing.T) {
	words := map[string][]string{
		"verifiers[0].verifytoken.encoding":                {"multipart", "form"},
		"verifiers[0].tokens":                              {"any", "opaque", "jwt"},
		"verifiers[1].introspection.token_type_hint":       {"access_token", "none"},
		"verifiers[1].introspection.client.authentication": {"client_secret_basic", "client_secret_post", "private_key_jwt", "none"},
		"default_policy.forward_token":                     {"strip", "keep"},
		"default_policy.refusal.body":                      {"crm-now", "problem", "template"},
		"listeners.ext_authz.tls.min_version":              {"1.2", "1.3"},
		"log.level":                                        {"debug", "info", "warn", "error"},
		"log.format":                                       {"auto", "json", "text"},
		"policies[0].forward_token":                        {"strip", "keep"},
		"policies[0].preflight":                            {"allow", "refuse"},
		"listeners.auth_request.trust.original":            {"none", "x-original", "x-forwarded", "as-asked"},
		"listeners.auth_request.trust.policy":              {"none", "path", "header"},
		"listeners.auth_request.trust.client":              {"none", "x-real-ip", "x-forwarded-for"},
		"client_addresses":                                 {"whole", "networks", "none"},
	}
	for _, path := range slices.Sorted(maps.Keys(words)) {
		problem, refused := problemAt(t, path, "other")
		if !refused {
			t.Errorf("%s: accepted an unknown word", path)
		}
		for _, word := range words[path] {
			if problem, refused := problemAt(t, path, word); refused {
				t.Errorf("%s: refused %s: %v", path, word, problem)
			}
			if !strings.Contains(problem.Text, word) {
				t.Errorf("%s: the error does not name %s: %v", path, word, problem)
			}
		}
	}
}

func TestEveryRuleSaysWhatToWriteInstead(t *testing.T) {
	rules := regexp.MustCompile(`(?:message: "|\? '|: ')((?:is|has|cannot|does|answers) .*)`).FindAllStringSubmatch(schemaFile(t), -1)
	if len(rules) < 20 {
		t.Fatalf("found %d rules", len(rules))
	}
	for _, rule := range rules {
		if !regexp.MustCompile(`; (write|add|name|keep|give) `).MatchString(rule[1]) {
			t.Errorf("says only what is wrong: %s", rule[1])
		}
	}
}
