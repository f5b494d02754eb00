package config

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/bearergate/bearergate/admin"
	"github.com/bearergate/bearergate/authrequest"
	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/extauthz"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/listen"
	"github.com/bearergate/bearergate/policy"
	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
	"github.com/bearergate/bearergate/verifier"
)

// Names of the listeners, in logs, metrics and [Gateway.Address].
const (
	ExtAuthz    = "ext_authz"
	AuthRequest = "auth_request"
	Admin       = "admin"
)

// Gateway is a configuration that was made into running parts: the listeners,
// the gate of each, and the verifiers behind them.
type Gateway struct {
	logger    *slog.Logger
	shutdown  time.Duration
	doors     []*door
	admin     *admin.Server // always there, but without a door unless it is configured
	verifiers *verifiers

	generatedCodec bool
	inherited      *listen.Inherited
	notify         func(Stage)
}

// Option changes how a Gateway is made, in ways that no configuration file should
// have to name.
type Option func(*Gateway)

// GeneratedCodec has Envoy's checks read and written by the generated types, and
// not by our own, faster codec. They decide alike; this is for who doubts it.
func GeneratedCodec() Option { return func(g *Gateway) { g.generatedCodec = true } }

// Inherited gives a gateway the sockets that systemd has opened. The gateway closes
// them when it has run.
func Inherited(sockets *listen.Inherited) Option { return func(g *Gateway) { g.inherited = sockets } }

// Stage is how far a gateway that runs has come.
type Stage int

// The stages that a gateway tells of.
const (
	Ready    Stage = iota // it answers
	Stopping              // it finishes what is under way
)

// Notify has a function told how far a gateway has come, once for each stage.
func Notify(tell func(Stage)) Option { return func(g *Gateway) { g.notify = tell } }

// door is a listener with the server behind it.
type door struct {
	entry

	listener     net.Listener
	server       server
	certificates *certificates // nil if the door speaks no TLS
}

// server is what all faces have.
type server interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
}

// NewGateway makes the parts that a configuration describes, which is one that
// [Load] or [Parse] returned, and listens on all its addresses: on every one of
// them, or on none if there is an error. [Gateway.Run] then answers.
//
// The logger is told what matters to an operator; the version stands in the
// metrics and in the User-Agent of calls.
func NewGateway(ctx context.Context, c *configv1.Config, logger *slog.Logger, version string, options ...Option) (_ *Gateway, err error) {
	g := &Gateway{logger: logger, shutdown: c.GetShutdownTimeout().AsDuration(), notify: func(Stage) {}}
	for _, set := range options {
		set(g)
	}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	metrics := admin.NewMetrics(version)
	panicked := panicReport(metrics, logger)
	if g.verifiers, err = buildVerifiers(c, logger, metrics, panicked, version); err != nil {
		return nil, err
	}
	parser, err := bearer.NewParser(int(c.GetCredential().GetMaxTokenBytes()))
	if err != nil {
		return nil, fmt.Errorf("credential.max_token_bytes: %w", err)
	}
	chosen, err := NewPolicies(c)
	if err != nil {
		return nil, err
	}
	policies, err := g.gatePolicies(c, chosen)
	if err != nil {
		return nil, err
	}
	shadowed := g.shadows(policies, metrics)
	for _, w := range Warnings(c) {
		logger.Warn("the configuration may not do what is meant", slog.String("field", w.Field), slog.String("detail", w.Text))
	}
	newGate := func(e entry) (*gate.Gate, error) {
		router, served, err := chosen.servedAt(e)
		if err != nil {
			return nil, err
		}
		here, elsewhere := divide(policies, served)
		return gate.New(gate.Options{
			Listener:  e.name,
			Parser:    parser,
			Policy:    here[policy.Default],
			Policies:  here[1:],
			Elsewhere: elsewhere,
			Router:    router,
			Decided:   metrics.Decisions(e.name, router.Names(), shadowed),
			Panicked:  panicked,
			Logger:    logger,
		})
	}
	g.admin = admin.NewServer(metrics, logger.With(slog.String("listener", Admin)))
	for _, e := range entries(c.GetListeners()) {
		behind, err := g.serverFor(e, c, newGate)
		if err != nil {
			return nil, err
		}
		if err := g.open(ctx, e, metrics, behind); err != nil {
			return nil, errors.Join(err, behind.Shutdown(ctx))
		}
	}
	g.nameUnused()
	for _, d := range g.doors {
		logger.LogAttrs(ctx, slog.LevelInfo, "listening",
			slog.String("listener", d.name), slog.String("address", d.address()))
	}
	return g, nil
}

// shadows says which policies are not enforced yet, loudly, and returns their names.
func (g *Gateway) shadows(policies []gate.Policy, metrics *admin.Metrics) []string {
	var names []string
	ends := map[string]time.Time{}
	for _, p := range policies {
		if p.Shadow.IsZero() {
			continue
		}
		names = append(names, p.Name)
		ends[p.Name] = p.Shadow
		until := slog.String("until", p.Shadow.UTC().Format(time.RFC3339))
		if time.Now().Before(p.Shadow) {
			g.logger.Warn("a policy is in shadow: it lets through what it refuses", slog.String("policy", p.Name), until)
		} else {
			g.logger.Info("the shadow of a policy is over: it is enforced; take shadow out of the configuration", slog.String("policy", p.Name), until)
		}
	}
	metrics.Shadows(ends)
	return names
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

func identityHeaders(p *configv1.Policy) []gate.IdentityHeader {
	var headers []gate.IdentityHeader
	for _, h := range p.GetIdentity() {
		headers = append(headers, gate.IdentityHeader{Name: h.GetName(), Constant: h.GetConstant(), Fingerprint: h.GetFingerprint(), Claim: h.GetClaim()})
	}
	return headers
}

// nameUnused tells of sockets that systemd has opened and nobody answers on: who
// connects there waits for ever.
func (g *Gateway) nameUnused() {
	for _, name := range g.inherited.Names() {
		if !slices.ContainsFunc(g.doors, func(d *door) bool { return d.GetAddress() == "systemd:"+name }) {
			g.logger.Warn("systemd passes a socket that no listener names; write it as an address, or take its unit away",
				slog.String("address", "systemd:"+name))
		}
	}
}

// serverFor makes what stands behind a listener.
func (g *Gateway) serverFor(e entry, c *configv1.Config, newGate func(entry) (*gate.Gate, error)) (server, error) {
	switch l := e.fields.(type) {
	case *configv1.ExtAuthz:
		decide, err := newGate(e)
		if err != nil {
			return nil, err
		}
		return extauthz.NewServer(decide, extauthz.Options{
			MaxConcurrentStreams: l.GetMaxConcurrentStreams(),
			MaxMessageBytes:      int(l.GetMaxMessageBytes()),
			GeneratedCodec:       g.generatedCodec,
		}), nil
	case *configv1.AuthRequest:
		decide, err := newGate(e)
		if err != nil {
			return nil, err
		}
		believed, err := trust(l.GetTrust())
		if err != nil {
			return nil, err
		}
		return authrequest.NewServer(decide, authrequest.Options{
			Trust:          believed,
			Wait:           longestAnswer(c),
			MaxHeaderBytes: int(l.GetMaxHeaderBytes()),
			Logger:         g.logger.With(slog.String("listener", e.name)),
		}), nil
	default:
		return g.admin, nil
	}
}

// panicReport returns the function that counts and logs a panic that became a
// 503. Of a burst only some get a line: each has a whole stack.
func panicReport(metrics *admin.Metrics, logger *slog.Logger) func(*verifier.Panic) {
	const pause = 10 * time.Second
	var mu sync.Mutex
	var last time.Time
	return func(p *verifier.Panic) {
		metrics.Panicked()
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); last.IsZero() || now.Sub(last) >= pause {
			last = now
			logger.Error("the gateway has a fault: a panic was turned into a 503; please report it with this stack",
				slog.String("panic", p.Kind), slog.String("stack", string(p.Stack)))
		}
	}
}

// Address returns where a listener listens, as host:port or unix:/path; "" if
// there is no such listener. Port 0 of the configuration is the real one here.
func (g *Gateway) Address(listener string) string {
	for _, d := range g.doors {
		if d.name == listener {
			return d.address()
		}
	}
	return ""
}

func (d *door) address() string {
	a := d.listener.Addr()
	if a.Network() == "unix" {
		return "unix:" + a.String()
	}
	return a.String()
}

// Run answers on all listeners until ctx ends. Then it tells those who watch
// that it is about to stop, takes no new connections, and gives requests under
// way the shutdown time-out to finish. It returns nil, or why a listener failed.
// When it has returned, nothing of the gateway is left; it cannot run again.
func (g *Gateway) Run(ctx context.Context) error {
	defer g.close()
	failed := make(chan error, len(g.doors))
	var serving sync.WaitGroup
	for _, d := range g.doors {
		serving.Go(func() {
			if err := d.server.Serve(d.listener); err != nil {
				failed <- fmt.Errorf("listener %s at %s failed: %w", d.name, d.address(), err)
			}
		})
	}
	watching, endWatch := context.WithCancel(context.WithoutCancel(ctx))
	defer endWatch()
	serving.Go(func() { g.watchCertificates(watching) })
	g.admin.Ready()
	g.notify(Ready)
	var err error
	select {
	case <-ctx.Done():
		g.logger.Info("stopping", slog.String("at_most", g.shutdown.String()))
	case err = <-failed:
		g.logger.Error("stopping, because a listener failed", slog.Any("error", err))
	}
	g.notify(Stopping)
	g.drain(context.WithoutCancel(ctx))
	endWatch()
	serving.Wait()
	g.logger.Info("stopped")
	return err
}

// drain stops the faces, and the operator's last, who wants to watch.
func (g *Gateway) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeoutCause(ctx, g.shutdown, errors.New("the shutdown_timeout is over"))
	defer cancel()
	g.admin.Unready()
	var faces sync.WaitGroup
	for _, d := range g.doors {
		if d.kind != Admin {
			faces.Go(func() { g.stop(ctx, d) })
		}
	}
	faces.Wait()
	for _, d := range g.doors {
		if d.kind == Admin {
			g.stop(ctx, d)
		}
	}
}

func (g *Gateway) stop(ctx context.Context, d *door) {
	if err := d.server.Shutdown(ctx); err != nil {
		g.logger.Warn("requests under way were cut off; a longer shutdown_timeout lets them finish",
			slog.String("listener", d.name), slog.Any("error", context.Cause(ctx)))
	}
}

// close frees all that the gateway holds, also when it was never run.
func (g *Gateway) close() {
	for _, d := range g.doors {
		_ = d.listener.Close()                      // a server that has run closed it already
		_ = d.server.Shutdown(context.Background()) // has nothing to wait for
	}
	if g.verifiers != nil {
		g.verifiers.close()
	}
	g.inherited.Close()
}
