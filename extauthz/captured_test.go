package extauthz

import (
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"

	"github.com/bearergate/bearergate/extauthz/captured"
	"github.com/bearergate/bearergate/gate"
)

// capturedChecks are checks of a real Envoy.
func capturedChecks(t testing.TB) []captured.Check {
	t.Helper()
	all, err := captured.All()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestWhatEnvoySendsIsReadRightly says of each captured check what is in it. Both
// readers have to find that.
func TestWhatEnvoySendsIsReadRightly(t *testing.T) {
	const path = "/v1/contacts?limit=10&fields=name,email,phone"
	one := []string{"Bearer " + captured.Token}
	long := []string{"Bearer " + captured.LongToken}
	twice := []string{one[0] + "," + one[0]}
	type reading struct {
		path   string
		values []string
	}
	want := map[string]reading{
		"recipe":                   {path, one},
		"recipe-http2":             {path, one},
		"minimal":                  {path, one},
		"typical":                  {path, one},
		"typical-http2":            {path, one},
		"header-map":               {path, one},
		"header-map-http2":         {path, one},
		"large":                    {path, long},
		"large-header-map":         {path, long},
		"body":                     {path, one},
		"body-cut-off":             {path, one},
		"body-as-bytes":            {path, one},
		"body-that-is-not-utf8":    {path, one},
		"context":                  {path, one},
		"tls":                      {path, one},
		"doubled":                  {path, twice},
		"doubled-http2":            {path, twice},
		"doubled-header-map":       {path, twice},
		"no-authorization":         {path, nil},
		"no-authorization-minimal": {path, nil},
		"empty-authorization":      {path, []string{""}},
		"basic":                    {path, []string{"Basic cGFydG5lcjpzZWNyZXQ="}},
		"odd-bytes":                {path, []string{one[0] + "!!"}}, // Envoy's sign for bytes over 0x7f
		"odd-bytes-header-map":     {path, []string{one[0] + "\xff\x80"}},
		"odd-path":                 {"/public/%2e%2E/../x//%c3%28?a=%ff&access_token=in-the-url", one},
		"spaces":                   {path, []string{"bearer   " + captured.Token}},
	}
	root := checkShape(gate.Needs{})
	for _, c := range capturedChecks(t) {
		expected, ok := want[c.Name]
		if !ok {
			t.Errorf("%s: nothing is said about it here", c.Name)
			continue
		}
		delete(want, c.Name)
		check := func(who, path string, values []string) {
			if path != expected.path || strings.Join(values, "\n") != strings.Join(expected.values, "\n") || len(values) != len(expected.values) {
				t.Errorf("%s: the %s says %q and %q, want %q and %q", c.Name, who, path, values, expected.path, expected.values)
			}
		}
		q := &question{}
		q.reset()
		q.buf = append(q.buf, c.Message...)
		q.read(root)
		if q.err != nil {
			t.Errorf("%s: the walk says %v", c.Name, q.err)
		}
		check("walk", q.path, q.values)
		var message authv3.CheckRequest
		if err := proto.Unmarshal(c.Message, &message); err != nil {
			t.Errorf("%s: %v", c.Name, err)
		}
		http := message.GetAttributes().GetRequest().GetHttp()
		check("generated type", http.GetPath(), credentials(http))
	}
	for name := range want {
		t.Errorf("%s is not captured", name)
	}
}
