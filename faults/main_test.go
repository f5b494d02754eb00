package faults_test

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2/toxics"
	"go.uber.org/goleak"
)

// patience is how long a test waits for what must come.
const patience = time.Minute

func TestMain(m *testing.M) {
	// The endpoint is asked directly, whatever the machine's settings are.
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"} {
		os.Unsetenv(name)
	}
	toxics.Register("silence", &silence{})
	toxics.Register("trickle", &trickle{})
	// The tests that are parallel do little but wait.
	if err := flag.Set("test.parallel", "8"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	goleak.VerifyTestMain(sockets{m})
}

// sockets runs the tests and then looks for sockets that they left open.
type sockets struct{ *testing.M }

func (s sockets) Run() int {
	names, err := startNames()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	defer names.close()
	before := len(openSockets())
	code := s.M.Run()
	if left := settle(func() int { return len(openSockets()) }, before); left > before && code == 0 {
		fmt.Fprintf(os.Stderr, "%d sockets are open after the tests, %d were before\n", left, before)
		return 1
	}
	return code
}

// settle waits until a number has come down to what it should be, and returns it.
func settle(count func() int, want int) int {
	deadline := time.Now().Add(patience)
	for {
		n := count()
		if n <= want || time.Now().After(deadline) {
			return n
		}
		pause()
	}
}

// pause lets others work before something is looked at again.
func pause() { pauseFor(10 * time.Millisecond) }

// pauseFor waits as a client does between two requests. All tests share the machine:
// who asks without a pause makes others time out.
func pauseFor(d time.Duration) { <-time.After(d) }

// eventually waits until check returns no error.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, patience, err)
		}
		pause()
	}
}
