package main

import (
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/lmittmann/tint"
	"golang.org/x/term"
)

// newLogger returns the logger for a format (json, text, auto), as the configuration
// names it, and the least level that is worth a line, which may change.
func newLogger(w io.Writer, least slog.Leveler, format string) *slog.Logger {
	if format == "text" || format == "auto" && isTerminal(w) {
		return slog.New(tint.NewTextHandler(w, &tint.Options{
			Level: least, TimeFormat: time.TimeOnly, NoColor: !wantsColour(w),
		}))
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: least}))
}

// levelOf is a level as the configuration names it: debug, info, warn or error.
func levelOf(name string) slog.Level {
	level := slog.LevelInfo
	must(level.UnmarshalText([]byte(name)))
	return level
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// wantsColour obeys https://no-color.org.
func wantsColour(w io.Writer) bool { return isTerminal(w) && os.Getenv("NO_COLOR") == "" }
