//go:build race

package e2e

const (
	// raceDetector says that the tests were built with -race, so the command is too.
	raceDetector = true
	// slowness is how many times as long things take then.
	slowness = 4
)
