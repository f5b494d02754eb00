package listen_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"github.com/bearergate/bearergate/listen"
)

func TestASocketHasItsModeWhateverTheUmaskIs(t *testing.T) {
	dir := t.TempDir()
	for mode, name := range map[fs.FileMode]string{0o600: "owner", 0o660: "group", 0o666: "all", 0o620: "odd"} {
		for _, umask := range []int{0, 0o022, 0o077} {
			before := syscall.Umask(umask)
			path := filepath.Join(dir, name)
			l, err := listen.Open(t.Context(), "unix", path, &listen.SocketOptions{
				Mode: mode, User: strconv.Itoa(os.Getuid()), Group: strconv.Itoa(os.Getgid()),
			})
			if after := syscall.Umask(before); after != umask {
				t.Errorf("the umask is %o now, was %o", after, umask)
			}
			if err != nil {
				t.Fatal(err)
			}
			info, err := os.Lstat(path)
			if err != nil || info.Mode() != fs.ModeSocket|mode {
				t.Errorf("umask %o: %v, %v; want %v", umask, info.Mode(), err, mode)
			}
			conn, err := net.Dial("unix", path)
			if err != nil {
				t.Error(err)
			} else {
				_ = conn.Close()
			}
			if err := l.Close(); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the socket is left: %v", err)
			}
		}
	}
}

// Who waits for a socket to appear must not find it open.
func TestASocketIsNeverMoreOpenThanItsMode(t *testing.T) {
	before := syscall.Umask(0)
	defer syscall.Umask(before)
	path := filepath.Join(t.TempDir(), "s")
	done := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if info, err := os.Lstat(path); err == nil && info.Mode().Perm()&^0o600 != 0 {
				t.Errorf("the socket has mode %v", info.Mode())
				return
			}
		}
	})
	for range 500 {
		l, err := listen.Open(t.Context(), "unix", path, &listen.SocketOptions{Mode: 0o600})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	watching.Wait()
}

func TestASocketWithoutItsOwnerIsNotLeftBehind(t *testing.T) {
	for name, test := range map[string]struct {
		options listen.SocketOptions
		want    string
	}{
		"a user that is not known":  {listen.SocketOptions{User: "no-such-user-here"}, "user: is not known on this machine; write the name or number of a user that is"},
		"a group that is not known": {listen.SocketOptions{Group: "no such group"}, "group: is not known on this machine; write the name or number of a group that is"},
		"a number too large":        {listen.SocketOptions{Group: "4294967295"}, "group: is not known on this machine; write the name or number of a group that is"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			l, err := listen.Open(t.Context(), "unix", path, &test.options)
			if l != nil || err == nil || err.Error() != test.want {
				t.Errorf("got %v, %v; want %s", l, err, test.want)
			}
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a socket is left: %v", err)
			}
		})
	}
}

func TestASocketWithAModeIsTakenOverLikeAnyOther(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	options := &listen.SocketOptions{Mode: 0o660}
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	if l, err := listen.Open(t.Context(), "unix", path, options); err == nil {
		_ = l.Close()
		t.Error("a live socket was taken over")
	}
	left.SetUnlinkOnClose(false)
	if err := left.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := listen.Open(t.Context(), "unix", path, options)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
