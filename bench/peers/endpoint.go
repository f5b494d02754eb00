package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// endpoint tells which tokens are good: to those who ask as RFC 7662 says at
// /introspect, and to those who ask as crm-now's verifytoken wants it at
// /verifytoken.
type endpoint struct {
	address string
	asked   atomic.Int64
	server  *http.Server
	done    chan struct{}
}

func startEndpoint(ctx context.Context, tokens []string) (*endpoint, error) {
	known := make(map[string]bool, len(tokens))
	for _, token := range tokens {
		known[token] = true
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	e := &endpoint{address: l.Addr().String(), done: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /introspect", func(w http.ResponseWriter, r *http.Request) {
		e.asked.Add(1)
		if !known[r.FormValue("token")] {
			answer(w, map[string]any{"active": false})
			return
		}
		// What an endpoint says of a client's token (RFC 7662 §2.2).
		answer(w, map[string]any{
			"active": true, "sub": "partner-17", "client_id": "partner-17", "username": "partner-17", "scope": "realm profile email",
			"token_type": "Bearer", "iss": "https://api.example", "exp": time.Now().Add(time.Hour).Unix(),
		})
	})
	mux.HandleFunc("POST /verifytoken", func(w http.ResponseWriter, r *http.Request) {
		e.asked.Add(1)
		if !known[r.FormValue("verifytoken")] {
			answer(w, map[string]any{"result": false, "message": "token invalid"})
			return
		}
		answer(w, map[string]any{"result": true, "message": "token valid"})
	})
	e.server = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		defer close(e.done)
		_ = e.server.Serve(l)
	}()
	return e, nil
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // whoever does not read it has asked for nothing
}

// close takes the endpoint away: connections are cut and new ones refused.
func (e *endpoint) close() {
	if e.server == nil {
		return
	}
	_ = e.server.Close()
	<-e.done
	e.server = nil
}
