//go:build !race

package verifier_test

import (
	"testing"

	"github.com/bearergate/bearergate/verifier"
)

// TestHitAllocatesNothing does not run with the race detector, which allocates
// itself.
func TestHitAllocatesNothing(t *testing.T) {
	c, all := warmCache(t, 100)
	defer c.Close()
	ctx, i := t.Context(), 0
	if n := testing.AllocsPerRun(10_000, func() {
		if v, err := c.Verify(ctx, all[i%len(all)]); err != nil || v.Source != verifier.FromCache {
			t.Errorf("the verdict is %+v, %v", v, err)
		}
		i++
	}); n != 0 {
		t.Errorf("a hit takes %v allocations", n)
	}
}
