package measure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// listening is what stands in front of the addresses that a reference says.
const listening = "listening on "

// allowAll is the no-op: it allows every request without looking.
type allowAll struct {
	authv3.UnimplementedAuthorizationServer
}

// Check allows.
func (allowAll) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return &authv3.CheckResponse{Status: &status.Status{}}, nil
}

// listen listens on "" (a free port) or unix:/path, and says so, together with where
// it tells of its memory, to the process that started this one.
func listen(ctx context.Context, address string, out io.Writer) (net.Listener, *http.Server, error) {
	network, place := "tcp", "127.0.0.1:0"
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, place = "unix", path
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, network, place)
	if err != nil {
		return nil, nil, err
	}
	metrics, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, errors.Join(err, l.Close())
	}
	server := &http.Server{Handler: http.HandlerFunc(tellMemory), ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(metrics) }()
	if address == "" {
		address = l.Addr().String()
	}
	_, err = fmt.Fprintln(out, listening+address, metrics.Addr())
	return l, server, err
}

// tellMemory says what a Prometheus client would.
func tellMemory(w http.ResponseWriter, _ *http.Request) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	fmt.Fprintf(w, "%s %d\n%s %d\n", mallocsMetric, m.Mallocs, heapMetric, m.HeapAlloc)
}

// ServeReference is a server that allows everything, of a kind: grpc or http, with
// @unix:/path behind it for another place to listen, or @tls:FOLDER for TLS with the
// files of [NewCertificate] there. It writes its address to out.
func ServeReference(ctx context.Context, kind string, out io.Writer) error {
	kind, place, _ := strings.Cut(kind, "@")
	folder, secure := strings.CutPrefix(place, "tls:")
	if secure {
		place = ""
	}
	l, metrics, err := listen(ctx, place, out)
	if err != nil {
		return err
	}
	defer metrics.Close()
	switch kind {
	case "grpc":
		return serveReferenceGRPC(ctx, l, folder, secure)
	case "http":
		return serveReferenceHTTP(ctx, l)
	default:
		return fmt.Errorf("-reference %s: write grpc or http", kind)
	}
}

func serveReferenceGRPC(ctx context.Context, l net.Listener, folder string, secure bool) error {
	var options []grpc.ServerOption
	if secure {
		c, err := credentials.NewServerTLSFromFile(filepath.Join(folder, CertificateFile), filepath.Join(folder, KeyFile))
		if err != nil {
			return err
		}
		options = append(options, grpc.Creds(c))
	}
	server := grpc.NewServer(options...)
	authv3.RegisterAuthorizationServer(server, allowAll{})
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	return server.Serve(l)
}

func serveReferenceHTTP(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }),
		ReadHeaderTimeout: 5 * time.Second,
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	return server.Serve(l)
}
