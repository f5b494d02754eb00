package main

import (
	"archive/tar"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/bearergate/bearergate/config"
	"github.com/bearergate/bearergate/listen/listentest"
	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
)

// mayHoldASecret are the fields of a configuration in which a secret, or the way to
// one, can stand. The test below gives each of them one. A field that is new must come
// into one of the two lists.
var mayHoldASecret = []string{
	"AdminApi.credential", "Client.private_key", "Client.secret", "Fingerprint.key", "Trust.secret",
	"Secret.environment", "Secret.file", "Tls.key_file",
	"Introspection.url", "Keys.url", "Refusal.problem_types", "Refusal.resource_metadata", "Verifytoken.url",
}

var holdsNoSecret = strings.Fields(`
	Admin.address AuthRequest.address AuthRequest.default_policy AuthRequest.policies ClaimRule.contains ClaimRule.equals ClaimRule.one_of ClaimRule.path
	Client.audience Client.authentication Client.id Client.key_id Config.client_addresses ExtAuthz.address ExtAuthz.default_policy ExtAuthz.policies
	Health.verifiers IdentityHeader.claim IdentityHeader.constant IdentityHeader.name Introspection.ca_file Introspection.issuer Introspection.token_type_hint
	Jwt.algorithms Jwt.audiences Jwt.issuer Keys.ca_file Keys.file Log.format Log.level MetadataClaim.claim MetadataClaim.name NamedListener.name
	PathMatch.exact PathMatch.prefix PathMatch.template Policy.forward_token Policy.name Policy.preflight Policy.realm Policy.verifiers
	Refusal.body Refusal.content_type Refusal.template Require.audience Require.expression Route.hosts Route.methods Route.policy
	Scopes.all Scopes.any Secret.credential Shadow.until SignedAnswers.algorithms SignedAnswers.audience SignedAnswers.issuer
	Socket.group Socket.mode Socket.user Tls.cert_file Tls.client_ca_file Tls.client_names Tls.min_version Trust.client Trust.client_names Trust.original
	Trust.peers Trust.policy Verifier.behind Verifier.issuers Verifier.name Verifier.tokens Verifytoken.ca_file Verifytoken.encoding`)

// textFields are all fields of the configuration that are texts or secrets.
func textFields() []string {
	seen, all := map[protoreflect.FullName]bool{}, []string{}
	var walk func(protoreflect.MessageDescriptor)
	walk = func(d protoreflect.MessageDescriptor) {
		if seen[d.FullName()] {
			return
		}
		seen[d.FullName()] = true
		for i := range d.Fields().Len() {
			f := d.Fields().Get(i)
			isSecret := f.Message() != nil && f.Message().Name() == "Secret"
			if f.Kind() == protoreflect.StringKind || f.Kind() == protoreflect.BytesKind || isSecret {
				all = append(all, string(d.Name())+"."+string(f.Name()))
			}
			if f.Message() != nil {
				walk(f.Message())
			}
		}
	}
	walk((&configv1.Config{}).ProtoReflect().Descriptor())
	return all
}

// fieldsIn notes the fields that a configuration has.
func fieldsIn(m protoreflect.Message, into map[string]bool) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		into[string(m.Descriptor().Name())+"."+string(f.Name())] = true
		switch {
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				fieldsIn(v.List().Get(i).Message(), into)
			}
		default:
			fieldsIn(v.Message(), into)
		}
		return true
	})
}

func TestItIsKnownOfEachFieldWhetherItMayHoldASecret(t *testing.T) {
	known := slices.Concat(mayHoldASecret, holdsNoSecret)
	for _, field := range textFields() {
		if !slices.Contains(known, field) {
			t.Errorf("%s is in none of the lists", field)
		}
	}
	for _, field := range known {
		if !slices.Contains(textFields(), field) {
			t.Errorf("there is no field %s", field)
		}
	}
}

// TestNoSecretIsInASupportBundle: each field that may hold one has one, the environment
// has some, so have tokens, their claims and the requests.
func TestNoSecretIsInASupportBundle(t *testing.T) {
	canaries := map[string]string{}
	canary := func(where string) string {
		value := fmt.Sprintf("canary-%02d-%s-0123456789abcdef", len(canaries), base64.RawURLEncoding.EncodeToString([]byte(where)))
		canaries[where] = value
		return value
	}
	asked := make(chan struct{}, 100)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"active": %v, "sub": %q, "email": %q}`, strings.HasPrefix(r.FormValue("token"), "good-"), canaries["a claim"], canaries["another claim"])
	}))
	t.Cleanup(upstream.Close)
	canary("a claim")
	canary("another claim")

	folder := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	secret := func(where string) string { return fmt.Sprintf("{file: %q}", write(where, canary(where))) }
	certificate, key := listentest.NewAuthority(t).Issue(t, listentest.Leaf{}).Files(t, folder)
	clientKey, err := os.ReadFile("../../config/testdata/client.key")
	if err != nil {
		t.Fatal(err)
	}
	for where, text := range map[string][]byte{"a private key": clientKey, "the key of a certificate": readAll(t, key)} {
		canaries[where] = strings.Split(string(text), "\n")[1]
	}
	credential := write("credential", canary("the credential of the API"))
	edge := canary("the secret of an edge")
	configuration := fmt.Sprintf(`listeners:
  ext_authz: {address: "127.0.0.1:0", tls: {cert_file: %q, key_file: %q}}
  auth_request: {address: "127.0.0.1:0", trust: {secret: {environment: EDGE_SECRET}, client: x-real-ip}}
  admin: {address: "127.0.0.1:0", api: {credential: {file: %q}, profiles: true}}
verifiers:
  - {name: intro, introspection: {url: "%s/?k=%s", client: {authentication: client_secret_post, id: gate, secret: %s}}}
  - {name: keyed, introspection: {url: "%s/keyed", client: {authentication: private_key_jwt, id: gate, private_key: {file: %q}}}}
  - {name: sso, jwt: {issuer: "https://sso.example.com", audiences: [a], algorithms: [RS256], keys: {url: "https://127.0.0.1:1/keys?k=%s"}}}
  - {name: crm, verifytoken: {url: "%s/verify?k=%s"}}
default_policy:
  verifiers: [intro]
  identity: [{name: X-User, claim: [sub]}, {name: X-Token, fingerprint: true}]
  refusal: {body: problem, problem_types: "https://api.example.com/problems/?k=%s&r=", resource_metadata: "https://api.example.com/metadata?k=%s"}
policies:
  - {name: keyed, verifiers: [keyed]}
  - {name: sso, verifiers: [sso]}
  - {name: crm, verifiers: [crm]}
fingerprint: {key: %s}
log: {level: debug, allowed_one_in: 1}
`, certificate, key, credential, upstream.URL, canary("an introspection URL"), secret("the secret of a client"), upstream.URL, "CLIENT_KEY", canary("a keys URL"),
		upstream.URL, canary("a verifytoken URL"), canary("a problem type"), canary("a metadata URL"), secret("the key of fingerprints"))
	configuration = strings.Replace(configuration, "CLIENT_KEY", write("client.key", string(clientKey)), 1)
	environment := []string{
		"EDGE_SECRET=" + edge, "BEARERGATE_CLIENT_SECRET=" + canary("a variable of a command"),
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://user:" + canary("a collector's URL") + "@127.0.0.1:1",
		"OTEL_EXPORTER_OTLP_HEADERS=authorization=" + canary("a collector's header"), "OTEL_RESOURCE_ATTRIBUTES=k=" + canary("a resource attribute"),
		"HTTPS_PROXY=http://user:" + canary("a proxy") + "@127.0.0.1:1", "OTHER=" + canary("another variable"), "GOTRACEBACK=all",
	}
	g := serve(t, environment, configuration)
	t.Setenv("EDGE_SECRET", edge)
	c, err := config.Load(g.Args[len(g.Args)-1])
	if err != nil {
		t.Fatal(err)
	}
	has := map[string]bool{}
	fieldsIn(c.ProtoReflect(), has)
	for _, field := range mayHoldASecret {
		if !has[field] {
			t.Errorf("the configuration of this test has no %s, and so nothing is known of what stands in it", field)
		}
	}

	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	request := func(token string, headers ...string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.address["auth_request"]+"/auth", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Bearergate-Edge", edge)
		r.Header.Set("X-Real-Ip", "203.0.113.77")
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		got, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = got.Body.Close()
	}
	good := "good-" + canary("a good token")
	for range 100 {
		request(good)
	}
	request(canary("a bad token"))
	request("", "X-Original-Uri", "/?access_token="+canary("a token in a URL"), "X-Request-Id", canary("a request's ID"), "Cookie", canary("a cookie"))
	canaries["the address of a client"] = "203.0.113.77"
	bearergate := func(want int, stdin string, args ...string) result {
		t.Helper()
		got := call(t, invocation{args: append(args, "--admin", g.address["admin"], "--credential-file", credential), stdin: stdin, dir: folder, secrets: slices.Collect(maps.Values(canaries))})
		if got.code != want {
			t.Fatalf("%q ended with %d: %s%s", args, got.code, got.stdout, got.stderr)
		}
		return got
	}
	bearergate(exitGood, good, "deny", "--token-file", "-", "--reason", canary("a reason"), "--for", "1h")

	out := filepath.Join(folder, "bundle.tar.gz")
	got := bearergate(exitGood, "", "support-bundle", "--out", out, "--output", "json")
	var summary bundleSummary
	if err := json.Unmarshal([]byte(got.stdout), &summary); err != nil || summary.File != out || len(summary.Holds) != 10 || len(summary.Missing) != 0 {
		t.Errorf("it says %s (%v)", got.stdout, err)
	}
	if info, err := os.Stat(out); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	files := unpack(t, out)
	for where, value := range canaries {
		for _, form := range forms(value) {
			for name, text := range files {
				if strings.Contains(text, form) {
					t.Errorf("%s shows %s", name, where)
				}
			}
			if where != "a reason" { // which is for the log
				expectHidden(t, g.err.String(), form)
			}
		}
	}
	for name, want := range map[string][]string{
		"README.txt":         {"Read it before you hand it on", "goroutines.txt"},
		"status.json":        {`"state"`, `"intro"`},
		"readyz.json":        {`"status":"ready"`},
		"reload.json":        {`"configuration"`},
		"configuration.yaml": {"url: " + upstream.URL + "/?k=***", "environment: EDGE_SECRET", "api:"},
		"metrics.txt":        {"bearergate_decisions_total{", "process_open_fds"},
		"activity.json":      {`"refusedTokens"`, `"invalid_token"`, `"reasons"`},
		"denials.json":       {`"fingerprint"`},
		"process.json":       {`"version"`, `"open files"`, `"OTEL_EXPORTER_OTLP_HEADERS"`, `"GOTRACEBACK"`, `"connectrpc.com/connect/v2 `},
		"goroutines.txt":     {"goroutine ", "config.(*Gateway)"},
		"heap.txt":           {"heap profile"},
	} {
		for _, text := range want {
			if compact := strings.ReplaceAll(files[name], `": "`, `":"`); !strings.Contains(compact, text) && !strings.Contains(files[name], text) {
				t.Errorf("%s does not hold %q:\n%.2000s", name, text, files[name])
			}
		}
	}
	if there := bearergate(exitWrong, "", "support-bundle", "--out", out); !strings.Contains(there.stderr, "--out: "+out+" is there already; name another file") {
		t.Errorf("where there is one, it says %s", there.stderr)
	}
	again := filepath.Join(folder, "again.tar.gz")
	piped := call(t, invocation{args: []string{"support-bundle", "--out", again, "--admin", g.address["admin"], "--credential-file", "-"}, stdin: canaries["the credential of the API"]})
	if piped.code != exitGood || len(unpack(t, again)) != len(files) {
		t.Errorf("with the credential from standard input: %+v", piped)
	}
	if len(asked) == 0 {
		t.Error("nobody was asked about a token")
	}
}

func TestASupportBundleSaysWhatIsNotInIt(t *testing.T) {
	t.Parallel()
	e := endpoint(t)
	bundle := func(address string, want int) (string, map[string]string) {
		t.Helper()
		out := filepath.Join(t.TempDir(), "bundle.tar.gz")
		got := call(t, invocation{args: []string{"support-bundle", "--admin", address, "--out", out, "--timeout", "5s"}})
		if got.code != want {
			t.Errorf("ended with %d: %s%s", got.code, got.stdout, got.stderr)
		}
		files := unpack(t, out)
		for line := range strings.Lines(got.stdout) {
			if why, ok := strings.CutPrefix(line, "not in it: "); ok {
				name, why, _ := strings.Cut(why, ": ")
				if _, there := files[name]; there || !strings.Contains(files["README.txt"], strings.TrimSpace(why)) {
					t.Errorf("of %s it says %q, and the bundle %s", name, why, files["README.txt"])
				}
			}
		}
		return got.stdout, files
	}
	g := serve(t, nil, onLoopback(e.URL()))
	if says, files := bundle(g.address["admin"], exitGood); len(files) != 9 || !strings.Contains(says, "not in it: goroutines.txt: the listener has no api.profiles: true\n") {
		t.Errorf("without profiles: %s", says)
	}
	off := serve(t, nil, strings.Replace(onLoopback(e.URL()), `admin: {address: "127.0.0.1:0"}`, `admin: {address: "127.0.0.1:0", api: {off: true}}`, 1))
	if says, files := bundle(off.address["admin"], exitGood); len(files) != 4 || files["metrics.txt"] == "" || !strings.Contains(says, "not in it: status.json: there is no admin API at that address") {
		t.Errorf("without an API: %s", says)
	}
	credential := file(t, "credential", "0123456789abcdef")
	gone := serve(t, nil, strings.Replace(onLoopback(e.URL()), `admin: {address: "127.0.0.1:0"}`,
		fmt.Sprintf(`admin: {address: "127.0.0.1:0", api: {credential: {file: %q}, profiles: true}}`, credential), 1))
	if err := os.Remove(credential); err != nil {
		t.Fatal(err)
	}
	if says, files := bundle(gone.address["admin"], exitGood); len(files) != 4 || strings.Contains(says, "does it run") ||
		!strings.Contains(says, "not in it: status.json: the credential of the admin API cannot be read; see api.credential of this listener\n") ||
		!strings.Contains(says, "not in it: goroutines.txt: the gateway answers 503 ") {
		t.Errorf("while nobody can be let in: %s", says)
	}
	if says, files := bundle("127.0.0.1:1", exitUnknown); len(files) != 1 || !strings.Contains(says, "not in it: metrics.txt: ") {
		t.Errorf("without a gateway: %s", says)
	}
	for args, want := range map[string]string{"--timeout 0s": "give more than 0", "--admin nowhere": "is no address", "--out /dev/null/x": "not a directory"} {
		got := call(t, invocation{args: append([]string{"support-bundle"}, strings.Fields(args)...)})
		if got.code != exitWrong || !strings.Contains(got.stderr, want) {
			t.Errorf("%s: %+v", args, got)
		}
	}
}

func readAll(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// forms are the usual codings of a text.
func forms(text string) []string {
	all := []string{text, url.QueryEscape(text), hex.EncodeToString([]byte(text)), strings.ToUpper(hex.EncodeToString([]byte(text)))}
	for before := range 3 { // by where it stands among threes
		for _, coding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			coded := coding.EncodeToString([]byte(strings.Repeat("\x00", before) + text))
			all = append(all, coded[[]int{0, 2, 3}[before]:len(coded)-2])
		}
	}
	return all
}

// unpack returns the files of a bundle, without their folder; none if there is no
// bundle.
func unpack(t *testing.T, path string) map[string]string {
	t.Helper()
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	zipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	files, archive := map[string]string{}, tar.NewReader(zipped)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		folder, name, _ := strings.Cut(header.Name, "/")
		if !strings.HasPrefix(folder, "bearergate-support-") || header.Mode != 0o600 {
			t.Errorf("%s has the mode %o", header.Name, header.Mode)
		}
		files[name] = string(text)
	}
}
