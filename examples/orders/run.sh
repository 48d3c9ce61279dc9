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
service= play=
stop() {
	local status=$?
	trap - EXIT INT TERM
	for p in $play $service; do
		kill -TERM "$p" 2>/dev/null && wait "$p" || true
	done
	rm -rf "$work"
	exit "$status"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

go build -o "$work/" ./examples/orders ./examples/orders/play
# A store belongs to one log, and the broker may be another one than last time: without STORE it
# is folded from the log each time.
"$work/orders" -log "kafka://$broker/${APP:-orders}" -store "${STORE:-pebble:$work/store}" 2>"$work/log" &
service=$!
"$work/play" -log "kafka://$broker/${APP:-orders}" "$@" &
play=$!
while kill -0 "$play" 2>/dev/null; do
	if ! kill -0 "$service" 2>/dev/null; then
		echo "The service ended:" >&2
		tail -20 "$work/log" >&2
		exit 1
	fi
	sleep 0.2
done
status=0
wait "$play" || status=$?
play=
[ "$status" -eq 0 ] || tail -20 "$work/log" >&2
exit "$status"
