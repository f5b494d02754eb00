package config_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/bearergate/bearergate/config"
	"github.com/bearergate/bearergate/crmnow"
)

// readiness is what /readyz says.
type readiness struct {
	code   int
	Status string
	Parts  []struct {
		Part   string
		Ready  bool
		Reason string
	}
}

func (g *running) readiness(t *testing.T) readiness {
	t.Helper()
	got := get(t, g.Address(config.Admin), "/readyz")
	r := readiness{code: got.status}
	if err := json.Unmarshal([]byte(got.body), &r); err != nil {
		t.Fatalf("/readyz says %q: %v", got.body, err)
	}
	return r
}

// watchHealth watches the gRPC health of a service.
func (g *running) watchHealth(t *testing.T, service string) (next func() healthpb.HealthCheckResponse_ServingStatus) {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+g.Address(config.ExtAuthz), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	stream, err := healthpb.NewHealthClient(conn).Watch(ctx, &healthpb.HealthCheckRequest{Service: service})
	if err != nil {
		t.Fatal(err)
	}
	return func() healthpb.HealthCheckResponse_ServingStatus {
		t.Helper()
		got, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		return got.GetStatus()
	}
}

// TestReadinessFollowsTheVerifiersThatItIsToldOf: /readyz, gRPC health of each
// service and the log.
func TestReadinessFollowsTheVerifiersThatItIsToldOf(t *testing.T) {
	e := local(t)
	g := run(t, everywhere+asking(e.URL())+"    breaker: {failures: 1, of_last: 1, open_for: 50ms}\nhealth: {verifiers: [crm]}\n")
	eventually(t, "readiness", func() bool { return g.readiness(t).Status == "ready" })
	if r := g.readiness(t); len(r.Parts) != 3 || r.Parts[1].Part != "listeners" || !strings.Contains(r.Parts[1].Reason, "ext_authz, auth_request, admin") ||
		r.Parts[0].Part != "configuration" || r.Parts[2].Part != "verifier crm" || !r.Parts[2].Ready {
		t.Errorf("the parts are %+v", r.Parts)
	}
	var watched []func() healthpb.HealthCheckResponse_ServingStatus
	for _, service := range []string{"", authv3.Authorization_ServiceDesc.ServiceName} {
		watched = append(watched, g.watchHealth(t, service))
	}
	see := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for _, next := range watched {
			if got := next(); got != want {
				t.Errorf("gRPC health says %v, want %v", got, want)
			}
		}
	}
	see(healthpb.HealthCheckResponse_SERVING)

	good := issue(t, e)
	if err := e.SetFault(crmnow.Verify, crmnow.Fault{Status: http.StatusInternalServerError}); err != nil {
		t.Fatal(err)
	}
	if got := g.ask(t, good); got.status != http.StatusServiceUnavailable {
		t.Fatalf("got %d", got.status)
	}
	see(healthpb.HealthCheckResponse_NOT_SERVING)
	if r := g.readiness(t); r.code != http.StatusServiceUnavailable || r.Status != "not_ready" || r.Parts[2].Ready || !strings.Contains(r.Parts[2].Reason, "gave no answers") {
		t.Errorf("/readyz says %+v", r)
	}
	// Somebody has to be let in, or nobody finds out that it answers again.
	if p := g.PartAt("crm", time.Now()); p.Ready {
		t.Error("it is ready too early")
	}
	if p := g.PartAt("crm", time.Now().Add(10*time.Second)); !p.Ready || p.Reason == "" {
		t.Errorf("after a while the part is %+v", p)
	}

	e.ClearFaults()
	eventually(t, "answer", func() bool { return g.ask(t, good).status == http.StatusOK })
	see(healthpb.HealthCheckResponse_SERVING)
	if r := g.readiness(t); r.code != http.StatusOK || r.Parts[2].Reason != "" {
		t.Errorf("/readyz says %+v", r)
	}
	// The faces are told first.
	eventually(t, "line in the log about both", func() bool {
		var said []string
		for _, entry := range g.log.entries(t) {
			if strings.HasPrefix(entry.Message, "the gateway is ") {
				said = append(said, entry.Level+" "+entry.Message)
			}
		}
		return strings.Join(said, "; ") == "WARN the gateway is not ready; INFO the gateway is ready again"
	})
}

func TestReadinessDoesNotFollowVerifiersByItself(t *testing.T) {
	e := local(t)
	g := run(t, everywhere+asking(e.URL())+"    breaker: {failures: 1, of_last: 1, open_for: 60s}\n")
	if err := e.SetFault(crmnow.Verify, crmnow.Fault{Status: http.StatusInternalServerError}); err != nil {
		t.Fatal(err)
	}
	g.ask(t, issue(t, e))
	r := g.readiness(t)
	if r.code != http.StatusOK || !r.Parts[2].Ready || !strings.Contains(r.Parts[2].Reason, "the breaker is open") {
		t.Errorf("/readyz says %+v", r)
	}
}

// TestAGatewayGoesOnWhileItsEdgesLeave: as long as drain_delay lasts it says that it
// stops, and answers.
func TestAGatewayGoesOnWhileItsEdgesLeave(t *testing.T) {
	e := local(t)
	g := &running{log: &journal{}}
	var err error
	if g.Gateway, err = config.NewGateway(t.Context(), parse(t, everywhere+asking(e.URL())+"drain_delay: 5m\n"), g.log.logger(), "test"); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	eventually(t, "readiness", func() bool { return g.readiness(t).Status == "ready" })
	good := issue(t, e)
	next := g.watchHealth(t, "")
	if got := next(); got != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("gRPC health says %v", got)
	}
	if got := get(t, g.Address(config.AuthRequest), "/auth", "Authorization", "Bearer "+good); got.status != http.StatusOK {
		t.Fatalf("got %d", got.status)
	}
	stop()
	if got := next(); got != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("gRPC health says %v", got)
	}
	if r := g.readiness(t); r.code != http.StatusServiceUnavailable || r.Status != "stopping" {
		t.Errorf("/readyz says %+v", r)
	}
	keeps := &http.Transport{}
	defer keeps.CloseIdleConnections()
	eventually(t, "answer that closes its connection", func() bool {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.Address(config.AuthRequest)+"/auth", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+good)
		got, err := keeps.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = got.Body.Close()
		if got.StatusCode != http.StatusOK {
			t.Errorf("got %d", got.StatusCode)
		}
		return got.Close
	})
	if got, err := g.envoy(t).Check(t.Context(), checkRequest("authorization", "Bearer "+good)); err != nil || got.GetStatus().GetCode() != 0 {
		t.Errorf("Envoy gets %v, %v", got, err)
	}
	select {
	case err := <-ended:
		t.Fatalf("it has ended: %v", err)
	default:
	}
	// A listener that fails now is no reason to wait.
	if err := g.BreakListener(config.AuthRequest); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "listener auth_request") {
		t.Errorf("Run says %v", err)
	}
	expectClosed(t, g.Address(config.ExtAuthz))
}

func TestTheDrainDelayIsWaitedFor(t *testing.T) {
	g := run(t, everywhere+asking("https://api.example.com/")+"drain_delay: 50ms\n")
	eventually(t, "readiness", func() bool { return g.readiness(t).Status == "ready" })
	begin := time.Now()
	if err := g.end(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took < 50*time.Millisecond {
		t.Errorf("it ended after %v", took)
	}
}
