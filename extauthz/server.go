// Package extauthz is Envoy's face of the gateway: the gRPC service
// envoy.service.auth.v3.Authorization.
//
// It promises that every reply has a status and, if it refuses, all that the
// client is to get: Envoy allows a request whose reply lacks a status, and makes
// up a reply of its own where the details are missing. It decides nothing;
// package gate does.
package extauthz

import (
	"context"
	"errors"
	"net"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	"github.com/bearergate/bearergate/gate"
)

// Options are the limits of a [Server].
type Options struct {
	// MaxConcurrentStreams bounds the checks at once on one connection; 0 means 1000.
	MaxConcurrentStreams uint32
	// MaxMessageBytes bounds a CheckRequest; 0 means 1 MiB.
	MaxMessageBytes int
	// GeneratedCodec reads and writes checks by the generated types, as all other
	// services do, and not by the faster codec of this package.
	GeneratedCodec bool
}

// Limits that no operator has a reason to change.
const (
	// An edge's own header list is a few hundred bytes; the client's headers
	// travel in the message.
	maxHeaderListBytes = 16 << 10
	// A connection has to become one within this time.
	connectionTimeout = 10 * time.Second
	// A connection that says nothing for this long is asked whether it lives.
	pingAfter, pingTimeout = 60 * time.Second, 20 * time.Second
	// An edge may ask in turn, but not all the time.
	minPingInterval = 10 * time.Second
	// Goroutines that stay, with stacks that have grown already. More checks at once
	// get goroutines of their own.
	streamWorkers = 64
	// Windows of a fixed size: else grpc-go would measure by pings how far the edge
	// is, and answer what came with frames of its own.
	streamWindow, connectionWindow = 64 << 10, 1 << 20
)

// Server answers Envoy on its listeners. Its methods may be called concurrently.
type Server struct {
	grpc          *grpc.Server
	health        *health.Server
	authorization *authorization
	stopWatches   context.CancelFunc
	connections   connections
}

// NewServer returns a server that asks the gate about each request. Goroutines of
// its own wait for requests until Shutdown. Besides, it serves grpc.health.v1.Health for "" and for the Authorization service.
func NewServer(g *gate.Gate, o Options) *Server {
	if o.MaxConcurrentStreams == 0 {
		o.MaxConcurrentStreams = 1000
	}
	if o.MaxMessageBytes == 0 {
		o.MaxMessageBytes = 1 << 20
	}
	stopping, stop := context.WithCancel(context.Background())
	a := &authorization{}
	a.current.Store(newDecider(g))
	service, settings := &authv3.Authorization_ServiceDesc, []grpc.ServerOption{
		grpc.StreamInterceptor(endWatches(stopping)),
		grpc.MaxConcurrentStreams(o.MaxConcurrentStreams),
		grpc.MaxRecvMsgSize(o.MaxMessageBytes),
		grpc.MaxHeaderListSize(maxHeaderListBytes),
		grpc.ConnectionTimeout(connectionTimeout),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.StaticStreamWindowSize(streamWindow),
		grpc.StaticConnWindowSize(connectionWindow),
		grpc.WaitForHandlers(true), // what stands behind the gate is closed next
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingAfter, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPingInterval, PermitWithoutStream: true}),
	}
	if !o.GeneratedCodec {
		service, settings = serviceDesc(), append(settings, grpc.ForceServerCodecV2(newCodec(&a.current)))
	}
	s := &Server{stopWatches: stop, grpc: grpc.NewServer(settings...), health: health.NewServer(), authorization: a}
	s.grpc.RegisterService(service, a)
	healthpb.RegisterHealthServer(s.grpc, s.health)
	s.SetReady(true)
	return s
}

// Use has the server ask another gate from now on. Checks that it has begun to read
// end with the gate from before.
func (s *Server) Use(g *gate.Gate) { s.authorization.current.Store(newDecider(g)) }

// Serve answers on a listener until Shutdown. The error is nil after Shutdown,
// and else says why the listener failed.
func (s *Server) Serve(l net.Listener) error {
	if err := s.grpc.Serve(tracked{l, &s.connections}); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// SetReady tells those who watch the health service, for each service, whether to
// send checks here. It answers them in any case.
func (s *Server) SetReady(ready bool) {
	status := healthpb.HealthCheckResponse_NOT_SERVING
	if ready {
		status = healthpb.HealthCheckResponse_SERVING
	}
	for _, service := range []string{"", authv3.Authorization_ServiceDesc.ServiceName} {
		s.health.SetServingStatus(service, status)
	}
}

// Unready tells those who watch the health service that this server is about to
// stop. It goes on answering.
func (s *Server) Unready() { s.health.Shutdown() }

// Shutdown stops listening and waits for the checks under way. When ctx ends
// first, it cuts them off, and Envoy answers their clients with an error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Unready()
	s.stopWatches()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.grpc.GracefulStop()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		s.connections.close()
		s.grpc.Stop() // ends GracefulStop too
		<-done
		return context.Cause(ctx)
	}
}
