package crmnow_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/bearergate/bearergate/crmnow"
)

// steer sends a request to the control surface.
func steer(h http.Handler, method, what, body string) answer {
	return ask(h, httptest.NewRequest(method, crmnow.ControlPath+what, strings.NewReader(body)))
}

// compact takes the layout out of a JSON text.
func compact(t *testing.T, text string) string {
	t.Helper()
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	out, err := json.Marshal(value) // sorted by name
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestControlSetsFaults(t *testing.T) {
	e := newEmulator(t, crmnow.EmulatorOptions{Clients: partner()})
	h := e.Control()
	expect := func(got answer, want string) {
		t.Helper()
		if got.status != http.StatusOK || got.header.Get("Content-Type") != "application/json" || compact(t, got.body) != compact(t, want) {
			t.Errorf("the reply is %d %s, want %s", got.status, got.body, want)
		}
	}
	expect(steer(h, "GET", "faults", ""), `{}`)

	everything := `{
		"fetch": {"hang": true},
		"verify": {"delay": "1.5s", "status": 503, "retry_after": "7", "location": "/x", "body": "", "content_type": "text/plain", "cut_after": 0, "times": 3}
	}`
	expect(steer(h, "PUT", "faults", everything), everything)
	expect(steer(h, "GET", "faults", ""), everything)
	f := e.Fault(crmnow.Verify)
	if f.Delay != 1500*time.Millisecond || f.Status != 503 || f.RetryAfter != "7" || f.Location != "/x" || f.Body == nil || *f.Body != "" ||
		f.ContentType != "text/plain" || f.CutAfter == nil || *f.CutAfter != 0 || f.Times != 3 {
		t.Errorf("the fault is %+v", f)
	}

	for _, one := range []string{`{"close": true}`, `{"reset": true}`, `{"html": true}`} {
		expect(steer(h, "PUT", "faults", `{"fetch": `+one+`}`), `{"fetch": `+one+`}`) // and verify has none any more
	}
	expect(steer(h, "PUT", "faults", `{"verify": {"status": 500, "times": 2}}`), `{"verify": {"status": 500, "times": 2}}`)
	ask(e, question("x"))
	expect(steer(h, "GET", "faults", ""), `{"verify": {"status": 500, "times": 1}}`)
	expect(steer(h, "DELETE", "faults", ""), `{}`)
	expectVerdict(t, e, crmnow.NewSecret("x"), saysInvalid)
}

func TestControlRefusesWhatItDoesNotUnderstand(t *testing.T) {
	e := newEmulator(t, crmnow.EmulatorOptions{})
	h := e.Control()
	setFault(t, e, crmnow.Verify, crmnow.Fault{Status: 500})
	for body, want := range map[string]string{
		``:                              "EOF",
		`{`:                             "EOF",
		`[]`:                            "cannot unmarshal",
		`{"verfy": {}}`:                 `unknown field "verfy"`,
		`{"verify": {"dealy": "1s"}}`:   `unknown field "dealy"`,
		`{"verify": {"delay": "soon"}}`: "250ms",
		`{"verify": {"delay": 5}}`:      "cannot unmarshal",
		`{"verify": {"status": 42}}`:    "200 to 599",
		`{"fetch": {"times": -1}, "verify": {"status": 42}}`: "1 or more",
		`{} {}`:                        "something follows",
		`{"verify": {"hang": true}} x`: "something follows",
		`{"verify": ` + strings.Repeat(" ", 600<<10) + `{}}`: "too large",
	} {
		got := steer(h, "PUT", "faults", body)
		var reply struct{ Error string }
		if err := json.Unmarshal([]byte(got.body), &reply); err != nil {
			t.Fatal(err)
		}
		if got.status != http.StatusBadRequest || !strings.Contains(reply.Error, want) {
			t.Errorf("the reply to %.60s is %d %s, want %q", body, got.status, got.body, want)
		}
		if e.Fault(crmnow.Verify).Status != 500 || e.Fault(crmnow.Fetch) != (crmnow.Fault{}) {
			t.Errorf("%.60s changed the faults", body)
		}
	}
	for what, want := range map[string]int{"GET nothing": 404, "POST faults": 405, "PUT stats": 405} {
		method, path, _ := strings.Cut(what, " ")
		if got := steer(h, method, path, "{}"); got.status != want {
			t.Errorf("%s gets %d, want %d", what, got.status, want)
		}
	}
}

func TestControlShowsTheCounters(t *testing.T) {
	e := newEmulator(t, crmnow.EmulatorOptions{Clients: partner()})
	token := issue(t, e)
	expectVerdict(t, e, token, saysValid)
	expectVerdict(t, e, crmnow.NewSecret("bad"), saysInvalid)
	ask(e, post(""))
	got := steer(e.Control(), "GET", "stats", "")
	want := `{
		"fetch": {"requests": 1, "faulted": 0, "in_flight": 0, "max_in_flight": 1},
		"verify": {"requests": 2, "faulted": 0, "in_flight": 0, "max_in_flight": 1},
		"valid": 1, "invalid": 1, "issued": 1, "in_force": 1, "refused": {"no_credentials": 1}
	}`
	if got.status != http.StatusOK || compact(t, got.body) != compact(t, want) {
		t.Errorf("the reply is %d %s", got.status, got.body)
	}
	expectHidden(t, got.body, token.Reveal())
}

func TestControlIsServedOnlyWhereItIsAskedFor(t *testing.T) {
	for _, serve := range []bool{true, false} {
		l := startLocal(t, crmnow.EmulatorOptions{ServeControl: serve})
		r := addressed(t, l, httptest.NewRequest(http.MethodPut, "/", strings.NewReader(`{"verify": {"status": 500}}`)))
		r.URL.Path = crmnow.ControlPath + "faults"
		got, err := caller(t)(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if serve != (got.status == http.StatusOK) || serve != (l.Fault(crmnow.Verify).Status == 500) {
			t.Errorf("served: %t, the reply is %d %s", serve, got.status, got.body)
		}
		if n := l.Stats().Refused[crmnow.RefusedPath]; serve == (n == 1) {
			t.Errorf("served: %t, refused for its path: %d", serve, n)
		}
	}
}
