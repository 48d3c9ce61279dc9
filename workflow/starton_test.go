package workflow_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/audit"
	"github.com/godagger/dagger/workflow"
)

// publish appends records with values to a topic, without keys.
func publish(t *testing.T, log eventlog.Log, topic string, values ...string) {
	t.Helper()
	var records []eventlog.Record
	for _, v := range values {
		records = append(records, eventlog.Record{Topic: topic, Partition: -1, Value: []byte(v)})
	}
	if err := log.Publish(t.Context(), records...); err != nil {
		t.Fatal(err)
	}
}

// deadLetters waits for n dead letters and gives their reasons and values.
func deadLetters(t *testing.T, log eventlog.Log, n int) (reasons, values []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	reader, err := log.Read(ctx, eventlog.DeadLetterTopic(log.App()), 0, 0, "", eventlog.ReadCommitted)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for len(reasons) < n {
		records, _, err := reader.Next(ctx)
		if err != nil {
			t.Fatalf("%d of %d dead letters: %q: %v", len(reasons), n, reasons, err)
		}
		for _, r := range records {
			values = append(values, string(r.Value))
			for _, h := range r.Headers {
				if h.Key == "dagger-reason" {
					reasons = append(reasons, string(h.Value))
				}
			}
		}
	}
	return reasons, values
}

func wait(t *testing.T, h *workflow.Handle[job], want error) job {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for {
		got, err := h.Wait(ctx)
		if errors.Is(err, workflow.ErrNotFound) { // its record was not looked at yet
			select {
			case <-time.After(2 * time.Millisecond):
				continue
			case <-ctx.Done():
			}
		}
		if !errors.Is(err, want) {
			t.Fatalf("%s ended with %v, want %v", h.ID(), err, want)
		}
		return got
	}
}

// simple starts and stops on JSON strings and waits for news.
func simple(name string) *workflow.Definition[job] {
	def := workflow.New(name, workflow.Listen("news", "news", workflow.By("id",
		func(j *job) string { return j.ID }, func(m *news) string { return m.ID }),
		func(_ context.Context, j *job, m news) (bool, error) {
			j.Steps = append(j.Steps, "news")
			return m.Last, nil
		}))
	def = workflow.StartOn(def, "simple_topic", func(ctx context.Context, id *string) (string, job, error) {
		switch *id {
		case "error":
			return "", job{}, errors.New("out of cheese")
		case "panic":
			panic("no cheese at all")
		}
		m := workflow.MessageFrom(ctx)
		return *id, job{ID: *id, Steps: []string{fmt.Sprintf("%s/%d", m.Topic, m.Partition)}}, nil
	})
	return workflow.StopOn(def, "simple_topic_stop", func(_ context.Context, id *string) (string, error) { return *id, nil })
}

func TestRecordsStartAndStop(t *testing.T) {
	def := simple("Simple")
	eng := running(t, def)
	publish(t, eng.Log(), "simple_topic", `"a"`, `not JSON`, `7`, ``, `""`, `"error"`, `"panic"`, `"b"`, `"a\nb"`, `"a"`,
		`"`+strings.Repeat("x", 64<<10)+`"`, `"c"`)
	publish(t, eng.Log(), "news", `{"id":"a","last":true}`)
	if got := wait(t, def.Handle(eng, "a"), nil); fmt.Sprint(got.Steps) != "[simple_topic/0 news]" {
		t.Errorf("steps of a: %v", got.Steps)
	}
	eventually(t, "c waits", func() bool {
		s, err := def.Handle(eng, "c").Status(t.Context())
		return err == nil && s.Status == workflow.Executing
	})
	publish(t, eng.Log(), "simple_topic_stop", `"nobody"`, `{}`, `"a"`, `"b"`, `""`)
	wait(t, def.Handle(eng, "b"), workflow.ErrStopped)
	if s, err := def.Handle(eng, "b").Status(t.Context()); err != nil || s.Reason != "record simple_topic_stop/0@3" {
		t.Errorf("b was stopped for %q, %v", s.Reason, err)
	}
	reasons, values := deadLetters(t, eng.Log(), 8)
	for _, want := range []string{
		`not JSON: start Simple: decode message simple_topic/0@1 as string: `,
		`7: start Simple: decode message simple_topic/0@2 as string: `,
		`: start Simple: decode message simple_topic/0@3 as string: `,
		`"error": start Simple: out of cheese`,
		`"panic": panic: no cheese at all`,
		`"a\nb": start Simple: `,
		`start Simple: the id has 65536 bytes; at most 512 fit`,
		`{}: stop Simple: decode message simple_topic_stop/0@1 as string: `,
	} {
		found := false
		for k := range reasons {
			found = found || strings.Contains(values[k]+": "+reasons[k], want)
		}
		if !found {
			t.Errorf("no dead letter says %s\nthere are %.300q", want, reasons)
		}
	}
	if i, err := def.Handle(eng, "c").Status(t.Context()); err != nil || i.Status != workflow.Executing {
		t.Errorf("c: %+v, %v", i, err)
	}
	for e, err := range def.Handle(eng, "a").Events(t.Context()) {
		if err != nil || e.Type == eventlog.InstanceStarted && !strings.HasPrefix(e.Request, "start/simple_topic/0/0/") {
			t.Errorf("started by %q, %v", e.Request, err)
		}
	}
}

// TestStopOnIsForItsDefinition: an instance of another definition is not stopped.
func TestStopOnIsForItsDefinition(t *testing.T) {
	one, other := simple("One"), workflow.New("Other", workflow.Listen("l", "other", workflow.By("id",
		func(j *job) string { return j.ID }, func(m *news) string { return m.ID }), func(context.Context, *job, news) (bool, error) { return true, nil }))
	eng := running(t, one, other)
	h, err := other.Start(t.Context(), eng, "x", job{ID: "x"})
	if err != nil {
		t.Fatal(err)
	}
	publish(t, eng.Log(), "simple_topic_stop", `"x"`)
	if reasons, _ := deadLetters(t, eng.Log(), 1); reasons[0] != "Stop was refused: not found" {
		t.Errorf("reason %q", reasons[0])
	}
	if s, err := h.Status(t.Context()); err != nil || s.Status != workflow.Executing {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestStopBeforeStart: a stop that overtakes its start stops the instance when it starts,
// before it does anything, also in another process whose store is empty.
func TestStopBeforeStart(t *testing.T) {
	eachLog(t, func(t *testing.T, log eventlog.Log) {
		ran := make(chan string, 10)
		start, stop := "start-"+log.App(), "stop-"+log.App()
		def := workflow.New("Early", workflow.Process("P", workflow.Execute("work", func(_ context.Context, j *job) error {
			ran <- j.ID
			return nil
		})).OnStop(func(_ context.Context, j *job) error { j.Steps = append(j.Steps, "undone"); return nil }))
		def = workflow.StartOn(def, start, func(_ context.Context, id *string) (string, job, error) { return *id, job{ID: *id}, nil })
		def = workflow.StopOn(def, stop, func(_ context.Context, id *string) (string, error) { return *id, nil })
		eng, run := engineOn(t, log, def)
		run()
		publish(t, log, stop, `"a"`, `"b"`)
		for _, id := range []string{"a", "b"} {
			eventually(t, "the stop is kept", func() bool {
				for e, err := range eng.Events(t.Context(), id) {
					if err != nil {
						t.Fatal(err)
					}
					return e.Type == eventlog.StopKept
				}
				return false
			})
			if _, err := eng.Get(t.Context(), id); !errors.Is(err, workflow.ErrNotFound) {
				t.Errorf("%s: %v", id, err)
			}
		}
		stopped := func(eng *workflow.Engine, id string, offset int) {
			t.Helper()
			if got := wait(t, def.Handle(eng, id), workflow.ErrStopped); fmt.Sprint(got.Steps) != "[undone]" {
				t.Errorf("%s ends with %v", id, got.Steps)
			}
			if i, err := eng.Get(t.Context(), id); err != nil || i.Reason != fmt.Sprintf("record %s/0@%d", stop, offset) {
				t.Errorf("%s: %+v, %v", id, i, err)
			}
		}
		publish(t, log, start, `"a"`)
		stopped(eng, "a", 0)
		if err := eng.Close(); err != nil {
			t.Fatal(err)
		}
		eng, run = engineOn(t, log, def)
		run()
		publish(t, log, start, `"b"`, `"c"`)
		stopped(eng, "b", 1)
		wait(t, def.Handle(eng, "c"), nil)
		if id := <-ran; id != "c" || len(ran) > 0 {
			t.Errorf("the handler ran for %s and %d more", id, len(ran))
		}
		if dead := recordsOf(t, log, eventlog.DeadLetterTopic(log.App())); len(dead) > 0 {
			t.Errorf("dead letters: %v", dead)
		}
		report, err := audit.Log(t.Context(), log, audit.Options{})
		if err := errors.Join(err, report.Err()); err != nil {
			t.Error(err)
		}
	})
}

// TestStartOnCountsOnce has engines that come and go while records arrive: each record starts
// one instance, each instance runs once.
func TestStartOnCountsOnce(t *testing.T) {
	log, err := eventlog.Open(t.Context(), "mem:?partitions=4")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := log.EnsureTopic(t.Context(), "orders_topic", 3); err != nil {
		t.Fatal(err)
	}
	def := workflow.StartOn(workflow.New("Order", workflow.Execute("a", step("a"))), "orders_topic",
		func(ctx context.Context, n *json.Number) (string, job, error) {
			return "ID00" + n.String(), job{ID: n.String()}, nil
		})
	const each, rounds = 40, 6
	for round := range rounds {
		eng, err := workflow.Open(t.Context(), workflow.Config{OpenedLog: log, Store: "mem:", Logger: slog.New(slog.DiscardHandler), ShutdownTimeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if err := eng.Register(def); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := eng.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		for n := range each {
			publish(t, log, "orders_topic", fmt.Sprint(round*each+n))
		}
		if round == rounds-1 {
			for n := range each * rounds {
				if got := wait(t, def.Handle(eng, fmt.Sprintf("ID00%d", n)), nil); len(got.Steps) != 1 {
					t.Errorf("%d took the steps %v", n, got.Steps)
				}
			}
		}
		stop()
		wg.Wait()
		if err := eng.Close(); err != nil {
			t.Error(err)
		}
	}
	report, err := audit.Log(t.Context(), log, audit.Options{})
	if err == nil {
		err = report.Err()
	}
	if err != nil || report.Instances != each*rounds {
		t.Errorf("audit: %d instances of %d, %v", report.Instances, each*rounds, err)
	}
}

// TestWhereStartOnBegins: records from before the registration count as From says, and what
// was recorded stays.
func TestWhereStartOnBegins(t *testing.T) {
	for _, c := range []struct {
		name    string
		options []workflow.Option
		early   bool
	}{
		{"young", nil, true},
		{"earliest", []workflow.Option{workflow.From(workflow.Earliest)}, true},
		{"latest", []workflow.Option{workflow.From(workflow.Latest)}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			log, err := eventlog.Open(t.Context(), "mem:?partitions=4")
			if err != nil {
				t.Fatal(err)
			}
			defer log.Close()
			if err := log.EnsureTopic(t.Context(), "orders_topic", 1); err != nil {
				t.Fatal(err)
			}
			// Both have the same part in braces, so one partition starts them, in this order.
			publish(t, log, "orders_topic", `"{order}/early"`)
			def := workflow.StartOn(workflow.New("Order", workflow.Execute("a", step("a"))), "orders_topic",
				func(_ context.Context, id *string) (string, job, error) { return *id, job{}, nil }, c.options...)
			eng, err := workflow.Open(t.Context(), workflow.Config{OpenedLog: log, Store: "mem:", Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			if err := eng.Register(def); err != nil {
				t.Fatal(err)
			}
			publish(t, log, "orders_topic", `"{order}/between"`)
			if err := eng.Register(def); err != nil { // changes nothing
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				if err := eng.Run(t.Context()); err != nil {
					t.Error(err)
				}
			})
			wait(t, def.Handle(eng, "{order}/between"), nil)
			_, err = eng.Get(t.Context(), "{order}/early")
			if c.early && err != nil || !c.early && !errors.Is(err, workflow.ErrNotFound) {
				t.Errorf("the record from before: %v", err)
			}
			if err := eng.Close(); err != nil {
				t.Error(err)
			}
			wg.Wait()
		})
	}
}

// TestMessageFrom: the functions of StartOn and Listen see the record that they are called for.
func TestMessageFrom(t *testing.T) {
	seen := func(ctx context.Context) string {
		m := workflow.MessageFrom(ctx)
		return fmt.Sprintf("%s/%d@%d key %s header %s", m.Topic, m.Partition, m.Offset, m.Key, m.Headers[0].Value)
	}
	def := workflow.New("Sees", workflow.Execute("none", func(ctx context.Context, j *job) error {
		if m := workflow.MessageFrom(ctx); m != nil {
			return fmt.Errorf("an Execute has the message %+v", m)
		}
		return nil
	}), workflow.Listen("news", "news", workflow.By("id", func(j *job) string { return j.ID }, func(m *news) string { return m.ID }),
		func(ctx context.Context, j *job, _ news) (bool, error) {
			j.Steps = append(j.Steps, seen(ctx))
			return true, nil
		}))
	def = workflow.StartOn(def, "start", func(ctx context.Context, id *string) (string, job, error) {
		return *id, job{ID: *id, Steps: []string{seen(ctx)}}, nil
	})
	eng := running(t, def)
	for topic, value := range map[string]string{"start": `"a"`, "news": `{"id":"a"}`} {
		r := eventlog.Record{Topic: topic, Partition: -1, Key: []byte("k"), Value: []byte(value), Headers: []eventlog.Header{{Key: "h", Value: []byte(topic)}}}
		if err := eng.Log().Publish(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if got := wait(t, def.Handle(eng, "a"), nil); strings.Join(got.Steps, ", ") != "start/0@0 key k header start, news/0@0 key k header news" {
		t.Errorf("saw %q", got.Steps)
	}
}

// TestVersionsOfStartOn: the highest version that has it starts the instances.
func TestVersionsOfStartOn(t *testing.T) {
	start := func(_ context.Context, id *string) (string, job, error) { return *id, job{}, nil }
	v1 := workflow.StartOn(workflow.New("Order", workflow.Execute("a", step("a"))), "orders_topic", start)
	v2 := workflow.StartOn(workflow.New("Order", workflow.Execute("b", step("b"))), "orders_topic", start).Version(2)
	v3 := workflow.New("Order", workflow.Execute("c", step("c"))).Version(3)
	eng := running(t, v3, v2, v1)
	publish(t, eng.Log(), "orders_topic", `"x"`)
	if got := wait(t, v1.Handle(eng, "x"), nil); fmt.Sprint(got.Steps) != "[b]" {
		t.Errorf("steps %v", got.Steps)
	}
}

func TestStartOnMistakes(t *testing.T) {
	eng, err := workflow.Open(t.Context(), workflow.Config{Log: "mem:?app=shop", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	start := func(context.Context, *string) (string, job, error) { return "", job{}, nil }
	def := workflow.New("A", workflow.Execute("a", step("a")))
	def = workflow.StartOn[job, string](def, "one", nil)
	def = workflow.StartOn(def, "one", start, workflow.WaitAll(), workflow.Option{})
	def = workflow.StartOn(def, "two", start, workflow.From(7))
	def = workflow.StopOn[job, string](def, "two three", nil)
	def = workflow.StartOn(def, "shop.events", start)
	by := workflow.By("id", func(j *job) string { return j.ID }, func(m *news) string { return m.ID })
	heard := func(context.Context, *job, news) (bool, error) { return true, nil }
	other := workflow.New("B", workflow.Listen("l", "news", by, heard).With(workflow.From(workflow.Latest)), workflow.Listen("m", "news", by, heard))
	err = eng.Register(def, other)
	for _, want := range []string{
		"register A: StartOn one: its function is nil",
		"register A: StartOn one: a definition has one for a topic",
		"register A: StartOn one: WaitAll is no option of StartOn",
		"register A: StartOn one: an empty Option is no option of StartOn",
		"register A: StartOn two: From is given neither Earliest nor Latest",
		`register A: StopOn: its topic "two three" has ' '`,
		"register A: StopOn two three: its function is nil",
		"register B: m: it begins to read topic news elsewhere than another listener with id",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Register says\n%v\nwant in it: %s", err, want)
		}
	}
	err = eng.Register(workflow.StartOn(workflow.New("A", workflow.Execute("a", step("a"))), "shop.events", start))
	if err == nil || !strings.Contains(err.Error(), "register A: StartOn shop.events: it is one of the engine's own topics") {
		t.Errorf("Register says %v", err)
	}
}
