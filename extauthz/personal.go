package extauthz

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/bearergate/bearergate/gate"
)

// An allow that tells the API of the token is not the same for all tokens. Two
// encoded messages of one type, one behind the other, are read as one message, and
// what is repeated in them is joined. So the part that is the same for all goes
// out as it was made ahead, and behind it a few bytes with the rest.

// The fields that those bytes are made of.
var (
	okResponseField      = number(&authv3.CheckResponse{}, "ok_response")
	headersToRemoveField = number(&authv3.OkHttpResponse{}, "headers_to_remove")
	metadataField        = number(&authv3.CheckResponse{}, "dynamic_metadata")
	headersField         = number(&authv3.OkHttpResponse{}, "headers")
	headerField          = number(&corev3.HeaderValueOption{}, "header")
	appendActionField    = number(&corev3.HeaderValueOption{}, "append_action")
	keyField             = number(&corev3.HeaderValue{}, "key")
	valueField           = number(&corev3.HeaderValue{}, "value")
	fieldsField          = number(&structpb.Struct{}, "fields")
	structValueField     = number(&structpb.Value{}, "struct_value")
	stringValueField     = number(&structpb.Value{}, "string_value")
)

// The fields of a map's entry.
const (
	mapKeyField   protowire.Number = 1
	mapValueField protowire.Number = 2
)

func number(m proto.Message, name protoreflect.Name) protowire.Number {
	return m.ProtoReflect().Descriptor().Fields().ByName(name).Number()
}

// personal is a reply for one token, and what it is made of.
type personal struct {
	encoded

	parts [2]mem.Buffer
}

// with returns the reply with what is different for each token in it.
func (e *encoded) with(reply *gate.Reply, keep time.Duration) *encoded {
	identity := reply.Identity
	ok := 0
	for _, h := range identity {
		ok += sizeOf(headersField, sizeOfLine(h))
	}
	for _, name := range reply.Absent {
		ok += sizeOf(headersToRemoveField, len(name))
	}
	about := 0
	if reply.Fingerprint != "" {
		about += sizeOf(fieldsField, sizeOfEntry(gate.Header{Name: fingerprintKey, Value: reply.Fingerprint}))
	}
	if len(reply.Claims) > 0 {
		about += sizeOf(fieldsField, sizeOfStruct(claimsKey, reply.Claims))
	}
	kept := keep > 0 && len(identity) > 0
	if kept {
		about += sizeOf(fieldsField, sizeOfStruct(identityKey, identity))
	}

	b := make([]byte, 0, sizeOf(okResponseField, ok)+sizeOf(metadataField, about))
	b = begin(b, okResponseField, ok)
	for _, h := range identity {
		b = begin(b, headersField, sizeOfLine(h))
		b = begin(b, headerField, sizeOfHeader(h))
		b = appendText(b, keyField, h.Name)
		b = appendText(b, valueField, h.Value)
		b = protowire.AppendTag(b, appendActionField, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(overwriteAction))
	}
	for _, name := range reply.Absent {
		b = appendText(b, headersToRemoveField, name)
	}
	if about > 0 {
		b = begin(b, metadataField, about)
		if reply.Fingerprint != "" {
			b = appendEntry(b, gate.Header{Name: fingerprintKey, Value: reply.Fingerprint})
		}
		if len(reply.Claims) > 0 {
			b = appendStruct(b, claimsKey, reply.Claims)
		}
		if kept {
			b = appendStruct(b, identityKey, identity)
		}
	}
	p := &personal{parts: [2]mem.Buffer{e.wire[0], mem.SliceBuffer(b)}}
	p.wire = p.parts[:]
	return &p.encoded
}

// appendStruct appends an entry of the metadata that holds texts by name, and
// appendEntry one that is a text.
func appendStruct(b []byte, key string, lines []gate.Header) []byte {
	values := sizeOfValues(lines)
	b = begin(b, fieldsField, sizeOfStruct(key, lines))
	b = appendText(b, mapKeyField, key)
	b = begin(b, mapValueField, sizeOf(structValueField, values))
	b = begin(b, structValueField, values)
	for _, h := range lines {
		b = appendEntry(b, h)
	}
	return b
}

func appendEntry(b []byte, h gate.Header) []byte {
	b = begin(b, fieldsField, sizeOfEntry(h))
	b = appendText(b, mapKeyField, h.Name)
	b = begin(b, mapValueField, sizeOf(stringValueField, len(h.Value)))
	return appendText(b, stringValueField, h.Value)
}

// sizeOfStruct is the size of such an entry with texts, and sizeOfValues that of the
// texts.
func sizeOfStruct(key string, lines []gate.Header) int {
	return sizeOf(mapKeyField, len(key)) + sizeOf(mapValueField, sizeOf(structValueField, sizeOfValues(lines)))
}

func sizeOfValues(lines []gate.Header) int {
	size := 0
	for _, h := range lines {
		size += sizeOf(fieldsField, sizeOfEntry(h))
	}
	return size
}

// sizeOf is the size of a length-delimited field whose value has n bytes.
func sizeOf(field protowire.Number, n int) int {
	return protowire.SizeTag(field) + protowire.SizeBytes(n)
}

// sizeOfHeader is the size of a HeaderValue, sizeOfLine that of a HeaderValueOption
// around it, and sizeOfEntry that of an entry of the metadata.
func sizeOfHeader(h gate.Header) int {
	return sizeOf(keyField, len(h.Name)) + sizeOf(valueField, len(h.Value))
}

func sizeOfLine(h gate.Header) int {
	return sizeOf(headerField, sizeOfHeader(h)) + protowire.SizeTag(appendActionField) + protowire.SizeVarint(uint64(overwriteAction))
}

func sizeOfEntry(h gate.Header) int {
	return sizeOf(mapKeyField, len(h.Name)) + sizeOf(mapValueField, sizeOf(stringValueField, len(h.Value)))
}

// begin appends what stands before the n bytes of a length-delimited field.
func begin(b []byte, field protowire.Number, n int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.BytesType), uint64(n)) //nolint:gosec // no length is negative
}

func appendText(b []byte, field protowire.Number, text string) []byte {
	return append(begin(b, field, len(text)), text...)
}
