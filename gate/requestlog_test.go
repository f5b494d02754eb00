package gate_test

import (
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/verifier"
)

func TestLogSaysWhatWasRefusedAndWhy(t *testing.T) {
	unanswered := says(verifier.Verdict{}, &verifier.NoAnswer{Verifier: "crm", Problem: "nobody listens at the endpoint", Cause: io.EOF})
	for _, test := range []struct {
		name                  string
		request               gate.Request
		verify                verify
		level, reason, detail string
		token                 bool
	}{
		{"missing", with(), unasked, "INFO", "missing_token", "the request has no Authorization header", false},
		{"malformed", with("Bearer a b"), unasked, "INFO", "malformed_token", "something follows the token", false},
		{"two", with("a", "b"), unasked, "INFO", "multiple_tokens", "the request has more than one Authorization header", false},
		{"not good", withToken(), notGood, "INFO", "invalid_token", "", true},
		{"no answer", withToken(), unanswered, "WARN", "verifier_unavailable", "verifier crm: nobody listens at the endpoint: EOF", true},
		{"a panic", withToken(), unasked, "ERROR", "internal_error", "panic: string", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGate(t, test.verify)
			g.Decide(t.Context(), test.request)
			line := g.logs.last(t)
			delete(line, "time")
			if fingerprint, ok := line["token"].(string); !ok || len(fingerprint) != 12 && test.token || fingerprint != "none" && !test.token {
				t.Errorf("the token stands there as %v", line["token"])
			}
			delete(line, "token")
			want := map[string]any{"msg": "request refused", "listener": "test", "level": test.level, "reason": test.reason}
			if test.detail != "" {
				want["detail"] = test.detail
			}
			if got, want := fmt.Sprint(line), fmt.Sprint(want); got != want {
				t.Errorf("the line is %s, want %s", got, want)
			}
		})
	}
}

func TestAllowedRequestsAreNotLogged(t *testing.T) {
	g := newGate(t, good)
	g.Decide(t.Context(), withToken())
	if text := g.logs.text(); text != "" {
		t.Errorf("the log says %s", text)
	}
}

// TestFloodOfRefusalsIsSummarised: 20 lines in 10 s for each reason, and a line that
// counts the rest at the end of those.
func TestFloodOfRefusalsIsSummarised(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, notGood)
		refuse := func(r gate.Request, n int) {
			for range n {
				g.Decide(t.Context(), r)
			}
		}
		count := func() map[any]int {
			lines := map[any]int{}
			for _, line := range g.logs.lines(t) {
				if line["msg"] == "request refused" {
					lines[line["reason"]]++
				}
			}
			return lines
		}
		summaries := func() string {
			var all []string
			for _, line := range g.logs.lines(t) {
				if line["msg"] == "more requests were refused like this" {
					all = append(all, fmt.Sprint(line["level"], " ", line["listener"], " ", line["reason"], " ", line["more"], " ", line["within"]))
				}
			}
			return strings.Join(all, "; ")
		}
		refuse(with(), 1000)
		if got := count()["missing_token"]; got != 20 {
			t.Fatalf("1000 refusals left %d lines, want 20", got)
		}
		// Another reason has lines of its own.
		refuse(withToken(), 7)
		if got := count()["invalid_token"]; got != 7 {
			t.Errorf("7 refusals for another reason left %d lines", got)
		}
		<-time.After(9 * time.Second)
		refuse(with(), 30)
		if got := count()["missing_token"]; got != 20 || summaries() != "" {
			t.Errorf("after 9 s there are %d lines, want still 20, and the summary %q", got, summaries())
		}
		<-time.After(time.Second)
		synctest.Wait()
		want := "INFO test missing_token 1010 10s"
		if got := summaries(); got != want {
			t.Errorf("the summary is %q, want %q", got, want)
		}
		refuse(with(), 1)
		if got := count()["missing_token"]; got != 21 {
			t.Errorf("there are %d lines, want 21", got)
		}
		// A pause of many windows begins a new one, and has nothing to tell.
		<-time.After(time.Hour)
		refuse(with(), 100)
		if got := count()["missing_token"]; got != 21+20 || summaries() != want {
			t.Errorf("there are %d lines, want 41, and the summaries %q", got, summaries())
		}
		<-time.After(time.Minute)
		synctest.Wait()
		if got := summaries(); got != want+"; INFO test missing_token 80 10s" {
			t.Errorf("the summaries are %q", got)
		}
	})
}

// TestWhatWasLeftOutIsToldAtTheEnd, and by whatever gate a listener asks.
func TestWhatWasLeftOutIsToldAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs journal
		log := gate.NewRequestLog(slog.New(slog.NewJSONHandler(&logs, nil)))
		for range 2 { // as after a reload
			g := newGate(t, notGood, func(o *gate.Options) { o.Log = log })
			for range 15 {
				g.Decide(t.Context(), with())
			}
		}
		if n := len(logs.lines(t)); n != 20 {
			t.Errorf("there are %d lines, want 20", n)
		}
		log.Flush()
		if line := logs.last(t); line["more"] != 10. {
			t.Errorf("at the end it says %v", line)
		}
		<-time.After(time.Minute)
		synctest.Wait()
		if n := len(logs.lines(t)); n != 21 {
			t.Errorf("there are %d lines, want 21", n)
		}
	})
}

func TestConcurrentRefusalsAreAllCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const workers, each = 8, 500
		g := newGate(t, notGood)
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				for range each {
					g.Decide(t.Context(), withToken())
				}
			})
		}
		wg.Wait()
		lines := len(g.logs.lines(t))
		// Those who meet at the window's first line may begin it anew.
		if lines < 20 || lines > 20+workers {
			t.Errorf("%d lines, want 20 and at most one more for each worker", lines)
		}
		<-time.After(time.Minute)
		synctest.Wait()
		more, _ := g.logs.last(t)["more"].(float64)
		if got := lines + int(more); got != workers*each {
			t.Errorf("%d lines and %v left out, want %d in all", lines, more, workers*each)
		}
	})
}

// TestRefusalsBelowTheLevelAreNotCounted: an operator who turned them off is not
// told of them later.
func TestRefusalsBelowTheLevelAreNotCounted(t *testing.T) {
	var logs journal
	var level slog.LevelVar
	level.Set(slog.LevelWarn)
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	g, err := gate.New(gate.Options{
		Parser: parser,
		Policy: gate.Policy{Realm: "api", Verifier: says(verifier.Verdict{}, io.EOF)},
		Logger: slog.New(slog.NewJSONHandler(&logs, &slog.HandlerOptions{Level: &level})),
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		g.Decide(t.Context(), with())
	}
	if text := logs.text(); text != "" {
		t.Errorf("the log says %s", text)
	}
	g.Decide(t.Context(), withToken())
	if line := logs.last(t); line["level"] != "WARN" {
		t.Errorf("the log says %v", line)
	}
	level.Set(slog.LevelInfo)
	g.Decide(t.Context(), with())
	if line := logs.last(t); line["reason"] != "missing_token" || line["more"] != nil {
		t.Errorf("the log says %v", line)
	}
}

// headersOf are the headers of a request, and its client under the empty name.
type headersOf map[string]string

func (h headersOf) Header(name string) string { return h[name] }

func (h headersOf) Client() netip.Addr {
	a, _ := netip.ParseAddr(h[""])
	return a
}

// TestAllowedRequestsAreLoggedAsOftenAsIsWanted, from one moment to the next.
func TestAllowedRequestsAreLoggedAsOftenAsIsWanted(t *testing.T) {
	const n = 20000
	for oneIn, want := range map[uint32][2]int{0: {0, 0}, 1: {n, n}, 10: {n / 20, n / 5}} {
		var logs journal
		log := gate.NewRequestLog(slog.New(slog.NewJSONHandler(&logs, nil)))
		g := newGate(t, says(verifier.Verdict{Valid: true, Source: verifier.FromCache}, nil), func(o *gate.Options) { o.Log = log })
		g.Decide(t.Context(), withToken())
		log.Allowed(oneIn)
		for range n {
			g.Decide(t.Context(), withToken())
		}
		g.Decide(t.Context(), with()) // is refused
		lines := logs.lines(t)
		allowed := lines[:len(lines)-1]
		if len(allowed) < want[0] || len(allowed) > want[1] {
			t.Errorf("one in %d: %d lines of %d, want %v", oneIn, len(allowed), n, want)
		}
		for _, line := range allowed {
			if line["msg"] != "request allowed" || line["level"] != "INFO" || line["reason"] != "valid" || line["source"] != "cache" || len(line["token"].(string)) != 12 {
				t.Fatalf("a line says %v", line)
			}
		}
	}
}

// TestRequestIDs are shown if that is wanted and they look like one: what else an
// edge hands on may be a token.
func TestRequestIDs(t *testing.T) {
	const uuid = "0b5f4ac2-1d0e-9f5a-8b1c-6d5e4f3a2b1c"
	for _, test := range []struct {
		name, id string
		shown    bool
	}{
		{"Envoy's", uuid, true},
		{"nginx's", "0123456789abcdef0123456789ABCDEF", true},
		{"the shortest", "01234567", true},
		{"too short", "0123456", false},
		{"the longest", strings.Repeat("a", 64), true},
		{"too long", strings.Repeat("a", 65), false},
		{"none", "", false},
		{"a token", canary, false},
		{"a JWT", "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", false},
		{"another letter", "0123456g", false},
		{"a line break", "01234567\n", false},
		{"a byte that is no character", "01234567\xff", false},
	} {
		var logs journal
		log := gate.NewRequestLog(slog.New(slog.NewJSONHandler(&logs, nil)))
		log.Allowed(1)
		g := newGate(t, says(verifier.Verdict{Valid: true}, nil), func(o *gate.Options) { o.Log = log })
		for _, r := range []gate.Request{with(), withToken()} {
			r.Headers = headersOf{"x-request-id": test.id}
			log.RequestIDs(false)
			g.Decide(t.Context(), r)
			if id, there := logs.last(t)["request_id"]; there {
				t.Errorf("%s: nobody wants it and it is %v", test.name, id)
			}
			log.RequestIDs(true)
			g.Decide(t.Context(), r)
			if id, there := logs.last(t)["request_id"]; there != test.shown || there && id != test.id {
				t.Errorf("%s: the id is %v", test.name, id)
			}
			r.Headers = nil
			g.Decide(t.Context(), r)
		}
		if strings.Contains(logs.text(), canary) {
			t.Errorf("%s: a token is in the log", test.name)
		}
	}
}

// TestTheFieldsAreThoseOfTheDocs has every kind of line written, and holds the
// fields against docs/logs.md.
func TestTheFieldsAreThoseOfTheDocs(t *testing.T) {
	page, err := os.ReadFile("../docs/logs.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(page), "| field |")
	table, _, _ = strings.Cut(table, "\n\n")
	if !found {
		t.Fatal("docs/logs.md has no table of fields")
	}
	listed := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(table, -1) {
		listed[row[1]] = true
	}
	synctest.Test(t, func(t *testing.T) {
		var logs journal
		log := gate.NewRequestLog(slog.New(slog.NewJSONHandler(&logs, nil)))
		log.Allowed(1)
		log.RequestIDs(true)
		for _, v := range []verify{says(verifier.Verdict{Valid: true}, nil), says(verifier.Verdict{}, io.EOF)} {
			g := several(t, v, []gate.Policy{{Name: "tried", Shadow: time.Now().Add(time.Hour)}}, func(o *gate.Options) { o.Log = log })
			for range 30 {
				r := asks("GET", "/tried")
				r.Headers = headersOf{"x-request-id": "0123456789"}
				g.Decide(t.Context(), r)
			}
		}
		log.Flush()
		written := map[string]bool{}
		for _, line := range logs.lines(t) {
			for field := range line {
				written[field] = true
			}
		}
		if got, want := slices.Sorted(maps.Keys(written)), slices.Sorted(maps.Keys(listed)); !slices.Equal(got, want) {
			t.Errorf("the fields are %q, docs/logs.md says %q", got, want)
		}
	})
}
