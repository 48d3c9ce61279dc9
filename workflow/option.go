package workflow

import (
	"slices"
	"time"

	"github.com/godagger/dagger/eventlog"
)

// Option is a policy of a node. An option given twice counts as it was given last; one that
// a kind of node does not know is a mistake that Register tells.
type Option struct {
	name  string
	kinds []eventlog.Kind
	apply func(*node)
}

type retry struct {
	attempts int
	delay    time.Duration
}

// Retry makes up to attempts attempts in all (at least 1) before the task fails for good.
// The delay before the second attempt (at least a millisecond) doubles for each that
// follows, up to an hour, and is spread by a fifth up and down. Delays stand in the log: a
// restart does not shorten or forget them. Without Retry a task has one attempt.
func Retry(attempts int, delay time.Duration) Option {
	return Option{"Retry", tasks, func(n *node) { n.retry = &retry{attempts, delay} }}
}

// Timeout limits an attempt of a task (at least a millisecond): it fails and its context
// ends with a cause. For a Listen task it limits the wait for each
// message, and a wait that timed out fails the task. Without it there is no limit.
func Timeout(d time.Duration) Option {
	return Option{"Timeout", tasks, func(n *node) { n.timeout = d }}
}

// Buffer says how long a message that nobody waits for is kept for a Listen task; at least
// a minute, by default 24 hours. Of several listeners of one topic and attribute the
// longest counts.
func Buffer(ttl time.Duration) Option {
	return Option{"Buffer", []eventlog.Kind{eventlog.Listen}, func(n *node) { n.buffer = ttl }}
}

// WaitAll makes a Parallel(All) of which a branch failed wait for the others before it fails.
// Without it the instance fails at once; what ran beside it is stopped, and starts again when
// the instance is retried.
func WaitAll() Option {
	return Option{"WaitAll", []eventlog.Kind{eventlog.Parallel}, func(n *node) { n.waitAll = true }}
}

// MayFail lets the flow go on behind a node that failed for good: the node keeps the status
// FAILURE, the instance does not fail.
func MayFail() Option {
	return Option{"MayFail", append([]eventlog.Kind{eventlog.Process, eventlog.Parallel}, tasks...), func(n *node) { n.mayFail = true }}
}

const defaultBuffer = 24 * time.Hour

var tasks = []eventlog.Kind{eventlog.Execute, eventlog.Command, eventlog.Listen, eventlog.Decide, eventlog.At, eventlog.Every}

// With gives the node policies.
func (n Node[P]) With(options ...Option) Node[P] {
	n.options, n.mistakes = slices.Clone(n.options), slices.Clone(n.mistakes)
	for _, o := range options {
		switch {
		case o.apply == nil:
			n.mistakes = append(n.mistakes, "With was given an empty Option")
		case !slices.Contains(o.kinds, n.kind):
			n.mistakes = append(n.mistakes, o.name+" is not for a node of kind "+string(n.kind))
		default:
			o.apply(&n.node)
			n.options = append(n.options, o.name)
		}
	}
	return n
}
