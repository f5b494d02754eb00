package policy_test

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/bearergate/bearergate/policy"
)

// reference is another way to choose: each route becomes regular expressions, as
// Envoy makes them of templates, and all that match are sorted.
type reference struct{ routes []policy.Route }

var (
	captured = regexp.MustCompile(`\{[a-z]+(?:=([^}]*))?\}`)
	starred  = regexp.MustCompile(`\*\*|\*`)
)

// withoutNames puts what captures match in their place.
func withoutNames(template string) string {
	return captured.ReplaceAllStringFunc(template, func(c string) string {
		return cmp.Or(captured.FindStringSubmatch(c)[1], "*")
	})
}

func matchesPath(p policy.Path, path string) bool {
	expression := "^"
	switch p.Kind {
	case policy.AnyPath:
		return true
	case policy.ExactPath:
		return p.Text == path
	case policy.PrefixPath:
		return p.Text == "/" || path == p.Text || strings.HasPrefix(path, p.Text+"/")
	case policy.TemplatePath:
		text, last := withoutNames(p.Text), 0
		for _, at := range starred.FindAllStringIndex(text, -1) {
			expression += regexp.QuoteMeta(text[last:at[0]])
			if at[1]-at[0] == 2 {
				expression += "(?s:.*)"
			} else {
				expression += "[^/]+"
			}
			last = at[1]
		}
		expression += regexp.QuoteMeta(text[last:])
	}
	return regexp.MustCompile(expression + "$").MatchString(path)
}

// rank is the order of paths, as text that can be compared: for each segment what
// it is and how long it is.
func rank(p policy.Path, path string) string {
	length := func(text string) string { return string(rune(0xf000 - len(text))) }
	text := p.Text
	switch p.Kind {
	case policy.AnyPath:
		return "9"
	case policy.PrefixPath:
		if text == "/" {
			return "9"
		}
		return strings.Repeat("0", strings.Count(text, "/")) + "9"
	case policy.ExactPath:
		return strings.Repeat("0", strings.Count(text, "/")) + "8"
	case policy.TemplatePath:
	}
	out := ""
	head, tail, rest := strings.Cut(withoutNames(text), "/**")
	for segment := range strings.SplitSeq(strings.TrimPrefix(head, "/"), "/") {
		switch {
		case head == "" && rest:
		case segment == "*":
			out += "2"
		case strings.HasPrefix(segment, "*"):
			return out + "1" + length(segment)
		default:
			out += "0"
		}
	}
	if rest {
		return out + "3" + length(tail)
	}
	return out + "8"
}

func (r *reference) choose(f policy.Facts) string {
	path, _ := policy.CheckPath(f.Path)
	host := strings.TrimSuffix(strings.ToLower(f.Host), ".")
	type match struct{ host, path, method, policy string }
	var found []match
	for _, route := range r.routes {
		if !matchesPath(route.Path, path) || len(route.Methods) > 0 && !slices.Contains(route.Methods, f.Method) {
			continue
		}
		m := match{path: rank(route.Path, path), policy: route.Policy, method: "0"}
		if len(route.Methods) == 0 {
			m.method = "1"
		}
		if len(route.Hosts) == 0 {
			m.host = "9"
			found = append(found, m)
		}
		for _, h := range route.Hosts {
			if below, wild := strings.CutPrefix(h, "*"); wild && strings.HasSuffix(host, below) && host != below {
				m.host = "1" + string(rune(0xf000-len(below)))
				found = append(found, m)
			} else if h == host {
				m.host = "0"
				found = append(found, m)
			}
		}
	}
	if len(found) == 0 {
		return policy.DefaultName
	}
	slices.SortFunc(found, func(a, b match) int {
		return cmp.Or(cmp.Compare(a.host, b.host), cmp.Compare(a.path, b.path), cmp.Compare(a.method, b.method))
	})
	return found[0].policy
}

// A small world, in which much matches and many routes stand in each other's way.
var (
	segments = rapid.SampledFrom([]string{"a", "b", "ab", "a.js", "b.js", "a.min.js", ".js", "*"})
	hosts    = rapid.SampledFrom([]string{"a.b", "x.a.b", "y.x.a.b", "b", "*.a.b", "*.b", "*.x.a.b"})
	methods  = rapid.SampledFrom([]string{"GET", "PUT", "POST"})
	policies = rapid.SampledFrom([]string{"one", "two", "three", policy.DefaultName})
)

func drawPath(t *rapid.T) string {
	path := "/" + strings.Join(rapid.SliceOfN(segments, 0, 4).Draw(t, "segments"), "/")
	if path != "/" && rapid.Bool().Draw(t, "slash") {
		path += "/"
	}
	return path
}

func drawRoute(t *rapid.T) policy.Route {
	route := policy.Route{
		Hosts:   rapid.SliceOfNDistinct(hosts, 0, 2, rapid.ID).Draw(t, "hosts"),
		Methods: rapid.SliceOfNDistinct(methods, 0, 2, rapid.ID).Draw(t, "methods"),
		Policy:  policies.Draw(t, "policy"),
	}
	switch rapid.IntRange(0, 5).Draw(t, "kind") {
	case 0:
	case 1:
		route.Path = exact(drawPath(t))
	case 2:
		path := drawPath(t)
		if path != "/" {
			path = strings.TrimSuffix(path, "/")
		}
		route.Path = prefix(path)
	default:
		element := rapid.SampledFrom([]string{"a", "b", "a.js", "*", "*", "{n}", "{m=a/*}"})
		text := ""
		for _, s := range rapid.SliceOfNDistinct(element, 0, 3, rapid.ID).Draw(t, "elements") {
			text += "/" + s
		}
		text += rapid.SampledFrom([]string{"", "/", "/**", "/**/a", "/**.js", "/*.js", "/*.min.js", "/{r=**}", "/{r=**}/b/a"}).Draw(t, "end")
		route.Path = template(cmp.Or(text, "/"))
	}
	return route
}

// checkAgainstReference holds the tree, the list of candidates and the reference
// against each other.
func checkAgainstReference(t *rapid.T) {
	var routes []policy.Route
	names := []string{policy.DefaultName, "one", "two", "three"}
	for range rapid.IntRange(0, 12).Draw(t, "routes") {
		more := append(slices.Clone(routes), drawRoute(t))
		if _, err := policy.NewRouter(names, more); err == nil {
			routes = more // what would be a mistake is left out
		}
	}
	router, err := policy.NewRouter(names, routes)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		f := policy.Facts{
			Method: methods.Draw(t, "method"),
			Host:   rapid.SampledFrom([]string{"a.b", "x.a.b", "y.x.a.b", "B.", "c"}).Draw(t, "host"),
			Path:   drawPath(t),
		}
		got, err := router.Choose(&f)
		if err != nil {
			t.Fatalf("%+v: %v", f, err)
		}
		if want := (&reference{routes}).choose(f); router.Names()[got] != want {
			t.Fatalf("%+v falls under %s, by the reference under %s", f, router.Names()[got], want)
		}
		candidates, err := router.Candidates(f)
		if err != nil || len(candidates) == 0 && got != policy.Default || len(candidates) > 0 && candidates[0].Policy != got {
			t.Fatalf("%+v falls under %s, the candidates are %+v, %v", f, router.Names()[got], candidates, err)
		}
	}
}

func TestTheTreeChoosesAsThePlainWayDoes(t *testing.T) { rapid.Check(t, checkAgainstReference) }

func FuzzRouter(f *testing.F) { f.Fuzz(rapid.MakeFuzz(checkAgainstReference)) }
