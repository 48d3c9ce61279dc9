package machine

import (
	"strconv"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// parseEvery is the period and the end of an Every, from its computed value.
func parseEvery(value string) (period, until int64) {
	p, u, _ := strings.Cut(value, "/")
	period, _ = strconv.ParseInt(p, 10, 64)
	until, _ = strconv.ParseInt(u, 10, 64)
	return period, until
}

// nextTick is the next time of an Every after a start at since: missed periods are left out.
// It is 0 while the period is not known.
func nextTick(value string, since, now int64) int64 {
	period, _ := parseEvery(value)
	if period <= 0 {
		return 0
	}
	next := since + period
	if next <= now {
		next = now + period - (now-since)%period
	}
	return next
}

// nextAlarm is the next time of a monitor that ran at now; 0 when it runs once.
func nextAlarm(value string, now int64) int64 {
	at, period := parseAlarm(value)
	if period <= 0 {
		return 0
	}
	if at > now {
		return at
	}
	return at + ((now-at)/period+1)*period
}

// parseAlarm is the computed time of a monitor, 0 while it is not known, and its period.
func parseAlarm(value string) (at, period int64) {
	a, p, _ := strings.Cut(value, "/")
	at, _ = strconv.ParseInt(a, 10, 64)
	period, _ = strconv.ParseInt(p, 10, 64)
	return at, period
}

// over says that an Every has come to its end.
func over(e *eventlog.Event, i *Instance, path string, now int64) bool {
	_, until := parseEvery(keyAfter(e, i, path))
	return until > 0 && now >= until
}
