package talkers

import (
	"slices"

	"github.com/bearergate/bearergate/gate"
)

// sketch counts the most frequent keys of a stream in room for a few of them
// (Space-Saving: Metwally, Agrawal and El Abbadi, ICDT 2005). A key that has no room
// takes the place of the least frequent one, and its count with it as a possible
// error. So the counts add up to all that was counted, and with n places:
//
//   - a key that makes up more than an nth of the stream is there;
//   - a count is at least the true one, and too large by at most its error, which is
//     no more than an nth of the stream.
//
// The zero sketch has no room.
type sketch[K comparable] struct {
	size  int
	slots []slot[K] // a heap: the least frequent first
	where map[K]int
}

// slot is the count of a key.
type slot[K comparable] struct {
	key    K
	count  uint64
	error  uint64
	reason gate.Reason // the last one
}

// add counts a key.
func (s *sketch[K]) add(key K, weight uint64, reason gate.Reason) {
	i, known := s.where[key]
	switch {
	case known:
		s.slots[i].count += weight
	case len(s.slots) < s.size:
		if s.where == nil {
			s.where = make(map[K]int, s.size)
		}
		i = len(s.slots)
		s.slots = append(s.slots, slot[K]{key: key, count: weight})
		s.where[key] = i
		s.up(i)
		i = s.where[key]
	case s.size == 0:
		return
	default:
		least := &s.slots[i] // i is 0
		delete(s.where, least.key)
		least.key, least.error = key, least.count
		least.count += weight
		s.where[key] = i
	}
	s.slots[i].reason = reason
	s.down(i)
}

// least is what a key that is not there may have been counted at most.
func (s *sketch[K]) least() uint64 {
	if len(s.slots) < s.size {
		return 0
	}
	return s.slots[0].count
}

func (s *sketch[K]) up(i int) {
	for i > 0 && s.slots[i].count < s.slots[(i-1)/2].count {
		s.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
}

func (s *sketch[K]) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(s.slots); child++ {
			if s.slots[child].count < s.slots[least].count {
				least = child
			}
		}
		if least == i {
			return
		}
		s.swap(i, least)
		i = least
	}
}

func (s *sketch[K]) swap(i, j int) {
	s.slots[i], s.slots[j] = s.slots[j], s.slots[i]
	s.where[s.slots[i].key], s.where[s.slots[j].key] = i, j
}

// copied returns what was counted so far, to be looked at alone.
func (s *sketch[K]) copied() sketch[K] {
	return sketch[K]{size: s.size, slots: slices.Clone(s.slots)}
}

// merged counts what several sketches have counted, the oldest first. What one of them
// does not have may have been counted there as often as its least frequent key.
func merged[K comparable](all []*sketch[K]) []slot[K] {
	var nowhere uint64 // the count of a key that none of them has, and its error
	most := 0
	for _, s := range all {
		nowhere += s.least()
		most += len(s.slots)
	}
	sum, where := make([]slot[K], 0, most), make(map[K]int, most)
	for _, s := range all {
		least := s.least()
		for _, one := range s.slots {
			i, known := where[one.key]
			if !known {
				i = len(sum)
				where[one.key] = i
				sum = append(sum, slot[K]{key: one.key, count: nowhere, error: nowhere})
			}
			sum[i].count += one.count - least
			sum[i].error = sum[i].error - least + one.error
			sum[i].reason = one.reason
		}
	}
	return sum
}
