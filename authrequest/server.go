// Package authrequest is the gateway's face for edges that ask over HTTP: nginx
// auth_request, Envoy's HTTP ext_authz, Caddy forward_auth and their like.
//
// It answers any method at /auth and at any path below it, with 200 or with the
// refusal. An edge that has to be told to take the token off, as Envoy, asks below
// /auth. It promises that it reads the credential from the Authorization
// header alone, never a body, and that what it answers on its own account is
// never a 2xx. It decides nothing; package gate does.
package authrequest

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/bearergate/bearergate/gate"
)

// Prefix is the path at which, and below which, edges ask.
const Prefix = "/auth"

// Options are the limits of a [Server]. Wait is required.
type Options struct {
	// Wait is how long a decision may take at most.
	Wait time.Duration
	// MaxHeaderBytes bounds a request's header; 0 means 64 KiB.
	MaxHeaderBytes int
	// Trust is what is believed of a request. By the zero Trust, nothing is.
	Trust Trust
	// Logger gets what net/http has to say about connections; nil means none.
	Logger *slog.Logger
}

// Limits that no operator has a reason to change.
const (
	readHeaderTimeout = 5 * time.Second
	// An answer does not wait for a body; this is how long a slow one may keep its
	// connection after that.
	readTimeout = 10 * time.Second
	// Longer than edges keep an idle connection (the recipes say 30 s), so that it
	// is never this side that closes one just as it is used.
	idleTimeout = 2 * time.Minute
	// writeTime is what a reply may take once it is decided.
	writeTime = 10 * time.Second
)

// Server answers HTTP edges on its listeners. Its methods may be called
// concurrently.
type Server struct {
	http    *http.Server
	current atomic.Pointer[handler]
	leaving atomic.Bool
}

// NewServer returns a server that asks the gate about each request.
func NewServer(g *gate.Gate, o Options) *Server {
	if o.MaxHeaderBytes == 0 {
		o.MaxHeaderBytes = 64 << 10
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{}
	s.Use(g, o.Trust)
	s.http = &http.Server{
		// A request is answered by one and the same, from its beginning to its end.
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if s.leaving.Load() {
				w.Header()["Connection"] = hangUp
			}
			s.current.Load().ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: readHeaderTimeout,
		WriteTimeout:      readHeaderTimeout + o.Wait + writeTime,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    o.MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		// Otherwise net/http itself answers "OPTIONS *", with 200.
		DisableGeneralOptionsHandler: true,
	}
	return s
}

// Use has the server ask another gate, and believe other things, from now on.
// Requests that have begun end with the gate from before.
func (s *Server) Use(g *gate.Gate, t Trust) { s.current.Store(newHandler(g, t)) }

// Serve answers on a listener until Shutdown. The error is nil after Shutdown,
// and else says why the listener failed.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Unready has edges let go of their connections: from now on each answer says that
// its connection is closed. The server goes on answering, on new ones too.
func (s *Server) Unready() { s.leaving.Store(true) }

// Shutdown stops listening and waits for the requests under way. When ctx ends
// first, it cuts them off.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		_ = s.http.Close()
	}
	return err
}

// handler answers one request.
type handler struct {
	gate  *gate.Gate
	trust trust
	keep  keeping
	// By policy.
	allowed []allowed
}

// allowed holds, ready, what stands in the answers of a policy that allow.
type allowed struct {
	// identity are the values of the lines that tell the API who is calling, as long
	// as they are the same for all tokens.
	identity [][]string
	// remove names the headers that Envoy is to take off.
	remove []string
	// token says that the API is to see the token.
	token []string
	// quiet says that, at Prefix itself, a good token's answer has nothing to tell.
	quiet bool
}

func newHandler(g *gate.Gate, t Trust) *handler {
	h := &handler{gate: g, trust: newTrust(t, g.Needs()), keep: newKeeping(g)}
	for i, p := range g.Policies() {
		a := allowed{remove: joined(g.Removes(&gate.Decision{Reason: gate.Valid, Policy: i}))}
		for _, line := range g.Allowed(i).Identity {
			a.identity = append(a.identity, []string{line.Value})
		}
		if p.KeepToken {
			a.token = keepsToken
		}
		a.quiet = len(p.Identity) == 0 && a.token == nil && h.keep.dependsOn == nil
		h.allowed = append(h.allowed, a)
	}
	return h
}

// joined makes one line of names; none of none.
func joined(names []string) []string {
	if len(names) == 0 {
		return nil
	}
	return []string{strings.Join(names, ",")}
}

// ServeHTTP implements [http.Handler].
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if value := recover(); value != nil {
			d := h.gate.Recovered(value)
			h.refuse(w, r, h.gate.Reply(&d))
		}
	}()
	if r.ContentLength != 0 {
		// Not http.Server.ReadTimeout: it would be set for requests without a body, too.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(readTimeout)) // fails if the edge has gone
		// Else net/http would wait for the body before it answers, and take for the
		// body what comes next if the edge sent its length alone.
		w.Header()["Connection"] = hangUp
	}
	// Not http.ServeMux: it redirects what it finds unclean, and an edge would
	// take that for an error of ours.
	if rest, ok := strings.CutPrefix(r.URL.Path, Prefix); !ok || rest != "" && rest[0] != '/' {
		write(w, &notFound)
		return
	}
	d := h.decide(r)
	reply := h.gate.Reply(&d)
	if d.Outcome() != gate.Allow || reply.Status != http.StatusOK {
		h.refuse(w, r, reply)
		return
	}
	a := &h.allowed[d.Policy]
	// Envoy's HTTP ext_authz has to be told what to take off, and always asks below the
	// prefix; other edges' recipes take it off themselves.
	below := len(r.URL.Path) > len(Prefix)
	if a.quiet && d.Reason == gate.Valid && !below {
		return // to touch the header costs net/http a copy of it
	}
	header := w.Header()
	if below {
		remove := a.remove
		if d.Reason != gate.Valid || len(reply.Absent) > 0 {
			remove = joined(h.gate.Removes(&d))
		}
		header["X-Envoy-Auth-Headers-To-Remove"] = remove
	}
	if a.token != nil {
		header[gate.TokenHeader] = a.token
	}
	if d.Reason == gate.Valid {
		header[gate.ReasonHeader] = validReason
		h.keep.tell(header, d.Keep)
	} else {
		header[gate.ReasonHeader] = []string{d.Reason.String()}
		h.keep.tell(header, 0)
	}
	for i, line := range reply.Identity {
		if i < len(a.identity) {
			header[line.Name] = a.identity[i]
		} else {
			header[line.Name] = []string{line.Value}
		}
	}
	// net/http writes 200, and Content-Length: 0
}

// decide asks the gate, if the request comes from the edge and says what it must.
func (h *handler) decide(r *http.Request) gate.Decision {
	if err := h.trust.check(r); err != nil {
		return h.gate.Unbelieved(err)
	}
	facts, err := h.trust.facts(r)
	if err != nil {
		return h.gate.Unsaid(err)
	}
	id := ""
	if ids := r.Header["X-Request-Id"]; h.trust.needs.RequestID && len(ids) == 1 {
		id = ids[0]
	}
	return h.gate.Decide(r.Context(), gate.Request{
		RequestID:     id,
		Facts:         facts,
		Preflight:     h.trust.needs.Preflight && len(r.Header["Origin"]) > 0 && len(r.Header["Access-Control-Request-Method"]) > 0,
		Authorization: r.Header["Authorization"],
		Target:        target(r),
		Headers:       h.trust.others(r.Header),
	})
}

// Ready slices, so that an answer allocates none. Nobody changes them.
var (
	validReason = []string{gate.Valid.String()}
	hangUp      = []string{"close"}
	keepsToken  = []string{"keep"}
)

var notFound = gate.Reply{
	Status: http.StatusNotFound,
	Header: []gate.Header{{Name: "Content-Type", Value: "application/json"}, {Name: "Cache-Control", Value: "no-store"}},
	Body:   gate.ErrorBody("nothing is here; ask at " + Prefix + " or below it"),
}

// WantsHeader is where an edge says that it reads no bodies and wants them in a
// header: "body".
const WantsHeader = "X-Bearergate-Wants"

// refuse writes a refusal as the edge can take it.
func (h *handler) refuse(w http.ResponseWriter, r *http.Request, reply *gate.Reply) {
	said := reply
	if reply.Forbidden != nil {
		// nginx takes whatever is neither 2xx, 401 nor 403 for an error of ours.
		reply = reply.Forbidden
	}
	if wants := r.Header[WantsHeader]; len(wants) == 1 && wants[0] == "body" {
		// What nginx says to the client, by its recipe, is the 400.
		w.Header()[gate.BodyHeader] = []string{oneLine(said.Body)}
	}
	write(w, reply)
}

// oneLine makes of a body what can stand in a header: each line break, with what
// indents the line, becomes a space. In JSON, HTML and XML that makes no difference.
func oneLine(body []byte) string {
	var lines []string
	for line := range strings.FieldsFuncSeq(string(body), func(c rune) bool { return c == '\n' || c == '\r' }) {
		if line = strings.Trim(line, " \t"); line != "" {
			lines = append(lines, strings.ReplaceAll(line, "\t", " "))
		}
	}
	return strings.Join(lines, " ")
}

func write(w http.ResponseWriter, reply *gate.Reply) {
	for _, h := range reply.Header {
		w.Header().Set(h.Name, h.Value)
	}
	w.WriteHeader(reply.Status)
	_, _ = w.Write(reply.Body) //nolint:gosec // our own words; an edge that went away is told nothing
}

// target returns the target of the client's request, as far as the edge tells.
// nginx (by the recipe) and Caddy name it in a header, Envoy's is behind the
// prefix. It serves to explain a refusal and nothing else: a client may have
// written those headers.
func target(r *http.Request) string {
	for _, name := range [...]string{"X-Original-Uri", "X-Forwarded-Uri"} {
		if values := r.Header[name]; len(values) > 0 {
			return values[0]
		}
	}
	return r.RequestURI
}
