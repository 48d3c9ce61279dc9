#!/usr/bin/env bash
# All tests; with the race detector where it can be built, which takes cgo and a C compiler.
set -euo pipefail
cd "$(dirname "$0")/.."

race=()
if go build -race runtime/cgo 2>/dev/null; then
	race=(-race)
else
	echo "no race detector: no C compiler works here, so the tests run without -race"
fi
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
go build -o "$tmp/testreport" ./internal/policy/testreport
go test -json -timeout 15m "${race[@]}" "$@" ./... | "$tmp/testreport"
if [ ${#race[@]} -gt 0 ]; then # one goroutine drives these: it is quicker without
	go test -json -timeout 15m -run '^(TestSimulation|TestSameSeed|TestWithoutRule|TestRulesAreNamed|TestWalk|TestSearch|TestLaws|TestOracle)$' ./internal/engine ./internal/machine | "$tmp/testreport"
fi
