package extauthz

import (
	"net"
	"sync"
)

// connections are those that are open. grpc-go waits with everything, its own
// Stop included, until each new connection has become one of HTTP/2 or its time
// is over; so who stops it must be able to close them.
type connections struct {
	mu     sync.Mutex
	open   map[*connection]struct{}
	closed bool
}

// connection leaves the others when it is closed.
type connection struct {
	net.Conn

	all *connections
}

// tracked is a listener that enters what it accepts.
type tracked struct {
	net.Listener

	all *connections
}

// Accept implements [net.Listener].
func (t tracked) Accept() (net.Conn, error) {
	conn, err := t.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &connection{conn, t.all}
	t.all.enter(c)
	return c, nil
}

// Close implements [net.Conn].
func (c *connection) Close() error {
	c.all.leave(c)
	return c.Conn.Close()
}

func (cs *connections) enter(c *connection) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.closed {
		_ = c.Conn.Close()
		return
	}
	if cs.open == nil {
		cs.open = map[*connection]struct{}{}
	}
	cs.open[c] = struct{}{}
}

func (cs *connections) leave(c *connection) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	delete(cs.open, c)
}

// close closes all, and all that are yet to come.
func (cs *connections) close() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.closed = true
	for c := range cs.open {
		_ = c.Conn.Close()
	}
}
