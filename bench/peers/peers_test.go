package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// answers is a peer that answers in some way.
type answers struct {
	mu   *sync.Mutex
	kept map[string]bool
	// ask asks the endpoint about a token.
	ask func(token string) bool
	// keeps says that it keeps what the endpoint allows.
	keeps bool
	// otherwise is what it does when the endpoint is gone or says no.
	otherwise bool
}

func (a *answers) allows(token string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.keeps && a.kept[token] {
		return true
	}
	good := a.ask(token)
	a.kept[token] = good
	return good || a.otherwise
}

func TestWarm(t *testing.T) {
	tests := []struct {
		name string
		peer answers
		open bool
		err  string
	}{
		{"a peer that keeps what its endpoint said is measured", answers{keeps: true}, false, ""},
		{"one that asks each time is not: its endpoint is gone", answers{}, false, "without the endpoint: token 0"},
		{"one that allows everything is not", answers{keeps: true, otherwise: true}, false, "made-up"},
		{"a no-op that allows everything is", answers{keeps: true, otherwise: true}, true, ""},
		{"a no-op that refuses is none", answers{keeps: true}, true, "made-up"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			st := &stage{tokens: []string{"one", "two"}, madeUp: "three"}
			c := &contender{open: tt.open}
			defer c.end()
			if err := c.asks(t.Context(), st); err != nil {
				t.Fatal(err)
			}
			tt.peer.mu, tt.peer.kept = &sync.Mutex{}, map[string]bool{}
			tt.peer.ask = func(token string) bool { return introspect(t, c.endpoint.address, token) }
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !tt.peer.allows(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")) {
					w.WriteHeader(http.StatusUnauthorized)
				}
			}))
			defer server.Close()
			c.allows = requestsAllow(server.Listener.Addr().String(), decisionRequests)
			err := c.warm(t.Context(), st)
			if (err == nil) != (tt.err == "") || (err != nil && !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want one with %q", err, tt.err)
			}
		})
	}
	t.Run("one that never asked its endpoint is not", func(t *testing.T) {
		st := &stage{tokens: []string{"one", "two"}, madeUp: "three"}
		c := &contender{}
		defer c.end()
		if err := c.asks(t.Context(), st); err != nil {
			t.Fatal(err)
		}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") == "Bearer three" {
				w.WriteHeader(http.StatusUnauthorized)
			}
		}))
		defer server.Close()
		c.allows = requestsAllow(server.Listener.Addr().String(), decisionRequests)
		if err := c.warm(t.Context(), st); err == nil || !strings.Contains(err.Error(), "asked 0 times about 2 tokens") {
			t.Errorf("error %v", err)
		}
	})
}

// introspect asks as RFC 7662 says. No answer is a no.
func introspect(t *testing.T, address, token string) bool {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+"/introspect", strings.NewReader("token="+token))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(r)
	if err != nil {
		return false
	}
	defer response.Body.Close()
	var text strings.Builder
	if err := response.Write(&text); err != nil {
		t.Fatal(err)
	}
	return strings.Contains(text.String(), `"active":true`)
}

func TestReplaced(t *testing.T) {
	tests := []struct {
		name, text, want, err string
	}{
		{"what stands there once is replaced", "listen HERE;", "listen 127.0.0.1:1;", ""},
		{"what stands there twice is not: which one is meant?", "listen HERE; listen HERE;", "", "2 times"},
		{"what is gone must not go on unnoticed", "listen there;", "", "0 times"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := replaced("file", tt.text, [2]string{"HERE", "127.0.0.1:1"})
			if got != tt.want || (err == nil) != (tt.err == "") || (err != nil && !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

func TestBetween(t *testing.T) {
	tests := []struct {
		name, document, want, err string
	}{
		{
			"what stood between the lines is replaced, and nothing else", "before\n" + begin + "old\n" + end + "after\n",
			"before\n" + begin + "\nnew\n\n" + end + "after\n", "",
		},
		{"a document without the lines is left alone", "before\nafter\n", "", "there are no lines"},
		{"so is one where they stand the other way round", end + begin, "", "there are no lines"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := between(tt.document, "new\n")
			if got != tt.want || (err == nil) != (tt.err == "") || (err != nil && !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}
