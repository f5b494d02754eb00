package config

import configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"

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
}

// entries gives the listeners that are named.
func entries(l *configv1.Listeners) []entry {
	var all []entry
	if m := l.GetExtAuthz(); m != nil {
		all = append(all, entry{m, ExtAuthz, ExtAuthz, "listeners." + ExtAuthz})
	}
	if m := l.GetAuthRequest(); m != nil {
		all = append(all, entry{m, AuthRequest, AuthRequest, "listeners." + AuthRequest})
	}
	if m := l.GetAdmin(); m != nil {
		all = append(all, entry{m, Admin, Admin, "listeners." + Admin})
	}
	return all
}
