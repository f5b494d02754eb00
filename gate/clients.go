package gate

import "net/netip"

// Clients says what an operator is shown of the addresses of clients, which are
// personal data.
type Clients uint8

// What is shown.
const (
	// WholeClients are whole addresses.
	WholeClients Clients = iota
	// ClientNetworks are the first 24 bits of an IPv4 address, and the first 48 of an
	// IPv6 address.
	ClientNetworks
	// NoClients is nothing.
	NoClients
)

// of returns what is shown of an address; the zero Addr if that is nothing.
func (c Clients) of(a netip.Addr) netip.Addr {
	switch a = a.Unmap().WithZone(""); c {
	case WholeClients:
		return a
	case ClientNetworks:
		return c.Network(a).Addr()
	default:
		return netip.Addr{}
	}
}

// Network returns what stands for one client: an IPv4 address, or the first 64 bits of
// an IPv6 address, below which a client has as many as it likes; fewer if less is
// shown. It is the zero Prefix if nothing is.
func (c Clients) Network(a netip.Addr) netip.Prefix {
	var v4, v6 int
	switch c {
	case WholeClients:
		v4, v6 = 32, 64
	case ClientNetworks:
		v4, v6 = 24, 48
	default:
		return netip.Prefix{}
	}
	n := v4
	if a.Is6() {
		n = v6
	}
	p, _ := a.Prefix(n) // the zero Addr has none
	return p
}
