//go:build race

package e2e

// raceDetector says that the tests were built with -race, so the command is too.
const raceDetector = true
