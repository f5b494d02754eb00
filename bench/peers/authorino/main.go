//go:build ignore

// This is Authorino's gRPC authorization service without a cluster: the same
// service, index, options of the server and logger as in its own main.go, and in the
// index what its controller makes of an AuthConfig with one OAuth2 introspection and
// a cache:
//
//	authentication:
//	  oauth2:
//	    oauth2Introspection: {endpoint: …, credentialsRef: …}
//	    cache: {key: {selector: context.request.http.headers.authorization}, ttl: 3600}
//
// It belongs to no package of this project: it is built inside a checkout of
// Authorino, whose packages it imports.
package main

import (
	"flag"
	"fmt"
	"net"
	"os"

	envoy_auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	grpc_prometheus "github.com/grpc-ecosystem/go-grpc-prometheus"
	"github.com/kuadrant/authorino/pkg/auth"
	"github.com/kuadrant/authorino/pkg/evaluators"
	"github.com/kuadrant/authorino/pkg/evaluators/identity"
	"github.com/kuadrant/authorino/pkg/index"
	"github.com/kuadrant/authorino/pkg/json"
	"github.com/kuadrant/authorino/pkg/log"
	"github.com/kuadrant/authorino/pkg/service"
	otel_grpc "go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

func main() {
	endpoint := flag.String("introspection", "", "URL of the introspection endpoint")
	level := flag.String("log-level", "info", "log level, as Authorino's own flag")
	size := flag.Int("evaluator-cache-size", 1, "megabytes of the cache, as Authorino's own flag")
	flag.Parse()
	if err := serve(*endpoint, *level, *size); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(endpoint, level string, cacheSize int) error {
	options := log.Options{Level: log.ToLogLevel(level), Mode: log.ToLogMode("production")}
	log.SetLogger(log.NewLogger(options), options)

	evaluators.EvaluatorCacheSize = cacheSize
	introspection := &evaluators.IdentityConfig{
		Name:   "oauth2",
		OAuth2: identity.NewOAuth2Identity(endpoint, "", "client", "secret", auth.NewAuthCredential("", "")),
		Cache:  evaluators.NewEvaluatorCache(&json.JSONValue{Pattern: "context.request.http.headers.authorization"}, 3600),
	}
	configs := index.NewIndex()
	err := configs.Set("bench/api", "api.example", evaluators.AuthConfig{
		Labels:          map[string]string{"namespace": "bench", "name": "api"},
		IdentityConfigs: []auth.AuthConfigEvaluator{introspection},
	}, false)
	if err != nil {
		return err
	}

	server := grpc.NewServer(
		grpc.MaxConcurrentStreams(10000),
		grpc.ChainStreamInterceptor(grpc_prometheus.StreamServerInterceptor),
		grpc.ChainUnaryInterceptor(grpc_prometheus.UnaryServerInterceptor),
		grpc.StatsHandler(otel_grpc.NewServerHandler()),
	)
	envoy_auth.RegisterAuthorizationServer(server, &service.AuthService{Index: configs})
	healthpb.RegisterHealthServer(server, &service.HealthService{})
	grpc_prometheus.Register(server)
	grpc_prometheus.EnableHandlingTimeHistogram()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return server.Serve(l)
}
