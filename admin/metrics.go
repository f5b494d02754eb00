package admin

import (
	"net/http"
	"runtime/debug"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/verifier"
)

// Metrics count what the gateway does. No label takes a value from a request.
// It may be used concurrently.
type Metrics struct {
	registry  *prometheus.Registry
	decisions *prometheus.CounterVec
	calls     *prometheus.HistogramVec
	panics    prometheus.Counter
	notAfter  *prometheus.GaugeVec
	reloaded  *prometheus.GaugeVec
	refused   *prometheus.CounterVec
}

// NewMetrics returns metrics of a gateway of this version.
func NewMetrics(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bearergate_decisions_total",
			Help: "Decisions by listener, policy, reason and source of the verdict (none if there was no verdict); enforced is false if the request was let through all the same (shadow).",
		}, []string{"listener", "policy", "reason", "source", "enforced"}),
		calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "bearergate_verifier_call_duration_seconds",
			Help:    "Calls to a verifier by outcome (valid, invalid, no_answer), and how long they took.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"verifier", "outcome"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "bearergate_panics_total",
			Help: "Panics that were turned into a 503. Each is a fault of the gateway.",
		}),
		notAfter: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "bearergate_certificate_not_after_timestamp_seconds",
			Help: "When the certificate of a listener ends, as a Unix time.",
		}, []string{"listener"}),
		reloaded: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "bearergate_certificate_last_reload_successful",
			Help: "0 while the certificate files of a listener cannot be used and those from before are in force, else 1.",
		}, []string{"listener"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bearergate_tls_handshakes_refused_total",
			Help: "Connections to a listener that did not come through their TLS handshake, by reason.",
		}, []string{"listener", "reason"}),
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "bearergate_build_info",
		Help: "1, with the version of the gateway and of Go.",
	}, []string{"version", "go_version"})
	build.WithLabelValues(version, goVersion()).Set(1)
	m.registry.MustRegister(m.decisions, m.calls, m.panics, m.notAfter, m.reloaded, m.refused, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func goVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.GoVersion
	}
	return "unknown"
}

// Decisions returns the function that counts the decisions of a listener. The
// policies are the names by index, and shadowed are those that may let through
// what they refuse.
func (m *Metrics) Decisions(listener string, policies, shadowed []string) func(gate.Tally) {
	// All children are made ahead: what is counted at each request must cost an
	// atomic addition and no lookup, and a rate needs a zero to start from.
	type counters [2][gate.Reasons][verifier.Sources]prometheus.Counter
	counted := make([]counters, len(policies))
	for i, policy := range policies {
		for reason := range gate.Reason(gate.Reasons) {
			for source := range verifier.Source(verifier.Sources) {
				name := "none"
				if reason.HasVerdict() {
					name = source.String()
				}
				counted[i][0][reason][source] = m.decisions.WithLabelValues(listener, policy, reason.String(), name, "true")
				if slices.Contains(shadowed, policy) && reason.Outcome() != gate.Allow {
					counted[i][1][reason][source] = m.decisions.WithLabelValues(listener, policy, reason.String(), name, "false")
				}
			}
		}
	}
	return func(t gate.Tally) {
		shadow := 0
		if t.Shadow {
			shadow = 1
		}
		counted[t.Policy][shadow][t.Reason][t.Source].Inc()
	}
}

// Shadow shows whether a policy lets through what it refuses, which it does until a
// time.
func (m *Metrics) Shadow(policy string, until time.Time) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "bearergate_policy_shadow", Help: "1 while a policy lets through what it refuses, else 0; only for policies with shadow.",
		ConstLabels: prometheus.Labels{"policy": policy},
	}, func() float64 {
		if time.Now().Before(until) {
			return 1
		}
		return 0
	}))
}

// Calls returns the function that records the calls to a verifier.
func (m *Metrics) Calls(name string) func(verifier.Outcome, time.Duration) {
	var observers [verifier.Outcomes]prometheus.Observer
	for outcome := range verifier.Outcome(verifier.Outcomes) {
		observers[outcome] = m.calls.WithLabelValues(name, outcome.String())
	}
	return func(outcome verifier.Outcome, took time.Duration) { observers[outcome].Observe(took.Seconds()) }
}

// CertificateMetrics are what is counted of a listener that speaks TLS.
type CertificateMetrics struct {
	notAfter, reloaded prometheus.Gauge
	refused            map[string]prometheus.Counter
}

// Certificate returns what counts for a listener, with all reasons for which a
// connection can be refused.
func (m *Metrics) Certificate(listener string, reasons []string) CertificateMetrics {
	c := CertificateMetrics{
		notAfter: m.notAfter.WithLabelValues(listener),
		reloaded: m.reloaded.WithLabelValues(listener),
		refused:  map[string]prometheus.Counter{},
	}
	for _, reason := range reasons {
		c.refused[reason] = m.refused.WithLabelValues(listener, reason)
	}
	return c
}

// NotAfter shows when the certificate ends.
func (c CertificateMetrics) NotAfter(end time.Time) { c.notAfter.Set(float64(end.Unix())) }

// Reloaded shows whether the files can be used.
func (c CertificateMetrics) Reloaded(good bool) {
	value := 0.
	if good {
		value = 1
	}
	c.reloaded.Set(value)
}

// Refused counts a connection.
func (c CertificateMetrics) Refused(reason string) { c.refused[reason].Inc() }

// Verifier shows how the stages in front of a verifier stand. The functions are
// called when somebody asks for the metrics.
func (m *Metrics) Verifier(name string, guard func() verifier.GuardStats, cache func() verifier.CacheStats) {
	label := prometheus.Labels{"verifier": name}
	gauge := func(name, help string, value func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: label}, value))
	}
	counter := func(name, help string, value func() float64) {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: label}, value))
	}
	gauge("bearergate_verifier_calls_in_flight", "Calls to a verifier that are under way.",
		func() float64 { return float64(guard().Calls) })
	gauge("bearergate_verifier_calls_waiting", "Calls to a verifier that wait for their turn.",
		func() float64 { return float64(guard().Waiting) })
	counter("bearergate_verifier_calls_shed_total", "Calls to a verifier that were not made because too many waited, or waited too long.",
		func() float64 { return float64(guard().Shed) })
	gauge("bearergate_verifier_breaker_open", "1 while the breaker of a verifier lets no call through, else 0.",
		func() float64 {
			if guard().Open {
				return 1
			}
			return 0
		})
	counter("bearergate_cache_rejected_total", "Answers that the cache had no room for; many of them mean that cache.max_tokens is too small.",
		func() float64 { return float64(cache().Rejected) })
	gauge("bearergate_cache_denied_tokens", "Tokens that an operator has denied.",
		func() float64 { return float64(cache().Denied) })
}

// Panicked counts a panic.
func (m *Metrics) Panicked() { m.panics.Inc() }

func (m *Metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		EnableOpenMetrics:   true,
		MaxRequestsInFlight: 4,
		Timeout:             10 * time.Second,
	})
}
