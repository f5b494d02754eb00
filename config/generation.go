package config

import (
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bearergate/bearergate/admin"
	"github.com/bearergate/bearergate/authrequest"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/policy"
	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
)

// generation is what decides under one configuration, and goes with it.
type generation struct {
	config    *configv1.Config
	chosen    *Policies
	verifiers *verifiers
	policies  []gate.Policy
	// Of each listener, by name.
	gates   map[string]*gate.Gate
	routers map[string]*policy.Router
	trust   map[string]authrequest.Trust
	// discard is for one that was never used. One that was goes by itself.
	discard func()
}

// generate makes what decides.
func (g *Gateway) generate(c *configv1.Config) (_ *generation, err error) {
	made := &generation{config: c, gates: map[string]*gate.Gate{}, routers: map[string]*policy.Router{}, trust: map[string]authrequest.Trust{}}
	if made.verifiers, err = g.verifiers.take(c); err != nil {
		return nil, err
	}
	if err := g.makeGates(c, made); err != nil {
		made.verifiers.release()
		return nil, err
	}
	made.discard = releaseAfter(made.gates, made.verifiers)
	return made, nil
}

// releaseAfter gives the verifiers back when nobody holds one of the gates any more.
// A request holds the gate that it began with to its end, and that is all there is
// to know when the last one has ended: requests need not be counted, which would
// cost each of them more than to look its token up.
func releaseAfter(gates map[string]*gate.Gate, vs *verifiers) (now func()) {
	now = sync.OnceFunc(vs.release)
	left := new(atomic.Int64)
	left.Store(int64(len(gates)))
	for _, held := range gates {
		runtime.AddCleanup(held, func(release func()) {
			if left.Add(-1) == 0 {
				release()
			}
		}, now)
	}
	return now
}

func (g *Gateway) makeGates(c *configv1.Config, made *generation) error {
	parser, err := g.parser.WithMax(int(c.GetCredential().GetMaxTokenBytes()))
	if err != nil {
		return fmt.Errorf("credential.max_token_bytes: %w", err)
	}
	if made.chosen, err = NewPolicies(c); err != nil {
		return err
	}
	if made.policies, err = gatePolicies(c, made.chosen, made.verifiers); err != nil {
		return err
	}
	var shadowed []string
	for _, p := range made.policies {
		if !p.Shadow.IsZero() {
			shadowed = append(shadowed, p.Name)
		}
	}
	for _, e := range entries(c.GetListeners()) {
		if e.kind == Admin {
			continue
		}
		if l, ok := e.fields.(*configv1.AuthRequest); ok {
			if made.trust[e.name], err = trust(l.GetTrust()); err != nil {
				return fmt.Errorf("%s.%w", e.path, err)
			}
		}
		router, served, err := made.chosen.servedAt(e)
		if err != nil {
			return err
		}
		here, elsewhere := divide(made.policies, served)
		made.routers[e.name] = router
		made.gates[e.name], err = gate.New(gate.Options{
			Listener:  e.name,
			Parser:    parser,
			Policy:    here[policy.Default],
			Policies:  here[1:],
			Elsewhere: elsewhere,
			Router:    router,
			Decided:   g.metrics.Decisions(e.name, router.Names(), shadowed),
			Panicked:  g.panicked,
			Log:       g.requests,
			Trace:     g.traces.Decisions(e.name, router.Names()),
			Events:    g.events,
			Sampled:   g.noticed,
			Clients:   clientsOf(c),
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// divide takes the policies that a listener serves, by their indexes, and the names
// of identity headers of the others; all if served is nil.
func divide(policies []gate.Policy, served []int) (here []gate.Policy, elsewhere []string) {
	if served == nil {
		return policies, nil
	}
	for _, i := range served {
		here = append(here, policies[i])
	}
	for i, p := range policies {
		for _, header := range p.Identity {
			if !slices.Contains(served, i) {
				elsewhere = append(elsewhere, header.Name)
			}
		}
	}
	return here, elsewhere
}

// announce tells the operator of what decides from now on.
func (g *Gateway) announce(c *configv1.Config, made *generation) {
	for _, w := range made.chosen.warnings(c) {
		g.logger.Warn("the configuration may not do what is meant", slog.String("field", w.Field), slog.String("detail", w.Text))
	}
	g.LogAllowed(c.GetLog().GetAllowedOneIn())
	g.talkers.Clients(clientsOf(c))
	g.requests.RequestIDs(c.GetLog().GetRequestId())
	made.verifiers.show(g.metrics)
	g.health.Store(&healthOf{needed: c.GetHealth().GetVerifiers(), verifiers: made.verifiers.stages()})
	ends := map[string]time.Time{}
	for _, p := range made.policies {
		if p.Shadow.IsZero() {
			continue
		}
		ends[p.Name] = p.Shadow
		until := slog.String("until", p.Shadow.UTC().Format(time.RFC3339))
		if time.Now().Before(p.Shadow) {
			g.logger.Warn("a policy is in shadow: it lets through what it refuses", slog.String("policy", p.Name), until)
		} else {
			g.logger.Info("the shadow of a policy is over: it is enforced; take shadow out of the configuration", slog.String("policy", p.Name), until)
		}
	}
	g.metrics.Shadows(ends)
}

// noticed is told of the decisions that somebody may want to see later.
func (g *Gateway) noticed(e *gate.Event) {
	g.talkers.Note(e)
	g.recent.Tell(e)
}

// clientsOf is what is shown of the addresses of clients.
func clientsOf(c *configv1.Config) gate.Clients {
	return map[string]gate.Clients{"networks": gate.ClientNetworks, "none": gate.NoClients}[c.GetClientAddresses()]
}

// seriesOf are the labels of which a configuration has series.
func seriesOf(c *configv1.Config) map[admin.Labels]bool {
	all := map[admin.Labels]bool{}
	for _, v := range c.GetVerifiers() {
		all[admin.Labels{Verifier: v.GetName()}] = true
	}
	names := policyNames(c)
	for _, e := range entries(c.GetListeners()) {
		all[admin.Labels{Listener: e.name}] = true
		served := e.served(names)
		if served == nil {
			served = names
		}
		for _, name := range served {
			all[admin.Labels{Listener: e.name, Policy: name}] = true
		}
	}
	return all
}

// forget drops the series of one configuration that another one has not.
func (g *Gateway) forget(gone, stays map[admin.Labels]bool) {
	for labels := range gone {
		if !stays[labels] {
			g.metrics.Forget(labels)
		}
	}
}

func identityHeaders(p *configv1.Policy) []gate.IdentityHeader {
	var headers []gate.IdentityHeader
	for _, h := range p.GetIdentity() {
		headers = append(headers, gate.IdentityHeader{Name: h.GetName(), Constant: h.GetConstant(), Fingerprint: h.GetFingerprint(), Claim: h.GetClaim()})
	}
	return headers
}
