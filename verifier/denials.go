package verifier

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bearergate/bearergate/bearer"
)

// maxDenials bounds what an operator can deny at one time.
const maxDenials = 100_000

// errTooManyDenials says that the bound is reached.
var errTooManyDenials = errors.New("100,000 tokens are denied, no more can be; wait until some have ended")

// denials are the tokens that an operator has refused. They are not in the
// cache, because a cache may lose what it holds. They may be used concurrently.
type denials struct {
	count atomic.Int64 // lets requests pass without a lock while there are none
	mu    sync.RWMutex
	until map[bearer.Digest]denial
}

type denial struct {
	from instant
	last time.Duration
}

func (d *denial) inForce(now instant) bool { return d.from.since(now) < d.last }

// add denies a token for a time.
func (ds *denials) add(d *bearer.Digest, now instant, last time.Duration) error {
	ds.mu.Lock()
	defer ds.mu.Unlock()
	if ds.until == nil {
		ds.until = map[bearer.Digest]denial{}
	}
	for digest, old := range ds.until {
		if !old.inForce(now) {
			delete(ds.until, digest)
		}
	}
	if _, known := ds.until[*d]; !known && len(ds.until) >= maxDenials {
		return errTooManyDenials
	}
	ds.until[*d] = denial{from: now, last: last}
	ds.count.Store(int64(len(ds.until)))
	return nil
}

// find returns the denial of a token if one is in force.
func (ds *denials) find(d *bearer.Digest, now instant) (denial, bool) {
	if ds.count.Load() == 0 {
		return denial{}, false
	}
	ds.mu.RLock()
	defer ds.mu.RUnlock()
	found, ok := ds.until[*d]
	return found, ok && found.inForce(now)
}
