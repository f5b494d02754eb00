package quickstart

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
)

// face is a way to send a request to the gateway.
type face interface {
	name() string
	// send sends the values of an Authorization header and a query, and returns the
	// status that a client gets, and the reason if the face tells it.
	send(ctx context.Context, authorization []string, query string) (reply, error)
	close()
}

type reply struct {
	status int
	reason string
}

// grpcFace asks as Envoy does.
type grpcFace struct {
	conn   *grpc.ClientConn
	client authv3.AuthorizationClient
}

func newGRPCFace(address string) (*grpcFace, error) {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	return &grpcFace{conn, authv3.NewAuthorizationClient(conn)}, nil
}

func (f *grpcFace) name() string { return "ext_authz" }
func (f *grpcFace) close()       { _ = f.conn.Close() }

func (f *grpcFace) send(ctx context.Context, authorization []string, query string) (reply, error) {
	headers := map[string]string{":method": "GET", ":authority": "api.example"}
	if len(authorization) > 0 {
		headers["authorization"] = strings.Join(authorization, ",") // as Envoy joins them
	}
	r, err := f.client.Check(ctx, &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: http.MethodGet, Path: "/hello" + query, Headers: headers,
		}},
	}})
	if err != nil {
		return reply{}, err
	}
	got := reply{reason: r.GetDynamicMetadata().GetFields()["reason"].GetStringValue()}
	switch {
	case r.GetStatus() == nil:
		return reply{}, fmt.Errorf("a reply without a status")
	case r.GetStatus().GetCode() == int32(codes.OK):
		got.status = http.StatusOK
	default:
		got.status = int(r.GetDeniedResponse().GetStatus().GetCode())
	}
	return got, nil
}

// httpFace asks over HTTP: the gateway as nginx does, or an edge as a client does.
type httpFace struct {
	called string
	url    string
	api    *api // behind an edge; nil if the gateway is asked itself
	client *http.Client
}

func newHTTPFace(name, url string, behind *api) *httpFace {
	return &httpFace{name, url, behind, &http.Client{Transport: &http.Transport{}}}
}

func (f *httpFace) name() string { return f.called }
func (f *httpFace) close()       { f.client.CloseIdleConnections() }

func (f *httpFace) send(ctx context.Context, authorization []string, query string) (reply, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url+query, http.NoBody)
	if err != nil {
		return reply{}, err
	}
	r.Header["Authorization"] = authorization
	var before int64
	if f.api != nil {
		before = f.api.requests.Load()
	}
	got, err := f.client.Do(r)
	if err != nil {
		return reply{}, err
	}
	defer got.Body.Close()
	if _, err := io.Copy(io.Discard, got.Body); err != nil {
		return reply{}, err
	}
	if f.api != nil {
		passed := f.api.requests.Load() > before
		switch {
		case passed != (got.StatusCode == http.StatusOK):
			return reply{}, fmt.Errorf("the client got %d, and the API was reached: %t", got.StatusCode, passed)
		case f.api.tokens.Load() > 0:
			return reply{}, fmt.Errorf("the API saw the token")
		}
	}
	reason := got.Header.Get("X-Bearergate-Reason")
	if f.api == nil && got.StatusCode == http.StatusOK && reason == "" {
		reason = "valid" // a bare 200 says just that
	}
	return reply{got.StatusCode, reason}, nil
}
