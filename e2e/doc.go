// Package e2e tests bearergate where it works: the built command stands behind
// real Envoy, nginx and Caddy, which run the recipes of deploy/ and guard a real
// API. The endpoint it asks is the emulator of package crmnow, a script that real PHP
// runs, or an authorization server that others have written (authserver/, a module of
// its own). A real Prometheus fires the alerts of deploy/prometheus.
//
// It has no code but tests. They need the proxies on the machine (make setup
// brings them), open ports on loopback alone, and leave no process behind.
package e2e
