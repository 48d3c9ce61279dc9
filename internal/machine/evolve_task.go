package machine

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// notStarted forgets what a node did.
func (i *Instance) notStarted(path string) {
	i.Tasks = slices.DeleteFunc(i.Tasks, func(t Task) bool { return t.Path == path })
	i.forgetItems(path)
}

// rearm gives a task that waits for a time the one that was computed now.
func (i *Instance) rearm(k eventlog.TaskKey) {
	if strings.Contains(k.Path, "[]") { // the runs of a Dynamic
		for n := range i.Tasks {
			if strings.Contains(i.Tasks[n].Path, "[") && i.keyPath(i.Tasks[n].Path) == k.Path {
				i.Tasks[n].rearm(k)
			}
		}
		return
	}
	if t := i.Task(k.Path); t != nil {
		t.rearm(k)
	}
}

func (t *Task) rearm(k eventlog.TaskKey) {
	if t.Status != Executing || t.Phase != Waiting && t.Phase != Inside {
		return
	}
	switch t.Kind {
	case eventlog.Process, eventlog.Parallel:
		t.Due = parseTime(k.Value)
	case eventlog.At:
		t.Due = parseTime(k.Value)
	case eventlog.Monitor:
		if t.Tick == 0 {
			t.Due, _ = parseAlarm(k.Value)
		}
	case eventlog.Every:
		period, _ := parseEvery(k.Value)
		if t.Tick == 0 && period > 0 {
			t.Tick = t.Since + period
		}
		t.untilEnd(k.Value)
	}
}

// untilEnd lets an Every wait for its next run or its end, whichever comes first.
func (t *Task) untilEnd(value string) {
	t.Due = t.Tick
	if _, until := parseEvery(value); until > 0 && (until < t.Due || t.Due == 0) {
		t.Due = until
	}
}

// foldTask changes the task that the event is about.
func (i *Instance) foldTask(e *eventlog.Event) {
	if e.Path == "" || e.Type == eventlog.SkippedTo {
		return
	}
	t := i.Task(e.Path)
	if t == nil {
		panic(fmt.Sprintf("machine: %s of task %q that was never started", e.Type, e.Path))
	}
	switch e.Type {
	case eventlog.AttemptRunning, eventlog.InstanceFailed:
	default:
		t.Since = e.At
	}
	switch e.Type {
	case eventlog.AttemptStarted:
		t.run(e.Attempt, e)
	case eventlog.AttemptRunning:
		t.Ran = true
	case eventlog.AttemptInterrupted:
		t.Interrupted++
		if t.Ran || e.Again {
			t.Cuts++
		}
		t.Ran, t.Due = false, e.Due
	case eventlog.AttemptFailed, eventlog.AttemptTimedOut:
		t.Phase, t.Due, t.Error, t.Ran, t.Cuts, t.Interrupted = Retrying, e.Due, e.Error, false, 0, 0
	case eventlog.TaskCompleted:
		i.complete(t, e)
	case eventlog.TaskFailed:
		t.finish(Failure)
		t.Error = e.Error
		i.jumped(e)
	case eventlog.DeadlinePassed:
		t.finish(Completed)
		if t.Error = e.Error; e.Error != "" {
			t.finish(Failure)
		}
		i.jumped(e)
	case eventlog.MessageReceived:
		t.Over = t.Over || t.Status == Completed
		t.Act, t.Msg, t.Message = e.Seq, e.Msg, e.Message
		if t.Message == nil { // it was buffered; the mailbox has handed it over
			t.Message = i.handed
		}
		i.handed = nil
		t.run(1, e)
	case eventlog.EveryContinued:
		t.Phase, t.Act, t.Attempt, t.Tick, t.Error, t.Ran, t.Cuts, t.Interrupted = Waiting, e.Seq, 0, e.Due, "", false, 0, 0
		if t.Due = e.Due; t.Kind == eventlog.Every {
			t.untilEnd(i.KeyValue(e.Path))
		}
	case eventlog.ListenContinued:
		t.Phase, t.Act, t.Attempt, t.Due, t.Msg, t.Message = Waiting, e.Seq, 0, e.Due, 0, nil
	}
}

// complete ends a task, or lets it go on by the nodes inside it.
func (i *Instance) complete(t *Task, e *eventlog.Event) {
	collected := t.Kind == eventlog.ForEach && t.Collect
	t.finish(Completed)
	t.Error = ""
	if collected {
		i.forgetItems(e.Path)
	}
	switch {
	case e.Choice != "" && e.Reason != "": // a join failed with it
		i.jumped(e)
	case e.Choice != "":
		t.Status, t.Phase, t.Choice = Executing, Inside, e.Choice
	case len(e.Choices) > 0:
		t.Status, t.Phase, t.Choices = Executing, Inside, e.Choices
	case len(e.Items) > 0:
		i.forgetItems(e.Path) // of an earlier try
		t = i.Task(e.Path)
		t.Status, t.Phase, t.Items = Executing, Inside, len(e.Items)
		x := Items{Path: e.Path, Values: e.Items, Seqs: make([]uint64, len(e.Items)), States: strings.Repeat(string(itemNotStarted), len(e.Items))}
		for k := range x.Seqs {
			x.Seqs[k] = e.Seq
		}
		i.Items, i.ItemsSeq = append(slices.Clone(i.Items), x), e.Seq
	}
}

// jumped counts that the flow went elsewhere when a node had failed.
func (i *Instance) jumped(e *eventlog.Event) {
	if e.Choice == "" {
		return
	}
	i.Jumps = slices.Clone(i.Jumps)
	path := e.Reason // of the node that says where
	at, found := slices.BinarySearchFunc(i.Jumps, path, func(j Jump, path string) int { return strings.Compare(j.Path, path) })
	if !found {
		i.Jumps = slices.Insert(i.Jumps, at, Jump{Path: path})
	}
	i.Jumps[at].Count++
}

func (t *Task) run(attempt int, e *eventlog.Event) {
	t.Status, t.Phase, t.Attempt, t.Due, t.Tick = Executing, Running, attempt, e.Due, 0
	t.Ran, t.Cuts, t.Interrupted = false, 0, 0
}

func (t *Task) finish(s Status) {
	t.Status, t.Phase, t.Due, t.Tick = s, "", 0, 0
	if s != Failure && s != Stopped { // a retry of the instance hands it over again
		t.Msg, t.Message = 0, nil
	}
	t.Ran, t.Cuts, t.Interrupted = false, 0, 0
}

// start arms a task: a handler runs, or a listener waits (or works again on the message
// that it had when it failed).
func (i *Instance) start(st eventlog.Start, e *eventlog.Event) {
	i.began(st.Path)
	t := i.Task(st.Path)
	if t == nil {
		if i.Tasks == nil {
			i.Tasks = make([]Task, 0, 4) // most have a few
		}
		i.Tasks = append(i.Tasks, Task{Path: st.Path, Kind: st.Kind})
		t = &i.Tasks[len(i.Tasks)-1]
	}
	t.Status, t.Act, t.Since, t.Due, t.Error = Executing, e.Seq, e.At, st.Due, ""
	t.Ran, t.Cuts, t.Interrupted, t.Choice, t.Choices, t.Collect, t.Tick = false, 0, 0, "", nil, st.Collect, 0
	switch {
	case st.Kind == eventlog.Parallel, st.Kind == eventlog.Process:
		t.Phase, t.Attempt = Inside, 0
		if st.Due == 0 {
			t.Due = parseTime(i.KeyValue(st.Path))
		}
	case st.Kind == eventlog.Monitor:
		t.Phase, t.Attempt = Waiting, 0
		t.Due, _ = parseAlarm(i.KeyValue(st.Path))
	case st.Kind == eventlog.At:
		t.Phase, t.Attempt, t.Due = Waiting, 0, parseTime(i.KeyValue(st.Path))
	case st.Kind == eventlog.Listen && t.Message == nil:
		t.Phase, t.Attempt = Waiting, 0
	default:
		t.Phase, t.Attempt = Running, 1
	}
}

// note gives a node the status that the event says.
func (i *Instance) note(x eventlog.End, e *eventlog.Event) {
	if strings.HasSuffix(x.Path, "]") {
		i.noteItem(x)
		return
	}
	t := i.Task(x.Path)
	if t == nil {
		i.Tasks = append(i.Tasks, Task{Path: x.Path, Kind: x.Kind})
		t = &i.Tasks[len(i.Tasks)-1]
	}
	t.finish(Status(x.Status))
	t.Since = e.At
	switch t.Status {
	case Executing:
		t.Phase = Inside
	case Completed, Skipped:
		if t.Kind == eventlog.ForEach {
			i.forgetItems(x.Path)
		}
	}
}

// noteItem gives a run of a ForEach a status. One that has done its work keeps its parameters
// and nothing else.
func (i *Instance) noteItem(x eventlog.End) {
	items, k := i.ItemsOf(x.Path[:strings.LastIndexByte(x.Path, '[')]), indexOf(x.Path)
	if items == nil || k < 0 || k >= len(items.States) {
		panic(fmt.Sprintf("machine: %q is no run of a ForEach", x.Path))
	}
	s := Status(x.Status)
	i.changeItems(items.Path, func(y *Items) { y.set(k, itemState(s)) })
	if s == Completed || s == Skipped {
		i.forgetInside(x.Path + "/")
	}
}

// parseTime is a computed time, or 0 while it is not known.
func parseTime(value string) int64 {
	ms, _ := strconv.ParseInt(value, 10, 64)
	return ms
}
