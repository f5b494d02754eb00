package config_test

import (
	"bytes"
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/bearergate/bearergate/config"
	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
)

var update = flag.Bool("update", false, "write the messages of the refused files again; read the difference before you keep it")

// secret is what the variables hold that no error may show.
const secret = "s3cr3t"

// Each file in testdata/refused has one mistake, or several where its name says so, and beside it the text that the
// operator sees.
func TestWrongFilesAreRefusedWithLineFieldAndRemedy(t *testing.T) {
	t.Chdir("testdata/refused")
	for name, value := range map[string]string{
		"EMPTY":  "",
		"SECRET": secret,
		"HOUR":   "1h",
		"LATIN1": "\xfc",
		"YAML":   "{host: 127.0.0.1, port: 9191}",
	} {
		t.Setenv(name, value)
	}
	files, err := filepath.Glob("*.yaml")
	if err != nil || len(files) < 30 {
		t.Fatalf("found %d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(file, ".yaml"), func(t *testing.T) {
			got, err := config.Load(file)
			if err == nil {
				t.Fatalf("accepted as %v", got)
			}
			if got != nil {
				t.Errorf("an error, and half a configuration too: %v", got)
			}
			checkProblems(t, file, err)

			golden := strings.TrimSuffix(file, ".yaml") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(err.Error()+"\n"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, readErr := os.ReadFile(golden)
			if readErr != nil {
				t.Fatal(readErr)
			}
			if diff := cmp.Diff(string(want), err.Error()+"\n"); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// checkProblems sees that an error is what every error of Parse is.
func checkProblems(t *testing.T, file string, err error) []config.Problem {
	t.Helper()
	invalid, ok := errors.AsType[*config.Error](err)
	if !ok || len(invalid.Problems) == 0 {
		t.Fatalf("%T without problems: %v", err, err)
	}
	if strings.Contains(err.Error(), secret) {
		t.Errorf("shows what a variable holds: %v", err)
	}
	for _, problem := range invalid.Problems {
		if problem.File != file || problem.Line < 1 || problem.Column < 1 || problem.Text == "" {
			t.Errorf("not whole: %#v", problem)
		}
		if strings.ContainsAny(problem.String(), "\r\n") {
			t.Errorf("not one line: %q", problem)
		}
		if strings.Contains(problem.Text, "as config.proto describes") {
			t.Errorf("protoyaml refused what the schema check let pass: %v", problem)
		}
	}
	return invalid.Problems
}

// noVariables is the environment of a test that needs none.
func noVariables(string) (string, bool) { return "", false }

const (
	listening = "listeners: {ext_authz: {address: \"127.0.0.1:0\"}}\n"
	verifying = "verifiers: [{name: crm, verifytoken: {url: \"https://api.example.com/verify\"}}]\n"
)

func parse(t *testing.T, text string) *configv1.Config {
	t.Helper()
	got, err := config.Parse("gateway.yaml", []byte(text), noVariables)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestTheSmallestFileIsAWholeConfiguration(t *testing.T) {
	got, err := config.Load("testdata/accepted/smallest.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want := &configv1.Config{
		Listeners: &configv1.Listeners{
			ExtAuthz:    &configv1.ExtAuthz{Address: "0.0.0.0:9191", MaxConcurrentStreams: 1000, MaxMessageBytes: 1048576},
			AuthRequest: &configv1.AuthRequest{Address: "0.0.0.0:9192", MaxHeaderBytes: 65536, Trust: &configv1.Trust{Original: "none", Policy: "none", Client: "none"}},
			Admin:       &configv1.Admin{Address: "127.0.0.1:9190"},
		},
		Verifiers: []*configv1.Verifier{{
			Name: "crm",
			Kind: &configv1.Verifier_Verifytoken{Verifytoken: &configv1.Verifytoken{
				Url:      "https://api.i1.crm-now.de/v1/getOauthToken.php",
				Encoding: "multipart",
			}},
			Tokens:  "any",
			Timeout: durationpb.New(3 * time.Second),
			Calls:   &configv1.Calls{Max: 64, Reserved: 16, MaxWaiting: 1000, MaxWait: durationpb.New(time.Second)},
			Breaker: &configv1.Breaker{Failures: 10, OfLast: 20, OpenFor: durationpb.New(time.Second)},
		}},
		Cache: &configv1.Cache{
			MaxTokens:     100000,
			ValidTtl:      durationpb.New(time.Minute),
			InvalidTtl:    durationpb.New(10 * time.Second),
			RefreshBefore: durationpb.New(12 * time.Second),
			StaleIfError:  durationpb.New(0),
		},
		Credential:      &configv1.Credential{MaxTokenBytes: 8192},
		DefaultPolicy:   &configv1.Policy{Realm: "api", ForwardToken: "strip", EdgeCache: durationpb.New(0), Preflight: "refuse"},
		Log:             &configv1.Log{Level: "info", Format: "auto"},
		ShutdownTimeout: durationpb.New(10 * time.Second),
		DrainDelay:      durationpb.New(0),
		ClientAddresses: "whole",
		Health:          &configv1.Health{},
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// everyField is what testdata/accepted/every-field.yaml says.
func everyField() *configv1.Config {
	return &configv1.Config{
		Listeners: &configv1.Listeners{
			ExtAuthz: &configv1.ExtAuthz{
				Address: "unix:/run/bearergate/ext_authz.sock", MaxConcurrentStreams: 250, MaxMessageBytes: 131072,
				Socket: &configv1.Socket{Mode: "0600", User: "bearergate", Group: "envoy"},
				Tls: &configv1.Tls{
					CertFile: "testdata/tls/gate.pem", KeyFile: "testdata/tls/gate.key", MinVersion: "1.3", ClientCaFile: "testdata/tls/ca.pem",
					ClientNames: []string{"edge.internal", "spiffe://example.com/edge"},
				},
				Policies: []string{"partners"}, DefaultPolicy: "partners",
			},
			AuthRequest: &configv1.AuthRequest{
				Address: "[::1]:0", MaxHeaderBytes: 131072,
				Tls: &configv1.Tls{CertFile: "testdata/tls/gate.pem", KeyFile: "testdata/tls/gate.key", MinVersion: "1.2", ClientCaFile: "testdata/tls/ca.pem"},
				Trust: &configv1.Trust{
					Original: "x-original", Policy: "path", Client: "x-real-ip", Secret: &configv1.Secret{File: "testdata/secret.txt"}, Peers: []string{"127.0.0.1", "10.0.0.0/8"},
					ClientNames: []string{"edge.internal"},
				},
				Policies: []string{"public", "partners"}, DefaultPolicy: "partners",
			},
			Admin: &configv1.Admin{
				Address: "localhost:9190",
				Tls:     &configv1.Tls{CertFile: "testdata/tls/gate.pem", KeyFile: "testdata/tls/gate.key", MinVersion: "1.2"},
				Api:     &configv1.AdminApi{Credential: &configv1.Secret{File: "testdata/secret.txt"}, Profiles: true},
			},
			More: []*configv1.NamedListener{
				{Name: "partners", ExtAuthz: &configv1.ExtAuthz{Address: "127.0.0.1:9193", MaxConcurrentStreams: 1000, MaxMessageBytes: 1 << 20}},
				{Name: "nginx-2", AuthRequest: &configv1.AuthRequest{Address: "systemd:nginx", MaxHeaderBytes: 64 << 10, Trust: &configv1.Trust{Original: "x-forwarded", Policy: "header", Client: "none"}}},
				{Name: "scraping", Admin: &configv1.Admin{Address: "unix:/run/bearergate/admin.sock", Socket: &configv1.Socket{Mode: "0660"}}},
			},
		},
		Verifiers: []*configv1.Verifier{{
			Name: "crm-2_test",
			Kind: &configv1.Verifier_Verifytoken{Verifytoken: &configv1.Verifytoken{
				Url:            "http://crm.internal:8080/v1/getOauthToken.php?tenant=7",
				AllowPlaintext: true,
				Encoding:       "form",
			}},
			Timeout: durationpb.New(1500 * time.Millisecond),
			Calls:   &configv1.Calls{Max: 8, Reserved: 3, MaxWaiting: 100, MaxWait: durationpb.New(250 * time.Millisecond)},
			Breaker: &configv1.Breaker{Failures: 3, OfLast: 7, OpenFor: durationpb.New(30 * time.Second)},
			Tokens:  "jwt",
			Issuers: []string{"https://crm.example.com", "https://crm2.example.com"},
		}, {
			Name: "sso",
			Kind: &configv1.Verifier_Introspection{Introspection: &configv1.Introspection{
				Url: "http://sso.internal/introspect", AllowPlaintext: true,
				Client:        &configv1.Client{Authentication: "client_secret_post", Id: "gateway", Secret: &configv1.Secret{File: "testdata/secret.txt"}},
				TokenTypeHint: "none", Issuer: "https://sso.example.com",
				Signed: &configv1.SignedAnswers{Issuer: "https://sso.example.com", Audience: "the-gateway", Algorithms: []string{"RS256", "EdDSA"}, Keys: &configv1.Keys{
					Url: "http://sso.internal/keys", AllowPlaintext: true,
					RefreshEvery: durationpb.New(time.Minute), MaxAge: durationpb.New(2 * time.Hour), Pause: durationpb.New(10 * time.Second),
				}},
			}},
			Timeout: durationpb.New(3 * time.Second), Tokens: "any", Behind: "partner",
			Calls:   &configv1.Calls{Max: 64, Reserved: 16, MaxWaiting: 1000, MaxWait: durationpb.New(time.Second)},
			Breaker: &configv1.Breaker{Failures: 10, OfLast: 20, OpenFor: durationpb.New(time.Second)},
		}, {
			Name: "keyed",
			Kind: &configv1.Verifier_Introspection{Introspection: &configv1.Introspection{
				Url: "https://keyed.example.com/introspect", CaFile: "testdata/tls/ca.pem", TokenTypeHint: "access_token",
				Client: &configv1.Client{
					Authentication: "private_key_jwt", Id: "gateway", PrivateKey: &configv1.Secret{File: "testdata/client.key"},
					KeyId: "key-1", Audience: "https://keyed.example.com",
				},
			}},
			Timeout: durationpb.New(3 * time.Second), Tokens: "opaque",
			Calls:   &configv1.Calls{Max: 64, Reserved: 16, MaxWaiting: 1000, MaxWait: durationpb.New(time.Second)},
			Breaker: &configv1.Breaker{Failures: 10, OfLast: 20, OpenFor: durationpb.New(time.Second)},
		}, {
			Name: "partner",
			Kind: &configv1.Verifier_Jwt{Jwt: &configv1.Jwt{
				Issuer: "https://partner.example.com", Audiences: []string{"orders", "billing"}, Algorithms: []string{"ES256"},
				Keys: &configv1.Keys{
					File: "testdata/keys.json", RefreshEvery: durationpb.New(5 * time.Minute), MaxAge: durationpb.New(time.Hour), Pause: durationpb.New(5 * time.Second),
				},
				AccessTokensOnly: true, Leeway: durationpb.New(30 * time.Second),
			}},
			Timeout: durationpb.New(3 * time.Second), Tokens: "jwt",
			Calls: &configv1.Calls{Max: 64, Reserved: 16, MaxWaiting: 1000, MaxWait: durationpb.New(time.Second)},
		}},
		Cache: &configv1.Cache{
			MaxTokens:     5000,
			ValidTtl:      durationpb.New(150 * time.Second),
			InvalidTtl:    durationpb.New(500 * time.Millisecond),
			RefreshBefore: durationpb.New(20 * time.Second),
			StaleIfError:  durationpb.New(100 * time.Second),
		},
		Credential: &configv1.Credential{MaxTokenBytes: 4096},
		DefaultPolicy: &configv1.Policy{
			Realm: "crm-now API (test)", ForwardToken: "keep", EdgeCache: durationpb.New(15 * time.Second),
			Verifiers: []string{"crm-2_test", "sso", "keyed"},
			Identity:  []*configv1.IdentityHeader{{Name: "X-Partner", Constant: "crm-now"}, {Name: "X-Bearergate-Fingerprint", Fingerprint: true}},
			Refusal: &configv1.Refusal{
				Body: "template", ContentType: "text/html; charset=utf-8", Template: "<p>{{.title}}</p>",
				ResourceMetadata: "https://api.example.com/.well-known/oauth-protected-resource",
			},
			Preflight: "allow", Shadow: &configv1.Shadow{Until: "2027-01-31"},
		},
		Policies: []*configv1.Policy{
			{
				Name: "partners", Verifiers: []string{"sso"}, Realm: "api", ForwardToken: "strip", EdgeCache: durationpb.New(0), Preflight: "refuse",
				Require:  &configv1.Require{Expression: `request.method == "GET"`},
				Identity: []*configv1.IdentityHeader{{Name: "X-Roles", Claim: []string{"realm_access", "roles"}}},
				Metadata: &configv1.Metadata{Fingerprint: true, Claims: []*configv1.MetadataClaim{{Name: "sub", Claim: []string{"sub"}}}},
				Refusal:  &configv1.Refusal{Body: "problem", ProblemTypes: "https://api.example.com/problems/"},
			},
			{Name: "public", Public: true, Realm: "api", ForwardToken: "strip", EdgeCache: durationpb.New(0), Preflight: "refuse"},
		},
		Routes: []*configv1.Route{
			{Hosts: []string{"api.example.com", "*.example.com"}, Path: &configv1.PathMatch{Prefix: "/v1"}, Methods: []string{"GET", "HEAD"}, Policy: "partners"},
			{Path: &configv1.PathMatch{Exact: "/health"}, Policy: "public"},
			{Path: &configv1.PathMatch{Template: "/assets/**"}, Policy: "public"},
		},
		Log:             &configv1.Log{Level: "debug", Format: "json", AllowedOneIn: 100, RequestId: true},
		ShutdownTimeout: durationpb.New(time.Minute),
		DrainDelay:      durationpb.New(5 * time.Second),
		ClientAddresses: "networks",
		Health:          &configv1.Health{Verifiers: []string{"sso"}},
		Fingerprint:     &configv1.Fingerprint{Key: &configv1.Secret{File: "testdata/fingerprint.key"}},
	}
}

func TestWhatIsWrittenStandsAgainstTheDefaults(t *testing.T) {
	got, err := config.Load("testdata/accepted/every-field.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(everyField(), got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestEveryValueMayComeFromTheEnvironment(t *testing.T) {
	setEveryVariable(t)
	got, err := config.Load("testdata/accepted/every-field-from-the-environment.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(everyField(), got, protocmp.Transform()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// setEveryVariable sets what every-field-from-the-environment.yaml names.
func setEveryVariable(t *testing.T) {
	t.Helper()
	for name, value := range map[string]string{
		"RUN_DIR": "/run/bearergate", "SOCKET": "ext_authz", "STREAMS": "250", "BYTES": "131072", "HOST": "::1", "PORT": "0",
		"ADMIN_PORT": "9190", "NAME": "crm-2_test", "URL": "http://crm.internal:8080/v1/getOauthToken.php?tenant=7", "YES": "true",
		"ENCODING": "form", "EMPTY": "", "TIMEOUT": "1.5s", "TOKENS": "5000", "MINUTES": "2", "SECONDS": "30", "UNIT": "ms",
		"TOKEN_BYTES": "4096", "TLS": "../tls", "TLS_VERSION": "1.3", "EDGE": "edge.internal", "MODE": "0600", "USER": "bearergate", "GROUP": "envoy", "MORE": "partners", "REALM": "crm-now API (test)", "FORWARD": "keep", "HEADER": "Partner", "CONSTANT": "crm-now", "DOMAIN": "example.com", "METHOD": "GET", "LEVEL": "debug", "FORMAT": "json", "SHUTDOWN": "1m", "ONE_IN": "100", "DELAY": "5s",
		"ISSUER": "crm.example.com", "SECRET_FILE": "secret.txt",
	} {
		t.Setenv(name, value)
	}
}

func TestAVariableIsDataAndNeverRead(t *testing.T) {
	for name, test := range map[string]struct{ written, variable, want string }{
		"braces and colons stay text":              {"${REALM}", "{a: b}", "{a: b}"},
		"a comment sign stays text":                {"a ${REALM}", "#1 # 2", "a #1 # 2"},
		"an alias stays text":                      {"${REALM}", "*realm", "*realm"},
		"null stays text":                          {"${REALM}", "null", "null"},
		"a number stays text":                      {"${REALM}", "0x10", "0x10"},
		"a variable in a variable is not put in":   {"${REALM}", "${REALM}", "${REALM}"},
		"a name in a variable is not an escape":    {"$${REALM}", "x", "${REALM}"},
		"two dollars without a brace stay two":     {"$$ $REALM $", "x", "$$ $REALM $"},
		"a dollar before an escape stays":          {"$$${REALM}", "x", "$${REALM}"},
		"variables and escapes stand side by side": {"${REALM}$${REALM}${REALM}", "x", "x${REALM}x"},
		"a lower case name is a name":              {"${realm_2}", "x", "x"},
	} {
		t.Run(name, func(t *testing.T) {
			text := listening + verifying + "default_policy:\n  realm: '" + test.written + "'\n"
			got, err := config.Parse("gateway.yaml", []byte(text), func(name string) (string, bool) {
				return test.variable, strings.EqualFold(name, "REALM") || name == "realm_2"
			})
			if err != nil {
				t.Fatal(err)
			}
			if realm := got.GetDefaultPolicy().GetRealm(); realm != test.want {
				t.Errorf("realm %q, want %q", realm, test.want)
			}
		})
	}
}

func TestGoodFilesAreAccepted(t *testing.T) {
	url := func(url string) string {
		return listening + "verifiers: [{name: crm, verifytoken: {url: \"" + url + "\"}}]\n"
	}
	addresses := func(extAuthz, authRequest, admin string) string {
		return "listeners: {ext_authz: {address: \"" + extAuthz + "\"}, auth_request: {address: \"" + authRequest + "\"}, admin: {address: \"" + admin + "\"}}\n" + verifying
	}
	for name, text := range map[string]string{
		"a listener for Envoy alone":             listening + verifying,
		"a listener for HTTP proxies alone":      "listeners: {auth_request: {address: \":9192\"}}\n" + verifying,
		"JSON":                                   `{"listeners": {"ext_authz": {"address": "127.0.0.1:0"}}, "verifiers": [{"name": "crm", "verifytoken": {"url": "https://api.example.com/"}}]}`,
		"a byte order mark":                      "\ufeff" + listening + verifying,
		"lines that end in CR LF":                strings.ReplaceAll(listening+verifying, "\n", "\r\n"),
		"marks around the one document":          "---\n" + listening + verifying + "...\n",
		"port 0 three times":                     addresses("0.0.0.0:0", "0.0.0.0:0", "127.0.0.1:0"),
		"one port on three addresses":            addresses("127.0.0.1:9191", "127.0.0.2:9191", "[::1]:9191"),
		"one port on both families apart":        addresses("0.0.0.0:9191", "[::1]:9191", "127.0.0.1:9190"),
		"one port on two names":                  addresses("a.internal:9191", "b.internal:9191", "127.0.0.1:9190"),
		"a socket and a port":                    addresses("unix:/run/a.sock", "unix:/run/b.sock", "127.0.0.1:9190"),
		"a socket path of 107 bytes":             addresses("unix:/"+strings.Repeat("x", 106), "127.0.0.1:0", "127.0.0.1:0"),
		"an IPv6 address with a zone":            addresses("[fe80::1%eth0]:9191", "127.0.0.1:0", "127.0.0.1:0"),
		"an admin listener for all, without API": "listeners: {ext_authz: {address: \"127.0.0.1:0\"}, admin: {address: \":9190\", api: {off: true}}}\n" + verifying,
		"an admin listener with a credential":    "listeners: {ext_authz: {address: \"127.0.0.1:0\"}, admin: {address: \":9190\", api: {credential: {file: testdata/refused/files/credential.txt}}}}\n" + verifying,
		"plain fingerprints":                     listening + verifying + "fingerprint: {plain: true}",
		"a key of 32 characters":                 listening + verifying + "fingerprint: {key: {file: testdata/refused/files/credential.txt}}",
		"http to localhost":                      url("http://localhost:8080/verify"),
		"http to LOCALHOST":                      url("HTTP://LOCALHOST/verify"),
		"http to 127.0.0.1":                      url("http://127.0.0.1/verify"),
		"http to all of 127.0.0.0/8":             url("http://127.255.0.9:80/verify"),
		"http to ::1":                            url("http://[::1]:8080/verify"),
		"https to an address":                    url("https://192.0.2.1/verify"),
		"a query that is no token":               url("https://api.example.com/verify?tenant=a%20b&x"),
		"a URL without a path":                   url("https://api.example.com"),
		"http elsewhere when it is allowed":      listening + "verifiers: [{name: crm, verifytoken: {url: \"http://api.example.com/\", allow_plaintext: true}}]",
		"allow_plaintext that says false":        listening + "verifiers: [{name: crm, verifytoken: {url: \"https://api.example.com/\", allow_plaintext: false}}]",
		"a name of 63 letters":                   listening + "verifiers: [{name: " + strings.Repeat("a", 63) + ", verifytoken: {url: \"https://api.example.com/\"}}]",
		"a name of digits":                       listening + "verifiers: [{name: 007, verifytoken: {url: \"https://api.example.com/\"}}]",
		"a realm with every character it may":    listening + verifying + "default_policy: {realm: ' !#$%&''()*+,-./09:;<=>?@AZ[]^_`az{|}~'}",
		"a duration finer than a nanosecond":     listening + verifying + "cache: {valid_ttl: 1.0000000001s}",
		"a section without fields, in braces":    listening + verifying + "cache: {}\nlog: {}",
		"a file of a megabyte, mostly a comment": listening + verifying + "#" + strings.Repeat(" ", 1<<20-len(listening+verifying)-1),
	} {
		t.Run(name, func(t *testing.T) { parse(t, text) })
	}
}

func TestAFileOverOneMebibyteIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.yaml")
	if err := os.WriteFile(path, []byte(listening+verifying+"#"+strings.Repeat(" ", 1<<20)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := config.Load(path)
	if err == nil || !strings.HasPrefix(err.Error(), path+":1:1: has more than 1 MiB; ") {
		t.Errorf("got %v", err)
	}
}

func TestAFileThatCannotBeReadIsAProblem(t *testing.T) {
	folder := t.TempDir()
	missing := filepath.Join(folder, "gateway.yaml")
	for name, test := range map[string]struct {
		path, text string
		cause      error
	}{
		"a missing file": {missing, missing + ": there is no such file; give the path of the configuration file", fs.ErrNotExist},
		"a folder":       {folder, folder + ": cannot be read; see that it is a file and that the gateway's user may read it", nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := config.Load(test.path)
			if err == nil || err.Error() != test.text {
				t.Errorf("got  %v\nwant %v", err, test.text)
			}
			if _, ok := errors.AsType[*config.Error](err); !ok {
				t.Errorf("%T is no *config.Error", err)
			}
			if test.cause != nil && !errors.Is(err, test.cause) {
				t.Errorf("%v does not tell that it is %v", err, test.cause)
			}
		})
	}
}

func TestACertificateFileIsFoundBesideTheConfiguration(t *testing.T) {
	certificate, err := os.ReadFile("testdata/refused/files/ca.pem")
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	absolute := filepath.Join(folder, "elsewhere.pem")
	for _, path := range []string{absolute, filepath.Join(folder, "ca.pem")} {
		if err := os.WriteFile(path, append([]byte("a line before it\n"), certificate...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct{ written, want string }{
		"a relative path starts at the file": {"ca.pem", filepath.Join(folder, "ca.pem")},
		"an absolute path stays":             {absolute, absolute},
		"no path stays none":                 {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			text := listening + "verifiers: [{name: crm, verifytoken: {url: \"https://api.example.com/\", ca_file: \"" + test.written + "\"}}]"
			got, err := config.Parse(filepath.Join(folder, "gateway.yaml"), []byte(text), noVariables)
			if err != nil {
				t.Fatal(err)
			}
			if path := got.GetVerifiers()[0].GetVerifytoken().GetCaFile(); path != test.want {
				t.Errorf("ca_file %q, want %q", path, test.want)
			}
		})
	}
}

func TestDefaultsFillWhatIsEmptyAndNothingElse(t *testing.T) {
	given := everyField()
	got := config.WithDefaults(given)
	if diff := cmp.Diff(everyField(), got, protocmp.Transform()); diff != "" {
		t.Errorf("a full configuration changed (-want +got)\n%s", diff)
	}
	got.Log.Level = "error"
	if given.GetLog().GetLevel() != "debug" {
		t.Error("the configuration that was given has changed")
	}

	if got := config.WithDefaults(nil); got.GetListeners().GetExtAuthz() != nil || len(got.GetVerifiers()) != 0 {
		t.Errorf("listeners or verifiers appeared: %v", got)
	}

	// What stands in a file and what is made in code come to the same.
	inCode := &configv1.Config{
		Listeners: &configv1.Listeners{ExtAuthz: &configv1.ExtAuthz{Address: "127.0.0.1:0"}},
		Verifiers: []*configv1.Verifier{{
			Name: "crm",
			Kind: &configv1.Verifier_Verifytoken{Verifytoken: &configv1.Verifytoken{Url: "https://api.example.com/verify"}},
		}},
	}
	if diff := cmp.Diff(parse(t, listening+verifying), config.WithDefaults(inCode), protocmp.Transform()); diff != "" {
		t.Errorf("(-file +code)\n%s", diff)
	}
}

func TestProblemsComeInTheOrderOfTheFile(t *testing.T) {
	_, err := config.Parse("gateway.yaml", []byte("cache: {max_tokens: 0, valid_ttl: x}\nnonsense: 1\nlog: {level: x}\n"+listening+verifying), noVariables)
	var lines []int
	for _, problem := range checkProblems(t, "gateway.yaml", err) {
		lines = append(lines, problem.Line)
	}
	if diff := cmp.Diff([]int{1, 1, 2, 3}, lines); diff != "" {
		t.Errorf("lines (-want +got)\n%s\n%v", diff, err)
	}
}

func TestAddressesAreSplitForListening(t *testing.T) {
	for address, want := range map[string][2]string{
		"127.0.0.1:9191":             {"tcp", "127.0.0.1:9191"},
		":0":                         {"tcp", ":0"},
		"[::1]:9191":                 {"tcp", "[::1]:9191"},
		"gateway.internal:9191":      {"tcp", "gateway.internal:9191"},
		"unix:/run/ext_authz.sock":   {"unix", "/run/ext_authz.sock"},
		"unix:///run/ext_authz.sock": {"unix", "/run/ext_authz.sock"},
	} {
		network, where, err := config.ParseAddress(address)
		if got := [2]string{network, where}; got != want || err != nil {
			t.Errorf("%s: %q %v, want %q", address, got, err, want)
		}
	}
	for _, address := range []string{"", "unix:", "unix://run/a.sock", "unix:/a\x00b", "1.2.3.4", "1.2.3.4:00", "1.2.3.4:-1", "a..b:1", "-a:1", "[::1]9191", "[]:1:"} {
		if network, where, err := config.ParseAddress(address); err == nil {
			t.Errorf("%q: split into %s and %s", address, network, where)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/refused/*.yaml", "testdata/accepted/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			f.Fatalf("%d files like %s, %v", len(files), pattern, err)
		}
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("listeners: {ext_authz: {address: \"${SECRET}\"}}\rcache: {max_tokens: 0x10}\u0085log: {}"))
	file := filepath.Join(f.TempDir(), "gateway.yaml")
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := config.Parse(file, data, func(name string) (string, bool) { return secret, name != "NOT_SET" })
		if err != nil {
			if got != nil {
				t.Errorf("an error and a configuration: %v", got)
			}
			if !bytes.Contains(data, []byte(secret)) {
				checkProblems(t, file, err)
			}
			return
		}
		// What is accepted is whole, and holds what it promises.
		if !proto.Equal(got, config.WithDefaults(got)) {
			t.Errorf("defaults are missing: %v", got)
		}
		for _, ttl := range []*durationpb.Duration{got.GetCache().GetValidTtl(), got.GetCache().GetInvalidTtl()} {
			if d := ttl.AsDuration(); d <= 0 || d > 300*time.Second {
				t.Errorf("accepted a TTL of %s", d)
			}
		}
		for _, v := range got.GetVerifiers() {
			url := strings.ToLower(v.GetVerifytoken().GetUrl() + v.GetIntrospection().GetUrl())
			if v.GetJwt() == nil && !strings.HasPrefix(url, "https://") && !strings.HasPrefix(url, "http://") {
				t.Errorf("accepted the URL %q", url)
			}
			if v.GetJwt() != nil && (v.GetJwt().GetIssuer() == "" || len(v.GetJwt().GetAudiences()) == 0 || len(v.GetJwt().GetAlgorithms()) == 0) {
				t.Errorf("accepted %v", v)
			}
		}
	})
}

func TestFurtherListenersAreLikeTheFirst(t *testing.T) {
	const (
		extAuthz    = `{address: "unix:/run/a", socket: {}, tls: {cert_file: testdata/tls/gate.pem, key_file: testdata/tls/gate.key}}`
		authRequest = `{address: "unix:/run/b", socket: {}, tls: {cert_file: testdata/tls/gate.pem, key_file: testdata/tls/gate.key}}`
		admin       = `{address: "unix:/run/c", socket: {}, tls: {cert_file: testdata/tls/gate.pem, key_file: testdata/tls/gate.key}}`
	)
	first := parse(t, "listeners: {ext_authz: "+extAuthz+", auth_request: "+authRequest+", admin: "+admin+"}\n"+verifying).GetListeners()
	more := parse(t, "listeners: {more: [{name: a, ext_authz: "+extAuthz+"}, {name: b, auth_request: "+authRequest+"}, {name: c, admin: "+admin+"}]}\n"+verifying).GetListeners().GetMore()
	got := &configv1.Listeners{ExtAuthz: more[0].GetExtAuthz(), AuthRequest: more[1].GetAuthRequest(), Admin: more[2].GetAdmin()}
	if diff := cmp.Diff(first, got, protocmp.Transform()); diff != "" {
		t.Errorf("(-first +further)\n%s", diff)
	}
}
