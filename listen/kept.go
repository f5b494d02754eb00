package listen

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"syscall"
)

// Socket is a socket that stays open while those who listen on it change. So who
// connects is never refused in between: it waits, or comes to one of them.
type Socket struct {
	kept      net.Listener // nobody accepts here
	inherited *Inherited
	name      string
}

// Keep opens a socket as [Open] does.
func Keep(ctx context.Context, network, where string, o *SocketOptions) (*Socket, error) {
	kept, err := Open(ctx, network, where, o)
	if err != nil {
		return nil, err
	}
	return &Socket{kept: kept}, nil
}

// Keep takes the socket that systemd has passed under a name.
func (in *Inherited) Keep(name string) (*Socket, error) {
	l, err := in.Listen(name)
	if err != nil {
		return nil, err
	}
	_ = l.Close() // it is only tried
	return &Socket{inherited: in, name: name}, nil
}

// Listen listens on the socket, beside others who do. To close the listener leaves
// the socket open.
func (s *Socket) Listen() (net.Listener, error) {
	if s.inherited != nil {
		return s.inherited.Listen(s.name)
	}
	filed, ok := s.kept.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, errors.New("a listener of a kind that cannot be shared")
	}
	file, err := filed.File()
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return net.FileListener(file)
}

// Close closes the socket when the last of its listeners is closed. The path of a
// unix socket is free at once. What systemd has opened stays open.
func (s *Socket) Close() error {
	if s.inherited != nil {
		return nil
	}
	return s.kept.Close()
}

// Own gives a unix socket that is open other rights. Meanwhile only those may
// connect who may before and after. Without options, the rights are those of a
// socket that was opened without.
func Own(path string, o *SocketOptions) error {
	var wanted SocketOptions
	if o != nil {
		wanted = *o
	}
	uid, gid, err := wanted.ids()
	if err != nil {
		return err
	}
	if uid == -1 {
		uid = os.Geteuid()
	}
	if gid == -1 {
		gid = os.Getegid()
	}
	if wanted.Mode == 0 {
		wanted.Mode = 0o777 &^ currentUmask()
	}
	info, err := os.Lstat(path)
	if err != nil {
		return &SocketError{"mode", "cannot be set: " + bare(err).Error()}
	}
	if info.Mode().Type() != fs.ModeSocket {
		return &SocketError{"mode", "cannot be set: there is another file in the socket's place"}
	}
	if both := info.Mode().Perm() & wanted.Mode; both != info.Mode().Perm() {
		if err := os.Chmod(path, both); err != nil {
			return &SocketError{"mode", "cannot be set: " + bare(err).Error()}
		}
	}
	return own(path, uid, gid, &wanted)
}

func currentUmask() fs.FileMode {
	umask.Lock()
	defer umask.Unlock()
	// It cannot be asked for. What is made at this very moment gets fewer rights.
	current := syscall.Umask(0o777)
	syscall.Umask(current)
	return fs.FileMode(current) //nolint:gosec // nine bits
}
