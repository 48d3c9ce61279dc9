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
// follows, up to an hour (a delay that is longer stays as it is), and is spread by a fifth up and down. Delays stand in the log: a
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

// WaitAll makes a Parallel(All) or ForEach of which a branch failed wait for the others before it fails.
// Without it the instance fails at once; what ran beside it is stopped, and starts again when
// the instance is retried.
func WaitAll() Option {
	return Option{"WaitAll", []eventlog.Kind{eventlog.Parallel, eventlog.ForEach}, func(n *node) { n.waitAll = true }}
}

// FailurePolicy says how the flow goes on when a node has failed for good.
type FailurePolicy struct {
	how   string // "" = Fail
	path  string
	times int
}

var (
	// Fail makes what is around the node fail, at last the instance.
	Fail = FailurePolicy{}
	// Continue goes on behind the node, which keeps the status FAILURE.
	Continue = FailurePolicy{how: "continue"}
)

// Goto goes on at another node: forward, and what lies between is skipped; or back, and what
// lies between is done again. The path is looked up beside the node, then beside each process
// around it. The way there must lead out of and into processes only, and not out of an item
// of a ForEach or a run of a Dynamic. An instance does it up to ten times for a node; after
// that the node fails. See Times.
func Goto(path string) FailurePolicy { return FailurePolicy{how: "goto", path: path, times: 10} }

// Times is how often an instance may Goto for the node, at least once. Other policies have no
// number.
func (f FailurePolicy) Times(n int) FailurePolicy {
	f.times = n
	return f
}

// OnFailure says how the flow goes on when the node has failed for good: Fail (the default),
// Continue, or Goto. What is open inside the node is skipped.
func OnFailure(f FailurePolicy) Option {
	return Option{"OnFailure", slices.Concat(composites, tasks), func(n *node) { n.onFailure = f }}
}

// Deadline gives a Process or Parallel a time, from its start, in which it must have ended (at
// least a millisecond), and says what happens otherwise.
func Deadline(d time.Duration, then DeadlineAction) Option {
	return Option{"Deadline", []eventlog.Kind{eventlog.Process, eventlog.Parallel}, func(n *node) { n.deadline, n.past = d, then }}
}

// Concurrency says how many runs of a ForEach work at once, 100 without it; of a task, how many
// of its handlers run at once in each process, whatever instances they are of. At least 1.
func Concurrency(n int) Option {
	return Option{"Concurrency", append([]eventlog.Kind{eventlog.ForEach, eventlog.Monitor}, tasks...), func(x *node) { x.concurrency = n }}
}

// Reprocess lets a Listen task that has completed work again on each later message, as long as
// the instance runs; the flow is not held up by it. The instance ends when such work has; in a
// run of a ForEach such work ends with the run.
// done=false has no meaning then. An error is that of the task: the instance fails.
func Reprocess() Option {
	return Option{"Reprocess", []eventlog.Kind{eventlog.Listen}, func(*node) {}}
}

// SkipTo lets a message for a Listen task that was not reached yet skip what lies before it.
// The path is that of the task, or of a process around it, in which the flow then begins;
// looked up as that of Goto. It does not lead into a branch that was not chosen yet, or into an
// item of a ForEach that was not begun: the message then waits as any other.
func SkipTo(path string) Option {
	return Option{"SkipTo", []eventlog.Kind{eventlog.Listen}, func(n *node) { n.skipTo = path }}
}

// MatchOne gives a message to one instance only of those that wait for its key: to the one
// that was given the fewest in this way, of several to the one that has waited longest. It
// counts for all listeners of the topic and attribute in this definition, and in others as
// soon as one of them waits.
func MatchOne() Option {
	return Option{"MatchOne", []eventlog.Kind{eventlog.Listen}, func(*node) {}}
}

const defaultBuffer = 24 * time.Hour

var (
	composites = []eventlog.Kind{eventlog.Process, eventlog.Parallel}
	tasks      = []eventlog.Kind{eventlog.Execute, eventlog.Command, eventlog.Listen, eventlog.Decide, eventlog.At, eventlog.Every, eventlog.ForEach, eventlog.Dynamic}
)

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
