package listen

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// SocketOptions say who may connect to a unix socket.
type SocketOptions struct {
	// Mode is that of the socket; 0 leaves it to the umask of the process.
	Mode fs.FileMode
	// User and Group own the socket, by name or number; "" leaves them as they are.
	User, Group string
}

// SocketError says what is wrong with one of the [SocketOptions], and what to do.
type SocketError struct {
	// Field is mode, user or group.
	Field string
	// Text begins with a verb.
	Text string
}

// Error implements error.
func (e *SocketError) Error() string { return e.Field + ": " + e.Text }

// Open listens on a network, "tcp" or "unix", at host:port or the path of a socket.
// It takes over a socket that a gateway left behind when it was killed, and nothing
// else.
//
// With options, a unix socket lets nobody connect until it has its owner and its
// mode.
func Open(ctx context.Context, network, where string, o *SocketOptions) (net.Listener, error) {
	if network != "unix" || o == nil {
		return open(ctx, network, where)
	}
	uid, gid, err := o.ids()
	if err != nil {
		return nil, err
	}
	l, err := openClosed(ctx, where, o.Mode != 0)
	if err != nil {
		return nil, err
	}
	if err := own(where, uid, gid, o); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// ids gives the numbers of user and group, -1 for none.
func (o *SocketOptions) ids() (uid, gid int, err error) {
	uid, err = idOf("user", o.User, func(name string) (string, error) {
		u, err := user.Lookup(name)
		if err != nil {
			return "", err
		}
		return u.Uid, nil
	})
	if err != nil {
		return 0, 0, err
	}
	gid, err = idOf("group", o.Group, func(name string) (string, error) {
		g, err := user.LookupGroup(name)
		if err != nil {
			return "", err
		}
		return g.Gid, nil
	})
	return uid, gid, err
}

// own gives a socket its owner, and only then its mode.
func own(path string, uid, gid int, o *SocketOptions) error {
	if uid != -1 {
		if err := os.Lchown(path, uid, -1); err != nil {
			return &SocketError{"user", fmt.Sprintf("cannot own the socket: %v; only root may give it to another user", bare(err))}
		}
	}
	if gid != -1 {
		if err := os.Lchown(path, -1, gid); err != nil {
			return &SocketError{"group", fmt.Sprintf("cannot have the socket: %v; put the gateway's user into that group", bare(err))}
		}
	}
	if o.Mode != 0 {
		if err := os.Chmod(path, o.Mode); err != nil {
			return &SocketError{"mode", fmt.Sprintf("cannot be set: %v", bare(err))}
		}
	}
	return nil
}

// bare takes off what stands in the line already.
func bare(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}

// idOf gives the number of a user or a group, -1 for none.
func idOf(field, name string, lookup func(name string) (string, error)) (int, error) {
	if name == "" {
		return -1, nil
	}
	number := name
	if _, err := strconv.ParseUint(name, 10, 31); err != nil {
		if number, err = lookup(name); err != nil {
			return 0, &SocketError{field, fmt.Sprintf("is not known on this machine; write the name or number of a %s that is", field)}
		}
	}
	id, err := strconv.ParseUint(number, 10, 31)
	if err != nil {
		return 0, &SocketError{field, "has no number on this machine; write a number"}
	}
	return int(id), nil
}

// umask is of the whole process.
var umask sync.Mutex

// openClosed makes a socket to which nobody can connect yet, if closed is set. What
// the process makes elsewhere at this very moment is made with fewer rights, never
// with more.
func openClosed(ctx context.Context, path string, closed bool) (net.Listener, error) {
	if closed {
		umask.Lock()
		defer umask.Unlock()
		before := syscall.Umask(0o777)
		defer syscall.Umask(before)
	}
	return open(ctx, "unix", path)
}

// open takes over a socket file that a gateway left behind when it was killed.
func open(ctx context.Context, network, where string) (net.Listener, error) {
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
	if !IsSocket(path) {
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

// IsSocket reports whether a path, and not what it may point to, is a socket.
func IsSocket(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode().Type() == fs.ModeSocket
}
