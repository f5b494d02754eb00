package config

import (
	"errors"
	"net"
	"os"

	"github.com/bearergate/bearergate/admin"
	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
	"github.com/bearergate/bearergate/verifier"
)

// controls are what an operator can do with the gateway.
func (g *Gateway) controls() *admin.Controls {
	return &admin.Controls{
		Version:       g.version,
		Started:       g.started,
		Generation:    g.generation.Load,
		Listeners:     g.listeners,
		Verifiers:     func() map[string]admin.Stages { return g.health.Load().verifiers },
		Reload:        g.Reload,
		Parse:         g.parser.ParseToken,
		Forget:        g.verifiers.forget,
		Denials:       g.verifiers.denials,
		LogLevel:      g.level,
		LogAllowed:    g.LogAllowed,
		Events:        g.events,
		Configuration: g.configuration,
		Explain:       g.explain,
		Recent:        g.recent,
		Policies:      func() []string { return policyNames(g.deciding.Load().config) },
		Diagnostics:   g.diagnostics,
		Talkers:       g.talkers.Top,
	}
}

func (g *Gateway) listeners() []admin.Listener {
	var all []admin.Listener
	for _, d := range g.allDoors() {
		all = append(all, admin.Listener{Name: d.name, Kind: d.kind, Address: d.address(), TLS: d.desk.certificates != nil})
	}
	return all
}

// exposed is what is wrong with an admin listener whose API anybody could call.
const exposed = "is open to other machines, and whoever reaches it could change the gateway through the admin API; " +
	"write api: {credential: {file: PATH}} or tls with client_ca_file beside it, or api: {off: true} for health and metrics alone, or listen at 127.0.0.1"

// isExposed reports whether whoever is on another machine could call the API.
func isExposed(address string, l *configv1.Admin) bool {
	return isElsewhere(address) && !l.GetApi().GetOff() && l.GetApi().GetCredential() == nil && l.GetTls().GetClientCaFile() == ""
}

// isElsewhere reports whether other machines may reach an address.
func isElsewhere(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && !verifier.IsLoopback(host)
}

// checkAdmin sees that not everybody can call the admin API. The address of a socket
// that systemd passes is looked at when it is there.
func checkAdmin(config *configv1.Config, around surroundings) []finding {
	var found []finding
	for _, e := range entries(config.GetListeners()) {
		l, ok := e.fields.(*configv1.Admin)
		if !ok {
			continue
		}
		if network, where, err := ParseAddress(l.GetAddress()); err == nil && network == "tcp" && isExposed(where, l) {
			found = append(found, finding{path: e.path + ".address", text: exposed})
		}
		if l.GetApi().GetOff() && l.GetApi().GetProfiles() {
			found = append(found, finding{path: e.path + ".api.profiles", text: "has no use with off: true; take one of them out", bare: true})
		}
		credential, at := l.GetApi().GetCredential(), e.path+".api.credential"
		if credential == nil {
			continue
		}
		if l.GetApi().GetOff() {
			found = append(found, finding{path: at, text: "has no use with off: true; take one of them out", bare: true})
		}
		found = append(found, checkShared(at, "credential", credential, around)...)
	}
	return found
}

// access says who may call the API of a listener.
func access(name string, l *configv1.Admin) admin.Access {
	a := admin.Access{Listener: name, Off: l.GetApi().GetOff(), Profiles: l.GetApi().GetProfiles()}
	if secret := l.GetApi().GetCredential(); secret != nil {
		read := secretSource(secret, os.LookupEnv)
		a.Credential = func() ([]byte, error) {
			text, err := read()
			if err == nil && !isSecret(string(text)) {
				err = errors.New("holds no good credential")
			}
			return text, err
		}
	}
	if host, _, err := net.SplitHostPort(l.GetAddress()); err == nil {
		a.Host = host
	}
	return a
}
