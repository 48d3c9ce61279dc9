#!/usr/bin/env bash
# Runs the service and play against the broker at KAFKA_BROKERS (127.0.0.1:9092). What is given
# goes to play: examples/orders/run.sh -orders 50
set -euo pipefail
cd "$(dirname "$0")/../.."

broker=${KAFKA_BROKERS:-127.0.0.1:9092}
first=${broker%%,*}
if ! (exec 3<>"/dev/tcp/${first%:*}/${first##*:}") 2>/dev/null; then
	echo "No broker answers at $first: start one with 'make up' (Docker), or with 'go run ./internal/kafkatest/kafkabroker -addr-file FILE' (Java 17) and set KAFKA_BROKERS to what stands in FILE." >&2
	exit 1
fi

work=$(mktemp -d)
service=
stop() {
	if [[ -n $service ]] && kill -INT "$service" 2>/dev/null; then
		wait "$service" || true
	fi
	rm -rf "$work"
}
trap stop EXIT

go build -o "$work/" ./examples/orders ./examples/orders/play
"$work/orders" -log "kafka://$broker/${APP:-orders}" -store "${STORE:-pebble:dagger-data/orders}" 2>"$work/log" &
service=$!
"$work/play" -log "kafka://$broker/${APP:-orders}" "$@" || { status=$?; tail -20 "$work/log" >&2; exit "$status"; }
