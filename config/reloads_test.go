package config_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/bearergate/bearergate/config"
)

// manyReloads is how many come one after the other, while perSecond requests are
// asked, or as many as there is time for.
const (
	manyReloads = 200
	perSecond   = 5000
	perReload   = 100 // if there is time for them: within
	longest     = 8 * time.Second
)

// numbered is a configuration that all its answers can be told by: a good token gets
// its number in a header, and all others a realm with it. If it is odd, /reports is
// for POST alone. Every tenth has a verifier of its own, and each another socket.
func numbered(n int, url, dir string) string {
	text := fmt.Sprintf(`
listeners:
  ext_authz: {address: "127.0.0.1:0"}
  auth_request: {address: "127.0.0.1:0", trust: {original: x-original}}
  admin: {address: "127.0.0.1:0"}
  more: [{name: moving, auth_request: {address: "unix:%s/%d", trust: {original: x-original}}}]
verifiers: [{name: crm, verifytoken: {url: %q}, timeout: %dms}]
cache: {valid_ttl: 300s, refresh_before: 0s, invalid_ttl: 300s}
default_policy: {realm: g%d, identity: [{name: X-Number, constant: "%d"}]}
`, dir, n%2, url, 10_000+n/10, n, n)
	require := ""
	if n%2 == 1 {
		require = `, require: {expression: "request.method == 'POST'"}`
	}
	return text + fmt.Sprintf("policies: [{name: reports-%d, realm: g%d, identity: [{name: X-Number, constant: %q}]%s}]\nroutes: [{path: {prefix: /reports}, policy: reports-%d}]\n",
		n%3, n, strconv.Itoa(n), require, n%3)
}

// seen is what an edge gets to hear, on whatever face.
type seen struct {
	status int
	number int // of the configuration
}

// question is one of the kinds that are asked.
type question struct{ path, token string }

// may reports whether a configuration gives this answer.
func (q question) may(s seen, good string) bool {
	switch {
	case q.token != good:
		return s.status == http.StatusUnauthorized
	case q.path == "/reports" && s.number%2 == 1:
		return s.status == http.StatusForbidden
	default:
		return s.status == http.StatusOK
	}
}

// numberIn finds it in a challenge.
func numberIn(challenge string) int {
	_, rest, _ := strings.Cut(challenge, `realm="g`)
	text, _, _ := strings.Cut(rest, `"`)
	n, err := strconv.Atoi(text)
	if err != nil {
		return -1
	}
	return n
}

// askEnvoy asks as Envoy does.
func askEnvoy(ctx context.Context, client authv3.AuthorizationClient, q question) (seen, error) {
	r := checkRequest("authorization", "Bearer "+q.token)
	if q.token == "" {
		r = checkRequest()
	}
	r.Attributes.Request.Http.Path = q.path
	reply, err := client.Check(ctx, r)
	if err != nil {
		return seen{}, err
	}
	s := seen{status: http.StatusOK, number: -1}
	headers := reply.GetOkResponse().GetHeaders()
	if denied := reply.GetDeniedResponse(); denied != nil {
		s.status, headers = int(denied.GetStatus().GetCode()), denied.GetHeaders()
	}
	for _, h := range headers {
		switch h.GetHeader().GetKey() {
		case "X-Number":
			s.number, _ = strconv.Atoi(h.GetHeader().GetValue())
		case "WWW-Authenticate":
			s.number = numberIn(h.GetHeader().GetValue())
		}
	}
	return s, nil
}

// askNginx asks as nginx does.
func askNginx(ctx context.Context, client *http.Client, address string, q question) (seen, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/auth", http.NoBody)
	if err != nil {
		return seen{}, err
	}
	r.Header.Set("X-Original-Uri", q.path)
	r.Header.Set("X-Original-Method", http.MethodGet)
	if q.token != "" {
		r.Header.Set("Authorization", "Bearer "+q.token)
	}
	resp, err := client.Do(r)
	if err != nil {
		return seen{}, err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return seen{}, err
	}
	s := seen{status: resp.StatusCode, number: numberIn(resp.Header.Get("WWW-Authenticate"))}
	if n, err := strconv.Atoi(resp.Header.Get("X-Number")); err == nil {
		s.number = n
	}
	return s, nil
}

// TestManyReloadsUnderLoadGiveNoWrongAnswerAndLeaveNothing: each answer is whole the
// one of a configuration that was in force while it was asked for, nobody is refused
// where nothing moves, readiness does not flap, the endpoint is asked once about each
// token by each verifier, and in the end there is no more than there was.
func TestManyReloadsUnderLoadGiveNoWrongAnswerAndLeaveNothing(t *testing.T) {
	reloads := manyReloads
	if testing.Short() || raceDetector {
		reloads = 40
	}
	e := local(t)
	dir := t.TempDir()
	g := runFrom(t, numbered(0, e.URL(), dir))
	good := issue(t, e)
	questions := []question{{"/", good}, {"/reports", good}, {"/", ""}, {"/reports", "made-up"}}

	conn, err := grpc.NewClient("passthrough:///"+g.Address(config.ExtAuthz), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := authv3.NewAuthorizationClient(conn)
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	defer transport.CloseIdleConnections()
	web := &http.Client{Transport: transport, Timeout: patience}
	address, ready := g.Address(config.AuthRequest), "http://"+g.Address(config.Admin)+"/readyz"
	asks := []func(context.Context, question) (seen, error){
		func(ctx context.Context, q question) (seen, error) { return askEnvoy(ctx, client, q) },
		func(ctx context.Context, q question) (seen, error) { return askNginx(ctx, web, address, q) },
	}
	mustBe := func(n int) {
		t.Helper()
		for _, ask := range asks {
			for _, q := range questions {
				if got, err := ask(t.Context(), q); err != nil || got.number != n || !q.may(got, good) {
					t.Fatalf("after reload %d, %s gets %+v, %v", n, q.path, got, err)
				}
			}
		}
	}
	rest := func() (goroutines, descriptors, series int) {
		transport.CloseIdleConnections()
		runtime.GC() // what nobody uses any more is closed
		text := get(t, g.Address(config.Admin), "/metrics").body
		return runtime.NumGoroutine(), open(t), strings.Count(text, "\nbearergate_")
	}
	// One round, so that all is there that is to be there.
	g.become(t, numbered(1, e.URL(), dir))
	mustBe(1)
	g.become(t, numbered(0, e.URL(), dir))
	mustBe(0)
	var goroutines, descriptors, series int
	eventually(t, "end of the first verifier", func() bool {
		_, _, series = rest()
		return g.Verifiers() == 1
	})
	for range 20 { // they come and go
		a, b, _ := rest()
		goroutines, descriptors = max(goroutines, a), max(descriptors, b)
	}

	var begun, done, asked, wrong atomic.Int64 // the first two are numbers of configurations
	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	const askers = 40
	for i := range askers {
		load.Go(func() {
			tick := time.NewTicker(askers * time.Second / perSecond)
			defer tick.Stop()
			for n := i; ; n++ {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				q := questions[n/2%len(questions)]
				from := done.Load()
				got, err := asks[n%2](context.WithoutCancel(ctx), q)
				to := begun.Load()
				asked.Add(1)
				if err != nil || int64(got.number) < from || int64(got.number) > to || !q.may(got, good) {
					if wrong.Add(1) < 10 {
						t.Errorf("%s on face %d gets %+v, %v while %d to %d may be in force", q.path, n%2, got, err, from, to)
					}
				}
			}
		})
	}
	load.Go(func() {
		for ctx.Err() == nil {
			resp, err := web.Get(ready)
			if err != nil {
				t.Errorf("/readyz: %v", err)
				return
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				t.Errorf("/readyz says %d", resp.StatusCode)
			}
			select {
			case <-time.After(2 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})

	begin := time.Now()
	for n := 1; n <= reloads; n++ {
		before := asked.Load()
		begun.Store(int64(n))
		text := numbered(n, e.URL(), dir)
		if n%50 == 0 { // by itself
			last := g.status(t).LastReload.At
			g.replace(t, text)
			eventually(t, "reload", func() bool {
				got, err := asks[1](t.Context(), questions[0])
				return err == nil && got.number == n
			})
			// It is told of when it has come to its end.
			eventually(t, "word of it", func() bool { return g.status(t).LastReload.At.After(last) })
		} else {
			g.become(t, text)
		}
		done.Store(int64(n))
		mustBe(n)
		var dialer net.Dialer
		moved, err := dialer.DialContext(ctx, "unix", filepath.Join(dir, strconv.Itoa(n%2)))
		if err != nil {
			t.Fatalf("the socket that moved: %v", err)
		}
		_ = moved.Close()
		expectClosed(t, "unix:"+filepath.Join(dir, strconv.Itoa((n+1)%2)))
		if time.Since(begin) < longest {
			eventually(t, "requests under this configuration", func() bool { return asked.Load() >= before+perReload })
		}
	}
	took := time.Since(begin)
	stop()
	load.Wait()
	t.Logf("%d reloads in %v, %d requests meanwhile (%.0f per second), %d wrong answers",
		reloads, took.Round(time.Millisecond), asked.Load(), float64(asked.Load())/took.Seconds(), wrong.Load())
	if asked.Load() < int64(reloads) {
		t.Errorf("only %d requests", asked.Load())
	}
	// Two tokens, and the verifiers of each ten configurations.
	if calls, most := e.Stats().Verify.Requests, 2*int64(reloads/10+1); calls > most {
		t.Errorf("%d calls to the endpoint, want at most %d", calls, most)
	}
	if got := g.metric(t, `bearergate_config_reloads_total{result="applied"}`); got != strconv.Itoa(reloads+2) {
		t.Errorf("%s reloads are counted", got)
	}

	g.become(t, numbered(0, e.URL(), dir))
	mustBe(0)
	eventually(t, "end of all that is not used any more", func() bool {
		a, b, c := rest()
		if t.Failed() {
			return true
		}
		return a <= goroutines && b <= descriptors && c == series && g.Verifiers() == 1
	})
}
