package admin

import (
	"maps"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/bearergate/bearergate/verifier"
)

// Stages are what stands in front of a verifier. The functions are called when
// somebody asks for the metrics.
type Stages struct {
	Guard func() verifier.GuardStats
	Cache func() verifier.CacheStats
}

// Verifiers shows how the stages in front of verifiers stand, by the verifiers'
// names. Those that were shown before and are not among them are shown no more.
func (m *Metrics) Verifiers(all map[string]Stages) {
	all = maps.Clone(all)
	m.stages.current.Store(&all)
}

// Shadows shows which policies let through what they refuse, by their names, and
// until when. Policies without a shadow are not among them.
func (m *Metrics) Shadows(until map[string]time.Time) {
	until = maps.Clone(until)
	m.shadows.current.Store(&until)
}

// asked is a collector of what is looked up when somebody asks for the metrics.
type asked[T any] struct {
	current atomic.Pointer[map[string]T]
	shown   []shown[T]
}

// shown is one metric of it.
type shown[T any] struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(T) float64
}

func (a *asked[T]) show(name, help, label string, kind prometheus.ValueType, value func(T) float64) {
	a.shown = append(a.shown, shown[T]{prometheus.NewDesc(name, help, []string{label}, nil), kind, value})
}

// Describe implements [prometheus.Collector].
func (a *asked[T]) Describe(to chan<- *prometheus.Desc) {
	for _, s := range a.shown {
		to <- s.desc
	}
}

// Collect implements [prometheus.Collector].
func (a *asked[T]) Collect(to chan<- prometheus.Metric) {
	all := a.current.Load()
	if all == nil {
		return
	}
	for name, one := range *all {
		for _, s := range a.shown {
			to <- prometheus.MustNewConstMetric(s.desc, s.kind, s.value(one), name)
		}
	}
}

func newStages() *asked[Stages] {
	a := &asked[Stages]{}
	gauge := func(name, help string, value func(Stages) float64) {
		a.show(name, help, "verifier", prometheus.GaugeValue, value)
	}
	counter := func(name, help string, value func(Stages) float64) {
		a.show(name, help, "verifier", prometheus.CounterValue, value)
	}
	gauge("bearergate_verifier_calls_in_flight", "Calls to a verifier that are under way.",
		func(s Stages) float64 { return float64(s.Guard().Calls) })
	gauge("bearergate_verifier_calls_waiting", "Calls to a verifier that wait for their turn.",
		func(s Stages) float64 { return float64(s.Guard().Waiting) })
	counter("bearergate_verifier_calls_shed_total", "Calls to a verifier that were not made because too many waited, or waited too long.",
		func(s Stages) float64 { return float64(s.Guard().Shed) })
	gauge("bearergate_verifier_breaker_open", "1 while the breaker of a verifier lets no call through, else 0.",
		func(s Stages) float64 { return number(s.Guard().Open) })
	counter("bearergate_cache_rejected_total", "Answers that the cache had no room for; many of them mean that cache.max_tokens is too small.",
		func(s Stages) float64 { return float64(s.Cache().Rejected) })
	gauge("bearergate_cache_denied_tokens", "Tokens that an operator has denied.",
		func(s Stages) float64 { return float64(s.Cache().Denied) })
	return a
}

func newShadows() *asked[time.Time] {
	a := &asked[time.Time]{}
	a.show("bearergate_policy_shadow", "1 while a policy lets through what it refuses, else 0; only for policies with shadow.", "policy",
		prometheus.GaugeValue, func(until time.Time) float64 { return number(time.Now().Before(until)) })
	return a
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
