package gate

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/bearergate/bearergate/bearer"
)

// A reason gets this many lines in each window; a flood of refusals must not
// fill the disk. What was left out is counted in the next line.
const (
	linesPerWindow = 20
	logWindow      = 10 * time.Second
)

// refusalLog writes a line about a refused request. It holds no part of the
// request but the token's fingerprint.
type refusalLog struct {
	logger  *slog.Logger
	epoch   time.Time
	budgets [Reasons]budget
}

// budget bounds the lines of one reason.
type budget struct {
	window  atomic.Int64 // its number since the epoch
	lines   atomic.Int64 // in this window
	skipped atomic.Int64 // since the last line
}

func newRefusalLog(logger *slog.Logger, listener string) *refusalLog {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &refusalLog{logger: logger.With(slog.String("listener", listener)), epoch: time.Now()}
}

// refused writes a line, if there is room for one. It names the policy if there are
// several. A 401 is the caller's affair
// and worth information; a 503 is the operator's, and a warning.
func (l *refusalLog) refused(reason Reason, policy string, t bearer.Token, err error) {
	level := slog.LevelInfo
	switch {
	case reason == InternalError:
		level = slog.LevelError
	case reason.Outcome() == Unavailable:
		level = slog.LevelWarn
	}
	ctx := context.Background()
	if !l.logger.Enabled(ctx, level) {
		return
	}
	skipped, ok := l.budgets[reason].take(time.Since(l.epoch))
	if !ok {
		return
	}
	attrs := make([]slog.Attr, 0, 5)
	attrs = append(attrs, slog.String("reason", reason.String()), slog.String("token", t.Fingerprint()))
	if policy != "" {
		attrs = append(attrs, slog.String("policy", policy))
	}
	if err != nil {
		attrs = append(attrs, slog.String("detail", err.Error()))
	}
	if skipped > 0 {
		attrs = append(attrs, slog.Int64("more_like_this", skipped))
	}
	l.logger.LogAttrs(ctx, level, "request refused", attrs...)
}

// take reports whether a line may be written, and how many were left out since
// the last one. Two that race for the last line of a window may both get it.
func (b *budget) take(now time.Duration) (skipped int64, ok bool) {
	window := int64(now/logWindow) + 1
	if b.window.Swap(window) != window {
		b.lines.Store(0)
	}
	if b.lines.Add(1) > linesPerWindow {
		b.skipped.Add(1)
		return 0, false
	}
	return b.skipped.Swap(0), true
}
