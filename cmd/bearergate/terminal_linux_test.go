package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
)

// openTerminal returns the two ends of a pseudo-terminal (pty(7)): what a program
// writes to the terminal can be read from the controller.
func openTerminal(t *testing.T) (controller, terminal *os.File) {
	t.Helper()
	controller, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = controller.Close() })
	if err := unix.IoctlSetPointerInt(int(controller.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(controller.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return controller, terminal
}

// onTerminal starts a program whose standard output and standard error are a
// terminal. What it writes there stands in p.err.
func onTerminal(t *testing.T, environment []string, args ...string) *program {
	t.Helper()
	p := command(args...)
	p.Env = append(p.Env, environment...)
	controller, terminal := openTerminal(t)
	p.Stdout, p.Stderr = terminal, terminal
	p.run(t)
	_ = terminal.Close() // the program has its own
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(p.err, controller) // ends with EIO when the program has ended
	}()
	t.Cleanup(func() {
		_ = p.Process.Kill()
		<-read
	})
	return p
}

// told waits until all that was written has arrived, which is some time after the
// end of the program.
func (p *program) told(t *testing.T, last string) string {
	t.Helper()
	if code := p.code(t); code != exitGood {
		t.Errorf("ended with %d", code)
	}
	eventually(t, "word "+last, func() error {
		if !strings.Contains(p.err.String(), last) {
			return io.ErrUnexpectedEOF
		}
		return nil
	})
	return p.err.String()
}

func TestServeIsReadableOnATerminal(t *testing.T) {
	for name, test := range map[string]struct {
		environment, settings string
		json, colour          bool
	}{
		"coloured":             {"NO_COLOR=", "", false, true},
		"without colour":       {"NO_COLOR=1", "", false, false},
		"as text that is set":  {"NO_COLOR=", "log: {format: text}", false, true},
		"as JSON when set":     {"NO_COLOR=", "log: {format: json}", true, false},
		"NO_COLOR and a word":  {"NO_COLOR=true", "log: {format: text}", false, false},
		"as text when on auto": {"NO_COLOR=", "log: {format: auto}", false, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := onTerminal(t, []string{test.environment}, "serve", "--config", file(t, "bearergate.yaml", onLoopback(endpoint(t).URL(), test.settings)))
			p.await(t, "3 lines listening", p.err, func(text string) bool { return strings.Count(text, "listening") == 3 })
			p.signal(t, syscall.SIGTERM)
			text := p.told(t, "stopped")
			if coloured := strings.Contains(text, "\x1b["); coloured != test.colour {
				t.Errorf("coloured: %t\n%s", coloured, text)
			}
			if first, _, _ := strings.Cut(text, "\n"); json.Valid([]byte(first)) != test.json {
				t.Errorf("JSON: %t\n%s", !test.json, text)
			}
		})
	}
}

func TestQuickstartIsColouredOnATerminal(t *testing.T) {
	for environment, colour := range map[string]bool{"NO_COLOR=": true, "NO_COLOR=1": false} {
		t.Run(environment, func(t *testing.T) {
			t.Parallel()
			p := onTerminal(t, []string{environment}, "quickstart", "--once")
			text := p.told(t, "All as it must be.")
			if coloured := strings.Contains(text, "\x1b[32mok\x1b[0m") && strings.Contains(text, "\x1b[1mface"); coloured != colour {
				t.Errorf("coloured: %t\n%s", coloured, text)
			}
			if !colour && strings.Contains(text, "\x1b") {
				t.Errorf("still coloured:\n%s", text)
			}
		})
	}
}

func TestTailIsColouredOnATerminal(t *testing.T) {
	for environment, colour := range map[string]bool{"NO_COLOR=": true, "NO_COLOR=1": false} {
		t.Run(environment, func(t *testing.T) {
			t.Parallel()
			g := &telling{all: []*adminv1.TailResponse{{Decisions: []*adminv1.Decision{{Outcome: "allow", Reason: "valid"}}}}, silent: true}
			p := onTerminal(t, []string{environment}, "tail", "--admin", answered(t, g))
			p.await(t, "decision", p.err, func(text string) bool { return strings.Contains(text, "\n") })
			p.signal(t, syscall.SIGINT)
			if text := p.told(t, "valid"); strings.Contains(text, "\x1b[32mallow") != colour || strings.Contains(text, "\x1b") != colour {
				t.Errorf("coloured: %t\n%s", !colour, text)
			}
		})
	}
}

// TestTopDrawsOnATerminal what goes on, as wide as that is, until q.
func TestTopDrawsOnATerminal(t *testing.T) {
	t.Parallel()
	e := endpoint(t)
	g := serve(t, nil, onLoopback(e.URL()))
	good := token(t, e)
	for name, test := range map[string]struct {
		columns     uint16
		environment string
		end         func(p *program, controller *os.File)
		missing     string
	}{
		"wide, q":      {120, "NO_COLOR=", func(_ *program, c *os.File) { _, _ = c.WriteString("q") }, ""},
		"wide, Ctrl-C": {120, "NO_COLOR=1", func(_ *program, c *os.File) { _, _ = c.WriteString("\x03") }, "\x1b[32m"},
		"narrow, TERM": {30, "NO_COLOR=1", func(p *program, _ *os.File) { p.signal(t, syscall.SIGTERM) }, "measured"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := command("top", "--admin", g.address["admin"], "--interval", "100ms")
			p.Env = append(p.Env, test.environment, "TERM=xterm-256color")
			controller, terminal := openTerminal(t)
			if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 40, Col: test.columns}); err != nil {
				t.Fatal(err)
			}
			p.Stdin, p.Stdout, p.Stderr = terminal, terminal, terminal
			p.run(t)
			read := make(chan struct{})
			go func() {
				defer close(read)
				_, _ = io.Copy(p.err, controller) // ends with EIO when the program has ended
			}()
			p.await(t, "picture", p.err, func(text string) bool {
				return strings.Contains(text, "\x1b[?1049h") && strings.Contains(text, "decisions/s")
			})
			eventually(t, "reason", func() error {
				mustGet(t, g.address["auth_request"], "/auth", good, http.StatusOK)
				if !strings.Contains(p.err.String(), "valid") {
					return io.ErrUnexpectedEOF
				}
				return nil
			})
			test.end(p, controller)
			if code := p.code(t); code != exitGood {
				t.Errorf("it ended with %d", code)
			}
			eventually(t, "screen from before", func() error {
				if !strings.Contains(p.err.String(), "\x1b[?1049l") {
					return io.ErrUnexpectedEOF
				}
				return nil
			})
			_ = terminal.Close()
			<-read
			text := p.err.String()
			expectHidden(t, text, good)
			if test.missing != "" && strings.Contains(text, test.missing) {
				t.Errorf("it draws %q", test.missing)
			}
		})
	}
}

func TestEmulateIsReadableOnATerminal(t *testing.T) {
	t.Parallel()
	p := onTerminal(t, []string{"NO_COLOR=1"}, "emulate", "--listen", "127.0.0.1:0")
	p.await(t, "line listening", p.err, func(text string) bool { return strings.Contains(text, " listening listener=emulator ") })
	p.signal(t, syscall.SIGTERM)
	p.told(t, "client secret: ")
}

func TestConfigInitAsksOnATerminal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := command("config", "init")
	p.Dir = dir
	controller, terminal := openTerminal(t)
	p.Stdin, p.Stdout, p.Stderr = terminal, terminal, terminal
	if _, err := controller.WriteString("nginx\n\n\ngateway.yaml\n"); err != nil {
		t.Fatal(err)
	}
	p.run(t)
	_ = terminal.Close() // the program has its own
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(p.err, controller) // ends with EIO when the program has ended
	}()
	if code := p.code(t); code != exitGood {
		t.Errorf("ended with %d: %s", code, p.err.String())
	}
	<-read
	text, err := os.ReadFile(dir + "/gateway.yaml")
	if err != nil || !strings.Contains(string(text), "deploy/nginx/nginx.conf") {
		t.Errorf("%v: %s\n%s", err, text, p.err.String())
	}
	if !strings.Contains(p.err.String(), "Which proxy? envoy, envoy-http, nginx, caddy [envoy]: ") {
		t.Errorf("asked %s", p.err.String())
	}
}
