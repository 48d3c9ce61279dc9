package webui

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godagger/dagger/workflow"
	"github.com/godagger/dagger/workflowtest"
)

type box struct {
	Name string `json:"name"`
}

// TestKinds shows nodes that run several times or watch others, while they run and afterwards.
func TestKinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open := make(chan struct{})
		nothing := func(context.Context, *pizza) error { return nil }
		def := workflow.New("Kinds",
			workflow.Dynamic("Pre", func(context.Context, *pizza) ([]string, error) { return []string{"Wrap", "Weigh", "Wrap"}, nil },
				workflow.Process("Weigh", workflow.Execute("weigh", nothing)), workflow.Process("Wrap", workflow.Execute("wrap", nothing))),
			workflow.ForEach("Ship", func(context.Context, *pizza) ([]box, error) { return []box{{"a"}, {"b"}, {"c"}}, nil },
				func(context.Context, *pizza, []box) error { return nil },
				workflow.Execute("pack", func(context.Context, *box) error { return nil }),
				workflow.Execute("send", func(ctx context.Context, p *box) error {
					if p.Name != "b" {
						return nil
					}
					select {
					case <-open:
						return nil
					case <-ctx.Done():
						return context.Cause(ctx)
					}
				})),
			workflow.Process("End", workflow.Execute("last", nothing)))
		kit := workflowtest.New(t, def)
		x := &transcript{t: t, h: New(kit.Engine, Options{})}
		workflowtest.Start(kit, def, "k", pizza{OrderID: "1"})
		kit.Advance(time.Second)
		x.get("/tasks/instance/k")
		x.get("/tasks/instance/k/Ship%5B1%5D/send")
		x.get("/tasks/instance/k/Pre[2]/Wrap")
		close(open)
		kit.Advance(time.Second)
		x.get("/tasks/instance/k")
		x.compare("kinds.txt")
	})
}
