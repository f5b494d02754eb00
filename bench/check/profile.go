package main

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/pprof/profile"

	"github.com/bearergate/bearergate/bench/measure"
	"github.com/bearergate/bearergate/bench/page"
)

// profiles say where the time of a check goes.
type profiles struct {
	taken
	// PGO says whether the gateway was built with its own profile, as users build it.
	PGO      bool             `json:"pgo"`
	Profiles []profileOfCheck `json:"profiles"`
}

type profileOfCheck struct {
	Name string        `json:"name"`
	CPU  time.Duration `json:"cpu_ns_per_check"`
	// Parts is how much of it each owner has, from 0 to 1.
	Parts map[string]float64 `json:"parts"`
	// Top are the functions that most is spent in.
	Top []function `json:"top"`
}

type function struct {
	Name string  `json:"name"`
	Part float64 `json:"part"`
}

// profileFor is how long each server is looked at.
const profileFor = 5 * time.Second

func measureProfile(ctx context.Context, b *bench) error {
	program := filepath.Join(b.dir, "profiled")
	p := &profiles{taken: take(ctx)}
	args := []string{"build", "-o", program}
	const pgo = "cmd/bearergate/default.pgo"
	if _, err := os.Stat(pgo); err == nil {
		p.PGO, args = true, append(args, "-pgo="+pgo)
	}
	b.progress.say("building a gateway that can be looked into")
	if out, err := exec.CommandContext(ctx, "go", append(args, "./bench/check")...).CombinedOutput(); err != nil { //nolint:gosec // our own words
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	newLoad, err := checks(measure.Connections, measure.InFlight)
	if err != nil {
		return err
	}
	for _, who := range []struct {
		name  string
		start func(file string) (*measure.Process, error)
	}{
		{"no-op on generated types", func(file string) (*measure.Process, error) {
			return measure.StartReference(ctx, "grpc", "-profile", file)
		}},
		{"gateway, --generated-codec", func(file string) (*measure.Process, error) {
			return b.profiledGateway(ctx, program, "-generated", "-profile", file)
		}},
		{"gateway", func(file string) (*measure.Process, error) {
			return b.profiledGateway(ctx, program, "-profile", file)
		}},
	} {
		b.progress.say("looking into: %s", who.name)
		got, err := profileOne(ctx, who.start, newLoad, filepath.Join(b.dir, "cpu.pprof"))
		if err != nil {
			return fmt.Errorf("%s: %w", who.name, err)
		}
		got.Name = who.name
		p.Profiles = append(p.Profiles, got)
	}
	b.record.Profile = p
	return nil
}

func (b *bench) profiledGateway(ctx context.Context, program string, flags ...string) (*measure.Process, error) {
	requests, err := measure.Typical().Numbered()
	if err != nil {
		return nil, err
	}
	return measure.Gateway{Program: program, Flags: flags, Dir: b.dir, Tokens: requests.Tokens(tokensInUse)}.Start(ctx)
}

func profileOne(ctx context.Context, start func(string) (*measure.Process, error), newLoad loader, file string) (got profileOfCheck, err error) {
	if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
		return got, err
	}
	server, err := start(file)
	if err != nil {
		return got, err
	}
	l, err := newLoad(ctx, server)
	if err != nil {
		server.Close()
		return got, err
	}
	turn, err := measure.Take(ctx, server, l, profileFor)
	_ = l.Close()
	server.Close() // it writes its profile now
	if err != nil {
		return got, err
	}
	f, err := os.Open(file)
	if err != nil {
		return got, err
	}
	defer f.Close()
	read, err := profile.Parse(f)
	if err != nil {
		return got, err
	}
	got.CPU = turn.CPU
	got.Parts, got.Top = dissect(read)
	if len(got.Parts) == 0 {
		return got, fs.ErrInvalid
	}
	return got, nil
}

// dissect says which part of a profile is whose, and which functions have most.
func dissect(p *profile.Profile) (map[string]float64, []function) {
	parts, functions := map[string]float64{}, map[string]float64{}
	all := 0.0
	for _, s := range p.Sample {
		value := float64(s.Value[len(s.Value)-1])
		var stack []string // from the innermost frame
		for _, location := range s.Location {
			for _, line := range location.Line {
				stack = append(stack, line.Function.Name)
			}
		}
		if len(stack) == 0 {
			continue
		}
		all += value
		parts[ownerOf(stack)] += value
		functions[stack[0]] += value
	}
	for name := range parts {
		parts[name] /= all
	}
	var top []function
	for name, value := range functions {
		top = append(top, function{name, value / all})
	}
	slices.SortFunc(top, func(a, b function) int { return cmp.Or(cmp.Compare(b.Part, a.Part), strings.Compare(a.Name, b.Name)) })
	return parts, top[:min(len(top), 12)]
}

// owner is a part of the work of a check.
type owner struct {
	name, whose string
	anywhere    []string // a function that begins so, wherever in the stack
	first       []string // the innermost function that anybody claims begins so
}

// owners are asked in this order.
func owners() []owner {
	return []owner{
		{"reading and writing sockets", "the kernel's", []string{"syscall.read", "syscall.write", "syscall.Syscall", "internal/poll.ignoringEINTRIO"}, nil},
		{"waiting for sockets and threads", "the kernel's and Go's", []string{"runtime.netpoll", "runtime.futex", "runtime.usleep", "runtime.osyield"}, nil},
		{"growing stacks", "Go's", []string{"runtime.newstack", "runtime.morestack", "runtime.copystack"}, nil},
		{"allocating memory and collecting it", "Go's, for whoever allocates", []string{
			"runtime.mallocgc", "runtime.gcBgMarkWorker", "runtime.gcAssistAlloc", "runtime.bgsweep", "runtime.bgscavenge", "runtime.gcStart", "runtime.deductAssistCredit",
			"runtime.gcWriteBarrier", "runtime.wbBuf", "runtime.(*mcache)", "runtime.(*mheap)", "runtime.(*sweep",
		}, nil},
		{"goroutines, channels and select", "Go's, for grpc-go", []string{
			"runtime.selectgo", "runtime.chansend", "runtime.chanrecv", "runtime.schedule", "runtime.mcall", "runtime.park_m", "runtime.goready", "runtime.newproc", "runtime.gopark",
			"runtime.findRunnable", "runtime.systemstack", "runtime.closechan", "runtime.goexit0", "runtime.gdestroy",
		}, nil},
		{"header fields (HPACK)", "x/net's", nil, []string{"golang.org/x/net/http2/hpack."}},
		{"HTTP/2 frames", "x/net's", nil, []string{"golang.org/x/net/http2."}},
		{"reading and writing messages by generated types", "protobuf's", nil, []string{
			"google.golang.org/protobuf", "github.com/envoyproxy/go-control-plane", "google.golang.org/grpc/encoding/proto", "google.golang.org/genproto", "unicode/utf8.",
		}},
		{"reading and writing checks", "ours", nil, []string{"github.com/bearergate/bearergate/extauthz."}},
		{"deciding: token, digest, cache, counting", "ours", nil, []string{
			"github.com/bearergate/bearergate/", "github.com/dgraph-io/ristretto", "github.com/prometheus", "crypto/", "github.com/cespare/xxhash",
		}},
		{"streams and calls", "grpc-go's", nil, []string{"google.golang.org/grpc"}},
	}
}

// other is what nobody claims.
const other = "other"

// ownerOf says whose a stack is, innermost function first.
func ownerOf(stack []string) string {
	all := owners()
	for _, o := range all {
		for _, function := range stack {
			if beginsWithAny(function, o.anywhere) {
				return o.name
			}
		}
	}
	for _, function := range stack {
		for _, o := range all {
			if beginsWithAny(function, o.first) {
				return o.name
			}
		}
	}
	return other
}

func beginsWithAny(text string, beginnings []string) bool {
	return slices.ContainsFunc(beginnings, func(b string) bool { return strings.HasPrefix(text, b) })
}

// ownerNames are all owners that have a part in one of the profiles.
func (p *profiles) owners() []owner {
	all := append(owners(), owner{name: other, whose: "–"})
	return slices.DeleteFunc(all, func(o owner) bool {
		return !slices.ContainsFunc(p.Profiles, func(p profileOfCheck) bool { return p.Parts[o.name] >= .001 })
	})
}

func profileTables(r *record) string {
	if r.Profile == nil {
		return ""
	}
	p := r.Profile
	head, total := []string{"µs of a check", "whose"}, []string{"**all**", ""}
	for i := range p.Profiles {
		head = append(head, p.Profiles[i].Name)
		total = append(total, fmt.Sprintf("**%.1f**", float64(p.Profiles[i].CPU)/1e3))
	}
	var rows [][]string
	for _, o := range p.owners() {
		row := []string{o.name, o.whose}
		for i := range p.Profiles {
			row = append(row, fmt.Sprintf("%.1f", p.Profiles[i].Parts[o.name]*float64(p.Profiles[i].CPU)/1e3))
		}
		rows = append(rows, row)
	}
	var top [][]string
	last := &p.Profiles[len(p.Profiles)-1]
	for _, f := range last.Top {
		top = append(top, []string{"`" + f.Name + "`", fmt.Sprintf("%.1f %%", 100*f.Part)})
	}
	built := "The gateway was built without a profile (PGO)."
	if p.PGO {
		built = "The gateway was built with its profile (PGO), the no-op without one."
	}
	return p.String() + " " + built + "\n\n" + page.Table(head, append(rows, total)) +
		"\nThe functions that the gateway itself spends most in:\n\n" + page.Table([]string{"function", "of the gateway's time"}, top)
}

func profilePlots(r *record) []picture {
	if r.Profile == nil {
		return nil
	}
	p := picture{name: "profile", title: "Where the time of a check goes", y: "µs"}
	for i := range r.Profile.Profiles {
		p.bars = append(p.bars, r.Profile.Profiles[i].Name)
	}
	for _, o := range r.Profile.owners() {
		l := layer{name: o.name}
		for i := range r.Profile.Profiles {
			of := &r.Profile.Profiles[i]
			l.values = append(l.values, of.Parts[o.name]*float64(of.CPU)/1e3)
		}
		p.layers = append(p.layers, l)
	}
	return []picture{p}
}
