// Package watch tells that files may have changed.
//
// It promises to tell of every change within [Interval], and mostly at once: of a
// file that is written, of one that an editor puts in the place of the old, and of
// the symbolic link that Kubernetes turns to a new folder. It does not look into
// files, so it may tell of a change that is none.
package watch

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// Interval is how often it tells without a sign: a folder can be exchanged above
	// the one that is watched, and some file systems send no events.
	Interval = 10 * time.Second
	// settle is how long a folder must be quiet: a certificate and its key are two
	// files. longest is for one that never is.
	settle, longest = 100 * time.Millisecond, time.Second
)

// Files calls changed each time that one of the files may have changed, until ctx
// ends. The calls come one after the other. Which files these are is asked before
// each call, and a sign in others says that they are others now, and causes one.
// The files need not be there. The logger is told once if the system sends no
// events, and they are only looked at every [Interval].
func Files(ctx context.Context, files func() []string, others <-chan struct{}, logger *slog.Logger, changed func()) {
	events, follow, stop := open(logger)
	defer stop()
	tell(ctx, files, events, others, follow, changed)
}

// tell calls changed after events, and after the interval without any.
func tell(ctx context.Context, files func() []string, events, others <-chan struct{}, follow func(folders []string), changed func()) {
	follow(folders(files()))
	tick := time.NewTicker(Interval)
	defer tick.Stop()
	var quiet, overdue <-chan time.Time // not nil while there is something to tell
	for {
		select {
		case <-ctx.Done():
			return
		case <-events:
			quiet = time.After(settle)
			if overdue == nil {
				overdue = time.After(longest)
			}
			continue
		case <-others: // and something may have happened to them before they were followed
		case <-quiet:
		case <-overdue:
		case <-tick.C:
		}
		quiet, overdue = nil, nil
		follow(folders(files())) // by now they may be others
		changed()
	}
}

// folders are those of the files, and of what they are links to.
func folders(files []string) []string {
	var all []string
	for _, file := range files {
		all = append(all, filepath.Dir(file))
		if target, err := filepath.EvalSymlinks(file); err == nil {
			all = append(all, filepath.Dir(target))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// open gets the events of the folders that it is told to follow. Folders and not
// files are watched: a watch on a file stays with the old one when another takes
// its name.
func open(logger *slog.Logger) (events <-chan struct{}, follow func(folders []string), stop func()) {
	every := slog.String("every", Interval.String())
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		logger.Warn("the system tells of no changes to files; they are looked at now and then", slog.Any("error", err), every)
		return nil, func([]string) {}, func() {}
	}
	signs := make(chan struct{}, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		forward(watcher, func() {
			select {
			case signs <- struct{}{}:
			default: // there is one already
			}
		})
	}()
	told := false
	follow = func(folders []string) {
		for _, folder := range watcher.WatchList() {
			if !slices.Contains(folders, folder) {
				_ = watcher.Remove(folder) // what is gone is not watched any more
			}
		}
		for _, folder := range folders {
			if err := watcher.Add(folder); err != nil && !errors.Is(err, fs.ErrNotExist) && !told {
				told = true
				logger.Warn("the system tells of no changes in a folder; its files are looked at now and then",
					slog.Any("error", err), slog.String("folder", folder), every)
			}
		}
	}
	stop = func() {
		_ = watcher.Close()
		<-ended
	}
	return signs, follow, stop
}

// forward gives a sign for each event until the watcher is closed.
func forward(watcher *fsnotify.Watcher, sign func()) {
	for {
		select {
		case event, ok := <-watcher.Events:
			if !ok {
				return
			}
			if event.Op != fsnotify.Chmod {
				sign()
			}
		case _, ok := <-watcher.Errors:
			if !ok {
				return
			}
			sign() // events were lost
		}
	}
}
