package workflowtest_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/workflow"
	"github.com/godagger/dagger/workflowtest"
)

type order struct {
	ID     string `json:"id"`
	Status string `json:"status,omitempty"`
}

type placed struct {
	ID string `json:"id"`
}

type ready struct {
	ID     string `json:"id"`
	Status string `json:"status"`
}

var errClosed = errors.New("nobody opens")

func pizza(failures int) *workflow.Definition[order] {
	return workflow.New("Pizza",
		workflow.Process("Order",
			workflow.Command("place", "orders", func(_ context.Context, o *order) (placed, error) { return placed{o.ID}, nil }),
			workflow.Listen("ready", "status", workflow.By("id", func(o *order) string { return o.ID }, func(m *ready) string { return m.ID }),
				func(_ context.Context, o *order, m ready) (bool, error) {
					o.Status = m.Status
					return m.Status == "READY", nil
				}).With(workflow.Timeout(time.Hour))),
		workflow.Process("Delivery",
			workflow.Execute("deliver", func(ctx context.Context, o *order) error {
				if workflow.TaskFrom(ctx).Attempt <= failures {
					return errClosed
				}
				o.Status = "DELIVERED"
				return nil
			}).With(workflow.Retry(3, time.Minute))))
}

func TestPizza(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		def := pizza(1)
		kit := workflowtest.New(t, def)
		h := workflowtest.Start(kit, def, "order-1", order{ID: "1"})
		if diff := cmp.Diff([]placed{{"1"}}, workflowtest.Sent[placed](kit, "orders")); diff != "" {
			t.Errorf("sent (-want +got):\n%s", diff)
		}
		kit.RequireTask("order-1", "Order/ready", workflow.Executing)
		kit.Advance(59 * time.Minute)
		kit.Deliver("status", ready{"1", "BAKING"}) // another hour to wait
		kit.Advance(59 * time.Minute)
		kit.RequireTask("order-1", "Order/ready", workflow.Executing)
		kit.Deliver("status", ready{"2", "READY"}) // of nobody
		kit.Deliver("status", ready{"1", "READY"})
		if task := kit.RequireTask("order-1", "Delivery/deliver", workflow.Executing); task.Error != errClosed.Error() {
			t.Errorf("the task waits after %q", task.Error)
		}
		kit.Advance(2 * time.Minute)
		if diff := cmp.Diff(order{"1", "DELIVERED"}, workflowtest.RequireCompleted(kit, h)); diff != "" {
			t.Errorf("parameters (-want +got):\n%s", diff)
		}
	})
}

func TestTimeoutAndEarlyMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		def := pizza(0)
		kit := workflowtest.New(t, def)
		kit.Deliver("status", ready{"early", "READY"})
		kit.Advance(time.Hour)
		early := workflowtest.Start(kit, def, "early", order{ID: "early"})
		workflowtest.RequireCompleted(kit, early)

		late := workflowtest.Start(kit, def, "late", order{ID: "late"})
		kit.Advance(time.Hour)
		if i := kit.RequireStatus("late", workflow.Failure); i.FailedPath != "Order/ready" {
			t.Errorf("%s failed", i.FailedPath)
		}
		var failed *workflow.TaskError
		if _, err := late.Wait(t.Context()); !errors.As(err, &failed) || failed.Path != "Order/ready" || failed.Instance != "late" {
			t.Errorf("Wait: %v", err)
		}
		if err := late.Retry(t.Context(), "the shop was closed"); err != nil {
			t.Fatal(err)
		}
		kit.Deliver("status", ready{"late", "READY"})
		workflowtest.RequireCompleted(kit, late)
	})
}
