package config

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bearergate/bearergate/admin"
	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/listen"
	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
	"github.com/bearergate/bearergate/talkers"
	"github.com/bearergate/bearergate/traces"
	"github.com/bearergate/bearergate/verifier"
)

// Names of the listeners, in logs, metrics and [Gateway.Address].
const (
	ExtAuthz    = "ext_authz"
	AuthRequest = "auth_request"
	Admin       = "admin"
)

// Gateway is a configuration that was made into running parts: the listeners,
// the gate of each, and the verifiers behind them. Another configuration can take
// its place while it runs.
type Gateway struct {
	logger    *slog.Logger
	requests  *gate.RequestLog
	traces    *traces.Tracer // nil if the environment wants none
	events    *gate.Events
	talkers   *talkers.Talkers
	metrics   *admin.Metrics
	admin     *admin.Server // what all admin listeners show; it has none itself
	health    atomic.Pointer[healthOf]
	deciding  atomic.Pointer[generation] // what decides now
	reading   atomic.Pointer[Reading]    // of what is in force; nil if it was never a file
	recent    *admin.Recent
	verifiers *verifierPool
	parser    *bearer.Parser // all others give tokens the same digests
	panicked  func(*verifier.Panic)

	version    string
	started    time.Time
	generation atomic.Uint64  // of the configuration in force; the first one's is 1
	level      *slog.LevelVar // nil if it cannot be changed

	generatedCodec bool
	inherited      *listen.Inherited
	notify         func(Stage)
	source         *Source
	inForce        func(*configv1.Config)

	// changing is held by who exchanges the configuration, and all below is his to
	// change.
	changing sync.Mutex
	running  bool
	stopped  bool
	digest   [sha256.Size]byte // of the files that the configuration names
	format   string            // of the log, which stays
	// fingerprints is by what they are made, which stays, too: denials go by them.
	fingerprints [sha256.Size]byte
	inPlace      [sha256.Size]byte // of the text that was written in place and told of
	shown        admin.Configuration

	// mu is held for moments, by who changes what follows, and who reads it otherwise.
	mu     sync.Mutex
	config *configv1.Config
	doors  []*door
	// leaving are doors whose connections are drained.
	leaving []*door

	serving  sync.WaitGroup
	failed   chan error
	draining sync.WaitGroup  // of desks that are no more
	cut      context.Context //nolint:containedctx // the life of those
	cutOff   context.CancelCauseFunc
	others   chan struct{} // a sign that other files matter now
	stopping chan struct{} // closed when the gateway stops
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

// From gives a gateway the file that its configuration comes from. It is read again
// by [Gateway.Reload], and when another one comes in its place. The gateway closes
// the source when it has run.
func From(s *Source) Option { return func(g *Gateway) { g.source = s } }

// InForce has a function told of each configuration that comes into force, the
// first one too.
func InForce(tell func(*configv1.Config)) Option { return func(g *Gateway) { g.inForce = tell } }

// LogLevel gives a gateway the level of its logger, so that an operator can change it
// while it runs.
func LogLevel(level *slog.LevelVar) Option { return func(g *Gateway) { g.level = level } }

// Stage is how far a gateway that runs has come.
type Stage int

// The stages that a gateway tells of.
const (
	Ready     Stage = iota // it answers; also after each Reloading
	Reloading              // it was asked to read its configuration again, and answers meanwhile
	Stopping               // it finishes what is under way
)

// Notify has a function told how far a gateway has come.
func Notify(tell func(Stage)) Option { return func(g *Gateway) { g.notify = tell } }

// NewGateway makes the parts that a configuration describes, which is one that
// [Load] or [Parse] returned, and listens on all its addresses: on every one of
// them, or on none if there is an error. [Gateway.Run] then answers.
//
// The logger is told what matters to an operator; the version stands in the
// metrics and in the User-Agent of calls.
func NewGateway(ctx context.Context, c *configv1.Config, logger *slog.Logger, version string, options ...Option) (_ *Gateway, err error) {
	g := &Gateway{
		logger: logger, requests: gate.NewRequestLog(logger), metrics: admin.NewMetrics(version),
		events: new(gate.Events), talkers: talkers.New(), recent: admin.NewRecent(),
		notify: func(Stage) {}, inForce: func(*configv1.Config) {},
		version: version, started: time.Now(), format: c.GetLog().GetFormat(),
		failed: make(chan error, 1), others: make(chan struct{}, 1), stopping: make(chan struct{}),
	}
	g.cut, g.cutOff = context.WithCancelCause(context.Background())
	g.panicked = panicReport(g.metrics, logger)
	g.verifiers = newVerifierPool(logger, g.panicked, version)
	g.verifiers.refused = func(verifier string, t bearer.Token, why string) { g.recent.Why(t.Fingerprint(), verifier, why) }
	g.admin = admin.NewServer(g.metrics, logger)
	for _, set := range options {
		set(g)
	}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	if g.parser, err = bearer.NewParser(0); err != nil {
		return nil, err
	}
	made, sum, err := fingerprints(c.GetFingerprint())
	if err != nil {
		return nil, err
	}
	g.parser, g.fingerprints = g.parser.WithFingerprints(made), sum
	if g.traces, err = traces.FromEnvironment(ctx, os.LookupEnv, version, g.untraced); err != nil {
		return nil, err
	}
	g.verifiers.traces = g.traces
	if g.source != nil {
		g.reading.Store(g.source.first)
	}
	g.admin.Operate(g.controls())
	next, err := g.prepare(ctx, c)
	if err != nil {
		return nil, err
	}
	g.commit(ctx, next)
	g.admin.Parts(g.parts)
	g.show(admin.Configuration{File: g.source.name(), InForceSince: time.Now()})
	return g, nil
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

// panicReport returns the function that counts and logs a panic that became a
// 503. Of a burst only some get a line: each has a whole stack.
func panicReport(metrics *admin.Metrics, logger *slog.Logger) func(*verifier.Panic) {
	var lines seldom
	return func(p *verifier.Panic) {
		metrics.Panicked()
		if lines.now() {
			logger.Error("the gateway has a fault: a panic was turned into a 503; please report it with this stack",
				slog.String("panic", p.Kind), slog.String("stack", string(p.Stack)))
		}
	}
}

// Address returns where a listener listens, as host:port or unix:/path; "" if
// there is no such listener. Port 0 of the configuration is the real one here.
func (g *Gateway) Address(listener string) string {
	for _, d := range g.allDoors() {
		if d.name == listener {
			return d.address()
		}
	}
	return ""
}

// LogAllowed has one of so many allowed requests get a line in the log, by chance; 0
// means none. It is so until another configuration comes into force, which may say
// something else.
func (g *Gateway) LogAllowed(oneIn uint32) { g.requests.Allowed(oneIn) }

// allDoors are those of the configuration in force.
func (g *Gateway) allDoors() []*door {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.doors
}

// Run answers on all listeners until ctx ends. Then it tells those who watch
// that it is about to stop, goes on for the drain delay, takes no new connections,
// and gives requests under way the shutdown time-out to finish. It returns nil, or why a listener failed.
// When it has returned, nothing of the gateway is left; it cannot run again.
func (g *Gateway) Run(ctx context.Context) error {
	defer g.close()
	watching, endWatch := context.WithCancel(context.WithoutCancel(ctx))
	defer endWatch()
	g.start(watching)
	var err error
	select {
	case <-ctx.Done():
	case err = <-g.failed:
		g.logger.Error("stopping, because a listener failed", slog.Any("error", err))
	}
	g.stop(err == nil)
	if err == nil {
		err = g.beUnready()
	}
	g.drain(context.WithoutCancel(ctx))
	endWatch()
	g.serving.Wait()
	g.requests.Flush()
	g.logger.Info("stopped")
	return err
}

func (g *Gateway) start(watching context.Context) {
	g.changing.Lock()
	defer g.changing.Unlock()
	g.running = true
	remember := g.metrics.Remember(watching) // before the first request comes
	for _, d := range g.doors {
		g.serve(d)
	}
	g.serving.Go(func() { g.watchFiles(watching) })
	g.serving.Go(func() { g.watchHealth(watching) })
	g.serving.Go(remember)
	g.admin.Ready()
	g.notify(Ready)
}

// stop lets no other configuration come any more.
func (g *Gateway) stop(asked bool) {
	g.changing.Lock()
	defer g.changing.Unlock()
	g.stopped = true
	close(g.stopping)
	if asked {
		g.logger.Info("stopping", slog.String("at_most", (g.drainDelay()+g.shutdownTimeout()).String()))
	}
	g.notify(Stopping)
}

func (g *Gateway) shutdownTimeout() time.Duration { return g.config.GetShutdownTimeout().AsDuration() }

func (g *Gateway) drainDelay() time.Duration { return g.config.GetDrainDelay().AsDuration() }

// beUnready tells all who watch that the gateway is about to stop, and goes on for the
// drain delay so that they can send their requests elsewhere. It returns early if a
// listener fails.
func (g *Gateway) beUnready() error {
	g.admin.Unready()
	for _, d := range g.doors {
		if face, ok := d.desk.server.(interface{ Unready() }); ok {
			face.Unready()
		}
	}
	if g.drainDelay() == 0 {
		return nil
	}
	delay := time.NewTimer(g.drainDelay())
	defer delay.Stop()
	select {
	case <-delay.C:
		return nil
	case err := <-g.failed:
		g.logger.Error("stopping at once, because a listener failed", slog.Any("error", err))
		return err
	}
}

// serve answers at a door until its desk is closed.
func (g *Gateway) serve(d *door) {
	name, address, at := d.name, d.address(), d.desk
	at.served = true
	g.serving.Go(func() {
		if err := at.server.Serve(at.listener); err != nil && !at.leaving.Load() {
			select {
			case g.failed <- fmt.Errorf("listener %s at %s failed: %w", name, address, err):
			default: // one is enough to end with
			}
		}
	})
}

// drain stops the faces, and the operator's last, who wants to watch.
func (g *Gateway) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeoutCause(ctx, g.shutdownTimeout(), errShutdownTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { g.cutOff(context.Cause(ctx)) })
	defer stop()
	g.admin.Unready()
	var faces sync.WaitGroup
	for _, d := range g.doors {
		if d.kind != Admin {
			faces.Go(func() { g.shut(ctx, d) })
		}
	}
	faces.Wait()
	g.draining.Wait()
	for _, d := range g.doors {
		if d.kind == Admin {
			g.shut(ctx, d)
		}
	}
}

// shut takes no new connections at a door, and lets it finish what is under way.
func (g *Gateway) shut(ctx context.Context, d *door) {
	_ = d.socket.Close()
	g.finish(ctx, d.name, d.desk)
}

var errShutdownTimeout = errors.New("the shutdown_timeout is over")

// finish lets a desk finish what is under way.
func (g *Gateway) finish(ctx context.Context, listener string, at *desk) {
	if err := at.server.Shutdown(ctx); err != nil {
		g.logger.Warn("requests under way were cut off; a longer shutdown_timeout lets them finish",
			slog.String("listener", listener), slog.Any("error", context.Cause(ctx)))
	}
}

// untraced says that traces were not sent.
func (g *Gateway) untraced(err error) {
	g.logger.Warn("traces were not sent; is the collector that OTEL_EXPORTER_OTLP_ENDPOINT names there?", slog.Any("error", err))
}

// closeTraces sends the last traces, unless their collector is slow.
func (g *Gateway) closeTraces() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := g.traces.Close(ctx); err != nil {
		g.logger.Warn("the last traces were not sent", slog.Any("error", err))
	}
}

// close frees all that the gateway holds, also when it was never run.
func (g *Gateway) close() {
	g.cutOff(errShutdownTimeout)
	g.draining.Wait()
	for _, d := range g.doors {
		d.desk.close()
		_ = d.socket.Close()
	}
	g.verifiers.close()
	g.closeTraces()
	g.inherited.Close()
	g.source.Close()
}
