package measure

import (
	"testing"
	"time"
)

func turnsOf(cpu ...int) []Turn {
	turns := make([]Turn, len(cpu))
	for i, c := range cpu {
		turns[i] = Turn{CPU: time.Duration(c)}
	}
	return turns
}

func TestRatio(t *testing.T) {
	tests := []struct {
		name          string
		of, reference []Turn
		want          float64
	}{
		{"half in every round", turnsOf(5, 10, 20), turnsOf(10, 20, 40), .5},
		{"rounds are compared, not their medians: a machine that slows down changes nothing", turnsOf(10, 20, 300), turnsOf(20, 40, 600), .5},
		{"one odd round changes nothing", turnsOf(5, 500, 5), turnsOf(10, 10, 10), .5},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Ratio(tt.of, tt.reference, CPU); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestNoise(t *testing.T) {
	tests := []struct {
		name             string
		again, reference []Turn
		want             float64
	}{
		{"a quiet machine", turnsOf(100, 100, 100, 100), turnsOf(100, 100, 100, 100), 0},
		{"three quarters of the rounds are no further from 1", turnsOf(100, 99, 102, 150), turnsOf(100, 100, 100, 100), .02},
		{"one round alone", turnsOf(130), turnsOf(100), .3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Noise(tt.again, tt.reference, CPU); got < tt.want-1e-9 || got > tt.want+1e-9 {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestCores(t *testing.T) {
	all := AllCores()
	if got := (Cores{0, all.Count}).Others(); got != all {
		t.Errorf("beside all cores there are %v, want all of them again", got)
	}
	if all.Count > 1 {
		if got := (Cores{0, 1}).Others(); got != (Cores{1, all.Count - 1}) {
			t.Errorf("beside the first core there are %v", got)
		}
	}
	if s := ServerCores(); s.Count+s.Others().Count < all.Count {
		t.Errorf("%v and %v are not all cores", s, s.Others())
	}
}
