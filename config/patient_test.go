package config_test

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bearergate/bearergate/config"
)

// failing is a listener whose Accept fails.
type failing struct {
	net.Listener

	err error
}

func (f failing) Accept() (net.Conn, error) { return nil, f.err }

func TestTheLogSaysThatConnectionsWaitForOpenFiles(t *testing.T) {
	of := func(err error) error { return &net.OpError{Op: "accept", Net: "tcp", Err: err} }
	for name, test := range map[string]struct {
		err   error
		lines int
	}{
		"the process has too many open": {of(os.NewSyscallError("accept4", syscall.EMFILE)), 2},
		"the machine has too many open": {of(os.NewSyscallError("accept4", syscall.ENFILE)), 2},
		"a client has gone":             {of(os.NewSyscallError("accept4", syscall.ECONNABORTED)), 0},
		"it was closed":                 {of(net.ErrClosed), 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log strings.Builder
				l := config.NewPatient(failing{err: test.err}, slog.New(slog.NewTextHandler(&log, nil)))
				for range 2 {
					for range 100 { // as often as a server comes again
						if _, err := l.Accept(); !errors.Is(err, test.err) {
							t.Fatalf("got %v, want %v", err, test.err)
						}
					}
					<-time.After(10 * time.Second)
				}
				if lines := strings.Count(log.String(), "connections wait, because too many files are open"); lines != test.lines || strings.Count(log.String(), "\n") != lines {
					t.Errorf("want %d lines, got\n%s", test.lines, log.String())
				}
			})
		})
	}
}

func TestAFileThatCannotBeOpenedForWantOfFilesIsNotPutDownToItsRights(t *testing.T) {
	err := config.Unreadable("x.yaml", &os.PathError{Op: "open", Path: "x.yaml", Err: syscall.EMFILE})
	if !strings.HasPrefix(err.Error(), "x.yaml: cannot be read, because too many files are open; ") {
		t.Errorf("got %v", err)
	}
}
