# A thin front: what is longer than a line is in .ci/. After the modules have been downloaded
# once, nothing here but `it`, `it-aerospike`, `up` and the first `check` needs a network.

STATICCHECK := v0.8.2
FUZZTIME    ?= 10s

.DEFAULT_GOAL := help
.PHONY: help check fmt test it it-aerospike orders chaos bench compare fuzz cover up down

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Installed and not run by `go run package@version`, which asks the network each time.
staticcheck := bin/staticcheck-$(STATICCHECK)-$(shell go env GOVERSION)
$(staticcheck):
	GOBIN=$(CURDIR)/bin/new go install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK)
	mv bin/new/staticcheck $@

check: $(staticcheck) ## everything but tests: format, vet, staticcheck, imports, exported names, go.mod
	@bad=$$(gofmt -l .); test -z "$$bad" || { echo "make fmt is needed for:"; echo "$$bad"; exit 1; }
	go vet ./...
	$(staticcheck) ./...
	go run ./internal/policy/imports
	go run ./internal/policy/api -check
	go mod tidy -diff

fmt: ## format the sources
	gofmt -w .

test: ## all tests that need neither server nor network, with -race where a C compiler works
	@.ci/test.sh

it: ## the suites and the example against a real Kafka broker (IT=docker or IT=jars forces one)
	@.ci/it
	@.ci/fresh

it-aerospike: ## the tests of backends/aerospike on a real server (AEROSPIKE_ADDR=host:port, else Docker)
	@.ci/it-aerospike

orders: ## examples/orders on the local broker (KAFKA_BROKERS=host:port, STORE=URL)
	@examples/orders/run.sh

chaos: ## the fault tests in their long form, half an hour; SEED=n repeats a run
	DAGGER_CHAOS=long go test -count=1 -v -timeout 90m ./internal/chaos

bench: ## end-to-end load on both logs, then the micro-benchmarks
	@.ci/bench.sh

compare: ## the same work with DBOS, River and asynq, in one run (needs PostgreSQL; COMPARE="-clients 64")
	@bench/compare/run.sh $(COMPARE)

fuzz: ## every fuzz test for FUZZTIME (10s)
	@.ci/fuzz.sh $(FUZZTIME)

cover: ## test coverage, in cover.html
	go test -timeout 5m -coverpkg=./... -coverprofile=cover.out ./...
	go tool cover -html=cover.out -o cover.html
	go tool cover -func=cover.out | tail -1

up: ## start Kafka, Redis and Aerospike in Docker
	docker compose up --wait

down: ## stop them and drop their data
	docker compose down --volumes
