package config

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"
	"time"

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
	l, err := openSocket(ctx, network, where)
	if err != nil {
		return fmt.Errorf("%s: %s: %w%s", field, e.GetAddress(), bareListenError(err), listenRemedy(err, network, where))
	}
	d.listener = netutil.LimitListener(l, maxConnections)
	if d.certificates != nil {
		d.listener = listen.TLS(d.listener, d.certificates.Certificates, d.certificates.refused)
	}
	g.doors = append(g.doors, d)
	return nil
}

// openSocket takes over a socket file that a gateway left behind when it was killed.
func openSocket(ctx context.Context, network, where string) (net.Listener, error) {
	var config net.ListenConfig
	l, err := config.Listen(ctx, network, where)
	if network == "unix" && errors.Is(err, syscall.EADDRINUSE) && isAbandoned(ctx, where) {
		if err := os.Remove(where); err != nil {
			return nil, err
		}
		return config.Listen(ctx, network, where)
	}
	return l, err
}

// isAbandoned reports whether a path is a socket that nobody listens on.
func isAbandoned(ctx context.Context, path string) bool {
	if !isSocket(path) {
		return false
	}
	dialer := net.Dialer{Timeout: time.Second}
	c, err := dialer.DialContext(ctx, "unix", path)
	if err == nil {
		_ = c.Close() // somebody is there
		return false
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// isSocket reports whether a path, and not what it may point to, is a socket.
func isSocket(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode().Type() == fs.ModeSocket
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
	case network == "unix" && errors.Is(err, syscall.EADDRINUSE) && !isSocket(where):
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
