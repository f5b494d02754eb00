package policy_test

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/bearergate/bearergate/policy"
)

// FuzzHost: a request falls under the policy of a host only if everybody would
// say that it is for that host.
func FuzzHost(f *testing.F) {
	for _, host := range []string{
		"api.example.com", "API.example.com", "api.example.com.", "api.example.com:443", "api.example.com:", "api.example.com..", ".api.example.com",
		"x.example.com", "example.com", "a.b.example.com", "api.example.com@evil.example", "evil.example#api.example.com", "api.example.com/", "api.example.com\x00",
		"api.example.com:80:80", "[::1]", "[::1]:80", "[0:0::1]", "::1", "[::1%25eth0]", "[::ffff:127.0.0.1]", "xn--api.example.com", "api。example.com", "", " ", "\xff",
	} {
		f.Add(host)
	}
	hosts := []string{"api.example.com", "*.example.com", "[::1]"}
	routes := make([]policy.Route, len(hosts))
	for i, host := range hosts {
		routes[i] = policy.Route{Hosts: []string{host}, Path: prefix("/"), Policy: strings.Trim(strings.NewReplacer("*", "any", "[::1]", "loopback").Replace(host), ".")}
	}
	r := newRouter(f, routes...)
	f.Fuzz(func(t *testing.T, host string) {
		facts := policy.Facts{Host: host, Method: "GET", Path: "/"}
		i, err := r.Choose(&facts)
		if err != nil || i == policy.Default {
			return
		}
		u, err := url.Parse("https://" + host + "/")
		if err != nil || u.User != nil || u.Path != "/" {
			t.Fatalf("%q: policy %q is chosen for what net/url takes for another thing: %v, %v", host, r.Names()[i], u, err)
		}
		name := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
		var right bool
		switch r.Names()[i] {
		case "api.example.com":
			right = name == "api.example.com"
		case "loopback":
			a, err := netip.ParseAddr(name)
			right = err == nil && a == netip.IPv6Loopback()
		default:
			right = strings.HasSuffix(name, ".example.com") && name != "api.example.com"
		}
		if !right {
			t.Errorf("%q: policy %q is chosen for the host %q", host, r.Names()[i], name)
		}
	})
}
