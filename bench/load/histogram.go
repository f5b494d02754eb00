package load

import "time"

// Histogram counts times. What it says of them is at most 1/32 below the truth, and
// never above. The zero Histogram is empty.
type Histogram struct {
	// One for each nanosecond up to 64, then 32 for each time that is twice as long.
	buckets [1024]int64
	count   int64
}

// Add counts a time.
func (h *Histogram) Add(d time.Duration) {
	h.buckets[min(bucketOf(d), len(h.buckets)-1)]++
	h.count++
}

// Merge counts all that another one has counted.
func (h *Histogram) Merge(other *Histogram) {
	for i, n := range &other.buckets {
		h.buckets[i] += n
	}
	h.count += other.count
}

// Count is how many times were counted.
func (h *Histogram) Count() int64 { return h.count }

// Quantile returns the time below which the given part of all times lies: .99 means
// that one in a hundred took that long or longer.
func (h *Histogram) Quantile(part float64) time.Duration {
	rank := min(int64(part*float64(h.count)), h.count-1)
	for i, n := range &h.buckets {
		if rank -= n; rank < 0 {
			return leastOf(i)
		}
	}
	return 0
}

func bucketOf(d time.Duration) int {
	v, shift := uint64(max(d, 0)), 0
	for ; v >= 64; v >>= 1 {
		shift++
	}
	return shift*32 + int(v)
}

// leastOf is the shortest time of a bucket.
func leastOf(bucket int) time.Duration {
	if bucket < 64 {
		return time.Duration(bucket)
	}
	shift := bucket/32 - 1
	return time.Duration(bucket-shift*32) << shift
}
