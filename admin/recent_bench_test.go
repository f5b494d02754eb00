package admin_test

import (
	"fmt"
	"testing"

	"github.com/bearergate/bearergate/admin"
	"github.com/bearergate/bearergate/gate"
)

// BenchmarkRecent is what one refused request of a flood costs: of tokens that never
// come again, and of one that does.
func BenchmarkRecent(b *testing.B) {
	made := make([]*gate.Event, 1<<16)
	for i := range made {
		made[i] = &gate.Event{Fingerprint: fmt.Sprintf("%012x", i), Reason: gate.InvalidToken}
	}
	for name, tokens := range map[string]int{"made up": len(made), "one": 1} {
		b.Run(name, func(b *testing.B) {
			r := admin.NewRecent()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				r.Tell(made[i%tokens])
			}
		})
	}
}
