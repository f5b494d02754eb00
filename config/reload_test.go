package config_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/bearergate/bearergate/admin"
	"github.com/bearergate/bearergate/config"
	"github.com/bearergate/bearergate/crmnow"
	configv1 "github.com/bearergate/bearergate/proto/bearergate/config/v1"
	"github.com/bearergate/bearergate/watch"
)

// reloading is a gateway with a configuration file of its own.
type reloading struct {
	*running

	file string
}

// runFrom runs a gateway whose configuration is in a file, which stands in a folder
// of its own.
func runFrom(t *testing.T, text string, options ...config.Option) *reloading {
	t.Helper()
	r := &reloading{file: filepath.Join(t.TempDir(), "bearergate.yaml")}
	r.write(t, text)
	c, source, err := config.Open(r.file)
	if err != nil {
		t.Fatal(err)
	}
	r.running = runParsed(t, c, append(options, config.From(source))...)
	eventually(t, "readiness", func() bool { return get(t, r.Address(config.Admin), "/readyz").status == http.StatusOK })
	return r
}

// write writes the file in place.
func (r *reloading) write(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(r.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// overwrite writes the file in place by a single call, so that whoever looks sees the
// one text or the other, and never none.
func (r *reloading) overwrite(t *testing.T, text string) {
	t.Helper()
	file, err := os.OpenFile(r.file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	text += strings.Repeat("\n", max(0, int(info.Size())-len(text))) // over the end of a longer one
	if _, err := file.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// replace puts another file in its place.
func (r *reloading) replace(t *testing.T, text string) {
	t.Helper()
	replace(t, r.file, text)
}

// replace puts another file in the place of one, so that nobody sees half of it.
func replace(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// become has the gateway read a text, and wants it in force.
func (r *reloading) become(t *testing.T, text string) {
	t.Helper()
	r.write(t, text)
	if got, err := r.Reload(t.Context()); err != nil || got.Result != admin.Applied {
		t.Fatalf("the reload ends with %+v, %v", got, err)
	}
}

// status is what the operator sees of the configuration.
func (r *reloading) status(t *testing.T) admin.Configuration {
	t.Helper()
	var shown struct {
		Status        string              `json:"status"`
		Configuration admin.Configuration `json:"configuration"`
	}
	if err := json.Unmarshal([]byte(get(t, r.Address(config.Admin), "/status").body), &shown); err != nil || shown.Status != "ready" {
		t.Errorf("/status says %+v, %v", shown, err)
	}
	return shown.Configuration
}

// told counts the lines of the log that begin so.
func (g *running) told(t *testing.T, level, message string) int {
	t.Helper()
	count := 0
	for _, e := range g.log.entries(t) {
		if e.Level == level && strings.HasPrefix(e.Message, message) {
			count++
		}
	}
	return count
}

// realm is that of the challenge that the HTTP face gives.
func (g *running) realm(t *testing.T) string {
	t.Helper()
	_, rest, _ := strings.Cut(get(t, g.Address(config.AuthRequest), "/auth").header.Get("WWW-Authenticate"), `realm="`)
	realm, _, _ := strings.Cut(rest, `"`)
	return realm
}

const realm = "default_policy: {realm: %s}\n"

func TestAReloadChangesTheAnswersAndKeepsWhatIsKnown(t *testing.T) {
	e := local(t)
	text := func(name string) string { return everywhere + asking(e.URL()) + fmt.Sprintf(realm, name) }
	g := runFrom(t, text("one"))
	envoy := g.envoy(t)
	token := issue(t, e)
	if got := g.ask(t, token); got.status != http.StatusOK {
		t.Fatalf("at first: %+v", got)
	}
	addresses := fmt.Sprint(g.Address(config.ExtAuthz), g.Address(config.AuthRequest), g.Address(config.Admin))
	since := g.status(t).InForceSince

	g.become(t, text("two"))
	reply, err := envoy.Check(t.Context(), checkRequest()) // on the connection from before
	if err != nil || !strings.Contains(reply.String(), `realm=\"two\"`) || g.realm(t) != "two" {
		t.Errorf("ext_authz: %v, %v; auth_request: %s", reply, err, g.realm(t))
	}
	if got := g.ask(t, token); got.status != http.StatusOK {
		t.Errorf("the known token: %+v", got)
	}
	if calls := e.Stats().Verify.Requests; calls != 1 {
		t.Errorf("%d calls, want 1: what is known of the token stays", calls)
	}
	if now := fmt.Sprint(g.Address(config.ExtAuthz), g.Address(config.AuthRequest), g.Address(config.Admin)); now != addresses {
		t.Errorf("the addresses are %s, were %s", now, addresses)
	}
	shown := g.status(t)
	if shown.File != g.file || !shown.InForceSince.After(since) || shown.LastReload.Result != admin.Applied {
		t.Errorf("shown: %+v", shown)
	}
	if g.told(t, "INFO", "another configuration is in force") != 1 || g.told(t, "INFO", "listening") != 3 {
		t.Errorf("the log says %+v", g.log.entries(t))
	}

	got, err := g.Reload(t.Context())
	if err != nil || got.Result != admin.Unchanged || g.told(t, "INFO", "the configuration was read again, and is the one in force") != 1 {
		t.Errorf("the same again: %+v, %v", got, err)
	}
	if now := g.status(t); !now.InForceSince.Equal(shown.InForceSince) {
		t.Errorf("it is in force since %v, and was since %v", now.InForceSince, shown.InForceSince)
	}
	if counted := g.metric(t, `bearergate_config_reloads_total{result="applied"}`) + g.metric(t, `bearergate_config_reloads_total{result="unchanged"}`); counted != "11" {
		t.Errorf("counted: %s", counted)
	}
}

func TestAWrongFileLeavesWhatWasInForce(t *testing.T) {
	inUse, opened := taken(t), free(t)
	e := local(t)
	good := everywhere + asking(e.URL()) + fmt.Sprintf(realm, "one")
	certificate := newTLS(t, http.NotFoundHandler())
	for name, test := range map[string]struct {
		change func(t *testing.T, g *reloading)
		want   string // of the error, behind the name of the file
		// found is so of what was not written in place: the watch tells of it, too.
		found bool
	}{
		"wrong YAML":       {change: func(t *testing.T, g *reloading) { g.write(t, good+"}") }, want: ":"},
		"an unknown field": {change: func(t *testing.T, g *reloading) { g.write(t, good+"realms: x\n") }, want: ":6:1: realms: "},
		"a taken address": {change: func(t *testing.T, g *reloading) {
			g.write(t, strings.Replace(good, `admin: {`, `more: [{name: new, auth_request: {address: "`+opened+`"}}, {name: taken, ext_authz: {address: "`+inUse+`"}}], admin: {`, 1))
		}, want: ": listeners.more[1].ext_authz.address: " + inUse + ": bind: address already in use; stop what listens there, or write another address"},
		"an empty file": {change: func(t *testing.T, g *reloading) { g.write(t, "") }, want: ":"},
		"no file": {change: func(t *testing.T, g *reloading) {
			if err := os.Remove(g.file); err != nil {
				t.Fatal(err)
			}
		}, want: ": there is no such file; give the path of the configuration file", found: true},
		"a pipe that nobody fills": {change: func(t *testing.T, g *reloading) {
			if err := syscall.Mkfifo(g.file+".new", 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(g.file+".new", g.file); err != nil {
				t.Fatal(err)
			}
		}, want: ": cannot be read; see that it is a file and that the gateway's user may read it", found: true},
		"a file of authorities that is none": {change: func(t *testing.T, g *reloading) {
			if err := os.WriteFile(filepath.Join(filepath.Dir(g.file), "ca.pem"), certificateOf(t, certificate)[:20], 0o600); err != nil {
				t.Fatal(err)
			}
			g.write(t, strings.Replace(good, fmt.Sprintf("{url: %q}", e.URL()), `{url: "https://api.example.com/", ca_file: ca.pem}`, 1))
		}, want: ":4:"},
	} {
		t.Run(name, func(t *testing.T) {
			before := watches(t)
			g := runFrom(t, good)
			// It begins to watch its file in the background, and may be ready before.
			eventually(t, "watch", func() bool { return watches(t) > before })
			descriptors := open(t)
			test.change(t, g)
			const said = "the configuration cannot be used; what was in force stays so"
			refusals := 1
			if test.found {
				eventually(t, "word of the watch", func() bool { return g.told(t, "ERROR", said) == 1 })
				refusals++ // who asks is told again
			}
			got, err := g.Reload(t.Context())
			if err == nil || got.Result != admin.Refused || got.Error != err.Error() || !strings.HasPrefix(err.Error(), g.file+test.want) {
				t.Fatalf("the reload ends with %+v, %v; want %s%s", got, err, g.file, test.want)
			}
			expectClosed(t, opened)
			if g.realm(t) != "one" {
				t.Errorf("the realm is %q", g.realm(t))
			}
			shown := g.status(t)
			if shown.LastReload == nil || shown.LastReload.Result != admin.Refused || shown.LastReload.Error != err.Error() {
				t.Errorf("shown: %+v", shown)
			}
			if g.metric(t, "bearergate_config_last_reload_successful") != "0" || g.metric(t, `bearergate_config_reloads_total{result="refused"}`) != strconv.Itoa(refusals) {
				t.Error("the metrics do not say so")
			}
			if g.told(t, "ERROR", said) != refusals {
				t.Errorf("the log says %+v", g.log.entries(t))
			}
			if text := get(t, g.Address(config.Admin), "/metrics").body; strings.Contains(text, `"new"`) || strings.Contains(text, `"taken"`) {
				t.Error("there are series of listeners that are not there")
			}
			eventually(t, "end of what was opened", func() bool { return open(t) <= descriptors })

			g.replace(t, strings.Replace(good, "one", "two", 1))
			if got, err := g.Reload(t.Context()); err != nil { // the watch may have taken it before
				t.Errorf("a good one ends with %+v, %v", got, err)
			}
			if g.realm(t) != "two" || g.metric(t, "bearergate_config_last_reload_successful") != "1" {
				t.Errorf("after a good one the realm is %q", g.realm(t))
			}
		})
	}
}

// open counts the file descriptors of this process.
func open(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// watches counts those of files among them.
func watches(t *testing.T) (n int) {
	t.Helper()
	all, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range all {
		if is, err := os.Readlink(one); err == nil && strings.Contains(is, "inotify") {
			n++
		}
	}
	return n
}

func TestAFileThatTakesTheOthersPlaceIsTaken(t *testing.T) {
	e := local(t)
	text := func(name string) string { return everywhere + asking(e.URL()) + fmt.Sprintf(realm, name) }
	t.Run("an editor renames", func(t *testing.T) {
		t.Parallel()
		g := runFrom(t, text("one"))
		for _, name := range []string{"two", "three", "four"} {
			g.replace(t, text(name))
			eventually(t, "realm "+name, func() bool { return g.realm(t) == name })
		}
	})
	t.Run("Kubernetes turns its link", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		put := func(name string) {
			t.Helper()
			folder := filepath.Join(dir, "..of_"+name)
			if err := os.Mkdir(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(folder+"/bearergate.yaml", []byte(text(name)), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("..of_"+name, folder+".link"); err != nil {
				t.Fatal(err)
			}
			before, _ := filepath.EvalSymlinks(dir + "/..data")
			if err := os.Rename(folder+".link", dir+"/..data"); err != nil {
				t.Fatal(err)
			}
			if before != "" { // as the kubelet does
				_ = os.RemoveAll(before)
			}
		}
		put("one")
		if err := os.Symlink("..data/bearergate.yaml", dir+"/bearergate.yaml"); err != nil {
			t.Fatal(err)
		}
		c, source, err := config.Open(dir + "/bearergate.yaml")
		if err != nil {
			t.Fatal(err)
		}
		g := runParsed(t, c, config.From(source))
		for _, name := range []string{"two", "three"} {
			put(name)
			eventually(t, "realm "+name, func() bool { return g.realm(t) == name })
		}
	})
	t.Run("it is written in place", func(t *testing.T) {
		t.Parallel()
		g := runFrom(t, text("one"))
		const said = "the configuration file was written in place and is not taken"
		// It is a good configuration up to here, and so could be taken for a whole one.
		g.overwrite(t, text("two")+"policies: []\n")
		eventually(t, "word of it", func() bool { return g.told(t, "WARN", said) == 1 })
		if g.realm(t) != "one" {
			t.Error("it was taken")
		}
		g.overwrite(t, text("three"))
		eventually(t, "word of another", func() bool { return g.told(t, "WARN", said) == 2 })
		if got, err := g.Reload(t.Context()); err != nil || got.Result != admin.Applied || g.realm(t) != "three" {
			t.Errorf("asked for, it ends with %+v, %v", got, err)
		}
		g.replace(t, text("four"))
		eventually(t, "realm four", func() bool { return g.realm(t) == "four" })
	})
	t.Run("a wrong one is told of once, and one that is mended is taken", func(t *testing.T) {
		t.Parallel()
		g := runFrom(t, text("one"))
		const said = "the configuration cannot be used"
		secret := filepath.Join(filepath.Dir(g.file), "edge.txt")
		needs := strings.Replace(text("two"), "auth_request: {", "auth_request: {trust: {secret: {file: edge.txt}}, ", 1)
		g.replace(t, needs) // Kubernetes brings a ConfigMap before the Secret that it needs
		eventually(t, "word of it", func() bool { return g.told(t, "ERROR", said) == 1 })
		if err := os.WriteFile(filepath.Join(filepath.Dir(g.file), "other"), nil, 0o600); err != nil { // looked at again
			t.Fatal(err)
		}
		replace(t, secret, "a-secret-of-the-edge")
		eventually(t, "the secret in force", func() bool {
			return get(t, g.Address(config.AuthRequest), "/auth", "X-Bearergate-Edge", "a-secret-of-the-edge").status == http.StatusUnauthorized && g.realmWith(t, "a-secret-of-the-edge") == "two"
		})
		if got := g.told(t, "ERROR", said); got != 1 {
			t.Errorf("told %d times", got)
		}
	})
}

func (g *running) realmWith(t *testing.T, secret string) string {
	t.Helper()
	_, rest, _ := strings.Cut(get(t, g.Address(config.AuthRequest), "/auth", "X-Bearergate-Edge", secret).header.Get("WWW-Authenticate"), `realm="`)
	realm, _, _ := strings.Cut(rest, `"`)
	return realm
}

func TestSecretsAreReadAgainWhenTheirFilesChange(t *testing.T) {
	e := local(t)
	credentials := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", credentials)
	for name, test := range map[string]struct{ source, file string }{
		"a file":       {`{file: edge.txt}`, "edge.txt"},
		"a credential": {`{credential: edge}`, filepath.Join(credentials, "edge")},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(everywhere, "auth_request: {", "auth_request: {trust: {secret: "+test.source+"}, ", 1) + asking(e.URL())
			folder := t.TempDir()
			file := test.file
			if !filepath.IsAbs(file) {
				file = filepath.Join(folder, file)
			}
			put := func(secret string) {
				t.Helper()
				replace(t, file, secret)
			}
			put("the-first-secret-of-all")
			if err := os.WriteFile(folder+"/b.yaml", []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			c, source, err := config.Open(folder + "/b.yaml")
			if err != nil {
				t.Fatal(err)
			}
			g := runParsed(t, c, config.From(source))
			believed := func(secret string) bool { return g.realmWith(t, secret) != "" }
			eventually(t, "the first secret", func() bool { return believed("the-first-secret-of-all") })
			put("another-secret-by-now")
			eventually(t, "the other secret", func() bool { return believed("another-secret-by-now") })
			if believed("the-first-secret-of-all") {
				t.Error("the first one is believed still")
			}
			put("short") // what cannot be used changes nothing
			eventually(t, "word of it", func() bool { return g.told(t, "ERROR", "the configuration cannot be used") == 1 })
			if !believed("another-secret-by-now") || believed("short") {
				t.Error("a secret that cannot be used changed what is believed")
			}
		})
	}
}

// TestFilesOfAnotherConfigurationAreWatchedAtOnce, and not only looked at now and
// then: in a folder that did not matter before.
func TestFilesOfAnotherConfigurationAreWatchedAtOnce(t *testing.T) {
	e := local(t)
	g := runFrom(t, everywhere+asking(e.URL()))
	secret := filepath.Join(t.TempDir(), "edge.txt")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(secret, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("the-first-secret-of-all")
	begin := time.Now()
	g.become(t, strings.Replace(everywhere, "auth_request: {", fmt.Sprintf("auth_request: {trust: {secret: {file: %q}}, ", secret), 1)+asking(e.URL()))
	put("another-secret-by-now")
	eventually(t, "the other secret", func() bool { return g.realmWith(t, "another-secret-by-now") != "" })
	if took := time.Since(begin); took >= watch.Interval {
		t.Errorf("it came by the interval, after %v", took)
	}
}

// TestAReloadBeforeTheStartCounts: what it takes away is gone, though nobody served
// there.
func TestAReloadBeforeTheStartCounts(t *testing.T) {
	e := local(t)
	file := filepath.Join(t.TempDir(), "b.yaml")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(everywhere + asking(e.URL()))
	c, source, err := config.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	g, err := config.NewGateway(t.Context(), c, (&journal{}).logger(), "test", config.From(source))
	if err != nil {
		t.Fatal(err)
	}
	gone := g.Address(config.ExtAuthz)
	put(strings.Replace(everywhere, `ext_authz: {address: "127.0.0.1:0"}, `, "", 1) + asking(e.URL()))
	if got, err := g.Reload(t.Context()); err != nil || got.Result != admin.Applied {
		t.Errorf("the reload ends with %+v, %v", got, err)
	}
	eventually(t, "end of the listener", func() bool { return !listens(t, gone) })
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := g.Run(ctx); err != nil {
		t.Error(err)
	}
}

func TestListenersComeGoAndMove(t *testing.T) {
	e := local(t)
	w := newWallet(t)
	dir := t.TempDir()
	at := func(lines string) string {
		return `listeners: {admin: {address: "127.0.0.1:0"}, ext_authz: {address: "127.0.0.1:0"}, ` + lines + "}\n" + asking(e.URL())
	}
	first := free(t)
	g := runFrom(t, at(fmt.Sprintf(`auth_request: {address: %q}`, first)))
	answers := func(address string) {
		t.Helper()
		if got := get(t, address, "/auth"); got.status != http.StatusUnauthorized {
			t.Errorf("%s says %+v", address, got)
		}
	}
	answers(first)

	// Somebody asks all the while where nothing changes.
	stop, asked := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(asked)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if got := get(t, g.Address(config.Admin), "/readyz"); got.status != http.StatusOK {
				t.Errorf("/readyz says %+v", got)
				return
			}
			conn, err := net.Dial("tcp", g.Address(config.ExtAuthz))
			if err != nil {
				t.Error(err)
				return
			}
			_ = conn.Close()
		}
	}()
	defer func() {
		close(stop)
		<-asked
	}()

	g.become(t, at(`auth_request: {address: "127.0.0.1:0"}`)) // moves
	second := g.Address(config.AuthRequest)
	answers(second)
	eventually(t, "end of the old address", func() bool { return !listens(t, first) })
	if g.told(t, "INFO", "not listening any more") != 1 {
		t.Error("the log does not say that it moved")
	}

	unix := func(socket string) string {
		return fmt.Sprintf(`auth_request: {address: "127.0.0.1:0"}, more: [{name: edge, auth_request: {address: "unix:%s/s"%s}}]`, dir, socket)
	}
	g.become(t, at(unix(`, socket: {mode: "0600"}`))) // one comes
	answers(second)
	idle, err := net.Dial("unix", dir+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	for _, step := range []struct {
		socket string
		mode   fs.FileMode
	}{{`, socket: {mode: "0666"}`, 0o666}, {`, socket: {mode: "0620"}`, 0o620}} {
		g.become(t, at(unix(step.socket)))
		if info, err := os.Lstat(dir + "/s"); err != nil || info.Mode() != fs.ModeSocket|step.mode {
			t.Errorf("the socket is %v, %v; want %v", info.Mode(), err, step.mode)
		}
	}
	_, _ = io.WriteString(idle, "GET /auth HTTP/1.1\r\nHost: x\r\n\r\n")
	if got, err := io.ReadAll(io.LimitReader(idle, 12)); err != nil || string(got) != "HTTP/1.1 401" {
		t.Errorf("the connection from before says %q, %v", got, err)
	}
	g.become(t, at(`auth_request: {address: "127.0.0.1:0"}`)) // and goes
	expectClosed(t, "unix:"+dir+"/s")
	if g.Address("edge") != "" || strings.Contains(get(t, g.Address(config.Admin), "/metrics").body, `"edge"`) {
		t.Error("it is there still")
	}

	// The address stays and what is spoken there changes.
	g.become(t, at(fmt.Sprintf(`auth_request: {address: "127.0.0.1:0", tls: {%s}}`, w.lines(""))))
	if g.Address(config.AuthRequest) != second {
		t.Errorf("it listens at %s, before at %s", g.Address(config.AuthRequest), second)
	}
	resp, err := w.client(t).Get("https://" + second + "/auth")
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("over TLS: %v, %v", resp, err)
	} else {
		_ = resp.Body.Close()
	}
	if g.metric(t, `bearergate_certificate_last_reload_successful{listener="auth_request"}`) != "1" {
		t.Error("its certificate is not shown")
	}
	g.become(t, at(`auth_request: {address: "127.0.0.1:0"}`))
	answers(second)
	if strings.Contains(get(t, g.Address(config.Admin), "/metrics").body, "bearergate_certificate") {
		t.Error("its certificate is shown still")
	}

	// What overlaps with an address that is in use can only be opened at a start.
	_, port, _ := net.SplitHostPort(first)
	g.become(t, at(fmt.Sprintf(`auth_request: {address: %q}`, first)))
	g.write(t, at(fmt.Sprintf(`auth_request: {address: ":%s"}`, port)))
	if _, err := g.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "this gateway listens at "+first+" still, which is a part of it: ") {
		t.Errorf("an address around another one: %v", err)
	}
	answers(first)
}

// TestWhoConnectsAfterAReloadMeetsIt: an address stays and what is spoken there
// changes. Nobody meets what was there before, who may have had to show less.
func TestWhoConnectsAfterAReloadMeetsIt(t *testing.T) {
	e := local(t)
	w := newWallet(t)
	at := func(more string) string {
		return fmt.Sprintf(`listeners: {admin: {address: "127.0.0.1:0"}, ext_authz: {address: "127.0.0.1:0"%s}, auth_request: {address: "127.0.0.1:0"%[1]s}}`, more) +
			"\n" + asking(e.URL())
	}
	g := runFrom(t, at(""))
	for range 30 {
		g.become(t, at(fmt.Sprintf(", tls: {%s}", w.lines(""))))
		for _, name := range []string{config.ExtAuthz, config.AuthRequest} {
			conn, err := tls.Dial("tcp", g.Address(name), w.edge(t))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			_ = conn.Close()
		}
		g.become(t, at(""))
		if got := get(t, g.Address(config.AuthRequest), "/auth"); got.status != http.StatusUnauthorized {
			t.Fatalf("it says %+v", got)
		}
	}
}

func listens(t *testing.T, address string) bool {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}

// client speaks TLS with the gateway.
func (w *wallet) client(t *testing.T) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: w.edge(t), DisableKeepAlives: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// TestAVerifierThatIsReplacedAnswersToTheEnd: a request that waits for it gets its
// answer, and only then it is closed.
func TestAVerifierThatIsReplacedAnswersToTheEnd(t *testing.T) {
	before, after := local(t), local(t)
	g := runFrom(t, everywhere+asking(before.URL(), "timeout: 60s"))
	token := issue(t, before)
	if err := before.SetFault(crmnow.Verify, crmnow.Fault{Hang: true}); err != nil {
		t.Fatal(err)
	}
	answered := make(chan reply, 1)
	go func() { answered <- g.ask(t, token) }()
	waiting, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := before.AwaitVerifying(waiting, 1); err != nil {
		t.Fatal(err)
	}

	g.become(t, everywhere+asking(after.URL(), "timeout: 60s"))
	for range 5 {
		runtime.GC() // nobody but the request holds it
	}
	if got := g.ask(t, token); got.status != http.StatusUnauthorized || after.Stats().Verify.Requests != 1 {
		t.Errorf("a new request is not for the new endpoint: %+v", got)
	}
	select {
	case got := <-answered:
		t.Fatalf("it was cut off: %+v", got)
	default:
	}
	if g.Verifiers() != 2 {
		t.Errorf("there are %d verifiers, want the old one too", g.Verifiers())
	}
	if err := before.SetFault(crmnow.Verify, crmnow.Fault{}); err != nil {
		t.Fatal(err)
	}
	if got := <-answered; got.status != http.StatusOK {
		t.Errorf("the request that was under way: %+v", got)
	}
	eventually(t, "end of the old verifier", func() bool {
		runtime.GC()
		return g.Verifiers() == 1
	})
}

// TestWhatIsSaidOfAVerifierAndWhatItReadsMakeIt: nothing else does.
func TestWhatIsSaidOfAVerifierAndWhatItReadsMakeIt(t *testing.T) {
	e := local(t)
	g := runFrom(t, everywhere+asking(e.URL()))
	file := filepath.Join(filepath.Dir(g.file), "keys.json")
	newKey := func() {
		t.Helper()
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k"}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	newKey()
	text := func(crm, policy string) string {
		return everywhere + asking(e.URL(), crm) +
			"  - {name: idp, jwt: {issuer: \"https://idp.example.com\", audiences: [api], algorithms: [ES256], keys: {file: keys.json}}}\n" +
			"default_policy: {verifiers: [" + policy + "]}\n"
	}
	g.become(t, text("tokens: opaque", "crm, idp"))
	count := func() int {
		t.Helper()
		eventually(t, "end of what is not used", func() bool {
			runtime.GC()
			return g.Verifiers() == 2
		})
		return g.MadeVerifiers()
	}
	made := count()
	for _, step := range []struct {
		name   string
		change func()
		more   int // verifiers that are made
	}{
		{"other tokens, and another order", func() { g.become(t, text("tokens: any", "idp, crm")) }, 0},
		{"another time-out", func() { g.become(t, text("timeout: 4s", "idp, crm")) }, 1},
		{"another cache for all", func() { g.become(t, text("timeout: 4s", "idp, crm")+"cache: {valid_ttl: 30s}\n") }, 2},
		{"other keys in the file", func() {
			newKey()
			if got, err := g.Reload(t.Context()); err != nil || got.Result != admin.Applied && got.Result != admin.Unchanged {
				t.Fatalf("%+v, %v", got, err)
			}
		}, 1},
		{"a longer token", func() {
			g.become(t, text("timeout: 4s", "idp, crm")+"cache: {valid_ttl: 30s}\ncredential: {max_token_bytes: 9000}\n")
		}, 0},
	} {
		step.change()
		if now := count(); now-made != step.more {
			t.Errorf("%s: %d verifiers were made, want %d", step.name, now-made, step.more)
		}
		made = count()
	}
}

// TestAVerifierThatComesBackIsCountedAgain: its series went with it, though it was
// not closed yet.
func TestAVerifierThatComesBackIsCountedAgain(t *testing.T) {
	e := local(t)
	g := runFrom(t, everywhere+asking(e.URL()))
	other := everywhere + strings.Replace(asking(e.URL()), "name: crm", "name: other", 1)
	g.become(t, other)
	g.become(t, everywhere+asking(e.URL()))
	if got := g.ask(t, issue(t, e)); got.status != http.StatusOK {
		t.Errorf("%+v", got)
	}
	if got := g.metric(t, `bearergate_verifier_call_duration_seconds_count{outcome="valid",verifier="crm"}`); got != "1" {
		t.Errorf("%s calls are counted", got)
	}
	if text := get(t, g.Address(config.Admin), "/metrics").body; strings.Contains(text, `"other"`) {
		t.Error("there are series of a verifier that is not there")
	}
}

// TestSeriesGoWithThePolicyOfAListener: of one that a listener serves no more, and of
// one that is not there any more.
func TestSeriesGoWithThePolicyOfAListener(t *testing.T) {
	e := local(t)
	text := func(served, policies string) string {
		return strings.Replace(everywhere, "ext_authz: {", "ext_authz: {policies: ["+served+"], ", 1) + asking(e.URL()) + "policies: [" + policies + "]\n"
	}
	g := runFrom(t, text("one, two", "{name: one}, {name: two}"))
	has := func(listener, policy string) bool {
		t.Helper()
		return strings.Contains(get(t, g.Address(config.Admin), "/metrics").body, fmt.Sprintf(`{enforced="true",listener=%q,policy=%q,`, listener, policy))
	}
	if !has("ext_authz", "two") || !has("auth_request", "two") || !has("auth_request", "one") {
		t.Fatal("there are no series")
	}
	g.become(t, text("one", "{name: one}, {name: two}"))
	if has("ext_authz", "two") || !has("auth_request", "two") || !has("ext_authz", "one") {
		t.Error("there are other series than those of what is served")
	}
	g.become(t, text("two", "{name: two}"))
	if has("ext_authz", "one") || has("auth_request", "one") || !has("ext_authz", "two") || !has("auth_request", "default") {
		t.Error("there are other series than those of what is there")
	}
}

func TestWhatNeedsARestartIsNamed(t *testing.T) {
	e := local(t)
	g := runFrom(t, everywhere+asking(e.URL())+"log: {format: json}\n")
	g.write(t, everywhere+asking(e.URL())+"log: {format: text, level: error}\n")
	got, err := g.Reload(t.Context())
	if err != nil || got.Result != admin.Applied || fmt.Sprint(got.NeedRestart) != "[log.format]" {
		t.Errorf("%+v, %v", got, err)
	}
	if g.told(t, "WARN", "a field is other than it was, and is taken only at a start") != 1 || fmt.Sprint(g.status(t).LastReload.NeedRestart) != "[log.format]" {
		t.Error("the operator is not told")
	}
}

func TestOtherFingerprintsNeedARestart(t *testing.T) {
	e := local(t)
	key := filepath.Join(t.TempDir(), "key")
	text := everywhere + asking(e.URL())
	keyed := text + "fingerprint: {key: {file: " + key + "}}\n"
	write := func(key, value string) {
		t.Helper()
		if err := os.WriteFile(key, []byte(strings.Repeat(value, 32)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(key, "a")
	for name, test := range map[string]struct {
		before, after, key string
		want               string
		result             string
	}{
		"the same key":          {keyed, keyed + "# another comment\n", "a", "[]", admin.Unchanged},
		"another key":           {keyed, keyed, "b", "[fingerprint]", admin.Applied},
		"a key for none":        {text, keyed, "a", "[fingerprint]", admin.Applied},
		"none for a key":        {keyed, text, "a", "[fingerprint]", admin.Applied},
		"plain ones for a key":  {keyed, text + "fingerprint: {plain: true}\n", "a", "[fingerprint]", admin.Applied},
		"a key that is too bad": {keyed, keyed, "", "[]", admin.Refused},
	} {
		t.Run(name, func(t *testing.T) {
			write(key, "a")
			g := runFrom(t, test.before+"default_policy: {identity: [{name: X-Token, fingerprint: true}]}\n")
			token := issue(t, e)
			before := g.ask(t, token).header.Get("X-Token")
			g.write(t, test.after+"default_policy: {identity: [{name: X-Token, fingerprint: true}]}\n")
			write(key, test.key)
			got, err := g.Reload(t.Context())
			if fmt.Sprint(got.NeedRestart) != test.want {
				t.Errorf("%+v, %v", got, err)
			}
			// The key's file is watched, too, and that may have come first.
			if n := g.metric(t, fmt.Sprintf("bearergate_config_reloads_total{result=%q}", test.result)); n == "" || n == "0" {
				t.Errorf("none was %s, the last %+v, %v", test.result, got, err)
			}
			if after := g.ask(t, token).header.Get("X-Token"); after != before {
				t.Errorf("it was %q and is %q: a denial would not find it", before, after)
			}
		})
	}
}

func TestAGatewayWithoutAFileOrAboutToStopReadsNothing(t *testing.T) {
	g := run(t, everywhere+asking("https://api.example.com/"))
	if _, err := g.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "did not come from a file") {
		t.Errorf("got %v", err)
	}
	f := runFrom(t, everywhere+asking("https://api.example.com/"))
	if err := f.end(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "about to stop") {
		t.Errorf("got %v", err)
	}
}

// TestWhoIsToldHearsOfEachConfiguration: the first, and each that comes into force.
func TestWhoIsToldHearsOfEachConfiguration(t *testing.T) {
	e := local(t)
	var mu sync.Mutex
	var heard []string
	note := func(text string) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, text)
	}
	g := runFrom(t, everywhere+asking(e.URL())+fmt.Sprintf(realm, "one"),
		config.InForce(func(c *configv1.Config) { note(c.GetDefaultPolicy().GetRealm()) }),
		config.Notify(func(s config.Stage) { note(fmt.Sprint("stage ", int(s))) }))
	g.become(t, everywhere+asking(e.URL())+fmt.Sprintf(realm, "two"))
	g.write(t, "wrong")
	if _, err := g.Reload(t.Context()); err == nil {
		t.Error("it was taken")
	}
	if err := g.end(); err != nil {
		t.Error(err)
	}
	if got := strings.Join(heard, ", "); got != "one, stage 0, stage 1, two, stage 0, stage 1, stage 0, stage 2" {
		t.Errorf("heard %s", got)
	}
}
