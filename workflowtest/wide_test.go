package workflowtest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godagger/dagger/workflow"
	"github.com/godagger/dagger/workflowtest"
)

type wide struct {
	ID    string `json:"id"`
	First string `json:"first,omitempty"`
	Last  string `json:"last,omitempty"`
	Same  int    `json:"same,omitempty"`
}

const manyBranches = 500

// TestHundredsOfBranches: tasks and processes side by side, with a join for all and one for
// the first.
func TestHundredsOfBranches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all, any []workflow.Node[wide]
		for k := range manyBranches {
			name := fmt.Sprint("b", k)
			do := func(ctx context.Context, w *wide) error {
				w.Same = 1 // all of them change this field, and two change one of their own
				switch k {
				case 0:
					w.First = name
				case manyBranches - 1:
					w.Last = name
				}
				return nil
			}
			branch := workflow.Execute(name, do)
			if k%2 == 1 {
				branch = workflow.Process(name, workflow.Execute("one", do), workflow.Execute("two", do))
			}
			all = append(all, branch)
			any = append(any, workflow.Execute(name, func(ctx context.Context, _ *wide) error {
				if k == manyBranches/2 {
					return nil
				}
				<-ctx.Done()
				return context.Cause(ctx)
			}))
		}
		def := workflow.New("Wide", workflow.Parallel("all", workflow.All, all...), workflow.Parallel("any", workflow.Any, any...))
		kit := workflowtest.New(t, def)
		h := workflowtest.Start(kit, def, "w", wide{ID: "w"})
		kit.Advance(time.Second)
		if got := workflowtest.RequireCompleted(kit, h); got != (wide{ID: "w", First: "b0", Last: fmt.Sprint("b", manyBranches-1), Same: 1}) {
			t.Errorf("the parameters are %+v", got)
		}
		kit.RequireTask("w", "all/b499/two", workflow.Completed)
		kit.RequireTask("w", "any/b250", workflow.Completed)
		kit.RequireTask("w", "any/b499", workflow.Skipped)
		kit.RequireTask("w", "any/b0", workflow.Skipped)
	})
}

// TestHundredsOfBranchesFail: with WaitAll the others come to their end first.
func TestHundredsOfBranchesFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := true
		var branches []workflow.Node[wide]
		for k := range manyBranches {
			branches = append(branches, workflow.Execute(fmt.Sprint("b", k), func(context.Context, *wide) error {
				if k%100 == 7 && broken {
					return errors.New("no")
				}
				if k == 0 { // the last one to end, in whatever order the others do
					time.Sleep(time.Millisecond)
				}
				return nil
			}))
		}
		def := workflow.New("Wide", workflow.Parallel("all", workflow.All, branches...).With(workflow.WaitAll()))
		kit := workflowtest.New(t, def)
		h := workflowtest.Start(kit, def, "w", wide{ID: "w"})
		kit.Advance(time.Second)
		i, err := h.Status(t.Context())
		if err != nil || i.Status != workflow.Failure {
			t.Fatalf("%+v, %v", i.Status, err)
		}
		n := map[workflow.Status]int{}
		for _, task := range i.Tasks {
			n[task.Status]++
		}
		if n[workflow.Completed] != manyBranches-5 || n[workflow.Failure] != 6 { // five branches, and the Parallel
			t.Errorf("tasks by status: %v", n)
		}
		broken = false
		if err := h.Retry(t.Context(), "mended"); err != nil {
			t.Fatal(err)
		}
		kit.Advance(time.Second)
		workflowtest.RequireCompleted(kit, h)
	})
}
