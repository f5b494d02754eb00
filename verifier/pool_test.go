package verifier_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bearergate/bearergate/verifier"
)

// askTogether asks many times at one time and wants verdicts.
func askTogether(t *testing.T, v verifier.Verifier, times int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	token := newTokens(t).parse(t, canary)
	var all sync.WaitGroup
	for range times {
		all.Go(func() {
			if verdict, err := v.Verify(ctx, token); err != nil || !verdict.Valid {
				t.Errorf("the verdict is %+v, %v", verdict, err)
			}
		})
	}
	all.Wait()
}

// crowd is a handler that answers when so many questions have come.
func crowd(size int) http.HandlerFunc {
	var mu sync.Mutex
	waiting, proceed := 0, make(chan struct{})
	return func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		waiting++
		mine := proceed
		if waiting == size {
			close(proceed)
			waiting, proceed = 0, make(chan struct{})
		}
		mu.Unlock()
		select {
		case <-mine:
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, saysValid)
	}
}

// speaking are the ways in which an endpoint can be reached. HTTP/2 is offered in
// vain: it keeps none of what these tests want.
func speaking(t *testing.T) (transports map[string]*tls.Config, own *authority) {
	t.Helper()
	own = newAuthority(t)
	certificates := []tls.Certificate{own.issue(t, leaf{})}
	return map[string]*tls.Config{
		"plain":                    nil,
		"TLS":                      {Certificates: certificates},
		"TLS, with HTTP/2 offered": {Certificates: certificates, NextProtos: []string{"h2", "http/1.1"}},
	}, own
}

// A busy machine may cost a connection now and then: net/http gives one up if it
// cannot tell within 50 ms that the question was written whole.
const fewMore = 4

func TestConnectionsAreUsedAgain(t *testing.T) {
	transports, own := speaking(t)
	for name, settings := range transports {
		t.Run("one after another, "+name, func(t *testing.T) {
			e := startEndpoint(t, settings, replies(http.StatusOK, saysValid))
			v := newVerifytoken(t, verifier.VerifytokenOptions{URL: e.URL, RootCAs: own.pool})
			for range 100 {
				expectVerdict(t, v, true)
			}
			if accepted := e.connections(); accepted > 1+fewMore || len(e.asked()) != 100 {
				t.Errorf("%d questions took %d connections", len(e.asked()), accepted)
			}
		})
		t.Run("32 at a time, "+name, func(t *testing.T) {
			e := startEndpoint(t, settings, crowd(32))
			v := newVerifytoken(t, verifier.VerifytokenOptions{URL: e.URL, RootCAs: own.pool})
			for range 10 {
				askTogether(t, v, 32)
			}
			if accepted := e.connections(); accepted < 32 || accepted > 32+fewMore || len(e.asked()) != 320 {
				t.Errorf("%d questions took %d connections", len(e.asked()), accepted)
			}
		})
	}
}

// TestConnectionsAreUsedAgainAfterRepliesThatAreNoAnswers: trouble must not cost
// a handshake for each question, except where the rest of a reply is not worth
// waiting for.
func TestConnectionsAreUsedAgainAfterRepliesThatAreNoAnswers(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"an error":     replies(http.StatusInternalServerError, "<h1>sorry</h1>"),
		"a redirect":   replies(http.StatusFound, "elsewhere"),
		"a web page":   replies(http.StatusOK, "<!DOCTYPE html>"),
		"no content":   replies(http.StatusNoContent, ""),
		"unavailable":  replies(http.StatusServiceUnavailable, saysValid),
		"not modified": replies(http.StatusNotModified, ""),
	} {
		t.Run(name, func(t *testing.T) {
			e := startEndpoint(t, nil, answer)
			v := newVerifytoken(t, verifier.VerifytokenOptions{URL: e.URL})
			for range 20 {
				verdict, err := ask(t, v)
				expectNone(t, verdict, err, "endpoint")
			}
			if accepted := e.connections(); accepted > 1+fewMore {
				t.Errorf("20 questions took %d connections", accepted)
			}
		})
	}
}

func TestMaxConnections(t *testing.T) {
	transports, own := speaking(t)
	for name, settings := range transports {
		for _, limit := range []int{1, 4} {
			t.Run(fmt.Sprintf("%d, %s", limit, name), func(t *testing.T) {
				var mu sync.Mutex
				now, most := 0, 0 // questions under way, each on a connection of its own
				full := crowd(limit)
				e := startEndpoint(t, settings, func(w http.ResponseWriter, r *http.Request) {
					mu.Lock()
					now++
					most = max(most, now)
					mu.Unlock()
					full(w, r)
					mu.Lock()
					now--
					mu.Unlock()
				})
				v := newVerifytoken(t, verifier.VerifytokenOptions{URL: e.URL, RootCAs: own.pool, MaxConnections: limit})
				for range 5 {
					askTogether(t, v, 64)
				}
				if accepted := e.connections(); most != limit || accepted > limit+fewMore || len(e.asked()) != 5*64 {
					t.Errorf("%d questions took %d connections, %d at a time", len(e.asked()), accepted, most)
				}
			})
		}
	}
}

// TestWaitingForAConnection: who waits for one of few connections waits no longer
// than the deadline.
func TestWaitingForAConnection(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	e := startEndpoint(t, nil, func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-release
		_, _ = io.WriteString(w, saysValid)
	})
	v := newVerifytoken(t, verifier.VerifytokenOptions{URL: e.URL, MaxConnections: 1})
	var first sync.WaitGroup
	first.Go(func() { expectVerdict(t, v, true) })
	<-asked
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	verdict, err := v.Verify(ctx, newTokens(t).parse(t, canary))
	expectNone(t, verdict, err, "did not answer in time")
	close(release)
	first.Wait()
	if n := len(e.asked()); n != 1 {
		t.Errorf("the endpoint was asked %d times", n)
	}
}

// late is a connection that learns of its end only when something is written to
// it, as if the news were still on the way.
type late struct {
	net.Conn
	end     func() // is called when the end has come
	ended   atomic.Bool
	used    chan struct{} // is closed when something was written after the end
	noticed sync.Once
}

func (l *late) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	if err != nil {
		l.ended.Store(true)
		l.end()
		<-l.used
	}
	return n, err
}

func (l *late) Write(p []byte) (int, error) {
	if l.ended.Load() {
		l.noticed.Do(func() { close(l.used) })
		return len(p), nil
	}
	return l.Conn.Write(p)
}

func (l *late) Close() error {
	l.noticed.Do(func() { close(l.used) })
	return l.Conn.Close()
}

// TestRestart lets an endpoint go and come back at the same address while
// connections to it are idle. Nobody notices.
func TestRestart(t *testing.T) {
	var restarted atomic.Bool
	full := crowd(16)
	e := startEndpoint(t, nil, func(w http.ResponseWriter, r *http.Request) {
		if restarted.Load() {
			_, _ = io.WriteString(w, saysValid)
		} else {
			full(w, r)
		}
	})
	v := newVerifytoken(t, verifier.VerifytokenOptions{URL: e.URL})
	var dialer net.Dialer
	var mu sync.Mutex
	var ends sync.WaitGroup
	v.DialBy(func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		if restarted.Load() {
			return conn, nil
		}
		ends.Add(1)
		return &late{Conn: conn, used: make(chan struct{}), end: sync.OnceFunc(ends.Done)}, nil
	})
	askTogether(t, v, 16)
	restarted.Store(true)
	e.CloseClientConnections()
	ends.Wait()
	expectVerdict(t, v, true)
	askTogether(t, v, 16)
	if n := len(e.asked()); n != 33 {
		t.Errorf("the endpoint was asked %d times", n)
	}
}

// silent is a connection whose other end has gone without a word: what is written
// goes nowhere, and nothing comes.
type silent struct {
	net.Conn
	gone atomic.Bool
}

func (s *silent) Write(p []byte) (int, error) {
	if s.gone.Load() {
		return len(p), nil
	}
	return s.Conn.Write(p)
}

// TestEndpointThatIsGoneWithoutAWord lets the network lose all connections, as a
// firewall does that forgets them. The first question gets no answer, and the
// next ones do not meet a connection of the same age.
func TestEndpointThatIsGoneWithoutAWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own := newAuthority(t)
		server := &http.Server{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				<-time.After(time.Second) // all who ask together are on connections of their own
				_, _ = io.WriteString(w, saysValid)
			}),
			TLSConfig: &tls.Config{Certificates: []tls.Certificate{own.issue(t, leaf{})}},
		}
		p := newPipes()
		served := make(chan error)
		go func() { served <- server.ServeTLS(p, "", "") }()
		defer func() {
			_ = server.Close()
			<-served
		}()
		v := newVerifytoken(t, verifier.VerifytokenOptions{URL: "https://127.0.0.1:1/getOauthToken", RootCAs: own.pool})
		defer v.Close()
		var mu sync.Mutex
		var dialled []*silent
		v.DialBy(func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := p.dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			mu.Lock()
			defer mu.Unlock()
			dialled = append(dialled, &silent{Conn: conn})
			return dialled[len(dialled)-1], nil
		})
		for range 3 {
			askTogether(t, v, 8)
			for _, conn := range dialled {
				conn.gone.Store(true)
			}
			<-time.After(time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			verdict, err := v.Verify(ctx, newTokens(t).parse(t, canary))
			cancel()
			expectNone(t, verdict, err, "did not answer in time")
			expectVerdict(t, v, true)
		}
		if n := len(dialled); n != 3*8+1 {
			t.Errorf("%d connections were made", n)
		}
	})
}

// TestSlowAnswerOnOneOfManyConnections: while others are answered, one slow answer
// is no reason to connect anew.
func TestSlowAnswerOnOneOfManyConnections(t *testing.T) {
	slow, release := make(chan struct{}), make(chan struct{})
	var held atomic.Bool
	full := crowd(16)
	var warm atomic.Bool
	e := startEndpoint(t, nil, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !warm.Load():
			full(w, r)
		case held.CompareAndSwap(false, true):
			close(slow)
			<-release
		default:
			_, _ = io.WriteString(w, saysValid)
		}
	})
	defer close(release)
	v := newVerifytoken(t, verifier.VerifytokenOptions{URL: e.URL})
	askTogether(t, v, 16)
	warm.Store(true)
	ctx, cancel := context.WithCancel(t.Context())
	var late sync.WaitGroup
	late.Go(func() {
		verdict, err := v.Verify(ctx, newTokens(t).parse(t, canary))
		expectNone(t, verdict, err, "given up")
	})
	<-slow
	expectVerdict(t, v, true)
	cancel()
	late.Wait()
	warm.Store(false)
	askTogether(t, v, 15+1) // and one for that of the slow answer
	if accepted := e.connections(); accepted > 16+1+fewMore {
		t.Errorf("%d connections were made", accepted)
	}
}
