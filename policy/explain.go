package policy

import (
	"cmp"
	"slices"
)

// Candidate is a route that matches a request.
type Candidate struct {
	// Route is its index.
	Route int
	// Policy is the index of its policy, or -1 if that is not served.
	Policy int
	// Host is the host of the route that matches, as it was written; "" if it
	// names none.
	Host string

	host    hostPattern
	pattern *pattern
	methods bool
}

// Candidates returns all routes that match a request, the most specific one first.
// It looks at each, for people who ask why; requests go by [Router.Choose].
func (r *Router) Candidates(f Facts) ([]Candidate, error) {
	path, host := "/", ""
	var err error
	if r.needs.Method {
		if err := checkMethod(f.Method); err != nil {
			return nil, err
		}
	}
	if r.needs.Path {
		if path, err = CheckPath(f.Path); err != nil {
			return nil, err
		}
	}
	if r.needs.Host {
		if host, err = checkHost(f.Host, make([]byte, 0, maxHost)); err != nil {
			return nil, err
		}
	}
	var found []Candidate
	for i := range r.routes {
		route := &r.routes[i]
		if len(route.methods) > 0 && !slices.Contains(route.methods, f.Method) || !route.path.matches(path) {
			continue
		}
		c := Candidate{Route: i, Policy: route.policy, pattern: &route.path, methods: len(route.methods) > 0}
		if r.served != nil {
			c.Policy = r.served[route.policy]
		}
		for _, h := range route.hosts {
			if h.matches(host) && (c.Host == "" || compareHosts(h, c.host) < 0) {
				c.host, c.Host = h, h.String()
			}
		}
		if len(route.hosts) == 0 || c.Host != "" {
			found = append(found, c)
		}
	}
	slices.SortStableFunc(found, compareCandidates)
	return found, nil
}

// Why says why the first of two candidates for one request is taken: the host, the
// path or the methods decide. It is "" if they are equal.
func Why(a, b Candidate) string {
	switch {
	case compareHosts(a.host, b.host) != 0:
		return "host"
	case comparePatterns(a.pattern, b.pattern) != 0:
		return "path"
	case a.methods != b.methods:
		return "methods"
	default:
		return ""
	}
}

func compareCandidates(a, b Candidate) int {
	methods := 0
	if a.methods != b.methods {
		methods = 1
		if a.methods {
			methods = -1
		}
	}
	return cmp.Or(compareHosts(a.host, b.host), comparePatterns(a.pattern, b.pattern), methods)
}

// compareHosts orders hosts that match one host: a name, then the longest *., then
// none.
func compareHosts(a, b hostPattern) int {
	rank := func(h hostPattern) int {
		switch {
		case h.text == "":
			return 2
		case h.suffix:
			return 1
		default:
			return 0
		}
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(len(b.text), len(a.text)))
}
