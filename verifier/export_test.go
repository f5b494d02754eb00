package verifier

import (
	"context"
	"net"
)

// ParseAnswer reads a reply of the endpoint.
var ParseAnswer = parseAnswer

// DialBy has connections to the endpoint made by a function. It is to be called
// before the first question.
func (v *Verifytoken) DialBy(dial func(ctx context.Context, network, address string) (net.Conn, error)) {
	v.client.transport.DialContext = dial
}

// ReadActive reads a reply of an introspection endpoint.
func ReadActive(reply []byte) (bool, error) {
	claims, err := ParseClaims(reply)
	if err != nil {
		return false, err
	}
	return readActive(claims)
}
