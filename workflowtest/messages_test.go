package workflowtest_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/workflow"
	"github.com/godagger/dagger/workflowtest"
)

type named struct {
	Names []string `json:"names"`
	From  string   `json:"from,omitempty"`
}

// TestOneMessageManyKeys: it completes every instance that waits for one of its values; one
// that waits for two of them gets it once for each. Who waits for none of them gets nothing, and
// who comes later is not forgotten.
func TestOneMessageManyKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex // handlers run at once
		got := map[string]int{}
		listen := func(name string, k int) workflow.Node[named] {
			return workflow.Listen(name, "many", workflow.ByAny("name", func(n *named) string {
				if k < len(n.Names) {
					return n.Names[k]
				}
				return ""
			}, func(m *named) []string { return m.Names }), func(ctx context.Context, n *named, m named) (bool, error) {
				mu.Lock()
				got[workflow.TaskFrom(ctx).Instance+"/"+name]++
				mu.Unlock()
				n.From = m.From
				return true, nil
			})
		}
		def := workflow.New("Many", workflow.Parallel("either", workflow.Any, listen("one", 0), listen("other", 1)))
		kit := workflowtest.New(t, def)
		handles := map[string]*workflow.Handle[named]{}
		for id, names := range map[string][]string{"a": {"a"}, "b": {"b"}, "c": {"c"}, "ab": {"a", "b"}, "none": {"", ""}} {
			handles[id] = workflowtest.Start(kit, def, id, named{Names: names})
		}
		kit.Deliver("many", named{Names: []string{"a", "b", "", "a", "late"}, From: "first"})
		for _, id := range []string{"a", "b", "ab"} {
			if p := workflowtest.RequireCompleted(kit, handles[id]); p.From != "first" {
				t.Errorf("%s: %+v", id, p)
			}
		}
		kit.RequireTask("c", "either/one", workflow.Executing)
		kit.RequireTask("none", "either/one", workflow.Executing)
		late := workflowtest.Start(kit, def, "late", named{Names: []string{"late"}})
		kit.Advance(time.Second)
		if p := workflowtest.RequireCompleted(kit, late); p.From != "first" {
			t.Errorf("late: %+v", p)
		}
		mu.Lock()
		defer mu.Unlock()
		one, other := got["ab/one"], got["ab/other"] // the first to complete may cancel the other one
		delete(got, "ab/one")
		delete(got, "ab/other")
		if diff := cmp.Diff(map[string]int{"a/one": 1, "b/one": 1, "late/one": 1}, got); diff != "" || one > 1 || other > 1 || one+other == 0 {
			t.Errorf("messages by task: ab %d and %d (-want +got):\n%s", one, other, diff)
		}
	})
}

// TestNestedDecisions: a branch may decide again, or be none.
func TestNestedDecisions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := func(_ context.Context, n *named) (choice string, err error) {
			choice, n.Names = n.Names[0], n.Names[1:]
			return choice, nil
		}
		leaf := func(name string) workflow.Node[named] {
			return workflow.Execute(name, func(ctx context.Context, n *named) error { n.From = workflow.TaskFrom(ctx).Path; return nil })
		}
		def := workflow.New("Choose", workflow.Decide("outer", next,
			workflow.Decide("inner", next, workflow.Process("deep", workflow.Decide("deepest", next, leaf("x"), leaf("y"))), leaf("z")),
			leaf("w")))
		kit := workflowtest.New(t, def)
		for id, c := range map[string]struct {
			names []string
			want  string
		}{
			"y": {[]string{"inner", "deep", "y"}, "outer/inner/deep/deepest/y"}, "z": {[]string{"inner", "z"}, "outer/inner/z"},
			"w": {[]string{"w"}, "outer/w"}, "none": {[]string{""}, ""}, "none inside": {[]string{"inner", "deep", ""}, ""},
		} {
			h := workflowtest.Start(kit, def, id, named{Names: c.names})
			if p := workflowtest.RequireCompleted(kit, h); p.From != c.want {
				t.Errorf("%s came to %q, want %q", id, p.From, c.want)
			}
		}
		kit.RequireTask("z", "outer/inner/deep/deepest", workflow.Skipped)
		kit.RequireTask("none", "outer/inner/z", workflow.Skipped)
		unknown := workflowtest.Start(kit, def, "unknown", named{Names: []string{"inner", "deep", "v"}})
		if i, err := unknown.Status(t.Context()); err != nil || i.Status != workflow.Failure || i.FailedPath != "outer/inner/deep/deepest" || i.Error != `there is no branch "v"; there are x, y` {
			t.Errorf("an unknown branch: %+v, %v", i, err)
		}
	})
}
