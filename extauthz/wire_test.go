package extauthz

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/policy"
	"github.com/bearergate/bearergate/talkers"
	"github.com/bearergate/bearergate/verifier"
)

// everything is what the most demanding configuration needs.
var everything = gate.Needs{Needs: policy.Needs{Method: true, Host: true, Path: true, Policy: true}, Preflight: true, RequestID: true}

// walks are the walks for configurations with different needs.
type walks map[gate.Needs]*shape

func allWalks() walks {
	made := leastAndMost()
	for _, needs := range []gate.Needs{
		{Needs: policy.Needs{Method: true}},
		{Needs: policy.Needs{Host: true}},
		{Needs: policy.Needs{Path: true}},
		{Needs: policy.Needs{Policy: true}},
		{Preflight: true},
		{RequestID: true},
	} {
		made[needs] = checkShape(needs)
	}
	return made
}

// leastAndMost are those of which one needs nothing and the other everything.
func leastAndMost() walks {
	return walks{{}: checkShape(gate.Needs{}), everything: checkShape(everything)}
}

// disagree compares both readings of the same bytes: by the generated types, and by
// the walk over the wire. "" means that they agree.
func disagree(ws walks, data []byte) string {
	var check authv3.CheckRequest
	err := proto.Unmarshal(data, &check)
	for needs, root := range ws {
		if problem := disagreeOn(root, needs, data, &check, err); problem != "" {
			return fmt.Sprintf("%+v: %s", needs, problem)
		}
	}
	return ""
}

func disagreeOn(root *shape, needs gate.Needs, data []byte, check *authv3.CheckRequest, err error) string {
	q := &question{}
	q.reset()
	q.buf = append(q.buf, data...)
	q.read(root)
	if (err == nil) != (q.err == nil) {
		return fmt.Sprintf("the generated types say %v, the walk says %v", err, q.err)
	}
	if err != nil {
		return ""
	}
	wanted, got := request(check, needs), q.request()
	if got.Facts != wanted.Facts || got.Preflight != wanted.Preflight || got.Target != wanted.Target || got.RequestID != wanted.RequestID {
		return fmt.Sprintf("the request is %+v, the walk says %+v", wanted, got)
	}
	if got, want := q.source(), (generatedHeaders{check}).source(); got != want {
		return fmt.Sprintf("the client is %q, the walk says %q", want, got)
	}
	want := wanted.Authorization
	// That there are several is all that is told of several.
	if min(len(want), 2) != len(q.values) || len(want) == 1 && want[0] != q.values[0] {
		return fmt.Sprintf("the values are %q, the walk says %q", want, q.values)
	}
	return ""
}

// field encodes a length-delimited field.
func field(num protowire.Number, values ...[]byte) []byte {
	var value []byte
	for _, v := range values {
		value = append(value, v...)
	}
	return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), value)
}

func texts(num protowire.Number, value string) []byte { return field(num, []byte(value)) }

// http wraps fields of an HttpRequest into a CheckRequest.
func http(fields ...[]byte) []byte { return field(1, field(4, field(2, fields...))) }

// entry encodes an entry of the map headers.
func entry(key, value string) []byte { return field(3, texts(1, key), texts(2, value)) }

// extension encodes an entry of the map context_extensions.
func extension(fields ...[]byte) []byte { return field(1, field(10, fields...)) }

// element encodes a HeaderValue of header_map.
func element(fields ...[]byte) []byte { return field(13, field(1, fields...)) }

// nasties are messages that decoders like to read differently.
func nasties() map[string][]byte {
	join := func(parts ...[]byte) []byte {
		var all []byte
		for _, part := range parts {
			all = append(all, part...)
		}
		return all
	}
	varint := func(num protowire.Number, value uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), value)
	}
	group := func(num protowire.Number, inner ...[]byte) []byte {
		b := protowire.AppendTag(nil, num, protowire.StartGroupType)
		b = append(b, join(inner...)...)
		return protowire.AppendTag(b, num, protowire.EndGroupType)
	}
	source := func(addresses ...[]byte) []byte { return field(1, field(1, field(1, addresses...))) }
	const good = "Bearer one"
	deep := texts(1, "x")
	for range 200 {
		deep = field(5, field(1, texts(1, "k"), field(2, deep))) // a Struct in a Value in a Struct
	}
	all := map[string][]byte{
		"nothing":                            {},
		"an empty request":                   http(),
		"one value":                          http(entry("authorization", good)),
		"one value in capitals":              http(entry("AUTHORIZATION", good)),
		"one key twice, the last wins":       http(entry("authorization", "Bearer two"), entry("authorization", good)),
		"two spellings":                      http(entry("authorization", good), entry("Authorization", good)),
		"three spellings":                    http(entry("authorization", good), entry("Authorization", good), entry("AUTHORIZATION", good)),
		"a spelling again after two":         http(entry("authorization", good), entry("Authorization", good), entry("authorization", "Bearer two")),
		"a letter that folds":                http(entry("authoriıation", good), entry("authorization\u017f", good)),
		"the Kelvin sign":                    http(entry("\u212aauthorization", good)),
		"an entry without a key":             http(field(3, texts(2, good))),
		"an entry without a value":           http(field(3, texts(1, "authorization"))),
		"an entry with nothing":              http(field(3)),
		"an entry with its key twice":        http(field(3, texts(1, "x"), texts(1, "authorization"), texts(2, good))),
		"an entry whose last key is another": http(field(3, texts(1, "authorization"), texts(2, good), texts(1, "x"))),
		"an entry with its value twice":      http(field(3, texts(1, "authorization"), texts(2, "Bearer two"), texts(2, good))),
		"an entry with the value first":      http(field(3, texts(2, good), texts(1, "authorization"))),
		"an entry with an unknown field":     http(field(3, texts(1, "authorization"), texts(7, "x"), texts(2, good))),
		"an entry with a number for a key":   http(field(3, varint(1, 5), texts(2, good))),
		"an entry with a number after a key": http(field(3, texts(1, "authorization"), varint(1, 5), texts(2, good))),
		"an entry with bytes for a value":    http(field(3, texts(1, "authorization"), field(2, []byte("\xff")))),
		"a key that is not UTF-8":            http(entry("authorization\xff", good)),
		"merged requests":                    join(http(entry("authorization", good)), http(texts(4, "/a"))),
		"merged requests, two values":        join(http(entry("authorization", good)), http(entry("Authorization", good))),
		"merged requests, one key":           join(http(entry("authorization", good)), http(entry("authorization", "Bearer two"))),
		"the path twice":                     http(texts(4, "/a"), texts(4, "/b")),
		"the path, then empty":               http(texts(4, "/a"), texts(4, "")),
		"the path with a query":              http(texts(4, "/a?b?c")),
		"a query alone":                      http(texts(4, "?a")),
		"method and host":                    http(texts(2, "GET"), texts(5, "a.b:80")),
		"method and host twice":              http(texts(2, "GET"), texts(5, "a"), texts(5, ""), texts(2, "PUT")),
		"a method that is not UTF-8":         http(texts(2, "GET\xff")),
		"a number for a method":              http(varint(2, 1), texts(5, "a")),
		"a policy":                           extension(texts(1, "bearergate_policy"), texts(2, "one")),
		"a policy and others":                join(extension(texts(1, "x"), texts(2, "y")), extension(texts(1, "bearergate_policy"), texts(2, "one")), extension(texts(1, "Bearergate_policy"), texts(2, "z"))),
		"two policies":                       join(extension(texts(1, "bearergate_policy"), texts(2, "one")), extension(texts(1, "bearergate_policy"), texts(2, "two"))),
		"a policy, then an empty one":        join(extension(texts(1, "bearergate_policy"), texts(2, "one")), extension(texts(1, "bearergate_policy"))),
		"a policy without a key":             extension(texts(2, "one")),
		"a policy whose last key is another": extension(texts(1, "bearergate_policy"), texts(2, "one"), texts(1, "x")),
		"a policy with two values":           extension(texts(2, "one"), texts(1, "bearergate_policy"), texts(2, "two")),
		"a policy with an unknown field":     extension(texts(1, "bearergate_policy"), group(9), texts(2, "one")),
		"a policy that is not UTF-8":         extension(texts(1, "bearergate_policy"), texts(2, "\xff")),
		"a policy in another place":          field(1, field(4, field(10, texts(1, "bearergate_policy"), texts(2, "one")))),
		"a preflight":                        http(texts(2, "OPTIONS"), entry("origin", "x"), entry("access-control-request-method", "PUT")),
		"a preflight in header_map":          http(texts(2, "OPTIONS"), element(texts(1, "origin")), element(texts(1, "access-control-request-method"), texts(2, "PUT"))),
		"an ID":                              http(entry("x-request-id", "one")),
		"an ID in header_map":                http(element(texts(1, "x-request-id"), texts(3, "one"))),
		"an ID twice in the map":             http(entry("x-request-id", "one"), entry("x-request-id", "two")),
		"an ID twice in header_map":          http(element(texts(1, "x-request-id"), texts(3, "one")), element(texts(1, "x-request-id"), texts(3, "one"))),
		"an ID in both places":               http(entry("x-request-id", "one"), element(texts(1, "x-request-id"), texts(3, "one"))),
		"an ID as text and as other bytes":   http(element(texts(1, "x-request-id"), texts(2, "one"), texts(3, "two"))),
		"an ID in capitals":                  http(entry("X-Request-ID", "one")),
		"an ID without a value":              http(element(texts(1, "x-request-id"))),
		"half of a preflight":                http(texts(2, "OPTIONS"), entry("origin", "x"), entry("Access-Control-Request-Method", "PUT")),
		"a preflight in both places":         http(entry("origin", ""), element(texts(1, "access-control-request-method"))),
		"a path that is not UTF-8":           http(texts(4, "/\xff")),
		"a host that is not UTF-8":           http(texts(5, "\xc3\x28")),
		"a scheme that is a surrogate":       http(texts(6, "\xed\xa0\x80")),
		"an id that is written too long":     http(texts(1, "\xc0\x80")),
		"a query beyond Unicode":             http(texts(7, "\xf4\x90\x80\x80")),
		"a body that is not UTF-8":           http(texts(11, "\xff")),
		"a raw body that is not UTF-8":       http(texts(12, "\xff")),
		"raw_value":                          http(element(texts(1, "authorization"), texts(3, good))),
		"raw_value that is not UTF-8":        http(element(texts(1, "authorization"), texts(3, "Bearer \xff"))),
		"value and raw_value alike":          http(element(texts(1, "authorization"), texts(2, good), texts(3, good))),
		"value and raw_value unlike":         http(element(texts(1, "authorization"), texts(2, good), texts(3, "Bearer two"))),
		"raw_value in capitals":              http(element(texts(1, "AUTHORIZATION"), texts(3, good))),
		"white space around keys":            http(entry("authorization ", good), entry(" authorization", good), element(texts(1, "authorization\t"), texts(3, good))),
		"a key that ends too early":          http(entry("authorization\x00", good), entry("authorizatio", good)),
		"an element twice":                   http(element(texts(1, "authorization"), texts(3, good)), element(texts(1, "authorization"), texts(3, good))),
		"both places":                        http(entry("authorization", good), element(texts(1, "authorization"), texts(3, good))),
		"an element without a value":         http(element(texts(1, "authorization"))),
		"an element without a key":           http(element(texts(3, good))),
		"an element with an append action":   http(element(texts(1, "authorization"), texts(3, good), varint(9, 1))),
		"a header map that is merged":        http(field(13, field(1, texts(1, "a"))), field(13, field(1, texts(1, "authorization"), texts(3, good)))),
		"both places, in merged requests":    join(http(element(texts(1, "authorization"), texts(2, good))), http(entry("Authorization", good))),
		"three elements":                     http(element(texts(1, "authorization"), texts(3, good)), element(texts(1, "AUTHORIZATION"), texts(3, good)), element(texts(1, "authorization"), texts(3, "Bearer two"))),
		"an element with its key twice":      http(element(texts(1, "authorization"), texts(1, "x"), texts(3, good))),
		"an element with its value twice":    http(element(texts(1, "authorization"), texts(3, "Bearer two"), texts(3, good))),
		"an element with a value, then none": http(element(texts(1, "authorization"), texts(3, good), texts(3, ""))),
		"an element whose value is no UTF-8": http(element(texts(1, "x"), texts(2, "\xff"))),
		"an element whose key is no UTF-8":   http(element(texts(1, "\xff"), texts(3, good))),
		"a metadata entry without a value":   field(1, field(11, field(1, texts(1, "k")))),
		"a metadata entry with two values":   field(1, field(11, field(1, field(2, field(1, texts(1, "a"))), texts(1, "k"), field(2, field(1, texts(1, "\xff")))))),
		"a metadata entry with a number":     field(1, field(11, field(1, texts(1, "k"), varint(2, 1)))),
		"a double that is cut off":           field(1, field(11, field(1, texts(1, "k"), field(2, field(1, field(2, []byte{0x11, 1, 2, 3})))))),
		"a time of eleven bytes":             field(1, field(4, field(1, []byte{0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}))),
		"a message as a number":              field(1, varint(4, 3)),
		"attributes as a number":             varint(1, 3),
		"a path as a number":                 http(varint(4, 3)),
		"a size as text":                     http(texts(9, "x")),
		"a size as fixed64":                  http(protowire.AppendFixed64(protowire.AppendTag(nil, 9, protowire.Fixed64Type), 9)),
		"unknown fields":                     join(texts(15, "\xff"), varint(16, 1), http(texts(99, "\xff"), entry("authorization", good))),
		"an unknown group":                   join(group(15, texts(1, "\xff"), varint(2, 1)), http(entry("authorization", good))),
		"a group in a group":                 http(group(20, group(21, texts(1, "x")), texts(2, "y"))),
		"attributes as a group":              group(1, texts(1, "x")),
		"a headers entry as a group":         http(group(3, texts(1, "authorization"), texts(2, good))),
		"a group that ends twice":            join(group(15), protowire.AppendTag(nil, 15, protowire.EndGroupType)),
		"a group that ends as another":       join(protowire.AppendTag(nil, 15, protowire.StartGroupType), protowire.AppendTag(nil, 16, protowire.EndGroupType)),
		"a group whose inner one ends late":  join(protowire.AppendTag(nil, 15, protowire.StartGroupType), protowire.AppendTag(nil, 16, protowire.StartGroupType), protowire.AppendTag(nil, 15, protowire.EndGroupType), protowire.AppendTag(nil, 16, protowire.EndGroupType)),
		"a group in a group that goes on":    join(protowire.AppendTag(nil, 15, protowire.StartGroupType), group(16)),
		"a group that ends outside":          join(http(protowire.AppendTag(nil, 15, protowire.StartGroupType)), protowire.AppendTag(nil, 15, protowire.EndGroupType)),
		"a group in a headers entry":         http(field(3, texts(1, "authorization"), group(2, texts(1, "x")), texts(2, good))),
		"a group with a number 0 inside":     group(15, []byte{0x02, 0x00}),
		"a group with text of no UTF-8":      group(1, field(4, field(2, texts(4, "\xff")))),
		"a group that does not end":          protowire.AppendTag(nil, 15, protowire.StartGroupType),
		"field number 0":                     {0x02, 0x00},
		"the largest field number":           protowire.AppendBytes(protowire.AppendVarint(nil, protowire.EncodeTag(protowire.MaxValidNumber, protowire.BytesType)), nil),
		"a field number that is too large":   protowire.AppendBytes(protowire.AppendVarint(nil, uint64(protowire.MaxValidNumber+1)<<3|2), nil),
		"a field number of 32 bits":          protowire.AppendBytes(protowire.AppendVarint(nil, uint64(1<<31)<<3|2), nil),
		"a field number of 61 bits":          protowire.AppendBytes(protowire.AppendVarint(nil, ^uint64(0)&^7|2), nil),
		"a reserved wire type":               {0x0e, 0x00},
		"a tag of too many bytes":            {0x8a, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0x00},
		"a tag written too long":             {0x8a, 0x80, 0x00, 0x00},
		"a length written too long":          {0x0a, 0x80, 0x80, 0x00},
		"a length that overflows":            {0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
		"a number that overflows":            {0x78, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02},
		"deep metadata":                      field(1, field(11, field(1, texts(1, "k"), field(2, field(1, texts(1, "x"), field(2, deep)))))),
		"a principal that is not UTF-8":      field(1, field(1, texts(4, "\xff"))),
		"a label that is not UTF-8":          field(1, field(1, field(3, texts(1, "a"), texts(2, "\xff")))),
		"an extension that is not UTF-8":     field(1, field(10, texts(1, "policy"), texts(2, "\xff"))),
		"a client's address":                 source(field(1, texts(2, "192.0.2.7"))),
		"a client's address twice":           source(field(1, texts(2, "192.0.2.7"), texts(2, "192.0.2.8"))),
		"a client's address in two messages": source(field(1, texts(2, "192.0.2.7")), field(1, texts(2, ""))),
		"a port after the address":           source(field(1, texts(2, "192.0.2.7")), field(1, protowire.AppendVarint(protowire.AppendTag(nil, 3, protowire.VarintType), 80))),
		"a pipe after an address":            source(field(1, texts(2, "192.0.2.7")), field(2, texts(1, "/x"))),
		"an empty pipe after an address":     source(field(1, texts(2, "192.0.2.7")), field(2)),
		"an address after a pipe":            source(field(2, texts(1, "/x")), field(1, texts(2, "192.0.2.7"))),
		"another address around a pipe":      source(field(1, texts(2, "192.0.2.7")), field(3), field(1)),
		"a pipe of a wrong wire type":        source(field(1, texts(2, "192.0.2.7")), varint(2, 7)),
		"two sources":                        join(source(field(1, texts(2, "192.0.2.7"))), source(field(2))),
		"a destination":                      field(1, field(2, field(1, field(1, texts(2, "192.0.2.7"))))),
		"an address of a wrong kind":         field(1, field(1, field(1, field(1, texts(2, "\xff"))))),
	}
	return all
}

// typical is a check as Envoy sends it without allowed_headers.
func typical() *authv3.CheckRequest {
	address := func(host string, port uint32) *authv3.AttributeContext_Peer {
		return &authv3.AttributeContext_Peer{
			Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
				Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
			}}},
			Labels: map[string]string{"app": "edge"}, Principal: "spiffe://edge",
		}
	}
	nested, _ := structpb.NewStruct(map[string]any{"a": []any{1, "b", nil, true, map[string]any{"c": "d"}}})
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: address("10.0.0.1", 41234), Destination: address("10.0.0.2", 8080),
		Request: &authv3.AttributeContext_Request{
			Time: timestamppb.New(time.Unix(1_790_000_000, 5)),
			Http: &authv3.AttributeContext_HttpRequest{
				Id: "1234567890", Method: "GET", Path: "/v1/contacts?limit=10", Host: "api.example.org", Scheme: "https", Protocol: "HTTP/2", Size: -1,
				Headers: map[string]string{
					":authority": "api.example.org", ":method": "GET", ":path": "/v1/contacts?limit=10", ":scheme": "https",
					"authorization": "Bearer abcdefghijklmnopqrstuvwxyz012345", "accept": "application/json", "user-agent": "partner/1.0",
					"x-request-id": "0b0d4b26-9b6c-4b0f-8f3f-5f1f6e3f2b1a", "x-forwarded-proto": "https", "cookie": "a=b; c=d",
				},
			},
		},
		ContextExtensions: map[string]string{"policy": "default"},
		MetadataContext:   &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"x": nested}},
	}}
}

// seeds are what fuzzing starts from, and what a plain test run goes through.
func seeds(t testing.TB) map[string][]byte {
	t.Helper()
	all := nasties()
	wire, err := proto.Marshal(typical())
	if err != nil {
		t.Fatal(err)
	}
	all["a typical check"] = wire
	for _, c := range capturedChecks(t) {
		all["Envoy's check "+c.Name] = c.Message
	}
	return all
}

func TestTheWalkReadsWhatTheGeneratedTypesRead(t *testing.T) {
	root := allWalks()
	for name, data := range seeds(t) {
		t.Run(name, func(t *testing.T) {
			if problem := disagree(root, data); problem != "" {
				t.Error(problem)
			}
			for n := range data {
				if problem := disagree(root, data[:n]); problem != "" {
					t.Fatalf("cut off after %d bytes: %s", n, problem)
				}
			}
		})
	}
}

// TestTheWalkAgreesAfterAnyChange changes single bytes of good checks in many ways;
// fuzzing goes further.
func TestTheWalkAgreesAfterAnyChange(t *testing.T) {
	if raceDetector {
		t.Skip("nothing here runs at the same time, and it would take a minute; make unit runs this package without the detector, too")
	}
	root := leastAndMost()
	for name, data := range seeds(t) {
		changed := make([]byte, len(data))
		for i := range data {
			for _, b := range []byte{0, 1, 0x7f, 0x80, 0xff, data[i] + 1, data[i] - 1, data[i] ^ 0x80, byte(rand.Uint32())} {
				copy(changed, data)
				changed[i] = b
				if problem := disagree(root, changed); problem != "" {
					t.Fatalf("%s, byte %d is %#x: %s", name, i, b, problem)
				}
			}
		}
	}
}

// FuzzWireAgreesWithGenerated takes each input twice: as a check, and as the choices
// by which one is made.
func FuzzWireAgreesWithGenerated(f *testing.F) {
	for _, data := range seeds(f) {
		f.Add(data)
	}
	for i := range 50 {
		f.Add(chances(uint64(i)))
	}
	root, envoys := leastAndMost(), capturedChecks(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		if problem := disagree(root, data); problem != "" {
			t.Error(problem)
		}
		made := (&maker{choices: data[:min(len(data), 300)]}).check(envoys)
		if problem := disagree(root, made); problem != "" {
			t.Errorf("a made check: %s\n%x", problem, made)
		}
	})
}

type yes struct{}

func (yes) Verify(context.Context, bearer.Token) (verifier.Verdict, error) {
	return verifier.Verdict{Valid: true, Learnt: time.Now()}, nil
}

// newAuthorization returns a face in front of a real cache that says yes.
func newAuthorization(t testing.TB, change ...func(*gate.Options)) *authorization {
	t.Helper()
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	cache, err := verifier.NewCache(yes{}, verifier.CacheOptions{
		MaxTokens: 1000, ValidTTL: verifier.MaxLife, InvalidTTL: time.Second, Timeout: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cache.Close)
	o := gate.Options{Parser: parser, Policy: gate.Policy{Verifier: cache, Realm: "api"}}
	for _, set := range change {
		set(&o)
	}
	g, err := gate.New(o)
	if err != nil {
		t.Fatal(err)
	}
	// The token of typical is known once its answer can be found without the call.
	token := typical().GetAttributes().GetRequest().GetHttp().GetHeaders()["authorization"]
	if d := g.Decide(t.Context(), gate.Request{Authorization: []string{token}}); d.Reason != gate.Valid {
		t.Fatalf("the token is decided %v", d.Reason)
	}
	for begin := time.Now(); cache.Stats().Flights > 0; runtime.Gosched() {
		if time.Since(begin) > 30*time.Second {
			t.Fatal("the cache does not keep the answer")
		}
	}
	a := &authorization{}
	a.current.Store(newDecider(g))
	return a
}

// onWire is what happens to a check between the bytes that came and those that go.
func onWire(ctx context.Context, c *codec, a *authorization, data mem.BufferSlice) mem.BufferSlice {
	reply, err := handleCheck(a, ctx, func(v any) error { return c.Unmarshal(data, v) }, nil)
	if err != nil {
		panic(err)
	}
	wire, err := c.Marshal(reply)
	if err != nil {
		panic(err)
	}
	return wire
}

func TestACachedCheckAllocatesNothing(t *testing.T) {
	testCachedCheck(t, 0)
}

func TestACachedCheckThatEnvoyMayKeepAllocatesNothing(t *testing.T) {
	testCachedCheck(t, 0, kept, tells(gate.IdentityHeader{Name: "X-Partner", Constant: "crm"}))
}

// TestACachedCheckThatTellsOfTheTokenAllocatesLittle: the gate's reply, and here
// the bytes, the struct around them and the interface around those.
func TestACachedCheckThatTellsOfTheTokenAllocatesLittle(t *testing.T) {
	testCachedCheck(t, 4, kept, tells(gate.IdentityHeader{Name: "X-Token", Fingerprint: true}))
}

func kept(o *gate.Options) { o.EdgeCache = time.Minute }

func tells(headers ...gate.IdentityHeader) func(*gate.Options) {
	return func(o *gate.Options) { o.Identity = headers }
}

func testCachedCheck(t *testing.T, allowed float64, change ...func(*gate.Options)) {
	t.Helper()
	if raceDetector {
		t.Skip("the race detector makes sync.Pool forget")
	}
	a := newAuthorization(t, change...)
	c := newCodec(&a.current)
	for name, check := range map[string]func(*authv3.CheckRequest){
		"headers": func(*authv3.CheckRequest) {},
		"header_map": func(r *authv3.CheckRequest) {
			http := r.GetAttributes().GetRequest().GetHttp()
			for key, value := range http.GetHeaders() {
				http.HeaderMap = &corev3.HeaderMap{Headers: append(http.GetHeaderMap().GetHeaders(), &corev3.HeaderValue{Key: key, RawValue: []byte(value)})}
			}
			http.Headers = nil
		},
	} {
		r := typical()
		check(r)
		wire, err := proto.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		data := mem.BufferSlice{mem.SliceBuffer(wire)}
		if got := testing.AllocsPerRun(1000, func() { onWire(t.Context(), c, a, data) }); got > allowed {
			t.Errorf("%s: %v allocations", name, got)
		}
		var reply authv3.CheckResponse
		if err := proto.Unmarshal(onWire(t.Context(), c, a, data).Materialize(), &reply); err != nil || reply.GetStatus().GetCode() != 0 || reply.GetOkResponse() == nil {
			t.Errorf("%s: %v, %v", name, &reply, err)
		}
	}
}

// TestABufferIsUsedAgainWithoutHarm has many checks with different tokens share
// buffers. A token that were kept without a memory of its own would become another.
func TestABufferIsUsedAgainWithoutHarm(t *testing.T) {
	a := newAuthorization(t)
	c, by := newCodec(&a.current), a.current.Load()
	q := &question{}
	for i := range 200 {
		token := fmt.Sprintf("token-%03d-%s", i, strings.Repeat("x", i))
		wire, err := proto.Marshal(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
			Http: &authv3.AttributeContext_HttpRequest{Headers: map[string]string{"authorization": "Bearer " + token}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(wire[:i%7]), mem.SliceBuffer(wire[i%7:])}, q); err != nil {
			t.Fatal(err)
		}
		if len(q.values) != 1 || q.values[0] != "Bearer "+token {
			t.Fatalf("got %q, want %q", q.values, token)
		}
		if got := by.answer(t.Context(), q); got != by.replies.allowed[0].valid[verifier.FromEndpoint][0] {
			t.Fatalf("token %d is not allowed by a call of its own", i)
		}
		if got := by.answer(t.Context(), q); got != by.replies.allowed[0].valid[verifier.FromCache][0] {
			t.Fatalf("token %d is not remembered", i)
		}
		clear(q.buf[:cap(q.buf)])
	}
}

func BenchmarkCheckOnTheWire(b *testing.B) {
	a := newAuthorization(b)
	c := newCodec(&a.current)
	wire, err := proto.Marshal(typical())
	if err != nil {
		b.Fatal(err)
	}
	data := mem.BufferSlice{mem.SliceBuffer(wire)}
	ctx := b.Context()
	b.Run("walk", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			onWire(ctx, c, a, data)
		}
	})
	b.Run("counted by who asks", func(b *testing.B) {
		a := newAuthorization(b, func(o *gate.Options) { o.Sampled = talkers.New().Note })
		c := newCodec(&a.current)
		b.ReportAllocs()
		for b.Loop() {
			onWire(ctx, c, a, data)
		}
	})
	b.Run("generated", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var check authv3.CheckRequest
			if err := proto.Unmarshal(wire, &check); err != nil {
				b.Fatal(err)
			}
			r, err := a.Check(ctx, &check)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := proto.Marshal(r); err != nil {
				b.Fatal(err)
			}
		}
	})
}
