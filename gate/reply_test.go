package gate_test

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/gate"
)

func TestRealmMustBeFitForAHeader(t *testing.T) {
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, realm string
		good        bool
	}{
		{"a word", "api", true},
		{"words", "crm-now API (test), v1.0; all of it", true},
		{"one character", "~", true},
		{"128 characters", strings.Repeat("r", 128), true},
		{"nothing", "", false},
		{"129 characters", strings.Repeat("r", 129), false},
		{"a quote", `a"b`, false},
		{"a backslash", `a\b`, false},
		{"a line break", "a\r\nSet-Cookie: x=y", false},
		{"a lone line feed", "a\nb", false},
		{"a tab", "a\tb", false},
		{"a zero byte", "a\x00b", false},
		{"a delete character", "a\x7fb", false},
		{"a letter beyond ASCII", "Überall", false},
		{"broken UTF-8", "a\xffb", false},
	} {
		g, err := gate.New(gate.Options{Parser: parser, Policy: gate.Policy{Verifier: good, Realm: test.realm}})
		if test.good != (err == nil) {
			t.Errorf("%s: error %v", test.name, err)
			continue
		}
		if err != nil {
			continue
		}
		d := g.Decide(t.Context(), with())
		if got, want := headerOf(t, g.Reply(&d), "WWW-Authenticate"), `Bearer realm="`+test.realm+`"`; got != want {
			t.Errorf("%s: the challenge is %s, want %s", test.name, got, want)
		}
	}
}

// TestDocsShowTheBodies: partners compare with that page what they got.
func TestDocsShowTheBodies(t *testing.T) {
	page, err := os.ReadFile("../docs/partners.md")
	if err != nil {
		t.Fatal(err)
	}
	g := newGate(t, unasked)
	for reason, reply := range g.Replies() {
		if reason.Outcome() != gate.Allow && !strings.Contains(string(page), "`"+string(reply.Body)+"`") {
			t.Errorf("%v: docs/partners.md does not show %s", reason, reply.Body)
		}
	}
}

func TestErrorBody(t *testing.T) {
	for text, want := range map[string]string{
		"nothing is here":  `{"error":"nothing is here"}`,
		`a "quoted" \ <b>`: `{"error":"a \"quoted\" \\ \u003cb\u003e"}`,
	} {
		got := gate.ErrorBody(text)
		if string(got) != want || !json.Valid(got) {
			t.Errorf("%q becomes %s, want %s", text, got, want)
		}
	}
}
