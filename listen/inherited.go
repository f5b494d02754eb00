package listen

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"github.com/coreos/go-systemd/v22/activation"
)

// Inherited are the sockets that systemd has opened for this process, by name. They
// stay open until Close, so a name can be listened on again.
type Inherited struct{ files []*os.File }

// FromSystemd takes what systemd has passed (sd_listen_fds(3)), and forgets the
// environment in which that was said. It is for once in a process.
func FromSystemd() *Inherited { return &Inherited{activation.Files(true)} }

// InheritedFiles are those of a test; each has the name of its socket.
func InheritedFiles(files ...*os.File) *Inherited { return &Inherited{files} }

// Names are those of the sockets, sorted, each one once.
func (in *Inherited) Names() []string {
	var names []string
	if in != nil {
		for _, file := range in.files {
			names = append(names, file.Name())
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Listen listens on the socket of a name. To close the listener leaves the socket
// with systemd: who connects meanwhile waits.
func (in *Inherited) Listen(name string) (net.Listener, error) {
	if in == nil || len(in.files) == 0 {
		return nil, errors.New("systemd passes no socket; start the gateway by its socket unit, or write host:port")
	}
	var found *os.File
	for _, file := range in.files {
		if file.Name() != name {
			continue
		}
		if found != nil {
			return nil, errors.New("systemd passes several sockets of this name; give each ListenStream a unit and a FileDescriptorName of its own")
		}
		found = file
	}
	if found == nil {
		return nil, fmt.Errorf("systemd passes no socket of this name; the names are: %q", in.Names())
	}
	l, err := net.FileListener(found)
	if err != nil {
		return nil, errors.New("systemd passes something else than a listening stream socket; write ListenStream and Accept=no in its unit")
	}
	return l, nil
}

// Close leaves all sockets to systemd.
func (in *Inherited) Close() {
	if in == nil {
		return
	}
	for _, file := range in.files {
		_ = file.Close()
	}
}
