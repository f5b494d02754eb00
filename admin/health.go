package admin

import (
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Part is a part of the gateway that /readyz tells of.
type Part struct {
	// Name says which, such as "verifier crm".
	Name string `json:"part"`
	// Ready says that it can do its work.
	Ready bool `json:"ready"`
	// Reason says why it is not, or what an operator should know of it all the same.
	Reason string `json:"reason,omitempty"`
}

// health knows whether requests may be sent here.
type health struct {
	mu    sync.Mutex
	state string
	parts func() []Part
}

// The states in which a gateway is.
const (
	starting = "starting"
	ready    = "ready"
	notReady = "not_ready" // a part is not
	stopping = "stopping"
)

// Ready makes /readyz say that requests may be sent here, as long as all parts are
// ready.
func (s *Server) Ready() { s.shown.health.set(ready) }

// Unready makes /readyz say that the gateway is about to stop.
func (s *Server) Unready() { s.shown.health.set(stopping) }

func (h *health) set(state string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.state = state
}

// Parts has the function asked for the parts whenever somebody wants to know
// whether the gateway is ready. It replaces the one from before.
func (s *Server) Parts(parts func() []Part) {
	s.shown.health.mu.Lock()
	defer s.shown.health.mu.Unlock()
	s.shown.health.parts = parts
}

// IsReady reports whether requests may be sent here, and the parts that say so.
func (s *Server) IsReady() (bool, []Part) {
	state, parts := s.shown.now()
	return state == ready, parts
}

// now returns the state in which the gateway is, and its parts: the configuration,
// and those that were named.
func (s *shownState) now() (string, []Part) {
	s.health.mu.Lock()
	state, ask := s.health.state, s.health.parts
	s.health.mu.Unlock()
	configuration := Part{Name: "configuration", Ready: true}
	if !s.configuration.Load().LastReloadSuccessful() {
		configuration.Reason = "the file cannot be used; what was in force stays so: see /status"
	}
	parts := []Part{configuration}
	if ask != nil {
		parts = append(parts, ask()...)
	}
	for _, p := range parts {
		if !p.Ready && state == ready {
			state = notReady
		}
	}
	return state, parts
}

// readiness is the collector that says the same as /readyz.
type readiness struct {
	of atomic.Pointer[shownState]
}

var readyMetric = prometheus.NewDesc("bearergate_ready", "1 while requests may be sent here, 0 while /readyz says why not.", nil, nil)

// Describe implements [prometheus.Collector].
func (*readiness) Describe(descs chan<- *prometheus.Desc) { descs <- readyMetric }

// Collect implements [prometheus.Collector].
func (r *readiness) Collect(metrics chan<- prometheus.Metric) {
	if shown := r.of.Load(); shown != nil {
		state, _ := shown.now()
		metrics <- prometheus.MustNewConstMetric(readyMetric, prometheus.GaugeValue, oneIf(state == ready))
	}
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	state, parts := s.shown.now()
	status := http.StatusServiceUnavailable
	if state == ready {
		status = http.StatusOK
	}
	writeState(w, status, state, parts)
}

// livez is about the process alone: who restarts it because something else is down
// makes it worse.
func (s *Server) livez(w http.ResponseWriter, _ *http.Request) {
	writeState(w, http.StatusOK, "alive", []Part{{Name: "process", Ready: true}})
}

func writeState(w http.ResponseWriter, status int, state string, parts []Part) {
	writeJSON(w, status, struct {
		Status string `json:"status"`
		Parts  []Part `json:"parts"`
	}{state, parts})
}
