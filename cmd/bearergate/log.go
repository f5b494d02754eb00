package main

import (
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/lmittmann/tint"
	"golang.org/x/term"
)

// newLogger returns the logger for a level (debug, info, warn, error) and a
// format (json, text, auto), as the configuration names them.
func newLogger(w io.Writer, level, format string) *slog.Logger {
	least := slog.LevelInfo
	must(least.UnmarshalText([]byte(level)))
	if format == "text" || format == "auto" && isTerminal(w) {
		return slog.New(tint.NewTextHandler(w, &tint.Options{
			Level: least, TimeFormat: time.TimeOnly, NoColor: !wantsColour(w),
		}))
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: least}))
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// wantsColour obeys https://no-color.org.
func wantsColour(w io.Writer) bool { return isTerminal(w) && os.Getenv("NO_COLOR") == "" }
