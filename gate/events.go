package gate

import (
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bearergate/bearergate/verifier"
)

// Event is a decision, as an operator may see it. Nothing in it is a text that only
// the client has chosen: who sends a token where none belongs must not find it there.
// An Event is not changed any more; whoever is told of it may keep it.
type Event struct {
	At       time.Time
	Listener string
	// Policy is the name of the policy that decided; the default one's, if the request
	// fell under none.
	Policy string
	Reason Reason
	// Source says where the verdict came from, if Reason follows from one.
	Source verifier.Source
	// Shadow says that the request was let through all the same.
	Shadow bool
	// Took is how long the decision took, if that was measured; else 0.
	Took time.Duration
	// Fingerprint is the token's; "none" if there is no token that could be read.
	Fingerprint string
	// Detail says what is wrong with the credential, in words of package bearer; "" if
	// nothing is.
	Detail string
	// Method is the request's if it is a usual one, else "other"; "" if policies are not
	// chosen by it.
	Method string
	// Host is the request's as a route names it: *.example.com stands for a name below.
	// It is "" if no route does.
	Host string
	// RequestID is the id that the edge gave the request, if the log shows it, too.
	RequestID string
	// Client is where the edge says that the request comes from, or the network as
	// [Options.Clients] says; the zero Addr if it does not, or if nothing is to be shown.
	Client netip.Addr
	// Weight is how many decisions it stands for: one, or those of which it was taken by
	// chance.
	Weight uint32
}

// Outcome returns what became of the request.
func (e *Event) Outcome() Outcome {
	if e.Shadow {
		return Allow
	}
	return e.Reason.Outcome()
}

// Filter says which decisions somebody wants to see: those that fit each of its
// fields. One that is empty fits all.
type Filter struct {
	Outcomes     []Outcome
	Reasons      []Reason
	Policies     []string
	Listeners    []string
	Fingerprints []string
	Clients      []netip.Prefix
}

// mayFit reports whether a decision may fit, as far as is known without an Event.
func (f *Filter) mayFit(listener, policy string, d *Decision) bool {
	return fits(f.Reasons, d.Reason) && fits(f.Listeners, listener) && fits(f.Policies, policy) &&
		(len(f.Outcomes) == 0 || slices.Contains(f.Outcomes, d.Outcome()))
}

// fitsRest reports whether what mayFit has let pass does fit.
func (f *Filter) fitsRest(e *Event) bool {
	return fits(f.Fingerprints, e.Fingerprint) &&
		(len(f.Clients) == 0 || slices.ContainsFunc(f.Clients, func(p netip.Prefix) bool { return p.Contains(e.Client) }))
}

func fits[T comparable](wanted []T, value T) bool {
	return len(wanted) == 0 || slices.Contains(wanted, value)
}

// The bounds of who watches.
const (
	// MaxWatchers is how many may watch at the same time.
	MaxWatchers = 16
	// watched is how many decisions wait for one who watches.
	watched = 512
)

// ErrTooManyWatchers is the error of one who would watch beside [MaxWatchers] others.
var ErrTooManyWatchers = errors.New("too many watch the decisions already")

// Events lets decisions be watched while they are made. A decision never waits for who
// watches: they miss what they have no room for, and are told how much that was. Gates
// may share one. The zero Events is ready; it may be used concurrently.
type Events struct {
	watchers atomic.Pointer[[]*Watcher] // nil: none, which is all that decisions look at then

	mu sync.Mutex // is held by who changes watchers
}

// Watcher is somebody who watches decisions.
type Watcher struct {
	of     *Events
	filter Filter
	events chan *Event
	missed atomic.Uint64
}

// Watch begins to watch the decisions that fit a filter. Close ends it. The error is
// [ErrTooManyWatchers].
func (e *Events) Watch(f Filter) (*Watcher, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []*Watcher
	if before := e.watchers.Load(); before != nil {
		all = slices.Clone(*before)
	}
	if len(all) >= MaxWatchers {
		return nil, ErrTooManyWatchers
	}
	w := &Watcher{of: e, filter: f, events: make(chan *Event, watched)}
	all = append(all, w)
	e.watchers.Store(&all)
	return w, nil
}

// Events gives the decisions, in the order in which they were told. It is never closed.
func (w *Watcher) Events() <-chan *Event { return w.events }

// Missed is how many decisions there was no room for, since the beginning.
func (w *Watcher) Missed() uint64 { return w.missed.Load() }

// Close ends the watching. It may be called more than once.
func (w *Watcher) Close() {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	before := w.of.watchers.Load()
	if before == nil {
		return
	}
	all := slices.DeleteFunc(slices.Clone(*before), func(other *Watcher) bool { return other == w })
	if len(all) == 0 {
		w.of.watchers.Store(nil)
		return
	}
	w.of.watchers.Store(&all)
}

// tell tells of a decision those who want to know it: who watches, and who is told of
// some. By chance it is one of those that stand for others. Of a request that could
// not be read, there is none.
func (g *Gate) tell(r *Request, d *Decision, took time.Duration, chosen bool) {
	var made *Event
	event := func() *Event {
		if made == nil {
			made = g.event(r, d, took)
		}
		return made
	}
	if all := g.events.watchers.Load(); all != nil {
		for _, w := range *all {
			w.tell(g.listener, g.policies[d.Policy].Name, d, event)
		}
	}
	switch {
	case g.sampled == nil:
	case d.Reason.Outcome() != Allow:
		g.sampled(event())
	case chosen:
		one := *event()
		one.Weight = Sampled
		g.sampled(&one)
	}
}

func (w *Watcher) tell(listener, policy string, d *Decision, event func() *Event) {
	if !w.filter.mayFit(listener, policy, d) {
		return
	}
	if len(w.filter.Fingerprints)+len(w.filter.Clients) == 0 && len(w.events) == cap(w.events) {
		w.missed.Add(1) // without an Event: a flood is when it costs most
		return
	}
	e := event()
	if !w.filter.fitsRest(e) {
		return
	}
	select {
	case w.events <- e:
	default:
		w.missed.Add(1)
	}
}

// event makes an Event of a decision. What it takes from the request it copies, since
// that lies in memory that is used again.
func (g *Gate) event(r *Request, d *Decision, took time.Duration) *Event {
	e := &Event{
		At: time.Now(), Listener: g.listener, Policy: g.policies[d.Policy].Name,
		Reason: d.Reason, Source: d.Source, Shadow: d.Shadow, Took: took,
		Fingerprint: "none", Weight: 1,
	}
	if d.fault != nil {
		e.Detail = d.fault.Error()
	}
	if d.fingerprint != [fingerprintSize]byte{} {
		e.Fingerprint = string(d.fingerprint[:])
	}
	if r == nil {
		return e
	}
	if d.Reason == Valid && e.Fingerprint == "none" {
		t, _ := g.parser.Parse(r.Authorization) // it could be read a moment ago
		e.Fingerprint = t.Fingerprint()
	}
	e.Method = usualMethod(r.Method)
	if g.router != nil && r.Host != "" {
		e.Host = g.router.NamedHost(r.Host)
	}
	if r.Headers != nil && g.clients != NoClients {
		e.Client = g.clients.of(r.Headers.Client())
	}
	if r.Headers != nil && g.log.requestID.Load() {
		if id := r.Headers.Header(requestIDHeader); isPlainID(id) {
			e.RequestID = strings.Clone(id)
		}
	}
	return e
}

// usualMethods are those of RFC 9110 §9.1 and RFC 5789, which no token can be.
var usualMethods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete,
	http.MethodOptions, http.MethodConnect, http.MethodTrace,
}

func usualMethod(method string) string {
	if method == "" {
		return ""
	}
	if i := slices.Index(usualMethods, method); i >= 0 {
		return usualMethods[i]
	}
	return "other"
}
