package verifier

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestClocks: what lasts for a time has ended as soon as either clock says so. No
// test can set the wall clock, so this one looks inside.
func TestClocks(t *testing.T) {
	const minute = int64(time.Minute)
	begin := instant{mono: 5 * minute, wall: 1000 * minute}
	for _, c := range []struct {
		name       string
		mono, wall int64 // minutes since
		want       time.Duration
	}{
		{"both go on", 3, 3, 3 * time.Minute},
		{"the wall clock is set back", 3, -600, 3 * time.Minute},
		{"the wall clock is set back to zero", 3, -1000, 3 * time.Minute},
		{"the wall clock is set forward", 3, 600, 600 * time.Minute},
		{"the machine slept", 0, 600, 600 * time.Minute},
		{"no time has passed", 0, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := instant{mono: begin.mono + c.mono*minute, wall: begin.wall + c.wall*minute}
			if got := begin.since(now); got != c.want {
				t.Errorf("%v have passed, want %v", got, c.want)
			}
			e := entry{learnt: begin, life: spanOf(3*time.Minute + time.Millisecond)}
			if got := e.inForce(now); got != (c.want <= 3*time.Minute) {
				t.Errorf("a life of 3 minutes and a bit is in force: %v", got)
			}
			// Who is given the verdict sees one clock, and on that it ends as early.
			cache := &Cache{clock: newClock()}
			if got := cache.verdict(&e, now, FromCache).Until.Sub(cache.clock.time(now)); got != e.life.duration()-c.want {
				t.Errorf("the verdict ends in %v, want %v", got, e.life.duration()-c.want)
			}
		})
	}
}

func TestClockKeepsTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClock()
		for _, d := range []time.Duration{0, 1, time.Second, time.Hour} {
			at := time.Now()
			i := c.now()
			if i != c.at(at) || !c.time(i).Equal(at) || c.time(i).Sub(at) != 0 {
				t.Errorf("%v became %v", at, c.time(i))
			}
			<-time.After(d)
			if got := i.since(c.now()); got != d {
				t.Errorf("after %v, %v have passed", d, got)
			}
		}
	})
}

func TestSpans(t *testing.T) {
	for d, want := range map[time.Duration]time.Duration{
		-time.Hour: 0, -1: 0, 0: 0, time.Millisecond - 1: 0, time.Millisecond: time.Millisecond,
		2*time.Millisecond - 1: time.Millisecond, time.Minute: time.Minute, MaxLife: MaxLife, MaxLife + time.Hour: MaxLife,
	} {
		if got := spanOf(d).duration(); got != want {
			t.Errorf("%v is held as %v, want %v", d, got, want)
		}
	}
}
