package load

import (
	"testing"
	"time"
)

func TestHistogram(t *testing.T) {
	ramp := func(n int, step time.Duration) (times []time.Duration) {
		for i := range n {
			times = append(times, time.Duration(i+1)*step)
		}
		return times
	}
	tests := []struct {
		name  string
		times []time.Duration
		part  float64
		want  time.Duration
	}{
		{"nothing was counted", nil, .5, 0},
		{"one time is every quantile", []time.Duration{time.Millisecond}, .999, time.Millisecond},
		{"the median of a ramp lies in its middle", ramp(1000, time.Microsecond), .5, 501 * time.Microsecond},
		{"one in a hundred takes as long as the 99th percentile or longer", ramp(1000, time.Microsecond), .99, 991 * time.Microsecond},
		{"a part of 1 is the longest time", ramp(1000, time.Microsecond), 1, time.Millisecond},
		{"short times are exact", ramp(64, time.Nanosecond), .25, 17},
		{"one slow answer in a thousand does not show in the 99th percentile", append(ramp(999, 1), time.Second), .99, 991},
		{"and shows in the 99.9th", append(ramp(999, 1), time.Second), .999, time.Second},
		{"a time below zero counts as none", []time.Duration{-time.Second}, .5, 0},
		{"a time beyond all buckets counts as the longest", []time.Duration{time.Hour}, .5, 68 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var h Histogram
			for _, d := range tt.times {
				h.Add(d)
			}
			got := h.Quantile(tt.part)
			if got > tt.want || got < tt.want-tt.want/32 {
				t.Errorf("%v of %d times: got %v, want %v or at most 1/32 less", tt.part, len(tt.times), got, tt.want)
			}
		})
	}
}

func TestHistogramBuckets(t *testing.T) {
	for d := time.Duration(0); d < time.Minute; d = d + 1 + d/50 {
		least := leastOf(bucketOf(d))
		if least > d || least < d-d/32 {
			t.Errorf("%d falls into the bucket that begins at %d", d, least)
		}
		if bucketOf(least) != bucketOf(d) {
			t.Errorf("%d, the least of the bucket of %d, falls into another one", least, d)
		}
	}
}

func TestHistogramMerge(t *testing.T) {
	var a, b, both Histogram
	for i := range 1000 {
		d := time.Duration(i*i) * time.Microsecond
		both.Add(d)
		if i%3 == 0 {
			a.Add(d)
		} else {
			b.Add(d)
		}
	}
	a.Merge(&b)
	if a != both {
		t.Error("two halves that were merged differ from the whole")
	}
}
