package admin

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/bearergate/bearergate/gate"
	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
	"github.com/bearergate/bearergate/verifier"
)

const (
	// activityStep is how long a point is, and activityPoints how many are remembered.
	activityStep   = time.Second
	activityPoints = 300
	// timesStep is how often it is noted how long things took so far, and timesNotes
	// how many notes are kept: times are those of the last 50 to 60 seconds.
	timesStep  = 10 * time.Second
	timesNotes = 6
)

// activity remembers what the metrics counted in the last five minutes. It reads them
// once a second, so it costs requests nothing; and it is as large after a week as it
// is after five minutes.
type activity struct {
	metrics *Metrics

	mu     sync.Mutex
	series map[Labels]*followed
	// end is when the last point ended; zero if nobody remembers anything yet.
	end    time.Time
	points []point // the oldest first
	// notes are how long things had taken at different times, the oldest first, the last
	// one at noted.
	notes []map[timesOf]spread
	noted time.Time
}

// point is what was decided in one step: by reason, by source if there is a verdict,
// and of all, and by reason, those that were let through though refused.
type point [gate.Reasons + verifier.Sources + 1 + gate.Reasons]uint64

// Where in a point things are.
const (
	pointSources = gate.Reasons
	pointShadow  = gate.Reasons + verifier.Sources
	pointShadows = pointShadow + 1
)

// decisionCounters are those of a policy on a listener: enforced, and in shadow. Some
// are nil, and where a reason has no verdict one stands for all sources.
type decisionCounters [2][gate.Reasons][verifier.Sources]prometheus.Counter

// followed are counters, and what they said last.
type followed struct {
	counters *decisionCounters
	last     [2][gate.Reasons][verifier.Sources]uint64
}

// follow has the counters of a policy on a listener read from now on.
func (a *activity) follow(listener, policy string, counters *decisionCounters) {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := Labels{Listener: listener, Policy: policy}
	if f := a.series[key]; f != nil {
		f.counters = counters // the same ones, or more
		return
	}
	a.series[key] = &followed{counters: counters}
}

// forget follows counters no longer.
func (a *activity) forget(l Labels) {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.series, func(key Labels, _ *followed) bool {
		return l.Verifier == "" && (l.Listener == "" || l.Listener == key.Listener) && (l.Policy == "" || l.Policy == key.Policy)
	})
}

// Remember begins to remember what is decided, for who wants to see the last five
// minutes. What it returns goes on with it until ctx ends.
func (m *Metrics) Remember(ctx context.Context) (goOn func()) {
	a := &m.activity
	a.begin(time.Now())
	return func() {
		ticker := time.NewTicker(activityStep)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				a.tick(time.Now())
			}
		}
	}
}

func (a *activity) begin(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count() // what was counted before belongs to no point
	a.end, a.noted, a.notes = now, now, append(a.notes[:0], a.metrics.spreads())
}

// tick makes the points up to now. A tick that comes late stands for several: what
// was counted is divided between them.
func (a *activity) tick(now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := int((now.Sub(a.end) + activityStep/2) / activityStep)
	if n < 1 {
		return
	}
	a.end = a.end.Add(time.Duration(n) * activityStep)
	counted := a.count()
	for left := min(n, activityPoints); left > 0; left-- {
		var p point
		for i := range counted {
			p[i] = counted[i] / uint64(left)
			counted[i] -= p[i]
		}
		a.points = append(a.points, p)
	}
	a.points = slices.Delete(a.points, 0, max(0, len(a.points)-activityPoints))
	if now.Sub(a.noted) > timesStep-activityStep/2 {
		a.noted = now
		a.notes = append(a.notes, a.metrics.spreads())
		a.notes = slices.Delete(a.notes, 0, max(0, len(a.notes)-timesNotes))
	}
}

// count reads all counters, and returns what they have counted since the last time.
func (a *activity) count() (sum point) {
	for _, f := range a.series {
		for shadow := range f.counters {
			for reason := range gate.Reason(gate.Reasons) {
				for source, counter := range f.counters[shadow][reason] {
					if counter == nil || source > 0 && !reason.HasVerdict() {
						break
					}
					value := valueOf(counter)
					last := &f.last[shadow][reason][source]
					n := value - *last
					*last = value
					sum[reason] += n
					if reason.HasVerdict() {
						sum[pointSources+source] += n
					}
					if shadow == 1 {
						sum[pointShadow] += n
						sum[pointShadows+int(reason)] += n
					}
				}
			}
		}
	}
	return sum
}

func valueOf(c prometheus.Counter) uint64 {
	var m dto.Metric
	_ = c.Write(&m) // a counter can always be written
	return uint64(m.GetCounter().GetValue())
}

// timesOf says what took time: decisions from a source, or calls to a verifier that
// ended in some way.
type timesOf struct{ source, verifier, outcome string }

// spread is how often something took how long, as native histograms have it: bucket i
// ends at base^i seconds, and base is 2 to the power of 2^-schema.
type spread struct {
	schema int32
	counts map[int32]uint64
}

// spreads returns how long things have taken since the start.
func (m *Metrics) spreads() map[timesOf]spread {
	all := map[timesOf]spread{}
	for _, vec := range []*prometheus.HistogramVec{m.durations, m.calls} {
		for _, d := range collected(vec) {
			var of timesOf
			for _, l := range d.GetLabel() {
				switch l.GetName() {
				case "source":
					of.source = l.GetValue()
				case "verifier":
					of.verifier = l.GetValue()
				case "outcome":
					of.outcome = l.GetValue()
				}
			}
			all[of] = all[of].plus(spreadOf(d.GetHistogram()))
		}
	}
	return all
}

// collected returns what a collector says now.
func collected(c prometheus.Collector) (all []*dto.Metric) {
	metrics := make(chan prometheus.Metric)
	go func() {
		defer close(metrics)
		c.Collect(metrics)
	}()
	for metric := range metrics {
		var d dto.Metric
		if metric.Write(&d) == nil {
			all = append(all, &d)
		}
	}
	return all
}

// spreadOf reads a native histogram, whose buckets stand in spans, and there each by
// what it has more than the one before.
func spreadOf(h *dto.Histogram) spread {
	s := spread{schema: h.GetSchema(), counts: map[int32]uint64{}}
	var index int32
	var count int64
	deltas := h.GetPositiveDelta()
	for _, span := range h.GetPositiveSpan() {
		index += span.GetOffset()
		for range min(int(span.GetLength()), len(deltas)) {
			count += deltas[0]
			deltas = deltas[1:]
			s.counts[index] += uint64(count) //nolint:gosec // it is a count
			index++
		}
	}
	return s
}

// at returns the spread in the buckets of a schema that is not finer.
func (s spread) at(schema int32) spread {
	if s.schema == schema {
		return s
	}
	coarse := spread{schema: schema, counts: map[int32]uint64{}}
	for i, n := range s.counts {
		coarse.counts[(i-1)>>(s.schema-schema)+1] += n
	}
	return coarse
}

// plus returns both together.
func (s spread) plus(other spread) spread {
	if s.counts == nil {
		return other
	}
	schema := min(s.schema, other.schema)
	sum := spread{schema: schema, counts: maps.Clone(s.at(schema).counts)}
	for i, n := range other.at(schema).counts {
		sum.counts[i] += n
	}
	return sum
}

// since returns what has come to it since before. If the histogram was begun anew
// meanwhile, that is all of it.
func (s spread) since(before spread) spread {
	if before.counts == nil {
		return s
	}
	schema := min(s.schema, before.schema)
	more := spread{schema: schema, counts: maps.Clone(s.at(schema).counts)}
	for i, n := range before.at(schema).counts {
		if more.counts[i] < n {
			return s
		}
		more.counts[i] -= n
	}
	return more
}

// quantiles returns how many there are, and what that part of them took at most.
func (s spread) quantiles(parts ...float64) (total uint64, took []time.Duration) {
	for _, n := range s.counts {
		total += n
	}
	indexes := slices.Sorted(maps.Keys(s.counts))
	for _, part := range parts {
		rank, below := part*float64(total), 0.
		var seconds float64
		for _, i := range indexes {
			n := float64(s.counts[i])
			if n > 0 && below+n >= rank {
				// Within a bucket the times are taken to be spread evenly by their logarithm.
				seconds = math.Exp2((float64(i) - 1 + (rank-below)/n) * math.Exp2(-float64(s.schema)))
				break
			}
			below += n
		}
		took = append(took, time.Duration(seconds*float64(time.Second)))
	}
	return total, took
}

// recent returns what is remembered.
func (a *activity) recent() *adminv1.ActivityResponse {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := &adminv1.ActivityResponse{
		Step:   durationpb.New(activityStep),
		Points: uint32(len(a.points)), //nolint:gosec // it is bounded
		Shadow: a.column(pointShadow),
	}
	if a.end.IsZero() {
		return r
	}
	now := time.Now()
	r.Until = timestamppb.New(now.Add(-now.Sub(a.end))) // by the wall clock of now
	for reason := range gate.Reason(gate.Reasons) {
		if counts := a.column(int(reason)); counts != nil {
			r.Reasons = append(r.Reasons, &adminv1.ReasonActivity{Reason: reason.String(), Outcome: reason.Outcome().String(), Counts: counts, Shadow: a.column(pointShadows + int(reason))})
		}
	}
	for source := range verifier.Source(verifier.Sources) {
		if counts := a.column(pointSources + int(source)); counts != nil {
			r.Sources = append(r.Sources, &adminv1.SourceActivity{Source: source.String(), Counts: counts})
		}
	}
	a.addTimes(r)
	return r
}

// column returns one number of all points, nil if it is 0 in all of them.
func (a *activity) column(i int) []uint32 {
	counts, some := make([]uint32, len(a.points)), false
	for at := range a.points {
		n := a.points[at][i]
		counts[at] = uint32(min(n, math.MaxUint32))
		some = some || n > 0
	}
	if !some {
		return nil
	}
	return counts
}

// addTimes adds how long things took lately.
func (a *activity) addTimes(r *adminv1.ActivityResponse) {
	now, before := a.metrics.spreads(), a.notes[0]
	for of, s := range now {
		total, took := s.since(before[of]).quantiles(.5, .99)
		if total == 0 {
			continue
		}
		t := &adminv1.Times{Measured: total, P50: durationpb.New(took[0]), P99: durationpb.New(took[1])}
		if of.verifier == "" {
			r.DecisionTimes = append(r.DecisionTimes, &adminv1.DecisionTimes{Source: of.source, Times: t})
		} else {
			r.CallTimes = append(r.CallTimes, &adminv1.CallTimes{Verifier: of.verifier, Outcome: of.outcome, Times: t})
		}
	}
	slices.SortFunc(r.GetDecisionTimes(), func(a, b *adminv1.DecisionTimes) int { return cmp.Compare(a.GetSource(), b.GetSource()) })
	slices.SortFunc(r.GetCallTimes(), func(a, b *adminv1.CallTimes) int {
		return cmp.Or(cmp.Compare(a.GetVerifier(), b.GetVerifier()), cmp.Compare(a.GetOutcome(), b.GetOutcome()))
	})
}
