package admin

import (
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/bearergate/bearergate/verifier"
)

// Stages are what stands in front of a verifier. The functions are called when
// somebody asks.
type Stages struct {
	Guard func() verifier.GuardStats
	Cache func() verifier.CacheStats
	// Reset has the verifier called again, whatever its breaker says.
	Reset func()
	// Keys is nil if the verifier needs no keys of an issuer.
	Keys func() verifier.KeyStats
}

// Verifiers shows how the stages in front of verifiers stand, by the verifiers'
// names. Those that were shown before and are not among them are shown no more.
func (m *Metrics) Verifiers(all map[string]Stages) {
	all = maps.Clone(all)
	m.stages.current.Store(&all)
}

// stages is the collector of what the stages count themselves.
type stages struct {
	current atomic.Pointer[map[string]Stages]
}

// stageMetrics are what is shown of the stages of each verifier: of each, or of each
// part of its cache.
var stageMetrics = []struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(verifier.GuardStats, verifier.CacheStats) float64 // nil: part, or breaker
	part  func(verifier.PartStats) float64
}{
	{
		desc: perVerifier("verifier_calls_in_flight", "Calls to a verifier that are under way; at most calls.max."), kind: prometheus.GaugeValue,
		value: func(g verifier.GuardStats, _ verifier.CacheStats) float64 { return float64(g.Calls) },
	},
	{
		desc: perVerifier("verifier_calls_waiting", "Calls to a verifier that wait for their turn; at most calls.max_waiting, but for tokens that were good."), kind: prometheus.GaugeValue,
		value: func(g verifier.GuardStats, _ verifier.CacheStats) float64 { return float64(g.Waiting) },
	},
	{
		desc: perVerifier("verifier_calls_shed_total", "Calls to a verifier that were not made because too many waited, or waited too long: the reason overloaded."), kind: prometheus.CounterValue,
		value: func(g verifier.GuardStats, _ verifier.CacheStats) float64 { return float64(g.Shed) },
	},
	{
		desc: perVerifier("verifier_breaker_state", "1 for the state in which the breaker of a verifier is, 0 for the others: closed, open (no call is made), half_open (one call tries).", "state"), kind: prometheus.GaugeValue,
	},
	{
		desc: perVerifier("cache_misses_total", "Requests whose answer was not remembered. Those whose answer was are bearergate_decisions_total with source=\"cache\"."), kind: prometheus.CounterValue,
		value: func(_ verifier.GuardStats, c verifier.CacheStats) float64 { return float64(c.Misses) },
	},
	{
		desc: perVerifier("cache_waiting_requests", "Requests that wait for an answer; many can wait for one call."), kind: prometheus.GaugeValue,
		value: func(_ verifier.GuardStats, c verifier.CacheStats) float64 { return float64(c.Waiting) },
	},
	{
		desc: perVerifier("cache_refreshes_total", "Tokens in use that were asked for again in the background, before their answer ended."), kind: prometheus.CounterValue,
		value: func(_ verifier.GuardStats, c verifier.CacheStats) float64 { return float64(c.Refreshed) },
	},
	{
		desc: perVerifier("cache_denied_tokens", "Tokens that an operator has denied."), kind: prometheus.GaugeValue,
		value: func(_ verifier.GuardStats, c verifier.CacheStats) float64 { return float64(c.Denied) },
	},
	{
		desc: perVerifier("cache_entries", "Tokens that are remembered: in the part for those that were good, and in the one for the others.", "part"), kind: prometheus.GaugeValue,
		part: func(p verifier.PartStats) float64 { return float64(p.Entries) },
	},
	{
		desc: perVerifier("cache_max_entries", "Tokens that there is room for: cache.max_tokens, and a quarter of it.", "part"), kind: prometheus.GaugeValue,
		part: func(p verifier.PartStats) float64 { return float64(p.Most) },
	},
	{
		desc: perVerifier("cache_evictions_total", "Answers that had to go for others; many of them in the part good mean that cache.max_tokens is too small.", "part"), kind: prometheus.CounterValue,
		part: func(p verifier.PartStats) float64 { return float64(p.Evicted) },
	},
	{
		desc: perVerifier("cache_rejected_total", "Answers that the cache had no room for, because others are asked for more; many of them in the part good mean that cache.max_tokens is too small.", "part"), kind: prometheus.CounterValue,
		part: func(p verifier.PartStats) float64 { return float64(p.Rejected) },
	},
	{
		desc: perVerifier("cache_dropped_total", "How often the cache was too busy to take an answer, which was then offered again.", "part"), kind: prometheus.CounterValue,
		part: func(p verifier.PartStats) float64 { return float64(p.Dropped) },
	},
}

// keyMetrics are what is shown of the keys of a verifier that needs some.
var keyMetrics = []struct {
	desc   *prometheus.Desc
	kind   prometheus.ValueType
	value  func(verifier.KeyStats) float64
	labels []string
}{
	{
		desc: perVerifier("verifier_keys", "Keys of the issuer that can be used; 0 before they were first needed, and when they are older than keys.max_age. Only for verifiers that check signatures."), kind: prometheus.GaugeValue,
		value: func(k verifier.KeyStats) float64 { return float64(k.Keys) },
	},
	{
		desc: perVerifier("verifier_keys_fetched_timestamp_seconds", "When the keys of the issuer were last fetched; 0 if they never were. They are fetched again when one is needed and they are older than keys.refresh_every."), kind: prometheus.GaugeValue,
		value: func(k verifier.KeyStats) float64 { return unixSeconds(k.Fetched) },
	},
	{
		desc: keyFetches, kind: prometheus.CounterValue, labels: []string{"fetched"},
		value: func(k verifier.KeyStats) float64 { return float64(k.Fetches) },
	},
	{
		desc: keyFetches, kind: prometheus.CounterValue, labels: []string{"failed"},
		value: func(k verifier.KeyStats) float64 { return float64(k.Failures) },
	},
}

var keyFetches = perVerifier("verifier_key_fetches_total", "Attempts to fetch the keys of the issuer, by how they ended.", "result")

// unixSeconds is a time as Prometheus has it; 0 for the zero Time.
func unixSeconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

func perVerifier(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("bearergate_"+name, help, append([]string{"verifier"}, labels...), nil)
}

// Describe implements [prometheus.Collector].
func (s *stages) Describe(descs chan<- *prometheus.Desc) {
	for _, m := range stageMetrics {
		descs <- m.desc
	}
	for _, m := range keyMetrics {
		descs <- m.desc
	}
}

// Collect implements [prometheus.Collector].
func (s *stages) Collect(metrics chan<- prometheus.Metric) {
	current := s.current.Load()
	if current == nil {
		return
	}
	all := *current
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if keys := all[name].Keys; keys != nil {
			now := keys()
			for _, m := range keyMetrics {
				metrics <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(now), append([]string{name}, m.labels...)...)
			}
		}
		guard, cache := all[name].Guard(), all[name].Cache()
		for _, m := range stageMetrics {
			switch {
			case m.value != nil:
				metrics <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(guard, cache), name)
			case m.part != nil:
				metrics <- prometheus.MustNewConstMetric(m.desc, m.kind, m.part(cache.Good), name, "good")
				metrics <- prometheus.MustNewConstMetric(m.desc, m.kind, m.part(cache.Refused), name, "refused")
			default:
				for state := range verifier.Breaker(verifier.Breakers) {
					metrics <- prometheus.MustNewConstMetric(m.desc, m.kind, oneIf(guard.Breaker == state), name, state.String())
				}
			}
		}
	}
}

// Shadows shows which policies let through what they refuse, by their names, and
// until when. Policies without a shadow are not among them.
func (m *Metrics) Shadows(until map[string]time.Time) {
	until = maps.Clone(until)
	m.shadows.current.Store(&until)
}

// shadows is the collector of them.
type shadows struct {
	current atomic.Pointer[map[string]time.Time]
}

var shadowMetric = prometheus.NewDesc("bearergate_policy_shadow",
	"1 while a policy with shadow lets through what it refuses, 0 when that is over; only for policies with shadow.", []string{"policy"}, nil)

// Describe implements [prometheus.Collector].
func (s *shadows) Describe(descs chan<- *prometheus.Desc) { descs <- shadowMetric }

// Collect implements [prometheus.Collector].
func (s *shadows) Collect(metrics chan<- prometheus.Metric) {
	if current := s.current.Load(); current != nil {
		for policy, until := range *current {
			metrics <- prometheus.MustNewConstMetric(shadowMetric, prometheus.GaugeValue, oneIf(time.Now().Before(until)), policy)
		}
	}
}

// now returns the policies that let through what they refuse, and until when.
func (s *shadows) now() map[string]time.Time {
	in := map[string]time.Time{}
	if current := s.current.Load(); current != nil {
		for policy, until := range *current {
			if time.Now().Before(until) {
				in[policy] = until
			}
		}
	}
	return in
}
