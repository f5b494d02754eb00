package config

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strconv"
	"syscall"

	"golang.org/x/net/netutil"

	"github.com/bearergate/bearergate/admin"
	"github.com/bearergate/bearergate/listen"
)

// maxConnections bounds the connections of a listener; more wait to be
// accepted. Only edges connect, so there are few, save over HTTP/1.1, where each
// check under way has its own.
const maxConnections = 16384

// open listens on an address and puts a server behind it.
func (g *Gateway) open(ctx context.Context, e entry, metrics *admin.Metrics, behind server) error {
	d := &door{entry: e, server: behind}
	if e.GetTls() != nil {
		var err error
		if d.certificates, err = g.loadCertificates(e, metrics); err != nil {
			return err
		}
	}
	field := e.path + ".address"
	network, where, err := ParseAddress(e.GetAddress())
	if err != nil {
		return fmt.Errorf("%s: %q %w", field, e.GetAddress(), err)
	}
	l, err := g.listen(ctx, e, network, where)
	if err != nil {
		if wrong, ok := errors.AsType[*listen.SocketError](err); ok {
			return fmt.Errorf("%s.socket.%w", e.path, wrong)
		}
		return fmt.Errorf("%s: %s: %w%s", field, e.GetAddress(), bareListenError(err), listenRemedy(err, network, where))
	}
	d.listener = netutil.LimitListener(l, maxConnections)
	if d.certificates != nil {
		d.listener = listen.TLS(d.listener, d.certificates.Certificates, d.certificates.refused)
	}
	g.doors = append(g.doors, d)
	return nil
}

func (g *Gateway) listen(ctx context.Context, e entry, network, where string) (net.Listener, error) {
	if network == "systemd" {
		return g.inherited.Listen(where)
	}
	var options *listen.SocketOptions
	if socket := e.GetSocket(); socket != nil {
		mode, err := strconv.ParseUint(socket.GetMode(), 8, 9)
		if err != nil {
			return nil, &listen.SocketError{Field: "mode", Text: "is no mode; write a zero and three octal digits, for example 0660"}
		}
		options = &listen.SocketOptions{Mode: fs.FileMode(mode), User: socket.GetUser(), Group: socket.GetGroup()}
	}
	return listen.Open(ctx, network, where, options)
}

// bareListenError takes off what stands in the line already.
func bareListenError(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

func listenRemedy(err error, network, where string) string {
	switch {
	case network == "unix" && errors.Is(err, syscall.EADDRINUSE) && !listen.IsSocket(where):
		return "; what is there is no socket: move it away, or write another path"
	case errors.Is(err, syscall.EADDRINUSE):
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
