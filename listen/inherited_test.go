package listen_test

import (
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/bearergate/bearergate/listen"
)

// passed is a socket as systemd passes it, and where it listens.
func passed(t *testing.T, name string) (file *os.File, address string) {
	t.Helper()
	l := tcp(t)
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	return rename(t, file, name), l.Addr().String()
}

// rename gives a file the name under which systemd passes it.
func rename(t *testing.T, file *os.File, name string) *os.File {
	t.Helper()
	raw, err := file.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var twin int
	var dupErr error
	if err := raw.Control(func(fd uintptr) { twin, dupErr = syscall.Dup(int(fd)) }); err != nil || dupErr != nil {
		t.Fatal(err, dupErr)
	}
	_ = file.Close()
	return os.NewFile(uintptr(twin), name)
}

func TestAPassedSocketIsFoundByItsName(t *testing.T) {
	one, address := passed(t, "one")
	two, _ := passed(t, "two")
	twin, _ := passed(t, "twin")
	other, _ := passed(t, "twin")
	datagrams, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	packet, err := datagrams.File()
	_ = datagrams.Close()
	if err != nil {
		t.Fatal(err)
	}
	in := listen.InheritedFiles(one, two, twin, other, rename(t, packet, "packets"))
	defer in.Close()
	if got := strings.Join(in.Names(), " "); got != "one packets twin two" {
		t.Errorf("the names are %s", got)
	}

	for range 2 { // a listener that goes leaves the socket
		l, err := in.Listen("one")
		if err != nil {
			t.Fatal(err)
		}
		if l.Addr().String() != address {
			t.Errorf("listens at %s, want %s", l.Addr(), address)
		}
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		got, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = got.Close()
		_ = conn.Close()
		_ = l.Close()
	}
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Errorf("nobody may wait at a socket of systemd: %v", err)
	} else {
		_ = conn.Close()
	}

	for name, want := range map[string]string{
		"three":   `systemd passes no socket of this name; the names are: ["one" "packets" "twin" "two"]`,
		"twin":    "systemd passes several sockets of this name; give each",
		"packets": "systemd passes something else than a listening stream socket; write ListenStream",
	} {
		if l, err := in.Listen(name); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v, %v", name, l, err)
		}
	}
	for _, none := range []*listen.Inherited{nil, listen.InheritedFiles()} {
		if _, err := none.Listen("one"); err == nil || !strings.HasPrefix(err.Error(), "systemd passes no socket; ") {
			t.Errorf("got %v", err)
		}
		none.Close()
	}
}
