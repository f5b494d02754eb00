package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/bearergate/bearergate/deploy"
)

// testTalkers has real edges name their client, who says that he is another one.
func testTalkers(t *testing.T, r *run) {
	for from, kinds := range map[string][]edgeKind{
		"x-real-ip":       {{name: "nginx that names clients", recipe: deploy.Nginx()}, {name: "Envoy that names clients", recipe: deploy.Envoy()}},
		"x-forwarded-for": {{name: "Caddy that names clients", recipe: deploy.Caddy()}},
	} {
		for _, kind := range kinds {
			t.Run(kind.name, func(t *testing.T) {
				t.Parallel()
				s := r.startStack(t, kind.name, []edgeKind{kind}, settings{timeout: "3s", trust: ", trust: {client: " + from + "}"})
				token := s.endpoint.issue(t)
				forged := []string{"X-Real-IP: 203.0.113.9", "X-Forwarded-For: 203.0.113.9", "X-Original-Client: 203.0.113.9"}
				for range 3 {
					got, name := s.edges[0].send(t, request{lines: append(bearerLine(r.tokens.invent(40)), forged...)})
					s.check(t, s.edges[0], got, name, invalidToken)
				}
				got, name := s.edges[0].send(t, request{lines: append(bearerLine(token), forged...)})
				s.check(t, s.edges[0], got, name, allowed)
				top, err := topOf(t.Context(), s.gateway)
				if err != nil {
					t.Fatal(err)
				}
				if want := []talker{{"127.0.0.1", "3", "invalid_token"}}; !slices.Equal(top.RefusedClients, want) {
					t.Errorf("refused most are the clients %v, want %v", top.RefusedClients, want)
				}
				if len(top.RefusedTokens) != 3 {
					t.Errorf("refused most are the tokens %v", top.RefusedTokens)
				}
			})
		}
	}
}

type talker struct{ Name, Requests, Reason string }

// topOf returns who was seen most at a gateway.
func topOf(ctx context.Context, g *gateway) (top struct{ RefusedTokens, RefusedClients []talker }, err error) {
	text, err := callAdmin(ctx, g, "Activity", "{}")
	if err != nil {
		return top, err
	}
	var answer struct {
		Top []struct{ RefusedTokens, RefusedClients []talker }
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return top, err
	}
	if len(answer.Top) == 0 {
		return top, errors.New("nobody is named: " + text)
	}
	return answer.Top[0], nil
}

// adminPath is where the calls of the admin API are.
const adminPath = "/bearergate.admin.v1.AdminService/"

// callAdmin makes a call of the admin API, in JSON.
func callAdmin(ctx context.Context, g *gateway, call, question string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+g.settings.admin+adminPath+call, strings.NewReader(question))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/json")
	got, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(r)
	if err != nil {
		return "", err
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	if err == nil && got.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", call, got.Status)
	}
	return string(text), err
}
