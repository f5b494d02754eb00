package config_test

import (
	"strings"
	"testing"

	"github.com/bearergate/bearergate/config"
)

// TestLinesAboutRequestsAreAsTheConfigurationHasThem, over both faces and with both
// codecs, and as the operator has them while it runs.
func TestLinesAboutRequestsAreAsTheConfigurationHasThem(t *testing.T) {
	for name, options := range map[string][]config.Option{"our codec": nil, "the generated codec": {config.GeneratedCodec()}} {
		t.Run(name, func(t *testing.T) {
			e := local(t)
			g := run(t, everywhere+asking(e.URL())+"log: {allowed_one_in: 1, request_id: true}\n", options...)
			good := issue(t, e)
			lines := func(msg, id string) int {
				n := 0
				for line := range strings.Lines(g.log.text()) {
					if strings.Contains(line, `"msg":"`+msg+`"`) && strings.Contains(line, `"request_id":"`+id+`"`) {
						n++
					}
				}
				return n
			}
			ask := func(id string, more ...string) {
				t.Helper()
				get(t, g.Address(config.AuthRequest), "/auth", append(more, "X-Request-Id", id)...)
				for i := 0; i < len(more); i += 2 {
					more[i] = strings.ToLower(more[i])
				}
				if _, err := g.envoy(t).Check(t.Context(), checkRequest(append(more, "x-request-id", id)...)); err != nil {
					t.Fatal(err)
				}
			}
			ask("00000001", "Authorization", "Bearer "+good)
			ask("00000002")
			if n, m := lines("request allowed", "00000001"), lines("request refused", "00000002"); n != 2 || m != 2 {
				t.Errorf("%d and %d lines, want one of each face:\n%s", n, m, g.log.text())
			}
			g.LogAllowed(0)
			ask("00000003", "Authorization", "Bearer "+good)
			if n := lines("request allowed", "00000003"); n != 0 {
				t.Errorf("%d lines, want none", n)
			}
		})
	}
}

// TestWhatWasLeftOutIsToldBeforeTheEnd: a flood just before a gateway stops is not
// forgotten.
func TestWhatWasLeftOutIsToldBeforeTheEnd(t *testing.T) {
	g := run(t, everywhere+asking("https://api.example.com/"))
	for range 25 {
		get(t, g.Address(config.AuthRequest), "/auth")
	}
	if err := g.end(); err != nil {
		t.Error(err)
	}
	if text := g.log.text(); !strings.Contains(text, `"msg":"more requests were refused like this","listener":"auth_request","reason":"missing_token","more":5,`) {
		t.Errorf("the log says:\n%s", text)
	}
}
