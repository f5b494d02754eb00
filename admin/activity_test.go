package admin_test

import (
	"context"
	"net"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	"github.com/bearergate/bearergate/admin"
	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/gate"
	adminv1 "github.com/bearergate/bearergate/proto/bearergate/admin/v1"
	"github.com/bearergate/bearergate/proto/bearergate/admin/v1/adminv1connect"
	"github.com/bearergate/bearergate/verifier"
)

// watched is a gateway's metrics in a bubble of synctest, remembered, with the API
// beside them.
type watched struct {
	server  *admin.Server
	client  *http.Client
	dial    func() net.Conn
	metrics *admin.Metrics
	api     adminv1connect.AdminServiceClient
	decided func(gate.Tally)
}

// watch runs a test in a bubble.
func watch(t *testing.T, test func(t *testing.T, w *watched)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := admin.NewMetrics("test")
		s, l := admin.NewServer(m, nil), newPipes()
		transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return l.dial(), nil }}
		client := &http.Client{Transport: transport}
		w := &watched{
			server: s, client: client, dial: l.dial,
			metrics: m,
			api:     adminv1connect.NewAdminServiceClient(connect.NewClient(connecthttp.NewTransport(client, "http://127.0.0.1"))),
			decided: m.Decisions("edge", []string{"default", "tried"}, []string{"tried"}),
		}
		served, remembered := make(chan error, 1), make(chan struct{})
		go func() { served <- s.Serve(l) }()
		w.decide(11, gate.Tally{Reason: gate.Valid, Source: verifier.FromCache}) // nobody remembers them
		ctx, cancel := context.WithCancel(t.Context())
		go func() { defer close(remembered); m.Remember(ctx)() }()
		synctest.Wait()
		test(t, w)
		cancel()
		<-remembered
		transport.CloseIdleConnections()
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// pass lets time pass, and all that happens in it.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// decide has so many decisions made.
func (w *watched) decide(n int, tally gate.Tally) {
	for range n {
		w.decided(tally)
	}
}

func (w *watched) recent(t *testing.T) *adminv1.ActivityResponse {
	t.Helper()
	r, err := w.api.Activity(t.Context(), &adminv1.ActivityRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// counts returns those of a reason, nil if there are none.
func counts(r *adminv1.ActivityResponse, reason gate.Reason) []uint32 {
	for _, one := range r.GetReasons() {
		if one.GetReason() == reason.String() && one.GetOutcome() == reason.Outcome().String() {
			return one.GetCounts()
		}
	}
	return nil
}

func bySource(r *adminv1.ActivityResponse, source verifier.Source) []uint32 {
	for _, one := range r.GetSources() {
		if one.GetSource() == source.String() {
			return one.GetCounts()
		}
	}
	return nil
}

func expectCounts(t *testing.T, what string, got []uint32, want ...uint32) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestActivityTellsSecondsApart(t *testing.T) {
	watch(t, func(t *testing.T, w *watched) {
		if r := w.recent(t); r.GetPoints() != 0 || len(r.GetReasons()) != 0 {
			t.Errorf("before anything happened: %v", r)
		}
		w.decide(3, gate.Tally{Reason: gate.Valid, Source: verifier.FromCache})
		w.decide(2, gate.Tally{Reason: gate.MissingToken, Source: verifier.FromCache}) // it has no verdict, so no source
		pass(time.Second)
		w.decide(1, gate.Tally{Reason: gate.Valid, Source: verifier.FromEndpoint, Took: time.Millisecond})
		w.decide(4, gate.Tally{Policy: 1, Reason: gate.InvalidToken, Source: verifier.FromCache, Shadow: true})
		w.decide(5, gate.Tally{Policy: 1, Reason: gate.InvalidToken, Source: verifier.FromCache})
		pass(2 * time.Second)
		w.decide(9, gate.Tally{Reason: gate.Valid}) // of a second that is not over

		r := w.recent(t)
		if r.GetPoints() != 3 || r.GetStep().AsDuration() != time.Second || !r.GetUntil().AsTime().Equal(time.Now()) {
			t.Errorf("%d points of %v until %v; it is %v", r.GetPoints(), r.GetStep(), r.GetUntil().AsTime(), time.Now().UTC())
		}
		expectCounts(t, "valid", counts(r, gate.Valid), 3, 1, 0)
		expectCounts(t, "missing_token", counts(r, gate.MissingToken), 2, 0, 0)
		expectCounts(t, "invalid_token", counts(r, gate.InvalidToken), 0, 9, 0)
		expectCounts(t, "from the cache", bySource(r, verifier.FromCache), 3, 9, 0)
		expectCounts(t, "from the endpoint", bySource(r, verifier.FromEndpoint), 0, 1, 0)
		expectCounts(t, "in shadow", r.GetShadow(), 0, 4, 0)
		for _, one := range r.GetReasons() {
			if one.GetReason() == gate.InvalidToken.String() {
				expectCounts(t, "invalid_token in shadow", one.GetShadow(), 0, 4, 0)
			} else {
				expectCounts(t, one.GetReason()+" in shadow", one.GetShadow())
			}
		}
		if len(r.GetReasons()) != 3 || len(r.GetSources()) != 2 {
			t.Errorf("reasons or sources that there were not: %v", r)
		}
	})
}

func TestActivityIsOfFiveMinutes(t *testing.T) {
	watch(t, func(t *testing.T, w *watched) {
		w.decide(7, gate.Tally{Reason: gate.MissingToken})
		pass(time.Second)
		w.decide(8, gate.Tally{Reason: gate.Valid})
		pass(299 * time.Second)
		r := w.recent(t)
		if got := counts(r, gate.MissingToken); r.GetPoints() != 300 || len(got) != 300 || got[0] != 7 {
			t.Errorf("after five minutes: %d points, missing_token is %v", r.GetPoints(), got)
		}
		pass(time.Second)
		r = w.recent(t)
		if r.GetPoints() != 300 || counts(r, gate.MissingToken) != nil {
			t.Errorf("a second later: %d points, missing_token is %v", r.GetPoints(), counts(r, gate.MissingToken))
		}
		expectCounts(t, "valid", counts(r, gate.Valid)[:2], 8, 0)
	})
}

// TestLateTickStandsForSeveral: what a busy machine did not read in time is no peak.
func TestLateTickStandsForSeveral(t *testing.T) {
	watch(t, func(t *testing.T, w *watched) {
		w.decide(10, gate.Tally{Reason: gate.Valid})
		w.metrics.TickAt(time.Now().Add(4*time.Second + time.Second/4))
		w.metrics.TickAt(time.Now().Add(4*time.Second + time.Second/3)) // no second has passed
		expectCounts(t, "valid", counts(w.recent(t), gate.Valid), 2, 2, 3, 3)
		w.decide(600, gate.Tally{Reason: gate.Valid})
		w.metrics.TickAt(time.Now().Add(24 * time.Hour))
		got := counts(w.recent(t), gate.Valid)
		if len(got) != 300 || got[0] != 2 || got[299] != 2 {
			t.Errorf("after a day: %v", got)
		}
	})
}

// TestActivityOutlivesReloads: what a policy counted is not lost with it, and no
// second has less than nothing.
func TestActivityOutlivesReloads(t *testing.T) {
	watch(t, func(t *testing.T, w *watched) {
		w.decide(5, gate.Tally{Reason: gate.Valid})
		w.decide(1000, gate.Tally{Policy: 1, Reason: gate.Valid})
		pass(time.Second)
		w.decided = w.metrics.Decisions("edge", []string{"default"}, []string{"default"}) // in shadow from now on
		w.metrics.Forget(admin.Labels{Listener: "edge", Policy: "tried"})
		w.decide(2, gate.Tally{Reason: gate.Valid})
		w.decide(3, gate.Tally{Reason: gate.MissingToken, Shadow: true})
		pass(time.Second)
		w.decided = w.metrics.Decisions("edge", []string{"default", "tried"}, nil) // it is back
		w.decide(4, gate.Tally{Policy: 1, Reason: gate.Valid})
		w.metrics.Forget(admin.Labels{Verifier: "edge"}) // is another thing
		pass(time.Second)
		w.metrics.Forget(admin.Labels{Listener: "edge"})
		w.decide(1, gate.Tally{Reason: gate.Valid})
		pass(time.Second)
		r := w.recent(t)
		expectCounts(t, "valid", counts(r, gate.Valid), 1005, 2, 4, 0)
		expectCounts(t, "in shadow", r.GetShadow(), 0, 3, 0, 0)
	})
}

func TestActivityKnowsHowLongThingsTook(t *testing.T) {
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	token, err := parser.ParseToken(someToken)
	if err != nil {
		t.Fatal(err)
	}
	within := func(t *testing.T, what string, got *adminv1.Times, measured uint64, p50, p99 time.Duration) {
		t.Helper()
		near := func(got, want time.Duration) bool {
			return got.Seconds() > want.Seconds()*.9 && got.Seconds() < want.Seconds()*1.1
		}
		if got.GetMeasured() != measured || !near(got.GetP50().AsDuration(), p50) || !near(got.GetP99().AsDuration(), p99) {
			t.Errorf("%s: %d, p50 %v, p99 %v; want %d, %v, %v", what,
				got.GetMeasured(), got.GetP50().AsDuration(), got.GetP99().AsDuration(), measured, p50, p99)
		}
	}
	watch(t, func(t *testing.T, w *watched) {
		called := w.metrics.Calls("crm")
		cached := gate.Tally{Reason: gate.Valid, Source: verifier.FromCache, Took: 700 * time.Nanosecond}
		other := w.metrics.Decisions("other", []string{"default"}, nil)
		w.decide(90, cached)
		for range 8 {
			other(cached) // listeners count together
		}
		w.decide(2, gate.Tally{Reason: gate.Valid, Source: verifier.FromCache, Took: 3 * time.Millisecond})
		w.decide(1, gate.Tally{Reason: gate.VerifierUnavailable, Took: 3 * time.Second})
		for i := range 1000 {
			called(token, verifier.Valid, time.Duration(i+1)*time.Millisecond)
		}
		called(token, verifier.Unanswered, 3*time.Second)

		r := w.recent(t)
		if len(r.GetDecisionTimes()) != 2 || len(r.GetCallTimes()) != 2 {
			t.Fatalf("times are %v and %v", r.GetDecisionTimes(), r.GetCallTimes())
		}
		cache, none := r.GetDecisionTimes()[0], r.GetDecisionTimes()[1]
		if cache.GetSource() != "cache" || none.GetSource() != "none" {
			t.Errorf("sources are %v and %v", cache, none)
		}
		within(t, "cache", cache.GetTimes(), 100, 700*time.Nanosecond, 3*time.Millisecond)
		within(t, "none", none.GetTimes(), 1, 3*time.Second, 3*time.Second)
		unanswered, valid := r.GetCallTimes()[0], r.GetCallTimes()[1]
		if unanswered.GetVerifier() != "crm" || unanswered.GetOutcome() != "no_answer" || valid.GetOutcome() != "valid" {
			t.Errorf("calls are %v and %v", unanswered, valid)
		}
		within(t, "calls", valid.GetTimes(), 1000, 500*time.Millisecond, 990*time.Millisecond)

		// They are those of the last minute.
		pass(40 * time.Second)
		w.decide(1, gate.Tally{Reason: gate.Valid, Source: verifier.FromCache, Took: time.Second})
		pass(19 * time.Second)
		if r := w.recent(t); r.GetDecisionTimes()[0].GetTimes().GetMeasured() != 101 {
			t.Errorf("after 59 seconds: %v", r.GetDecisionTimes())
		}
		pass(time.Second)
		r = w.recent(t)
		if len(r.GetDecisionTimes()) != 1 || len(r.GetCallTimes()) != 0 {
			t.Fatalf("after a minute: %v and %v", r.GetDecisionTimes(), r.GetCallTimes())
		}
		within(t, "cache", r.GetDecisionTimes()[0].GetTimes(), 1, time.Second, time.Second)
		pass(time.Minute)
		if r := w.recent(t); len(r.GetDecisionTimes()) != 0 {
			t.Errorf("after two minutes: %v", r.GetDecisionTimes())
		}
	})
}

// TestTimesOutliveOtherBuckets: a histogram that has to stand for very different times
// makes its buckets coarser, or begins anew if it is an hour old.
func TestTimesOutliveOtherBuckets(t *testing.T) {
	for _, test := range []struct {
		name string
		old  time.Duration
	}{
		{"coarser ones", 0},
		{"new ones", 2 * time.Hour},
	} {
		t.Run(test.name, func(t *testing.T) {
			watch(t, func(t *testing.T, w *watched) {
				took := func(n int, of time.Duration) {
					w.decide(n, gate.Tally{Reason: gate.Valid, Source: verifier.FromCache, Took: of})
				}
				for of := time.Microsecond; of < 2*time.Microsecond; of += of / 20 {
					took(50, of)
				}
				pass(test.old + time.Minute)
				const different = 300 // more than there are buckets for
				of := time.Nanosecond
				for range different {
					took(1, of)
					of = max(of+1, of+of/8)
				}
				got := w.recent(t).GetDecisionTimes()[0].GetTimes().GetMeasured()
				if got == 0 || got > different || test.old == 0 && got != different {
					t.Errorf("%d were measured, of %d", got, different)
				}
			})
		})
	}
}
