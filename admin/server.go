// Package admin is the operator's face of the gateway: /livez, /readyz, /status and
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
	http   *http.Server
	logger *slog.Logger
	shown  *shownState
}

// shownState is what all servers of a gateway show alike.
type shownState struct {
	state         atomic.Pointer[string]
	configuration atomic.Pointer[Configuration]
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
	s := &Server{logger: logger, shown: &shownState{}}
	s.set(starting)
	s.Configured(&Configuration{})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		writeState(w, http.StatusOK, "alive")
	})
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /status", s.status)
	mux.Handle("GET /metrics", m.handler())
	s.http = newHTTP(mux, logger)
	return s
}

// Another returns a server that shows the same as this one, for a listener that may
// go while others stay.
func (s *Server) Another() *Server {
	return &Server{http: newHTTP(s.http.Handler, s.logger), logger: s.logger, shown: s.shown}
}

func newHTTP(handler http.Handler, logger *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}

// Ready makes /readyz say that requests may be sent here.
func (s *Server) Ready() { s.set(ready) }

// Unready makes /readyz say that the gateway is about to stop.
func (s *Server) Unready() { s.set(stopping) }

// Configured has /status show a configuration, which nobody changes from then on.
func (s *Server) Configured(c *Configuration) { s.shown.configuration.Store(c) }

func (s *Server) set(state string) { s.shown.state.Store(&state) }

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	state := *s.shown.state.Load()
	status := http.StatusServiceUnavailable
	if state == ready {
		status = http.StatusOK
	}
	writeState(w, status, state)
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, struct {
		Status        string         `json:"status"`
		Configuration *Configuration `json:"configuration"`
	}{*s.shown.state.Load(), s.shown.configuration.Load()})
}

func writeState(w http.ResponseWriter, status int, state string) {
	writeJSON(w, status, struct {
		Status string `json:"status"`
	}{state})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // a client that went away is told nothing
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
