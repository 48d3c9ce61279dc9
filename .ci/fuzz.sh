#!/usr/bin/env bash
# Every fuzz test of the tree, one after the other (go test takes one at a time).
set -euo pipefail
cd "$(dirname "$0")/.."

time=${1:-10s}
grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sort | while IFS=: read -r file func; do
	echo "+ ${func#func } in $(dirname "$file") for $time"
	go test "$(dirname "$file")" -run '^$' -fuzz "^${func#func }\$" -fuzztime "$time"
done
