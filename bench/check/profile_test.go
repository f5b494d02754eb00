package main

import (
	"testing"

	"github.com/google/pprof/profile"
)

func TestOwnerOf(t *testing.T) {
	tests := []struct {
		name  string
		stack []string // from the innermost frame
		want  string
	}{
		{"a system call on a socket is the kernel's, whoever makes it", []string{
			"internal/runtime/syscall/linux.Syscall6", "syscall.RawSyscall6", "syscall.Syscall", "syscall.write", "internal/poll.(*FD).Write",
			"google.golang.org/grpc/internal/transport.(*bufWriter).Flush",
		}, "reading and writing sockets"},
		{"an allocation in generated types is an allocation", []string{
			"runtime.nextFreeFast", "runtime.mallocgcSmallNoscan", "runtime.mallocgc", "runtime.newobject", "google.golang.org/protobuf/internal/impl.consumeMap",
		}, "allocating memory and collecting it"},
		{"a map of generated types is theirs", []string{
			"internal/runtime/maps.(*Map).putSlotSmall", "runtime.mapassign", "reflect.Value.SetMapIndex", "google.golang.org/protobuf/internal/impl.consumeMap",
		}, "reading and writing messages by generated types"},
		{"our codec is ours, though grpc-go calls it", []string{
			"github.com/bearergate/bearergate/extauthz.(*codec).Unmarshal", "google.golang.org/grpc.(*Server).processUnaryRPC",
		}, "reading and writing checks"},
		{"a digest is a part of the decision", []string{
			"crypto/internal/fips140/sha256.blockSHANI", "crypto/sha256.Sum256", "github.com/bearergate/bearergate/bearer.(*Parser).digest",
		}, "deciding: token, digest, cache, counting"},
		{"a stack that grows is Go's", []string{"runtime.adjustframe", "runtime.copystack", "runtime.newstack", "google.golang.org/grpc.(*Server).handleStream"}, "growing stacks"},
		{"header fields are x/net's", []string{"golang.org/x/net/http2/hpack.(*Decoder).parseFieldIndexed", "golang.org/x/net/http2.(*Framer).readMetaFrame"}, "header fields (HPACK)"},
		{"frames are x/net's", []string{"golang.org/x/net/http2.(*Framer).ReadFrame", "google.golang.org/grpc/internal/transport.(*http2Server).HandleStreams"}, "HTTP/2 frames"},
		{"a select is Go's", []string{"runtime.selectgo", "google.golang.org/grpc/internal/transport.(*recvBufferReader).read"}, "goroutines, channels and select"},
		{"what is left of a call is grpc-go's", []string{"context.WithValue", "google.golang.org/grpc/metadata.NewIncomingContext"}, "streams and calls"},
		{"what nobody claims", []string{"main.main"}, other},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := ownerOf(tt.stack); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestDissect(t *testing.T) {
	p := &profile.Profile{}
	sample := func(value int64, stack ...string) {
		s := &profile.Sample{Value: []int64{1, value}}
		for _, name := range stack {
			s.Location = append(s.Location, &profile.Location{Line: []profile.Line{{Function: &profile.Function{Name: name}}}})
		}
		p.Sample = append(p.Sample, s)
	}
	sample(30, "runtime.selectgo", "google.golang.org/grpc.a")
	sample(20, "google.golang.org/grpc.a")
	sample(50, "google.golang.org/grpc.b")
	parts, top := dissect(p)
	if parts["streams and calls"] != .7 || parts["goroutines, channels and select"] != .3 {
		t.Errorf("got %v", parts)
	}
	if len(top) != 3 || top[0] != (function{"google.golang.org/grpc.b", .5}) || top[2].Part != .2 {
		t.Errorf("got %v", top)
	}
}
