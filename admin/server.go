// Package admin is the operator's face of the gateway: /livez, /readyz and
// /metrics. It shows no token, and changes nothing.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// Server answers the operator, and the tools that watch the gateway. Its
// methods may be called concurrently.
type Server struct {
	http  *http.Server
	state atomic.Pointer[string]
}

// The states in which a gateway is.
const (
	starting = "starting"
	ready    = "ready"
	stopping = "stopping"
)

// NewServer returns a server that shows the metrics. It is not ready until
// Ready is called. The logger gets what net/http has to say about connections;
// nil means none.
func NewServer(m *Metrics, logger *slog.Logger) *Server {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{}
	s.set(starting)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		writeState(w, http.StatusOK, "alive")
	})
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", m.handler())
	s.http = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
	return s
}

// Ready makes /readyz say that requests may be sent here.
func (s *Server) Ready() { s.set(ready) }

// Unready makes /readyz say that the gateway is about to stop.
func (s *Server) Unready() { s.set(stopping) }

func (s *Server) set(state string) { s.state.Store(&state) }

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	state := *s.state.Load()
	status := http.StatusServiceUnavailable
	if state == ready {
		status = http.StatusOK
	}
	writeState(w, status, state)
}

func writeState(w http.ResponseWriter, status int, state string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(struct { // a client that went away is told nothing
		Status string `json:"status"`
	}{state})
}

// Serve answers on a listener until Shutdown. The error is nil after Shutdown,
// and else says why the listener failed.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown stops listening and waits for the requests under way. When ctx ends
// first, it cuts them off.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		_ = s.http.Close()
	}
	return err
}
