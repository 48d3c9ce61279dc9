package workflowtest_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godagger/dagger/workflow"
	"github.com/godagger/dagger/workflowtest"
)

type crate struct {
	Items []string `json:"items"`
	Done  int      `json:"done"`
}
type gadget struct {
	Name string `json:"name"`
}

func crates() *workflow.Definition[crate] {
	return workflow.New("Box", workflow.ForEach("each",
		func(_ context.Context, b *crate) ([]gadget, error) {
			var l []gadget
			for _, i := range b.Items {
				l = append(l, gadget{i})
			}
			return l, nil
		},
		func(_ context.Context, b *crate, l []gadget) error { b.Done = len(l); return nil },
		workflow.Listen("got", "gots", workflow.By("name", func(t *gadget) string { return t.Name }, func(m *gadget) string { return m.Name }),
			func(_ context.Context, t *gadget, m gadget) (bool, error) { return true, nil }),
	), workflow.Execute("end", func(context.Context, *crate) error { return nil }))
}

// TestNewFromRepeated exports an instance in the middle of a ForEach: it goes on with the elements
// that are left.
func TestNewFromRepeated(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.jsonl")
	synctest.Test(t, func(t *testing.T) {
		def := crates()
		kit := workflowtest.New(t, def)
		workflowtest.Start(kit, def, "b-1", crate{Items: []string{"a", "b", "c"}})
		kit.Advance(time.Minute)
		kit.Deliver("gots", gadget{"b"})
		kit.Advance(time.Minute)
		f, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := kit.Engine.Export(t.Context(), f, "b-1"); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		def := crates()
		kit := workflowtest.NewFrom(t, file, def)
		kit.Advance(time.Minute)
		kit.Deliver("gots", gadget{"a"})
		kit.Deliver("gots", gadget{"c"})
		kit.Advance(time.Minute)
		if p := workflowtest.RequireCompleted(kit, def.Handle(kit.Engine, "b-1")); p.Done != 3 {
			t.Errorf("%+v", p)
		}
	})
}
