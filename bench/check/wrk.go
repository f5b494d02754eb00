package main

import (
	"bytes"
	"context"
	_ "embed" // the script
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/bearergate/bearergate/bench/measure"
)

//go:embed wrk.lua
var wrkScript []byte

// wrk runs wrk for a time, and returns what it saw. Of processor time it knows
// nothing.
func (b *bench) wrk(ctx context.Context, url string, threads, connections int, duration time.Duration) (measure.Turn, error) {
	requests, err := measure.Typical().Numbered()
	if err != nil {
		return measure.Turn{}, err
	}
	script := filepath.Join(b.dir, "wrk.lua")
	if err := os.WriteFile(script, wrkScript, 0o600); err != nil {
		return measure.Turn{}, err
	}
	cmd := exec.CommandContext(ctx, "wrk", "-t", fmt.Sprint(threads), "-c", fmt.Sprint(connections), //nolint:gosec // our own words
		"-d", fmt.Sprintf("%.0fs", math.Ceil(duration.Seconds())), "-s", script, url, "--", requests.Prefix(), fmt.Sprint(tokensInUse))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return measure.Turn{}, missing("wrk", fmt.Errorf("%w\n%s", err, out))
	}
	at := bytes.LastIndexByte(out, '{')
	if at < 0 {
		return measure.Turn{}, fmt.Errorf("wrk: %s", out)
	}
	var saw struct{ Requests, Microseconds, P50, P99, P999, Wrong int64 }
	if err := json.Unmarshal(out[at:], &saw); err != nil {
		return measure.Turn{}, fmt.Errorf("wrk: %w: %s", err, out)
	}
	if saw.Wrong > 0 || saw.Requests == 0 {
		return measure.Turn{}, fmt.Errorf("wrk: %d of %d requests went wrong", saw.Wrong, saw.Requests)
	}
	return measure.Turn{
		Requests: saw.Requests, PerSecond: float64(saw.Requests) / (float64(saw.Microseconds) / 1e6),
		P50: time.Duration(saw.P50) * time.Microsecond, P99: time.Duration(saw.P99) * time.Microsecond, P999: time.Duration(saw.P999) * time.Microsecond,
	}, nil
}

// missing says what to do when a program is not there.
func missing(program string, err error) error {
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%s is not on this machine; scripts/setup bench installs it", program)
	}
	return fmt.Errorf("%s: %w", program, err)
}
