package config

import (
	"log/slog"
	"net"
	"time"

	"github.com/bearergate/bearergate/admin"
	"github.com/bearergate/bearergate/gate"
)

// PanicReport is what a gate tells of a panic.
var PanicReport = panicReport

// PartAt is what /readyz tells of a verifier at a time.
func (g *Gateway) PartAt(name string, now time.Time) admin.Part {
	return g.health.Load().verifier(name, now)
}

// BreakListener closes a listener under the server that answers there.
func (g *Gateway) BreakListener(name string) error {
	for _, d := range g.allDoors() {
		if d.name == name {
			return d.desk.listener.Close()
		}
	}
	return nil
}

// Verifiers is how many there are, those included that only requests from before use.
func (g *Gateway) Verifiers() int {
	g.verifiers.mu.Lock()
	defer g.verifiers.mu.Unlock()
	return len(g.verifiers.stacks)
}

// MadeVerifiers is how many were ever made.
func (g *Gateway) MadeVerifiers() int {
	g.verifiers.mu.Lock()
	defer g.verifiers.mu.Unlock()
	return g.verifiers.made
}

// Events are what watches the decisions.
func (g *Gateway) Events() *gate.Events { return g.events }

// NewPatient is a listener as the gateway has them.
func NewPatient(l net.Listener, logger *slog.Logger) net.Listener {
	return &patient{Listener: l, logger: logger}
}

// Unreadable is the error about a configuration file that could not be opened.
var Unreadable = unreadable
