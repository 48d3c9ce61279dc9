package engine

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// orderCode is a definition with an Execute, a Listen and a Command task; version and note
// make it another plan.
func orderCode(t *testing.T, version int, ttl time.Duration) *Code {
	t.Helper()
	plan, err := machine.NewPlan("Order", version, []machine.Node{{Path: "P", Kind: eventlog.Process, Nodes: []machine.Node{
		{Path: "P/price", Kind: eventlog.Execute, Retry: &machine.Retry{Attempts: 3, Delay: 5}},
		{Path: "P/ready", Kind: eventlog.Listen, Topic: "status", Key: "order", TTL: ttl.Milliseconds()},
		{Path: "P/tell", Kind: eventlog.Command, Topic: "told"},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return &Code{Plan: plan,
		Keys: func(_ string, params json.RawMessage) ([]eventlog.TaskKey, error) {
			var p struct{ Order string }
			if err := json.Unmarshal(params, &p); err != nil {
				return nil, err
			}
			return []eventlog.TaskKey{{Path: "P/ready", Value: p.Order}}, nil
		},
		Messages: map[TopicKey]MessageKeys{{"status", "order"}: func(m *eventlog.Message) ([]string, error) {
			var v struct{ Order string }
			if err := json.Unmarshal(m.Value, &v); err != nil {
				return nil, err
			}
			return []string{v.Order}, nil
		}},
	}
}

func newEngine(t *testing.T, log eventlog.Log) *Engine {
	t.Helper()
	e, err := New(t.Context(), Config{Log: log, Store: memStore(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func TestRegisterRecordsWhereRelaysStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // virtual time: records get old
		log := memLog(t)
		if err := log.EnsureTopic(t.Context(), "status", 2); err != nil {
			t.Fatal(err)
		}
		say := func() {
			for p := range int32(2) {
				if err := log.Publish(t.Context(), eventlog.Record{Topic: "status", Partition: p, Value: []byte("{}")}); err != nil {
					t.Fatal(err)
				}
			}
		}
		say()
		time.Sleep(2 * time.Hour)
		say()
		time.Sleep(time.Minute)

		one := newEngine(t, log)
		if err := one.Register(t.Context(), orderCode(t, 1, time.Hour)); err != nil {
			t.Fatal(err)
		}
		status, err := log.Topic(t.Context(), "status")
		if err != nil {
			t.Fatal(err)
		}
		tk := TopicKey{"status", "order"}
		check := func(e *Engine, partition int32, want int64) {
			t.Helper()
			if at, known := e.registry.startOf(tk, status.ID, partition); at != want || !known {
				t.Errorf("partition %d starts at %d (%v), want %d", partition, at, known, want)
			}
		}
		// Protocol rule 18: the first record younger than the time to live.
		check(one, 0, 1)
		check(one, 1, 1)
		check(one, 2, 0) // a partition that was unknown then
		if _, known := one.registry.startOf(tk, "another id", 0); known {
			t.Error("a topic that was created again has the old one's start")
		}
		if told, err := log.Topic(t.Context(), "told"); err != nil || len(told.Partitions) != 1 {
			t.Errorf("topic of the Command: %+v, %v", told, err)
		}

		// What was recorded stays, whoever registers the plan again.
		time.Sleep(2 * time.Hour)
		two := newEngine(t, log)
		if err := two.Register(t.Context(), orderCode(t, 1, time.Hour)); err != nil {
			t.Fatal(err)
		}
		check(two, 0, 1)
		definitions, err := log.Topic(t.Context(), eventlog.DefinitionsTopic("test"))
		if err != nil {
			t.Fatal(err)
		}
		if n := definitions.Partitions[0].End; n != 1 {
			t.Errorf("the plan was recorded %d times", n)
		}
		// A new version is a record of its own; the relay starts where the first one does.
		if err := two.Register(t.Context(), orderCode(t, 2, time.Hour)); err != nil {
			t.Fatal(err)
		}
		check(two, 0, 1)
		if v := two.registry.Current("Order").Version; v != 2 {
			t.Errorf("current version %d", v)
		}
	})
}

func TestRegistryKnowsOtherWorkers(t *testing.T) {
	log := memLog(t)
	one, two := newEngine(t, log), newEngine(t, log)
	old, young := orderCode(t, 1, 30*time.Minute), orderCode(t, 2, 2*time.Hour)
	if err := one.Register(t.Context(), old, young); err != nil {
		t.Fatal(err)
	}
	if p := two.Plan(young.Plan.Hash()); p != nil {
		t.Error("known before anything was read")
	}
	if err := two.Register(t.Context()); err != nil { // reads what there is
		t.Fatal(err)
	}
	p := two.Plan(young.Plan.Hash())
	if p == nil || two.registry.Current("Order").Hash() != young.Plan.Hash() {
		t.Fatalf("plan of another worker: %v", p)
	}
	if two.registry.code(p.Hash()) != nil || len(two.registry.relays()) != 0 {
		t.Error("code of another worker")
	}
	// Its own code comes first, and its relay keeps messages as long as the longest listener.
	if err := two.Register(t.Context(), orderCode(t, 1, 30*time.Minute)); err != nil {
		t.Fatal(err)
	}
	if got := two.registry.Current("Order").Version; got != 1 {
		t.Errorf("current version %d", got)
	}
	l := two.registry.relays()
	if len(l) != 1 || l[0].ttl != 2*time.Hour || l[0].keys == nil {
		t.Errorf("relays: %+v", l)
	}
}

func TestRegisterTwiceAtOnce(t *testing.T) {
	log := memLog(t)
	engines := []*Engine{newEngine(t, log), newEngine(t, log)}
	errs := make(chan error, len(engines))
	for _, e := range engines {
		go func() { errs <- e.Register(t.Context(), orderCode(t, 1, time.Hour)) }()
	}
	for range engines {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff(engines[0].registry.recorded["Order@"+orderCode(t, 1, time.Hour).Plan.Hash()].Starts, engines[1].registry.recorded["Order@"+orderCode(t, 1, time.Hour).Plan.Hash()].Starts); diff != "" {
		t.Error(diff)
	}
}

func TestRegisterAfterClose(t *testing.T) {
	e := newEngine(t, memLog(t))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := e.Register(t.Context(), orderCode(t, 1, time.Hour)); err != ErrClosed {
		t.Errorf("Register after Close: %v", err)
	}
}
