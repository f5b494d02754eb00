package gate_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/policy"
	"github.com/bearergate/bearergate/verifier"
)

// watch watches a gate's decisions that fit a filter.
func watch(t *testing.T, events *gate.Events, f gate.Filter) *gate.Watcher {
	t.Helper()
	w, err := events.Watch(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

// told returns what waits for a watcher.
func told(w *gate.Watcher) (all []*gate.Event) {
	for {
		select {
		case e := <-w.Events():
			all = append(all, e)
		default:
			return all
		}
	}
}

// routed chooses a policy by host and method, and names the policies default and api.
func routed(t *testing.T) func(*gate.Options) {
	router, err := policy.NewRouter([]string{"default", "api"}, []policy.Route{
		{Hosts: []string{"api.example.com", "*.partners.example.com"}, Policy: "api"},
		{Methods: []string{"PURGE"}, Policy: "api"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return func(o *gate.Options) {
		o.Router = router
		o.Policies = []gate.Policy{{Name: "api", Verifier: o.Verifier, Realm: "api", Shadow: o.Shadow}}
		o.Shadow = time.Time{}
	}
}

func TestWhoWatchesIsToldOfEachDecision(t *testing.T) {
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	token, err := parser.Parse([]string{"Bearer " + canary})
	if err != nil {
		t.Fatal(err)
	}
	fingerprint := token.Fingerprint()
	at := func(host, method string, values ...string) gate.Request {
		return gate.Request{Facts: policy.Facts{Host: host, Method: method}, Authorization: values}
	}
	const header = "Bearer " + canary
	cached := says(verifier.Verdict{Valid: true, Source: verifier.FromCache}, nil)
	for _, test := range []struct {
		name    string
		request gate.Request
		verify  verify
		shadow  time.Time
		waits   bool
		want    gate.Event
	}{
		{
			name: "good", request: at("api.example.com", "GET", header), verify: cached,
			want: gate.Event{Policy: "api", Reason: gate.Valid, Source: verifier.FromCache, Fingerprint: fingerprint, Host: "api.example.com", Method: "GET"},
		},
		{
			name: "good, asked", request: at("API.example.com:443", "POST", header), verify: says(verifier.Verdict{Valid: true, Waited: time.Second}, nil), waits: true,
			want: gate.Event{Policy: "api", Reason: gate.Valid, Fingerprint: fingerprint, Host: "api.example.com", Method: "POST"},
		},
		{
			name: "not good", request: at("x.partners.example.com", "GET", header), verify: notGood,
			want: gate.Event{Policy: "api", Reason: gate.InvalidToken, Fingerprint: fingerprint, Host: "*.partners.example.com", Method: "GET"},
		},
		{
			name: "in shadow", request: at("api.example.com", "GET", header), verify: notGood, shadow: time.Now().Add(time.Hour),
			want: gate.Event{Policy: "api", Reason: gate.InvalidToken, Shadow: true, Fingerprint: fingerprint, Host: "api.example.com", Method: "GET"},
		},
		{
			name: "no answer", request: at("other.example", "GET", header), verify: says(verifier.Verdict{}, &verifier.NoAnswer{}),
			want: gate.Event{Policy: "default", Reason: gate.VerifierUnavailable, Fingerprint: fingerprint, Method: "GET"},
		},
		{
			name: "no token", request: at("other.example", "PURGE"), verify: unasked,
			want: gate.Event{Policy: "api", Reason: gate.MissingToken, Fingerprint: "none", Detail: "the request has no Authorization header", Method: "other"},
		},
		{
			name: "a malformed token", request: at("other.example", "GET", `Bearer "x"`), verify: unasked,
			want: gate.Event{Policy: "default", Reason: gate.MalformedToken, Fingerprint: "none", Detail: "the token is in quotes; send it without them", Method: "GET"},
		},
		{
			name: "under no policy", request: at("-..-", "GET", header), verify: unasked,
			want: gate.Event{Policy: "default", Reason: gate.BadHost, Fingerprint: "none", Method: "GET"},
		},
		{
			name: "a panic", request: at("api.example.com", "GET", header), verify: unasked,
			want: gate.Event{Policy: "default", Reason: gate.InternalError, Fingerprint: "none"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			events := new(gate.Events)
			g := newGate(t, test.verify, func(o *gate.Options) { o.Parser, o.Events, o.Shadow = parser, events, test.shadow }, routed(t))
			w := watch(t, events, gate.Filter{})
			before := time.Now()
			g.Decide(t.Context(), test.request)
			all := told(w)
			if len(all) != 1 {
				t.Fatalf("%d events, want 1", len(all))
			}
			test.want.Listener, test.want.Weight = "test", 1
			// By chance it is measured.
			if all[0].Took == 0 && test.waits {
				t.Error("it does not say how long the verifier was waited for")
			}
			ignore := cmpopts.IgnoreFields(gate.Event{}, "At", "Took")
			if diff := cmp.Diff(test.want, *all[0], ignore, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("the event is other than it should be (-want +got):\n%s", diff)
			}
			if all[0].At.Before(before) || time.Since(all[0].At) < 0 {
				t.Errorf("it happened at %v", all[0].At)
			}
		})
	}
}

// TestWhatAFaceRefusesIsTold, too.
func TestWhatAFaceRefusesIsTold(t *testing.T) {
	events := new(gate.Events)
	var sampled []gate.Reason
	g := newGate(t, good, func(o *gate.Options) {
		o.Events = events
		o.Sampled = func(e *gate.Event) { sampled = append(sampled, e.Reason) }
	})
	w := watch(t, events, gate.Filter{})
	g.Recovered(errors.New(canary))
	g.Unreadable(errors.New(canary))
	g.Unbelieved(errors.New(canary))
	g.Unsaid(errors.New(canary))
	var reasons []gate.Reason
	for _, e := range told(w) {
		reasons = append(reasons, e.Reason)
		if e.Policy != "default" || e.Fingerprint != "none" || e.Listener != "test" || e.Outcome() != gate.Unavailable {
			t.Errorf("the event is %+v", e)
		}
	}
	want := []gate.Reason{gate.InternalError, gate.InternalError, gate.UntrustedEdge, gate.UnclearEdge}
	if !cmp.Equal(reasons, want) || !cmp.Equal(sampled, want) {
		t.Errorf("told are %v and %v, want %v", reasons, sampled, want)
	}
}

func TestWhoWatchesSeesWhatFitsTheFilter(t *testing.T) {
	events := new(gate.Events)
	g := newGate(t, onlyCanary, func(o *gate.Options) { o.Events = events; o.Shadow = time.Now().Add(time.Hour) }, routed(t))
	prints := map[string]string{}
	requests := []gate.Request{
		{Facts: policy.Facts{Host: "api.example.com", Method: "GET"}, Authorization: []string{"Bearer " + canary}}, // 0: allowed
		{Facts: policy.Facts{Host: "other.example", Method: "GET"}, Authorization: []string{"Bearer refused"}},     // 1: refused
		{Facts: policy.Facts{Host: "api.example.com", Method: "GET"}, Authorization: []string{"Bearer refused"}},   // 2: in shadow
		{Facts: policy.Facts{Host: "other.example", Method: "GET"}},                                                // 3: without a token
	}
	all := watch(t, events, gate.Filter{})
	for _, r := range requests {
		g.Decide(t.Context(), r)
	}
	for i, e := range told(all) {
		prints[fmt.Sprint(i)] = e.Fingerprint
	}
	for name, test := range map[string]struct {
		filter gate.Filter
		want   string
	}{
		"all":                      {gate.Filter{}, "0123"},
		"allowed":                  {gate.Filter{Outcomes: []gate.Outcome{gate.Allow}}, "02"},
		"two outcomes":             {gate.Filter{Outcomes: []gate.Outcome{gate.Allow, gate.Unauthorized}}, "0123"},
		"a reason":                 {gate.Filter{Reasons: []gate.Reason{gate.InvalidToken}}, "12"},
		"a reason and an outcome":  {gate.Filter{Reasons: []gate.Reason{gate.InvalidToken}, Outcomes: []gate.Outcome{gate.Unauthorized}}, "1"},
		"a policy":                 {gate.Filter{Policies: []string{"api"}}, "02"},
		"a policy that is not":     {gate.Filter{Policies: []string{"apis"}}, ""},
		"the listener":             {gate.Filter{Listeners: []string{"test"}}, "0123"},
		"another listener":         {gate.Filter{Listeners: []string{"other"}}, ""},
		"a fingerprint":            {gate.Filter{Fingerprints: []string{prints["0"]}}, "0"},
		"another's fingerprint":    {gate.Filter{Fingerprints: []string{prints["1"]}}, "12"},
		"no token":                 {gate.Filter{Fingerprints: []string{"none"}}, "3"},
		"an address":               {gate.Filter{Clients: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, ""},
		"a fingerprint and policy": {gate.Filter{Fingerprints: []string{prints["1"]}, Policies: []string{"default"}}, "1"},
	} {
		w := watch(t, events, test.filter)
		got := ""
		for i, r := range requests {
			g.Decide(t.Context(), r)
			for range told(w) {
				got += fmt.Sprint(i)
			}
		}
		if got != test.want {
			t.Errorf("%s: told of %q, want %q", name, got, test.want)
		}
		w.Close()
	}
}

// onlyCanary is a verifier by which no other token is good.
var onlyCanary = verify(func(_ context.Context, t bearer.Token) (verifier.Verdict, error) {
	return verifier.Verdict{Valid: t.Reveal() == canary}, nil
})

// TestADecisionDoesNotWaitForWhoWatches, who is told how much was missed.
func TestADecisionDoesNotWaitForWhoWatches(t *testing.T) {
	const room, more = 512, 100
	for name, filter := range map[string]gate.Filter{
		"all":           {},
		"a fingerprint": {Fingerprints: []string{"none"}},
	} {
		t.Run(name, func(t *testing.T) {
			events := new(gate.Events)
			g := newGate(t, good, func(o *gate.Options) { o.Events = events })
			slow, quick := watch(t, events, filter), watch(t, events, filter)
			other := watch(t, events, gate.Filter{Reasons: []gate.Reason{gate.Valid}})
			seen := 0
			for range room + more {
				g.Decide(t.Context(), with())
				seen += len(told(quick))
			}
			if missed := slow.Missed(); missed != more {
				t.Errorf("the slow one missed %d, want %d", missed, more)
			}
			if seen != room+more || quick.Missed() != 0 {
				t.Errorf("the quick one saw %d and missed %d", seen, quick.Missed())
			}
			if n := len(told(other)); n != 0 || other.Missed() != 0 {
				t.Errorf("who waits for others saw %d and missed %d", n, other.Missed())
			}
			if n := len(told(slow)); n != room {
				t.Errorf("%d waited for the slow one, want %d", n, room)
			}
			g.Decide(t.Context(), with())
			if n := len(told(slow)); n != 1 || slow.Missed() != more {
				t.Errorf("then it sees %d and has missed %d", n, slow.Missed())
			}
		})
	}
}

func TestOnlySomeMayWatchAtOnce(t *testing.T) {
	var events gate.Events
	var all []*gate.Watcher
	for range gate.MaxWatchers {
		w, err := events.Watch(gate.Filter{})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, w)
	}
	if _, err := events.Watch(gate.Filter{}); !errors.Is(err, gate.ErrTooManyWatchers) {
		t.Fatalf("one more: %v", err)
	}
	all[3].Close()
	all[3].Close() // once more changes nothing
	w, err := events.Watch(gate.Filter{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := events.Watch(gate.Filter{}); err == nil {
		t.Error("to close one twice makes room for two")
	}
	for _, w := range append(all, w) {
		w.Close()
	}
}

// TestNobodyIsToldAfterTheEnd, nor does it cost an allocation then.
func TestNobodyIsToldAfterTheEnd(t *testing.T) {
	events := new(gate.Events)
	g := newGate(t, good, func(o *gate.Options) { o.Events = events })
	w := watch(t, events, gate.Filter{})
	g.Decide(t.Context(), withToken())
	w.Close()
	g.Decide(t.Context(), withToken())
	if n := len(told(w)); n != 1 {
		t.Errorf("it was told of %d, want 1", n)
	}
	testCachedDecision(t, 0, func(o *gate.Options) { o.Events = events })
}

// TestCachedDecisionOfWhichSomeAreToldAllocatesNothing but for those: one in 64, which
// is less than a whole one on average.
func TestCachedDecisionOfWhichSomeAreToldAllocatesNothing(t *testing.T) {
	g, _ := newCached(t, func(o *gate.Options) { o.Sampled = func(*gate.Event) {} })
	r := withToken()
	allocs := testing.AllocsPerRun(10_000, func() { g.Decide(t.Context(), r) })
	if allocs > 0 && !raceDetector {
		t.Errorf("%v allocations", allocs)
	}
}

// TestSampledIsToldOfRefusedRequestsAndOfSomeOthers that stand for the rest.
func TestSampledIsToldOfRefusedRequestsAndOfSomeOthers(t *testing.T) {
	const n = 64_000
	weight := map[gate.Reason]int{}
	times := map[gate.Reason]int{}
	g := newGate(t, onlyCanary, func(o *gate.Options) {
		o.Shadow = time.Now().Add(time.Hour) // of the policy api
		o.Sampled = func(e *gate.Event) {
			times[e.Reason]++
			weight[e.Reason] += int(e.Weight)
			if e.Reason == gate.Valid && len(e.Fingerprint) != 12 {
				t.Errorf("an allowed one is of %q", e.Fingerprint)
			}
		}
	}, routed(t))
	for range n {
		g.Decide(t.Context(), gate.Request{Facts: policy.Facts{Host: "other.example", Method: "GET"}, Authorization: []string{"Bearer " + canary}})
	}
	if times[gate.Valid]*gate.Sampled != weight[gate.Valid] || weight[gate.Valid] < n/2 || weight[gate.Valid] > 2*n {
		t.Errorf("%d allowed ones were told, with the weight %d, want about %d", times[gate.Valid], weight[gate.Valid], n)
	}
	for range 100 {
		g.Decide(t.Context(), gate.Request{Facts: policy.Facts{Host: "other.example", Method: "GET"}})
		g.Decide(t.Context(), gate.Request{Facts: policy.Facts{Host: "api.example.com", Method: "GET"}}) // let through
	}
	if times[gate.MissingToken] != 200 || weight[gate.MissingToken] != 200 {
		t.Errorf("%d refused ones were told, with the weight %d, want 200", times[gate.MissingToken], weight[gate.MissingToken])
	}
}

// TestNoTokenIsInAnEvent, wherever a client puts it.
func TestNoTokenIsInAnEvent(t *testing.T) {
	const secret = "deadbeef-0000-4000-8000-00000000c0de" // it may be an id and a host as well
	header := "Bearer " + secret
	odd := func(f policy.Facts, values ...string) gate.Request {
		return gate.Request{Facts: f, Authorization: values, Target: "/" + secret + "?access_token=" + secret, RequestID: secret, Headers: headersOf{"x-request-id": secret}}
	}
	requests := []gate.Request{
		odd(policy.Facts{Host: secret, Method: "GET"}, header),
		odd(policy.Facts{Host: secret + ".example.com", Method: "GET"}),
		odd(policy.Facts{Host: secret + ".partners.example.com", Method: "GET"}, header),
		odd(policy.Facts{Host: "api.example.com:" + secret, Method: "GET"}, header),
		odd(policy.Facts{Host: "[" + secret + "]", Method: "GET"}, header),
		odd(policy.Facts{Host: "api.example.com", Method: strings.ToUpper(secret)}, header),
		odd(policy.Facts{Host: "api.example.com", Method: secret}, header),
		odd(policy.Facts{Host: "api.example.com", Method: "GET", Path: "/" + secret}, header, header),
		odd(policy.Facts{Host: "api.example.com", Method: "GET", Named: true, Policy: secret}, header),
		odd(policy.Facts{Host: "api.example.com", Method: "GET"}, "Basic "+secret),
		odd(policy.Facts{Host: "api.example.com", Method: "GET"}, "Bearer "+secret+","+secret),
		odd(policy.Facts{Host: "api.example.com", Method: "GET"}, secret),
		odd(policy.Facts{Host: "api.example.com", Method: "GET"}),
	}
	for name, v := range map[string]verify{
		"good": good, "not good": notGood, "no answer": says(verifier.Verdict{}, &verifier.NoAnswer{Problem: secret}), "a panic": unasked,
	} {
		events := new(gate.Events)
		var all []*gate.Event
		g := newGate(t, v, func(o *gate.Options) {
			o.Events = events
			o.Sampled = func(e *gate.Event) { all = append(all, e) }
		}, routed(t))
		w := watch(t, events, gate.Filter{})
		for _, r := range requests {
			g.Decide(t.Context(), r)
		}
		all = append(all, told(w)...)
		if len(all) < len(requests) {
			t.Errorf("%s: %d events", name, len(all))
		}
		for _, e := range all {
			if text := fmt.Sprintf("%+v", *e); strings.Contains(strings.ToLower(text), secret) {
				t.Errorf("%s: the token is in %s", name, text)
			}
		}
	}
}

func TestAnEventHasTheRequestsIDIfTheLogHasIt(t *testing.T) {
	const id = "0b5f4ac2-1d0e-9f5a"
	for _, test := range []struct {
		show     bool
		id, want string
	}{
		{true, id, id}, {false, id, ""}, {true, canary, ""}, {true, "", ""},
	} {
		events := new(gate.Events)
		log := gate.NewRequestLog(nil)
		log.RequestIDs(test.show)
		g := newGate(t, good, func(o *gate.Options) { o.Events, o.Log = events, log })
		w := watch(t, events, gate.Filter{})
		r := withToken()
		r.Headers = headersOf{"x-request-id": test.id}
		g.Decide(t.Context(), r)
		if e := <-w.Events(); e.RequestID != test.want {
			t.Errorf("%+v: the id is %q", test, e.RequestID)
		}
	}
}

// TestWatchersComeAndGoWhileOthersDecide is for the race detector.
func TestWatchersComeAndGoWhileOthersDecide(t *testing.T) {
	events := new(gate.Events)
	g := newGate(t, good, func(o *gate.Options) { o.Events = events; o.Logger = nil })
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 1000 {
				g.Decide(t.Context(), withToken())
			}
		})
	}
	for range 4 {
		all.Go(func() {
			for range 200 {
				w, err := events.Watch(gate.Filter{Outcomes: []gate.Outcome{gate.Allow}})
				if err != nil {
					t.Error(err)
					return
				}
				for _, e := range told(w) {
					if e.Reason != gate.Valid {
						t.Errorf("told of %v", e.Reason)
					}
				}
				w.Close()
			}
		})
	}
	all.Wait()
}

// BenchmarkDecideTold is what it costs one decision from memory that others are told:
// beside nobody who is, some of the decisions, and who watches but others, or too slowly.
func BenchmarkDecideTold(b *testing.B) {
	for _, test := range []struct {
		name    string
		sampled func(*gate.Event)
		filter  *gate.Filter
		header  string
		want    gate.Reason
	}{
		{name: "nobody", header: "Bearer " + canary, want: gate.Valid},
		{name: "sampled", sampled: func(*gate.Event) {}, header: "Bearer " + canary, want: gate.Valid},
		{name: "others watched", filter: &gate.Filter{Outcomes: []gate.Outcome{gate.Unavailable}}, header: "Bearer " + canary, want: gate.Valid},
		{name: "watched too slowly", filter: &gate.Filter{}, header: "Bearer " + canary, want: gate.Valid},
		{name: "nobody, refused", header: "Bearer refused", want: gate.InvalidToken},
		{name: "sampled, refused", sampled: func(*gate.Event) {}, header: "Bearer refused", want: gate.InvalidToken},
	} {
		b.Run(test.name, func(b *testing.B) {
			events := new(gate.Events)
			g, _ := newCached(b, func(o *gate.Options) { o.Events, o.Sampled = events, test.sampled })
			if test.filter != nil {
				w, err := events.Watch(*test.filter)
				if err != nil {
					b.Fatal(err)
				}
				defer w.Close()
			}
			r := with(test.header)
			b.ReportAllocs()
			for b.Loop() {
				if d := g.Decide(b.Context(), r); d.Reason != test.want {
					b.Fatal(d.Reason)
				}
			}
		})
	}
}
