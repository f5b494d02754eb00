package load

import (
	"context"
	"crypto/tls"
	"net"
)

// DialFunc opens a connection to what is measured.
type DialFunc func(context.Context) (net.Conn, error)

// Dial returns a function that opens connections to an address, with TLS if there is
// a configuration for it.
func Dial(network, address string, secure *tls.Config) DialFunc {
	return func(ctx context.Context) (net.Conn, error) {
		if secure == nil {
			var d net.Dialer
			return d.DialContext(ctx, network, address)
		}
		d := tls.Dialer{Config: secure}
		return d.DialContext(ctx, network, address)
	}
}
