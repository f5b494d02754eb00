package admin

import "time"

// TickAt has the metrics read once, as if it were then.
func (m *Metrics) TickAt(now time.Time) { m.activity.tick(now) }

// DecisionMessage is what a tail says of a decision.
var DecisionMessage = decisionMessage
