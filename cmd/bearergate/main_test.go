package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"go.uber.org/goleak"
)

// TestMain lets the test binary be the programs that the tests start, by the name
// it is called by: bearergate itself, and proxies that do what a real one should
// not. So they are built once, and with the race detector when the tests are.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "bearergate":
		main()
	case "open-door":
		openDoor()
	case "dying-proxy":
		dyingProxy()
	case "deaf-proxy":
		deafProxy()
	default:
		os.Exit(runTests(m))
	}
}

// runTests runs the tests with the programs in PATH, and fails if they leave
// goroutines behind.
func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "bearergate-test-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{"bearergate", "open-door", "dying-proxy", "deaf-proxy"} {
		if err := install(filepath.Join(dir, name)); err != nil {
			panic(err)
		}
	}
	os.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
	// The race detector lets every program that ends well wait for a second.
	os.Setenv("GORACE", strings.TrimSpace(os.Getenv("GORACE")+" atexit_sleep_ms=0"))
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// install gives the test binary another name. Not by a symbolic link: then
// os.Executable would return the old one.
func install(path string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if os.Link(self, path) == nil {
		return nil
	}
	binary, err := os.ReadFile(self) // it lies on another file system
	if err != nil {
		return err
	}
	return os.WriteFile(path, binary, 0o700)
}

// inside runs a command line in this process.
func inside(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(""), &out, &err)
	return code, out.String(), err.String()
}

// commands calls f with each command and the words that call it.
func commands(f func(cmd *cobra.Command, words []string)) {
	var walk func(cmd *cobra.Command, words []string)
	walk = func(cmd *cobra.Command, words []string) {
		f(cmd, words)
		for _, sub := range cmd.Commands() {
			walk(sub, append(slices.Clip(words), sub.Name()))
		}
	}
	walk(newRootCommand(), nil)
}

func TestEveryHelpShowsAnExampleThatTheCommandUnderstands(t *testing.T) {
	var all []string
	commands(func(cmd *cobra.Command, words []string) {
		all = append(all, strings.Join(words, " "))
		t.Run("bearergate "+strings.Join(words, " "), func(t *testing.T) {
			for _, line := range [][]string{append(slices.Clip(words), "--help"), append([]string{"help"}, words...)} {
				code, help, stderr := inside(t, line...)
				if code != exitGood || stderr != "" {
					t.Errorf("%q ended with %d: %s", line, code, stderr)
				}
				if !strings.Contains(help, "\nExamples:\n"+cmd.Example+"\n") || !strings.HasPrefix(cmd.Example, "  ") {
					t.Errorf("%q shows no example:\n%s", line, help)
				}
				for text := range strings.Lines(help) {
					if len(text) > 132 && !strings.HasPrefix(strings.TrimSpace(text), "-") { // what pflag lays out may be longer
						t.Errorf("a line is too long for a screen: %s", text)
					}
				}
			}
			mine := false
			for line := range strings.Lines(cmd.Example) {
				for part := range strings.FieldsFuncSeq(line, func(r rune) bool { return strings.ContainsRune("|>(<)\n", r) }) {
					call := strings.Fields(part)
					if len(call) == 0 || call[0] != "bearergate" {
						continue // source, or a file that a shell writes to
					}
					about, rest, err := newRootCommand().Find(call[1:])
					if err == nil {
						err = about.ParseFlags(rest)
					}
					if err == nil && about.Name() != "help" {
						err = about.ValidateArgs(about.Flags().Args())
					}
					if err == nil {
						err = about.ValidateRequiredFlags()
					}
					if err != nil {
						t.Errorf("its own example %q: %v", line, err)
					}
					mine = mine || strings.HasPrefix(about.CommandPath(), cmd.CommandPath())
				}
			}
			if !mine {
				t.Errorf("no example calls it: %s", cmd.Example)
			}
		})
	})
	for _, name := range []string{
		"", "serve", "quickstart", "emulate", "token", "verify", "explain", "status", "reload", "forget", "deny", "config", "config check", "version",
		"completion bash", "completion zsh", "completion fish",
	} {
		if !strings.Contains("\n"+strings.Join(all, "\n")+"\n", "\n"+name+"\n") {
			t.Errorf("there is no command %q", name)
		}
	}
}

// A token is not a file, not a command and not an argument, but people will try.
func TestNoCommandRepeatsWhatMayBeASecret(t *testing.T) {
	const token = "eyJhbGciOiJub25lIn0.e30.c2lnbmF0dXJl"
	commands(func(cmd *cobra.Command, words []string) {
		lines := [][]string{{token}, {"--", token}}
		for _, flag := range []string{"token-file", "client-secret-file"} {
			if cmd.Flags().Lookup(flag) != nil {
				lines = append(lines, []string{"--" + flag, token}, []string{"--" + flag + "=" + token})
			}
		}
		if cmd.Flags().Lookup("client-id") != nil {
			lines = append(lines, []string{"--client-id", "partner", "--client-secret", token}, []string{"--client-secret=" + token})
		}
		for _, line := range lines {
			line = append(slices.Clip(words), line...)
			t.Run(strings.ReplaceAll(strings.Join(line, " "), token, "TOKEN"), func(t *testing.T) {
				code, stdout, stderr := inside(t, line...)
				if code != exitWrong {
					t.Errorf("ended with %d", code)
				}
				if !strings.HasPrefix(stderr, "bearergate: ") || strings.Count(stderr, "\n") != 1 {
					t.Errorf("not one line on standard error: %q", stderr)
				}
				if strings.Contains(stdout+stderr, token) {
					t.Errorf("repeated: %s%s", stdout, stderr)
				}
			})
		}
	})
}

func TestNoFlagTakesASecretAsItsValue(t *testing.T) {
	commands(func(cmd *cobra.Command, words []string) {
		for _, flag := range []string{"client-secret", "secret", "token", "password"} {
			if cmd.Flags().Lookup(flag) != nil {
				t.Errorf("bearergate %s has the flag --%s; every user of the machine can read it", strings.Join(words, " "), flag)
			}
		}
	})
}

func TestEveryChoiceCompletesAndRefusesOtherWords(t *testing.T) {
	for _, test := range []struct {
		words []string
		flag  string
		want  []string
	}{
		{[]string{"quickstart"}, "--edge", []string{"envoy", "nginx"}},
		{[]string{"quickstart"}, "--output", []string{"text", "json"}},
		{[]string{"emulate"}, "--log-format", []string{"auto", "json", "text"}},
		{[]string{"token"}, "--output", []string{"text", "json"}},
		{[]string{"verify"}, "--output", []string{"text", "json"}},
		{[]string{"verify"}, "--encoding", []string{"multipart", "form"}},
		{[]string{"config", "check"}, "--output", []string{"text", "json"}},
		{[]string{"explain"}, "--output", []string{"text", "json"}},
		{[]string{"version"}, "--output", []string{"text", "json"}},
	} {
		t.Run(strings.Join(test.words, " ")+" "+test.flag, func(t *testing.T) {
			code, stdout, _ := inside(t, append(append([]string{"__complete"}, test.words...), test.flag, "")...)
			if got := strings.Fields(stdout); code != exitGood || strings.Join(got, " ") != strings.Join(test.want, " ")+" :4" {
				t.Errorf("completes with %q and ends with %d", got, code)
			}
			code, _, stderr := inside(t, append(test.words, test.flag, "other")...)
			if code != exitWrong || !strings.Contains(stderr, "write one of "+strings.Join(test.want, ", ")) {
				t.Errorf("another word ends with %d: %s", code, stderr)
			}
		})
	}
}

// A full disk must not look like success to a script.
func TestAnAnswerThatCannotBePrintedIsNotGood(t *testing.T) {
	for _, args := range [][]string{
		{"version"},
		{"version", "--output", "json"},
		{"completion", "bash"},
		{"completion", "zsh"},
		{"completion", "fish"},
		{"config", "check", "--config", "../../config/testdata/accepted/smallest.yaml"},
		{"quickstart", "--once"},
		{"quickstart", "--once", "--output", "json"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			var stderr bytes.Buffer
			code := run(t.Context(), args, strings.NewReader(""), full{}, &stderr)
			if code != exitUnknown || !strings.Contains(stderr.String(), io.ErrShortWrite.Error()) {
				t.Errorf("ended with %d: %s", code, stderr.String())
			}
		})
	}
}

// full is a disk without room.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, io.ErrShortWrite }
