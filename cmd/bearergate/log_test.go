package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"syscall"
	"testing"
)

func TestLogFormatsAndLevels(t *testing.T) {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	for least := range levels {
		for _, format := range []string{"auto", "json", "text"} {
			t.Run(least+" as "+format, func(t *testing.T) {
				var out bytes.Buffer // no terminal
				logger := newLogger(&out, levelOf(least), format)
				want := 0
				for name, level := range levels {
					logger.LogAttrs(t.Context(), level, "message of "+name, slog.String("key", "a value"))
					if level >= levels[least] {
						want++
						if !strings.Contains(out.String(), "message of "+name) {
							t.Errorf("no %s", name)
						}
					}
				}
				lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
				if len(lines) != want {
					t.Errorf("%d lines, want %d:\n%s", len(lines), want, &out)
				}
				for _, line := range lines {
					if isJSON := json.Valid([]byte(line)); isJSON != (format != "text") {
						t.Errorf("as %s: %s", format, line)
					}
					if strings.Contains(line, "\x1b") {
						t.Errorf("coloured: %q", line)
					}
				}
			})
		}
	}
}

func TestServeObeysTheLogSettings(t *testing.T) {
	for name, test := range map[string]struct {
		settings string
		lines    int // that say listening
		json     bool
	}{
		"the default":  {"", 3, true},
		"text":         {"log: {format: text}", 3, false},
		"a high level": {"log: {level: error}", 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := "unix:" + t.TempDir() + "/s" // known ahead: the log may not say it
			configuration := strings.Replace(onLoopback(endpoint(t).URL(), test.settings), `admin: {address: "127.0.0.1:0"}`, `admin: {address: "`+address+`"}`, 1)
			g := &gateway{program: start(t, nil, "serve", "--config", file(t, "bearergate.yaml", configuration)), address: map[string]string{"admin": address}}
			g.awaitReady(t)
			g.signal(t, syscall.SIGTERM)
			if code := g.code(t); code != exitGood {
				t.Errorf("ended with %d", code)
			}
			lines := 0
			for _, line := range g.err.lines() {
				if line != "" && json.Valid([]byte(line)) != test.json {
					t.Errorf("the log says %q", line)
				}
				if strings.Contains(line, "listening") {
					lines++
				}
			}
			if lines != test.lines {
				t.Errorf("%d lines say listening, want %d:\n%s", lines, test.lines, g.err)
			}
		})
	}
}
