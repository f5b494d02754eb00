package measure

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/bearergate/bearergate/crmnow"
)

// Process is a server that is measured.
type Process struct {
	// GRPC is the address of its gRPC face, if it has one, and HTTP that of its HTTP
	// face: host:port or unix:/path.
	GRPC, HTTP string

	metrics  string // where it tells of its memory, if it does
	cmd      *exec.Cmd
	stop     context.CancelFunc
	drained  chan struct{}
	endpoint *crmnow.Local // whom a gateway asks
}

// Start starts a command on the server's cores and returns what it writes. The
// caller reads what it needs of that, gives the rest to Drain, and ends the process
// with Close.
func Start(ctx context.Context, name string, args ...string) (*Process, *bufio.Reader, error) {
	return StartOn(ctx, ServerCores(), name, args...)
}

// StartOn starts a command on some cores.
func StartOn(ctx context.Context, cores Cores, name string, args ...string) (*Process, *bufio.Reader, error) {
	ctx, stop := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // our own commands
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(cores.Count))
	reader, writer, err := os.Pipe()
	if err != nil {
		stop()
		return nil, nil, err
	}
	cmd.Stdout, cmd.Stderr = writer, writer
	err = cmd.Start()
	_ = writer.Close()
	if err != nil {
		stop()
		return nil, nil, errors.Join(err, reader.Close())
	}
	p := &Process{cmd: cmd, stop: stop, drained: make(chan struct{})}
	if err := cores.pin(cmd.Process.Pid); err != nil {
		p.Close()
		return nil, nil, err
	}
	return p, bufio.NewReader(reader), nil
}

// Drain reads what the server still writes, so that it never waits for a reader.
func (p *Process) Drain(from io.Reader) {
	go func() {
		defer close(p.drained)
		_, _ = io.Copy(io.Discard, from)
	}()
}

// Close ends the server, and the endpoint that it asks.
func (p *Process) Close() {
	p.stop()
	_ = p.cmd.Wait()
	p.CloseEndpoint()
}

// CloseEndpoint ends the endpoint that a gateway asks: from then on it has its cache
// alone.
func (p *Process) CloseEndpoint() {
	if p.endpoint != nil {
		_ = p.endpoint.Close()
		p.endpoint = nil
	}
}

// Move puts the server on other cores. It does not change how many it thinks it has.
func (p *Process) Move(to Cores) error { return to.pin(p.cmd.Process.Pid) }

// CPU returns the processor time that the process and its children have used, from
// their own accounting.
func (p *Process) CPU() (time.Duration, error) { return cpuOf(p.cmd.Process.Pid) }

func cpuOf(pid int) (time.Duration, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(threads) == 0 {
		return 0, fmt.Errorf("no processor time of process %d: %w", pid, err)
	}
	var all time.Duration
	for _, thread := range threads {
		text, err := os.ReadFile(filepath.Join(thread, "schedstat")) // in nanoseconds
		if err != nil {
			continue // the thread has just ended
		}
		ns, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			return 0, err
		}
		all += time.Duration(ns)
		children, err := os.ReadFile(filepath.Join(thread, "children"))
		if err != nil {
			continue
		}
		for child := range strings.FieldsSeq(string(children)) {
			id, err := strconv.Atoi(child)
			if err != nil {
				return 0, err
			}
			if used, err := cpuOf(id); err == nil { // or the child has just ended
				all += used
			}
		}
	}
	return all, nil
}

// RSS returns how much memory the process takes up, in bytes.
func (p *Process) RSS() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0, fmt.Errorf("no memory of process %d", p.cmd.Process.Pid)
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

// Names of metrics that Go programs have.
const (
	mallocsMetric = "go_memstats_mallocs_total"
	heapMetric    = "go_memstats_heap_alloc_bytes"
)

// Allocations returns how many objects the process has allocated since it started; 0
// if it does not tell.
func (p *Process) Allocations(ctx context.Context) (float64, error) {
	return p.metric(ctx, mallocsMetric)
}

// Heap returns how many bytes lie in the process's heap; 0 if it does not tell.
func (p *Process) Heap(ctx context.Context) (float64, error) { return p.metric(ctx, heapMetric) }

func (p *Process) metric(ctx context.Context, name string) (float64, error) {
	if p.metrics == "" {
		return 0, nil
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.metrics+"/metrics", http.NoBody)
	if err != nil {
		return 0, err
	}
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	got, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	defer got.Body.Close()
	text, err := io.ReadAll(io.LimitReader(got.Body, 1<<20))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, fmt.Errorf("%s is not among the metrics", name)
}

// StartReference starts this very command once more as a server that allows
// everything, with -reference and the kind: grpc or http. The command then calls
// [ServeReference]. Further flags are the command's own.
func StartReference(ctx context.Context, kind string, flags ...string) (*Process, error) {
	return StartReferenceOn(ctx, ServerCores(), kind, flags...)
}

// StartReferenceOn starts a reference on some cores.
func StartReferenceOn(ctx context.Context, cores Cores, kind string, flags ...string) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, out, err := StartOn(ctx, cores, self, append([]string{"-reference", kind}, flags...)...)
	if err != nil {
		return nil, err
	}
	if p.GRPC, p.metrics, err = readAddresses(out); err != nil {
		p.Close()
		return nil, fmt.Errorf("reference %s: %w", kind, err)
	}
	p.HTTP = p.GRPC
	p.Drain(out)
	return p, nil
}

// readAddresses reads what [ServeReference] writes.
func readAddresses(out *bufio.Reader) (address, metrics string, err error) {
	for {
		line, err := out.ReadString('\n')
		if err != nil {
			return "", "", fmt.Errorf("%w: %s", err, line)
		}
		// Go's runtime may have something to say, too.
		if line, ok := strings.CutPrefix(strings.TrimSpace(line), listening); ok {
			address, metrics, _ := strings.Cut(line, " ")
			return address, metrics, nil
		}
	}
}
