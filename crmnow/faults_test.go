package crmnow_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bearergate/bearergate/crmnow"
)

// caller returns a function that asks over a real connection, a new one each time,
// and follows no redirect. The error is the one at which the reply ended.
func caller(t *testing.T) func(ctx context.Context, r *http.Request) (answer, error) {
	transport := &http.Transport{DisableKeepAlives: true}
	t.Cleanup(transport.CloseIdleConnections)
	return func(ctx context.Context, r *http.Request) (answer, error) {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		resp, err := transport.RoundTrip(r.WithContext(ctx))
		if err != nil {
			return answer{}, err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return answer{resp.StatusCode, resp.Header, string(body)}, err
	}
}

// addressed is a request that goes to an emulator on loopback.
func addressed(t *testing.T, l *crmnow.Local, r *http.Request) *http.Request {
	t.Helper()
	u, err := url.Parse(l.URL())
	if err != nil {
		t.Fatal(err)
	}
	r.URL, r.Host, r.RequestURI = u, "", ""
	return r
}

func TestFaults(t *testing.T) {
	const asked = `{"error":"emulated_fault","error_description":"this status was asked for"}`
	for _, c := range []struct {
		name   string
		fault  crmnow.Fault
		status int
		body   string
		header map[string]string
		err    error
	}{
		{"no fault", crmnow.Fault{}, 200, saysValid, map[string]string{"Content-Type": "application/json"}, nil},
		{"a short delay", crmnow.Fault{Delay: time.Millisecond}, 200, saysValid, nil, nil},
		{"a status", crmnow.Fault{Status: 500}, 500, asked, map[string]string{"Content-Type": "application/json", "Retry-After": ""}, nil},
		{"a status with Retry-After", crmnow.Fault{Status: 503, RetryAfter: "7"}, 503, asked, map[string]string{"Retry-After": "7"}, nil},
		{"a status that asks for credentials", crmnow.Fault{Status: 401}, 401, asked, map[string]string{"WWW-Authenticate": ""}, nil},
		{"another good status keeps the answer", crmnow.Fault{Status: 201}, 201, saysValid, nil, nil},
		{"no content", crmnow.Fault{Status: 204}, 204, "", map[string]string{"Content-Type": "", "Content-Length": ""}, nil},
		{"a status with the true answer as its body", crmnow.Fault{Status: 500, Body: new(saysValid)}, 500, saysValid, nil, nil},
		{"Retry-After alone", crmnow.Fault{RetryAfter: "soon"}, 200, saysValid, map[string]string{"Retry-After": "soon"}, nil},
		{"a redirect", crmnow.Fault{Location: "https://login.invalid/"}, 307, asked, map[string]string{"Location": "https://login.invalid/"}, nil},
		{"a redirect of another kind", crmnow.Fault{Location: "/x", Status: 302}, 302, asked, map[string]string{"Location": "/x"}, nil},
		{"a web page", crmnow.Fault{HTML: true}, 200, crmnow.HTMLPage, map[string]string{"Content-Type": "text/html; charset=utf-8"}, nil},
		{"a web page that says so with its status", crmnow.Fault{HTML: true, Status: 502}, 502, crmnow.HTMLPage, nil, nil},
		{"garbage", crmnow.Fault{Body: new("\x00\xff{")}, 200, "\x00\xff{", map[string]string{"Content-Type": "application/json"}, nil},
		{"nothing", crmnow.Fault{Body: new("")}, 200, "", map[string]string{"Content-Length": "0"}, nil},
		{"another type", crmnow.Fault{ContentType: "text/plain"}, 200, saysValid, map[string]string{"Content-Type": "text/plain"}, nil},
		{"cut off within", crmnow.Fault{CutAfter: new(12)}, 200, saysValid[:12], map[string]string{"Content-Length": "42"}, io.ErrUnexpectedEOF},
		{"cut off after the header", crmnow.Fault{CutAfter: new(0)}, 200, "", map[string]string{"Content-Length": "42"}, io.ErrUnexpectedEOF},
		{"cut off beyond the end", crmnow.Fault{CutAfter: new(1000)}, 200, saysValid, nil, nil},
		{"closed", crmnow.Fault{Close: true}, 0, "", nil, io.EOF},
		{"reset", crmnow.Fault{Reset: true}, 0, "", nil, syscall.ECONNRESET},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := startLocal(t, crmnow.EmulatorOptions{})
			call := caller(t)
			token := issue(t, l.Emulator)
			setFault(t, l.Emulator, crmnow.Verify, c.fault)
			got, err := call(t.Context(), addressed(t, l, question(token.Reveal())))
			if !errors.Is(err, c.err) || got.status != c.status || got.body != c.body {
				t.Errorf("the reply is %d %q, %v; want %d %q, %v", got.status, got.body, err, c.status, c.body, c.err)
			}
			for name, want := range c.header {
				if got.header.Get(name) != want {
					t.Errorf("the header %s is %q, want %q", name, got.header.Get(name), want)
				}
			}
			// The other job knows nothing of it, and afterwards all is well.
			if got, err := call(t.Context(), addressed(t, l, fetch())); err != nil || got.status != 200 {
				t.Errorf("a fetch gets %d, %v", got.status, err)
			}
			l.ClearFaults()
			if got, err := call(t.Context(), addressed(t, l, question(token.Reveal()))); err != nil || got.body != saysValid {
				t.Errorf("without a fault the answer is %d %s, %v", got.status, got.body, err)
			}
		})
	}
}

func TestFaultyFetchIssuesNothing(t *testing.T) {
	e := newEmulator(t, crmnow.EmulatorOptions{Clients: partner()})
	for _, f := range []crmnow.Fault{{Status: 500}, {HTML: true}, {Body: new("")}, {Location: "/"}} {
		setFault(t, e, crmnow.Both, f)
		ask(e, fetch())
		ask(e, question("x"))
	}
	if s := e.Stats(); s.Issued != 0 || s.Invalid != 0 || s.Fetch.Faulted != 4 || s.Verify.Faulted != 4 {
		t.Errorf("the counters are %+v", s)
	}
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEmulator(t, crmnow.EmulatorOptions{})
		token := issue(t, e)
		setFault(t, e, crmnow.Verify, crmnow.Fault{Delay: 1500 * time.Millisecond})
		began := time.Now()
		expectVerdict(t, e, token, saysValid)
		if took := time.Since(began); took != 1500*time.Millisecond {
			t.Errorf("the answer took %s", took)
		}
		// The token ends while its question waits.
		pass(crmnow.DefaultLifetime - 2*time.Second)
		expectVerdict(t, e, token, saysInvalid)
	})
}

func TestFaultThatIsReplacedLetsGo(t *testing.T) {
	for name, fault := range map[string]crmnow.Fault{
		"hang":            {Hang: true},
		"hang after all":  {Delay: time.Second, Hang: true, Status: 500},
		"delay":           {Delay: time.Hour},
		"hang for one":    {Hang: true, Times: 1},
		"delay and close": {Delay: time.Hour, Close: true},
	} {
		for how, replace := range map[string]func(e *crmnow.Emulator) error{
			"cleared": func(e *crmnow.Emulator) error {
				e.ClearFaults()
				return nil
			},
			"replaced": func(e *crmnow.Emulator) error { return e.SetFault(crmnow.Verify, crmnow.Fault{Status: 500}) },
		} {
			t.Run(name+" is "+how, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					e := newEmulator(t, crmnow.EmulatorOptions{})
					token := issue(t, e)
					setFault(t, e, crmnow.Verify, fault)
					done := make(chan struct{})
					go func() {
						defer close(done)
						expectVerdict(t, e, token, saysValid)
					}()
					pass(10 * time.Minute / 4)
					synctest.Wait()
					if n := e.Stats().Verify.InFlight; n != 1 {
						t.Fatalf("%d questions wait", n)
					}
					began := time.Now()
					if err := replace(e); err != nil {
						t.Fatal(err)
					}
					<-done
					if !time.Now().Equal(began) {
						t.Error("it went on waiting")
					}
				})
			})
		}
	}
}

func TestFaultEndsWithItsRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, p := serveOnPipes(t, crmnow.EmulatorOptions{})
		setFault(t, e, crmnow.Both, crmnow.Fault{Delay: time.Second, Hang: true})
		transport := &http.Transport{DialContext: p.Dial}
		defer transport.CloseIdleConnections()
		for _, wait := range []time.Duration{time.Second / 2, 2 * time.Second} {
			r := question("x")
			r.URL.Scheme, r.URL.Host, r.RequestURI = "http", "127.0.0.1", ""
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			if _, err := transport.RoundTrip(r.WithContext(ctx)); !errors.Is(err, context.DeadlineExceeded) { //nolint:bodyclose // there is none
				t.Errorf("the reply is an error: %v", err)
			}
			cancel()
			synctest.Wait()
			if n := e.Stats().Verify.InFlight; n != 0 {
				t.Errorf("%d questions wait although nobody does", n)
			}
		}
	})
}

func TestFaultIsMetSoManyTimes(t *testing.T) {
	e := newEmulator(t, crmnow.EmulatorOptions{Clients: partner()})
	setFault(t, e, crmnow.Both, crmnow.Fault{Status: 500, Times: 2})
	for i, want := range []int{500, 500, 200, 200} {
		if left := e.Fault(crmnow.Fetch).Times; left != max(0, 2-i) {
			t.Errorf("before fetch %d the fault is left for %d", i+1, left)
		}
		if got := ask(e, fetch()); got.status != want {
			t.Errorf("fetch %d gets %d, want %d", i+1, got.status, want)
		}
	}
	if e.Fault(crmnow.Fetch) != (crmnow.Fault{}) {
		t.Error("the fault is not over")
	}
	// Each job counts for itself.
	if f := e.Fault(crmnow.Verify); f.Times != 2 || f.Status != 500 {
		t.Errorf("the fault of the other job is %+v", f)
	}
	if s := e.Stats(); s.Fetch.Faulted != 2 || s.Verify.Faulted != 0 {
		t.Errorf("the counters are %+v", s)
	}
}

func TestFaultForSoManyIsMetByExactlyThem(t *testing.T) {
	l := startLocal(t, crmnow.EmulatorOptions{})
	call := caller(t)
	token := issue(t, l.Emulator)
	setFault(t, l.Emulator, crmnow.Verify, crmnow.Fault{Status: 503, Times: 5})
	var callers sync.WaitGroup
	statuses := make(chan int, 20)
	for range cap(statuses) {
		r := addressed(t, l, question(token.Reveal()))
		callers.Go(func() {
			got, err := call(t.Context(), r)
			if err != nil {
				t.Error(err)
			}
			statuses <- got.status
		})
	}
	callers.Wait()
	close(statuses)
	count := map[int]int{}
	for status := range statuses {
		count[status]++
	}
	if count[503] != 5 || count[200] != 15 {
		t.Errorf("the replies by status are %v", count)
	}
}

func TestWrongFaultsAreRefused(t *testing.T) {
	for _, c := range []struct {
		want  string
		fault crmnow.Fault
	}{
		{"delay", crmnow.Fault{Delay: -1}},
		{"200 to 599", crmnow.Fault{Status: 100}},
		{"200 to 599", crmnow.Fault{Status: 600}},
		{"not by both", crmnow.Fault{Close: true, Reset: true}},
		{"no reply to change", crmnow.Fault{Close: true, Status: 500}},
		{"no reply to change", crmnow.Fault{Reset: true, RetryAfter: "1"}},
		{"no reply to change", crmnow.Fault{Close: true, ContentType: "text/plain"}},
		{"no reply to change", crmnow.Fault{Close: true, CutAfter: new(0)}},
		{"no reply to change", crmnow.Fault{Close: true, HTML: true}},
		{"not both", crmnow.Fault{HTML: true, Body: new("")}},
		{"longer than", crmnow.Fault{Body: new(strings.Repeat("x", 64<<10+1))}},
		{"0 or more", crmnow.Fault{CutAfter: new(-1)}},
		{"line break", crmnow.Fault{Location: "/\r\nX: y"}},
		{"line break", crmnow.Fault{RetryAfter: "1\n"}},
		{"line break", crmnow.Fault{ContentType: "a\x00"}},
		{"1 or more", crmnow.Fault{Times: -1}},
	} {
		e := newEmulator(t, crmnow.EmulatorOptions{})
		if err := e.SetFault(crmnow.Verify, c.fault); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("the error about %+v is %v, want %q", c.fault, err, c.want)
		}
		if e.Fault(crmnow.Verify) != (crmnow.Fault{}) {
			t.Errorf("the fault %+v is set all the same", c.fault)
		}
	}
	for _, job := range []crmnow.Job{0, 4, crmnow.Both + 1} {
		if err := newEmulator(t, crmnow.EmulatorOptions{}).SetFault(job, crmnow.Fault{}); err == nil || !strings.Contains(err.Error(), "no job") {
			t.Errorf("the error about %s is %v", job, err)
		}
	}
}

func TestJobsHaveNames(t *testing.T) {
	for job, want := range map[crmnow.Job]string{crmnow.Fetch: "fetch", crmnow.Verify: "verify", crmnow.Both: "both", 8: "Job(8)"} {
		if job.String() != want {
			t.Errorf("a job is called %s, want %s", job, want)
		}
	}
}

func FuzzFaultIsReadAsItIsWritten(f *testing.F) {
	for _, seed := range []string{
		`{}`, `null`, `[]`, `{"hang": true, "times": 3}`, `{"delay": "1.5s", "status": 503, "retry_after": "7"}`,
		`{"body": "", "content_type": "text/html", "cut_after": 0}`, `{"close": true}`, `{"reset": true}`, `{"html": true, "location": "/x"}`,
		`{"Delay": 5}`, `{"delay": 5}`, `{"delay": "soon"}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var read, again crmnow.Fault
		if json.Unmarshal([]byte(text), &read) != nil || read.Validate() != nil {
			return
		}
		written, err := json.Marshal(read)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(written, &again); err != nil {
			t.Fatalf("%s is not read: %v", written, err)
		}
		rewritten, err := json.Marshal(again)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(written, rewritten) {
			t.Errorf("%s became %s", written, rewritten)
		}
	})
}
