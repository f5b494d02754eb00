package verifier

import (
	"testing"
	"testing/synctest"
	"time"
)

// A refusal that comes when its token has ended has no life left, and ristretto
// takes 0 for no end.
func TestAnEntryWithoutLifeDoesNotStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, err := newMemory(10)
		if err != nil {
			t.Fatal(err)
		}
		defer m.close()
		e := entry{learnt: newClock().now()}
		if !m.set(&e) {
			t.Fatal("ristretto dropped the entry")
		}
		m.settle()
		<-time.After(time.Minute)
		if _, ok := m.find(&e.digest); ok {
			t.Error("it is still there after a minute")
		}
	})
}
