package admin_test

import (
	"errors"
	"io"
	"net/http"
	"runtime"
	"runtime/pprof"
	"strings"
	"testing"

	"github.com/bearergate/bearergate/admin"
)

func TestProfilesAreThereByChoice(t *testing.T) {
	for name, access := range map[string]admin.Access{"by default": {}, "without an API": {Off: true, Profiles: true}} {
		t.Run(name, func(t *testing.T) {
			o := operate(t, access)
			for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/profile?seconds=1", "/debug/pprof/cmdline"} {
				if got := o.ask(t, http.MethodGet, path).StatusCode; got != http.StatusNotFound {
					t.Errorf("%s: %d", path, got)
				}
			}
		})
	}
}

func TestProfilesAreForWhoMayCallTheAPI(t *testing.T) {
	here := admin.Access{Profiles: true}
	wanted := admin.Access{Profiles: true, Credential: func() ([]byte, error) { return []byte(credential), nil }}
	broken := admin.Access{Profiles: true, Credential: func() ([]byte, error) { return nil, errors.New("it is not there") }}
	for name, test := range map[string]struct {
		access  admin.Access
		method  string
		path    string
		headers []string
		status  int
		says    string
	}{
		"the list":                         {here, http.MethodGet, "", nil, http.StatusOK, "heap"},
		"as text":                          {here, http.MethodGet, "goroutine?debug=1", nil, http.StatusOK, "goroutine profile: total"},
		"with stacks":                      {here, http.MethodGet, "goroutine?debug=2", nil, http.StatusOK, "goroutine 1 ["},
		"as pprof reads it":                {here, http.MethodGet, "heap?gc=1", nil, http.StatusOK, "\x1f\x8b"},
		"of a second":                      {here, http.MethodGet, "profile?seconds=1", nil, http.StatusOK, "\x1f\x8b"},
		"a trace":                          {here, http.MethodGet, "trace?seconds=1", nil, http.StatusOK, "go 1."},
		"by the name of the machine":       {here, http.MethodGet, "heap", []string{"Host", "localhost:9190"}, http.StatusOK, ""},
		"by a name that points here":       {here, http.MethodGet, "heap", []string{"Host", "evil.example"}, http.StatusForbidden, "call it by its address"},
		"of a page of another origin":      {here, http.MethodGet, "profile", []string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden, "another origin"},
		"of a page of another port":        {here, http.MethodGet, "profile", []string{"Sec-Fetch-Site", "same-site"}, http.StatusForbidden, "another origin"},
		"of the page itself":               {here, http.MethodGet, "profile", []string{"Sec-Fetch-Site", "same-origin"}, http.StatusForbidden, "another origin"},
		"of a page that says its origin":   {here, http.MethodGet, "profile", []string{"Origin", "https://evil.example"}, http.StatusForbidden, "another origin"},
		"with the credential":              {wanted, http.MethodGet, "heap?debug=1", []string{"Authorization", "Bearer " + credential, "Host", "gate.example"}, http.StatusOK, "heap profile"},
		"without it":                       {wanted, http.MethodGet, "heap", nil, http.StatusUnauthorized, "missing or wrong"},
		"with another":                     {wanted, http.MethodGet, "heap", []string{"Authorization", "Bearer another-credential"}, http.StatusUnauthorized, "missing or wrong"},
		"with one that nobody can compare": {broken, http.MethodGet, "heap", []string{"Authorization", "Bearer " + credential}, http.StatusServiceUnavailable, "cannot be read"},
		"by POST":                          {here, http.MethodPost, "heap", nil, http.StatusNotFound, ""},
		"the command line":                 {here, http.MethodGet, "cmdline", nil, http.StatusNotFound, ""},
		"locks, which are not looked at":   {here, http.MethodGet, "mutex", nil, http.StatusNotFound, ""},
		"too long":                         {here, http.MethodGet, "profile?seconds=61", nil, http.StatusBadRequest, "1 to 60"},
		"a trace that is too long":         {here, http.MethodGet, "trace?seconds=6", nil, http.StatusBadRequest, "1 to 5"},
		"for no time":                      {here, http.MethodGet, "profile?seconds=0", nil, http.StatusBadRequest, "1 to 60"},
		"for a time in words":              {here, http.MethodGet, "profile?seconds=ten", nil, http.StatusBadRequest, "1 to 60"},
		"a snapshot of some time":          {here, http.MethodGet, "heap?seconds=1", nil, http.StatusBadRequest, "only profile and trace"},
		"in a way that there is not":       {here, http.MethodGet, "heap?debug=3", nil, http.StatusBadRequest, "0, 1 or 2"},
		"in a way that is no number, also": {here, http.MethodGet, "heap?debug=", nil, http.StatusBadRequest, "0, 1 or 2"},
	} {
		t.Run(name, func(t *testing.T) {
			o := operate(t, test.access)
			got := o.ask(t, test.method, "/debug/pprof/"+test.path, test.headers...)
			if got.StatusCode != test.status || !strings.Contains(got.body, test.says) {
				t.Errorf("%d %.200q", got.StatusCode, got.body)
			}
			refused := strings.Contains(o.logs.text(), `"msg":"a request for a profile was refused"`)
			taken := strings.Contains(o.logs.text(), `"msg":"a profile is taken"`)
			if want := test.status == http.StatusForbidden || test.status == http.StatusUnauthorized || test.status == http.StatusServiceUnavailable; refused != want {
				t.Errorf("refused is %v; the log says %s", want, o.logs.text())
			}
			if want := test.status == http.StatusOK || test.status == http.StatusBadRequest; taken != want {
				t.Errorf("taken is %v; the log says %s", want, o.logs.text())
			}
			if strings.Contains(o.logs.text(), credential) {
				t.Errorf("the log shows the credential: %s", o.logs.text())
			}
			if challenged := got.Header.Get("WWW-Authenticate") != ""; challenged != (test.status == http.StatusUnauthorized) {
				t.Errorf("with %d it is said that a credential is wanted: %v", test.status, challenged)
			}
		})
	}
}

// TestAProfileOfSomeTimeIsTakenOnce at a time.
func TestAProfileOfSomeTimeIsTakenOnce(t *testing.T) {
	o := operate(t, admin.Access{Profiles: true})
	if err := pprof.StartCPUProfile(io.Discard); err != nil {
		t.Fatal(err)
	}
	got := o.ask(t, http.MethodGet, "/debug/pprof/profile?seconds=1")
	pprof.StopCPUProfile()
	if got.StatusCode != http.StatusConflict {
		t.Errorf("a second one: %d", got.StatusCode)
	}
	if got := o.ask(t, http.MethodGet, "/debug/pprof/profile?seconds=1"); got.StatusCode != http.StatusOK {
		t.Errorf("when the first has ended: %d", got.StatusCode)
	}
}

// TestAProfileEndsWithTheServer, and does not hold it up.
func TestAProfileEndsWithTheServer(t *testing.T) {
	o := operate(t, admin.Access{Profiles: true})
	taken := make(chan int)
	go func() { taken <- o.ask(t, http.MethodGet, "/debug/pprof/profile?seconds=60").StatusCode }()
	for !strings.Contains(o.logs.text(), "a profile is taken") {
		runtime.Gosched()
	}
	o.stop()
	if got := <-taken; got != http.StatusOK {
		t.Errorf("got %d", got)
	}
}
