package measure

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
)

// allowAll is the no-op: it allows every request without looking.
type allowAll struct {
	authv3.UnimplementedAuthorizationServer
}

// Check allows.
func (allowAll) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return &authv3.CheckResponse{Status: &status.Status{}}, nil
}

// listen says on which address it listens, for the process that started this one.
func listen(ctx context.Context, out io.Writer) (net.Listener, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintln(out, l.Addr())
	return l, err
}

// ServeReference is a server that allows everything, of a kind: grpc or http. It
// writes its address to out.
func ServeReference(ctx context.Context, kind string, out io.Writer) error {
	switch kind {
	case "grpc":
		return serveReferenceGRPC(ctx, out)
	case "http":
		return serveReferenceHTTP(ctx, out)
	default:
		return fmt.Errorf("-reference %s: write grpc or http", kind)
	}
}

func serveReferenceGRPC(ctx context.Context, out io.Writer) error {
	l, err := listen(ctx, out)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	authv3.RegisterAuthorizationServer(server, allowAll{})
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	return server.Serve(l)
}

func serveReferenceHTTP(ctx context.Context, out io.Writer) error {
	l, err := listen(ctx, out)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }),
		ReadHeaderTimeout: 5 * time.Second,
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	return server.Serve(l)
}
