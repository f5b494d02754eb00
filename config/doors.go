package config

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/netutil"
	"google.golang.org/protobuf/proto"

	"github.com/bearergate/bearergate/admin"
	"github.com/bearergate/bearergate/authrequest"
	"github.com/bearergate/bearergate/extauthz"
	"github.com/bearergate/bearergate/listen"
	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
)

// maxConnections bounds the connections of a listener; more wait to be
// accepted. Only edges connect, so there are few, save over HTTP/1.1, where each
// check under way has its own.
const maxConnections = 16384

// door is a listener of the configuration: a socket, and a desk behind it. From one
// configuration to the next it keeps of both what is to be the same.
type door struct {
	entry

	socket *socket
	desk   *desk
}

// socket is where a door is.
type socket struct {
	*listen.Socket

	where string
}

// desk is a server with its listener.
type desk struct {
	key          string // what it was made of: it can stay where that is the same
	listener     net.Listener
	server       server
	certificates *certificates // nil if it speaks no TLS
	served       bool          // somebody answers there, or has
	leaving      atomic.Bool   // its listener was closed on purpose
}

// server is what all faces have.
type server interface {
	Serve(l net.Listener) error
	Shutdown(ctx context.Context) error
}

// whereOf is the same for two listeners that can have one socket.
func whereOf(e entry) (network, address, where string, err error) {
	network, address, err = ParseAddress(e.GetAddress())
	if err != nil {
		return "", "", "", fmt.Errorf("%s.address: %q %w", e.path, e.GetAddress(), err)
	}
	where = network + " " + address
	if network == "tcp" && strings.HasSuffix(address, ":0") {
		where += " " + e.name // each has a port of its own
	}
	return network, address, where, nil
}

// deskKey is the same for two listeners that can have one server: for what it asks
// and believes can change while it serves.
func deskKey(e entry, wait time.Duration) string {
	message, ok := e.fields.(proto.Message)
	if !ok {
		return ""
	}
	message = proto.Clone(message)
	switch l := message.(type) {
	case *configv1.ExtAuthz:
		l.Address, l.Socket, l.Policies, l.DefaultPolicy = "", nil, nil, ""
		wait = 0
	case *configv1.AuthRequest:
		l.Address, l.Socket, l.Policies, l.DefaultPolicy = "", nil, nil, ""
		l.Trust = nil
	case *configv1.Admin:
		l.Address, l.Socket = "", nil
		wait = 0
	}
	text, _ := proto.MarshalOptions{Deterministic: true}.Marshal(message) // what was read can be written
	return fmt.Sprintf("%s %s %v %x", e.kind, e.name, wait, text)
}

// openDoor finds or opens the door of a listener.
func (g *Gateway) openDoor(ctx context.Context, e entry, next *change) (*door, error) {
	d := &door{entry: e}
	network, address, where, err := whereOf(e)
	if err != nil {
		return nil, err
	}
	key := deskKey(e, longestAnswer(next.config))
	for _, before := range g.doors {
		if before.socket.where != where {
			continue
		}
		d.socket = before.socket
		if before.desk.key == key {
			d.desk = before.desk
		}
		if network == "unix" && !proto.Equal(before.GetSocket(), e.GetSocket()) {
			next.rights = append(next.rights, rights{e.path, address, before.GetSocket(), e.GetSocket()})
		}
	}
	if d.desk != nil {
		return d, nil
	}
	d.desk = &desk{key: key}
	if e.GetTls() != nil {
		if d.desk.certificates, err = g.loadCertificates(e); err != nil {
			return nil, err
		}
	}
	if d.socket == nil {
		opened, err := g.openSocket(ctx, e, network, address)
		if err != nil {
			return nil, err
		}
		d.socket = &socket{opened, where}
		next.sockets = append(next.sockets, d.socket)
	}
	l, err := d.socket.Listen()
	if err != nil {
		return nil, fmt.Errorf("%s.address: %s: %w", e.path, e.GetAddress(), bareListenError(err))
	}
	d.desk.listener = netutil.LimitListener(&patient{Listener: l, logger: g.logger.With(slog.String("listener", e.name))}, maxConnections)
	if a, ok := e.fields.(*configv1.Admin); ok && l.Addr().Network() == "tcp" && isExposed(l.Addr().String(), a) {
		_ = l.Close()
		return nil, fmt.Errorf("%s.address: %q %s", e.path, e.GetAddress(), exposed)
	}
	if c := d.desk.certificates; c != nil {
		d.desk.listener = listen.TLS(d.desk.listener, c.Certificates, c.refused)
	}
	d.desk.server = g.newServer(e, next)
	next.desks = append(next.desks, d.desk)
	return d, nil
}

// newServer makes what stands behind a listener.
func (g *Gateway) newServer(e entry, next *change) server {
	switch l := e.fields.(type) {
	case *configv1.ExtAuthz:
		return extauthz.NewServer(next.made.gates[e.name], extauthz.Options{
			MaxConcurrentStreams: l.GetMaxConcurrentStreams(),
			MaxMessageBytes:      int(l.GetMaxMessageBytes()),
			GeneratedCodec:       g.generatedCodec,
		})
	case *configv1.AuthRequest:
		return authrequest.NewServer(next.made.gates[e.name], authrequest.Options{
			Trust:          next.made.trust[e.name],
			Wait:           longestAnswer(next.config),
			MaxHeaderBytes: int(l.GetMaxHeaderBytes()),
			Logger:         g.logger.With(slog.String("listener", e.name)),
		})
	case *configv1.Admin:
		return g.admin.Another(access(e.name, l))
	default:
		return g.admin.Another(admin.Access{Listener: e.name, Off: true})
	}
}

// use has a server that stays ask another gate.
func (d *door) use(made *generation) {
	switch s := d.desk.server.(type) {
	case *extauthz.Server:
		s.Use(made.gates[d.name])
	case *authrequest.Server:
		s.Use(made.gates[d.name], made.trust[d.name])
	}
}

// address is where it is, as the log says it.
func (d *door) address() string {
	a := d.desk.listener.Addr()
	if a.Network() == "unix" {
		return "unix:" + a.String()
	}
	return a.String()
}

// turnAway takes no new connections at a desk. Those that it has go on.
func (d *desk) turnAway() {
	if d.served { // else its server has yet to be told, which closing does
		d.leaving.Store(true)
		_ = d.listener.Close()
	}
}

// close ends a desk at which nobody is served.
func (d *desk) close() {
	_ = d.listener.Close()                      // a server that has run closed it already
	_ = d.server.Shutdown(context.Background()) // has nothing to wait for
}

func (g *Gateway) openSocket(ctx context.Context, e entry, network, address string) (*listen.Socket, error) {
	var s *listen.Socket
	var err error
	if network == "systemd" {
		s, err = g.inherited.Keep(address)
	} else {
		s, err = keep(ctx, network, address, e.GetSocket())
	}
	if err == nil {
		return s, nil
	}
	if wrong, ok := errors.AsType[*listen.SocketError](err); ok {
		return nil, fmt.Errorf("%s.socket.%w", e.path, wrong)
	}
	return nil, fmt.Errorf("%s.address: %s: %w%s", e.path, e.GetAddress(), bareListenError(err), g.listenRemedy(err, network, address, e))
}

func keep(ctx context.Context, network, address string, socket *configv1.Socket) (*listen.Socket, error) {
	options, err := socketOptions(socket)
	if err != nil {
		return nil, err
	}
	return listen.Keep(ctx, network, address, options)
}

func socketOptions(socket *configv1.Socket) (*listen.SocketOptions, error) {
	if socket == nil {
		return nil, nil
	}
	mode, err := strconv.ParseUint(socket.GetMode(), 8, 9)
	if err != nil {
		return nil, &listen.SocketError{Field: "mode", Text: "is no mode; write a zero and three octal digits, for example 0660"}
	}
	return &listen.SocketOptions{Mode: fs.FileMode(mode), User: socket.GetUser(), Group: socket.GetGroup()}, nil
}

// rights are those of a unix socket that stays open.
type rights struct {
	path          string // of the listener in the file
	address       string
	before, after *configv1.Socket
}

// grant gives sockets their rights: all of them, or none if there is an error.
func grant(all []rights) error {
	for i, r := range all {
		if err := own(r.address, r.after); err != nil {
			for _, done := range all[:i+1] {
				_ = own(done.address, done.before) // they had those rights a moment ago
			}
			return fmt.Errorf("%s.socket.%w", r.path, err)
		}
	}
	return nil
}

func own(address string, socket *configv1.Socket) error {
	options, err := socketOptions(socket)
	if err != nil {
		return err
	}
	return listen.Own(address, options)
}

// bareListenError takes off what stands in the line already.
func bareListenError(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

func (g *Gateway) listenRemedy(err error, network, address string, e entry) string {
	switch {
	case network == "unix" && errors.Is(err, syscall.EADDRINUSE) && !listen.IsSocket(address):
		return "; what is there is no socket: move it away, or write another path"
	case errors.Is(err, syscall.EADDRINUSE):
		for _, d := range g.doors {
			if sameDoor(d.GetAddress(), e.GetAddress()) {
				return "; this gateway listens at " + d.GetAddress() + " still, which is a part of it: restart it, or go by way of another port"
			}
		}
		return "; stop what listens there, or write another address"
	case errors.Is(err, fs.ErrPermission):
		return "; ports below 1024 and folders of other users need rights that this user lacks"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "; this machine has no such address"
	case errors.Is(err, fs.ErrNotExist):
		return "; make the folder of the socket first"
	default:
		return ""
	}
}
