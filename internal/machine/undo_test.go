package machine

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
)

// TestPanicLeavesNoTrace: a fold that panics half-way leaves the body as it was, of an instance
// with few tasks and of one with many.
func TestPanicLeavesNoTrace(t *testing.T) {
	for _, n := range []int{3, 3 * manyTasks} {
		s := NewState(0, 1)
		i := &Instance{ID: "a", Seq: 1, Mailbox: Mailbox{Run: 1}, Body: Body{Status: Executing, Params: json.RawMessage(`{}`),
			Keys: []eventlog.TaskKey{{Path: "t1", Value: "1000"}}}}
		for k := range n {
			i.Tasks = append(i.Tasks, Task{Path: fmt.Sprint("t", k), Kind: eventlog.At, Status: Executing, Phase: Waiting, Act: 1, Due: 1000})
		}
		s.Instances["a"] = i
		before := i.Clone().Body
		err := s.Evolve(&eventlog.Event{V: 1, N: 1, Type: eventlog.TaskCompleted, ID: "a", Seq: 2, Run: 1, Path: "t0", Params: json.RawMessage(`{"x":1}`),
			Keys:   []eventlog.TaskKey{{Path: "t1", Value: "2000"}},
			Starts: []eventlog.Start{{Path: "t2", Kind: eventlog.At}, {Path: "new", Kind: eventlog.Execute}},
			Ends:   []eventlog.End{{Path: "t1", Kind: eventlog.At, Status: "SKIPPED"}, {Path: "t2[7]", Kind: eventlog.Process, Status: "COMPLETED"}}})
		if err != nil {
			t.Fatal(err)
		}
		if s.Frozen["a"] == "" {
			t.Fatal("the fold did not panic")
		}
		if diff := cmp.Diff(before, i.Body); diff != "" {
			t.Errorf("%d tasks: the body (-before +after):\n%s", n, diff)
		}
	}
}

// TestDeletedIsNotFrozen: of an instance that was deleted after an event which this version can't
// fold nothing is left to put into quarantine.
func TestDeletedIsNotFrozen(t *testing.T) {
	s := NewState(0, 1)
	s.Instances["a"] = &Instance{ID: "a", Seq: 1, Mailbox: Mailbox{Run: 1}, Body: Body{Status: Executing}}
	s.Inject = func(e *eventlog.Event) { panic("an event of a newer version") }
	for n, typ := range []eventlog.Type{eventlog.InstanceStopped, eventlog.InstanceDeleted} {
		if err := s.Evolve(&eventlog.Event{V: 1, N: uint64(n + 1), Type: typ, ID: "a", Seq: uint64(n + 2), Run: 1}); err != nil {
			t.Fatal(err)
		}
		if frozen := s.Frozen["a"] != ""; frozen != (typ == eventlog.InstanceStopped) {
			t.Errorf("after %s: frozen %t", typ, frozen)
		}
	}
}
