package gate_test

import (
	"bytes"
	"encoding/json"
	"mime"
	"strings"
	"testing"

	"github.com/bearergate/bearergate/gate"
)

// FuzzTemplates: whatever is accepted as a template makes a body for each reason that
// is not too long, is JSON where it should be, and is no way to a 2xx.
func FuzzTemplates(f *testing.F) {
	for _, w := range wordings {
		f.Add(w.Template, w.ContentType)
	}
	for _, text := range []string{"{{.token}}", "{{if .reason}}a{{else if .status}}b{{end}}", "{{with .reason}}{{.}}{{end}}", "{{/* a */}}x", "{{`{{`}}", "{{.reason | not}}", "{{and (eq .status \"401\") .detail}}"} {
		f.Add(text, "application/json")
		f.Add(text, "text/html")
	}
	f.Fuzz(func(t *testing.T, text, contentType string) {
		w := gate.Wording{Template: text, ContentType: contentType}
		if text == "" || len(gate.CheckWording(w, "default", "api")) > 0 {
			return
		}
		for reason, reply := range newGate(t, unasked, worded(w)).Replies() {
			if reason.Outcome() == gate.Allow {
				continue
			}
			kind, _, err := mime.ParseMediaType(contentType)
			switch {
			case err != nil:
				t.Errorf("%q: %v", contentType, err)
			case reply.Status < 400, len(reply.Body) == 0, len(reply.Body) > gate.MaxBody, bytes.ContainsRune(reply.Body, 0):
				t.Errorf("%v: %d %q", reason, reply.Status, reply.Body)
			case headerOf(t, reply, "Content-Type") != contentType:
				t.Errorf("%v: the type is %v", reason, reply.Header)
			case (kind == "application/json" || strings.HasSuffix(kind, "+json")) && !json.Valid(reply.Body):
				t.Errorf("%v: no JSON: %s", reason, reply.Body)
			}
		}
	})
}
