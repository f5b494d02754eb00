// Package admin is the operator's face of the gateway: /livez, /readyz, /status and
// /metrics, the status page, and the admin API of proto/bearergate/admin/v1. It shows no token. What it
// changes stands in the log with who did it; what is changed, others know how to.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Server answers the operator, and the tools that watch the gateway. Its
// methods may be called concurrently.
type Server struct {
	http   *http.Server
	pages  http.Handler // what is looked at
	logger *slog.Logger
	shown  *shownState
	// stopping is closed when calls that last have to end.
	stopping chan struct{}
	stop     func()
}

// shownState is what all servers of a gateway show alike.
type shownState struct {
	health        health
	configuration atomic.Pointer[Configuration]
	controls      atomic.Pointer[Controls]
	shadows       *shadows
	activity      *activity
	streams       streams
}

// NewServer returns a server that shows the metrics. It is not ready until
// Ready is called. The logger gets what net/http has to say about connections, and a
// line about each change that is made through the API; nil means none.
func NewServer(m *Metrics, logger *slog.Logger) *Server {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{logger: logger, shown: &shownState{health: health{state: starting}, shadows: &m.shadows, activity: &m.activity}}
	s.Configured(&Configuration{})
	m.readiness.of.Store(s.shown)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", s.livez)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.HandleFunc("GET /status", s.status)
	mux.Handle("GET /metrics", m.handler())
	s.pages = mux
	return s.Another(Access{})
}

// Another returns a server that shows and does the same as this one, for a listener
// that may go while others stay, and to whose API some may have access.
func (s *Server) Another(a Access) *Server {
	logger := s.logger
	if a.Listener != "" {
		logger = logger.With(slog.String("listener", a.Listener))
	}
	other := &Server{pages: s.pages, logger: logger, shown: s.shown, stopping: make(chan struct{})}
	other.stop = sync.OnceFunc(func() { close(other.stopping) })
	mux := http.NewServeMux()
	mux.Handle("/", s.pages)
	if !a.Off {
		mux.Handle(apiPath, other.api(a))
		other.pageOn(mux, a)
		if a.Profiles {
			other.profilesOn(mux, a)
		}
	}
	other.http = newHTTP(mux, logger)
	return other
}

func newHTTP(handler http.Handler, logger *slog.Logger) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true) // for gRPC over TLS; as net/http is now, the next line alone would do
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           handler,
		Protocols:         &protocols,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
	}
}

// Configured has /status show a configuration, which nobody changes from then on.
func (s *Server) Configured(c *Configuration) { s.shown.configuration.Store(c) }

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	state, _ := s.shown.now()
	writeJSON(w, http.StatusOK, struct {
		Status        string         `json:"status"`
		Configuration *Configuration `json:"configuration"`
		// InShadow are the policies that let through what they refuse, and until when.
		InShadow map[string]time.Time `json:"in_shadow,omitempty"`
	}{state, s.shown.configuration.Load(), s.shown.shadows.now()})
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

// Shutdown stops listening and waits for the requests under way, of which those that
// last end. When ctx ends first, it cuts them off.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop()
	err := s.http.Shutdown(ctx)
	if err != nil {
		_ = s.http.Close()
	}
	return err
}
