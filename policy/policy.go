// Package policy says which policy a request falls under, and whether what is
// known of the request and its token meets what that policy requires.
//
// A [Router] chooses the policy by what the edge says of a request. It promises
// that the same request always falls under the same policy, whatever the order
// of the routes in the configuration; that two routes are never left to chance;
// and that a path, a host or a method that different programs may read in
// different ways is refused before any route is looked at.
//
// A [Requirement] is judged on every request. What it says is never remembered.
//
// The package knows no proxy, and asks nobody about tokens; package verifier does.
package policy

import (
	"errors"
	"fmt"
)

// Facts are what an edge says of a request. Their strings need to last as long as
// the call that they are given to.
type Facts struct {
	// Method is the request's method.
	Method string
	// Host is the request's authority, with or without a port.
	Host string
	// Path is the raw path of the request's target, without its query.
	Path string
	// Policy is the policy that the edge names itself, if Named says that it does.
	Policy string
	Named  bool
}

// Needs says which facts a configuration reads. What nobody reads need not be
// said, and is not checked.
type Needs struct{ Method, Host, Path, Policy bool }

// Or returns what either needs.
func (n Needs) Or(o Needs) Needs {
	return Needs{n.Method || o.Method, n.Host || o.Host, n.Path || o.Path, n.Policy || o.Policy}
}

// Default is the index and the name of the policy of requests that no route
// matches.
const (
	Default     = 0
	DefaultName = "default"
)

// Why no policy could be chosen. The errors of [Router.Choose] wrap one of these,
// and hold nothing of the request.
var (
	// ErrPath means: programs may read the path in different ways.
	ErrPath = errors.New("the path is refused")
	// ErrHost means: the host is no host name and no IP address.
	ErrHost = errors.New("the host is refused")
	// ErrMethod means: the method is not written in capital letters.
	ErrMethod = errors.New("the method is refused")
	// ErrUnknown means: the edge names a policy that there is not.
	ErrUnknown = errors.New("the edge names a policy that is not configured")
	// ErrElsewhere means: the request falls under a policy that is not served here.
	ErrElsewhere = errors.New("the request falls under a policy that this listener does not serve")
)

// because makes the errors of one of the kinds above.
func because(kind error, text string) error { return fmt.Errorf("%w: %s", kind, text) }
