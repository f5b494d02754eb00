package config

import (
	"fmt"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"

	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
)

// diagnostics are what an operator is told of the process and its machine. Nothing of
// requests is in it, and no secret.
func (g *Gateway) diagnostics() *adminv1.DiagnosticsResponse {
	d := &adminv1.DiagnosticsResponse{}
	add := func(name, value string) {
		if value = strings.TrimSpace(value); value != "" {
			d.Facts = append(d.Facts, &adminv1.Fact{Name: name, Value: value})
		}
	}
	add("version", g.version)
	d.Modules = build(add)
	process(add)
	machine(add)
	d.Environment = environment(os.Environ())
	return d
}

// build tells how the program was built, and returns what of.
func build(add func(name, value string)) (modules []string) {
	add("go", runtime.Version()+" "+runtime.GOOS+"/"+runtime.GOARCH)
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	for _, s := range info.Settings {
		if slices.Contains([]string{"vcs.revision", "vcs.time", "vcs.modified", "CGO_ENABLED", "GOAMD64", "GOARM64", "-race", "-tags"}, s.Key) {
			add("build "+s.Key, s.Value)
		}
	}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		modules = append(modules, m.Path+" "+m.Version)
	}
	return modules
}

// process tells how the process stands.
func process(add func(name, value string)) {
	add("processors", fmt.Sprintf("%d, of which it uses %d", runtime.NumCPU(), runtime.GOMAXPROCS(0)))
	add("goroutines", strconv.Itoa(runtime.NumGoroutine()))
	samples := []metrics.Sample{
		{Name: "/gc/gogc:percent"}, {Name: "/gc/gomemlimit:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/total:bytes"}, {Name: "/gc/cycles/total:gc-cycles"},
	}
	metrics.Read(samples)
	for _, s := range samples {
		if s.Value.Kind() == metrics.KindUint64 {
			add("go "+s.Name, strconv.FormatUint(s.Value.Uint64(), 10))
		}
	}
	add("user", fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid()))
	for _, line := range []string{"VmRSS", "VmSwap", "Threads", "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches", "Cpus_allowed_list", "Seccomp", "NoNewPrivs"} {
		add("process "+line, lineOf("/proc/self/status", line+":"))
	}
	for _, line := range []string{"Max open files", "Max core file size", "Max address space", "Max processes"} {
		add("limit "+line, lineOf("/proc/self/limits", line))
	}
	if files, err := os.ReadDir("/proc/self/fd"); err == nil {
		add("open files", strconv.Itoa(len(files)))
	}
}

// machine tells what of the machine matters, and of the container.
func machine(add func(name, value string)) {
	for _, one := range [][2]string{
		{"kernel", "/proc/sys/kernel/osrelease"},
		{"load", "/proc/loadavg"},
		{"memory limit", "/sys/fs/cgroup/memory.max"},
		{"memory used", "/sys/fs/cgroup/memory.current"},
		{"processor limit", "/sys/fs/cgroup/cpu.max"},
		{"processor used", "/sys/fs/cgroup/cpu.stat"},
		{"core_pattern", "/proc/sys/kernel/core_pattern"},
		{"somaxconn", "/proc/sys/net/core/somaxconn"},
		{"local ports", "/proc/sys/net/ipv4/ip_local_port_range"},
	} {
		add(one[0], strings.ReplaceAll(strings.TrimSpace(systemFile(one[1])), "\n", "; "))
	}
	add("system", strings.Trim(lineOf("/etc/os-release", "PRETTY_NAME="), `"`))
	add("memory", lineOf("/proc/meminfo", "MemTotal:"))
	add("memory free", lineOf("/proc/meminfo", "MemAvailable:"))
}

// systemFile returns what a file of the system says; "" if it is not there.
func systemFile(path string) string {
	text, err := os.ReadFile(path)
	if err != nil || len(text) > 16<<10 {
		return ""
	}
	return string(text)
}

// lineOf returns what stands behind a word at the beginning of a line.
func lineOf(path, word string) string {
	for line := range strings.Lines(systemFile(path)) {
		if rest, ok := strings.CutPrefix(line, word); ok {
			return strings.Join(strings.Fields(rest), " ")
		}
	}
	return ""
}

// harmless are variables whose values are shown: they say how something is, and are no
// place for a secret.
var harmless = []string{
	"GOGC", "GOMEMLIMIT", "GOMAXPROCS", "GODEBUG", "GOTRACEBACK", "TZ", "OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG",
	"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_SERVICE_NAME", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_USEC",
}

// telling are beginnings and ends of names of variables that matter.
var telling = []string{"GO", "OTEL_", "SSL_CERT_", "BEARERGATE_", "LISTEN_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "TZ", "WATCHDOG_"}

// environment tells which variables that matter are set, and of some to what.
func environment(all []string) (told []*adminv1.Variable) {
	values := map[string]string{}
	for _, one := range all {
		name, value, _ := strings.Cut(one, "=")
		values[name] = value
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !slices.ContainsFunc(telling, func(begin string) bool { return strings.HasPrefix(strings.ToUpper(name), begin) }) {
			continue
		}
		v := &adminv1.Variable{Name: name}
		if slices.Contains(harmless, name) {
			v.Value = values[name]
		} else {
			v.Hidden = true
		}
		told = append(told, v)
	}
	return told
}
