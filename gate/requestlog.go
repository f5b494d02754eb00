package gate

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bearergate/bearergate/bearer"
)

// A reason gets this many lines in each window; a flood of refusals must not
// fill the disk. What was left out is counted in a line of its own.
const (
	linesPerWindow = 20
	logWindow      = 10 * time.Second
)

// RequestLog writes lines about requests: of each refused one, as long as there is
// no flood of them, and of allowed ones as many as somebody wants. They hold no part
// of the request but the token's fingerprint and, if that is wanted, the id that the
// edge gave it. docs/logs.md names their fields, which stay as they are.
//
// Gates may share one, and what it is told may change while they decide. It may be
// used concurrently.
type RequestLog struct {
	logger       *slog.Logger
	allowedOneIn atomic.Uint32
	requestID    atomic.Bool

	mu        sync.Mutex
	listeners map[string]*listenerLog
}

// NewRequestLog returns a RequestLog that says nothing of allowed requests and shows
// no ids. Without a logger it says nothing at all.
func NewRequestLog(logger *slog.Logger) *RequestLog {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &RequestLog{logger: logger, listeners: map[string]*listenerLog{}}
}

// Allowed has one of so many allowed requests get a line, by chance; 0 means none.
func (l *RequestLog) Allowed(oneIn uint32) { l.allowedOneIn.Store(oneIn) }

// RequestIDs says whether lines show the ids that the edge gives requests.
func (l *RequestLog) RequestIDs(show bool) { l.requestID.Store(show) }

// Flush writes at once how many lines were left out so far.
func (l *RequestLog) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, one := range l.listeners {
		for reason := range Reason(Reasons) {
			one.summary(reason)
		}
	}
}

// of returns the log of a listener. It has one, however many gates it asks one after
// the other.
func (l *RequestLog) of(listener string) *listenerLog {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.listeners[listener]
	if one == nil {
		one = &listenerLog{RequestLog: l, logger: l.logger.With(slog.String("listener", listener)), epoch: time.Now()}
		l.listeners[listener] = one
	}
	return one
}

// listenerLog is the log of one listener.
type listenerLog struct {
	*RequestLog

	logger  *slog.Logger
	epoch   time.Time
	budgets [Reasons]budget
}

// budget bounds the lines of one reason.
type budget struct {
	window  atomic.Int64 // its number since the epoch
	lines   atomic.Int64 // in this window
	skipped atomic.Int64 // since the last summary
}

// about is what a line says besides the reason.
type about struct {
	policy string // its name, if there are several
	token  bearer.Token
	err    error
	// headers are the request's, if it could be read. (Not the request itself: it would
	// come to lie on the heap.)
	headers Headers
	shadow  bool // it is let through all the same
}

// levelOf is the level of a line: a 401 is the caller's affair and worth
// information; a 503 is the operator's, and a warning.
func levelOf(reason Reason) slog.Level {
	switch {
	case reason == InternalError:
		return slog.LevelError
	case reason.Outcome() == Unavailable:
		return slog.LevelWarn
	default:
		return slog.LevelInfo
	}
}

// refused writes a line about a refused request, if there is room for one.
func (l *listenerLog) refused(reason Reason, a about) {
	level := levelOf(reason)
	ctx := context.Background()
	if !l.logger.Enabled(ctx, level) {
		return
	}
	now := time.Since(l.epoch)
	ok, first := l.budgets[reason].take(now)
	if !ok {
		if first { // who waits for the end of the window tells of the rest, too
			time.AfterFunc(logWindow-now%logWindow, func() { l.summary(reason) })
		}
		return
	}
	attrs := append(make([]slog.Attr, 0, 6), slog.String("reason", reason.String()), slog.String("token", a.token.Fingerprint()))
	if a.policy != "" {
		attrs = append(attrs, slog.String("policy", a.policy))
	}
	if a.err != nil {
		attrs = append(attrs, slog.String("detail", a.err.Error()))
	}
	if a.shadow {
		attrs = append(attrs, slog.Bool("shadow", true))
	}
	l.logger.LogAttrs(ctx, level, "request refused", l.withID(attrs, a.headers)...)
}

// wants reports, by chance, whether an allowed request gets a line.
func (l *listenerLog) wants(chance uint32) bool {
	n := l.allowedOneIn.Load()
	return n > 0 && chance%n == 0
}

// allowed writes a line about an allowed request.
func (l *listenerLog) allowed(d *Decision, a about) {
	ctx := context.Background()
	if !l.logger.Enabled(ctx, slog.LevelInfo) {
		return
	}
	attrs := append(make([]slog.Attr, 0, 5), slog.String("reason", d.Reason.String()), slog.String("token", a.token.Fingerprint()))
	if d.Reason.HasVerdict() {
		attrs = append(attrs, slog.String("source", d.Source.String()))
	}
	if a.policy != "" {
		attrs = append(attrs, slog.String("policy", a.policy))
	}
	l.logger.LogAttrs(ctx, slog.LevelInfo, "request allowed", l.withID(attrs, a.headers)...)
}

// withID adds the id that the edge gave a request, if it is to be shown.
func (l *listenerLog) withID(attrs []slog.Attr, headers Headers) []slog.Attr {
	if headers == nil || !l.requestID.Load() {
		return attrs
	}
	if id := headers.Header(requestIDHeader); isPlainID(id) {
		attrs = append(attrs, slog.String("request_id", id))
	}
	return attrs
}

// requestIDHeader is by which edges name a request, in lower case.
const requestIDHeader = "x-request-id"

// isPlainID reports whether a text may stand in the log as the id of a request:
// 8 to 64 hexadecimal digits and hyphens. What else stands there may be anything, a
// token too.
func isPlainID(id string) bool {
	if len(id) < 8 || len(id) > 64 {
		return false
	}
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') && c != '-' {
			return false
		}
	}
	return true
}

// summary tells how many lines were left out.
func (l *listenerLog) summary(reason Reason) {
	if n := l.budgets[reason].skipped.Swap(0); n > 0 {
		l.logger.LogAttrs(context.Background(), levelOf(reason), "more requests were refused like this",
			slog.String("reason", reason.String()), slog.Int64("more", n), slog.String("within", logWindow.String()))
	}
}

// take reports whether a line may be written, and if not, whether it is the first
// since the last summary. Two that race for the last line of a window may both get
// it.
func (b *budget) take(now time.Duration) (ok, first bool) {
	window := int64(now/logWindow) + 1
	if b.window.Swap(window) != window {
		b.lines.Store(0)
	}
	if b.lines.Add(1) > linesPerWindow {
		return false, b.skipped.Add(1) == 1
	}
	return true, false
}
