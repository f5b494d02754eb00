package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bearergate/bearergate/crmnow"
)

// nobody is a user whom every machine has.
const nobody = 65534

// testDeath ends a gateway as a fault of Go's would, with a token in hand. What it
// writes is searched with all the rest; that there is no core is seen here, and that
// docs/operations.md is right to say that a core would hold tokens.
func testDeath(t *testing.T, r *run) {
	t.Run("without a core", func(t *testing.T) {
		died, cores := die(t, r, "GOTRACEBACK=all")
		if died.owner != 0 {
			t.Errorf("the user of the gateway owns its memory (/proc belongs to %d)", died.owner)
		}
		if len(cores) != 0 {
			t.Errorf("there is a core: %v", cores)
		}
		for _, want := range []string{"SIGABRT", "goroutine ", "verifier."} {
			if !strings.Contains(died.stderr, want) {
				t.Errorf("it does not write %q", want)
			}
		}
	})
	if raceDetector { // whose memory is too large for a core
		return
	}
	t.Run("with a core, which the operator wants", func(t *testing.T) {
		died, cores := die(t, r, "GOTRACEBACK=crash")
		if died.owner == 0 {
			t.Error("the gateway keeps its memory to itself")
		}
		if len(cores) == 0 {
			t.Log("this machine writes no core into the folder of a program")
			return
		}
		core, err := os.ReadFile(cores[0])
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(core, []byte(died.token)) {
			t.Error("the core holds no token; say so in docs/operations.md")
		}
	})
}

type death struct {
	token, stderr string
	owner         uint32 // of what is in /proc of it
}

// die runs a gateway, as another user than root and where cores may be of any size,
// and has it abort while it asks about a token. It returns the cores, too.
func die(t *testing.T, r *run, traceback string) (d death, cores []string) {
	t.Helper()
	folder := r.folder(t)
	if err := os.Chmod(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	endpoint := startEndpoint(t, r)
	g := r.startGateway(t, "gateway that dies with "+traceback, settings{
		endpoint: endpoint.url(), timeout: "10s", environment: []string{traceback},
		changed: func(cmd *exec.Cmd) {
			cmd.Args = append([]string{"bash", "-c", `ulimit -c "$(ulimit -H -c)" && exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
			cmd.Path, cmd.Dir = "/bin/bash", folder
			if os.Getuid() == 0 {
				cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
			}
		},
	})
	metrics, err := get(t.Context(), "http://"+g.settings.admin+"/metrics")
	if err != nil || !strings.Contains(metrics, "process_open_fds ") {
		t.Errorf("its metrics do not say how many files are open (%v)", err)
	}
	if err := endpoint.SetFault(crmnow.Verify, crmnow.Fault{Hang: true}); err != nil {
		t.Fatal(err)
	}
	d.token = endpoint.issue(t)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.settings.authRequest+"/auth", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+d.token)
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		if got, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request); err == nil {
			_ = got.Body.Close()
		}
	}()
	if err := endpoint.AwaitVerifying(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	process, err := os.Stat(fmt.Sprintf("/proc/%d/environ", g.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if stat, ok := process.Sys().(*syscall.Stat_t); ok {
		d.owner = stat.Uid
	}
	if err := g.cmd.Process.Signal(syscall.SIGABRT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-g.done:
	case <-time.After(patience):
		t.Fatal("it does not die")
	}
	<-asked
	endpoint.ClearFaults()
	written, err := os.ReadFile(g.stderr)
	if err != nil {
		t.Fatal(err)
	}
	d.stderr = string(written)
	cores, err = filepath.Glob(filepath.Join(folder, "core*"))
	if err != nil {
		t.Fatal(err)
	}
	return d, cores
}
