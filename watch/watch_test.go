package watch_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/bearergate/bearergate/watch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is so short that what comes within it came by a sign, and not by the
// interval, which begins with the watch.
const patience = watch.Interval / 2

// watched starts to watch a file. The function waits for a sign after which the
// file holds a text.
func watched(t *testing.T, file string) (becomes func(text string)) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	signs, ended := make(chan struct{}, 100), make(chan struct{})
	go func() {
		defer close(ended)
		watch.Files(ctx, only(file), nil, slog.New(slog.DiscardHandler), func() { signs <- struct{}{} })
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	// The watch has begun when it tells of another file of the folder.
	late := time.After(patience)
	for begun := false; !begun; {
		put(t, filepath.Join(filepath.Dir(file), "other"), "x")
		select {
		case <-signs:
			begun = true
		case <-time.After(10 * time.Millisecond):
		case <-late:
			t.Fatal("no sign at all")
		}
	}
	// The last of those may not have been told yet.
	for quiet := false; !quiet; {
		select {
		case <-signs:
		case <-time.After(500 * time.Millisecond):
			quiet = true
		}
	}
	return func(text string) {
		t.Helper()
		late := time.After(patience)
		for {
			select {
			case <-signs:
				if got, _ := os.ReadFile(file); string(got) == text {
					return
				}
			case <-late:
				t.Fatalf("no sign that the file holds %s", text)
			}
		}
	}
}

// only are files that stay the same.
func only(files ...string) func() []string { return func() []string { return files } }

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, to, path string) {
	t.Helper()
	if err := os.Symlink(to, path+".new"); err != nil {
		t.Fatal(err)
	}
	rename(t, path+".new", path)
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
}

func TestEveryWayToChangeAFileIsSeen(t *testing.T) {
	for name, test := range map[string]struct {
		before func(t *testing.T, dir string) (file string)
		change func(t *testing.T, dir, text string)
	}{
		"it is written": {
			func(t *testing.T, dir string) string { put(t, dir+"/f", "a"); return dir + "/f" },
			func(t *testing.T, dir, text string) { put(t, dir+"/f", text) },
		},
		"an editor puts another in its place": {
			func(t *testing.T, dir string) string { put(t, dir+"/f", "a"); return dir + "/f" },
			func(t *testing.T, dir, text string) { put(t, dir+"/.f.swp", text); rename(t, dir+"/.f.swp", dir+"/f") },
		},
		"an editor moves it away and writes a new one": {
			func(t *testing.T, dir string) string { put(t, dir+"/f", "a"); return dir + "/f" },
			func(t *testing.T, dir, text string) { rename(t, dir+"/f", dir+"/f~"); put(t, dir+"/f", text) },
		},
		"it comes to be": {
			func(_ *testing.T, dir string) string { return dir + "/f" },
			func(t *testing.T, dir, text string) { put(t, dir+"/f", text) },
		},
		"Kubernetes turns its link to a new folder": {
			func(t *testing.T, dir string) string {
				mkdir(t, dir+"/..2026_01")
				put(t, dir+"/..2026_01/f", "a")
				link(t, "..2026_01", dir+"/..data")
				link(t, "..data/f", dir+"/f")
				return dir + "/f"
			},
			func(t *testing.T, dir, text string) {
				mkdir(t, dir+"/..2026_"+text)
				put(t, dir+"/..2026_"+text+"/f", text)
				link(t, "..2026_"+text, dir+"/..data")
			},
		},
		"the file behind its link is written": {
			func(t *testing.T, dir string) string {
				mkdir(t, dir+"/archive")
				mkdir(t, dir+"/live")
				put(t, dir+"/archive/f1", "a")
				link(t, "../archive/f1", dir+"/live/f")
				return dir + "/live/f"
			},
			func(t *testing.T, dir, text string) { put(t, dir+"/archive/f1", text) },
		},
		"its link is turned to another file": {
			func(t *testing.T, dir string) string {
				mkdir(t, dir+"/archive")
				mkdir(t, dir+"/live")
				put(t, dir+"/archive/f1", "a")
				link(t, "../archive/f1", dir+"/live/f")
				return dir + "/live/f"
			},
			func(t *testing.T, dir, text string) {
				put(t, dir+"/archive/f"+text, text)
				link(t, "../archive/f"+text, dir+"/live/f")
			},
		},
		"its link is turned to another folder, where it is written": {
			func(t *testing.T, dir string) string {
				mkdir(t, dir+"/old")
				mkdir(t, dir+"/live")
				put(t, dir+"/old/f", "a")
				link(t, "../old/f", dir+"/live/f")
				return dir + "/live/f"
			},
			func(t *testing.T, dir, text string) {
				if text == "b" {
					mkdir(t, dir+"/new")
					put(t, dir+"/new/f", text)
					link(t, "../new/f", dir+"/live/f")
				} else {
					put(t, dir+"/new/f", text)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := test.before(t, dir)
			becomes := watched(t, file)
			// The watch has begun when it tells of something, if only of its interval.
			test.change(t, dir, "b")
			becomes("b")
			// What was exchanged is watched now.
			test.change(t, dir, "c")
			becomes("c")
		})
	}
}

// Without any event, as on a file system that sends none.
func TestTheIntervalTellsWithoutASign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		begun := time.Now()
		var told []time.Duration
		watch.Tell(ctx, only("/nowhere/f"), nil, nil, func([]string) {}, func() {
			if told = append(told, time.Since(begun)); len(told) == 3 {
				stop()
			}
		})
		for i, at := range told {
			if want := time.Duration(i+1) * watch.Interval; at != want {
				t.Errorf("sign %d after %v, want %v", i+1, at, want)
			}
		}
	})
}

// A certificate and its key are two files: who reads them after the first event
// finds two that do not belong together.
func TestEventsThatComeTogetherAreOneSign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		events := make(chan struct{})
		begun := time.Now()
		var told []time.Duration
		go func() {
			defer stop()
			for range 3 {
				events <- struct{}{}
				<-time.After(50 * time.Millisecond)
			}
			<-time.After(850 * time.Millisecond)
			for range 40 { // a folder that is never quiet
				events <- struct{}{}
				<-time.After(50 * time.Millisecond)
			}
		}()
		watch.Tell(ctx, only("/nowhere/f"), events, nil, func([]string) {}, func() { told = append(told, time.Since(begun)) })
		if len(told) != 3 || told[0] != 200*time.Millisecond || told[1] != 2*time.Second || told[2] != 3*time.Second {
			t.Errorf("told after %v", told)
		}
	})
}

// What cannot be watched is said once, and looked at all the same.
func TestAFolderThatCannotBeWatchedIsNamedOnce(t *testing.T) {
	dir := t.TempDir()
	put(t, dir+"/f", "a")
	var log strings.Builder
	ctx, stop := context.WithCancel(t.Context())
	stop()
	// A file cannot be a folder: ENOTDIR stands for whatever the system has against it.
	watch.Files(ctx, only(dir+"/f/g", dir+"/f/h/i"), nil, slog.New(slog.NewTextHandler(&log, nil)), func() {})
	if got := strings.Count(log.String(), "the system tells of no changes in a folder"); got != 1 {
		t.Errorf("the log says it %d times: %s", got, log.String())
	}
}

// TestOtherFilesAreFollowedAtOnce: when the files are others, those are told of, and
// those from before no more.
func TestOtherFilesAreFollowedAtOnce(t *testing.T) {
	before, after := t.TempDir(), t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	signs, others, ended := make(chan struct{}, 100), make(chan struct{}), make(chan struct{})
	var current atomic.Pointer[string]
	current.Store(&before)
	go func() {
		defer close(ended)
		watch.Files(ctx, func() []string { return []string{*current.Load() + "/f"} }, others, slog.New(slog.DiscardHandler), func() { signs <- struct{}{} })
	}()
	defer func() {
		stop()
		<-ended
	}()
	late := time.After(patience)
	told := func(what string) {
		t.Helper()
		select {
		case <-signs:
		case <-late:
			t.Fatalf("no sign %s", what)
		}
	}
	current.Store(&after)
	others <- struct{}{}
	told("because the files are others")
	put(t, after+"/f", "x")
	told("of the new file")
	for quiet := false; !quiet; { // it may be told twice
		select {
		case <-signs:
		case <-time.After(500 * time.Millisecond):
			quiet = true
		}
	}
	put(t, before+"/f", "y")
	select {
	case <-signs:
		t.Error("a sign of the old file")
	case <-time.After(300 * time.Millisecond):
	}
}
