package admin

import (
	"net/http"
	"runtime/debug"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/verifier"
)

// Metrics count what the gateway does. No label takes a value from a request; an
// exemplar names a token by its fingerprint, and a trace that is kept.
// It may be used concurrently.
type Metrics struct {
	registry  *prometheus.Registry
	decisions *prometheus.CounterVec
	durations *prometheus.HistogramVec
	calls     *prometheus.HistogramVec
	panics    prometheus.Counter
	notAfter  *prometheus.GaugeVec
	reloaded  *prometheus.GaugeVec
	refused   *prometheus.CounterVec
	stages    stages
	shadows   shadows
	activity  activity
	readiness readiness
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
			Help: "Decisions. enforced is false for what was let through though it was refused (shadow).",
		}, []string{"listener", "policy", "reason", "source", "enforced"}),
		durations: prometheus.NewHistogramVec(histogram(
			"bearergate_decision_duration_seconds",
			"How long decisions took that follow from an answer about a token, or from none. "+
				"All that waited for a verifier are in it, of the others one in 64, by chance; so compare sources, and do not count by it.",
			1e-6, 1e-5, 1e-4, .001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10,
		), []string{"listener", "source"}),
		calls: prometheus.NewHistogramVec(histogram(
			"bearergate_verifier_call_duration_seconds",
			"Calls to a verifier, and how long they took, without waiting for their turn.",
			.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30,
		), []string{"verifier", "outcome"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "bearergate_panics_total",
			Help: "Faults of the gateway that became a 503. 0, always.",
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
			Help: "Connections to a listener that did not come through their TLS handshake.",
		}, []string{"listener", "reason"}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bearergate_config_reloads_total",
			Help: "Times that the configuration was read again.",
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
	m.activity = activity{metrics: m, series: map[Labels]*followed{}}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "bearergate_build_info",
		Help: "1, with the version of the gateway and of Go.",
	}, []string{"version", "go_version"})
	for _, result := range []string{Applied, Unchanged, Refused} {
		m.reloads.WithLabelValues(result) // a rate needs a zero to start from
	}
	build.WithLabelValues(version, goVersion()).Set(1)
	m.registry.MustRegister(m.decisions, m.durations, m.calls, m.panics, m.notAfter, m.reloaded, m.refused, build,
		&m.stages, &m.shadows, &m.readiness, m.reloads, m.lastGood, m.lastGoodTime,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// histogram describes one with these bounds, and with Prometheus' own, which are
// finer, for who asks for them.
func histogram(name, help string, buckets ...float64) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name: name, Help: help, Buckets: buckets,
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  160,
		NativeHistogramMinResetDuration: time.Hour,
	}
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
	m.durations.DeletePartialMatch(match)
	m.calls.DeletePartialMatch(match)
	m.forgetCertificate(match)
	m.activity.forget(l)
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

// noSource is the source of decisions that follow from no verdict.
const noSource = "none"

// Decisions returns the function that counts the decisions of a listener. The
// policies are the names by index, and shadowed are those that may let through
// what they refuse.
func (m *Metrics) Decisions(listener string, policies, shadowed []string) func(gate.Tally) {
	// All children are made ahead: what is counted at each request must cost an
	// atomic addition and no lookup, and a rate needs a zero to start from.
	counted := make([]decisionCounters, len(policies))
	for i, policy := range policies {
		for reason := range gate.Reason(gate.Reasons) {
			for source := range verifier.Source(verifier.Sources) {
				name := noSource
				if reason.HasVerdict() {
					name = source.String()
				}
				counted[i][0][reason][source] = m.decisions.WithLabelValues(listener, policy, reason.String(), name, "true")
				if slices.Contains(shadowed, policy) && reason.Outcome() != gate.Allow {
					counted[i][1][reason][source] = m.decisions.WithLabelValues(listener, policy, reason.String(), name, "false")
				}
			}
		}
		m.activity.follow(listener, policy, &counted[i])
	}
	var took [verifier.Sources]prometheus.Observer
	for source := range took {
		took[source] = m.durations.WithLabelValues(listener, verifier.Source(source).String())
	}
	unanswered := m.durations.WithLabelValues(listener, noSource)
	measured := func(counter prometheus.Counter, t *gate.Tally) {
		observer := unanswered
		if t.Reason.HasVerdict() {
			observer = took[t.Source]
		}
		about := exemplar(t.Fingerprint, t.Trace)
		count(counter, about)
		observe(observer, t.Took, about)
	}
	return func(t gate.Tally) {
		shadow := 0
		if t.Shadow {
			shadow = 1
		}
		counter := counted[t.Policy][shadow][t.Reason][t.Source]
		if t.Took > 0 {
			measured(counter, &t)
			return
		}
		counter.Inc()
	}
}

// exemplar names what is counted: the token by its fingerprint, and the trace; nil if
// there is neither.
func exemplar(fingerprint, trace string) prometheus.Labels {
	switch {
	case trace == "" && fingerprint == "":
		return nil
	case trace == "":
		return prometheus.Labels{tokenLabel: fingerprint}
	case fingerprint == "":
		return prometheus.Labels{traceLabel: trace}
	default:
		return prometheus.Labels{tokenLabel: fingerprint, traceLabel: trace}
	}
}

// count counts one, with an example.
func count(c prometheus.Counter, about prometheus.Labels) {
	if e, ok := c.(prometheus.ExemplarAdder); ok && about != nil {
		e.AddWithExemplar(1, about)
		return
	}
	c.Inc()
}

// observe is count for a time.
func observe(o prometheus.Observer, took time.Duration, about prometheus.Labels) {
	if e, ok := o.(prometheus.ExemplarObserver); ok && about != nil {
		e.ObserveWithExemplar(took.Seconds(), about)
		return
	}
	o.Observe(took.Seconds())
}

// What examples are called by: the log calls a token's fingerprint so too, and Grafana
// looks for a trace there.
const (
	tokenLabel = "token"
	traceLabel = "trace_id"
)

// Calls returns the function that records the calls to a verifier.
func (m *Metrics) Calls(name string) func(bearer.Token, verifier.Outcome, time.Duration) {
	var observers [verifier.Outcomes]prometheus.Observer
	for outcome := range verifier.Outcome(verifier.Outcomes) {
		observers[outcome] = m.calls.WithLabelValues(name, outcome.String())
	}
	return func(t bearer.Token, outcome verifier.Outcome, took time.Duration) {
		observe(observers[outcome], took, exemplar(t.Fingerprint(), ""))
	}
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
func (c CertificateMetrics) Reloaded(good bool) { c.reloaded.Set(oneIf(good)) }

// Refused counts a connection.
func (c CertificateMetrics) Refused(reason string) { c.refused[reason].Inc() }

// Panicked counts a panic.
func (m *Metrics) Panicked() { m.panics.Inc() }

// oneIf is how a metric says yes.
func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

func (m *Metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		EnableOpenMetrics:   true,
		MaxRequestsInFlight: 4,
		Timeout:             10 * time.Second,
	})
}
