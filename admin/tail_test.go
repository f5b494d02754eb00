package admin_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/bearergate/bearergate/admin"
	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/gate"
	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
	"github.com/bearergate/bearergate/proto/bearergate/admin/v1/adminv1connect"
	"github.com/bearergate/bearergate/verifier"
)

// answering is a verifier with one answer.
type answering struct {
	verdict verifier.Verdict
	err     error
}

func (a answering) Verify(context.Context, bearer.Token) (verifier.Verdict, error) {
	return a.verdict, a.err
}

// decides makes a gate of a listener whose decisions can be watched.
func decides(t *testing.T, events *gate.Events, a answering) *gate.Gate {
	t.Helper()
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	g, err := gate.New(gate.Options{Listener: "ext_authz", Parser: parser, Events: events, Policy: gate.Policy{Verifier: a, Realm: "api"}})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// asked is a request with a token.
func asked() gate.Request { return gate.Request{Authorization: []string{"Bearer " + someToken}} }

// TestDecisionsAreTold over each protocol.
func TestDecisionsAreTold(t *testing.T) {
	o := operate(t, admin.Access{})
	for name, c := range map[string]adminv1connect.AdminServiceClient{
		"Connect":  o.calls(),
		"JSON":     o.calls(connecthttp.WithProtoJSON()),
		"gRPC-Web": o.calls(connecthttp.WithGRPCWeb()),
		"gRPC":     o.grpc(t),
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			stream, err := c.Tail(ctx, &adminv1.TailRequest{Reasons: []string{"valid", "malformed_token"}})
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Close()
			defer cancel()
			if first, err := stream.Receive(); err != nil || len(first.GetDecisions()) != 0 || first.GetMissed() != 0 {
				t.Fatalf("it begins with %v, %v", first, err)
			}
			g := decides(t, &o.events, answering{verdict: verifier.Verdict{Valid: true, Source: verifier.FromStale, Waited: time.Second}})
			g.Decide(ctx, asked())
			g.Decide(ctx, gate.Request{})
			g.Decide(ctx, gate.Request{Authorization: []string{"Bearer a b"}})
			var all []*adminv1.Decision
			for len(all) < 2 {
				response, err := stream.Receive()
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, response.GetDecisions()...)
			}
			if age := time.Since(all[0].GetAt().AsTime()); age < 0 || age > patience || len(all[0].GetFingerprint()) != 12 {
				t.Errorf("told is %v", all[0])
			}
			want := []*adminv1.Decision{
				{Listener: "ext_authz", Policy: "default", Reason: "valid", Outcome: "allow", Source: "stale"},
				{Listener: "ext_authz", Policy: "default", Reason: "malformed_token", Outcome: "unauthorized", Fingerprint: "none", Detail: "something follows the token"},
			}
			want[0].Fingerprint = all[0].GetFingerprint()
			if diff := cmp.Diff(want, all, protocmp.Transform(), protocmp.IgnoreFields(&adminv1.Decision{}, "at", "took")); diff != "" {
				t.Errorf("told is (-want +got):\n%s", diff)
			}
			if all[0].GetTook().AsDuration() <= 0 {
				t.Errorf("it does not say how long it took: %v", all[0])
			}
		})
	}
}

func TestAMessageOfADecisionHasAllThatIsKnown(t *testing.T) {
	at := time.Unix(5, 0)
	got := admin.DecisionMessage(&gate.Event{
		At: at, Listener: "l", Policy: "p", Reason: gate.InvalidToken, Source: verifier.FromDenial, Shadow: true, Took: time.Second,
		Fingerprint: "0123456789ab", Detail: "d", Method: "GET", Host: "h", RequestID: "r", Client: netip.MustParseAddr("2001:db8::1"), Weight: 1,
	})
	got.At = nil
	want := &adminv1.Decision{
		Listener: "l", Policy: "p", Reason: "invalid_token", Outcome: "allow", Source: "denied", Shadow: true, Took: durationpb.New(time.Second),
		Fingerprint: "0123456789ab", Detail: "d", Method: "GET", Host: "h", RequestId: "r", Client: "2001:db8::1",
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("the message is (-want +got):\n%s", diff)
	}
}

func TestWhatCannotBeWatchedIsRefused(t *testing.T) {
	o := operate(t, admin.Access{})
	many := make([]string, 33)
	for name, test := range map[string]struct {
		request *adminv1.TailRequest
		want    string // "": it can be
	}{
		"all":                   {&adminv1.TailRequest{}, ""},
		"all that can be named": {&adminv1.TailRequest{Outcomes: []string{"allow", "unavailable"}, Reasons: []string{"valid"}, Policies: []string{"orders"}, Listeners: []string{"a"}, Fingerprints: []string{"0123456789AB", "none"}, Clients: []string{"192.0.2.1", "2001:db8::/32", "::ffff:192.0.2.1"}}, ""},
		"no outcome":            {&adminv1.TailRequest{Outcomes: []string{"allow", someToken}}, "outcomes[1]: write one of allow, forbidden, refused, unauthorized, unavailable"},
		"no reason":             {&adminv1.TailRequest{Reasons: []string{someToken}}, "reasons[0]: write one of bad_host, "},
		"no policy":             {&adminv1.TailRequest{Policies: []string{someToken}}, "policies[0]: is not there; there are default, orders"},
		"no listener":           {&adminv1.TailRequest{Listeners: []string{someToken}}, "listeners[0]: is not there; there are a"},
		"a token":               {&adminv1.TailRequest{Fingerprints: []string{someToken}}, "fingerprints[0]: is no fingerprint"},
		"a short fingerprint":   {&adminv1.TailRequest{Fingerprints: []string{"0123456789"}}, "fingerprints[0]: is no fingerprint"},
		"no address":            {&adminv1.TailRequest{Clients: []string{"here"}}, "clients[0]: is no address"},
		"an address of a link":  {&adminv1.TailRequest{Clients: []string{"fe80::1%eth0"}}, "clients[0]: is no address"},
		"too many":              {&adminv1.TailRequest{Policies: many}, "policies: has more than 32 entries"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		stream, err := o.calls().Tail(ctx, test.request)
		if err == nil {
			_, err = stream.Receive()
		}
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case test.want != "" && (connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), someToken)):
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
		cancel()
		stream.Close()
	}
}

// TestOnlySomeMayWatch, and who goes makes room.
func TestOnlySomeMayWatch(t *testing.T) {
	o := operate(t, admin.Access{})
	watch := func(ctx context.Context) error {
		stream, err := o.calls().Tail(ctx, &adminv1.TailRequest{})
		if err == nil {
			_, err = stream.Receive()
		}
		return err
	}
	ctx, cancel := context.WithCancel(t.Context())
	for range gate.MaxWatchers {
		if err := watch(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := watch(t.Context()); connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("one more: %v", err)
	}
	cancel() // they all go
	again, end := context.WithTimeout(t.Context(), patience)
	defer end()
	for begin := time.Now(); ; runtime.Gosched() {
		err := watch(again)
		if err == nil {
			return
		}
		if time.Since(begin) > patience {
			t.Fatalf("who went makes no room: %v", err)
		}
	}
}

// bubble is a server with an API inside a bubble of testing/synctest.
type bubble struct {
	*admin.Server

	events gate.Events
	pipes  *pipes
	client adminv1connect.AdminServiceClient
	served chan error
	idle   func()
}

func newBubble(grpc bool, access admin.Access) *bubble {
	b := &bubble{Server: admin.NewServer(admin.NewMetrics("test"), nil).Another(access), pipes: newPipes(), served: make(chan error, 1)}
	b.Operate(&admin.Controls{Events: &b.events, Listeners: func() []admin.Listener { return nil }, Policies: func() []string { return nil }})
	go func() { b.served <- b.Serve(b.pipes) }()
	transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return b.pipes.dial(), nil }}
	var options []connecthttp.Option
	if grpc {
		transport.Protocols = new(http.Protocols)
		transport.Protocols.SetUnencryptedHTTP2(true)
		options = append(options, connecthttp.WithGRPC())
	}
	b.idle = transport.CloseIdleConnections
	b.client = adminv1connect.NewAdminServiceClient(connect.NewClient(connecthttp.NewTransport(&http.Client{Transport: transport}, "http://127.0.0.1", options...)))
	return b
}

// tail watches all decisions, and has been told that it does.
func (b *bubble) tail(ctx context.Context, t *testing.T) adminv1connect.AdminServiceTailClientStream {
	t.Helper()
	stream, err := b.client.Tail(ctx, &adminv1.TailRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Receive(); err != nil {
		t.Fatal(err)
	}
	return stream
}

func (b *bubble) end(t *testing.T) {
	t.Helper()
	b.idle()
	if err := errors.Join(b.Shutdown(t.Context()), <-b.served); err != nil {
		t.Error(err)
	}
}

// TestATailLastsAsLongAsItIsWanted, which is longer than any other call, and tells
// every 5 s that it is there. What comes fast comes together.
func TestATailLastsAsLongAsItIsWanted(t *testing.T) {
	for name, grpc := range map[string]bool{"Connect": false, "gRPC": true} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, func(t *testing.T) { testLongTail(t, grpc) }) })
	}
}

func testLongTail(t *testing.T, grpc bool) {
	t.Helper()
	b := newBubble(grpc, admin.Access{})
	defer b.end(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := b.client.Tail(ctx, &adminv1.TailRequest{})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	defer cancel()
	begin := time.Now()
	pulses := 0
	for time.Since(begin) < time.Hour {
		response, err := stream.Receive()
		if err != nil {
			t.Fatalf("after %v: %v", time.Since(begin), err)
		}
		if len(response.GetDecisions()) > 0 {
			t.Fatalf("told is %v", response)
		}
		pulses++
	}
	if want := int(time.Hour / (5*time.Second + 100*time.Millisecond)); pulses < want || pulses > want+2 {
		t.Errorf("%d messages in an hour, want about %d", pulses, want)
	}
	g := decides(t, &b.events, answering{verdict: verifier.Verdict{Valid: true}})
	const n = 612
	decided := make(chan struct{})
	go func() {
		defer close(decided)
		for range n {
			g.Decide(ctx, asked())
			<-time.After(time.Millisecond)
		}
	}()
	seen, messages := 0, 0
	for seen < n {
		response, err := stream.Receive()
		if err != nil || response.GetMissed() != 0 {
			t.Fatalf("%v, %v", response, err)
		}
		seen += len(response.GetDecisions())
		messages++
	}
	if messages > 9 {
		t.Errorf("%d decisions in 612 ms came in %d messages", n, messages)
	}
	<-decided
}

// TestWhatWasMissedIsTold: what comes between two messages, and is more than waits.
func TestWhatWasMissedIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(false, admin.Access{})
		defer b.end(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		stream := b.tail(ctx, t)
		defer stream.Close()
		defer cancel()
		g := decides(t, &b.events, answering{err: &verifier.NoAnswer{}})
		const n = 2000
		for range n {
			g.Decide(ctx, asked())
		}
		seen := uint64(0)
		for missed := uint64(0); seen+missed < n; {
			response, err := stream.Receive()
			if err != nil {
				t.Fatal(err)
			}
			seen, missed = seen+uint64(len(response.GetDecisions())), response.GetMissed()
		}
		if seen < 512 || seen > 600 {
			t.Errorf("told is of %d, want a little more than 512", seen)
		}
	})
}

// TestATailEndsWhenItsServerDoes, with what waits still.
func TestATailEndsWhenItsServerDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(false, admin.Access{})
		stream, err := b.client.Tail(t.Context(), &adminv1.TailRequest{})
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
		if _, err := stream.Receive(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		g := decides(t, &b.events, answering{err: &verifier.NoAnswer{}})
		g.Decide(t.Context(), asked()) // in the pause between two messages
		begin := time.Now()
		ended := make(chan error, 1)
		go func() { ended <- b.Shutdown(t.Context()) }()
		last, err := stream.Receive()
		if err != nil || len(last.GetDecisions()) != 1 {
			t.Errorf("the last message is %v, %v", last, err)
		}
		if _, err := stream.Receive(); connect.CodeOf(err) != connect.CodeUnavailable || errors.Is(err, io.EOF) {
			t.Errorf("it ends with %v", err)
		}
		b.idle()
		// net/http looks now and then whether all have ended.
		if err := errors.Join(<-ended, <-b.served); err != nil || time.Since(begin) > time.Second {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
	})
}

// TestATailEndsWithItsCredential, within seconds after that was changed, and is told of
// no more decisions. While the credential is good, it goes on.
func TestATailEndsWithItsCredential(t *testing.T) {
	for name, test := range map[string]struct {
		later func() ([]byte, error)
		want  connect.Code // 0: it goes on
	}{
		"the same":             {func() ([]byte, error) { return []byte(credential), nil }, 0},
		"another":              {func() ([]byte, error) { return []byte("another-" + credential), nil }, connect.CodeUnauthenticated},
		"one that is not read": {func() ([]byte, error) { return nil, errors.New("it is not there") }, connect.CodeUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var now atomic.Pointer[func() ([]byte, error)]
				first := func() ([]byte, error) { return []byte(credential), nil }
				now.Store(&first)
				b := newBubble(false, admin.Access{Credential: func() ([]byte, error) { return (*now.Load())() }})
				defer b.end(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				ctx, call := connect.NewClientContext(ctx)
				call.RequestHeader().Set("Authorization", "Bearer "+credential)
				stream := b.tail(ctx, t)
				defer stream.Close()
				defer cancel()
				now.Store(&test.later)
				begin := time.Now()
				decides(t, &b.events, answering{verdict: verifier.Verdict{Valid: true}}).Decide(ctx, asked())
				response, err := stream.Receive()
				if took := time.Since(begin); took > 6*time.Second {
					t.Errorf("it took %v", took)
				}
				if test.want == 0 && (err != nil || len(response.GetDecisions()) != 1) {
					t.Errorf("it goes on with %v, %v", response, err)
				}
				if test.want != 0 && connect.CodeOf(err) != test.want {
					t.Errorf("it goes on with %v, %v", response, err)
				}
			})
		})
	}
}

// TestWhoDoesNotReadIsGivenUp, and makes room.
func TestWhoDoesNotReadIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBubble(false, admin.Access{})
		defer b.end(t)
		for range gate.MaxWatchers {
			conn := b.pipes.dial()
			t.Cleanup(func() { _ = conn.Close() })
			const call = "POST /bearergate.admin.v1.AdminService/Tail HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/connect+proto\r\nContent-Length: 5\r\n\r\n\x00\x00\x00\x00\x00"
			if _, err := io.WriteString(conn, call); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if _, err := b.events.Watch(gate.Filter{}); err == nil {
			t.Fatal("they do not watch")
		}
		<-time.After(11 * time.Second) // the first message could not be sent for 10 s
		synctest.Wait()
		for range gate.MaxWatchers {
			w, err := b.events.Watch(gate.Filter{})
			if err != nil {
				t.Fatal(err)
			}
			w.Close()
		}
	})
}

// endless is a body that has no end, and counts what was taken of it.
type endless struct{ taken atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) {
	e.taken.Add(int64(len(p)))
	return copy(p, strings.Repeat("x", len(p))), nil
}

// TestACallIsReadNoFurtherThanItMayBe, and its connection is closed: who sends without
// end is not listened to, whatever reads the call.
func TestACallIsReadNoFurtherThanItMayBe(t *testing.T) {
	for _, call := range []string{"Status", "Tail"} {
		for _, content := range []string{"application/json", "application/connect+json", "application/grpc-web+proto"} {
			t.Run(call+" "+content, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBubble(false, admin.Access{})
					defer b.end(t)
					conn := b.pipes.dial()
					defer conn.Close()
					var sent endless
					r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1"+apiPath+call, &sent)
					if err != nil {
						t.Fatal(err)
					}
					r.Header.Set("Content-Type", content)
					go func() { _ = r.Write(conn) }() // ends with the connection
					resp, err := http.ReadResponse(bufio.NewReader(conn), r)
					if err != nil {
						t.Fatal(err)
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					synctest.Wait()
					if taken := sent.taken.Load(); taken > 1<<20 || !resp.Close {
						t.Errorf("%s, after %d bytes; closed is %v", resp.Status, taken, resp.Close)
					}
				})
			})
		}
	}
}
