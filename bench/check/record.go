package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bearergate/bearergate/bench/measure"
	"github.com/bearergate/bearergate/bench/page"
)

// Where all figures are, and the page that shows them; from the root of the project.
const (
	recordFile = "docs/performance.json"
	pageFile   = "docs/performance.md"
	plotFolder = "docs/images"
)

// record is all that was measured, part by part.
type record struct {
	Costs       *costs    `json:"costs,omitempty"`
	Open        *open     `json:"open,omitempty"`
	Connections *scaling  `json:"connections,omitempty"`
	Cores       *scaling  `json:"cores,omitempty"`
	Doors       *doors    `json:"doors,omitempty"`
	Tokens      *tokens   `json:"tokens,omitempty"`
	Clients     *clients  `json:"clients,omitempty"`
	Profile     *profiles `json:"profile,omitempty"`
	Edges       *edges    `json:"edges,omitempty"`
}

// taken says when and of what a part was measured.
type taken struct {
	On      string  `json:"on"`
	Commit  string  `json:"commit"`
	Machine machine `json:"machine"`
}

type machine struct {
	Processor string `json:"processor"`
	Cores     int    `json:"cores"`
	Kernel    string `json:"kernel"`
	Go        string `json:"go"`
}

func take(ctx context.Context) taken {
	return taken{On: time.Now().UTC().Format(time.DateOnly), Commit: commit(ctx), Machine: machine{
		Processor: processor(), Cores: measure.AllCores().Count, Kernel: kernel(),
		Go: runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH,
	}}
}

// String says it in a sentence.
func (t *taken) String() string {
	return fmt.Sprintf("Measured on %s at commit %s: %s, %d cores, Linux %s, %s.", t.On, t.Commit, t.Machine.Processor, t.Machine.Cores, t.Machine.Kernel, t.Machine.Go)
}

// commit is what git says of the sources.
func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty=+").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func processor() string {
	file, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if name, ok := strings.CutPrefix(lines.Text(), "model name"); ok {
			return strings.TrimLeft(name, "\t :")
		}
	}
	return "unknown processor"
}

func kernel() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "unknown"
	}
	release, _, _ := strings.Cut(unix.ByteSliceToString(name.Release[:]), "-")
	return release
}

// readRecord reads what was measured before.
func readRecord() (*record, error) {
	text, err := os.ReadFile(recordFile)
	if err != nil {
		return nil, err
	}
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("%s: %w", recordFile, err)
	}
	return &r, nil
}

// write puts what was measured into the record, and writes the page anew. What was
// not measured this time stays.
func (b *bench) write() error {
	all, err := readRecord()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		all = &record{}
	case err != nil:
		return err
	}
	measured, err := json.Marshal(b.record)
	if err != nil {
		return err
	}
	old := *all
	*all = record{}
	if err := json.Unmarshal(measured, all); err != nil {
		return err
	}
	all.fill(&old)
	text, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(recordFile, append(text, '\n'), 0o644); err != nil { //nolint:gosec // documentation is for all
		return err
	}
	return writePage(all)
}

// fill takes from an older record what is missing.
func (r *record) fill(old *record) {
	keep(&r.Costs, old.Costs)
	keep(&r.Open, old.Open)
	keep(&r.Connections, old.Connections)
	keep(&r.Cores, old.Cores)
	keep(&r.Doors, old.Doors)
	keep(&r.Tokens, old.Tokens)
	keep(&r.Clients, old.Clients)
	keep(&r.Profile, old.Profile)
	keep(&r.Edges, old.Edges)
}

func keep[T any](now **T, old *T) {
	if *now == nil {
		*now = old
	}
}

// writePage writes the tables and plots of a record.
func writePage(r *record) error {
	for _, p := range parts() {
		for _, picture := range p.pictures(r) {
			svg, err := picture.svg()
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(plotFolder, picture.file()), svg, 0o644); err != nil { //nolint:gosec // documentation is for all
				return err
			}
		}
	}
	return page.Write(pageFile, sections(r))
}

// sections are what stands in the page, by the names of their places.
func sections(r *record) map[string]string {
	all := map[string]string{"summary": summary(r)}
	for _, p := range parts() {
		text := p.tables(r)
		for _, picture := range p.pictures(r) {
			text += fmt.Sprintf("\n![%s](images/%s)\n", picture.title, picture.file())
		}
		if text == "" {
			text = "Not measured yet.\n"
		}
		all[p.name] = text
	}
	return all
}

func (p *part) pictures(r *record) []picture {
	if p.plots == nil {
		return nil
	}
	return p.plots(r)
}
