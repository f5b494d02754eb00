package traces_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/bearergate/bearergate/bearer"
	"github.com/bearergate/bearergate/gate"
	"github.com/bearergate/bearergate/traces"
	"github.com/bearergate/bearergate/verifier"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// canary is the token of all tests. It must never be shown.
const canary = "canary-9f3b.token~of+the/tests=="

// The trace that an edge has begun.
const (
	traceID = "0af7651916cd43dd8448eb211c80319c"
	edgeID  = "b7ad6b7169203331"
)

// collector takes what a tracer sends.
type collector struct {
	collectorpb.UnimplementedTraceServiceServer

	mu    sync.Mutex
	raw   []byte
	spans []*tracepb.Span
	from  map[string]string // attributes of the resource
}

// Export implements the collector's gRPC service.
func (c *collector) Export(_ context.Context, r *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	raw, err := proto.Marshal(r)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw = append(c.raw, raw...)
	c.from = map[string]string{}
	for _, resource := range r.GetResourceSpans() {
		for _, a := range resource.GetResource().GetAttributes() {
			c.from[a.GetKey()] = a.GetValue().GetStringValue()
		}
		for _, scope := range resource.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
	return &collectorpb.ExportTraceServiceResponse{}, err
}

// ServeHTTP is the same over HTTP.
func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var request collectorpb.ExportTraceServiceRequest
	if err = errors.Join(err, proto.Unmarshal(body, &request)); err != nil || r.URL.Path != "/v1/traces" {
		http.Error(w, fmt.Sprint(r.URL.Path, err), http.StatusBadRequest)
		return
	}
	_, _ = c.Export(r.Context(), &request)
}

// start runs a collector, and points the environment to it.
func start(t *testing.T, protocol string) *collector {
	t.Helper()
	c := &collector{}
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
	if protocol == "grpc" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := grpc.NewServer()
		collectorpb.RegisterTraceServiceServer(s, c)
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		t.Cleanup(func() {
			s.Stop()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
		t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+l.Addr().String())
		return c
	}
	s := httptest.NewServer(c)
	t.Cleanup(s.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", s.URL)
	return c
}

// summary tells of the spans: name, parent, and attributes.
func (c *collector) summary() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	names := map[string]string{edgeID: "edge"}
	for _, s := range c.spans {
		names[fmt.Sprintf("%x", s.GetSpanId())] = s.GetName()
	}
	var all []string
	for _, s := range c.spans {
		text := fmt.Sprintf("%s in %s:", s.GetName(), names[fmt.Sprintf("%x", s.GetParentSpanId())])
		if fmt.Sprintf("%x", s.GetTraceId()) != traceID {
			text = "elsewhere " + text
		}
		for _, a := range s.GetAttributes() {
			value := a.GetValue().GetStringValue()
			if a.GetValue().GetBoolValue() {
				value = "true"
			}
			text += " " + strings.TrimPrefix(a.GetKey(), "bearergate.") + "=" + value
		}
		if m := s.GetStatus().GetMessage(); m != "" {
			text += " error: " + m
		}
		all = append(all, text)
	}
	return all
}

// headers are those of a request.
type headers map[string]string

func (h headers) Header(name string) string { return h[name] }
func (h headers) Client() netip.Addr        { return netip.Addr{} }

// verify is a Verifier made of a function.
type verify func(bearer.Token) (verifier.Verdict, error)

func (v verify) Verify(_ context.Context, t bearer.Token) (verifier.Verdict, error) { return v(t) }

// traced runs decisions about requests with a traceparent, and returns what gives the
// fingerprints of tokens, and the traces that those which waited were counted with.
func traced(t *testing.T, traceparent string, decisions ...string) (fingerprint func(string) string, counted []string) {
	t.Helper()
	tracer, err := traces.FromEnvironment(t.Context(), os.LookupEnv, "v1.2.3", func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	answers := verify(func(token bearer.Token) (verifier.Verdict, error) {
		if token.Reveal() != canary {
			return verifier.Verdict{}, &verifier.NoAnswer{Verifier: "crm", Problem: "nobody is there"}
		}
		return verifier.Verdict{Valid: true, Learnt: time.Now()}, nil
	})
	cache, err := verifier.NewCache(tracer.Calls("crm", answers), verifier.CacheOptions{
		Name: "crm", MaxTokens: 10, ValidTTL: time.Minute, InvalidTTL: time.Minute, Timeout: time.Minute, Trace: tracer.Cache("crm"),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer cache.Close()
	parser, err := bearer.NewParser(0)
	if err != nil {
		t.Fatal(err)
	}
	g, err := gate.New(gate.Options{
		Listener: "ext_authz", Parser: parser, Policy: gate.Policy{Verifier: cache, Realm: "api"},
		Trace: tracer.Decisions("ext_authz", []string{"default"}),
		Decided: func(tally gate.Tally) {
			if tally.Source == verifier.FromEndpoint && tally.Took > 0 {
				counted = append(counted, tally.Trace)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, authorization := range decisions {
		r := gate.Request{Headers: headers{"traceparent": traceparent, "x-secret": canary}, Target: "/?access_token=" + canary}
		if authorization != "" {
			r.Authorization = []string{authorization}
		}
		g.Decide(t.Context(), r)
		for begin := time.Now(); cache.Stats().Flights > 0 && time.Since(begin) < 30*time.Second; {
			<-time.After(time.Millisecond)
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
	defer cancel()
	if err := tracer.Close(ctx); err != nil {
		t.Fatal(err)
	}
	return func(token string) string {
		parsed, err := parser.Parse([]string{"Bearer " + token})
		if err != nil {
			t.Fatal(err)
		}
		return parsed.Fingerprint()
	}, counted
}

// TestATraceOfTheEdgeIsGoneOnWith, over both protocols: with a span for each
// decision, and spans for what a new token costs.
func TestATraceOfTheEdgeIsGoneOnWith(t *testing.T) {
	for _, protocol := range []string{"http/protobuf", "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			c := start(t, protocol)
			t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
			fingerprint, counted := traced(t, "00-"+traceID+"-"+edgeID+"-01", "Bearer "+canary, "Bearer "+canary, "", "Bearer other-"+canary)
			got := c.summary()
			for i := range got {
				got[i] = strings.NewReplacer(fingerprint(canary), "FINGERPRINT", fingerprint("other-"+canary), "OTHER").Replace(got[i])
			}
			want := []string{
				"call in wait: verifier=crm token=FINGERPRINT outcome=valid",
				"wait in decide: verifier=crm source=endpoint",
				"decide in edge: listener=ext_authz policy=default reason=valid source=endpoint token=FINGERPRINT",
				"decide in edge: listener=ext_authz policy=default reason=valid source=cache",
				"decide in edge: listener=ext_authz policy=default reason=token_in_url",
				"call in wait: verifier=crm token=OTHER outcome=no_answer error: verifier crm: nobody is there",
				"wait in decide: verifier=crm error: verifier crm: nobody is there",
				"decide in edge: listener=ext_authz policy=default reason=verifier_unavailable token=OTHER error: verifier_unavailable",
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the spans (-want +got):\n%s", diff)
			}
			if c.from["service.name"] != "bearergate" || c.from["service.version"] != "v1.2.3" || c.from["deployment.environment.name"] != "test" {
				t.Errorf("they are from %v", c.from)
			}
			if !slices.Equal(counted, []string{traceID, traceID}) {
				t.Errorf("those which waited were counted with the traces %q", counted)
			}
			if strings.Contains(string(c.raw), "canary") {
				t.Error("a token is in the traces")
			}
		})
	}
}

// TestWhoseTracesAreKept: by default those that the edge keeps, and those that it
// does not speak of; OTEL_TRACES_SAMPLER says otherwise.
func TestWhoseTracesAreKept(t *testing.T) {
	for _, test := range []struct {
		name, sampler, traceparent string
		spans                      int
	}{
		{"the edge keeps it", "", "00-" + traceID + "-" + edgeID + "-01", 3},
		{"the edge does not", "", "00-" + traceID + "-" + edgeID + "-00", 0},
		{"the edge says nothing", "", "", 3},
		{"the edge says nonsense", "", "00-" + canary, 3},
		{"none are wanted", "always_off", "00-" + traceID + "-" + edgeID + "-01", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := start(t, "http/protobuf")
			if test.sampler != "" {
				t.Setenv("OTEL_TRACES_SAMPLER", test.sampler)
			}
			_, counted := traced(t, test.traceparent, "Bearer "+canary)
			if got := c.summary(); len(got) != test.spans {
				t.Errorf("%d spans, want %d: %q", len(got), test.spans, got)
			}
			if len(counted) != 1 || (counted[0] != "") != (test.spans > 0) {
				t.Errorf("it was counted with the traces %q", counted)
			}
			if strings.Contains(string(c.raw), "canary") {
				t.Error("a token is in the traces")
			}
		})
	}
}

func TestTheEnvironmentTurnsTracesOn(t *testing.T) {
	const endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"
	for _, test := range []struct {
		environment map[string]string
		on          bool
		wrong       string
	}{
		{environment: map[string]string{}},
		{environment: map[string]string{"OTEL_SERVICE_NAME": "gate"}},
		{environment: map[string]string{endpoint: "http://127.0.0.1:1"}, on: true},
		{environment: map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1"}, on: true},
		{environment: map[string]string{"OTEL_TRACES_EXPORTER": "otlp"}, on: true},
		{environment: map[string]string{endpoint: "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"}},
		{environment: map[string]string{endpoint: "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}},
		{environment: map[string]string{"OTEL_TRACES_EXPORTER": "zipkin"}, wrong: `OTEL_TRACES_EXPORTER: "zipkin" is not known`},
		{environment: map[string]string{endpoint: "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, wrong: `OTEL_EXPORTER_OTLP_PROTOCOL: "http/json" is not known`},
	} {
		lookup := func(name string) (string, bool) { value, there := test.environment[name]; return value, there }
		tracer, err := traces.FromEnvironment(t.Context(), lookup, "test", func(err error) { t.Error(err) })
		if (tracer != nil) != test.on || (err != nil) != (test.wrong != "") || err != nil && !strings.HasPrefix(err.Error(), test.wrong) {
			t.Errorf("%v: on is %v, %v", test.environment, tracer != nil, err)
		}
		if err := tracer.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestWithoutTracesNothingIsThereToTraceWith: what is not there costs nothing.
func TestWithoutTracesNothingIsThereToTraceWith(t *testing.T) {
	var none *traces.Tracer
	next := verify(func(bearer.Token) (verifier.Verdict, error) { return verifier.Verdict{}, nil })
	if none.Decisions("x", nil) != nil || none.Cache("x") != nil {
		t.Error("there is something")
	}
	if _, same := none.Calls("x", next).(verify); !same {
		t.Error("calls go another way")
	}
}
