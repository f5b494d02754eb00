package config

import (
	"cmp"
	"slices"

	"github.com/bearergate/bearergate/policy"
	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
)

// entry is a listener of the configuration, of whatever kind.
type entry struct {
	fields

	name string // in logs, metrics and errors
	kind string // ExtAuthz, AuthRequest or Admin
	path string // of its message in the file
}

// fields are what the messages of all listeners have.
type fields interface {
	GetAddress() string
	GetTls() *configv1.Tls
	GetSocket() *configv1.Socket
}

// faces are what the messages of the listeners have that proxies ask.
type faces interface {
	GetPolicies() []string
	GetDefaultPolicy() string
}

// served gives the names of the policies that a listener serves, its default one first; none if these are all of them, and
// it is the file's.
func (e *entry) served(all []string) []string {
	l, ok := e.fields.(faces)
	if !ok || len(l.GetPolicies()) == 0 && l.GetDefaultPolicy() == "" {
		return nil
	}
	names := []string{cmp.Or(l.GetDefaultPolicy(), policy.DefaultName)}
	more := l.GetPolicies()
	if len(more) == 0 {
		more = all
	}
	for _, name := range more {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// entries gives the listeners that are named.
func entries(l *configv1.Listeners) []entry {
	all := kinds(nil, l, "listeners", "")
	for i, m := range l.GetMore() {
		all = kinds(all, m, item("listeners.more", i), m.GetName())
	}
	return all
}

// kinds adds the listeners of a message that may have one of each kind. Without a name they are named as their kind.
func kinds(all []entry, l interface {
	GetExtAuthz() *configv1.ExtAuthz
	GetAuthRequest() *configv1.AuthRequest
	GetAdmin() *configv1.Admin
}, path, name string,
) []entry {
	add := func(m fields, kind string) {
		e := entry{fields: m, name: name, kind: kind, path: path + "." + kind}
		if name == "" {
			e.name = kind
		}
		all = append(all, e)
	}
	if m := l.GetExtAuthz(); m != nil {
		add(m, ExtAuthz)
	}
	if m := l.GetAuthRequest(); m != nil {
		add(m, AuthRequest)
	}
	if m := l.GetAdmin(); m != nil {
		add(m, Admin)
	}
	return all
}
