package admin

import "time"

// What can come of reading the configuration again.
const (
	Applied   = "applied"   // another one is in force now
	Unchanged = "unchanged" // it is the one that is in force
	Refused   = "refused"   // something is wrong with it; the one from before stays in force
)

// Configuration is what the operator is shown of the configuration in force.
type Configuration struct {
	// File is where it stands; "" if it was never a file.
	File string `json:"file,omitempty"`
	// InForceSince is when it was taken.
	InForceSince time.Time `json:"in_force_since"`
	// LastReload is what came of reading it again; nil if nobody has yet.
	LastReload *Reload `json:"last_reload,omitempty"`
}

// LastReloadSuccessful reports whether the file, as it was read last, could be used.
func (c *Configuration) LastReloadSuccessful() bool {
	return c.LastReload == nil || c.LastReload.Result != Refused
}

// Reload is what came of reading the configuration again.
type Reload struct {
	At     time.Time `json:"at"`
	Result string    `json:"result"`
	// Error says what is wrong with it, if it was refused.
	Error string `json:"error,omitempty"`
	// NeedRestart are the fields that are other than they were, and are taken only at
	// a start.
	NeedRestart []string `json:"need_restart,omitempty"`
}

// Configured shows the configuration, and counts the reload that it tells of, if
// there is one.
func (m *Metrics) Configured(c *Configuration) {
	good := c.LastReloadSuccessful()
	at := c.InForceSince
	if r := c.LastReload; r != nil {
		m.reloads.WithLabelValues(r.Result).Inc()
		at = r.At
	}
	m.lastGood.Set(oneIf(good))
	if good {
		m.lastGoodTime.Set(float64(at.UnixMilli()) / 1000)
	}
}
