package authrequest_test

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bearergate/bearergate/authrequest"
	"github.com/bearergate/bearergate/gate"
)

// TestWhatAnEdgeThatKeepsAnswersIsTold wants every header line of an answer.
func TestWhatAnEdgeThatKeepsAnswersIsTold(t *testing.T) {
	edgeCache := func(d time.Duration) func(*gate.Options) { return func(o *gate.Options) { o.EdgeCache = d } }
	kept := func(control, accel string) http.Header {
		return http.Header{
			"Cache-Control": {control}, "X-Accel-Expires": {accel}, "X-Bearergate-Depends-On": {"authorization"},
			"X-Bearergate-Reason": {"valid"}, "X-Bearergate-Token": {"keep"},
		}
	}
	for _, test := range []struct {
		name, token string
		edgeCache   time.Duration
		want        http.Header
	}{
		{"nothing, when nothing is kept", livingToken, 0, http.Header{"X-Bearergate-Reason": {"valid"}, "X-Bearergate-Token": {"keep"}}},
		// nginx uses an answer up to a second longer than it is told.
		{"as long as the option says", livingToken, 30 * time.Second, kept("max-age=30", "29")},
		{"the longest", livingToken, 300 * time.Second, kept("max-age=100", "99")},
		{"as long as the verdict lives", dyingToken, 30 * time.Second, kept("max-age=1", "0")},
		{"that the verdict ends too soon", deadToken, 30 * time.Second, kept("no-store", "0")},
		{"that the verdict has no end", goodToken, 30 * time.Second, kept("no-store", "0")},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := start(t, newPipes(), authrequest.Options{}, keepToken, edgeCache(test.edgeCache))
			for range 2 { // the second finds the values as they were
				got := f.ask(t, get("Bearer "+test.token))
				delete(got.Header, "Date")
				delete(got.Header, "Content-Length")
				if diff := cmp.Diff(test.want, got.Header); got.StatusCode != http.StatusOK || diff != "" {
					t.Errorf("%s: %d (-want +got):\n%s", test.name, got.StatusCode, diff)
				}
			}
			for _, token := range []string{"unknown", downToken, "a,b"} {
				got := f.ask(t, get("Bearer "+token)).Header
				if got.Get("Cache-Control") != "no-store" || got["X-Accel-Expires"] != nil || got["X-Bearergate-Depends-On"] != nil {
					t.Errorf("%s: the refusal of %s says %v", test.name, token, got)
				}
			}
		})
	}
}

// TestWhoIsCallingIsTold: an answer that allows has the identity lines, and no
// other has any.
func TestWhoIsCallingIsTold(t *testing.T) {
	partner := gate.IdentityHeader{Name: "x-partner", Constant: "crm"}
	token := gate.IdentityHeader{Name: "X-Token", Fingerprint: true}
	for _, headers := range [][]gate.IdentityHeader{{partner}, {token}, {partner, token}} {
		f := startTCP(t, authrequest.Options{}, func(o *gate.Options) { o.Identity = headers })
		seen := map[string]string{}
		for _, value := range []string{goodToken, livingToken, goodToken} {
			got := f.ask(t, get("Bearer "+value)).Header
			for _, h := range headers {
				lines := got[http.CanonicalHeaderKey(h.Name)]
				switch {
				case len(lines) != 1, h.Constant != "" && lines[0] != h.Constant, h.Fingerprint && len(lines[0]) != 12:
					t.Errorf("%s: %s is %q", value, h.Name, lines)
				case h.Fingerprint && seen[value] != "" && seen[value] != lines[0]:
					t.Errorf("%s: the fingerprint is %s, and was %s", value, lines[0], seen[value])
				case h.Fingerprint:
					seen[value] = lines[0]
				}
			}
		}
		if seen[goodToken] != "" && seen[goodToken] == seen[livingToken] {
			t.Errorf("two tokens have one fingerprint, %s", seen[goodToken])
		}
		for _, value := range []string{"unknown", downToken, "a,b"} {
			if got := f.ask(t, get("Bearer "+value)).Header; got["X-Partner"] != nil || got["X-Token"] != nil {
				t.Errorf("the refusal of %s says %v", value, got)
			}
		}
	}
}

// TestNginxIsToldWhatThereIsToTell: the answer that says nothing is for policies that
// have nothing to say.
func TestNginxIsToldWhatThereIsToTell(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*gate.Options)
		want   http.Header
	}{
		"nothing": {func(*gate.Options) {}, http.Header{}},
		"who is calling, the same for all": {
			func(o *gate.Options) { o.Identity = []gate.IdentityHeader{{Name: "X-Partner", Constant: "crm"}} },
			http.Header{"X-Partner": {"crm"}, "X-Bearergate-Reason": {"valid"}},
		},
		"how long it may be kept": {
			func(o *gate.Options) { o.EdgeCache = 30 * time.Second },
			http.Header{
				"Cache-Control": {"max-age=30"}, "X-Accel-Expires": {"29"}, "X-Bearergate-Depends-On": {"authorization"},
				"X-Bearergate-Reason": {"valid"},
			},
		},
		"that the API is to see the token": {keepToken, http.Header{"X-Bearergate-Token": {"keep"}, "X-Bearergate-Reason": {"valid"}}},
	} {
		synctest.Test(t, func(t *testing.T) {
			got := start(t, newPipes(), authrequest.Options{}, test.change).ask(t, atPrefix("Bearer "+livingToken))
			delete(got.Header, "Date")
			delete(got.Header, "Content-Length")
			if diff := cmp.Diff(test.want, got.Header); got.StatusCode != http.StatusOK || diff != "" {
				t.Errorf("%s: %d (-want +got):\n%s", name, got.StatusCode, diff)
			}
		})
	}
	// What is not the same for all is told there, too.
	f := startTCP(t, authrequest.Options{}, func(o *gate.Options) { o.Identity = []gate.IdentityHeader{{Name: "X-Token", Fingerprint: true}} })
	if got := f.ask(t, atPrefix("Bearer "+goodToken)); len(got.Header.Get("X-Token")) != 12 {
		t.Errorf("the fingerprint is %q", got.Header.Get("X-Token"))
	}
}
