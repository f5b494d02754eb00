package policy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Route sends requests to a policy. What it leaves open matches everything.
type Route struct {
	// Hosts are names, or *. and a name for all names below it.
	Hosts []string
	// Path is matched with the path of the request, decoded.
	Path Path
	// Methods are in capital letters. GET does not stand for HEAD.
	Methods []string
	// Policy is the name of the policy.
	Policy string
}

// Limits of what a router takes. A configuration that reaches one is a mistake.
const (
	MaxRoutes     = 100_000
	maxSegments   = 64
	maxRouteHosts = 1000
	maxMethods    = 64
)

// Router chooses policies. It may be used concurrently.
//
// Of the routes that match a request the most specific one is taken. The host
// decides first: a name, then the longest *. that matches, then no host. Then the
// path, as in [comparePatterns]. Then methods: a route that names the request's
// comes before one that names none. Two routes for which all that is the same and
// which lead to different policies are a mistake.
type Router struct {
	names  []string
	byName map[string]int
	routes []compiled
	needs  Needs
	routed Needs // what the routes alone need
	served []int // the index here of each policy of the routes, -1 for others; nil if all are served

	hosts      map[string]*node
	suffixes   map[string]*node // by .example.com
	longest    int              // of the suffixes
	everywhere *node
}

// compiled is a route that was read.
type compiled struct {
	hosts   []hostPattern
	path    pattern
	methods []string
	policy  int
}

// Mistake is what is wrong with a route.
type Mistake struct {
	// Route is the route's index.
	Route int
	// Field is hosts[0], path, methods[0] or policy; "" if it is the whole route.
	Field string
	// Text says what is wrong, beginning with a verb, and what to write instead. It
	// names no policy, since a name may be somebody's secret: it may come from the
	// environment.
	Text string
}

// Mistakes is the error of [NewRouter]: all that is wrong, in the order of the routes.
type Mistakes []Mistake //nolint:errname // it is what the error is, not only how it is called

// Error says each mistake in a line.
func (m Mistakes) Error() string {
	lines := make([]string, len(m))
	for i, mistake := range m {
		field := "routes[" + strconv.Itoa(mistake.Route) + "]"
		if mistake.Field != "" {
			field += "." + mistake.Field
		}
		lines[i] = field + " " + mistake.Text
	}
	return strings.Join(lines, "\n")
}

// NewRouter returns a router for policies of these names, the first of which is
// the default one. An error is [Mistakes].
func NewRouter(names []string, routes []Route) (*Router, error) {
	if len(names) == 0 || len(routes) > MaxRoutes {
		return nil, Mistakes{{Text: fmt.Sprintf("need a policy, and may be at most %d", MaxRoutes)}}
	}
	r := &Router{
		names: slices.Clone(names), byName: make(map[string]int, len(names)),
		hosts: map[string]*node{}, suffixes: map[string]*node{}, everywhere: &node{},
	}
	for i, name := range names {
		r.byName[name] = i
	}
	r.needs.Policy = len(names) > 1
	var mistakes Mistakes
	for i, route := range routes {
		c, wrong := r.compile(i, &route)
		mistakes = append(mistakes, wrong...)
		if len(wrong) == 0 {
			if other, same := r.insert(i, &c); same {
				mistakes = append(mistakes, Mistake{Route: i, Text: fmt.Sprintf(
					"matches the same requests as routes[%d], which has another policy, and neither is more specific; change one of them, or take it out", other)})
			}
		}
		r.routes = append(r.routes, c)
	}
	if len(mistakes) > 0 {
		return nil, mistakes
	}
	r.routed = r.needs
	return r, nil
}

// Serving returns a router by the same routes for those of the policies alone that
// are named, the first of which takes the place of the default one. A request that
// falls under another one is refused: were its route left out, a less specific one
// would let it through. It always reads what policy the edge names. A name that
// there is not, or twice, is an error.
func (r *Router) Serving(names []string) (*Router, error) {
	here := *r
	here.names, here.byName = slices.Clone(names), map[string]int{}
	here.needs = r.routed.Or(Needs{Policy: true})
	here.served = make([]int, len(r.names))
	for i := range here.served {
		here.served[i] = -1
	}
	for i, name := range names {
		whole, known := r.byName[name]
		if _, twice := here.byName[name]; !known || twice {
			return nil, fmt.Errorf("policy: %q is no policy, or is served twice", name)
		}
		here.byName[name], here.served[whole] = i, i
	}
	if len(names) == 0 {
		return nil, errors.New("policy: no policy is served")
	}
	return &here, nil
}

// compile reads a route.
func (r *Router) compile(i int, route *Route) (c compiled, wrong Mistakes) {
	mistake := func(field string, err error) {
		wrong = append(wrong, Mistake{Route: i, Field: field, Text: err.Error()})
	}
	if len(route.Hosts) > maxRouteHosts || len(route.Methods) > maxMethods {
		mistake("", fmt.Errorf("has too many hosts or methods; write at most %d and %d", maxRouteHosts, maxMethods))
		return c, wrong
	}
	for j, text := range route.Hosts {
		host, err := parseHost(text)
		if err != nil {
			mistake("hosts["+strconv.Itoa(j)+"]", err)
			continue
		}
		c.hosts = append(c.hosts, host)
	}
	var err error
	if c.path, err = parsePath(route.Path); err != nil {
		mistake("path", err)
	} else if len(c.path.segments) > maxSegments {
		mistake("path", fmt.Errorf("has more than %d segments; write a shorter one", maxSegments))
	}
	for j, method := range route.Methods {
		if checkMethod(method) != nil {
			mistake("methods["+strconv.Itoa(j)+"]", errors.New("is no method; write it in capital letters, for example GET"))
		}
	}
	c.methods = route.Methods
	var known bool
	if c.policy, known = r.byName[route.Policy]; !known {
		mistake("policy", errors.New("is no policy; write default, or the name of one in policies"))
	}
	r.needs = r.needs.Or(Needs{
		Method: len(route.Methods) > 0, Host: len(route.Hosts) > 0, Path: route.Path.Kind != AnyPath,
	})
	return c, wrong
}

// insert puts a route into the trees of its hosts. It reports a route that stands
// at the same place with another policy.
func (r *Router) insert(i int, c *compiled) (other int, same bool) {
	var roots []*node
	for _, host := range c.hosts {
		index := r.hosts
		if host.suffix {
			index = r.suffixes
			r.longest = max(r.longest, len(host.text))
		}
		if index[host.text] == nil {
			index[host.text] = &node{}
		}
		roots = append(roots, index[host.text])
	}
	if len(c.hosts) == 0 {
		roots = append(roots, r.everywhere)
	}
	for _, root := range roots {
		l := root.leaf(&c.path)
		methods := c.methods
		if len(methods) == 0 {
			methods = []string{""}
		}
		for _, method := range methods {
			if j, there := l.route(method); there {
				if r.routes[j].policy != c.policy {
					return j, true
				}
				continue
			}
			*l = append(*l, choice{method: method, route: i, policy: c.policy})
		}
	}
	return 0, false
}

// node is a place in the tree of the paths of one host.
type node struct {
	named map[string]*node
	tails []ended
	free  *node
	rests []ended
	here  choices
	below choices
}

// ended is a pattern that ends at a node, with a fixed text. Longer texts come first.
type ended struct {
	text string
	choices
}

// choices are the policies of one place, by method.
type choices []choice

type choice struct {
	method string // "" for all
	route  int
	policy int
}

// route returns the route of exactly this method.
func (c *choices) route(method string) (int, bool) {
	for i := range *c {
		if (*c)[i].method == method {
			return (*c)[i].route, true
		}
	}
	return 0, false
}

// of returns what is chosen for a request's method.
func (c choices) of(method string) *choice {
	var all *choice
	for i := range c {
		switch c[i].method {
		case method:
			return &c[i]
		case "":
			all = &c[i]
		}
	}
	return all
}

// leaf returns the place of a pattern, which it makes if it is not there.
func (n *node) leaf(p *pattern) *choices {
	for _, s := range p.segments {
		switch {
		case s.free:
			if n.free == nil {
				n.free = &node{}
			}
			n = n.free
		default:
			if n.named == nil {
				n.named = map[string]*node{}
			}
			if n.named[s.text] == nil {
				n.named[s.text] = &node{}
			}
			n = n.named[s.text]
		}
	}
	switch p.end {
	case endsTail:
		return endedLeaf(&n.tails, p.text)
	case endsRest:
		return endedLeaf(&n.rests, p.text)
	case endsBelow:
		return &n.below
	default:
		return &n.here
	}
}

func endedLeaf(list *[]ended, text string) *choices {
	at, found := slices.BinarySearchFunc(*list, text, func(e ended, text string) int {
		return cmp.Or(cmp.Compare(len(text), len(e.text)), cmp.Compare(e.text, text))
	})
	if !found {
		*list = slices.Insert(*list, at, ended{text: text})
	}
	return &(*list)[at].choices
}

// find returns what the most specific pattern chooses. The rest of the path begins
// behind the slash; without more there is neither. No node is visited twice, so a
// request costs at most as much as the tree is large.
func (n *node) find(rest string, more bool, method string) *choice {
	if !more {
		if c := n.here.of(method); c != nil {
			return c
		}
		return n.below.of(method)
	}
	text, after, deeper := strings.Cut(rest, "/")
	if child := n.named[text]; child != nil {
		if c := child.find(after, deeper, method); c != nil {
			return c
		}
	}
	if !deeper {
		for i := range n.tails {
			if hasTail(text, n.tails[i].text) {
				if c := n.tails[i].of(method); c != nil {
					return c
				}
			}
		}
	}
	if n.free != nil && text != "" {
		if c := n.free.find(after, deeper, method); c != nil {
			return c
		}
	}
	for i := range n.rests {
		if strings.HasSuffix(rest, n.rests[i].text) {
			if c := n.rests[i].of(method); c != nil {
				return c
			}
		}
	}
	return n.below.of(method)
}

// Needs says which facts are read: those that routes need, and those of
// [Router.Read].
func (r *Router) Needs() Needs { return r.needs }

// Read has Choose check facts that others read, as if a route needed them. It is
// called before the first Choose.
func (r *Router) Read(n Needs) { r.needs = r.needs.Or(n) }

// Names returns the names of the policies, by their indexes. It is not to be changed.
func (r *Router) Names() []string { return r.names }

// Choose returns the index of the policy that a request falls under. An error is
// one of [ErrPath], [ErrHost], [ErrMethod], [ErrUnknown] and [ErrElsewhere]: then
// there is none, and the request is to be refused. A policy that the edge names comes before all
// routes. It allocates nothing, but for hosts and paths of unusual form.
func (r *Router) Choose(f *Facts) (int, error) {
	c, err := r.choose(f)
	switch {
	case err != nil:
		return Default, err
	case f.Named:
		return r.named(f)
	case c == nil:
		return Default, nil
	case r.served != nil:
		return r.here(c.policy)
	default:
		return c.policy, nil
	}
}

// here returns the index of a policy of the routes among those that are served.
func (r *Router) here(policy int) (int, error) {
	if i := r.served[policy]; i >= 0 {
		return i, nil
	}
	return Default, ErrElsewhere
}

// named returns the policy that the edge names.
func (r *Router) named(f *Facts) (int, error) {
	i, known := r.byName[f.Policy]
	if !known {
		return Default, ErrUnknown
	}
	return i, nil
}

// room is what a checked text may need. Longer ones get memory of their own.
const room = 256

// choose checks what the routes read, and finds the one that matches.
func (r *Router) choose(f *Facts) (*choice, error) {
	var hostRoom, pathRoom [room]byte
	if r.needs.Method {
		if err := checkMethod(f.Method); err != nil {
			return nil, err
		}
	}
	path := "/"
	if r.needs.Path {
		var err error
		if path, err = checkPath(f.Path, pathRoom[:0]); err != nil {
			return nil, err
		}
	}
	if r.needs.Host {
		host, err := checkHost(f.Host, hostRoom[:0])
		if err != nil {
			return nil, err
		}
		if c := r.byHost(host, path[1:], f.Method); c != nil {
			return c, nil
		}
	}
	return r.everywhere.find(path[1:], true, f.Method), nil
}

// NamedHost returns the host of an authority as a route names it: itself, or *. and the
// longest name that it is below. It is "" if no route names it.
func (r *Router) NamedHost(authority string) string {
	var buf [room]byte
	host, err := checkHost(authority, buf[:0])
	if err != nil {
		return ""
	}
	if r.hosts[host] != nil {
		return strings.Clone(host)
	}
	for i := max(1, len(host)-r.longest); i < len(host); i++ {
		if host[i] == '.' && r.suffixes[host[i:]] != nil {
			return "*" + host[i:]
		}
	}
	return ""
}

// byHost looks at the routes that name a host.
func (r *Router) byHost(host, path, method string) *choice {
	if root := r.hosts[host]; root != nil {
		if c := root.find(path, true, method); c != nil {
			return c
		}
	}
	if len(r.suffixes) == 0 {
		return nil
	}
	for i := max(1, len(host)-r.longest); i < len(host); i++ {
		if host[i] != '.' {
			continue
		}
		if root := r.suffixes[host[i:]]; root != nil {
			if c := root.find(path, true, method); c != nil {
				return c
			}
		}
	}
	return nil
}
