package extauthz

import (
	"context"

	"google.golang.org/grpc"
)

// watch is a stream of the health service, the only kind of stream here. By
// itself it goes on for as long as its client likes, and a server that waits for
// its streams would never stop.
type watch struct {
	grpc.ServerStream

	ctx context.Context //nolint:containedctx // grpc.ServerStream has it that way
}

// Context implements [grpc.ServerStream].
func (w *watch) Context() context.Context { return w.ctx }

// endWatches returns an interceptor that ends streams once stopping has ended.
func endWatches(stopping context.Context) grpc.StreamServerInterceptor {
	return func(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx, cancel := context.WithCancel(stream.Context())
		defer cancel()
		alone := context.AfterFunc(stopping, cancel)
		defer alone()
		return handler(server, &watch{stream, ctx})
	}
}
