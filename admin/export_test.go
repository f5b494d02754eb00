package admin

import "time"

// TickAt has the metrics read once, as if it were then.
func (m *Metrics) TickAt(now time.Time) { m.activity.tick(now) }

// DecisionMessage is what a tail says of a decision.
var DecisionMessage = decisionMessage

// Languages are those of the page.
func Languages() []*words { return allWords() }

// Written is how the page writes numbers and times.
func (w *words) Written(rate float64, part, whole uint64, took, span time.Duration) []string {
	return []string{w.rate(rate), w.percent(part, whole), w.took(took), w.span(span)}
}
