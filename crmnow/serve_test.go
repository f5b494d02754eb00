package crmnow_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bearergate/bearergate/crmnow"
)

// dial opens a raw connection in a bubble.
func dial(t *testing.T, p *pipes) net.Conn {
	t.Helper()
	conn, err := p.Dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func write(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
}

// receive reads one reply, after which the connection ends.
func receive(t *testing.T, conn net.Conn) answer {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

const slowQuestion = "POST " + crmnow.Path + " HTTP/1.1\r\nHost: x\r\nContent-Type: " + typeForm + "\r\nContent-Length: 15\r\n\r\nverifyt"

func TestServeLetsRequestsFinish(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, p := newEmulator(t, crmnow.EmulatorOptions{}), newPipes()
		if err := e.Accept(crmnow.NewSecret("abc"), 0); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- e.Serve(ctx, p) }()
		conn := dial(t, p)
		write(t, conn, slowQuestion)
		synctest.Wait()
		stop()
		pass(time.Second)
		if _, err := p.Dial(t.Context(), "", ""); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the listener is not closed: %v", err)
		}
		write(t, conn, "oken=abc")
		if got := receive(t, conn); got.status != 200 || got.body != saysValid {
			t.Errorf("the answer is %d %s", got.status, got.body)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

func TestServeDoesNotWaitForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, p := newEmulator(t, crmnow.EmulatorOptions{}), newPipes()
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- e.Serve(ctx, p) }()
		upload, silent := dial(t, p), dial(t, p)
		write(t, upload, slowQuestion)
		synctest.Wait()
		stop()
		began := time.Now()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("it took %s", took)
		}
		for _, conn := range []net.Conn{upload, silent} {
			if rest, err := io.ReadAll(conn); err != nil || len(rest) != 0 {
				t.Errorf("a connection is not closed: %q %v", rest, err)
			}
		}
	})
}

func TestServeBreaksWhatWaitsInAFault(t *testing.T) {
	for _, fault := range []crmnow.Fault{{Hang: true}, {Delay: time.Hour}} {
		l := startLocal(t, crmnow.EmulatorOptions{})
		setFault(t, l.Emulator, crmnow.Verify, fault)
		call := caller(t)
		r := addressed(t, l, question("x"))
		failed := make(chan error, 1)
		go func() {
			_, err := call(t.Context(), r)
			failed <- err
		}()
		await(t, l.Emulator, func(s crmnow.Stats) bool { return s.Verify.InFlight == 1 })
		if err := l.Down(); err != nil {
			t.Error(err)
		}
		if err := <-failed; !errors.Is(err, io.EOF) {
			t.Errorf("the question ends with %v", err)
		}
		if n := l.Stats().Verify.InFlight; n != 0 {
			t.Errorf("%d questions wait", n)
		}
	}
}

func TestServeBreaksItAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, p := newEmulator(t, crmnow.EmulatorOptions{}), newPipes()
		setFault(t, e, crmnow.Verify, crmnow.Fault{Hang: true})
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- e.Serve(ctx, p) }()
		write(t, dial(t, p), slowQuestion+"oken=abc")
		if err := e.AwaitVerifying(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		stop()
		began := time.Now()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

func TestServeSaysThatItsListenerFailed(t *testing.T) {
	e, p := newEmulator(t, crmnow.EmulatorOptions{}), newPipes()
	_ = p.Close()
	if err := e.Serve(t.Context(), p); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the error is %v", err)
	}
}

func TestServeOnSeveralListeners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEmulator(t, crmnow.EmulatorOptions{Clients: partner()})
		for range 2 { // at once, and again after all have ended
			ctx, stop := context.WithCancel(t.Context())
			served := make(chan error)
			for range 3 {
				p := newPipes()
				go func() { served <- e.Serve(ctx, p) }()
				c, err := crmnow.NewClient(crmnow.ClientOptions{
					URL: onLoopback, Dial: p.Dial, ID: partnerID, Secret: crmnow.NewSecret(partnerSecret),
				})
				if err != nil {
					t.Fatal(err)
				}
				grant, err := c.Token(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				c.Close()
				expectVerdict(t, e, grant.AccessToken, saysValid)
			}
			stop()
			for range 3 {
				if err := <-served; err != nil {
					t.Error(err)
				}
			}
		}
		if n := e.Stats().Issued; n != 6 {
			t.Errorf("%d tokens are issued", n)
		}
	})
}

func TestSlowRequestsEnd(t *testing.T) {
	for _, c := range []struct {
		name, sent, want string
	}{
		{"in the middle of the header", "POST " + crmnow.Path + " HTTP/1.1\r\nHost:", ""},
		{"in the middle of the body", slowQuestion, "HTTP/1.1 400 "},
		{"before a body that nobody wants", "GET " + crmnow.Path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", "HTTP/1.1 405 "},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, p := serveOnPipes(t, crmnow.EmulatorOptions{})
				conn := dial(t, p)
				write(t, conn, c.sent)
				began := time.Now()
				got, err := io.ReadAll(conn)
				if err != nil || !strings.HasPrefix(string(got), c.want) || c.want == "" && len(got) > 0 {
					t.Errorf("the reply is %q, %v", got, err)
				}
				if took := time.Since(began); took < 10*time.Second || took > 15*time.Second {
					t.Errorf("it took %s", took)
				}
			})
		})
	}
	t.Run("when the reply is not taken", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, p := serveOnPipes(t, crmnow.EmulatorOptions{})
			conn := dial(t, p)
			write(t, conn, slowQuestion+"oken=abc")
			pass(11 * time.Second)
			synctest.Wait()
			if got, err := io.ReadAll(conn); err != nil || len(got) > 0 {
				t.Errorf("the connection still gives %q, %v", got, err)
			}
		})
	})
	t.Run("but not while a fault lasts", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e, p := serveOnPipes(t, crmnow.EmulatorOptions{ServeControl: true})
			setFault(t, e, crmnow.Verify, crmnow.Fault{Delay: time.Minute})
			conn := dial(t, p)
			write(t, conn, slowQuestion+"oken=abc")
			if got := receive(t, conn); got.body != saysInvalid {
				t.Errorf("the answer is %d %s", got.status, got.body)
			}
			pass(30 * time.Second)
			write(t, conn, "GET "+crmnow.ControlPath+"stats HTTP/1.1\r\nHost: x\r\n\r\n") // the connection is as good as new
			if got := receive(t, conn); got.status != http.StatusOK {
				t.Errorf("the second reply is %d %s", got.status, got.body)
			}
		})
	})
}

func TestHeadersAreBounded(t *testing.T) {
	l := startLocal(t, crmnow.EmulatorOptions{})
	call := caller(t)
	for size, want := range map[int]int{60 << 10: 200, 80 << 10: 431} {
		r := addressed(t, l, question("x"))
		r.Header.Set("X-Long", strings.Repeat("x", size))
		if got, err := call(t.Context(), r); err != nil || got.status != want {
			t.Errorf("with %d bytes of headers the reply is %d, %v, want %d", size, got.status, err, want)
		}
	}
}

func TestLocalGoesDownAndComesBack(t *testing.T) {
	l := startLocal(t, crmnow.EmulatorOptions{})
	call := caller(t)
	token := issue(t, l.Emulator).Reveal()
	verdict := func() {
		t.Helper()
		if got, err := call(t.Context(), addressed(t, l, question(token))); err != nil || got.body != saysValid {
			t.Errorf("the answer is %s, %v", got.body, err)
		}
	}
	address, url := l.Address(), l.URL()
	if url != "http://"+address+crmnow.Path || !strings.HasPrefix(address, "127.0.0.1:") {
		t.Errorf("the URL is %s, the address %s", url, address)
	}
	verdict()
	for range 3 {
		if err := errors.Join(l.Down(), l.Down()); err != nil {
			t.Fatal(err)
		}
		if _, err := call(t.Context(), addressed(t, l, question(token))); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("while it is down the answer is %v", err)
		}
		if l.URL() != url {
			t.Errorf("while it is down the URL is %s", l.URL())
		}
		if err := errors.Join(l.Up(), l.Up()); err != nil {
			t.Fatal(err)
		}
		if l.Address() != address {
			t.Errorf("it came back on %s, not on %s", l.Address(), address)
		}
		verdict()
	}
	if err := l.Down(); err != nil {
		t.Fatal(err)
	}
	squatter, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer squatter.Close()
	if err := l.Up(); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("on a taken address the error is %v", err)
	}
}
