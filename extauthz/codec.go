package extauthz

import (
	"context"
	"sync"
	"sync/atomic"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	encodingproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/bearergate/bearergate/gate"
)

// codec reads and writes the messages of Check itself, and leaves those of every
// other method to the generated types.
type codec struct {
	generated encoding.CodecV2
	current   *atomic.Pointer[decider]
}

func newCodec(current *atomic.Pointer[decider]) *codec {
	return &codec{generated: encoding.GetCodecV2(encodingproto.Name), current: current}
}

// Name is that of the codec which it stands for.
func (c *codec) Name() string { return encodingproto.Name }

// Marshal returns a reply that was encoded ahead as it is.
func (c *codec) Marshal(v any) (mem.BufferSlice, error) {
	if r, ok := v.(*encoded); ok {
		return r.wire, nil
	}
	return c.generated.Marshal(v)
}

// Unmarshal reads a question. What is wrong with it is for the handler to answer:
// an error here would become one that Envoy words itself.
func (c *codec) Unmarshal(data mem.BufferSlice, v any) error {
	q, ok := v.(*question)
	if !ok {
		return c.generated.Unmarshal(data, v)
	}
	q.reset()
	q.by = c.current.Load()
	for _, buffer := range data {
		q.buf = append(q.buf, buffer.ReadOnlyData()...)
	}
	q.read(q.by.shape)
	return nil
}

// encoded is a CheckResponse on the wire. Nobody changes it.
type encoded struct{ wire mem.BufferSlice }

func encode(r *authv3.CheckResponse) *encoded {
	wire, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
	if err != nil {
		// It holds nothing but our own words. An empty reply would be an allow.
		panic("extauthz: a reply that cannot be encoded: " + err.Error())
	}
	return &encoded{mem.BufferSlice{mem.SliceBuffer(wire)}}
}

// questions are reused: their buffers have grown to what requests need.
var questions = sync.Pool{New: func() any { return new(question) }}

// maxKeptBuffer is the largest buffer that is kept for another question.
const maxKeptBuffer = 64 << 10

// handleCheck is the method handler of Check.
func handleCheck(server any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (reply any, err error) { //nolint:revive // grpc's order
	if _, ok := server.(*authorization); !ok {
		panic("extauthz: Check is registered for another server")
	}
	q, _ := questions.Get().(*question)
	defer func() {
		if cap(q.buf) <= maxKeptBuffer {
			questions.Put(q)
		}
	}()
	if err := decode(q); err != nil {
		return nil, err // too long, or cut off: the transport's affair
	}
	return q.by.answer(ctx, q), nil
}

// answer decides about a question. What the gate is given lies in the question's
// buffer, which is used again: who keeps it, clones it.
func (by *decider) answer(ctx context.Context, q *question) (r *encoded) {
	defer func() {
		if value := recover(); value != nil {
			d := by.gate.Recovered(value)
			r = by.replies.wire(&d, by.gate.Reply(&d))
		}
	}()
	d := gate.Decision{} // unavailable, as long as nobody has said otherwise
	if q.err == nil {
		d = by.gate.Decide(ctx, q.request())
	} else {
		d = by.gate.Unreadable(q.err)
	}
	return by.replies.wire(&d, by.gate.Reply(&d))
}

// serviceDesc is the generated description of the service with our handler.
func serviceDesc() *grpc.ServiceDesc {
	desc := authv3.Authorization_ServiceDesc
	desc.Methods = []grpc.MethodDesc{{MethodName: "Check", Handler: handleCheck}}
	return &desc
}
