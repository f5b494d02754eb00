package main

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/bearergate/bearergate/bench/measure"
	"github.com/bearergate/bearergate/deploy"
)

func TestRecipesAreChangedAsThePageSays(t *testing.T) {
	nobody := &measure.Process{GRPC: "127.0.0.1:1", HTTP: "127.0.0.1:2"}
	for _, w := range append(envoyWays(nobody, nobody, nobody), nginxWays(nobody, nobody)...) {
		t.Run(w.recipe.Name+" "+w.name, func(t *testing.T) {
			text, err := w.recipe.At(deploy.Addresses{Edge: "127.0.0.1:3", Gateway: w.asks})
			if err != nil {
				t.Fatal(err)
			}
			text, err = w.change(text)
			if err != nil {
				t.Fatal(err)
			}
			asks, answers, logs := "auth_request /_bearergate;", "empty_gif;", "access_log /dev"
			if w.recipe.Program == "envoy" {
				asks, answers, logs = "name: envoy.filters.http.ext_authz\n", "direct_response:", "access_log:"
				var tree map[string]any
				if err := yaml.Unmarshal([]byte(text), &tree); err != nil {
					t.Errorf("it is no YAML any more: %v", err)
				}
			}
			if got := strings.Contains(text, asks); got != (w.name != alone) {
				t.Errorf("it asks: %v", got)
			}
			if !strings.Contains(text, answers) {
				t.Error("it does not answer itself")
			}
			if strings.Contains(text, logs) {
				t.Error("it writes a log")
			}
		})
	}
}

func TestExchange(t *testing.T) {
	for _, text := range []string{"access_log off;", "access_log /dev/stdout bearergate;\naccess_log /dev/stdout bearergate;"} {
		if _, err := exchange(text, nginxLog, ""); err == nil || !strings.Contains(err.Error(), "want once") {
			t.Errorf("%q: got error %v", text, err)
		}
	}
}
