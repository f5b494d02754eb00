package faults_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/Shopify/toxiproxy/v2/stream"
	"github.com/Shopify/toxiproxy/v2/toxics"
	"github.com/rs/zerolog"
)

// crossing is the network between the gateways and the endpoint.
type crossing struct {
	*toxiproxy.Proxy
	silence *silence
}

func newCrossing(t *testing.T, endpoint string) *crossing {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	c := &crossing{Proxy: toxiproxy.NewProxy(server, t.Name(), "127.0.0.1:0", endpoint)}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	toxic, err := c.Toxics.AddToxicJson(strings.NewReader(`{"type": "silence", "stream": "upstream"}`))
	if err != nil {
		t.Fatal(err)
	}
	c.silence = toxic.Toxic.(*silence)
	return c
}

// poison makes all connections suffer from a toxic, which is JSON for toxiproxy.
func (c *crossing) poison(t *testing.T, toxic string) (cure func()) {
	t.Helper()
	added, err := c.Toxics.AddToxicJson(strings.NewReader(toxic))
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := c.Toxics.RemoveToxic(context.Background(), added.Name); err != nil {
			t.Error(err)
		}
	}
}

// open lets connections be made again after Stop. The port may belong to somebody
// else's connection for a moment.
func (c *crossing) open(t *testing.T) {
	t.Helper()
	eventually(t, "the network is back", c.Start)
}

// cut ends all connections; new ones can be made.
func (c *crossing) cut(t *testing.T) {
	t.Helper()
	c.Stop()
	c.open(t)
}

// silence is a toxic under which connections die without a sign, as they do when a
// firewall forgets them: what is sent on them is lost. Connections that were made
// before the end of it stay dead, also afterwards.
type silence struct {
	mu      sync.Mutex
	current *generation
}

// generation is all connections that share a fate.
type generation struct {
	dead chan struct{} // closed when they are
	// broken makes a dead connection close when it is used.
	broken bool
}

// now returns the generation of connections that are made now.
func (s *silence) now() *generation {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current == nil {
		s.current = &generation{dead: make(chan struct{})}
	}
	return s.current
}

// fall kills the connections there are, and those that will be made until rise.
func (s *silence) fall() { close(s.now().dead) }

// rise gives life to the connections that are made from now on.
func (s *silence) rise() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = nil
}

// forget makes the connections there are, and no others, close when they are used.
func (s *silence) forget() {
	s.now().broken = true // seen by others because dead is closed after it
	s.fall()
	s.rise()
}

// NewState implements [toxics.StatefulToxic].
func (s *silence) NewState() any { return s.now() }

// Pipe implements [toxics.Toxic].
func (s *silence) Pipe(stub *toxics.ToxicStub) {
	g := stub.State.(*generation)
	for {
		select {
		case <-stub.Interrupt:
			return
		case c := <-stub.Input:
			dead := isClosed(g.dead)
			if c == nil || dead && g.broken {
				stub.Close()
				return
			}
			if !dead && !pass(stub, c) {
				return
			}
		}
	}
}

// trickle is a toxic that lets one byte pass every so often.
type trickle struct {
	// Every is in milliseconds.
	Every int64 `json:"every"`
}

// Pipe implements [toxics.Toxic].
func (tr *trickle) Pipe(stub *toxics.ToxicStub) {
	tick := time.NewTicker(time.Duration(tr.Every) * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stub.Interrupt:
			return
		case c := <-stub.Input:
			if c == nil {
				stub.Close()
				return
			}
			for i := range c.Data {
				select {
				case <-tick.C:
				case <-stub.Interrupt:
					return // what is left is lost
				}
				if !pass(stub, &stream.StreamChunk{Data: c.Data[i : i+1], Timestamp: c.Timestamp}) {
					return
				}
			}
		}
	}
}

// pass hands data on, and reports whether the toxic is to go on. Unlike toxiproxy's
// own toxics it does not wait for ever when nobody takes the data, which is so when
// the connection has ended at that side.
func pass(stub *toxics.ToxicStub, c *stream.StreamChunk) bool {
	abandoned := time.NewTimer(time.Second)
	defer abandoned.Stop()
	select {
	case stub.Output <- c:
		return true
	case <-stub.Interrupt:
		return false
	case <-abandoned.C:
	}
	for {
		select {
		case <-stub.Interrupt:
			return false
		case c := <-stub.Input:
			if c == nil {
				stub.Close()
				return false
			}
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// The toxics, as JSON for toxiproxy.

// latency keeps answers back.
func latency(d time.Duration) string {
	return fmt.Sprintf(`{"type": "latency", "stream": "downstream", "attributes": {"latency": %d}}`, d.Milliseconds())
}

// trickling lets a byte of the answers pass every so often.
func trickling(every time.Duration) string {
	return fmt.Sprintf(`{"type": "trickle", "stream": "downstream", "attributes": {"every": %d}}`, every.Milliseconds())
}

// reset ends connections with a reset as soon as something is sent that way.
func reset(way string) string {
	return fmt.Sprintf(`{"type": "reset_peer", "stream": %q, "attributes": {"timeout": 0}}`, way)
}

// cutAfter ends each connection after so many bytes of answers.
func cutAfter(n int) string {
	return fmt.Sprintf(`{"type": "limit_data", "stream": "downstream", "attributes": {"bytes": %d}}`, n)
}

// swallow lets no answer pass, and ends the connections when it is over.
const swallow = `{"type": "timeout", "stream": "downstream", "attributes": {"timeout": 0}}`
