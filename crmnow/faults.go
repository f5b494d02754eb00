package crmnow

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"strings"
	"time"
)

// HTMLPage is the body of a reply with [Fault.HTML].
const HTMLPage = "<!DOCTYPE html>\n<html><head><title>Maintenance</title></head><body><h1>We will be back soon</h1></body></html>\n"

// Fault is what goes wrong with the requests of a job. The zero value is no
// fault. A request that meets one waits for Delay, then hangs if it is to, and
// then its connection is ended or its reply is changed. Close and Reset go with
// no change to the reply. What Body and CutAfter point to is not changed once the
// Fault is set.
//
// As JSON, for [Emulator.Control], a Fault is an object with the members delay
// (as "1.5s"), hang, close, reset, status, retry_after, location, html, body,
// content_type, cut_after and times; none is required, no other is allowed.
type Fault struct {
	// Delay is how long a request waits.
	Delay time.Duration `json:"-"`
	// Hang makes a request wait until the fault is replaced.
	Hang bool `json:"hang,omitempty"`
	// Close ends the connection in order, without a reply, as a server does that
	// is stopped.
	Close bool `json:"close,omitempty"`
	// Reset ends the connection with a TCP reset, without a reply, as a machine
	// does that was started anew. A connection that cannot be reset is closed.
	Reset bool `json:"reset,omitempty"`
	// Status is the status of the reply, from 200 to 599; 0 leaves it. A status
	// below 300 keeps the true body; any other brings a body of its own.
	Status int `json:"status,omitempty"`
	// RetryAfter is sent as the header Retry-After, as it is.
	RetryAfter string `json:"retry_after,omitempty"`
	// Location is sent as the header of this name. Without a Status it makes the
	// reply a redirect with status 307.
	Location string `json:"location,omitempty"`
	// HTML makes the body a web page.
	HTML bool `json:"html,omitempty"`
	// Body is the body instead of the true one, of at most 64 KiB; nil leaves it.
	// The Content-Type stays, so that a wrong body looks like a right one.
	Body *string `json:"body,omitempty"`
	// ContentType is sent instead of application/json.
	ContentType string `json:"content_type,omitempty"`
	// CutAfter ends the connection after so many bytes of the body, though its
	// announced length is the whole; nil does not. 0 leaves nothing but the header,
	// and a number beyond the length leaves the whole.
	CutAfter *int `json:"cut_after,omitempty"`
	// Times is how many requests meet the fault before it clears itself; 0 means
	// all until it is replaced. Those that wait in the fault by then go on waiting.
	Times int `json:"times,omitempty"`
}

// Validate says what makes no sense in a fault.
func (f Fault) Validate() error {
	ends := f.Close || f.Reset
	changes := f.replaces() || f.Status != 0 || f.RetryAfter != "" || f.ContentType != "" || f.CutAfter != nil
	switch {
	case f.Delay < 0:
		return fmt.Errorf("the delay is %s; it is not negative", f.Delay)
	case f.Status != 0 && (f.Status < 200 || f.Status > 599):
		return fmt.Errorf("the status is %d; it is 200 to 599", f.Status)
	case f.Close && f.Reset:
		return errors.New("a connection is ended by close or by reset, not by both")
	case ends && changes:
		return errors.New("a connection that is ended by close or reset has no reply to change")
	case f.HTML && f.Body != nil:
		return errors.New("the body is html or body, not both")
	case f.Body != nil && len(*f.Body) > maxBody:
		return fmt.Errorf("the body is longer than %d bytes", maxBody)
	case f.CutAfter != nil && *f.CutAfter < 0:
		return fmt.Errorf("the reply is cut after %d bytes; give 0 or more", *f.CutAfter)
	case strings.ContainsAny(f.RetryAfter+f.Location+f.ContentType, "\r\n\x00"):
		return errors.New("a header holds a line break")
	case f.Times < 0:
		return fmt.Errorf("the fault is met %d times; give 1 or more, or 0 for all requests", f.Times)
	}
	return nil
}

// replaces reports whether nothing is left of the true reply, so that there is
// no need to find out what it is.
func (f Fault) replaces() bool {
	return f.HTML || f.Body != nil || f.Location != "" || f.Status >= 300
}

// bend changes a reply.
func (f Fault) bend(a reply) reply {
	header := map[string]string{}
	if !f.replaces() {
		maps.Copy(header, a.header)
	}
	if f.Location != "" {
		a.status = http.StatusTemporaryRedirect
		header["Location"] = f.Location
	}
	if f.Status != 0 {
		a.status = f.Status
	}
	switch {
	case f.Body != nil:
		a.body = []byte(*f.Body)
	case f.HTML:
		a.body = []byte(HTMLPage)
		header["Content-Type"] = "text/html; charset=utf-8"
	case f.replaces():
		a.body = []byte(`{"error":"emulated_fault","error_description":"this status was asked for"}`)
	}
	if f.RetryAfter != "" {
		header["Retry-After"] = f.RetryAfter
	}
	if f.ContentType != "" {
		header["Content-Type"] = f.ContentType
	}
	a.header = header
	return a
}

// SetFault makes the requests of a job, or of both, meet a fault from now on, in
// place of the one before. Those that wait in the one before go on at once and
// get the true answer. Each job counts Times for itself. The error is that of
// [Fault.Validate].
func (e *Emulator) SetFault(job Job, f Fault) error {
	if job == 0 || job&^Both != 0 {
		return fmt.Errorf("%s is no job; give Fetch, Verify or Both", job)
	}
	if err := f.Validate(); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if job&Fetch != 0 {
		e.fetch.replace(f)
	}
	if job&Verify != 0 {
		e.verify.replace(f)
	}
	return nil
}

// ClearFaults ends all faults. Requests that wait in one go on at once and get
// the true answer.
func (e *Emulator) ClearFaults() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fetch.replace(Fault{})
	e.verify.replace(Fault{})
}

// Fault returns the fault that the requests of one job meet now, with what is
// left of its Times; the zero value if there is none.
func (e *Emulator) Fault(job Job) Fault {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.faultyOf(job).fault
}

// faulty is the fault of a job, guarded by the Emulator's lock.
type faulty struct {
	fault Fault
	// replaced is closed when the fault is; nil until there is one.
	replaced chan struct{}
}

func (f *faulty) replace(fault Fault) {
	if f.replaced != nil {
		close(f.replaced)
		f.replaced = nil
	}
	f.fault = fault
	if fault != (Fault{}) {
		f.replaced = make(chan struct{})
	}
}

// faultyOf needs e.mu.
func (e *Emulator) faultyOf(job Job) *faulty {
	if job == Verify {
		return &e.verify
	}
	return &e.fetch
}

// meet waits in the fault of a job and returns it, or none if it was replaced
// meanwhile. The error says that the client or the server has gone.
func (e *Emulator) meet(ctx context.Context, job Job) (Fault, error) {
	e.mu.Lock()
	current := e.faultyOf(job)
	fault, replaced := current.fault, current.replaced
	if fault == (Fault{}) {
		e.mu.Unlock()
		return Fault{}, nil
	}
	e.stats.of(job).Faulted++
	if fault.Times > 0 {
		current.fault.Times--
		if current.fault.Times == 0 {
			current.fault = Fault{} // replaced stays: it frees those that wait
		}
	}
	e.tell()
	e.mu.Unlock()

	if fault.Delay > 0 {
		timer := time.NewTimer(fault.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-replaced:
			return Fault{}, nil
		case <-ctx.Done():
			return Fault{}, context.Cause(ctx)
		}
	}
	if fault.Hang {
		select {
		case <-replaced:
			return Fault{}, nil
		case <-ctx.Done():
			return Fault{}, context.Cause(ctx)
		}
	}
	return fault, nil
}

// drop ends the connection without a reply, and the handler with it.
func drop(w http.ResponseWriter, reset bool) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		if tcp, ok := conn.(*net.TCPConn); ok && reset {
			_ = tcp.SetLinger(0) // what makes Close send a reset
		}
		_ = conn.Close()
	}
	panic(http.ErrAbortHandler)
}

// faultFields are the members of a Fault without its methods.
type faultFields Fault

// faultJSON is how a Fault is written.
type faultJSON struct {
	Delay string `json:"delay,omitempty"`
	faultFields
}

// MarshalJSON writes the fault as an object without what is not set.
func (f Fault) MarshalJSON() ([]byte, error) {
	j := faultJSON{faultFields: faultFields(f)}
	if f.Delay != 0 {
		j.Delay = f.Delay.String()
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON writes. Unknown members are errors.
func (f *Fault) UnmarshalJSON(data []byte) error {
	var j faultJSON
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&j); err != nil {
		return err
	}
	if j.Delay != "" {
		delay, err := time.ParseDuration(j.Delay)
		if err != nil {
			return fmt.Errorf("the delay %q is no duration; write it like 250ms or 1.5s", j.Delay)
		}
		j.faultFields.Delay = delay
	}
	*f = Fault(j.faultFields)
	return nil
}
