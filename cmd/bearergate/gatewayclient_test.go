package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// TestNobodyFollowsAGatewayThatPointsElsewhere: a credential is for the one that was
// named.
func TestNobodyFollowsAGatewayThatPointsElsewhere(t *testing.T) {
	t.Parallel()
	var led atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { led.Store(true) }))
	defer elsewhere.Close()
	pointing := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer pointing.Close()
	file := filepath.Join(t.TempDir(), "credential")
	if err := os.WriteFile(file, []byte("the operators' credential"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := call(t, invocation{args: []string{"status", "--admin", strings.TrimPrefix(pointing.URL, "http://"), "--credential-file", file}})
	if got.code != exitUnknown || got.stderr == "" {
		t.Errorf("%+v", got)
	}
	if led.Load() {
		t.Error("it followed")
	}
}
