package authrequest

import (
	"net/http"
	"testing"
)

// TestAClientIsWhoTheEdgeNames, and where it does not name one, nobody.
func TestAClientIsWhoTheEdgeNames(t *testing.T) {
	const none = "invalid IP"
	for name, test := range map[string]struct {
		header            http.Header
		realIP, forwarded string
	}{
		"nothing":                       {nil, none, none},
		"X-Real-IP":                     {http.Header{"X-Real-Ip": {"192.0.2.7"}}, "192.0.2.7", none},
		"X-Real-IP twice":               {http.Header{"X-Real-Ip": {"192.0.2.7", "192.0.2.8"}}, none, none},
		"X-Real-IP that is no address":  {http.Header{"X-Real-Ip": {"192.0.2.7:80"}}, none, none},
		"X-Real-IP with a token":        {http.Header{"X-Real-Ip": {"eyJhbGciOiJub25lIn0"}}, none, none},
		"X-Forwarded-For":               {http.Header{"X-Forwarded-For": {"2001:db8::7"}}, none, "2001:db8::7"},
		"X-Forwarded-For with a chain":  {http.Header{"X-Forwarded-For": {"192.0.2.7, 192.0.2.8,192.0.2.9 "}}, none, "192.0.2.9"},
		"X-Forwarded-For in two lines":  {http.Header{"X-Forwarded-For": {"192.0.2.7", "192.0.2.8"}}, none, "192.0.2.8"},
		"X-Forwarded-For that is empty": {http.Header{"X-Forwarded-For": {"192.0.2.7, "}}, none, none},
		"both":                          {http.Header{"X-Forwarded-For": {"192.0.2.7"}, "X-Real-Ip": {"192.0.2.8"}}, "192.0.2.8", "192.0.2.7"},
	} {
		for from, want := range map[ClientFrom]string{NoClient: none, XRealIP: test.realIP, XForwardedFor: test.forwarded} {
			if got := (&trust{Trust: Trust{ClientFrom: from}}).others(test.header).Client().String(); got != want {
				t.Errorf("%s, where %d is believed: %s, want %s", name, from, got, want)
			}
		}
	}
	made := &trust{Trust: Trust{ClientFrom: XRealIP}}
	h := http.Header{"X-Real-Ip": {"192.0.2.7"}}
	if n := testing.AllocsPerRun(100, func() { _ = made.others(h) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
