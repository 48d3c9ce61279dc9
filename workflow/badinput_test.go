package workflow_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/audit"
	"github.com/godagger/dagger/workflow"
)

// What bad input does is said here and in: requests_test.go (requests of other clients),
// starton_test.go (records that start and stop), internal/engine/clock_test.go (a clock that
// jumps), internal/chaos/poison_test.go (panics, and the same on a real broker).

// listens waits for news by an id of any kind.
func listens(name string) *workflow.Definition[job] {
	return workflow.New(name, workflow.Listen("news", "news", workflow.By("id",
		func(j *job) string { return j.ID }, func(m *news) string {
			if m.ID == "panic" {
				panic("out of cheese")
			}
			return m.ID
		}), func(_ context.Context, j *job, m news) (bool, error) { return true, nil }))
}

// sound checks that the events are as they must be, after a test that was rude.
func sound(t *testing.T, log eventlog.Log) {
	t.Helper()
	report, err := audit.Log(t.Context(), log, audit.Options{})
	if err == nil {
		err = report.Err()
	}
	if err != nil {
		t.Error(err)
	}
}

// TestBadMessages: what can't be decoded, or has a key that can't be one, goes to the dead
// letters with the reason; what comes behind it is delivered.
func TestBadMessages(t *testing.T) {
	def := listens("Listens")
	eng := running(t, def)
	h, err := def.Start(t.Context(), eng, "a", job{ID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("k", 64<<10)
	publish(t, eng.Log(), "news", `not JSON`, `[]`, `{"id":7}`, ``, `{"id":"panic"}`, `{"id":"`+long+`"}`, `{"id":"a\u0000b"}`,
		`{}`, `{"id":"a"}`) // one without a key is nobody's; none of them has a record key
	wait(t, h, nil)
	reasons, values := deadLetters(t, eng.Log(), 7)
	want := map[string]string{
		`not JSON`: "its key can't be computed: decode message news/0@0 as workflow_test.news: ",
		`[]`:       "its key can't be computed: decode message news/0@1 as workflow_test.news: ", `{"id":7}`: "its key can't be computed: decode",
		`{"id":"panic"}`: "its key can't be computed: panic: out of cheese", ``: "its key can't be computed: decode message news/0@3",
		`{"id":"` + long + `"}`: "its key can't be computed: value of id: the id has 65536 bytes; at most 512 fit",
		`{"id":"a\u0000b"}`:     "its key can't be computed: value of id: the id has the control character U+0000",
	}
	for k, v := range values {
		if prefix, known := want[v]; !known || !strings.HasPrefix(reasons[k], prefix) {
			t.Errorf("dead letter %.40q: %.200q", v, reasons[k])
		}
	}
	sound(t, eng.Log())
}

// TestBadKeysOfParameters: a key of 64 KB that the parameters give is refused at the start,
// and fails the attempt that makes it.
func TestBadKeysOfParameters(t *testing.T) {
	long := strings.Repeat("k", 64<<10)
	def := workflow.New("Moves", workflow.Execute("move", func(_ context.Context, j *job) error { j.ID = long; return nil }),
		workflow.Listen("news", "news", workflow.By("id", func(j *job) string { return j.ID }, func(m *news) string { return m.ID }),
			func(context.Context, *job, news) (bool, error) { return true, nil }))
	eng := running(t, def)
	if _, err := def.Start(t.Context(), eng, "a", job{ID: long}); !errors.Is(err, workflow.ErrParameters) || !strings.Contains(err.Error(), "start Moves: workflow: parameters do not fit: news: value of id: the id has 65536 bytes; at most 512 fit") {
		t.Errorf("Start says %.300v", err)
	}
	h, err := def.Start(t.Context(), eng, "a", job{ID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := h.Wait(t.Context())
	if failed, ok := errors.AsType[*workflow.TaskError](err); !ok || failed.Path != "move" || !strings.Contains(err.Error(), "value of id: the id has 65536 bytes") || got.ID != "a" {
		t.Errorf("Wait says %.300v with the parameters %.100v", err, got)
	}
	sound(t, eng.Log())
}

// TestLargeParameters: five megabytes are refused at the start, whether the engine runs or
// not, and fail the attempt that makes them, without further attempts.
func TestLargeParameters(t *testing.T) {
	large := job{ID: "a", Steps: []string{strings.Repeat("x", 5<<20)}}
	def := workflow.New("Grows", workflow.Execute("grow", func(_ context.Context, j *job) error {
		if j.ID == "grows" {
			*j = large
		}
		return nil
	}).With(workflow.Retry(9, time.Hour)))
	def = workflow.StartOn(def, "starts", func(_ context.Context, id *string) (string, job, error) {
		if *id == "large" {
			return *id, large, nil
		}
		return *id, job{ID: *id}, nil
	})
	log := memoryLog(t)
	eng, run := engineOn(t, log, def)
	if _, err := def.Start(t.Context(), eng, "a", large); !errors.Is(err, workflow.ErrTooLarge) {
		t.Errorf("Start before Run says %.300v", err)
	}
	run()
	if _, err := def.Start(t.Context(), eng, "a", large); !errors.Is(err, workflow.ErrTooLarge) {
		t.Errorf("Start says %.300v", err)
	}
	publish(t, log, "starts", `"large"`, `"grows"`)
	eventually(t, "grows has failed", func() bool {
		s, err := def.Handle(eng, "grows").Status(t.Context())
		return err == nil && s.Status == workflow.Failure && strings.Contains(s.Error, "the change of the parameters has 5242") && strings.Contains(s.Error, "keep large data elsewhere")
	})
	if reasons, values := deadLetters(t, log, 1); values[0] != `"large"` || !strings.HasPrefix(reasons[0], "it asks for more than fits the log: it needs 52") {
		t.Errorf("dead letter %q: %q", values[0], reasons[0])
	}
	if h, err := def.Start(t.Context(), eng, "a", job{}); err != nil {
		t.Error(err)
	} else {
		wait(t, h, nil)
	}
	sound(t, log)
}

func TestBadIDs(t *testing.T) {
	def := listens("Listens")
	eng := running(t, def)
	for id, want := range map[string]string{
		"a\nb":                      "start Listens: the id has the control character U+000A at byte 1",
		"\x7f":                      "start Listens: the id has the control character U+007F at byte 0",
		"a\xff":                     "start Listens: the id is not valid UTF-8",
		strings.Repeat("x", 513):    "start Listens: the id has 513 bytes; at most 512 fit",
		"\u0085" + "next line (C1)": "start Listens: the id has the control character U+0085 at byte 0",
	} {
		if _, err := def.Start(t.Context(), eng, id, job{}); err == nil || err.Error() != want {
			t.Errorf("Start of %.20q says %v, want %s", id, err, want)
		}
		if _, err := eng.Get(t.Context(), id); err == nil || errors.Is(err, workflow.ErrNotFound) {
			t.Errorf("Get of %.20q says %v", id, err)
		}
		if err := def.Handle(eng, id).Stop(t.Context(), ""); err == nil || errors.Is(err, workflow.ErrNotFound) {
			t.Errorf("Stop of %.20q says %v", id, err)
		}
	}
	if _, err := def.Start(t.Context(), eng, "any other: {order-7}/ä☃ \u00a0", job{ID: "x"}); err != nil {
		t.Error(err)
	}
}

// TestParametersOfAnotherShape: other programs may start instances with what the struct can't
// take. The instance fails at the first task, or before it where a key is needed, at once and
// with the reason; the parameters stay as they came.
func TestParametersOfAnotherShape(t *testing.T) {
	plain := workflow.New("Plain", workflow.Execute("a", step("a")).With(workflow.Retry(9, time.Hour)))
	keyed := listens("Keyed")
	eng := running(t, plain, keyed)
	for _, def := range []*workflow.Definition[job]{plain, keyed} {
		publishRequest(t, eng.Log(), fmt.Sprintf(`{"v":1,"type":"Start","id":%q,"definition":%q,"params":{"id":{"not":"a string"},"more":[1]}}`, def.Name(), def.Name()))
		eventually(t, def.Name()+" has failed", func() bool {
			s, err := def.Handle(eng, def.Name()).Status(t.Context())
			return err == nil && s.Status == workflow.Failure && strings.Contains(s.Error, "cannot unmarshal object into Go struct field job.id of type string") &&
				string(s.Parameters) == `{"id":{"not":"a string"},"more":[1]}`
		})
	}
	h, err := plain.Start(t.Context(), eng, "b", job{})
	if err != nil {
		t.Fatal(err)
	}
	wait(t, h, nil)
	sound(t, eng.Log())
}

func publishRequest(t *testing.T, log eventlog.Log, value string) {
	t.Helper()
	if err := log.Publish(t.Context(), eventlog.Record{Topic: eventlog.RequestsTopic(log.App()), Partition: -1, Value: []byte(value)}); err != nil {
		t.Fatal(err)
	}
}

// TestCallsOfAnotherHour: a call that says it was made in an hour, or yesterday, is set
// aside, and the next one is decided. Without a request id its time means nothing.
func TestCallsOfAnotherHour(t *testing.T) {
	def := listens("Listens")
	eng := running(t, def)
	call := func(id, request string, made time.Duration) {
		publishRequest(t, eng.Log(), fmt.Sprintf(`{"v":1,"type":"Start"%s,"made":%d,"id":%q,"definition":"Listens","params":{}}`, request, time.Now().Add(made).UnixMilli(), id))
	}
	call("ahead", `,"request":"r1"`, time.Hour)
	call("yesterday", `,"request":"r2"`, -25*time.Hour)
	call("earlier", `,"request":"r3"`, -time.Hour)
	call("nameless", "", time.Hour)
	for _, id := range []string{"earlier", "nameless"} {
		eventually(t, id+" runs", func() bool { _, err := eng.Get(t.Context(), id); return err == nil })
	}
	reasons, values := deadLetters(t, eng.Log(), 2)
	for k, v := range values {
		if !strings.Contains(v, `"id":"ahead"`) || reasons[k] != "Start was refused: ahead" {
			if !strings.Contains(v, `"id":"yesterday"`) || reasons[k] != "Start was refused: expired" {
				t.Errorf("dead letter %s: %q", v, reasons[k])
			}
		}
	}
	for _, id := range []string{"ahead", "yesterday"} {
		if _, err := eng.Get(t.Context(), id); !errors.Is(err, workflow.ErrNotFound) {
			t.Errorf("%s: %v", id, err)
		}
	}
	sound(t, eng.Log())
}

// TestTextThatIsNoUTF8: errors and reasons are cut, and stand in the log as they stand in memory.
func TestTextThatIsNoUTF8(t *testing.T) {
	odd := "a\xff\x00é" + strings.Repeat("é\xff", 1<<15)
	fails := workflow.New("Fails", workflow.Execute("a", func(context.Context, *job) error { return errors.New(odd) }))
	stops := workflow.New("Stops", workflow.Execute("a", func(context.Context, *job) error { return workflow.Stop(odd) }))
	waits := listens("Waits")
	eng := running(t, fails, stops, waits)
	for _, def := range []*workflow.Definition[job]{fails, stops, waits} {
		h, err := def.Start(t.Context(), eng, def.Name(), job{ID: "a"})
		if err != nil {
			t.Fatal(err)
		}
		if def == waits {
			if err := h.Stop(t.Context(), odd); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := h.Wait(t.Context()); err == nil {
			t.Errorf("%s has completed", def.Name())
		}
		now, err := h.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		logged, err := eng.GetAt(t.Context(), def.Name(), workflow.AtEvent(1000))
		if err != nil {
			t.Fatal(err)
		}
		text := now.Error + now.Reason
		if text != logged.Error+logged.Reason || !strings.HasPrefix(text, "a\uFFFD\x00éé\uFFFDé") || len(text) > eventlog.MaxError {
			t.Errorf("%s: %d bytes, %.20q; in the log %d, %.20q", def.Name(), len(text), text, len(logged.Error+logged.Reason), logged.Error+logged.Reason)
		}
	}
	eventually(t, "the store has what the log says", func() bool {
		v, err := eng.Verify(t.Context(), workflow.VerifyOptions{})
		return err == nil && v.Differences == 0
	})
	sound(t, eng.Log())
}
