package crmnow

import (
	"testing"
	"time"
)

func TestTokensThatAreGoneTakeNoRoom(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	held := tokens{most: 10, ends: map[digest]time.Time{}}
	for i := range 1000 {
		d := digest{byte(i), byte(i >> 8)}
		if err := held.add(d, now, now.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if !held.good(d, now) || !held.remove(d, now) {
			t.Fatal("a token that was added is not good")
		}
	}
	if len(held.ends) != 0 || len(held.next) > 20 {
		t.Errorf("%d tokens and %d ends are held", len(held.ends), len(held.next))
	}
}
