package authrequest

import (
	"net/http"
	"net/netip"
	"strings"

	"github.com/bearergate/bearergate/gate"
)

// ClientFrom is where an edge names the address of its client.
type ClientFrom uint8

const (
	// NoClient means that it does not, or cannot be believed.
	NoClient ClientFrom = iota
	// XRealIP means X-Real-IP.
	XRealIP
	// XForwardedFor means the last address in X-Forwarded-For: the one that the edge
	// itself has seen, and put behind what the client sent.
	XForwardedFor
)

// headers are those of a request from an edge that names no client.
type headers http.Header

// Header implements [gate.Headers].
func (h headers) Header(name string) string { return http.Header(h).Get(name) }

// Client implements [gate.Headers].
func (headers) Client() netip.Addr { return netip.Addr{} }

// realIP are headers with a client in X-Real-IP.
type realIP struct{ headers }

// Client implements [gate.Headers].
func (h realIP) Client() netip.Addr {
	if values := h.headers["X-Real-Ip"]; len(values) == 1 {
		return addressOf(values[0])
	}
	return netip.Addr{}
}

// forwardedFor are headers with a client in X-Forwarded-For.
type forwardedFor struct{ headers }

// Client implements [gate.Headers].
func (h forwardedFor) Client() netip.Addr {
	values := h.headers["X-Forwarded-For"]
	if len(values) == 0 {
		return netip.Addr{}
	}
	last := values[len(values)-1]
	return addressOf(strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:]))
}

func addressOf(text string) netip.Addr {
	address, _ := netip.ParseAddr(text) // else it is the zero Addr
	return address
}

// others finds what nobody decides by. (A map in an interface allocates nothing.)
func (t *trust) others(h http.Header) gate.Headers {
	switch t.ClientFrom {
	case XRealIP:
		return realIP{headers(h)}
	case XForwardedFor:
		return forwardedFor{headers(h)}
	default:
		return headers(h)
	}
}
