package crmnow

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"
)

// ControlPath is where [Emulator.Control] answers: everything below it.
const ControlPath = "/emulator/"

// faultsJSON is the body of ControlPath + "faults".
type faultsJSON struct {
	Fetch  *Fault `json:"fetch,omitempty"`
	Verify *Fault `json:"verify,omitempty"`
}

// Control returns a handler that steers the emulator at run time. It has no
// access control of its own: mount it where only those can reach it who may.
//
//	GET    /emulator/stats     the counters, as Stats has them
//	GET    /emulator/faults    the faults in force
//	PUT    /emulator/faults    the faults from now on; a job that is left out has none
//	DELETE /emulator/faults    no faults from now on
//
// The last three answer with the faults that are in force then. They are
// written as
//
//	{"verify": {"delay": "250ms", "status": 503, "retry_after": "7", "times": 3}, "fetch": {"hang": true}}
//
// with the members of [Fault]. A body that is not understood is refused with 400
// and changes nothing. No reply holds a token.
func (e *Emulator) Control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+ControlPath+"stats", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, e.Stats())
	})
	mux.HandleFunc("GET "+ControlPath+"faults", func(w http.ResponseWriter, _ *http.Request) {
		e.writeFaults(w)
	})
	mux.HandleFunc("DELETE "+ControlPath+"faults", func(w http.ResponseWriter, _ *http.Request) {
		e.ClearFaults()
		e.writeFaults(w)
	})
	mux.HandleFunc("PUT "+ControlPath+"faults", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(exchangeTimeout)) // some writers have none
		if err := e.putFaults(http.MaxBytesReader(w, r.Body, 8*maxBody)); err != nil {
			writeJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
			return
		}
		e.writeFaults(w)
	})
	return mux
}

func (e *Emulator) putFaults(body io.Reader) error {
	var wanted faultsJSON
	decoder := json.NewDecoder(body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&wanted); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON object")
	}
	var fetch, verify Fault
	if wanted.Fetch != nil {
		fetch = *wanted.Fetch
	}
	if wanted.Verify != nil {
		verify = *wanted.Verify
	}
	if err := errors.Join(fetch.Validate(), verify.Validate()); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fetch.replace(fetch)
	e.verify.replace(verify)
	return nil
}

func (e *Emulator) writeFaults(w http.ResponseWriter) {
	var now faultsJSON
	if f := e.Fault(Fetch); f != (Fault{}) {
		now.Fetch = &f
	}
	if f := e.Fault(Verify); f != (Fault{}) {
		now.Verify = &f
	}
	writeJSON(w, http.StatusOK, now)
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(value) // a client that went away is no error here
}
