#!/usr/bin/env bash
# Compares this engine with others on this machine (see main.go; the flags are passed on).
# PostgreSQL and, where it is installed, Redis are Debian's (apt-get install postgresql
# redis-server), in a directory of their own, for loopback only. PostgreSQL has its default
# settings; Redis syncs every write. They are stopped and their data removed whatever happens,
# also to this script.
set -euo pipefail
cd "$(dirname "$0")"

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -1)
[ -n "$bin" ] || bin=$(dirname "$(command -v initdb)") || {
	echo "no PostgreSQL: apt-get install postgresql" >&2
	exit 1
}
as=() # who runs them; PostgreSQL refuses to run as root
if [ "$(id -u)" = 0 ]; then as=(runuser -u postgres --); fi

dir=$(mktemp -d)
mkdir "$dir/pg" "$dir/redis" "$dir/data"
if [ "$(id -u)" = 0 ]; then chown postgres "$dir/pg" "$dir/redis" && chmod 711 "$dir"; fi
case $(stat -f -c %T "$dir") in
tmpfs | ramfs) echo "warning: $dir is in memory, a sync costs nothing there; set TMPDIR" >&2 ;;
esac

# The other end of this pipe is held by this script alone, and closes with it: by its end or
# by kill -9. Then the watcher cleans up.
mkfifo "$dir/alive"
(
	trap '' INT TERM HUP
	read -r _ <"$dir/alive" || true
	cd /
	kill "$(cat "$dir/pid")" || true
	kill -9 "$(cat "$dir/redis/pid")" || true
	"${as[@]}" "$bin/pg_ctl" -D "$dir/pg/data" -m immediate -w stop || true
	rm -rf "$dir"
) >/dev/null 2>&1 &
watcher=$!
exec 9>"$dir/alive"
finish() {
	status=$?
	trap - EXIT
	exec 9>&-
	wait || true
	exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# -mod=mod: what the engine requires now need not stand in this module's go.mod already.
go build -mod=mod -buildvcs=auto -o "$dir/compare" . 9>&-

password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
(
	cd "$dir/pg"
	# A file that only its reader may read.
	umask 077
	printf '%s\n' "$password" | "${as[@]}" sh -c 'cat >"$1"' - "$dir/pg/password"
	"${as[@]}" "$bin/initdb" -D "$dir/pg/data" -U compare --pwfile="$dir/pg/password" -A scram-sha-256 -E UTF8 --locale=C >"$dir/initdb" 9>&- || {
		cat "$dir/initdb" >&2
		exit 1
	}
)
port=
for _ in 1 2 3 4 5; do # a port may be taken
	try=$((15432 + RANDOM % 16000))
	if (cd "$dir/pg" && "${as[@]}" "$bin/pg_ctl" -D "$dir/pg/data" -l "$dir/pg/server" -w \
		-o "-p $try -c listen_addresses=127.0.0.1 -c unix_socket_directories=$dir/pg" start >/dev/null 9>&-); then
		port=$try
		break
	fi
done
if [ -z "$port" ]; then
	cat "$dir/pg/server" >&2
	exit 1
fi
export COMPARE_POSTGRES="postgres://compare:$password@127.0.0.1:$port/postgres?sslmode=disable"
COMPARE_POSTGRES_PID=$(head -1 "$dir/pg/data/postmaster.pid")
export COMPARE_POSTGRES_PID

if server=$(command -v redis-server); then
	for _ in 1 2 3 4 5; do
		try=$((15432 + RANDOM % 16000))
		"${as[@]}" "$server" - <<-END >"$dir/redis.out" 9>&-
			bind 127.0.0.1
			port $try
			requirepass $password
			dir $dir/redis
			pidfile $dir/redis/pid
			logfile $dir/redis/log
			daemonize yes
			appendonly yes
			appendfsync always
			save ""
		END
		for _ in $(seq 50); do
			if (exec 3<>"/dev/tcp/127.0.0.1/$try") 2>/dev/null && [ -s "$dir/redis/pid" ]; then
				export COMPARE_REDIS="redis://:$password@127.0.0.1:$try/0"
				COMPARE_REDIS_PID=$(cat "$dir/redis/pid")
				export COMPARE_REDIS_PID
				break 2
			fi
			sleep 0.1
		done
	done
	if [ -z "${COMPARE_REDIS:-}" ]; then
		cat "$dir/redis.out" "$dir/redis/log" >&2
		exit 1
	fi
fi

"$dir/compare" -dir "$dir/data" "$@" 9>&- &
echo $! >"$dir/pid"
wait $! # and not in the foreground: a signal is seen at once
