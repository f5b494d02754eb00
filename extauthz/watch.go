package extauthz

import (
	"context"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// watch is a stream of the health service, the only kind of stream here. By
// itself it goes on for as long as its client likes, and a server that waits for
// its streams would never stop.
type watch struct {
	grpc.ServerStream

	ctx  context.Context //nolint:containedctx // grpc.ServerStream has it that way
	told healthpb.HealthCheckResponse_ServingStatus
}

// Context implements [grpc.ServerStream].
func (w *watch) Context() context.Context { return w.ctx }

// SendMsg implements [grpc.ServerStream].
func (w *watch) SendMsg(message any) error {
	if reply, ok := message.(*healthpb.HealthCheckResponse); ok {
		w.told = reply.GetStatus()
	}
	return w.ServerStream.SendMsg(message)
}

// endWatches returns an interceptor that ends streams once stopping has ended,
// but none before its client was told why.
func endWatches(stopping context.Context) grpc.StreamServerInterceptor {
	return func(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx, cancel := context.WithCancel(stream.Context())
		defer cancel()
		alone := context.AfterFunc(stopping, cancel)
		defer alone()
		w := &watch{ServerStream: stream, ctx: ctx}
		err := handler(server, w)
		if stopping.Err() != nil && w.told == healthpb.HealthCheckResponse_SERVING {
			return w.SendMsg(&healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_NOT_SERVING})
		}
		return err
	}
}
