package extauthz

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/bearergate/bearergate/extauthz/captured"
)

// maker makes messages that decoders like to read differently, out of choices: the
// same bytes make the same message. It knows what a type's fields are from its
// descriptor, and nothing of the walk.
//
// Bytes that are changed by chance seldom are a message, and more seldom say
// something new about the header. What comes out here is nearly one, or one that
// nobody would write.
type maker struct {
	choices []byte
	// wild says that much is odd; else a little is, so that many checks pass.
	wild bool
}

// below returns a number from 0 to n-1, n being at most 256; 0 when there are no
// more choices.
func (m *maker) below(n int) int {
	if len(m.choices) == 0 {
		return 0
	}
	c := m.choices[0]
	m.choices = m.choices[1:]
	return int(c) % n
}

// rarely is true one time in n.
func (m *maker) rarely(n int) bool { return m.below(n) == n-1 }

// odd is true one time in n if the check is a wild one.
func (m *maker) odd(n int) bool { return m.rarely(n) && (m.wild || m.rarely(16)) }

func choose[T any](m *maker, from ...T) T { return from[m.below(len(from))] }

// check makes a CheckRequest, or what looks like one. Sometimes it goes on where a
// check of Envoy ends, and is merged with it; sometimes it is cut off.
func (m *maker) check(envoys []captured.Check) []byte {
	m.wild = m.rarely(4)
	if m.rarely(64) && m.rarely(32) { // they take long
		n := maxDepth - 1 + m.below(4)
		switch m.below(4) {
		case 0:
			return deepGroups(n)
		case 1:
			return http(field(3, deepGroups(n)))
		case 2:
			return deepMetadata(m.oddity(nil, 1), n, m.below(3))
		default:
			return deepMetadata(nil, n, m.below(3))
		}
	}
	var b []byte
	if m.rarely(4) {
		b = slices.Clone(envoys[m.below(len(envoys))].Message)
	}
	b = append(b, m.message((&authv3.CheckRequest{}).ProtoReflect().Descriptor())...)
	if m.odd(8) {
		b = b[:(m.below(256)<<8|m.below(256))%(len(b)+1)]
	}
	return b
}

// toTheHeader are the fields on the way to what is read of a check.
var toTheHeader = map[protoreflect.FullName][]protoreflect.Name{
	"envoy.service.auth.v3.CheckRequest":                 {"attributes"},
	"envoy.service.auth.v3.AttributeContext":             {"request", "request", "request", "context_extensions", "source"},
	"envoy.service.auth.v3.AttributeContext.Peer":        {"address"},
	"envoy.config.core.v3.Address":                       {"socket_address", "socket_address", "pipe"},
	"envoy.config.core.v3.SocketAddress":                 {"address"},
	"envoy.service.auth.v3.AttributeContext.Request":     {"http"},
	"envoy.service.auth.v3.AttributeContext.HttpRequest": {"headers", "headers", "header_map", "path", "host", "method"},
}

func (m *maker) message(d protoreflect.MessageDescriptor) []byte {
	var b []byte
	for range 1 + m.below(4) {
		if len(m.choices) == 0 {
			break // types that hold themselves end here
		}
		if m.odd(16) {
			b = m.oddity(b, 3)
			continue
		}
		f := d.Fields().Get(m.below(d.Fields().Len()))
		if names := toTheHeader[d.FullName()]; names != nil && !m.rarely(4) {
			f = d.Fields().ByName(choose(m, names...))
		}
		b = m.field(b, f)
	}
	return b
}

func (m *maker) field(b []byte, f protoreflect.FieldDescriptor) []byte {
	if m.odd(16) {
		return m.value(b, f.Number(), protowire.Type(m.below(8)), 3)
	}
	switch f.Kind() {
	case protoreflect.StringKind, protoreflect.BytesKind:
		return m.bytes(b, f.Number(), m.text(f.Name()))
	case protoreflect.MessageKind:
		return m.bytes(b, f.Number(), m.message(f.Message()))
	case protoreflect.DoubleKind:
		return m.value(b, f.Number(), protowire.Fixed64Type, 0)
	default:
		if f.IsList() && !m.rarely(3) {
			var packed []byte
			for range m.below(4) {
				packed = m.varint(packed)
			}
			return m.bytes(b, f.Number(), packed)
		}
		return m.value(b, f.Number(), protowire.VarintType, 0)
	}
}

// text makes a string, or what should be one.
func (m *maker) text(of protoreflect.Name) []byte {
	if m.odd(8) {
		return []byte(choose(m, "\xff", "\xc3\x28", "\xed\xa0\x80", "a\xc3", "\xf4\x90\x80\x80", "authorization\xff", "Bearer one\xff"))
	}
	switch of {
	case "key":
		return []byte(choose(m, "authorization", "authorization", "authorization", "authorization", "Authorization", "AUTHORIZATION", "authorizatioN",
			"", "x", "authorizatio", "authorization ", "authorization\x00", "authorızation", "host", policyKey, policyKey, originHeader, wantedMethodHeader, ":path"))
	case "value", "raw_value":
		return []byte(choose(m, "Bearer one", "Bearer one", "Bearer two", "", "é"))
	default:
		return []byte(choose(m, "/a", "/b", "", "x", "é", "\x00"))
	}
}

// bytes appends a length-delimited field, whose length is sometimes written too
// long, and sometimes wrong.
func (m *maker) bytes(b []byte, num protowire.Number, value []byte) []byte {
	b = m.tag(b, num, protowire.BytesType)
	n := uint64(len(value))
	switch {
	case m.odd(32):
		b = tooLong(b, n)
	case m.odd(64):
		b = protowire.AppendVarint(b, choose(m, n+1, n-1, 1<<31, 1<<63))
	default:
		b = protowire.AppendVarint(b, n)
	}
	return append(b, value...)
}

func (m *maker) tag(b []byte, num protowire.Number, typ protowire.Type) []byte {
	tag := uint64(uint32(num))<<3 | uint64(typ)
	if m.odd(64) {
		return tooLong(b, tag)
	}
	return protowire.AppendVarint(b, tag)
}

// tooLong appends a varint in more bytes than it takes.
func tooLong(b []byte, v uint64) []byte {
	b = protowire.AppendVarint(b, v)
	b[len(b)-1] |= 0x80
	return append(b, 0x80, 0)
}

func (m *maker) varint(b []byte) []byte {
	switch {
	case !m.odd(4):
		return protowire.AppendVarint(b, uint64(m.below(256)))
	case m.rarely(2):
		return tooLong(b, 1)
	default: // eleven bytes, ten that overflow, ten that do not, and one that goes on
		return append(b, choose(m, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
			"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\xff")...)
	}
}

// oddity appends a field that no type has.
func (m *maker) oddity(b []byte, depth int) []byte {
	num := choose(m, 15, 16, 99, 0, protowire.MaxValidNumber, protowire.MaxValidNumber+1, 1<<30, -1)
	return m.value(b, num, protowire.Type(m.below(8)), depth)
}

// value appends a field of any wire type, and groups of such.
func (m *maker) value(b []byte, num protowire.Number, typ protowire.Type, depth int) []byte {
	switch typ {
	case protowire.VarintType:
		return m.varint(m.tag(b, num, typ))
	case protowire.BytesType:
		return m.bytes(b, num, m.text(""))
	case protowire.Fixed32Type:
		return append(m.tag(b, num, typ), "\xff\xff\xff\xff"[:4-m.below(32)/31]...)
	case protowire.Fixed64Type:
		return append(m.tag(b, num, typ), "\xff\xff\xff\xff\xff\xff\xff\xff"[:8-m.below(32)/31]...)
	case protowire.StartGroupType:
		b = m.tag(b, num, typ)
		for range m.below(3) {
			if depth > 0 {
				b = m.oddity(b, depth-1)
			}
		}
		switch m.below(8) {
		case 6:
			return b // it does not end
		case 7:
			num++ // another one does
		}
		return m.tag(b, num, protowire.EndGroupType)
	default: // an end without a start, and types that there are not
		return m.tag(b, num, typ)
	}
}

// chances are choices that are always the same ones.
func chances(seed uint64) []byte {
	random := rand.New(rand.NewPCG(seed, 0))
	choices := make([]byte, 20+random.IntN(200))
	for i := range choices {
		choices[i] = byte(random.Uint32())
	}
	return choices
}

// TestTheWalkAgreesOnMadeChecks does what fuzzing does, for a moment.
func TestTheWalkAgreesOnMadeChecks(t *testing.T) {
	most := 100_000
	if raceDetector || testing.Short() {
		most = 10_000
	}
	root, envoys := leastAndMost(), capturedChecks(t)
	var wellFormed, withValues, several int
	var shortest []byte
	first, problem := -1, ""
	for i := range most {
		data := (&maker{choices: chances(uint64(i))}).check(envoys)
		if p := disagree(root, data); p != "" {
			if first < 0 {
				first = i
			}
			if problem == "" || len(data) < len(shortest) {
				shortest, problem = data, p
			}
			continue
		}
		var check authv3.CheckRequest
		if proto.Unmarshal(data, &check) == nil {
			wellFormed++
			switch n := len(credentials(check.GetAttributes().GetRequest().GetHttp())); {
			case n > 1:
				several++
				fallthrough
			case n > 0:
				withValues++
			}
		}
	}
	if problem != "" {
		t.Errorf("after %d checks; the shortest of all: %s\n%x", first, problem, shortest)
	}
	t.Logf("of %d checks %d are well-formed, %d have the header, %d have it more than once", most, wellFormed, withValues, several)
	for what, n := range map[string]int{"well-formed": wellFormed, "malformed": most - wellFormed, "with a value": withValues, "with several": several} {
		if n < most/20 {
			t.Errorf("few of the checks are %s: they show little", what)
		}
	}
}

// TestPackedNumbersAreRefusedLikeByTheGeneratedTypes uses another type of message,
// because a check has no field that may be packed. Some day one may.
func TestPackedNumbersAreRefusedLikeByTheGeneratedTypes(t *testing.T) {
	d := (&routev3.RetryPolicy{}).ProtoReflect().Descriptor()
	root := shapeOf(d, map[protoreflect.FullName]*shape{})
	packed := d.Fields().ByName("retriable_status_codes")
	refused := 0
	for i := range 20_000 {
		m := &maker{choices: chances(uint64(i))}
		data := m.field(nil, packed)
		want := proto.Unmarshal(data, &routev3.RetryPolicy{})
		if got := new(question).walk(root, data, maxDepth); (got == nil) != (want == nil) {
			t.Fatalf("%x: the generated type says %v, the walk says %v", data, want, got)
		}
		if want != nil {
			refused++
		}
	}
	if refused == 0 {
		t.Error("none was refused")
	}
}

// deep are messages that are nested as deep as they may be, and one deeper.
func deep() map[string][]byte {
	all := map[string][]byte{}
	for name, n := range map[string]int{"one less deep than may be": maxDepth - 1, "as deep as may be": maxDepth, "one too deep": maxDepth + 1} {
		for lists := range 3 { // so that each type is the innermost once
			for rest, inner := range map[string][]byte{"nothing": {}, "text": texts(1, "x"), "a group": {0x7b, 0x7c}, "too much": field(5)} {
				all[fmt.Sprintf("messages %s with %s inside, after %d lists", name, rest, lists)] = deepMetadata(inner, n, lists)
			}
		}
		// A group is not counted until there is another one in it.
		groups := deepGroups(n + 1)
		all["groups "+name] = groups
		all["groups in a request "+name] = http(groups)
		all["groups in a header "+name] = http(field(3, groups))
		all["groups in an element "+name] = http(element(groups))
	}
	return all
}

func deepGroups(n int) []byte {
	return []byte(strings.Repeat("\x7b", n) + strings.Repeat("\x7c", n))
}

// deepMetadata is a check of n messages in each other.
func deepMetadata(inner []byte, n, lists int) []byte {
	// On from an AttributeContext: metadata_context, an entry, and its Struct.
	path := []protowire.Number{1, 11, 1, 2}
	for range lists {
		path = append(path, 1, 2, 6, 1, 5) // an entry, a Value, a ListValue, a Value, a Struct
	}
	for len(path) < n-1 {
		path = append(path, 1, 2, 5) // an entry, a Value, a Struct
	}
	return nest(inner, path[:n-1]) // around it is the CheckRequest
}

// nest puts a message into others, by the numbers of the fields from the outside to
// the inside. It writes from the end, or it would copy and copy.
func nest(inner []byte, path []protowire.Number) []byte {
	room := make([]byte, 12*len(path)+len(inner))
	at := len(room) - copy(room[len(room)-len(inner):], inner)
	for _, num := range slices.Backward(path) {
		head := protowire.AppendTag(nil, num, protowire.BytesType)
		head = protowire.AppendVarint(head, uint64(len(room)-at))
		at -= copy(room[at-len(head):], head)
	}
	return room[at:]
}

func TestTheWalkGoesAsDeepAsTheGeneratedTypes(t *testing.T) {
	root := leastAndMost()
	accepted := 0
	for name, data := range deep() {
		if problem := disagree(root, data); problem != "" {
			t.Errorf("%s: %s", name, problem)
		}
		if proto.Unmarshal(data, &authv3.CheckRequest{}) == nil {
			accepted++
		}
	}
	if accepted == 0 || accepted == len(deep()) {
		t.Errorf("%d of %d are accepted: the bound is not among them", accepted, len(deep()))
	}
}
