package main

import "testing"

func TestGarbageHasRoomWhileThereIsLittleElse(t *testing.T) {
	for name, test := range map[string]struct {
		tokens uint32
		want   int
	}{
		"one token":             {1, 800},
		"as many as by default": {100_000, 332},
		"a million":             {1_000_000, 100},
		"the most":              {10_000_000, 100},
	} {
		if got := garbagePercent(test.tokens); got != test.want {
			t.Errorf("%s: %d percent, want %d", name, got, test.want)
		}
	}
}
