package e2e

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bearergate/bearergate/bearer"
)

// All that leaves a gateway is kept for the search for tokens: what it writes (by
// process.start), its traces (collector), what it shows while it runs (watch) and at
// its end (noteShown), and what it writes when it dies (testDeath).

// watch keeps all decisions as the admin API streams them, until the gateway ends.
func (g *gateway) watch(t *testing.T, r *run) {
	t.Helper()
	path := filepath.Join(r.folder(t), "decisions")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	r.outputs.addFile(g.name+", its decisions as a stream", path)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	// A message of Connect's streams: a byte of flags and the length before it.
	question := binary.BigEndian.AppendUint32([]byte{0}, 2)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+g.settings.admin+adminPath+"Tail", bytes.NewReader(append(question, "{}"...)))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/connect+json")
	request.Header.Set("Connect-Protocol-Version", "1")
	done := make(chan struct{})
	go func() {
		defer close(done)
		got, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
		if err != nil {
			return // the gateway has ended, or the test
		}
		defer got.Body.Close()
		_, _ = io.Copy(file, got.Body)
	}()
	t.Cleanup(func() {
		stop()
		<-done
		_ = file.Close()
	})
}

// noteShown has the search look through what an operator is shown at the end.
func (g *gateway) noteShown(t *testing.T, r *run) {
	if g.running() != nil {
		return
	}
	ctx := context.Background() // cleanup comes after the test's context has ended
	for _, page := range []string{
		"/livez", "/readyz", "/status", "/metrics", "/", "/?lang=de", "/debug/pprof/goroutine?debug=2", "/debug/pprof/goroutine?debug=1", "/debug/pprof/heap?debug=1", "/debug/pprof/allocs",
	} {
		text, err := get(ctx, "http://"+g.settings.admin+page)
		if err != nil && g.running() == nil {
			t.Errorf("%s, %s: %v", g.name, page, err)
		}
		r.outputs.addText(g.name+", "+page, text)
	}
	note := func(call, question string) {
		text, err := callAdmin(ctx, g, call, question)
		if err != nil && g.running() == nil && call != "Explain" { // a gateway with many policies wants to know more
			t.Errorf("%s, %s: %v", g.name, call, err)
		}
		r.outputs.addText(g.name+", "+call, text)
	}
	for _, call := range []string{"Status", "Activity", "ListDenials", "GetConfiguration", "Diagnostics"} {
		note(call, "{}")
	}
	// What other tests use for a token may be none that a gateway reads.
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Error(err)
		return
	}
	tokens := slices.DeleteFunc(r.tokens.all(), func(token string) bool {
		_, err := parser.ParseToken(token)
		return err != nil
	})
	if len(tokens) > 0 {
		for _, token := range tokens[max(0, len(tokens)-3):] {
			question, err := json.Marshal(map[string]any{"token": token, "method": http.MethodGet, "path": "/"})
			if err != nil {
				t.Error(err)
			}
			note("Explain", string(question))
			note("Forget", `{"token": "`+token+`"}`)
		}
	}
	g.noteBundle(t, r)
}

// noteBundle has the search look through a support bundle.
func (g *gateway) noteBundle(t *testing.T, r *run) {
	path := filepath.Join(r.folder(t), "bundle.tar.gz")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	said, err := exec.CommandContext(ctx, r.command, "support-bundle", "--admin", g.settings.admin, "--out", path).CombinedOutput()
	if err != nil && g.running() == nil {
		t.Errorf("%s, support-bundle: %v: %s", g.name, err, said)
	}
	r.outputs.addText(g.name+", what support-bundle says", string(said))
	file, err := os.Open(path)
	if err != nil {
		return // said already, or the gateway has ended
	}
	defer file.Close()
	zipped, err := gzip.NewReader(file)
	if err != nil {
		t.Error(err)
		return
	}
	files := 0
	for archive := tar.NewReader(zipped); ; files++ {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		var text strings.Builder
		if err == nil {
			_, err = io.Copy(&text, archive)
		}
		if err != nil {
			t.Error(err)
			return
		}
		r.outputs.addText(g.name+", "+header.Name, text.String())
	}
	if files < 10 && g.running() == nil {
		t.Errorf("%s: its bundle holds %d files", g.name, files)
	}
}
