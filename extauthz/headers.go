package extauthz

import (
	"net/netip"
	"strings"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/encoding/protowire"
)

// The fields that lead to the headers of a request; a test holds them against the
// generated types.
const (
	checkAttributesField = 1  // of CheckRequest
	checkRequestField    = 4  // of AttributeContext
	checkHTTPField       = 2  // of AttributeContext.Request
	checkHeadersField    = 3  // of AttributeContext.HttpRequest
	checkHeaderMapField  = 13 // of AttributeContext.HttpRequest
	checkHeaderField     = 1  // of HeaderMap
	checkKeyField        = 1  // of a map's entry and of HeaderValue
	checkValueField      = 2  // of a map's entry and of HeaderValue
	checkRawValueField   = 3  // of HeaderValue

	// Those that lead to where a request comes from.
	checkSourceField        = 1 // of AttributeContext
	checkPeerAddressField   = 1 // of AttributeContext.Peer
	checkSocketAddressField = 1 // of Address; the others of its oneof are
	checkPipeField          = 2
	checkInternalField      = 3
	checkAddressField       = 2 // of SocketAddress
)

// Header implements [gate.Headers]. It is for what nobody decides by, and looks for
// it only when somebody asks, which is seldom: the check was read already, and is
// read once more.
func (q *question) Header(name string) string {
	found := ""
	note := func(key, value []byte) {
		if strings.EqualFold(text(key), name) {
			found = string(value)
		}
	}
	each(q.buf, checkAttributesField, func(attributes []byte) {
		each(attributes, checkRequestField, func(request []byte) {
			each(request, checkHTTPField, func(http []byte) {
				each(http, checkHeadersField, func(entry []byte) { note(last(entry, checkKeyField), last(entry, checkValueField)) })
				each(http, checkHeaderMapField, func(headers []byte) {
					each(headers, checkHeaderField, func(header []byte) {
						value := last(header, checkRawValueField)
						if len(value) == 0 {
							value = last(header, checkValueField)
						}
						note(last(header, checkKeyField), value)
					})
				})
			})
		})
	})
	return found
}

// Client implements [gate.Headers]: it is who opened the connection to Envoy, or by whom
// the PROXY protocol says that it was opened.
func (q *question) Client() netip.Addr { return addressOf(q.source()) }

// source returns the address of attributes.source, which is looked for as headers are.
// Of messages that are there twice and of a oneof the last counts, as the generated
// types have it.
func (q *question) source() (address string) {
	each(q.buf, checkAttributesField, func(attributes []byte) {
		each(attributes, checkSourceField, func(peer []byte) {
			each(peer, checkPeerAddressField, func(kinds []byte) {
				eachField(kinds, func(kind protowire.Number, value []byte) {
					switch kind {
					case checkSocketAddressField:
						each(value, checkAddressField, func(text []byte) { address = string(text) })
					case checkPipeField, checkInternalField:
						address = ""
					default:
					}
				})
			})
		})
	})
	return address
}

func addressOf(text string) netip.Addr {
	address, _ := netip.ParseAddr(text) // else it is the zero Addr
	return address
}

// each yields the values of a field that are length-delimited.
func each(message []byte, field protowire.Number, yield func([]byte)) {
	eachField(message, func(num protowire.Number, value []byte) {
		if num == field {
			yield(value)
		}
	})
}

// eachField yields all fields that are length-delimited.
func eachField(message []byte, yield func(protowire.Number, []byte)) {
	for len(message) > 0 {
		num, typ, value, rest, err := nextField(message)
		if err != nil {
			return
		}
		message = rest
		if typ == protowire.BytesType {
			yield(num, value)
		}
	}
}

func last(message []byte, field protowire.Number) (value []byte) {
	each(message, field, func(v []byte) { value = v })
	return value
}

// generatedHeaders finds headers in a check of the generated types.
type generatedHeaders struct{ check *authv3.CheckRequest }

// Header implements [gate.Headers].
func (h generatedHeaders) Header(name string) string {
	http := h.check.GetAttributes().GetRequest().GetHttp()
	for _, header := range http.GetHeaderMap().GetHeaders() {
		if strings.EqualFold(header.GetKey(), name) {
			if raw := header.GetRawValue(); len(raw) > 0 {
				return string(raw)
			}
			return header.GetValue()
		}
	}
	return http.GetHeaders()[name]
}

// Client implements [gate.Headers].
func (h generatedHeaders) Client() netip.Addr { return addressOf(h.source()) }

func (h generatedHeaders) source() string {
	return h.check.GetAttributes().GetSource().GetAddress().GetSocketAddress().GetAddress()
}
