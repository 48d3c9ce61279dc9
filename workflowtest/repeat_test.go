package workflowtest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/workflow"
	"github.com/godagger/dagger/workflowtest"
)

// shipment is an order of boxes, box one of them.
type shipment struct {
	ID     string    `json:"id"`
	Boxes  int       `json:"boxes,omitempty"`
	Sent   []int     `json:"sent,omitempty"`
	Steps  []string  `json:"steps,omitempty"`
	Alarms int       `json:"alarms,omitempty"`
	By     time.Time `json:"by,omitzero"`
	Note   string    `json:"note,omitempty"`
}

type box struct {
	ID   string `json:"id"`
	Sent int    `json:"sent,omitempty"`
}

func boxes(_ context.Context, s *shipment) (l []box, err error) {
	for n := range s.Boxes {
		l = append(l, box{ID: fmt.Sprintf("%s-%d", s.ID, n)})
	}
	return l, nil
}

func sent(_ context.Context, s *shipment, l []box) error {
	s.Sent = []int{}
	for _, b := range l {
		s.Sent = append(s.Sent, b.Sent)
	}
	return nil
}

func send(ctx context.Context, b *box) error { b.Sent = 1 + workflow.TaskFrom(ctx).Item; return nil }

func step(name string) func(context.Context, *shipment) error {
	return func(_ context.Context, s *shipment) error { s.Steps = append(s.Steps, name); return nil }
}

func hang(ctx context.Context, _ *shipment) error { <-ctx.Done(); return context.Cause(ctx) }

func TestForEachOfMany(t *testing.T) {
	for _, n := range []int{0, 1, 10_000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				def := workflow.New("Ship",
					workflow.ForEach("boxes", boxes, sent, workflow.Execute("send", send)).With(workflow.Concurrency(100)))
				kit := workflowtest.New(t, def)
				h := workflowtest.Start(kit, def, "s", shipment{ID: "s", Boxes: n})
				got := workflowtest.RequireCompleted(kit, h)
				if len(got.Sent) != n {
					t.Fatalf("%d boxes were sent of %d", len(got.Sent), n)
				}
				for k, x := range got.Sent {
					if x != k+1 {
						t.Fatalf("box %d has the result %d", k, x)
					}
				}
			})
		})
	}
}

// TestForEachWaitsByItem: each run has a key of its own, which moves with its item, and a
// message before its run has begun is kept.
func TestForEachWaitsByItem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		def := workflow.New("Ship",
			workflow.ForEach("boxes", boxes, sent,
				workflow.Execute("rename", func(_ context.Context, b *box) error { b.ID += "!"; return nil }),
				workflow.Listen("packed", "packed", workflow.By("id", func(b *box) string { return b.ID }, func(m *ready) string { return m.ID }),
					func(ctx context.Context, b *box, m ready) (bool, error) { return true, send(ctx, b) })).With(workflow.Concurrency(2)))
		kit := workflowtest.New(t, def)
		kit.Deliver("packed", ready{ID: "s-2!"})
		h := workflowtest.Start(kit, def, "s", shipment{ID: "s", Boxes: 3})
		kit.RequireTask("s", "boxes[1]/packed", workflow.Executing)
		kit.Deliver("packed", ready{ID: "s-1!"})
		kit.RequireTask("s", "boxes[0]/packed", workflow.Executing)
		kit.Deliver("packed", ready{ID: "s-0!"})
		got := workflowtest.RequireCompleted(kit, h)
		if diff := cmp.Diff([]int{1, 2, 3}, got.Sent); diff != "" {
			t.Errorf("results (-want +got):\n%s", diff)
		}
	})
}

// TestForEachFails: at once, or when all have ended; a retry goes on with what had not ended.
func TestForEachFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := true
		def := workflow.New("Ship",
			workflow.ForEach("boxes", boxes, sent, workflow.Execute("send", func(ctx context.Context, b *box) error {
				if broken && b.ID == "s-1" {
					return errors.New("too heavy")
				}
				return send(ctx, b)
			})).With(workflow.WaitAll()))
		kit := workflowtest.New(t, def)
		h := workflowtest.Start(kit, def, "s", shipment{ID: "s", Boxes: 3})
		var failed *workflow.TaskError
		if _, err := h.Wait(t.Context()); !errors.As(err, &failed) || failed.Path != "boxes[1]/send" {
			t.Fatalf("the instance ended with %v", err)
		}
		broken = false
		if err := h.Retry(t.Context(), "a stronger driver"); err != nil {
			t.Fatal(err)
		}
		got, err := h.Wait(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]int{1, 2, 3}, got.Sent); diff != "" {
			t.Errorf("results (-want +got):\n%s", diff)
		}
	})
}

// TestDeadlineOfTheParameters moves with them; past it what is open is skipped.
func TestDeadlineOfTheParameters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		def := workflow.New("Ship",
			workflow.Process("do",
				workflow.Execute("postpone", func(_ context.Context, s *shipment) error { s.By = s.By.Add(time.Hour); return nil }),
				workflow.Execute("hang", hang)).DeadlineAt(func(s *shipment) time.Time { return s.By }, workflow.SkipRest),
			workflow.Execute("after", step("after")))
		kit := workflowtest.New(t, def)
		h := workflowtest.Start(kit, def, "s", shipment{ID: "s", By: time.Now().Add(time.Minute)})
		kit.Advance(10 * time.Minute)
		kit.RequireTask("s", "do/hang", workflow.Executing)
		kit.Advance(time.Hour)
		kit.RequireTask("s", "do/hang", workflow.Skipped)
		workflowtest.RequireCompleted(kit, h)
	})
}

func TestDeadlineThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		def := workflow.New("Ship",
			workflow.Process("do", workflow.Execute("hang", hang)).With(workflow.Deadline(time.Minute, workflow.FailNode), workflow.OnFailure(workflow.Goto("late"))),
			workflow.Execute("between", step("between")),
			workflow.Execute("late", step("late")))
		kit := workflowtest.New(t, def)
		h := workflowtest.Start(kit, def, "s", shipment{ID: "s"})
		kit.Advance(61 * time.Second)
		got := workflowtest.RequireCompleted(kit, h)
		if diff := cmp.Diff([]string{"late"}, got.Steps); diff != "" {
			t.Errorf("steps (-want +got):\n%s", diff)
		}
		kit.RequireTask("s", "do", workflow.Failure)
		kit.RequireTask("s", "between", workflow.Skipped)
	})
}

// TestMonitorRunsEachPeriod while its node is unfinished, and may change what that reads.
func TestMonitorRunsEachPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		def := workflow.New("Ship",
			workflow.Process("wait", workflow.Listen("packed", "packed", workflow.By("id", func(s *shipment) string { return s.ID }, func(m *ready) string { return m.ID }),
				func(context.Context, *shipment, ready) (bool, error) { return true, nil }),
			).Monitor("late", func(s *shipment) workflow.Alarm { return workflow.Alarm{At: s.By, Period: time.Minute} },
				func(_ context.Context, s *shipment) error { s.Alarms++; return nil }),
			workflow.At("end", func(s *shipment) time.Time { return s.By.Add(time.Hour) }, step("end")))
		kit := workflowtest.New(t, def)
		h := workflowtest.Start(kit, def, "s", shipment{ID: "s", By: time.Now().Add(10 * time.Second)})
		kit.Advance(5 * time.Second)
		if w := kit.RequireTask("s", "wait@late", workflow.Executing); !strings.HasPrefix(w.WaitsFor, "watches; runs at") {
			t.Errorf("the monitor waits for %q", w.WaitsFor)
		}
		kit.Advance(2*time.Minute + 30*time.Second) // at 10, 70 and 130 seconds
		kit.Deliver("packed", ready{ID: "s"})
		kit.RequireTask("s", "wait@late", workflow.Skipped)
		kit.Advance(2 * time.Hour)
		if got := workflowtest.RequireCompleted(kit, h); got.Alarms != 3 {
			t.Errorf("the monitor ran %d times", got.Alarms)
		}
	})
}

// TestStopCancelsAndUndoes: handlers are cancelled with a cause, on-stop handlers of the nodes
// that the instance is in run, those of others don't.
func TestStopCancelsAndUndoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := make(chan error, 1)
		def := workflow.New("Ship",
			workflow.Process("done", workflow.Execute("a", step("a"))).OnStop(step("undo done")),
			workflow.Process("open", workflow.Execute("hang", func(ctx context.Context, s *shipment) error {
				<-ctx.Done()
				cause <- context.Cause(ctx)
				return ctx.Err()
			})).OnStop(step("undo open")),
			workflow.Process("later", workflow.Execute("b", step("b"))).OnStop(step("undo later")))
		kit := workflowtest.New(t, def)
		h := workflowtest.Start(kit, def, "s", shipment{ID: "s"})
		kit.RequireTask("s", "open/hang", workflow.Executing)
		if err := h.Stop(t.Context(), "cancelled"); err != nil {
			t.Fatal(err)
		}
		got, err := h.Wait(t.Context())
		if !errors.Is(err, workflow.ErrStopped) {
			t.Fatalf("the instance ended with %v", err)
		}
		if err := <-cause; !errors.Is(err, workflow.ErrInstanceEnded) {
			t.Errorf("the handler's context ended with %v", err)
		}
		if diff := cmp.Diff([]string{"a", "undo open"}, got.Steps); diff != "" {
			t.Errorf("steps (-want +got):\n%s", diff)
		}
	})
}

// TestSkipToAndReprocess: an early message skips what lies before its listener, a later one
// lets the completed listener work again.
func TestSkipToAndReprocess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		def := workflow.New("Ship",
			workflow.Execute("hang", hang),
			workflow.Listen("packed", "packed", workflow.By("id", func(s *shipment) string { return s.ID }, func(m *ready) string { return m.ID }),
				func(_ context.Context, s *shipment, m ready) (bool, error) {
					return true, step("packed")(t.Context(), s)
				}).
				With(workflow.SkipTo("packed"), workflow.Reprocess()),
			workflow.At("end", func(s *shipment) time.Time { return s.By }, step("end")))
		kit := workflowtest.New(t, def)
		h := workflowtest.Start(kit, def, "s", shipment{ID: "s", By: time.Now().Add(time.Hour)})
		kit.RequireTask("s", "hang", workflow.Executing)
		for range 3 {
			kit.Deliver("packed", ready{ID: "s"})
		}
		kit.RequireTask("s", "hang", workflow.Skipped)
		kit.Advance(time.Hour)
		got := workflowtest.RequireCompleted(kit, h)
		if diff := cmp.Diff([]string{"packed", "packed", "packed", "end"}, got.Steps); diff != "" {
			t.Errorf("steps (-want +got):\n%s", diff)
		}
	})
}

// TestMatchOneSharesMessages among the instances that wait for them.
func TestMatchOneSharesMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		def := workflow.New("Ship",
			workflow.Listen("job", "jobs", workflow.By("kind", func(*shipment) string { return "any" }, func(*ready) string { return "any" }),
				func(_ context.Context, s *shipment, m ready) (bool, error) { s.Note = m.ID; return true, nil }).With(workflow.MatchOne()))
		kit := workflowtest.New(t, def)
		var handles []*workflow.Handle[shipment]
		for n := range 3 {
			handles = append(handles, workflowtest.Start(kit, def, fmt.Sprint("s", n), shipment{}))
		}
		for n := range 3 {
			kit.Deliver("jobs", ready{ID: fmt.Sprint("job", n)})
		}
		seen := map[string]bool{}
		for _, h := range handles {
			seen[workflowtest.RequireCompleted(kit, h).Note] = true
		}
		if len(seen) != 3 {
			t.Errorf("the jobs %v were taken by three instances", seen)
		}
	})
}

// TestConcurrencyLimitsHandlers of a task in a process.
func TestConcurrencyLimitsHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		running, most := 0, 0 // handlers run in one bubble, one at a time between waits
		def := workflow.New("Ship", workflow.Execute("slow", func(ctx context.Context, _ *shipment) error {
			enter <- 1
			defer func() { enter <- -1 }()
			<-time.After(time.Second)
			return nil
		}).With(workflow.Concurrency(2)))
		done := make(chan struct{})
		enter = make(chan int)
		go func() {
			for d := range enter {
				running += d
				most = max(most, running)
			}
			close(done)
		}()
		kit := workflowtest.New(t, def)
		var handles []*workflow.Handle[shipment]
		for n := range 6 {
			handles = append(handles, workflowtest.Start(kit, def, fmt.Sprint("s", n), shipment{}))
		}
		began := time.Now()
		for _, h := range handles {
			if _, err := h.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took < 2*time.Second {
			t.Errorf("six handlers of a second, two at once, took %v", took)
		}
		close(enter)
		if <-done; most != 2 {
			t.Errorf("%d handlers ran at once", most)
		}
	})
}

var enter chan int

// TestRetainAndDelete: an instance is forgotten after its time, or by a call, and its id may
// be used again.
func TestRetainAndDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		def := workflow.New("Ship", workflow.Execute("a", step("a"))).Retain(time.Hour)
		kit := workflowtest.New(t, def)
		h := workflowtest.Start(kit, def, "s", shipment{})
		workflowtest.RequireCompleted(kit, h)
		kit.Advance(59 * time.Minute)
		kit.RequireStatus("s", workflow.Completed)
		kit.Advance(2 * time.Minute)
		if _, err := h.Status(t.Context()); !errors.Is(err, workflow.ErrNotFound) {
			t.Fatalf("an hour after its end the instance gives %v", err)
		}
		again := workflowtest.Start(kit, def, "s", shipment{Note: "again"})
		if !again.Started() {
			t.Error("the id of a deleted instance was not started anew")
		}
		if got := workflowtest.RequireCompleted(kit, again); got.Note != "again" {
			t.Errorf("the new instance has the parameters %+v", got)
		}
		if err := again.Delete(t.Context(), "asked for"); err != nil {
			t.Fatal(err)
		}
		if err := again.Delete(t.Context(), "twice"); !errors.Is(err, workflow.ErrNotFound) {
			t.Errorf("a second Delete gives %v", err)
		}
	})
}
