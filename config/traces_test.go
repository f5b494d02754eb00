package config_test

import (
	"bytes"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/bearergate/bearergate/config"
)

// TestAGatewaySendsTracesIfTheEnvironmentSaysSo, over both faces, with the trace of
// the edge and without the token.
func TestAGatewaySendsTracesIfTheEnvironmentSaysSo(t *testing.T) {
	var mu sync.Mutex
	var sent []byte
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		sent = append(sent, body...)
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	defer collector.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.URL)
	e := local(t)
	g := run(t, everywhere+asking(e.URL()))
	good := issue(t, e)
	const over, http1 = "0af7651916cd43dd8448eb211c80319c", "1af7651916cd43dd8448eb211c80319c"
	if _, err := g.envoy(t).Check(t.Context(), checkRequest("authorization", "Bearer "+good, "traceparent", "00-"+over+"-b7ad6b7169203331-01")); err != nil {
		t.Fatal(err)
	}
	get(t, g.Address(config.AuthRequest), "/auth", "Authorization", "Bearer "+good, "Traceparent", "00-"+http1+"-b7ad6b7169203331-01")
	if err := g.end(); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, id := range []string{over, http1} {
		raw, err := hex.DecodeString(id)
		if err != nil {
			t.Fatal(err)
		}
		// The second may have come before the cache showed what the first has learnt, and joined its call.
		if n := bytes.Count(sent, raw); id == over && n != 3 || id == http1 && n != 1 && n != 2 {
			t.Errorf("of the trace %s there are %d spans", id, n)
		}
	}
	if bytes.Contains(sent, []byte(good)) {
		t.Error("a token is in the traces")
	}
}

func TestTracesThatCannotBeMadeAreRefusedAtStart(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "zipkin")
	_, err := config.NewGateway(t.Context(), parse(t, everywhere+asking("https://api.example.com/")), (&journal{}).logger(), "test")
	if err == nil || !strings.HasPrefix(err.Error(), "OTEL_TRACES_EXPORTER: ") {
		t.Errorf("the error is %v", err)
	}
}
