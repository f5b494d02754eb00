package faults_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/bearergate/bearergate/config"
)

// face is a way to ask a gateway.
type face uint8

const (
	envoy face = iota // ext_authz
	nginx             // auth_request
	faces = 2
)

func (f face) String() string {
	if f == envoy {
		return "ext_authz"
	}
	return "auth_request"
}

// answer is what an edge gets to hear about a request.
type answer struct {
	status int
	reason string
	// source is where the verdict on an allowed request comes from. Only Envoy is
	// told.
	source string
	// retryAfter is in seconds; 0 if there is none.
	retryAfter int
}

func (a answer) String() string {
	text := fmt.Sprintf("%d %s", a.status, a.reason)
	if a.source != "" {
		text += " from " + a.source
	}
	if a.retryAfter != 0 {
		text += fmt.Sprintf(", retry after %d s", a.retryAfter)
	}
	return text
}

// What partners may see. Of a 503, Retry-After is checked when it is read.
func (a answer) allowed() bool     { return a.status == 200 && a.reason == "valid" }
func (a answer) refused() bool     { return a.status == 401 && a.reason == "invalid_token" }
func (a answer) unavailable() bool { return a.status == 503 && a.reason == "verifier_unavailable" }
func (a answer) overloaded() bool  { return a.status == 503 && a.reason == "overloaded" }

// allowedFrom reports whether a request was allowed for this reason, as far as the
// face tells.
func (a answer) allowedFrom(source string) bool {
	return a.allowed() && (a.source == source || a.source == "")
}

// ask asks about a token.
func (g *gateway) ask(t *testing.T, f face, token string) answer {
	t.Helper()
	a, err := g.try(f, token)
	if err != nil {
		t.Errorf("%s gave no answer: %v", f, err)
		return answer{}
	}
	if (a.status == http.StatusServiceUnavailable) != (a.retryAfter >= 5) {
		t.Errorf("%s answered %v; Retry-After belongs to a 503, and is at least 5 s", f, a)
	}
	return a
}

func (g *gateway) try(f face, token string) (answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if f == envoy {
		return g.askEnvoy(ctx, token)
	}
	return g.askHTTP(ctx, token)
}

func (g *gateway) askHTTP(ctx context.Context, token string) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+g.Address(config.AuthRequest)+"/auth/", http.NoBody)
	if err != nil {
		return answer{}, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := g.client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return answer{}, err
	}
	a := answer{status: response.StatusCode, reason: response.Header.Get("X-Bearergate-Reason")}
	a.retryAfter, err = strconv.Atoi(cmp.Or(response.Header.Get("Retry-After"), "0"))
	return a, err
}

func (g *gateway) askEnvoy(ctx context.Context, token string) (answer, error) {
	check := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
		Http: &authv3.AttributeContext_HttpRequest{
			Method: http.MethodGet, Path: "/", Headers: map[string]string{"authorization": "Bearer " + token},
		},
	}}}
	response, err := g.envoy.Check(ctx, check)
	if err != nil {
		return answer{}, err
	}
	metadata := response.GetDynamicMetadata().GetFields()
	a := answer{reason: metadata["reason"].GetStringValue(), source: metadata["source"].GetStringValue()}
	switch code := codes.Code(response.GetStatus().GetCode()); {
	case response.GetStatus() == nil:
		return a, fmt.Errorf("the response has no status")
	case code == codes.OK && response.GetOkResponse() != nil:
		a.status = http.StatusOK
		return a, nil
	case code == codes.OK:
		return a, fmt.Errorf("the response says OK and denies")
	}
	denied := response.GetDeniedResponse()
	a.status = int(denied.GetStatus().GetCode())
	for _, h := range denied.GetHeaders() {
		if h.GetHeader().GetKey() == "Retry-After" {
			if a.retryAfter, err = strconv.Atoi(h.GetHeader().GetValue()); err != nil {
				return a, err
			}
		}
	}
	return a, nil
}

// askAll asks about tokens at the same time, by one face after the other, and
// returns the answers in their order.
func (g *gateway) askAll(t *testing.T, tokens []string) []answer {
	t.Helper()
	answers := make([]answer, len(tokens))
	var asking sync.WaitGroup
	for i, token := range tokens {
		asking.Go(func() { answers[i] = g.ask(t, face(i%faces), token) })
	}
	asking.Wait()
	return answers
}

// learn makes good tokens known to the gateway. It is patient: the machine may be
// busy with other tests.
func (g *gateway) learn(t *testing.T, tokens []string) {
	t.Helper()
	eventually(t, "the gateway learns that tokens are good", func() error {
		for _, a := range g.askAll(t, tokens) {
			if !a.allowed() {
				return fmt.Errorf("got %v", a)
			}
		}
		return nil
	})
}

// invent returns a token that nobody has issued.
func (s *site) invent() string { return s.note("made-up-" + rand.Text()) }

// inventMany returns tokens that nobody has issued.
func (s *site) inventMany(n int) []string {
	tokens := make([]string, n)
	for i := range tokens {
		tokens[i] = s.invent()
	}
	return tokens
}
