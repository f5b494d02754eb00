package extauthz_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"

	"github.com/bearergate/bearergate/extauthz"
)

// wire is a connection on which a test speaks HTTP/2 by hand: grpc-go's own
// client obeys a server's limits before the server has to hold them.
type wire struct {
	net.Conn
	*http2.Framer

	settings map[http2.SettingID]uint32
}

func newWire(t *testing.T, conn net.Conn) *wire {
	t.Helper()
	t.Cleanup(func() { _ = conn.Close() })
	w := &wire{Conn: conn, settings: map[http2.SettingID]uint32{}}
	if err := conn.SetDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	w.Framer = http2.NewFramer(conn, conn)
	w.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	settings := read[*http2.SettingsFrame](t, w)
	_ = settings.ForeachSetting(func(s http2.Setting) error {
		w.settings[s.ID] = s.Val
		return nil
	})
	return w
}

func dialWire(t *testing.T, l net.Listener) *wire {
	t.Helper()
	conn, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return newWire(t, conn)
}

// read returns the next frame of a kind, and passes over others.
func read[F http2.Frame](t *testing.T, w *wire) F {
	t.Helper()
	for {
		frame, err := w.ReadFrame()
		if err != nil {
			t.Fatalf("reading a frame: %v", err)
		}
		if f, ok := frame.(F); ok {
			return f
		}
	}
}

// open begins a check, whose message is still to come.
func (w *wire) open(t *testing.T, stream uint32, more ...string) {
	t.Helper()
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	lines := append([]string{
		":method", "POST", ":scheme", "http", ":path", "/" + service + "/Check", ":authority", "gateway",
		"content-type", "application/grpc", "te", "trailers",
	}, more...)
	for i := 0; i < len(lines); i += 2 {
		if err := enc.WriteField(hpack.HeaderField{Name: lines[i], Value: lines[i+1]}); err != nil {
			t.Fatal(err)
		}
	}
	const most = 16 << 10
	part := block.Next(most)
	err := w.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: part, EndHeaders: block.Len() == 0})
	for err == nil && block.Len() > 0 {
		part = block.Next(most)
		err = w.WriteContinuation(stream, block.Len() == 0, part)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// finish sends the message of a check about a good token.
func (w *wire) finish(t *testing.T, stream uint32) {
	t.Helper()
	message, err := proto.Marshal(with("Bearer " + goodToken))
	if err != nil {
		t.Fatal(err)
	}
	prefix := []byte{0, 0, 0, byte(len(message) >> 8), byte(len(message))}
	if err := w.WriteData(stream, true, append(prefix, message...)); err != nil {
		t.Fatal(err)
	}
}

func TestStreamsLimit(t *testing.T) {
	f := start(t, listenTCP(t), extauthz.Options{MaxConcurrentStreams: 2})
	w := dialWire(t, f.listener)
	if got := w.settings[http2.SettingMaxConcurrentStreams]; got != 2 {
		t.Errorf("the server says that it takes %d streams", got)
	}
	w.open(t, 1)
	w.open(t, 3)
	w.open(t, 5)
	if reset := read[*http2.RSTStreamFrame](t, w); reset.StreamID != 5 || reset.ErrCode != http2.ErrCodeRefusedStream {
		t.Errorf("the third stream at once: %v", reset)
	}
	// Those within the limit go on, and make room.
	for _, stream := range []uint32{1, 3} {
		w.finish(t, stream)
		expectOK(t, w, stream)
	}
	w.open(t, 7)
	w.finish(t, 7)
	expectOK(t, w, 7)

	byDefault := start(t, listenTCP(t), extauthz.Options{})
	if got := dialWire(t, byDefault.listener).settings[http2.SettingMaxConcurrentStreams]; got != 1000 {
		t.Errorf("by default the server says that it takes %d streams", got)
	}
}

// expectOK reads the end of a check.
func expectOK(t *testing.T, w *wire, stream uint32) {
	t.Helper()
	for {
		headers := read[*http2.MetaHeadersFrame](t, w)
		if headers.StreamID != stream {
			t.Fatalf("stream %d: got headers of stream %d", stream, headers.StreamID)
		}
		for _, h := range headers.RegularFields() {
			if h.Name == "grpc-status" {
				if h.Value != "0" {
					t.Fatalf("stream %d: grpc-status %s", stream, h.Value)
				}
				return
			}
		}
	}
}

func TestHeaderListLimit(t *testing.T) {
	f := start(t, listenTCP(t), extauthz.Options{})
	w := dialWire(t, f.listener)
	if got := w.settings[http2.SettingMaxHeaderListSize]; got != 16<<10 {
		t.Errorf("the server says that it takes %d bytes of headers", got)
	}
	w.open(t, 1, "x-large", strings.Repeat("x", 12<<10))
	w.finish(t, 1)
	expectOK(t, w, 1)
	var many []string
	for range 1000 {
		many = append(many, "x-many", "0123456789")
	}
	for name, lines := range map[string][]string{
		"a long one": {"x-large", strings.Repeat("x", 17<<10)},
		"many":       many,
	} {
		w := dialWire(t, f.listener)
		w.open(t, 1, lines...)
		_ = w.WriteData(1, true, nil) // it may be closed by then
		if err := w.refusal(); err == nil {
			t.Errorf("%s: it is accepted", name)
		}
	}
	if got := f.oracle.asked.Load(); got != 1 {
		t.Errorf("the verifier was asked %d times", got)
	}
}

// refusal reads until the server ends the stream or the whole connection.
func (w *wire) refusal() error {
	for {
		frame, err := w.ReadFrame()
		if err != nil {
			return err
		}
		switch f := frame.(type) {
		case *http2.RSTStreamFrame:
			return http2.StreamError{StreamID: f.StreamID, Code: f.ErrCode}
		case *http2.MetaHeadersFrame:
			return nil
		}
	}
}

// TestKeepAlive: edges may ask whether the server lives, every 10 s, also when
// nothing is under way; who asks more often has to go. The server asks a silent
// edge, and gives it up when nothing comes back.
func TestKeepAlive(t *testing.T) {
	connect := func(t *testing.T) *wire {
		t.Helper()
		l := newPipes()
		start(t, l, extauthz.Options{})
		conn, err := l.dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return newWire(t, newBuffered(conn))
	}
	t.Run("pings in good time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := connect(t)
			for range 100 {
				<-time.After(10 * time.Second)
				if err := w.WritePing(false, [8]byte{1}); err != nil {
					t.Fatal(err)
				}
				if pong := read[*http2.PingFrame](t, w); !pong.IsAck() {
					t.Fatalf("the answer is %v", pong)
				}
			}
		})
	})
	t.Run("pings all the time", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := connect(t)
			for range 10 {
				<-time.After(time.Second)
				_ = w.WritePing(false, [8]byte{1}) // it may be closed by then
			}
			if away := read[*http2.GoAwayFrame](t, w); away.ErrCode != http2.ErrCodeEnhanceYourCalm {
				t.Errorf("the answer is %v", away)
			}
		})
	})
	t.Run("a dead edge", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			begin := time.Now()
			w := connect(t)
			if ping := read[*http2.PingFrame](t, w); ping.IsAck() || time.Since(begin) != time.Minute {
				t.Errorf("after %v: %v", time.Since(begin), ping)
			}
			for {
				if _, err := w.ReadFrame(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
			if took := time.Since(begin); took != 80*time.Second {
				t.Errorf("it was given up after %v", took)
			}
		})
	})
}

// buffered reads ahead, as a socket does: a pipe alone makes the server wait
// until its every word was taken.
type buffered struct {
	net.Conn
	read *io.PipeReader
}

func newBuffered(conn net.Conn) net.Conn {
	r, w := io.Pipe()
	words := make(chan []byte, 1000)
	go func() {
		defer close(words)
		for {
			buf := make([]byte, 4096)
			n, err := conn.Read(buf)
			if n > 0 {
				words <- buf[:n]
			}
			if err != nil {
				return
			}
		}
	}()
	go func() {
		for word := range words {
			if _, err := w.Write(word); err != nil {
				continue // nobody reads any more
			}
		}
		_ = w.Close()
	}()
	return buffered{conn, r}
}

func (b buffered) Read(p []byte) (int, error) { return b.read.Read(p) }

func (b buffered) Close() error {
	_ = b.read.Close()
	return b.Conn.Close()
}
