package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/workflow"
	"github.com/godagger/dagger/workflowtest"
)

// TestOrder plays the other services for two orders, in virtual time.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var alarms strings.Builder
		def := orderWorkflow(10*time.Second, slog.New(slog.NewTextHandler(&alarms, nil)))
		kit := workflowtest.New(t, def)
		kit.Deliver(ordersTopic, 7)
		kit.Deliver(ordersTopic, "8")
		kit.Deliver(ordersTopic, []int{9}) // neither number nor string: a dead letter
		kit.Advance(time.Second)
		for _, id := range []string{"ID007", "ID008"} {
			kit.RequireTask(id, "PAYMENT/paid", workflow.Executing)
		}
		asked := workflowtest.Sent[Asked](kit, paymentCommand)
		if len(asked) != 2 {
			t.Fatalf("payment was asked for %v", asked)
		}
		for _, a := range asked {
			kit.Deliver(paymentListener, Answer{OrderID: a.OrderID, BoxID: a.OrderID})
		}
		kit.Advance(time.Second)
		kit.RequireTask("ID007", "FULFILLMENT/count", workflow.Executing)
		if n := strings.Count(alarms.String(), "ALARM"); n != 2 {
			t.Errorf("%d alarms of two orders", n)
		}
		kit.Advance(10 * time.Second)
		for _, a := range workflowtest.Sent[Asked](kit, fulfillmentCommand) {
			if a.BoxID != a.OrderID {
				t.Errorf("the box of %s is %s: the payment's answer did not move it", a.OrderID, a.BoxID)
			}
			kit.Deliver(fulfillment, Answer(a))
			kit.Deliver(noop2, Answer{OrderID: a.OrderID})
		}
		kit.Advance(time.Second)
		for _, id := range []string{"ID007", "ID008"} {
			i := kit.RequireStatus(id, workflow.Completed)
			kit.RequireTask(id, "parallelTasks/never", workflow.Skipped)
			if p := string(i.Parameters); !strings.Contains(p, `"count":2`) || !strings.Contains(p, `"type":"gift"`) {
				t.Errorf("%s has the parameters %s", id, p)
			}
		}
	})
}

// TestSimple: one message completes all that it names, a record stops one.
func TestSimple(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kit := workflowtest.New(t, simpleLibrary, composed())
		for _, id := range []string{"a", "b", "c", "d"} {
			kit.Deliver(simpleTopic, id)
		}
		kit.Advance(time.Second)
		kit.Deliver(simpleListener, SimpleMessage{SimpleID: []string{"a", "b"}})
		kit.Deliver(simpleStopTopic, "c")
		kit.Advance(time.Second)
		for id, want := range map[string]workflow.Status{"a": workflow.Completed, "b": workflow.Completed, "c": workflow.Stopped, "d": workflow.Executing} {
			kit.RequireStatus(id, want)
		}
	})
}

// TestUsage: wrong flags end with 2, a log that can't be reached with 1.
func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"-h"}, 0}, {[]string{"-interval", "0"}, 2}, {[]string{"x"}, 2}, {[]string{"-nothing"}, 2}, {[]string{"-log", "nothing"}, 1},
	} {
		var stderr strings.Builder
		if got := run(t.Context(), c.args, &stderr); got != c.want {
			t.Errorf("orders %v ends with %d, want %d: %s", c.args, got, c.want, stderr.String())
		}
	}
}

// TestNumber: what a record of orders_topic may say.
func TestNumber(t *testing.T) {
	for text, want := range map[string]number{
		`7`: "7", `"8"`: "8", `"a\/\u0062"`: "a/b", `12345678901234567890`: "12345678901234567890",
		`""`: "", `null`: "", `[7]`: "", `{"n":7}`: "", `true`: "",
	} {
		var n number
		err := json.Unmarshal([]byte(text), &n)
		if (err != nil) != (want == "") || err == nil && n != want {
			t.Errorf("%s is the order %q, %v; want %q", text, n, err, want)
		}
	}
}

// TestServeEnds when it is told to, on the embedded pair, and is ready before.
func TestServeEnds(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	o := options{http: "127.0.0.1:0", log: "mem:?app=orders", store: "mem:", updates: "task_update_topic", interval: time.Second}
	err := serve(ctx, o, slog.New(slog.DiscardHandler), func(ctx context.Context, _ eventlog.Log, address string) error {
		if !strings.HasPrefix(address, "127.0.0.1:") {
			t.Errorf("the API is at %s", address)
		}
		cancel(errors.New("enough"))
		<-ctx.Done()
		return nil
	})
	if err != nil {
		t.Error(fmt.Errorf("serve: %w", err))
	}
}
