package verifier

import "time"

// clock gives instants that can be compared, cheaply and by both clocks.
type clock struct{ epoch time.Time }

func newClock() clock { return clock{epoch: time.Now()} }

// instant is a moment by the monotonic clock (since the epoch) and by the wall
// clock (Unix), in nanoseconds.
//
// Both are kept because each fails in its own way: the wall clock can be set
// back, and the monotonic clock stands still while a machine is suspended.
// What lasts for a time has ended as soon as either clock says so.
type instant struct{ mono, wall int64 }

func (c clock) at(t time.Time) instant {
	return instant{mono: int64(t.Sub(c.epoch)), wall: t.UnixNano()}
}

func (c clock) now() instant { return c.at(time.Now()) }

// time returns the instant as a time that still has its monotonic reading.
func (c clock) time(i instant) time.Time { return c.epoch.Add(time.Duration(i.mono)) }

// since returns how long before now i was: by the clock that says longer.
func (i instant) since(now instant) time.Duration {
	return time.Duration(max(now.mono-i.mono, now.wall-i.wall))
}

// lag returns how far the monotonic clock has fallen behind the wall clock since
// i; 0 if it has not.
func (i instant) lag(now instant) time.Duration {
	return i.since(now) - time.Duration(now.mono-i.mono)
}

// span is a length of time in milliseconds, small enough to be held for each of
// a million tokens. It is never longer than what it is made of.
type span uint32

func spanOf(d time.Duration) span {
	return span(min(max(d, 0), MaxLife) / time.Millisecond)
}

func (s span) duration() time.Duration { return time.Duration(s) * time.Millisecond }
