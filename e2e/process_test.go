package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long something that must happen soon may take on a slow machine.
const patience = 20 * time.Second

// eventually asks again and again until happened returns nil, and fails the test
// with its last error when that takes too long.
func eventually(t testing.TB, what string, happened func() error) {
	t.Helper()
	within(t, patience, what, happened)
}

// within is eventually for what takes its time.
func within(t testing.TB, limit time.Duration, what string, happened func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := happened()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not after %s: %v", what, limit, err)
		}
	}
}

// process is a program that was started by a test and ends with it.
type process struct {
	name   string
	cmd    *exec.Cmd
	stdout string // files that hold what it wrote
	stderr string
	done   chan struct{} // closed when it has ended
	err    error         // how it ended; read after done
	stop   context.CancelFunc
}

// start runs the program that command makes, until the test ends. All it writes
// is kept for the search for tokens at the end of the run.
func (r *run) start(t *testing.T, name string, command func(ctx context.Context) (*exec.Cmd, error)) *process {
	t.Helper()
	// Not the test's own context: that ends before cleanup, and the order in which
	// programs stop is the reverse of the order in which they were started.
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	p := &process{name: name, done: make(chan struct{}), stop: stop}
	dir := r.folder(t)
	p.stdout, p.stderr = filepath.Join(dir, "stdout"), filepath.Join(dir, "stderr")

	var err error
	p.cmd, err = command(ctx)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	stdout, stderr := openLog(t, p.stdout), openLog(t, p.stderr)
	defer stdout.Close() // the program has its own
	defer stderr.Close()
	p.cmd.Stdout, p.cmd.Stderr = stdout, stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
	r.outputs.addFile(name+", standard output", p.stdout)
	r.outputs.addFile(name+", standard error", p.stderr)
	t.Cleanup(func() {
		p.end()
		if t.Failed() {
			t.Logf("%s: the end of its standard error:\n%s", name, tail(p.stderr, 4096))
		}
	})
	return p
}

func openLog(t *testing.T, path string) *os.File {
	t.Helper()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// end tells the program to stop and waits until it has. It is killed when it takes
// too long (exec.Cmd.WaitDelay).
func (p *process) end() {
	p.stop()
	<-p.done
}

// kill ends the program as the kernel would for want of memory.
func (p *process) kill(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	<-p.done
}

// running returns an error when the program has ended.
func (p *process) running() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s has ended: %w", p.name, p.err)
	default:
		return nil
	}
}

// mustRun fails the test at once when the program has ended.
func (p *process) mustRun(t testing.TB) {
	t.Helper()
	if err := p.running(); err != nil {
		t.Fatalf("%v\n%s", err, tail(p.stderr, 4096))
	}
}

// tail returns the last bytes of a file, for the reader of a failed test.
func tail(path string, n int) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(text[max(0, len(text)-n):]))
}

// ports gives out ports that nothing listens on.
type ports struct {
	mu    sync.Mutex
	taken map[int]net.Listener // what holds them against other runs
}

// free returns an address on loopback for a program that cannot pick one itself.
// Its port is below those that the system gives to outgoing connections, so that
// none of these can take it in the meantime, and nor can another run of these tests:
// a name among abstract sockets, which ends with the process, stands for it.
func (p *ports) free(t testing.TB) string {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for range 1000 {
		port := 15000 + rand.IntN(16000)
		if p.taken[port] != nil {
			continue
		}
		held, err := net.Listen("unix", "@bearergate-e2e-port-"+strconv.Itoa(port))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		switch err := listenable(address); {
		case errors.Is(err, syscall.EADDRINUSE):
			_ = held.Close()
			continue
		case err != nil:
			t.Fatal(err)
		}
		if p.taken == nil {
			p.taken = map[int]net.Listener{}
		}
		p.taken[port] = held
		return address
	}
	t.Fatal("no free port on loopback from 15000 to 31000")
	return ""
}

// listenable returns an error if nobody can listen on address.
func listenable(address string) error {
	// A program that is being started has all that is open here until it runs: the
	// port would stay taken that long after it is closed.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	return l.Close()
}

// accepts returns an error as long as nobody listens on address.
func accepts(address string) error {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return err
	}
	return c.Close()
}
