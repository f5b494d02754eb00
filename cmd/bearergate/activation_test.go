package main

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bearergate/bearergate/crmnow"
)

// activated starts the program as systemd does: sockets from the descriptor 3 on,
// their names in the environment, and a socket that wants to know how far it is.
func activated(t *testing.T, e *crmnow.Local, notify string, sockets map[string]*os.File) *gateway {
	t.Helper()
	configuration := "listeners:\n"
	g := &gateway{program: command()}
	var names []string
	for name, socket := range sockets {
		names = append(names, name)
		g.ExtraFiles = append(g.ExtraFiles, socket)
		configuration += "  " + name + ": {address: \"systemd:" + name + "\"}\n"
	}
	configuration += "verifiers: [{name: crm, verifytoken: {url: \"" + e.URL() + "\"}}]\n"
	program := g.Path
	g.Path, g.Args = "/bin/sh", []string{
		"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`, program, "serve", "--config", file(t, "bearergate.yaml", configuration),
	}
	g.Env = append(g.Env, "LISTEN_FDS="+string(rune('0'+len(names))), "LISTEN_FDNAMES="+strings.Join(names, ":"), "NOTIFY_SOCKET="+notify)
	g.run(t)
	return g
}

func TestServeAnswersOnTheSocketsOfSystemd(t *testing.T) {
	e := endpoint(t)
	dir := t.TempDir()
	told, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer told.Close()
	next := func() string {
		t.Helper()
		_ = told.SetReadDeadline(time.Now().Add(patience))
		text := make([]byte, 100)
		n, err := told.Read(text)
		if err != nil {
			t.Fatal(err)
		}
		return string(text[:n])
	}
	unix, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	tcp, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	sockets := map[string]*os.File{}
	for name, listener := range map[string]interface{ File() (*os.File, error) }{"auth_request": tcp, "ext_authz": unix} {
		if sockets[name], err = listener.File(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = sockets[name].Close() })
	}

	good := token(t, e)
	for range 2 { // the sockets outlive the gateway
		g := activated(t, e, filepath.Join(dir, "notify"), sockets)
		if got := next(); got != "READY=1" {
			t.Errorf("systemd is told %q", got)
		}
		mustGet(t, tcp.Addr().String(), "/auth", good, http.StatusOK)
		if checked, err := check(t, "unix:"+filepath.Join(dir, "s"), good); err != nil || checked.GetStatus().GetCode() != 0 {
			t.Errorf("ext_authz says %v, %v", checked, err)
		}
		g.signal(t, syscall.SIGHUP)
		if got := next(); !regexp.MustCompile(`^RELOADING=1\nMONOTONIC_USEC=\d+\n$`).MatchString(got) {
			t.Errorf("systemd is told %q", got)
		}
		if got := next(); got != "READY=1" {
			t.Errorf("systemd is told %q", got)
		}
		g.signal(t, syscall.SIGTERM)
		if got := next(); got != "STOPPING=1" {
			t.Errorf("systemd is told %q", got)
		}
		if code := g.code(t); code != exitGood {
			t.Errorf("exit code %d", code)
		}
		if _, err := os.Lstat(filepath.Join(dir, "s")); err != nil {
			t.Errorf("the socket of systemd is gone: %v", err)
		}
	}
}
