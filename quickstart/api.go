package quickstart

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// api is the small API that is to be guarded. It notes what reaches it.
type api struct {
	address  string
	requests atomic.Int64
	// tokens counts the requests that still carried an Authorization header.
	tokens atomic.Int64
}

func startAPI(ctx context.Context, parts *sync.WaitGroup) (*api, error) {
	var listen net.ListenConfig
	l, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("the sample API: %w", err)
	}
	a := &api{address: l.Addr().String()}
	server := &http.Server{Handler: a, ReadHeaderTimeout: 5 * time.Second}
	parts.Go(func() { _ = server.Serve(l) }) // what fails here is seen in the table
	parts.Go(func() {
		<-ctx.Done()
		_ = server.Close()
	})
	return a, nil
}

// ServeHTTP greets.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.requests.Add(1)
	seen := "the API did not see your token"
	if r.Header.Get("Authorization") != "" {
		a.tokens.Add(1)
		seen = "the API saw an Authorization header"
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = fmt.Fprintf(w, "hello from the API: %s %s reached it; %s\n", r.Method, r.URL.Path, seen) //nolint:gosec // plain text
}
