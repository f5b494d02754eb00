package gate_test

import (
	"fmt"
	"io"
	"log/slog"
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

// TestFloodOfRefusalsIsCountedNotLogged: 20 lines in 10 s for each reason, and
// none is lost from the count.
func TestFloodOfRefusalsIsCountedNotLogged(t *testing.T) {
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
				lines[line["reason"]]++
			}
			return lines
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
		if got := count()["missing_token"]; got != 20 {
			t.Errorf("after 9 s there are %d lines, want still 20", got)
		}
		<-time.After(time.Second)
		refuse(with(), 1)
		if got := g.logs.last(t)["more_like_this"]; got != float64(980+30) {
			t.Errorf("the next line speaks of %v more, want 1010", got)
		}
		refuse(with(), 1)
		if got, ok := g.logs.last(t)["more_like_this"]; ok {
			t.Errorf("a line after which nothing was left out speaks of %v more", got)
		}
		// A pause of many windows begins a new one.
		<-time.After(time.Hour)
		refuse(with(), 100)
		if got := count()["missing_token"]; got != 20+2+20 {
			t.Errorf("there are %d lines, want 42", got)
		}
		if got, ok := g.logs.last(t)["more_like_this"]; ok {
			t.Errorf("that line speaks of %v more", got)
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
		g.Decide(t.Context(), withToken())
		var skipped float64
		for _, line := range g.logs.lines(t) {
			more, _ := line["more_like_this"].(float64)
			skipped += more
		}
		if got := lines + int(skipped); got != workers*each {
			t.Errorf("%d lines and %v left out, want %d in all", lines, skipped, workers*each)
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
	if line := logs.last(t); line["reason"] != "missing_token" || line["more_like_this"] != nil {
		t.Errorf("the log says %v", line)
	}
}
