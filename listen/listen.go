// Package listen opens the doors of the gateway: what stands between an address
// and the server behind it.
//
// It promises that a server sees only connections that may come in: those whose
// TLS handshake is done, in time, by a client that is allowed. It knows nothing of
// what is spoken then.
package listen
