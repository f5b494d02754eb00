package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/bearergate/bearergate/gate"
)

// The bounds of streams.
const (
	// maxStreams is how many pages may follow the gateway at the same time. Half of
	// those who may watch decisions are left for tools.
	maxStreams = gate.MaxWatchers / 2
	// streamStep is how often what has changed is sent: calm enough to be read. The time
	// has, always, and so a connection that is no more is found out.
	streamStep = 2 * time.Second
	// streamWrite is how long a page may take to read what it is sent.
	streamWrite = 10 * time.Second
	// shownDecisions is how many decisions are shown as they come.
	shownDecisions = 12
)

// streams counts those that are open.
type streams struct{ open atomic.Int64 }

func (s *streams) enter() bool {
	if s.open.Add(1) > maxStreams {
		s.open.Add(-1)
		return false
	}
	return true
}

func (s *streams) leave() { s.open.Add(-1) }

// part is a part of the page as the stream sends it.
type part struct {
	ID   string `json:"id"`
	HTML string `json:"html"`
}

// stream sends the parts of the page that have changed, as server-sent events (HTML
// Living Standard §9.2), until the page is closed or the server shuts down.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) {
	words, _ := choose(r)
	w.Header().Set("Content-Type", "text/event-stream")
	out := &eventStream{w: w, control: http.NewResponseController(w)}
	if !s.shown.streams.enter() {
		out.send("full", nil) // an error would be one in the browser's console
		return
	}
	defer s.shown.streams.leave()
	f := follower{sent: map[string]string{}}
	if c := s.shown.controls.Load(); c != nil && c.Events != nil {
		if watcher, err := c.Events.Watch(gate.Filter{}); err == nil {
			f.watcher = watcher
			defer watcher.Close()
		}
	}
	ticker := time.NewTicker(streamStep)
	defer ticker.Stop()
	for out.send("parts", f.changed(s.view(r.Context(), words))) {
		select {
		case <-ticker.C:
		case <-r.Context().Done():
			return
		case <-s.stopping:
			return
		}
	}
}

// eventStream writes events.
type eventStream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// send sends an event, and reports whether the page is still there.
func (o *eventStream) send(name string, parts []part) bool {
	body, err := json.Marshal(parts) // has no line breaks
	if err != nil || o.control.SetWriteDeadline(time.Now().Add(streamWrite)) != nil {
		return false
	}
	_, err = fmt.Fprintf(o.w, "event: %s\ndata: %s\n\n", name, body)
	return err == nil && o.control.Flush() == nil
}

// follower is a page that follows the gateway.
type follower struct {
	sent    map[string]string
	watcher *gate.Watcher
	seen    []*gate.Event // the newest first
	skipped uint64
}

// changed returns the parts that are not as they were sent last.
func (f *follower) changed(v *view) []part {
	f.look(v)
	var parts []part
	add := func(id, text string) {
		if f.sent[id] != text {
			f.sent[id] = text
			parts = append(parts, part{id, text})
		}
	}
	for _, id := range pageParts {
		var text bytes.Buffer
		if pageTemplates().ExecuteTemplate(&text, id, v) == nil {
			add(id, text.String())
		}
	}
	add("title", v.PageTitle()) // is text and no HTML
	return parts
}

// look takes in the decisions that were made since the last time.
func (f *follower) look(v *view) {
	if f.watcher == nil {
		return
	}
	v.Watched = true
	for range len(f.watcher.Events()) {
		f.seen = slices.Insert(f.seen[:min(len(f.seen), shownDecisions-1)], 0, <-f.watcher.Events())
		f.skipped++
	}
	for _, e := range f.seen {
		v.Decisions = append(v.Decisions, v.Words.event(e))
	}
	if n := f.skipped - uint64(len(f.seen)) + f.watcher.Missed(); n > 0 {
		v.NotShown = v.Words.fill(v.Words.NotShown, v.Words.count(n))
	}
}
