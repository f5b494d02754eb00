package config

import (
	"sync"
	"time"
)

// seldom lets a burst have one line of the log in each [logWindow].
type seldom struct {
	mu   sync.Mutex
	last time.Time
}

// now reports whether it is time for a line, which is then the last one.
func (s *seldom) now() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if !s.last.IsZero() && now.Sub(s.last) < logWindow {
		return false
	}
	s.last = now
	return true
}
