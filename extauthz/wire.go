package extauthz

import (
	"errors"
	"strings"
	"unicode/utf8"
	"unsafe"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/policy"
)

// Of a CheckRequest the gate needs one header and the path, and what the running
// configuration chooses policies by. The generated type
// makes two dozen map entries and strings to tell them; a walk over the wire
// format finds them in place.
//
// Two decoders of one message are a risk: whoever finds bytes that they read
// differently may slip past one of them. So the walk refuses exactly what
// [proto.Unmarshal] refuses, in parts too that nobody asks for, and reads
// repeated fields, merged messages and map entries as it does.
// FuzzWireAgreesWithGenerated holds both against each other.

var errWire = errors.New("the check is no well-formed CheckRequest")

// maxDepth is how deep messages may be nested, as in [proto.UnmarshalOptions].
const maxDepth = protowire.DefaultRecursionLimit

// shape is what the walk knows of a message type: its fields by number.
type shape struct {
	fields []fieldShape
	// Of the root alone: whether policies read the path, and the headers of a preflight.
	path, preflight bool
	// Whether refusals show the request's ID.
	requestID bool
}

// fieldShape says what a field's value must be. The zero value is an unknown
// field, whose value only has to be well-formed.
type fieldShape struct {
	kind    fieldKind
	message *shape
	role    role
}

type fieldKind uint8

const (
	anyKind     fieldKind = iota // nothing to check beyond the wire format
	stringKind                   // UTF-8
	messageKind                  // a message, or a map entry
	packedVarints
	packedFixed32
	packedFixed64
)

// role says what a field means to the gate.
type role uint8

const (
	noRole role = iota
	pathRole
	methodRole
	hostRole
	headersRole    // an entry of the map headers
	headerMapRole  // an element of header_map.headers
	extensionsRole // an entry of the map context_extensions
)

// checkShape is the shape of a CheckRequest, with the roles of what is needed of it.
func checkShape(needs gate.Needs) *shape {
	made := map[protoreflect.FullName]*shape{}
	root := shapeOf((&authv3.CheckRequest{}).ProtoReflect().Descriptor(), made)
	http := made[(&authv3.AttributeContext_HttpRequest{}).ProtoReflect().Descriptor().FullName()]
	descriptor := (&authv3.AttributeContext_HttpRequest{}).ProtoReflect().Descriptor()
	http.fields[descriptor.Fields().ByName("path").Number()].role = pathRole
	http.fields[descriptor.Fields().ByName("headers").Number()].role = headersRole
	if needs.Method {
		http.fields[descriptor.Fields().ByName("method").Number()].role = methodRole
	}
	if needs.Host {
		http.fields[descriptor.Fields().ByName("host").Number()].role = hostRole
	}
	if needs.Policy {
		attributes := (&authv3.AttributeContext{}).ProtoReflect().Descriptor()
		made[attributes.FullName()].fields[attributes.Fields().ByName("context_extensions").Number()].role = extensionsRole
	}
	root.preflight, root.path, root.requestID = needs.Preflight, needs.Path, needs.RequestID
	headerMap := descriptor.Fields().ByName("header_map")
	// HeaderMap occurs nowhere else in a CheckRequest.
	made[headerMap.Message().FullName()].fields[headerMap.Message().Fields().ByName("headers").Number()].role = headerMapRole
	return root
}

// shapeOf makes the shape of a message type and of all types below it.
func shapeOf(d protoreflect.MessageDescriptor, made map[protoreflect.FullName]*shape) *shape {
	if s := made[d.FullName()]; s != nil {
		return s
	}
	s := &shape{}
	made[d.FullName()] = s // before its fields: types may hold themselves
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		for len(s.fields) <= int(f.Number()) {
			s.fields = append(s.fields, fieldShape{})
		}
		var field fieldShape
		switch f.Kind() {
		case protoreflect.StringKind:
			field.kind = stringKind
		case protoreflect.MessageKind:
			field = fieldShape{kind: messageKind, message: shapeOf(f.Message(), made)}
		case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind, protoreflect.FloatKind:
			field.kind = packed(f, packedFixed32)
		case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
			field.kind = packed(f, packedFixed64)
		case protoreflect.BytesKind:
		default:
			field.kind = packed(f, packedVarints)
		}
		s.fields[f.Number()] = field
	}
	return s
}

// packed returns the kind of a number's field: repeated ones may come packed.
func packed(f protoreflect.FieldDescriptor, kind fieldKind) fieldKind {
	if f.IsList() {
		return kind
	}
	return anyKind
}

// question is what the gate needs of a CheckRequest. Its strings lie in buf.
type question struct {
	// by is who decides about it, from its first byte to its reply.
	by  *decider
	buf []byte
	// authorization are the entries of the map headers that are called so, in
	// whatever letter case. One key has one value: the last.
	authorization [2]struct{ key, value string }
	keys          int
	// values are all values of the header, as many as fit; there may be more.
	values []string
	room   [2]string
	path   string
	// What policies are chosen by, as far as the shape asks for it.
	facts          policy.Facts
	origin, wanted bool // the headers of a preflight
	preflight      bool // whether they are looked for
	id             identifier
	identified     bool // whether it is looked for
	// err says that the bytes were no CheckRequest.
	err error
}

// reset makes the question read another request.
func (q *question) reset() {
	*q = question{buf: q.buf[:0]}
	q.values = q.room[:0]
}

// read reads the request that is in buf.
func (q *question) read(root *shape) {
	q.preflight, q.identified = root.preflight, root.requestID
	q.err = q.walk(root, q.buf, maxDepth)
	if root.path {
		q.facts.Path, _, _ = strings.Cut(q.path, "?")
	}
	for _, entry := range q.authorization[:q.keys] {
		q.value(entry.value)
	}
}

// request returns what the gate needs to know.
func (q *question) request() gate.Request {
	return gate.Request{Facts: q.facts, Preflight: q.origin && q.wanted, Authorization: q.values, Target: q.path, RequestID: q.id.only(), Headers: q}
}

// value notes a value of the Authorization header. That there is more than one
// is all that anybody wants to know of more than one.
func (q *question) value(value string) {
	if len(q.values) < cap(q.values) {
		q.values = append(q.values, value)
	}
}

// walk reads a message.
func (q *question) walk(s *shape, b []byte, depth int) error {
	depth--
	if depth < 0 {
		return errWire
	}
	for len(b) > 0 {
		num, typ, value, rest, err := nextField(b)
		if err != nil {
			return err
		}
		b = rest
		if err := q.field(s, num, typ, value, depth); err != nil {
			return err
		}
	}
	return nil
}

// nextField takes a field off a message. The value of a length-delimited field
// comes without its length; others are whole.
func nextField(b []byte) (num protowire.Number, typ protowire.Type, value, rest []byte, err error) {
	num, typ, n := protowire.ConsumeTag(b)
	if n < 0 || num > protowire.MaxValidNumber {
		return 0, 0, nil, nil, errWire
	}
	b = b[n:]
	if typ == protowire.BytesType {
		value, n = protowire.ConsumeBytes(b)
		if n < 0 {
			return 0, 0, nil, nil, errWire
		}
		return num, typ, value, b[n:], nil
	}
	if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
		return 0, 0, nil, nil, errWire
	}
	return num, typ, b[:n], b[n:], nil
}

// field checks the value of a field, and notes it if it matters. A known field
// with another wire type than its own is an unknown field.
func (q *question) field(s *shape, num protowire.Number, typ protowire.Type, value []byte, depth int) error {
	if typ != protowire.BytesType || int(num) >= len(s.fields) {
		return nil
	}
	f := &s.fields[num]
	switch f.kind {
	case stringKind:
		if !utf8.Valid(value) {
			return errWire
		}
		switch f.role {
		case pathRole:
			q.path = text(value)
		case methodRole:
			q.facts.Method = text(value)
		case hostRole:
			q.facts.Host = text(value)
		default:
		}
	case messageKind:
		switch f.role {
		case headersRole:
			return q.headersEntry(f.message, value, depth)
		case headerMapRole:
			return q.headerMapElement(f.message, value, depth)
		case extensionsRole:
			return q.extensionsEntry(f.message, value, depth)
		default:
			return q.walk(f.message, value, depth)
		}
	case packedVarints, packedFixed32, packedFixed64:
		return checkPacked(f.kind, value)
	case anyKind:
	}
	return nil
}

// mapEntry reads an entry of a map of texts: key = 1, value = 2, each the last of
// its kind, or empty.
func (q *question) mapEntry(s *shape, b []byte, depth int) (key, value []byte, err error) {
	if depth < 1 {
		return nil, nil, errWire
	}
	for len(b) > 0 {
		num, typ, v, rest, err := nextField(b)
		if err != nil {
			return nil, nil, err
		}
		b = rest
		if err := q.field(s, num, typ, v, depth-1); err != nil {
			return nil, nil, err
		}
		if typ == protowire.BytesType {
			switch int(num) {
			case 1:
				key = v
			case 2:
				value = v
			}
		}
	}
	return key, value, nil
}

// extensionsEntry reads an entry of the map context_extensions. Of two with one key
// the last counts.
func (q *question) extensionsEntry(s *shape, b []byte, depth int) error {
	key, value, err := q.mapEntry(s, b, depth)
	if err == nil && text(key) == policyKey {
		q.facts.Policy, q.facts.Named = text(value), true
	}
	return err
}

// preflightHeader notes a header of a preflight.
func (q *question) preflightHeader(key string) {
	if q.preflight {
		q.origin = q.origin || key == originHeader
		q.wanted = q.wanted || key == wantedMethodHeader
	}
}

// headersEntry reads an entry of the map headers.
func (q *question) headersEntry(s *shape, b []byte, depth int) error {
	key, value, err := q.mapEntry(s, b, depth)
	if err != nil {
		return err
	}
	q.preflightHeader(text(key))
	if q.identified && text(key) == requestIDHeader {
		q.id.inMap(text(value))
	}
	if !isAuthorization(text(key)) {
		return nil
	}
	for i := range q.authorization[:q.keys] {
		if q.authorization[i].key == text(key) {
			q.authorization[i].value = text(value)
			return nil
		}
	}
	if q.keys == len(q.authorization) {
		return nil // there are two already
	}
	q.authorization[q.keys].key, q.authorization[q.keys].value = text(key), text(value)
	q.keys++
	return nil
}

// headerMapElement reads a HeaderValue: key = 1, value = 2, raw_value = 3.
func (q *question) headerMapElement(s *shape, b []byte, depth int) error {
	if depth < 1 {
		return errWire
	}
	var key, value, raw []byte
	for len(b) > 0 {
		num, typ, v, rest, err := nextField(b)
		if err != nil {
			return err
		}
		b = rest
		if err := q.field(s, num, typ, v, depth-1); err != nil {
			return err
		}
		if typ == protowire.BytesType {
			switch int(num) {
			case 1:
				key = v
			case 2:
				value = v
			case 3:
				raw = v
			}
		}
	}
	q.preflightHeader(text(key))
	if q.identified && text(key) == requestIDHeader {
		eachValue(text(value), text(raw), q.id.inList)
	}
	if isAuthorization(text(key)) {
		eachValue(text(value), text(raw), q.value)
	}
	return nil
}

// eachValue yields the values of a header that came as a string, as bytes, or as
// both: once if they are the same.
func eachValue(value, raw string, yield func(string)) {
	if raw != "" || value == "" {
		yield(raw)
	}
	if value != "" && value != raw {
		yield(value)
	}
}

func isAuthorization(key string) bool { return strings.EqualFold(key, "authorization") }

// checkPacked checks the numbers of a packed field.
func checkPacked(kind fieldKind, b []byte) error {
	for len(b) > 0 {
		var n int
		switch kind {
		case packedFixed32:
			_, n = protowire.ConsumeFixed32(b)
		case packedFixed64:
			_, n = protowire.ConsumeFixed64(b)
		default:
			_, n = protowire.ConsumeVarint(b)
		}
		if n < 0 {
			return errWire
		}
		b = b[n:]
	}
	return nil
}

// text returns bytes of a question's buffer as a string that shares them.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
