package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
)

// expectations are what the edges' own logs must say of the requests, by the file of
// the log and the name of the request.
type expectations struct {
	mu  sync.Mutex
	all map[string]map[string]answer
	// edges tells whose log a file is.
	edges map[string]*edge
}

// expect notes what the edge must log of a request. It may be used concurrently.
func (r *run) expect(e *edge, name string, want answer) {
	x := &r.expected
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.all == nil {
		x.all, x.edges = map[string]map[string]answer{}, map[string]*edge{}
	}
	if x.all[e.stdout] == nil {
		x.all[e.stdout] = map[string]answer{}
	}
	x.all[e.stdout][name] = want
	x.edges[e.stdout] = e
}

// logEntry is a line of an edge's log of requests: all that the recipes write there
// which these tests look at.
type logEntry struct {
	Path       string `json:"path"`
	Status     int    `json:"status"`
	Reason     string `json:"reason"`
	Source     string `json:"source"`
	Details    string `json:"details"`
	GateStatus string `json:"gate_status"`
	// What only an edge writes that keeps answers: whether it has let the request
	// through by one, and how many it had when it asked.
	Kept        bool   `json:"kept"`
	KeptAnswers int    `json:"kept_answers"`
	GateCache   string `json:"gate_cache"`
	Request     struct {
		URI string `json:"uri"`
	} `json:"request"` // Caddy's
}

// testEdgeLogs shows that an operator finds in the log of each edge what became of
// each request, and why. The edges must have stopped: they write their logs late.
func testEdgeLogs(t *testing.T, r *run) {
	for file, wanted := range r.expected.all {
		e := r.expected.edges[file]
		t.Run(e.name, func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			logged := map[string]logEntry{}
			for line := range bytes.Lines(text) {
				var entry logEntry
				if err := json.Unmarshal(line, &entry); err != nil {
					t.Fatalf("a line that is no JSON: %s", line)
				}
				path := entry.Path + entry.Request.URI
				if strings.ContainsAny(path, "?") {
					t.Errorf("a query is logged: %s", path)
				}
				logged[path[strings.LastIndexByte(path, '/')+1:]] = entry
			}
			for name, want := range wanted {
				entry, ok := logged[name]
				if !ok {
					if want.reason != ofTheEdge { // some are refused before they are a request
						t.Errorf("%s: nothing is logged", name)
					}
					continue
				}
				if err := e.explains(entry, want); err != nil {
					t.Errorf("%s: want %+v: %v", name, want, err)
				}
			}
		})
	}
}

// explains returns an error when a log entry does not say what an operator needs.
func (e *edge) explains(entry logEntry, want answer) error {
	if entry.Status != want.status {
		return fmt.Errorf("status %d is logged", entry.Status)
	}
	if want.reason == ofTheEdge {
		return nil
	}
	if entry.Kept || entry.GateCache == "HIT" {
		if want.status != http.StatusOK || entry.Reason != "" || entry.GateStatus != "" {
			return fmt.Errorf("an answer was kept: %+v", entry)
		}
		return nil
	}
	switch e.asks() {
	case "envoy":
		if want.reason == notAsked {
			if entry.Details != "ext_authz_error" {
				return fmt.Errorf("details are %q", entry.Details)
			}
		} else if entry.Reason != want.reason {
			return fmt.Errorf("reason is %q", entry.Reason)
		}
		if want == allowed && entry.Source == "" {
			return fmt.Errorf("no source")
		}
	case "envoy-http":
		// Over HTTP Envoy has the gateway's words for allowed requests alone, and a
		// gateway's 503 is for it the same as none.
		if want.status == http.StatusServiceUnavailable && entry.Details != "ext_authz_error" {
			return fmt.Errorf("details are %q", entry.Details)
		}
	case "nginx":
		gate := fmt.Sprint(want.status)
		switch {
		case want.reason == notAsked:
			gate = "502"
		case want.status == http.StatusBadRequest:
			gate = "403" // nginx would make 500 of a 400
		}
		if entry.GateStatus != gate {
			return fmt.Errorf("gate_status is %q", entry.GateStatus)
		}
	}
	return nil
}
