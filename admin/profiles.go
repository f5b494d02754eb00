package admin

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"runtime/pprof"
	"runtime/trace"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Profiles are those that go tool pprof and go tool trace read, at the paths where they
// look for them. They say where time and memory go, by the names of functions: nothing
// that is in memory stands in them. (net/http/pprof would put them on the default mux
// as well, where no guard stands, and show the command line.)

// profilesPath is where they are.
const profilesPath = "/debug/pprof/"

// The bounds of a profile that takes time.
const (
	defaultSeconds  = 10
	maxSeconds      = 60
	maxTraceSeconds = 5 // it is large
	maxProfileBytes = 64 << 20
	profileWrite    = 20 * time.Second
)

// namedProfiles are those of what is now, or was since the start.
var namedProfiles = []string{"allocs", "goroutine", "heap", "threadcreate"}

// profilesOn puts the profiles on the listener, for who may call the API.
func (s *Server) profilesOn(mux *http.ServeMux, a Access) {
	on := func(name string, h func(http.ResponseWriter, *http.Request, url.Values)) {
		mux.Handle("GET "+profilesPath+name, s.guardedProfile(h, a))
	}
	on("{$}", func(w http.ResponseWriter, _ *http.Request, _ url.Values) {
		_, _ = fmt.Fprintf(w, "profile?seconds=%d trace?seconds=1 %s goroutine?debug=2\n", defaultSeconds, strings.Join(namedProfiles, " "))
	})
	for _, name := range namedProfiles {
		on(name, func(w http.ResponseWriter, _ *http.Request, query url.Values) { namedProfile(w, name, query) })
	}
	on("profile", s.timedProfile(maxSeconds, pprof.StartCPUProfile, pprof.StopCPUProfile))
	on("trace", s.timedProfile(maxTraceSeconds, trace.Start, trace.Stop))
}

// guardedProfile lets requests in that may come in, as guarded does for the API. No
// page may ask for one, not even the gateway's own: it need not.
func (s *Server) guardedProfile(next func(http.ResponseWriter, *http.Request, url.Values), a Access) http.Handler {
	refused := s.refusals("a request for a profile was refused")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		refuse := func(status int, why string) {
			refused(r, why)
			http.Error(w, why, status)
		}
		switch {
		case a.isMisled(r):
			refuse(http.StatusForbidden, errHost.Message())
			return
		case r.Header.Get("Origin") != "", !slices.Contains([]string{"", "none"}, r.Header.Get("Sec-Fetch-Site")):
			refuse(http.StatusForbidden, errOrigin.Message())
			return
		}
		switch err := a.admit(w, r); err {
		case nil:
		case errUnknown:
			refuse(http.StatusServiceUnavailable, err.Message())
			return
		default:
			refuse(http.StatusUnauthorized, err.Message())
			return
		}
		s.audit(r.Context(), "a profile is taken", who(r), attr("profile", strings.TrimPrefix(r.URL.Path, profilesPath)))
		next(w, r, r.URL.Query())
	})
}

// namedProfile writes a profile of what is now: as text if debug is 1 or 2.
func namedProfile(w http.ResponseWriter, name string, query url.Values) {
	debug, err := strconv.Atoi(query.Get("debug"))
	if query.Has("debug") && (err != nil || debug < 0 || debug > 2) {
		http.Error(w, "debug: write 0, 1 or 2", http.StatusBadRequest)
		return
	}
	if query.Has("seconds") {
		http.Error(w, "seconds: only profile and trace take some time", http.StatusBadRequest)
		return
	}
	if name == "heap" && query.Has("gc") {
		runtime.GC()
	}
	if debug == 0 {
		w.Header().Set("Content-Type", "application/octet-stream")
	}
	var profile bytes.Buffer // so that who reads slowly holds up nothing
	if err := pprof.Lookup(name).WriteTo(&profile, debug); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = profile.WriteTo(w) // a client that went away is told nothing
}

// timedProfile writes a profile of some seconds.
func (s *Server) timedProfile(most int, start func(io.Writer) error, stop func()) func(http.ResponseWriter, *http.Request, url.Values) {
	return func(w http.ResponseWriter, r *http.Request, query url.Values) {
		seconds := min(defaultSeconds, most)
		if query.Has("seconds") {
			var err error
			if seconds, err = strconv.Atoi(query.Get("seconds")); err != nil || seconds < 1 || seconds > most {
				http.Error(w, fmt.Sprintf("seconds: write 1 to %d", most), http.StatusBadRequest)
				return
			}
		}
		span := time.Duration(seconds) * time.Second
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(span + profileWrite)) // else it would be the server's
		var profile boundedBuffer
		if err := start(&profile); err != nil {
			http.Error(w, "another one is being taken; try again when it has ended", http.StatusConflict)
			return
		}
		end := time.NewTimer(span)
		defer end.Stop()
		select {
		case <-end.C:
		case <-r.Context().Done():
		case <-s.stopping:
		}
		stop()
		if profile.full {
			http.Error(w, "it became too large; ask for fewer seconds", http.StatusInsufficientStorage)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = profile.WriteTo(w) // a client that went away is told nothing
	}
}

// boundedBuffer takes so much and no more.
type boundedBuffer struct {
	bytes.Buffer

	full bool
}

// Write implements [io.Writer].
func (b *boundedBuffer) Write(p []byte) (int, error) {
	if b.full = b.full || b.Len()+len(p) > maxProfileBytes; b.full {
		return len(p), nil // who writes it knows no end but stop
	}
	return b.Buffer.Write(p)
}
