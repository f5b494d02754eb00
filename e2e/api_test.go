package e2e

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// caseHeader carries the name of a request through an edge to the API, so that a
// test finds what arrived of its own requests.
const caseHeader = "X-Case"

// api is the real API that the edges guard. It remembers what reaches it.
type api struct {
	server *httptest.Server
	mu     sync.Mutex
	seen   map[string][]arrival // by the value of caseHeader
}

// arrival is a request as the API saw it.
type arrival struct {
	method, uri, proto string
	header             http.Header
	length             int64
	sum                [32]byte // SHA-256 of the body
}

func newAPI(t *testing.T) *api {
	a := &api{seen: map[string][]arrival{}}
	a.server = httptest.NewServer(a)
	t.Cleanup(a.server.Close)
	return a
}

func (a *api) address() string { return a.server.Listener.Addr().String() }

// ServeHTTP notes the request. Below /status/ it answers with the status that the
// path names, in words that only the API uses; everything else is answered with 200.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	seen := arrival{method: r.Method, uri: r.RequestURI, proto: r.Proto, header: r.Header.Clone()}
	sum := sha256.New()
	var err error
	if seen.length, err = io.Copy(sum, r.Body); err != nil {
		http.Error(w, "the body did not arrive", http.StatusBadRequest)
		return
	}
	sum.Sum(seen.sum[:0])
	name := r.Header.Get(caseHeader)
	a.mu.Lock()
	a.seen[name] = append(a.seen[name], seen)
	a.mu.Unlock()

	status := http.StatusOK
	if _, number, ok := strings.Cut(r.URL.Path, "/status/"); ok {
		if status, err = strconv.Atoi(number); err != nil {
			http.Error(w, "no such status", http.StatusNotFound)
			return
		}
	}
	h := w.Header()
	h.Set("Content-Type", "text/x-api")
	h.Set("X-Api", "itself")
	if status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Custom realm="of the API"`)
	}
	if status == http.StatusServiceUnavailable {
		h.Set("Retry-After", "77")
	}
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "the API says %d", status)
}

// of returns what arrived of the named request.
func (a *api) of(name string) []arrival {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen[name]
}

// headers returns all that the API ever saw of headers and paths, for the search
// for tokens.
func (a *api) headers() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var text strings.Builder
	for _, arrivals := range a.seen {
		for _, seen := range arrivals {
			fmt.Fprintf(&text, "%s %s\n", seen.method, seen.uri)
			_ = seen.header.Write(&text)
		}
	}
	return text.String()
}
