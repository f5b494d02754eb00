//go:build !race

package verifier_test

// modelRounds is how many hundreds of schedules TestModel runs.
const modelRounds = 240
