package extauthz

import (
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

// each yields the values of a field that are length-delimited.
func each(message []byte, field protowire.Number, yield func([]byte)) {
	for len(message) > 0 {
		num, typ, value, rest, err := nextField(message)
		if err != nil {
			return
		}
		message = rest
		if num == field && typ == protowire.BytesType {
			yield(value)
		}
	}
}

func last(message []byte, field protowire.Number) (value []byte) {
	each(message, field, func(v []byte) { value = v })
	return value
}

// generatedHeaders finds headers in a request of the generated types.
type generatedHeaders struct {
	http *authv3.AttributeContext_HttpRequest
}

// Header implements [gate.Headers].
func (h generatedHeaders) Header(name string) string {
	for _, header := range h.http.GetHeaderMap().GetHeaders() {
		if strings.EqualFold(header.GetKey(), name) {
			if raw := header.GetRawValue(); len(raw) > 0 {
				return string(raw)
			}
			return header.GetValue()
		}
	}
	return h.http.GetHeaders()[name]
}
