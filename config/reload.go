package config

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/bearergate/bearergate/admin"
	"github.com/bearergate/bearergate/authrequest"
	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
	"github.com/bearergate/bearergate/watch"
)

// change is another configuration, made ready to come into force.
type change struct {
	config *configv1.Config
	digest [sha256.Size]byte
	made   *generation
	doors  []*door // all that there are to be
	// What was made for it, to be closed if it does not come into force.
	desks   []*desk
	sockets []*socket
	// rights are to be given to sockets that stay.
	rights []rights
}

// Reload reads the file of the configuration and all that it names again, and puts
// it in force: in one step, or not at all. What has begun under the one from before
// ends under it. The error says why it cannot be used; the one from before stays in
// force then.
func (g *Gateway) Reload(ctx context.Context) (admin.Reload, error) {
	g.changing.Lock()
	defer g.changing.Unlock()
	switch {
	case g.stopped:
		return admin.Reload{}, errors.New("the gateway is about to stop")
	case g.source == nil:
		return admin.Reload{}, errors.New("the configuration did not come from a file")
	}
	g.reloadCertificates()
	text, err := g.source.again()
	return g.take(ctx, text, err, true)
}

// look takes another configuration if there is one.
func (g *Gateway) look(ctx context.Context) {
	g.changing.Lock()
	defer g.changing.Unlock()
	if g.stopped || g.source == nil {
		return
	}
	before := g.source.taken
	text, inPlace, err := g.source.look()
	if inPlace {
		g.tellInPlace()
	} else {
		g.inPlace = [sha256.Size]byte{}
	}
	if err == nil && g.shown.LastReloadSuccessful() && bytes.Equal(text, before) && digestOf(g.config) == g.digest {
		return
	}
	_, _ = g.take(ctx, text, err, false) // it is told
}

// tellInPlace says once of a text that it is not taken: half of it may be missing,
// and a policy without its last lines asks for less.
func (g *Gateway) tellInPlace() {
	now := g.source.seen
	if g.inPlace == now {
		return
	}
	g.inPlace = now
	g.logger.Warn("the configuration file was written in place and is not taken, since it may not be whole; send SIGHUP, or put a new file in its place",
		slog.String("file", g.source.path))
}

// take puts a configuration in force, if it can be used and is another one. Asked
// says that somebody wants to know; else a fault is told of but once.
func (g *Gateway) take(ctx context.Context, text []byte, err error, asked bool) (admin.Reload, error) {
	if asked && g.running {
		g.notify(Reloading)
		defer g.notify(Ready)
	}
	r := admin.Reload{At: time.Now(), Result: admin.Applied}
	var was *Reading
	if err == nil {
		was, err = read(g.source.path, text, os.LookupEnv)
	}
	if err == nil {
		c := was.Config
		r.NeedRestart = g.needRestart(c)
		if proto.Equal(c, g.config) && digestOf(c) == g.digest {
			r.Result = admin.Unchanged
		} else if err = g.exchange(ctx, c); err != nil {
			err = fmt.Errorf("%s: %w", g.source.path, err)
		}
	}
	if err == nil {
		g.reading.Store(was) // lines may be others, though all else is as it was
	}
	shown := g.shown
	if err != nil {
		r.Result, r.Error = admin.Refused, err.Error()
		if last := shown.LastReload; !asked && last != nil && last.Error == r.Error {
			return r, err
		}
	} else if r.Result == admin.Applied {
		shown.InForceSince = r.At
	}
	shown.LastReload = &r
	g.show(shown)
	g.tell(&r)
	return r, err
}

// tell writes what came of a reload into the log.
func (g *Gateway) tell(r *admin.Reload) {
	file := slog.String("file", g.source.path)
	switch r.Result {
	case admin.Refused:
		g.logger.Error("the configuration cannot be used; what was in force stays so", file, slog.String("error", r.Error))
	case admin.Unchanged:
		g.logger.Info("the configuration was read again, and is the one in force", file)
	default:
		g.logger.Info("another configuration is in force", file)
	}
	for _, field := range r.NeedRestart {
		g.logger.Warn("a field is other than it was, and is taken only at a start; restart the gateway", slog.String("field", field))
	}
}

// show shows the operator the configuration, and counts its last reload.
func (g *Gateway) show(c admin.Configuration) {
	g.shown = c
	g.metrics.Configured(&c)
	g.admin.Configured(&c)
}

// needRestart names the fields that are other than those that the gateway started
// with, and cannot be changed while it runs.
func (g *Gateway) needRestart(c *configv1.Config) []string {
	var fields []string
	if _, sum, err := fingerprints(c.GetFingerprint()); err != nil || sum != g.fingerprints {
		fields = append(fields, "fingerprint")
	}
	if c.GetLog().GetFormat() != g.format {
		fields = append(fields, "log.format")
	}
	return fields
}

func (g *Gateway) exchange(ctx context.Context, c *configv1.Config) error {
	next, err := g.prepare(ctx, c)
	if err != nil {
		return err
	}
	g.commit(ctx, next)
	return nil
}

// prepare makes everything that a configuration needs, and changes nothing: but that
// new addresses are listened at already, and that sockets have their new rights.
func (g *Gateway) prepare(ctx context.Context, c *configv1.Config) (_ *change, err error) {
	next := &change{config: c, digest: digestOf(c)}
	defer func() {
		if err != nil {
			g.discard(next)
		}
	}()
	if next.made, err = g.generate(c); err != nil {
		return nil, err
	}
	for _, e := range entries(c.GetListeners()) {
		d, err := g.openDoor(ctx, e, next)
		if err != nil {
			return nil, err
		}
		next.doors = append(next.doors, d)
	}
	return next, grant(next.rights)
}

// discard takes back what was made for a configuration that does not come into force.
func (g *Gateway) discard(next *change) {
	for _, at := range next.desks {
		at.close()
	}
	for _, s := range next.sockets {
		_ = s.Close()
	}
	if next.made != nil {
		next.made.discard()
	}
	if g.config != nil {
		g.forget(seriesOf(next.config), seriesOf(g.config))
	}
}

// commit puts a configuration in force. It cannot fail.
func (g *Gateway) commit(ctx context.Context, next *change) {
	g.inForce(next.config)
	isNew := func(d *door) bool { return slices.Contains(next.desks, d.desk) }
	// Those that stay, and those that go: requests may come over their connections yet.
	for _, old := range g.leftOpen() {
		if slices.ContainsFunc(next.doors, func(d *door) bool { return d.name == old.name && d.kind == old.kind }) {
			old.use(next.made)
		}
	}
	before, gone := g.config, g.doors
	g.mu.Lock()
	g.config, g.doors, g.digest = next.config, next.doors, next.digest
	g.mu.Unlock()
	g.deciding.Store(next.made)
	g.generation.Add(1)
	g.announce(next.config, next.made)
	for _, d := range next.doors {
		if !isNew(d) {
			continue
		}
		if c := d.desk.certificates; c != nil {
			c.begin(d.name, g.metrics)
		}
		if slices.Contains(next.sockets, d.socket) {
			g.logger.LogAttrs(ctx, slog.LevelInfo, "listening", slog.String("listener", d.name), slog.String("address", d.address()))
		}
		if g.running {
			g.serve(d)
		}
	}
	for _, d := range gone {
		g.leave(ctx, d)
	}
	if before != nil {
		g.forget(seriesOf(before), seriesOf(next.config))
	}
	g.nameUnused()
	select {
	case g.others <- struct{}{}:
	default: // there is a sign already
	}
}

// leave lets go of what the configuration in force has not of a door.
func (g *Gateway) leave(ctx context.Context, gone *door) {
	has := func(is func(d *door) bool) bool { return slices.ContainsFunc(g.doors, is) }
	if !has(func(d *door) bool { return d.socket == gone.socket }) {
		g.logger.LogAttrs(ctx, slog.LevelInfo, "not listening any more", slog.String("listener", gone.name), slog.String("address", gone.address()))
		_ = gone.socket.Close() // its desk has it open until it is drained
	}
	if has(func(d *door) bool { return d.desk == gone.desk }) {
		return
	}
	if gone.desk.certificates != nil && !has(func(d *door) bool { return d.name == gone.name && d.desk.certificates != nil }) {
		g.metrics.ForgetCertificate(gone.name)
	}
	// Before the change is told of: whoever connects from now on meets the new desk.
	gone.desk.turnAway()
	most := g.shutdownTimeout()
	g.mu.Lock()
	g.leaving = append(g.leaving, gone)
	g.mu.Unlock()
	g.draining.Go(func() {
		drain, cancel := context.WithTimeoutCause(g.cut, most, errShutdownTimeout)
		defer cancel()
		g.askToGo(drain, gone.desk)
		g.finish(drain, gone.name, gone.desk)
		gone.desk.close()
		g.mu.Lock()
		defer g.mu.Unlock()
		g.leaving = slices.DeleteFunc(g.leaving, func(d *door) bool { return d == gone })
	})
}

// leftOpen are the doors of the configuration in force, and those whose connections
// are drained yet.
func (g *Gateway) leftOpen() []*door {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Concat(g.doors, g.leaving)
}

// goingTime is how long HTTP edges have to end their connections themselves.
const goingTime = 2 * time.Second

// askToGo has each reply of a desk say that it is the last of its connection. net/http
// itself drops what it reads once it shuts down, and a connection that was just made may
// have a request on its way; gRPC tells its edges in time.
func (g *Gateway) askToGo(ctx context.Context, at *desk) {
	face, ok := at.server.(*authrequest.Server)
	if !ok || !at.served {
		return
	}
	face.Unready()
	wait := time.NewTimer(goingTime)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
	case <-g.stopping:
	}
}

// watchFiles reads files again when they change, until ctx ends: those of the
// listeners' certificates, the configuration, and those that it names.
func (g *Gateway) watchFiles(ctx context.Context) {
	if g.source == nil && len(g.files()) == 0 {
		return
	}
	watch.Files(ctx, g.files, g.others, g.logger, func() {
		g.reloadCertificates()
		g.look(ctx)
	})
}

// reloadCertificates reads the files of all listeners' certificates again.
func (g *Gateway) reloadCertificates() {
	for _, d := range g.allDoors() {
		if c := d.desk.certificates; c != nil {
			c.reload()
		}
	}
}

// files are all that matter to the configuration in force.
func (g *Gateway) files() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var files []string
	for _, d := range g.doors {
		if c := d.desk.certificates; c != nil {
			files = append(files, c.Files()...)
		}
	}
	if g.source != nil {
		files = append(files, g.source.path)
		files = append(files, filesOf(g.config)...)
	}
	return files
}
