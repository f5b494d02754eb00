package e2e

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// collector takes what gateways say to a collector of OpenTelemetry, and keeps it for
// the search for tokens.
type collector struct {
	url, secret string
	file        string

	mu sync.Mutex // is held by who writes to the file
}

func startCollector(t *testing.T, r *run) *collector {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{url: "http://" + l.Addr().String(), secret: r.tokens.invent(40), file: filepath.Join(r.folder(t), "traces")}
	file, err := os.OpenFile(c.file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	r.outputs.addFile("traces, as a collector gets them", c.file)
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			c.mu.Lock()
			defer c.mu.Unlock()
			if request.Header.Get("X-Collector-Key") != c.secret {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			_, _ = io.Copy(file, request.Body)
			_, _ = file.WriteString("\n")
			w.Header().Set("Content-Type", "application/x-protobuf")
		}),
		ReadHeaderTimeout: patience, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-served
		_ = file.Close()
	})
	return c
}

// environment has a gateway send its traces here, all of them.
func (c *collector) environment() []string {
	if c == nil {
		return nil
	}
	return []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=" + c.url, "OTEL_EXPORTER_OTLP_HEADERS=x-collector-key=" + c.secret,
		"OTEL_TRACES_SAMPLER=always_on", "OTEL_BSP_SCHEDULE_DELAY=500",
	}
}

// got sees that traces came, so that there was something to search.
func (c *collector) got(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(c.file)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"bearergate.reason", "bearergate.token", "decide", "wait", "call", "invalid_token"} {
		if bytes.Count(text, []byte(word)) < 10 {
			t.Errorf("the traces have %q %d times", word, bytes.Count(text, []byte(word)))
		}
	}
}
