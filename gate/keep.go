package gate

import (
	"fmt"
	"time"

	"github.com/bearergate/bearergate/verifier"
)

// keeping is for edges that keep an allow for a while and do not ask meanwhile.
type keeping struct {
	// most is how long they may at most; 0 means that nothing is kept.
	most time.Duration
}

// Facts of a request on which a decision may depend, by the names that edges are
// told. An edge that keeps an answer may give it only to requests that are alike
// in all that the gate names.
const (
	factAuthorization = "authorization"
	factMethod        = "method"
	factHost          = "host"
	factPath          = "path"
	factPolicy        = "policy"
)

func newKeeping(most time.Duration) (keeping, error) {
	if most < 0 || most > 0 && most < time.Second || most > verifier.MaxLife {
		return keeping{}, fmt.Errorf("an edge may keep an answer for %v: want 0, or 1s to %v", most, verifier.MaxLife)
	}
	return keeping{most: most}, nil
}

// of returns how long an edge may use an allow that follows from a verdict, of
// whose life so much is left; 0 means that the verdict itself says when it ends.
func (k keeping) of(v *verifier.Verdict, left time.Duration) time.Duration {
	// A stale verdict is good only as long as nobody can tell, which is asked each
	// time. One without an end is remembered by nobody: its end is long ago.
	if k.most == 0 || v.Source == verifier.FromStale {
		return 0
	}
	if left <= 0 {
		left = time.Until(v.Until)
	}
	return max(0, min(k.most, left)).Truncate(time.Second)
}
