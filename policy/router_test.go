package policy_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bearergate/bearergate/policy"
)

func exact(text string) policy.Path    { return policy.Path{Kind: policy.ExactPath, Text: text} }
func prefix(text string) policy.Path   { return policy.Path{Kind: policy.PrefixPath, Text: text} }
func template(text string) policy.Path { return policy.Path{Kind: policy.TemplatePath, Text: text} }

// on is a route of each kind of path to a policy of the same name as the path.
func on(path policy.Path) policy.Route { return policy.Route{Path: path, Policy: path.Text} }

// newRouter makes a router with all policies that the routes name.
func newRouter(t testing.TB, routes ...policy.Route) *policy.Router {
	t.Helper()
	r, err := policy.NewRouter(policiesOf(routes), routes)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func policiesOf(routes []policy.Route) []string {
	names := []string{policy.DefaultName}
	for _, route := range routes {
		if !slices.Contains(names, route.Policy) {
			names = append(names, route.Policy)
		}
	}
	return names
}

// chosen is the name of the policy that a request falls under.
func chosen(t testing.TB, r *policy.Router, f policy.Facts) string {
	t.Helper()
	i, err := r.Choose(&f)
	if err != nil {
		t.Fatalf("%+v: %v", f, err)
	}
	candidates, err := r.Candidates(f)
	if err != nil {
		t.Fatal(err)
	}
	if !f.Named && (len(candidates) == 0) != (i == policy.Default) || len(candidates) > 0 && !f.Named && candidates[0].Policy != i {
		t.Fatalf("%+v: chosen is %q, explained are %+v", f, r.Names()[i], candidates)
	}
	return r.Names()[i]
}

func TestPathsOfRoutesMatchAsTheyAreWritten(t *testing.T) {
	for name, test := range map[string]struct {
		path    policy.Path
		match   []string
		nothing []string
	}{
		"an exact path": {
			exact("/v1/items"),
			[]string{"/v1/items", "/v1/%69tems"},
			[]string{"/v1/items/", "/v1/items/1", "/v1/item", "/v1", "/V1/items", "/v1/itemsx"},
		},
		"an exact path with a slash at its end": {exact("/v1/"), []string{"/v1/"}, []string{"/v1", "/v1/x"}},
		"the root":                              {exact("/"), []string{"/"}, []string{"/x"}},
		"an asterisk in an exact path is one":   {exact("/a/*"), []string{"/a/*"}, []string{"/a/b"}},
		"a prefix is of whole segments": {
			prefix("/admin"),
			[]string{"/admin", "/admin/", "/admin/x", "/admin/x/y", "/%61dmin/x"},
			[]string{"/", "/adminx", "/admin.json", "/x/admin"},
		},
		"the prefix of everything": {prefix("/"), []string{"/", "/a", "/a/b/"}, nil},
		"* is one segment": {
			template("/users/*/orders"),
			[]string{"/users/1/orders", "/users/a.b/orders", "/users/a=b/orders", "/users/a%20b/orders"},
			[]string{"/users/1/2/orders", "/users/orders", "/users/1/orders/"},
		},
		"* at the end needs a segment": {template("/users/*"), []string{"/users/1"}, []string{"/users/", "/users", "/users/1/", "/users/1/2"}},
		"* with an ending": {
			template("/videos/*.m4s"),
			[]string{"/videos/1.m4s", "/videos/a.b.m4s"},
			[]string{"/videos/.m4s", "/videos/1.mp4", "/videos/1/2.m4s", "/videos/1.m4s/"},
		},
		"** is any number of segments": {
			template("/files/**"),
			[]string{"/files/", "/files/a", "/files/a/b", "/files/a/"},
			[]string{"/files", "/filesx", "/file/a"},
		},
		"** with an ending": {
			template("/**.mpd"),
			[]string{"/content/123/india/dash/55/manifest.mpd", "/a.mpd", "/.mpd"},
			[]string{"/a.mpd/", "/a.mpdx", "/"},
		},
		"** with segments behind": {
			template("/a/**/b/c"),
			[]string{"/a/x/b/c", "/a/x/y/b/c", "/a/b/c/b/c"},
			[]string{"/a/b/c", "/a/x/b", "/a/x/b/c/", "/a/xb/c"},
		},
		"a capture is one segment":       {template("/videos/{file}"), []string{"/videos/1"}, []string{"/videos/", "/videos/1/2"}},
		"a capture of segments":          {template("/{where=videos/*}/{what}.m4s"), []string{"/videos/1/2.m4s"}, []string{"/videos/1/2", "/music/1/2.m4s"}},
		"a capture of any segments":      {template("/a/{rest=**}"), []string{"/a/", "/a/b/c"}, []string{"/a"}},
		"a capture of ** and more":       {template("/a/{rest=**}/end"), []string{"/a/b/end", "/a/b/c/end"}, []string{"/a/end", "/a/b/end/"}},
		"a template without stars":       {template("/a/b"), []string{"/a/b"}, []string{"/a", "/a/b/"}},
		"a template with a slash behind": {template("/a/*/"), []string{"/a/b/"}, []string{"/a/b", "/a/b/c"}},
		"letters beyond ASCII":           {exact("/café"), []string{"/café", "/caf%C3%A9"}, []string{"/cafe"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRouter(t, policy.Route{Path: test.path, Policy: "it"})
			for _, path := range test.match {
				if got := chosen(t, r, policy.Facts{Path: path}); got != "it" {
					t.Errorf("%s does not match", path)
				}
			}
			for _, path := range test.nothing {
				if got := chosen(t, r, policy.Facts{Path: path}); got != policy.DefaultName {
					t.Errorf("%s matches", path)
				}
			}
		})
	}
}

func TestTheMostSpecificRouteIsTaken(t *testing.T) {
	get := func(path string) policy.Facts {
		return policy.Facts{Method: "GET", Host: "api.example.com", Path: path}
	}
	for name, test := range map[string]struct {
		routes  []policy.Route
		request policy.Facts
		want    string
	}{
		"an exact path before a prefix": {
			[]policy.Route{on(prefix("/a")), {Path: exact("/a"), Policy: "exact"}}, get("/a"), "exact",
		},
		"the longer prefix": {[]policy.Route{on(prefix("/a")), on(prefix("/a/b")), on(prefix("/"))}, get("/a/b/c"), "/a/b"},
		"a name before *":   {[]policy.Route{on(template("/a/*")), on(exact("/a/b"))}, get("/a/b"), "/a/b"},
		"a name on the left before one on the right": {
			[]policy.Route{on(template("/*/b/c")), on(template("/a/**"))}, get("/a/b/c"), "/a/**",
		},
		"* with an ending before *":           {[]policy.Route{on(template("/a/*")), on(template("/a/*.js"))}, get("/a/x.js"), "/a/*.js"},
		"the longer ending of *":              {[]policy.Route{on(template("/a/*.js")), on(template("/a/*.min.js"))}, get("/a/x.min.js"), "/a/*.min.js"},
		"the longer ending of **":             {[]policy.Route{on(template("/**.js")), on(template("/**/x.js"))}, get("/a/x.js"), "/**/x.js"},
		"* before **":                         {[]policy.Route{on(template("/a/**")), on(template("/a/*"))}, get("/a/x"), "/a/*"},
		"** before a prefix":                  {[]policy.Route{on(prefix("/a")), on(template("/a/**"))}, get("/a/x"), "/a/**"},
		"back from a name that leads nowhere": {[]policy.Route{on(template("/*/x")), on(exact("/a/b"))}, get("/a/x"), "/*/x"},
		"back to a prefix far above":          {[]policy.Route{on(prefix("/")), on(exact("/a/b/c/d"))}, get("/a/b/c/e"), "/"},
		"a host before all hosts, whatever the path": {
			[]policy.Route{on(exact("/a")), {Hosts: []string{"api.example.com"}, Policy: "host"}}, get("/a"), "host",
		},
		"a name before names below a name": {
			[]policy.Route{{Hosts: []string{"*.example.com"}, Policy: "below"}, {Hosts: []string{"api.example.com"}, Policy: "name"}}, get("/"), "name",
		},
		"the longer name below which": {
			[]policy.Route{{Hosts: []string{"*.com"}, Policy: "com"}, {Hosts: []string{"*.example.com"}, Policy: "example"}}, get("/"), "example",
		},
		"back from a host whose paths do not match": {
			[]policy.Route{{Hosts: []string{"api.example.com"}, Path: exact("/b"), Policy: "name"}, {Hosts: []string{"*.example.com"}, Path: prefix("/"), Policy: "below"}},
			get("/a"), "below",
		},
		"back from hosts to none": {
			[]policy.Route{{Hosts: []string{"api.example.com", "*.com"}, Path: exact("/b"), Policy: "name"}, on(exact("/a"))}, get("/a"), "/a",
		},
		"methods before none": {
			[]policy.Route{on(exact("/a")), {Path: exact("/a"), Methods: []string{"GET"}, Policy: "get"}}, get("/a"), "get",
		},
		"back from a method that is not named": {
			[]policy.Route{on(prefix("/")), {Path: exact("/a"), Methods: []string{"POST"}, Policy: "post"}}, get("/a"), "/",
		},
		"GET is not HEAD": {
			[]policy.Route{{Path: exact("/a"), Methods: []string{"GET"}, Policy: "get"}},
			policy.Facts{Method: "HEAD", Path: "/a"},
			policy.DefaultName,
		},
		"a route that leaves all open": {[]policy.Route{{Policy: "it"}}, get("/.."), "it"},
		"no route":                     {[]policy.Route{on(exact("/a"))}, get("/b"), policy.DefaultName},
		"a route to the default policy": {
			[]policy.Route{on(prefix("/")), {Path: exact("/a"), Policy: policy.DefaultName}}, get("/b"), "/",
		},
		"the edge's word before all routes": {
			[]policy.Route{on(exact("/a")), on(exact("/b"))}, policy.Facts{Path: "/a", Policy: "/b", Named: true}, "/b",
		},
		"the edge may name the default policy": {
			[]policy.Route{on(exact("/a"))}, policy.Facts{Path: "/a", Policy: policy.DefaultName, Named: true}, policy.DefaultName,
		},
		"a host in other letters, with port and dot": {
			[]policy.Route{{Hosts: []string{"API.example.com"}, Policy: "it"}}, policy.Facts{Host: "aPi.Example.COM.:8443"}, "it",
		},
		"a name below, in capitals": {
			[]policy.Route{{Hosts: []string{"*.Example.com"}, Policy: "it"}}, policy.Facts{Host: "A.B.EXAMPLE.COM"}, "it",
		},
		"*. is not the name itself": {
			[]policy.Route{{Hosts: []string{"*.example.com"}, Policy: "it"}}, policy.Facts{Host: "example.com"}, policy.DefaultName,
		},
		"*. is whole labels": {
			[]policy.Route{{Hosts: []string{"*.example.com"}, Policy: "it"}}, policy.Facts{Host: "badexample.com"}, policy.DefaultName,
		},
		"an IPv4 address": {[]policy.Route{{Hosts: []string{"192.0.2.1"}, Policy: "it"}}, policy.Facts{Host: "192.0.2.1:80"}, "it"},
		"an IPv6 address in another spelling": {
			[]policy.Route{{Hosts: []string{"[2001:db8::1]"}, Policy: "it"}}, policy.Facts{Host: "[2001:DB8:0:0::1]:443"}, "it",
		},
		"one policy by two routes of one rank": {
			[]policy.Route{{Path: exact("/a"), Methods: []string{"GET"}, Policy: "it"}, {Path: template("/a"), Methods: []string{"GET", "PUT"}, Policy: "it"}},
			policy.Facts{Method: "PUT", Path: "/a"},
			"it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := chosen(t, newRouter(t, test.routes...), test.request); got != test.want {
				t.Errorf("is %q, want %q", got, test.want)
			}
			slices.Reverse(test.routes)
			if got := chosen(t, newRouter(t, test.routes...), test.request); got != test.want {
				t.Errorf("the other way round it is %q, want %q", got, test.want)
			}
		})
	}
}

func TestWhatIsUnclearIsRefusedBeforeARouteIsLookedAt(t *testing.T) {
	all := newRouter(
		t,
		policy.Route{Hosts: []string{"api.example.com"}, Path: exact("/a"), Methods: []string{"GET"}, Policy: "it"},
	)
	good := policy.Facts{Method: "GET", Host: "api.example.com", Path: "/a"}
	for name, test := range map[string]struct {
		change func(*policy.Facts)
		want   error
	}{
		"a path with dots":                     {func(f *policy.Facts) { f.Path = "/x/../a" }, policy.ErrPath},
		"a path with dots on another host":     {func(f *policy.Facts) { f.Path, f.Host = "/x/../a", "other" }, policy.ErrPath},
		"no path":                              {func(f *policy.Facts) { f.Path = "" }, policy.ErrPath},
		"dots, though the edge names a policy": {func(f *policy.Facts) { f.Path, f.Policy, f.Named = "/x/../a", "it", true }, policy.ErrPath},
		"no host":                              {func(f *policy.Facts) { f.Host = "" }, policy.ErrHost},
		"a port alone":                         {func(f *policy.Facts) { f.Host = ":80" }, policy.ErrHost},
		"a dot alone":                          {func(f *policy.Facts) { f.Host = "." }, policy.ErrHost},
		"two dots at the end":                  {func(f *policy.Facts) { f.Host = "api.example.com.." }, policy.ErrHost},
		"an empty label":                       {func(f *policy.Facts) { f.Host = "api..example.com" }, policy.ErrHost},
		"a user in the host":                   {func(f *policy.Facts) { f.Host = "api.example.com@evil.example" }, policy.ErrHost},
		"two ports":                            {func(f *policy.Facts) { f.Host = "api.example.com:80:80" }, policy.ErrHost},
		"a port that is no number":             {func(f *policy.Facts) { f.Host = "api.example.com:x" }, policy.ErrHost},
		"a long port":                          {func(f *policy.Facts) { f.Host = "api.example.com:000080" }, policy.ErrHost},
		"a space in the host":                  {func(f *policy.Facts) { f.Host = "api.example.com " }, policy.ErrHost},
		"two hosts":                            {func(f *policy.Facts) { f.Host = "api.example.com,evil" }, policy.ErrHost},
		"a slash in the host":                  {func(f *policy.Facts) { f.Host = "api.example.com/x" }, policy.ErrHost},
		"an encoded host":                      {func(f *policy.Facts) { f.Host = "%61pi.example.com" }, policy.ErrHost},
		"letters beyond ASCII in the host":     {func(f *policy.Facts) { f.Host = "äpi.example.com" }, policy.ErrHost},
		"a NUL in the host":                    {func(f *policy.Facts) { f.Host = "api.example.com\x00" }, policy.ErrHost},
		"an open bracket":                      {func(f *policy.Facts) { f.Host = "[::1" }, policy.ErrHost},
		"a name in brackets":                   {func(f *policy.Facts) { f.Host = "[api.example.com]" }, policy.ErrHost},
		"an IPv4 address in brackets":          {func(f *policy.Facts) { f.Host = "[127.0.0.1]" }, policy.ErrHost},
		"nothing in brackets":                  {func(f *policy.Facts) { f.Host = "[]" }, policy.ErrHost},
		"text behind the brackets":             {func(f *policy.Facts) { f.Host = "[::1]x" }, policy.ErrHost},
		"a long host":                          {func(f *policy.Facts) { f.Host = strings.Repeat("a.", 130) + "com" }, policy.ErrHost},
		"a method in small letters":            {func(f *policy.Facts) { f.Method = "get" }, policy.ErrMethod},
		"no method":                            {func(f *policy.Facts) { f.Method = "" }, policy.ErrMethod},
		"a method with a space":                {func(f *policy.Facts) { f.Method = "GET " }, policy.ErrMethod},
		"a policy that is not there":           {func(f *policy.Facts) { f.Policy, f.Named = "other", true }, policy.ErrUnknown},
		"a policy in other letters":            {func(f *policy.Facts) { f.Policy, f.Named = "IT", true }, policy.ErrUnknown},
		"a policy without a name":              {func(f *policy.Facts) { f.Named = true }, policy.ErrUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			f := good
			test.change(&f)
			if i, err := all.Choose(&f); !errors.Is(err, test.want) || i != policy.Default {
				t.Errorf("policy %d, %v; want %v", i, err, test.want)
			}
		})
	}
	if got := chosen(t, all, good); got != "it" {
		t.Errorf("the good request falls under %q", got)
	}
}

func TestWhatNoRouteReadsIsNotChecked(t *testing.T) {
	none := newRouter(t)
	if got := chosen(t, none, policy.Facts{Method: "get", Host: "@", Path: "/../"}); got != policy.DefaultName {
		t.Error(got)
	}
	if none.Needs() != (policy.Needs{}) {
		t.Errorf("no route needs %+v", none.Needs())
	}
	host := newRouter(t, policy.Route{Hosts: []string{"a"}, Policy: "it"})
	if got := chosen(t, host, policy.Facts{Method: "get", Host: "a", Path: "/../"}); got != "it" {
		t.Error(got)
	}
	if want := (policy.Needs{Host: true, Policy: true}); host.Needs() != want {
		t.Errorf("a route by host needs %+v", host.Needs())
	}
	path := newRouter(t, on(exact("/a")))
	if want := (policy.Needs{Path: true, Policy: true}); path.Needs() != want {
		t.Errorf("a route by path needs %+v", path.Needs())
	}
	path.Read(policy.Needs{Host: true})
	if _, err := path.Choose(&policy.Facts{Path: "/a", Host: "@"}); !errors.Is(err, policy.ErrHost) {
		t.Errorf("a host that others read is not checked: %v", err)
	}
	method := newRouter(t, policy.Route{Methods: []string{"GET"}, Policy: "it"})
	if want := (policy.Needs{Method: true, Policy: true}); method.Needs() != want {
		t.Errorf("a route by method needs %+v", method.Needs())
	}
}

func TestMistakesInRoutesAreAllSaid(t *testing.T) {
	for name, test := range map[string]struct {
		routes []policy.Route
		want   []string
	}{
		"one place for two policies": {
			[]policy.Route{on(exact("/a")), {Path: template("/a"), Policy: "other"}},
			[]string{"routes[1] matches the same requests as routes[0], which has another policy"},
		},
		"one place but for the names of captures": {
			[]policy.Route{on(template("/{a}/x")), on(template("/{b=*}/x"))}, []string{"routes[1] matches the same requests as routes[0]"},
		},
		"one host in other letters": {
			[]policy.Route{{Hosts: []string{"a", "b"}, Policy: "x"}, {Hosts: []string{"c", "B."}, Policy: "y"}},
			[]string{"routes[1] matches the same requests as routes[0]"},
		},
		"methods that overlap": {
			[]policy.Route{{Methods: []string{"GET", "PUT"}, Policy: "x"}, {Methods: []string{"PUT", "POST"}, Policy: "y"}},
			[]string{"routes[1] matches the same requests as routes[0]"},
		},
		"no path and the prefix of everything": {
			[]policy.Route{{Policy: "x"}, on(prefix("/"))}, []string{"routes[1] matches the same requests as routes[0]"},
		},
		"an unknown policy": {[]policy.Route{{Policy: "it"}, {Hosts: []string{"a"}, Policy: ""}}, []string{"routes[1].policy is no policy; write default, or the name of one in policies"}},
		"hosts": {
			[]policy.Route{{Hosts: []string{"", "*", "a.*.b", "*a", "*.", "a:80", "[::1]:80", "*.[::1]", "ä", "a b", "a", "*.a"}, Policy: "it"}},
			[]string{"hosts[0] is empty", "hosts[1] has a *", "hosts[2] has a *", "hosts[3] has a *", "hosts[4] is no host", "hosts[5] has a port", "hosts[6] has a port", "hosts[7] has a *", "hosts[8] is no host", "hosts[9] is no host"},
		},
		"methods":                     {[]policy.Route{{Methods: []string{"GET", "get", ""}, Policy: "it"}}, []string{"methods[1] is no method", "methods[2] is no method"}},
		"a path without a slash":      {[]policy.Route{on(exact("a"))}, []string{"routes[0].path could match no request"}},
		"a path with dots":            {[]policy.Route{on(exact("/a/../b"))}, []string{"routes[0].path could match no request, because it has a segment of dots"}},
		"a prefix with a slash":       {[]policy.Route{on(prefix("/a/"))}, []string{"routes[0].path ends with a slash"}},
		"a template with dots":        {[]policy.Route{on(template("/*/../b"))}, []string{"routes[0].path could match no request"}},
		"a template with //":          {[]policy.Route{on(template("/a//b"))}, []string{"routes[0].path could match no request"}},
		"a template without a slash":  {[]policy.Route{on(template("*"))}, []string{"routes[0].path does not begin with a slash"}},
		"a * in a segment":            {[]policy.Route{on(template("/a*"))}, []string{"routes[0].path has a * among other text"}},
		"a * in the middle":           {[]policy.Route{on(template("/*.js/a"))}, []string{"routes[0].path has a * among other text"}},
		"two ** ":                     {[]policy.Route{on(template("/**/a/**"))}, []string{"routes[0].path has another * after its **"}},
		"a * after **":                {[]policy.Route{on(template("/**/*"))}, []string{"routes[0].path has another * after its **"}},
		"text in front of **":         {[]policy.Route{on(template("/a**"))}, []string{"routes[0].path has text directly in front of **"}},
		"text behind ** and a slash":  {[]policy.Route{on(template("/**a/b"))}, []string{"routes[0].path has text directly behind **"}},
		"an open capture":             {[]policy.Route{on(template("/{a"))}, []string{"routes[0].path has a { without a }"}},
		"a closed capture":            {[]policy.Route{on(template("/a}"))}, []string{"routes[0].path has a } without a {"}},
		"a capture without a name":    {[]policy.Route{on(template("/{}"))}, []string{"routes[0].path has a capture with no good name"}},
		"a capture with a long name":  {[]policy.Route{on(template("/{abcdefghijklmnopq}"))}, []string{"routes[0].path has a capture with no good name"}},
		"a capture with a bad name":   {[]policy.Route{on(template("/{1a}"))}, []string{"routes[0].path has a capture with no good name"}},
		"two captures of a name":      {[]policy.Route{on(template("/{a}/{a}"))}, []string{"routes[0].path has two captures with the name a"}},
		"six captures":                {[]policy.Route{on(template("/{a}/{b}/{c}/{d}/{e}/{f}"))}, []string{"routes[0].path has more than 5 captures"}},
		"a capture of nothing":        {[]policy.Route{on(template("/{a=}"))}, []string{"routes[0].path has a capture of no good segments"}},
		"a capture in a segment":      {[]policy.Route{on(template("/a{b}"))}, []string{"routes[0].path has a capture that does not begin a segment"}},
		"an encoding in a template":   {[]policy.Route{on(template("/%61/*"))}, []string{"routes[0].path has a percent-encoding"}},
		"too many segments":           {[]policy.Route{on(prefix(strings.Repeat("/a", 65)))}, []string{"routes[0].path has more than 64 segments"}},
		"mistakes of several routes":  {[]policy.Route{on(exact("a")), on(prefix("b")), on(exact("/c"))}, []string{"routes[0].path", "routes[1].path"}},
		"too many methods in a route": {[]policy.Route{{Methods: make([]string, 65), Policy: "it"}}, []string{"routes[0] has too many"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := policy.NewRouter(append(policiesOf(test.routes[:1]), "other", "x", "y", "/{b=*}/x", "b", "/c", "/"), test.routes)
			if name == "an unknown policy" {
				_, err = policy.NewRouter([]string{policy.DefaultName, "it"}, test.routes)
			}
			mistakes, ok := errors.AsType[policy.Mistakes](err)
			if !ok || len(mistakes) != len(test.want) {
				t.Fatalf("%v; want %q", err, test.want)
			}
			lines := strings.Split(err.Error(), "\n")
			for i, want := range test.want {
				if !strings.Contains(lines[i], want) {
					t.Errorf("%q does not say %q", lines[i], want)
				}
			}
		})
	}
	if _, err := policy.NewRouter(nil, nil); err == nil {
		t.Error("a router without a policy")
	}
	if _, err := policy.NewRouter([]string{"it"}, make([]policy.Route, policy.MaxRoutes+1)); err == nil {
		t.Error("a router with too many routes")
	}
}

func TestTheReasonOfAChoiceIsSaid(t *testing.T) {
	r := newRouter(
		t,
		policy.Route{Path: prefix("/"), Policy: "all"},
		policy.Route{Hosts: []string{"*.example.com"}, Path: prefix("/v1"), Policy: "v1"},
		policy.Route{Hosts: []string{"*.example.com"}, Path: template("/v1/*"), Policy: "one"},
		policy.Route{Hosts: []string{"*.example.com"}, Path: template("/v1/*"), Methods: []string{"GET"}, Policy: "get"},
		policy.Route{Path: exact("/v2"), Policy: "v2"},
	)
	candidates, err := r.Candidates(policy.Facts{Method: "GET", Host: "api.example.com", Path: "/v1/x"})
	if err != nil || len(candidates) != 4 {
		t.Fatal(candidates, err)
	}
	var said []string
	for i, c := range candidates {
		why := ""
		if i > 0 {
			why = policy.Why(candidates[i-1], c)
		}
		said = append(said, fmt.Sprintf("%s %d %s %s", r.Names()[c.Policy], c.Route, c.Host, why))
	}
	want := []string{"get 3 *.example.com ", "one 2 *.example.com methods", "v1 1 *.example.com path", "all 0  host"}
	if !slices.Equal(said, want) {
		t.Errorf("%q, want %q", said, want)
	}
	if _, err := r.Candidates(policy.Facts{Method: "GET", Host: "api.example.com", Path: "/.."}); !errors.Is(err, policy.ErrPath) {
		t.Error(err)
	}
}

// TestARouterThatServesSomePoliciesRefusesTheRequestsOfOthers: it must not let them
// fall under a less specific route, nor under the default.
func TestARouterThatServesSomePoliciesRefusesTheRequestsOfOthers(t *testing.T) {
	whole := newRouter(t,
		policy.Route{Path: prefix("/v1"), Policy: "web"},
		policy.Route{Path: prefix("/v1/admin"), Policy: "admin"},
		policy.Route{Path: prefix("/v1/admin/help"), Policy: "open"},
		policy.Route{Hosts: []string{"a.example.com"}, Policy: "other"},
	)
	r, err := whole.Serving([]string{"web", "open"})
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		f    policy.Facts
		want string
		err  error
	}{
		"a policy that is served":                 {policy.Facts{Host: "b", Path: "/v1/x"}, "web", nil},
		"another one":                             {policy.Facts{Host: "b", Path: "/v1/admin/help"}, "open", nil},
		"one that is not":                         {policy.Facts{Host: "b", Path: "/v1/admin"}, "", policy.ErrElsewhere},
		"one that is not, by the host":            {policy.Facts{Host: "a.example.com", Path: "/v1/x"}, "", policy.ErrElsewhere},
		"no route":                                {policy.Facts{Host: "b", Path: "/"}, "web", nil},
		"the edge names one":                      {policy.Facts{Host: "b", Path: "/", Policy: "open", Named: true}, "open", nil},
		"the edge names one for another's path":   {policy.Facts{Host: "b", Path: "/v1/admin", Policy: "open", Named: true}, "open", nil},
		"the edge names one that is not":          {policy.Facts{Host: "b", Path: "/", Policy: "admin", Named: true}, "", policy.ErrUnknown},
		"the edge names the default of the whole": {policy.Facts{Host: "b", Path: "/", Policy: policy.DefaultName, Named: true}, "", policy.ErrUnknown},
		"a path that is refused":                  {policy.Facts{Host: "b", Path: "/v1//admin"}, "", policy.ErrPath},
	} {
		i, err := r.Choose(&test.f)
		if !errors.Is(err, test.err) || err == nil && r.Names()[i] != test.want {
			t.Errorf("%s: %d, %v; want %s, %v", name, i, err, test.want, test.err)
		}
	}
	if candidates, err := r.Candidates(policy.Facts{Host: "b", Path: "/v1/admin/x"}); err != nil || len(candidates) != 2 || candidates[0].Policy != -1 || candidates[1].Policy != 0 {
		t.Errorf("the candidates are %+v, %v", candidates, err)
	}
	if got := chosen(t, whole, policy.Facts{Host: "b", Path: "/v1/admin"}); got != "admin" {
		t.Errorf("the whole router chooses %s", got)
	}
	if allocations := testing.AllocsPerRun(100, func() { _, _ = r.Choose(&policy.Facts{Host: "b", Path: "/v1/admin"}) }); allocations != 0 {
		t.Errorf("%v allocations", allocations)
	}
	for _, names := range [][]string{nil, {"nobody"}, {"web", "web"}} {
		if r, err := whole.Serving(names); err == nil {
			t.Errorf("%q are served by %v", names, r)
		}
	}
}

// TestWhatOthersReadIsNotReadHere: each router asks for the facts of its own policies.
func TestWhatOthersReadIsNotReadHere(t *testing.T) {
	whole := newRouter(t, policy.Route{Hosts: []string{"a"}, Policy: "web"})
	whole.Read(policy.Needs{Method: true})
	r, err := whole.Serving([]string{"web"})
	if err != nil {
		t.Fatal(err)
	}
	r.Read(policy.Needs{Path: true})
	if got, want := r.Needs(), (policy.Needs{Host: true, Path: true, Policy: true}); got != want {
		t.Errorf("needs %+v, want %+v", got, want)
	}
	if got, want := whole.Needs(), (policy.Needs{Host: true, Method: true, Policy: true}); got != want {
		t.Errorf("the whole needs %+v, want %+v", got, want)
	}
}

// TestAHostIsNamedAsARouteDoes, and otherwise not at all.
func TestAHostIsNamedAsARouteDoes(t *testing.T) {
	r := newRouter(t,
		policy.Route{Hosts: []string{"api.example.com", "*.example.com", "*.b.example.com", "[2001:DB8::1]", "deep.a.example.org"}, Policy: policy.DefaultName},
		policy.Route{Path: prefix("/x"), Policy: policy.DefaultName})
	served, err := r.Serving([]string{policy.DefaultName})
	if err != nil {
		t.Fatal(err)
	}
	for authority, want := range map[string]string{
		"api.example.com":       "api.example.com",
		"API.Example.com.:8443": "api.example.com",
		"x.example.com":         "*.example.com",
		"x.y.example.com":       "*.example.com",
		"x.b.example.com":       "*.b.example.com",
		"b.example.com":         "*.example.com",
		"[2001:db8:0::1]:443":   "2001:db8::1",
		"deep.a.example.org":    "deep.a.example.org",
		"a.example.org":         "",
		"example.com":           "",
		"example.org":           "",
		"xexample.com":          "",
		".example.com":          "",
		"a b.example.com":       "",
		"":                      "",
	} {
		if got := r.NamedHost(authority); got != want {
			t.Errorf("%q is named %q, want %q", authority, got, want)
		}
		if got := served.NamedHost(authority); got != want {
			t.Errorf("%q is named %q where one policy is served, want %q", authority, got, want)
		}
	}
}
