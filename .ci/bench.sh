#!/usr/bin/env bash
# Load from end to end on the embedded log and, where one is at hand, on Kafka; then the
# micro-benchmarks. BENCH=short is a minute or so, for the record of a CI run.
# Kafka: KAFKA_BROKERS (host:port,...) or, with Java and Maven, a broker from Kafka's jars.
# Redis: REDIS_URL, or the redis-server of this machine.
set -euo pipefail
cd "$(dirname "$0")/.."

instances=100000 kafka_instances=20000 benchtime=1s
if [ "${BENCH:-}" = short ]; then
	instances=20000 kafka_instances=2000 benchtime=100ms
fi
tmp=$(mktemp -d)
broker= server=
cleanup() {
	if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
	if [ -n "$broker" ]; then kill "$broker" 2>/dev/null || true; wait "$broker" 2>/dev/null || true; fi
	rm -rf "$tmp"
}
trap cleanup EXIT

go build -o "$tmp/bench" ./bench
load() {
	echo "+ bench $*"
	"$tmp/bench" -o json "$@"
}
embedded() {
	load -log "file:$tmp/log" -store "pebble:$tmp/store" "$@"
	rm -rf "$tmp/log" "$tmp/store"
}
embedded -instances "$instances"
embedded -instances "$((instances / 10))" -rate 2000 # the latency well below what it can do
embedded -instances 500 -clients 1                   # one instance alone on an idle engine
embedded -workflow listen -instances "$((instances / 5))"
embedded -workflow listen -fan "$((instances / 5))"
embedded -workflow timer -timers "$((instances / 5))"
embedded -workflow parallel -instances "$((instances / 200))"
embedded -workflow takeover -instances "$((instances / 5))"
embedded -workflow asof -instances "$((instances / 2))"
embedded -instances "$((instances / 5))" -waiting "$((instances / 5))"
embedded -workflow fold -instances "$instances"

# The same with the store in a Redis server of this machine, and the two against each other.
redis=${REDIS_URL:-}
if [ -z "$redis" ] && command -v redis-server >/dev/null; then
	mkdir "$tmp/redis"
	for _ in 1 2 3 4 5; do
		port=$((20000 + RANDOM % 10000))
		redis-server --port "$port" --bind 127.0.0.1 --dir "$tmp/redis" --save '' >"$tmp/redis.log" 2>&1 &
		server=$!
		for _ in $(seq 100); do
			if grep -q 'Ready to accept' "$tmp/redis.log" || ! kill -0 "$server" 2>/dev/null; then break; fi
			sleep 0.1
		done
		if kill -0 "$server" 2>/dev/null; then
			redis=redis://127.0.0.1:$port
			break
		fi
		server=
	done
fi
if [ -n "$redis" ]; then
	load -instances "$instances" -against "$redis"
	load -workflow fold -instances "$instances" -store "$redis"
	load -workflow takeover -instances "$((instances / 5))" -store "$redis"
	load -instances "$((instances / 5))" -waiting "$((instances / 5))" -store "$redis"
else
	echo "no load on Redis: neither REDIS_URL nor redis-server are here"
fi

addr=${KAFKA_BROKERS:-}
if [ -z "$addr" ] && command -v java >/dev/null && command -v mvn >/dev/null; then
	go build -o "$tmp/kafkabroker" ./internal/kafkatest/kafkabroker
	"$tmp/kafkabroker" -addr-file "$tmp/addr" >"$tmp/broker.log" 2>&1 &
	broker=$!
	for _ in $(seq 1200); do
		if [ -s "$tmp/addr" ] || ! kill -0 "$broker" 2>/dev/null; then break; fi
		sleep 0.1
	done
	if ! addr=$(cat "$tmp/addr"); then
		cat "$tmp/broker.log"
		exit 1
	fi
fi
if [ -n "$addr" ]; then
	load -log "kafka://$addr/bench-$$" -store "pebble:$tmp/kafka-store" -instances "$kafka_instances"
else
	echo "no load on Kafka: neither KAFKA_BROKERS nor Java and Maven are here"
fi
go test -run '^$' -bench . -benchmem -benchtime "$benchtime" -timeout 10m ./... | grep -v -e '^?' -e '^PASS$' -e 'no test files'
