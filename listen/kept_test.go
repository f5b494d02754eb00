package listen_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/bearergate/bearergate/listen"
)

// TestNobodyIsRefusedWhileListenersChange: a connection that comes when nobody
// accepts waits for the next listener, which may come before or after.
func TestNobodyIsRefusedWhileListenersChange(t *testing.T) {
	named, _ := passed(t, "gate")
	inherited := listen.InheritedFiles(named)
	defer inherited.Close()
	for name, keep := range map[string]func() (*listen.Socket, error){
		"tcp": func() (*listen.Socket, error) { return listen.Keep(t.Context(), "tcp", "127.0.0.1:0", nil) },
		"unix": func() (*listen.Socket, error) {
			return listen.Keep(t.Context(), "unix", filepath.Join(t.TempDir(), "s"), &listen.SocketOptions{Mode: 0o600})
		},
		"systemd": func() (*listen.Socket, error) { return inherited.Keep("gate") },
	} {
		t.Run(name, func(t *testing.T) {
			s, err := keep()
			if err != nil {
				t.Fatal(err)
			}
			first, err := s.Listen()
			if err != nil {
				t.Fatal(err)
			}
			address := first.Addr()
			come := func(l net.Listener) {
				t.Helper()
				accepted, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				_ = accepted.Close()
			}
			dial := func() {
				t.Helper()
				conn, err := net.Dial(address.Network(), address.String())
				if err != nil {
					t.Fatalf("refused: %v", err)
				}
				_ = conn.Close()
			}
			dial()
			come(first)
			if err := first.Close(); err != nil {
				t.Error(err)
			}
			dial() // nobody accepts
			second, err := s.Listen()
			if err != nil {
				t.Fatal(err)
			}
			come(second)
			third, err := s.Listen()
			if err != nil {
				t.Fatal(err)
			}
			dial()
			come(third)
			_, _ = second.Close(), third.Close()
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if name == "systemd" {
				dial() // it is systemd's
				return
			}
			if conn, err := net.Dial(address.Network(), address.String()); err == nil {
				_ = conn.Close()
				t.Error("somebody listens")
			}
			if _, err := os.Lstat(address.String()); address.Network() == "unix" && !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the socket is left: %v", err)
			}
		})
	}
	if _, err := inherited.Keep("other"); err == nil {
		t.Error("a socket is kept that was not passed")
	}
}

func TestAnOpenSocketGetsOtherRights(t *testing.T) {
	before := syscall.Umask(0o027)
	defer syscall.Umask(before)
	self, group := strconv.Itoa(os.Getuid()), strconv.Itoa(os.Getgid())
	path := filepath.Join(t.TempDir(), "s")
	l, err := listen.Open(t.Context(), "unix", path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, step := range []struct {
		name    string
		options *listen.SocketOptions
		mode    fs.FileMode
	}{
		{"more", &listen.SocketOptions{Mode: 0o666}, 0o666},
		{"fewer, with an owner", &listen.SocketOptions{Mode: 0o600, User: self, Group: group}, 0o600},
		{"others", &listen.SocketOptions{Mode: 0o062}, 0o062},
		{"none of its own", nil, 0o750},
	} {
		if err := listen.Own(path, step.options); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		info, err := os.Lstat(path)
		if err != nil || info.Mode() != fs.ModeSocket|step.mode {
			t.Errorf("%s: %v, %v; want %v", step.name, info.Mode(), err, step.mode)
		}
	}
	if syscall.Umask(0o027) != 0o027 {
		t.Error("the umask is another")
	}

	var wrong *listen.SocketError
	if err := listen.Own(path, &listen.SocketOptions{Mode: 0o666, Group: "no-such-group"}); !errors.As(err, &wrong) || wrong.Field != "group" {
		t.Errorf("a group that is not there: %v", err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("after a mistake it is %v, %v", info.Mode(), err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := listen.Own(file, &listen.SocketOptions{Mode: 0o666}); !errors.As(err, &wrong) {
		t.Errorf("a file in its place: %v", err)
	}
	if info, _ := os.Lstat(file); info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v now", info.Mode())
	}
}
