//go:build race

package verifier_test

// modelRounds is smaller with the race detector, which makes everything slow.
const modelRounds = 40
