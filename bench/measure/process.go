package measure

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bearergate/bearergate/crmnow"
)

// Process is a server that is measured.
type Process struct {
	// GRPC is the address of its gRPC face, if it has one, and HTTP that of its HTTP
	// face.
	GRPC, HTTP string

	cmd      *exec.Cmd
	stop     context.CancelFunc
	drained  chan struct{}
	endpoint *crmnow.Local // whom a gateway asks
}

// Start starts a command on the server's cores and returns what it writes. The
// caller reads what it needs of that, gives the rest to Drain, and ends the process
// with Close.
func Start(ctx context.Context, name string, args ...string) (*Process, *bufio.Reader, error) {
	ctx, stop := context.WithCancel(ctx)
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // our own commands
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(serverCores()))
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
	if err := pin(cmd.Process.Pid, 0, serverCores()); err != nil {
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

// StartReference starts this very command once more as a server that allows
// everything, with -reference and the kind: grpc or http. The command then calls
// [ServeReference].
func StartReference(ctx context.Context, kind string) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, out, err := Start(ctx, self, "-reference", kind)
	if err != nil {
		return nil, err
	}
	address, err := out.ReadString('\n')
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("reference %s: %w", kind, err)
	}
	p.GRPC = strings.TrimSpace(address)
	p.HTTP = p.GRPC
	p.Drain(out)
	return p, nil
}

// BuildGateway builds bearergate as its users do.
func BuildGateway(ctx context.Context, dir string) (string, error) {
	file := filepath.Join(dir, "bearergate")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", file, "github.com/bearergate/bearergate/cmd/bearergate").CombinedOutput() //nolint:gosec // our own folder
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return file, nil
}

// StartGateway starts a gateway with default settings that asks an emulator which
// knows the tokens.
func StartGateway(ctx context.Context, program string, flags []string, dir string, tokens []string) (*Process, error) {
	endpoint, err := crmnow.StartLocal(crmnow.EmulatorOptions{MaxTokens: len(tokens) + 1})
	if err != nil {
		return nil, err
	}
	started := false
	defer func() {
		if !started {
			_ = endpoint.Close()
		}
	}()
	for _, token := range tokens {
		if err := endpoint.Accept(crmnow.NewSecret(token), time.Hour); err != nil {
			return nil, err
		}
	}
	file := filepath.Join(dir, "bearergate.yaml")
	config := fmt.Sprintf("listeners:\n  ext_authz: {address: \"127.0.0.1:0\"}\n  auth_request: {address: \"127.0.0.1:0\"}\n"+
		"verifiers:\n  - name: crm\n    verifytoken: {url: %q}\ncache: {valid_ttl: 300s}\nlog: {format: json}\n", endpoint.URL())
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	p, out, err := Start(ctx, program, append([]string{"serve", "--config", file}, flags...)...)
	if err != nil {
		return nil, err
	}
	p.endpoint, started = endpoint, true
	for p.GRPC == "" || p.HTTP == "" {
		line, err := out.ReadString('\n')
		if err != nil {
			p.Close()
			return nil, fmt.Errorf("the gateway ended: %s", line)
		}
		var entry struct{ Msg, Listener, Address string }
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "listening" {
			switch entry.Listener {
			case "ext_authz":
				p.GRPC = entry.Address
			case "auth_request":
				p.HTTP = entry.Address
			}
		}
	}
	p.Drain(out)
	return p, nil
}

// CPU returns the processor time that the process has used, from the process's own
// accounting.
func (p *Process) CPU() (time.Duration, error) {
	// schedstat is in nanoseconds, one file for each thread.
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.cmd.Process.Pid))
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("no processor time of process %d: %w", p.cmd.Process.Pid, err)
	}
	var all time.Duration
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has just ended
		}
		ns, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			return 0, err
		}
		all += time.Duration(ns)
	}
	return all, nil
}

// serverCores is how many cores a server gets: half of them.
func serverCores() int { return max(1, runtime.NumCPU()/2) }

// PinLoad keeps this process, which sends the load, on the other half of the cores.
func PinLoad() error {
	runtime.GOMAXPROCS(max(1, runtime.NumCPU()-serverCores()))
	return pin(os.Getpid(), serverCores(), runtime.NumCPU()-serverCores())
}

// pin keeps a process, all its threads that are to come included, on some cores. On
// a machine with one core there is nothing to choose.
func pin(pid, first, count int) error {
	if runtime.NumCPU() < 2 {
		return nil
	}
	var set unix.CPUSet
	for core := first; core < first+count; core++ {
		set.Set(core)
	}
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, thread := range threads {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(id, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("pin process %d: %w", pid, err)
		}
	}
	return nil
}
