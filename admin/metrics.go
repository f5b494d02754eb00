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
	stages    *asked[Stages]
	shadows   *asked[time.Time]
	// What is shown of reloads.
	reloads      *prometheus.CounterVec
	lastGood     prometheus.Gauge
	lastGoodTime prometheus.Gauge
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
		stages:  newStages(),
		shadows: newShadows(),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bearergate_config_reloads_total",
			Help: "Times that the configuration was read again, by result: applied, unchanged, or refused because something is wrong with it.",
		}, []string{"result"}),
		lastGood: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "bearergate_config_last_reload_successful",
			Help: "0 while the configuration that was read last cannot be used and the one from before is in force, else 1.",
		}),
		lastGoodTime: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "bearergate_config_last_reload_success_timestamp_seconds",
			Help: "When a configuration was last read that could be used, at the start too, as a Unix time.",
		}),
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "bearergate_build_info",
		Help: "1, with the version of the gateway and of Go.",
	}, []string{"version", "go_version"})
	for _, result := range []string{Applied, Unchanged, Refused} {
		m.reloads.WithLabelValues(result) // a rate needs a zero to start from
	}
	build.WithLabelValues(version, goVersion()).Set(1)
	m.registry.MustRegister(m.decisions, m.calls, m.panics, m.notAfter, m.reloaded, m.refused, m.stages, m.shadows,
		m.reloads, m.lastGood, m.lastGoodTime, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Labels say which series can go: those with all of these labels that are not "".
type Labels struct{ Listener, Policy, Verifier string }

// Forget drops series of what is no more.
func (m *Metrics) Forget(l Labels) {
	match := prometheus.Labels{}
	for name, value := range map[string]string{"listener": l.Listener, "policy": l.Policy, "verifier": l.Verifier} {
		if value != "" {
			match[name] = value
		}
	}
	m.decisions.DeletePartialMatch(match)
	m.calls.DeletePartialMatch(match)
	m.forgetCertificate(match)
}

// ForgetCertificate drops the series of a listener that speaks TLS no more.
func (m *Metrics) ForgetCertificate(listener string) {
	m.forgetCertificate(prometheus.Labels{"listener": listener})
}

func (m *Metrics) forgetCertificate(match prometheus.Labels) {
	m.notAfter.DeletePartialMatch(match)
	m.reloaded.DeletePartialMatch(match)
	m.refused.DeletePartialMatch(match)
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
	c.reloaded.Set(number(good))
}

// Refused counts a connection.
func (c CertificateMetrics) Refused(reason string) { c.refused[reason].Inc() }

// Panicked counts a panic.
func (m *Metrics) Panicked() { m.panics.Inc() }

func (m *Metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		EnableOpenMetrics:   true,
		MaxRequestsInFlight: 4,
		Timeout:             10 * time.Second,
	})
}
