package policy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bearergate/bearergate/policy"
)

// manyRoutes are n routes as an installation in front of many APIs has them: ten
// to a host, of all kinds.
func manyRoutes(n int) []policy.Route {
	routes := make([]policy.Route, 0, n)
	for i := range n {
		route := policy.Route{Hosts: []string{fmt.Sprintf("api-%d.partners.example.com", i/10)}, Policy: "it"}
		switch i % 10 {
		case 0:
			route.Path = prefix("/")
		case 1:
			route.Path = exact("/healthz")
		case 2:
			route.Path = prefix("/v1/admin")
		case 3:
			route.Path = template("/v1/customers/*/orders/{order}")
		case 4:
			route.Path, route.Methods = template("/v1/customers/*/orders/{order}"), []string{"GET", "HEAD"}
		case 5:
			route.Path = template("/v1/files/**")
		case 6:
			route.Path = template("/v1/files/**.pdf")
		case 7:
			route.Path, route.Methods = prefix("/v1/customers"), []string{"POST", "PUT", "DELETE"}
		case 8:
			route.Path = template("/v1/assets/*.js")
		case 9:
			route.Hosts, route.Path = []string{"*.partners.example.com"}, exact(fmt.Sprintf("/shared/%d", i))
		}
		routes = append(routes, route)
	}
	return routes
}

func TestChoosingAllocatesNothing(t *testing.T) {
	r := newRouter(t, manyRoutes(1000)...)
	for name, f := range map[string]policy.Facts{
		"a template":            {Method: "GET", Host: "api-7.partners.example.com", Path: "/v1/customers/4711/orders/1"},
		"no route":              {Method: "GET", Host: "www.example.net", Path: "/v1/customers/4711/orders/1"},
		"an encoded path":       {Method: "GET", Host: "api-7.partners.example.com", Path: "/v1/%63ustomers/47%201/orders/1"},
		"a host in capitals":    {Method: "GET", Host: "API-7.Partners.Example.COM.:443", Path: "/v1/files/a/b.pdf"},
		"a host by its suffix":  {Method: "GET", Host: "x.y.partners.example.com", Path: "/shared/19"},
		"a path that is no way": {Method: "GET", Host: "api-7.partners.example.com", Path: "/v1/../v1"},
		"a method no route has": {Method: "OPTIONS", Host: "api-7.partners.example.com", Path: "/v1/customers/4711/orders/1"},
		"the edge's own choice": {Method: "GET", Host: "api-7.partners.example.com", Path: "/", Policy: "it", Named: true},
		"an unknown policy":     {Method: "GET", Host: "api-7.partners.example.com", Path: "/", Policy: "other", Named: true},
	} {
		if n := testing.AllocsPerRun(100, func() { _, _ = r.Choose(&f) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// BenchmarkChoose is the choice of a policy by host, path and method.
func BenchmarkChoose(b *testing.B) {
	for _, n := range []int{10, 1000, 10_000} {
		r := newRouter(b, manyRoutes(n)...)
		last := n/10 - 1
		for _, test := range []struct {
			name string
			f    policy.Facts
		}{
			{"template", policy.Facts{Method: "GET", Host: fmt.Sprintf("api-%d.partners.example.com", last), Path: "/v1/customers/4711/orders/0815"}},
			{"below", policy.Facts{Method: "GET", Host: fmt.Sprintf("api-%d.partners.example.com", last), Path: "/v1/customers/4711/invoices"}},
			{"suffix", policy.Facts{Method: "GET", Host: "www.partners.example.com", Path: fmt.Sprintf("/shared/%d", n-1)}},
			{"none", policy.Facts{Method: "GET", Host: "www.example.net", Path: "/v1/customers/4711"}},
			{"letters", policy.Facts{Method: "GET", Host: fmt.Sprintf("api-%d.partners.example.com", last), Path: "/v1/customers/M%C3%BCller%20%26%20S%C3%B6hne/orders/0815"}},
			{"encoded", policy.Facts{Method: "GET", Host: fmt.Sprintf("api-%d.partners.example.com", last), Path: "/v1/customers/47%2011/orders/0815"}},
		} {
			b.Run(fmt.Sprintf("routes=%d/%s", n, test.name), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := r.Choose(&test.f); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// A request cannot make the tree be searched more than once.
func TestASearchIsBoundedByTheTree(t *testing.T) {
	var routes []policy.Route
	for i := range 1 << 10 {
		text := ""
		for bit := range 10 {
			text += []string{"/*", "/a"}[i>>bit&1]
		}
		routes = append(routes, policy.Route{Path: template(text + "/end"), Policy: "it"})
	}
	r := newRouter(t, routes...)
	if got := chosen(t, r, policy.Facts{Path: strings.Repeat("/a", 10) + "/other"}); got != policy.DefaultName {
		t.Error(got)
	}
	if got := chosen(t, r, policy.Facts{Path: strings.Repeat("/a", 9) + "/b/end"}); got != "it" {
		t.Error(got)
	}
}
