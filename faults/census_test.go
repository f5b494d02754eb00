package faults_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"runtime/pprof"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// census counts what a site holds: its goroutines, and its sockets. Tests run
// beside each other, so goroutines are told apart by a label, which they take
// over from whoever starts them, and sockets by the ports of the site.
type census struct{ goroutines, sockets int }

func (c census) String() string {
	return fmt.Sprintf("%d goroutines, %d sockets", c.goroutines, c.sockets)
}

// labelled marks the goroutines that the test starts from now on.
func labelled(t *testing.T) {
	t.Helper()
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels("site", t.Name())))
}

// goroutinesOf returns how many goroutines a test has, and their stacks.
func goroutinesOf(t *testing.T) (n int, stacks string) {
	t.Helper()
	var profile bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		t.Fatal(err)
	}
	label := fmt.Sprintf("%q:%q", "site", t.Name())
	var mine strings.Builder
	_, records, _ := strings.Cut(profile.String(), "\n") // the first line is the total
	for record := range strings.SplitSeq(records, "\n\n") {
		if !strings.Contains(record, label) {
			continue
		}
		count, _, _ := strings.Cut(record, " ")
		k, err := strconv.Atoi(count)
		if err != nil {
			t.Fatalf("not a record of the goroutine profile: %v", err)
		}
		n += k
		mine.WriteString(record + "\n\n")
	}
	if n == 0 {
		t.Fatal("no goroutine has the test's label, so they cannot be counted")
	}
	return n, mine.String()
}

// openSockets returns the descriptors of the sockets that this process has open. It
// finds them where Linux shows them, and none elsewhere.
func openSockets() []int {
	const folder = "/proc/self/fd"
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil
	}
	var sockets []int
	for _, entry := range entries {
		target, err := os.Readlink(folder + "/" + entry.Name())
		if err != nil || !strings.HasPrefix(target, "socket:") {
			continue
		}
		if descriptor, err := strconv.Atoi(entry.Name()); err == nil {
			sockets = append(sockets, descriptor)
		}
	}
	return sockets
}

// socketsAt returns how many sockets of this process have one of the ports at
// either end.
func socketsAt(ports map[int]bool) int {
	n := 0
	for _, descriptor := range openSockets() {
		// One may be closed meanwhile, and then has no name, or that of another: what is
		// counted is counted again until it stays the same.
		here, err := unix.Getsockname(descriptor)
		if err != nil {
			continue
		}
		there, _ := unix.Getpeername(descriptor)
		if ports[portOf(here)] || ports[portOf(there)] {
			n++
		}
	}
	return n
}

func portOf(address unix.Sockaddr) int {
	switch a := address.(type) {
	case *unix.SockaddrInet4:
		return a.Port
	case *unix.SockaddrInet6:
		return a.Port
	default:
		return -1
	}
}
