package config

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/bearergate/bearergate/admin"
	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
	"github.com/bearergate/bearergate/verifier"
)

// healthInterval is how often it is looked whether the gateway is ready, for those
// who watch its gRPC health.
const healthInterval = time.Second

// unusableFor is how long a verifier that gave no answers keeps the gateway from
// being ready, if it is to. Without requests no call would ever find out that it
// answers again, so they are let in then; if it does not, its breaker opens anew.
const unusableFor = 10 * time.Second

// checkHealth sees that the verifiers that readiness depends on are there.
func checkHealth(config *configv1.Config) []finding {
	var found []finding
	for i, name := range config.GetHealth().GetVerifiers() {
		switch v := verifierNamed(config, name); {
		case v == nil:
			found = append(found, finding{path: item("health.verifiers", i), text: "is the name of no verifier; write one of those in verifiers"})
		case v.GetJwt() != nil:
			found = append(found, finding{path: item("health.verifiers", i), text: "is a jwt verifier, which calls nobody for a token and so is always ready; take it out"})
		}
	}
	return found
}

// parts are what /readyz tells of.
func (g *Gateway) parts() []admin.Part {
	var names []string
	for _, d := range g.allDoors() {
		names = append(names, d.name)
	}
	parts := []admin.Part{{Name: "listeners", Ready: true, Reason: "listening: " + strings.Join(names, ", ")}}
	of := g.health.Load()
	for _, name := range slices.Sorted(maps.Keys(of.verifiers)) {
		parts = append(parts, of.verifier(name, time.Now()))
	}
	return parts
}

// healthOf is what the readiness of a configuration depends on.
type healthOf struct {
	needed    []string // verifiers
	verifiers map[string]admin.Stages
}

func (h *healthOf) verifier(name string, now time.Time) admin.Part {
	p := admin.Part{Name: "verifier " + name, Ready: true}
	stats := h.verifiers[name].Guard()
	if stats.Breaker == verifier.Closed {
		return p
	}
	p.Reason = fmt.Sprintf("it gave no answers; the breaker is %s since %s", stats.Breaker, stats.Opened.UTC().Format(time.RFC3339))
	p.Ready = !slices.Contains(h.needed, name) || now.Sub(stats.Opened) >= unusableFor
	return p
}

// watchHealth tells the faces and the log when the gateway is ready and when it is
// not, until ctx ends.
func (g *Gateway) watchHealth(ctx context.Context) {
	ticker := time.NewTicker(healthInterval)
	defer ticker.Stop()
	was := true
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		is, parts := g.admin.IsReady()
		if is && was {
			continue
		}
		for _, d := range g.allDoors() { // also those that a reload has opened
			if face, ok := d.desk.server.(interface{ SetReady(ready bool) }); ok {
				face.SetReady(is)
			}
		}
		if is == was {
			continue
		}
		was = is
		if is {
			g.logger.Info("the gateway is ready again")
			continue
		}
		for _, p := range parts {
			if !p.Ready {
				g.logger.Warn("the gateway is not ready", slog.String("part", p.Name), slog.String("why", p.Reason))
			}
		}
	}
}
