package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
)

// Who made something happen.
const (
	ByCall    = "call"    // of a program or an operator
	ByHandler = "handler" // user code ended
	ByMessage = "message" // of a user's topic
	ByTimer   = "timer"   // its time had come
	ByEngine  = "engine"  // it follows from what was there
)

// Step is an event of an instance in its timeline.
type Step struct {
	N      uint64
	Seq    uint64 // 0: it is about the instance, but not of its numbered history
	At     time.Time
	Type   eventlog.Type
	Path   string // of the task
	By     string // ByCall and so on
	Worker string // that owned the partition then
	Text   string // what happened, in a few words
	Spans  []Span // what ended with it
	Event  *eventlog.Event
}

// Span is how long a task did one thing.
type Span struct {
	Path string
	What string // "waited for …", "ran, attempt 2"
	From time.Time
	To   time.Time // zero: it goes on
}

// Duration of a span; of one that goes on, up to now.
func (s Span) Duration(now time.Time) time.Duration {
	if s.To.IsZero() {
		return now.Sub(s.From)
	}
	return s.To.Sub(s.From)
}

// Timeline is the history of an instance.
type Timeline struct {
	Instance *machine.Instance // as of the last step
	Plan     *machine.Plan
	Steps    []Step
	Open     []Span // what goes on
}

// ReadTimeline reads the history of an instance up to a point; store, which may be nil, says where
// its events are. ErrNotFound: it did not exist then.
func ReadTimeline(ctx context.Context, log eventlog.Log, store projection.Store, id string, p Point) (*Timeline, error) {
	if err := p.fits(log.Partitions()); err != nil {
		return nil, err
	}
	partition := eventlog.PartitionOf(id, log.Partitions())
	s, err := newFinder(ctx, log, partition)
	if err != nil {
		return nil, err
	}
	b := newTimelineBuilder(log.Partitions(), id)
	if err := s.search(ctx, store, id, p.of(partition), []eventlog.Type{eventlog.PartitionOwned}, func(ev *eventlog.Event, offset int64) error {
		if err := b.event(ev); err != nil {
			return s.trimmed(fmt.Errorf("fold offset %d of partition %d: %w", offset, partition, err))
		}
		return nil
	}); err != nil {
		return nil, err
	}
	t, err := b.end()
	if errors.Is(err, ErrNotFound) {
		err = s.absent(ctx, b.f)
	}
	return t, err
}

// timelineBuilder folds the events of an instance and notes what each of them ended.
type timelineBuilder struct {
	f      *fold
	worker string
	tasks  map[string]doing
	keys   doing // correlation keys are being computed
	steps  []Step
}

// doing is what a task does, since when.
type doing struct {
	what  string
	since int64
}

func newTimelineBuilder(partitions int32, id string) *timelineBuilder {
	return &timelineBuilder{f: newFold(partitions, id), tasks: map[string]doing{}}
}

func (b *timelineBuilder) event(ev *eventlog.Event) error {
	if ev.Type == eventlog.PartitionOwned {
		b.worker = ev.Worker
	}
	if err := b.f.event(ev); err != nil {
		return err
	}
	if ev.ID != b.f.id || ev.Type == eventlog.SubscriptionAdded || ev.Type == eventlog.SubscriptionRemoved {
		return nil
	}
	step := Step{N: ev.N, Seq: ev.Seq, At: time.UnixMilli(ev.At).UTC(), Type: ev.Type, Path: ev.Path, By: by(ev), Worker: b.worker, Event: ev}
	step.Text = textOf(ev)
	i := b.f.st.Instances[b.f.id]
	if i == nil {
		b.steps = append(b.steps, step)
		return nil
	}
	if b.keys.what != "" && i.Evaluate == 0 {
		step.Spans = append(step.Spans, span("", b.keys, ev.At))
		b.keys = doing{}
	}
	for k := range i.Tasks {
		t := &i.Tasks[k]
		now := does(b.f.plan(), i, t)
		before := b.tasks[t.Path]
		// A wait goes on when only its words change: its key moved.
		if now == before.what && !(ev.Path == t.Path && restarts(ev.Type)) {
			continue
		}
		if before.what != "" {
			step.Spans = append(step.Spans, span(t.Path, before, ev.At))
		}
		b.tasks[t.Path] = doing{now, ev.At}
	}
	if i.Evaluate != 0 && b.keys.what == "" {
		b.keys = doing{"computed the correlation keys", ev.At}
	}
	b.steps = append(b.steps, step)
	return nil
}

// restarts: the task does the same thing as before, but again.
func restarts(t eventlog.Type) bool {
	return t == eventlog.AttemptInterrupted
}

func span(path string, d doing, to int64) Span {
	return Span{Path: path, What: d.what, From: time.UnixMilli(d.since).UTC(), To: time.UnixMilli(to).UTC()}
}

func (b *timelineBuilder) end() (*Timeline, error) {
	i, err := b.f.instance()
	if err != nil {
		return nil, err
	}
	t := &Timeline{Instance: i, Plan: b.f.plan(), Steps: b.steps}
	if b.keys.what != "" {
		t.Open = append(t.Open, Span{What: b.keys.what, From: time.UnixMilli(b.keys.since).UTC()})
	}
	for k := range i.Tasks {
		path := i.Tasks[k].Path
		if d := b.tasks[path]; d.what != "" {
			t.Open = append(t.Open, Span{Path: path, What: d.what, From: time.UnixMilli(d.since).UTC()})
		}
	}
	return t, nil
}

// does says what a task does; "" when it does nothing of its own.
func does(plan *machine.Plan, i *machine.Instance, t *machine.Task) string {
	if t.Status == machine.Submitted {
		return "waited for a worker"
	}
	if t.Status != machine.Executing || i.Terminal() {
		return ""
	}
	switch t.Phase {
	case machine.Inside:
		return ""
	case machine.Running:
		if t.Attempt > 1 {
			return fmt.Sprintf("ran, attempt %d", t.Attempt)
		}
		return "ran"
	case machine.Retrying:
		return fmt.Sprintf("waited for attempt %d", t.Attempt+1)
	}
	switch t.Kind {
	case eventlog.At, eventlog.Every:
		return "waited for its time"
	case eventlog.Listen:
		var n *machine.Node
		if plan != nil {
			n = plan.Task(t.Path)
		}
		if n == nil {
			return "waited for a message"
		}
		if v := i.KeyValue(t.Path); v != "" {
			return fmt.Sprintf("waited for a message on %s with %s=%s", n.Topic, n.Key, v)
		}
		return fmt.Sprintf("waited for a message on %s; its key %s had no value", n.Topic, n.Key)
	}
	return "waited"
}

// by says who made an event happen.
func by(ev *eventlog.Event) string {
	switch ev.Type {
	case eventlog.InstanceStarted, eventlog.InstanceStopped, eventlog.InstanceRetried, eventlog.InstanceReset:
		return ByCall
	case eventlog.KeysEvaluated, eventlog.AttemptFailed, eventlog.TaskCompleted, eventlog.TaskFailed, eventlog.ListenContinued, eventlog.EveryContinued:
		if ev.Attempt == 0 && ev.Type != eventlog.KeysEvaluated {
			return ByTimer // a wait that ended by its time
		}
		return ByHandler
	case eventlog.MessageReceived, eventlog.MessageBuffered, eventlog.ListenerFull, eventlog.DeliveryRefused, eventlog.RequestHeld:
		return ByMessage
	case eventlog.AttemptStarted, eventlog.AttemptTimedOut, eventlog.BufferExpired:
		return ByTimer
	}
	if ev.Request != "" {
		return ByCall
	}
	return ByEngine
}

// textOf says what an event is about, beside its type and path.
func textOf(ev *eventlog.Event) string {
	origin := func(m *eventlog.Message) string {
		if m == nil {
			return ""
		}
		return fmt.Sprintf(" (partition %d, offset %d)", m.Partition, m.Offset)
	}
	next := func() string {
		if ev.Due == 0 {
			return ""
		}
		return ", again at " + time.UnixMilli(ev.Due).UTC().Format("2006-01-02 15:04:05Z")
	}
	s := ""
	switch ev.Type {
	case eventlog.InstanceStarted:
		s = ev.Definition
	case eventlog.AttemptStarted, eventlog.AttemptRunning:
		s = fmt.Sprintf("attempt %d", ev.Attempt)
	case eventlog.AttemptInterrupted:
		s = fmt.Sprintf("attempt %d starts again: its worker died or lost the partition", ev.Attempt)
	case eventlog.AttemptFailed, eventlog.AttemptTimedOut:
		s = fmt.Sprintf("attempt %d: %s%s", ev.Attempt, ev.Error, next())
	case eventlog.TaskFailed, eventlog.InstanceFailed:
		s = ev.Error
	case eventlog.InstanceStopped, eventlog.InstanceQuarantined, eventlog.InstanceReset, eventlog.InstanceRetried:
		s = ev.Reason
	case eventlog.MessageReceived, eventlog.MessageBuffered, eventlog.BufferExpired, eventlog.ListenerFull, eventlog.DeliveryRefused, eventlog.MessageDropped:
		s = fmt.Sprintf("%s %s=%s%s", ev.Topic, ev.Key, ev.Value, origin(ev.Message))
	case eventlog.RequestHeld:
		if ev.Held != nil {
			s = string(ev.Held.Type) + " is kept until the quarantine ends"
		}
	case eventlog.TaskCompleted:
		if ev.Choice != "" {
			s = "chose " + ev.Choice
		}
		if ev.Sent != nil {
			s = fmt.Sprintf("sent %d bytes to %s", ev.Sent.Size, ev.Sent.Topic)
		}
	case eventlog.EveryContinued:
		s = next()
		if len(s) > 2 {
			s = s[2:]
		}
	default:
		s = ev.Reason
	}
	return s
}

// ReadEventsBetween are the events about an instance that to covers and from does not; store, which
// may be nil, says where they are.
func ReadEventsBetween(ctx context.Context, log eventlog.Log, store projection.Store, id string, from, to Point) ([]*eventlog.Event, error) {
	if err := cmpErr(from.fits(log.Partitions()), to.fits(log.Partitions())); err != nil {
		return nil, err
	}
	partition := eventlog.PartitionOf(id, log.Partitions())
	s, err := newFinder(ctx, log, partition)
	if err != nil {
		return nil, err
	}
	from, to = from.of(partition), to.of(partition)
	var l []*eventlog.Event
	err = s.search(ctx, store, id, to, nil, func(ev *eventlog.Event, offset int64) error {
		if ev.ID == id && !from.covers(ev.N, ev.At, offset) {
			l = append(l, ev)
		}
		return nil
	})
	return slices.Clip(l), err
}
