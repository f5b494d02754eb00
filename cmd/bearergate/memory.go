package main

import (
	"errors"
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

// How much garbage may lie before it is collected. The gateway holds little but the
// tokens it remembers, and with Go's own rule, as much garbage as there is live
// memory, a small one would collect all the time. So there is room for this much;
// a gateway that remembers millions of tokens goes by Go's rule.
const (
	garbageRoom   = 128 << 20
	restingBytes  = 8 << 20 // live when nothing is remembered
	bytesPerToken = 256
	leastPercent  = 100 // Go's own rule
	mostPercent   = 800
)

// fitMemory sets how often garbage is collected and, inside a container, how much
// memory is used before it is collected more often. GOGC and GOMEMLIMIT have the
// last word.
func fitMemory(maxTokens uint32, logger *slog.Logger) {
	if _, set := os.LookupEnv("GOGC"); !set {
		debug.SetGCPercent(garbagePercent(maxTokens))
	}
	// It leaves a tenth of the container's memory to what Go does not count, and
	// does nothing if GOMEMLIMIT is set.
	_, err := memlimit.Set()
	if err != nil && !errors.Is(err, memlimit.ErrNoCgroup) && !errors.Is(err, memlimit.ErrNoLimit) {
		logger.Debug("the container's memory limit cannot be read; set GOMEMLIMIT to nine tenths of it", slog.Any("error", err))
	}
}

// garbagePercent returns how much garbage may lie, in percent of what is live, for
// a cache of so many tokens, refused ones included.
func garbagePercent(maxTokens uint32) int {
	live := restingBytes + int64(maxTokens)*bytesPerToken*5/4
	return int(min(max(100*garbageRoom/live, leastPercent), mostPercent))
}
