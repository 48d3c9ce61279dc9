package workflow

import (
	"slices"
	"time"

	"github.com/godagger/dagger/eventlog"
)

// Option is a policy of a node, given with Node.With. When one is given twice, the last counts.
// An option that a node's kind does not know is a mistake, which Engine.Register reports.
type Option struct {
	name  string
	kinds []eventlog.Kind
	apply func(*node)
}

type retry struct {
	attempts int
	delay    time.Duration
}

// Retry gives a task several attempts before it fails for good: at most attempts in all, at least
// 1. Without Retry a task has one. The second attempt starts after delay (at least a
// millisecond); for each further one the delay doubles, up to an hour, or stays as it is when
// it is longer than that. Each delay is varied by up to a fifth, so that many tasks that failed
// together do not start again together. Delays are in the log: a restart neither shortens nor
// forgets them.
func Retry(attempts int, delay time.Duration) Option {
	return Option{"Retry", tasks, func(n *node) { n.retry = &retry{attempts, delay} }}
}

// Timeout limits each attempt of a task, to at least a millisecond; without it there is no limit.
// When the time is over, the attempt has failed, and the handler's context ends with the cause
// ErrAttemptTimeout. For a Listen task it limits the wait for each message; a wait that is too
// long fails the task.
func Timeout(d time.Duration) Option {
	return Option{"Timeout", tasks, func(n *node) { n.timeout = d }}
}

// Buffer says how long a message that no instance waits for yet is kept for a Listen task: at
// least a minute, and 24 hours by default. Where several tasks listen to one topic by one
// attribute, the longest time counts for all.
func Buffer(ttl time.Duration) Option {
	return Option{"Buffer", []eventlog.Kind{eventlog.Listen}, func(n *node) { n.buffer = ttl }}
}

// WaitAll makes a Parallel(All) or ForEach in which a branch has failed wait for the other
// branches before it fails. Without it the node fails at once: the other branches are stopped,
// and start again if the instance is retried.
func WaitAll() Option {
	return Option{"WaitAll", []eventlog.Kind{eventlog.Parallel, eventlog.ForEach}, func(n *node) { n.waitAll = true }}
}

// FailurePolicy says how the flow goes on when a node has failed for good: Fail, Continue or
// Goto. It is given with OnFailure.
type FailurePolicy struct {
	how   string // "" = Fail
	path  string
	times int
}

var (
	// Fail makes the node around this one fail too, and so on up to the instance. It is the
	// default.
	Fail = FailurePolicy{}
	// Continue goes on with the next node. The failed one keeps the status Failure.
	Continue = FailurePolicy{how: "continue"}
)

// Goto goes on at another node. If that comes later, what lies between is skipped; if it came
// before, what lies between is done again. path is looked up next to the failed node, then next
// to each node around it. The way in may lead through processes only, not into the middle of a
// Parallel. The way out may not leave an item of a ForEach or a run of a Dynamic; where it
// leaves a Parallel, the other branches are skipped. An instance does this up to ten times for
// one node, or as often as Times says; after that the node fails.
func Goto(path string) FailurePolicy { return FailurePolicy{how: "goto", path: path, times: 10} }

// Times limits how often an instance takes a Goto for the node, at least once. It is a mistake
// for other policies.
func (f FailurePolicy) Times(n int) FailurePolicy {
	f.times = n
	return f
}

// OnFailure says how the flow goes on when the node has failed for good: Fail (the default),
// Continue, or Goto. What is unfinished inside the node is skipped.
func OnFailure(f FailurePolicy) Option {
	return Option{"OnFailure", slices.Concat(composites, tasks), func(n *node) { n.onFailure = f }}
}

// Deadline limits the time of a Process or Parallel, from its start, to at least a millisecond,
// and says what happens when it is over. See also Node.DeadlineAt.
func Deadline(d time.Duration, then DeadlineAction) Option {
	return Option{"Deadline", []eventlog.Kind{eventlog.Process, eventlog.Parallel}, func(n *node) { n.deadline, n.past = d, then }}
}

// Concurrency limits what runs at once, to at least 1. Of a ForEach it is the number of its runs,
// 100 by default. Of a task it is the number of its handlers in each process, over all
// instances; by default only Config.Slots limits them.
func Concurrency(n int) Option {
	return Option{"Concurrency", append([]eventlog.Kind{eventlog.ForEach, eventlog.Monitor}, tasks...), func(x *node) { x.concurrency = n }}
}

// Reprocess calls a Listen task that has completed again for each later message, as long as its
// instance runs; in a ForEach, as long as the item's run does. The flow does not wait for such
// calls, but the instance, or the run, ends only when they have returned. Their done=false
// has no meaning. Their error fails the task, and so the instance.
func Reprocess() Option {
	return Option{"Reprocess", []eventlog.Kind{eventlog.Listen}, func(*node) {}}
}

// SkipTo lets a message for a Listen task that has not been reached yet skip all that lies before
// it. path is the task itself, or a process around it at whose beginning the flow goes on; it is
// looked up as that of Goto. A branch that has not been chosen yet, or an item of a ForEach
// that has not begun, can't be reached like this: there the message waits as any other.
func SkipTo(path string) Option {
	return Option{"SkipTo", []eventlog.Kind{eventlog.Listen}, func(n *node) { n.skipTo = path }}
}

// MatchOne gives each message to only one of the instances that wait for its value: the one that
// was chosen like this the fewest times, and among equals the one that has waited longest. It
// then counts for everything that listens to this topic by this attribute: in this definition,
// and in others as soon as one instance waits with MatchOne.
func MatchOne() Option {
	return Option{"MatchOne", []eventlog.Kind{eventlog.Listen}, func(*node) {}}
}

const defaultBuffer = 24 * time.Hour

var (
	composites = []eventlog.Kind{eventlog.Process, eventlog.Parallel}
	tasks      = []eventlog.Kind{eventlog.Execute, eventlog.Command, eventlog.Listen, eventlog.Decide, eventlog.At, eventlog.Every, eventlog.ForEach, eventlog.Dynamic}
)

// With gives the node policies, in a changed copy of it.
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
