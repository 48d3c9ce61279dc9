package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/eventlog/kafkalog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/memstore"
)

// TestOnKafka runs three tasks on a real broker, with the store lost half-way.
func TestOnKafka(t *testing.T) {
	log := kafkaLog(t)
	code := executeCode(t, "Three", 3, func(context.Context, Attempt) (Outcome, error) {
		return Outcome{Patch: json.RawMessage(`{"x":1}`)}, nil
	})
	for round := range 2 { // the second round has an empty store
		s := memstore.New(projection.Identity{App: log.App(), Partitions: 4})
		began := time.Now()
		runUntil(t, log, s, func(ctx context.Context, e *Engine) {
			var wg sync.WaitGroup
			for k := range 500 {
				wg.Go(func() {
					id := fmt.Sprintf("i-%d-%d", round, k)
					if x, err := ask(ctx, e, unit{request: eventlog.Request{V: 1, Type: eventlog.StartInstance, ID: id, Request: id, Made: time.Now().UnixMilli(), Definition: "Three"}}); err != nil || x.answer.Answer != machine.OK {
						t.Errorf("start %s: %+v, %v", id, x, err)
						return
					}
					if x, err := ask(ctx, e, unit{request: eventlog.Request{ID: id}, read: true, wait: true}); err != nil || x.instance.Status != machine.Completed {
						t.Errorf("wait %s: %+v, %v", id, x, err)
					}
				})
			}
			wg.Wait()
			if x, err := ask(ctx, e, unit{request: eventlog.Request{ID: "i-0-7"}, read: true}); err != nil || x.instance.Status != machine.Completed {
				t.Errorf("first round's instance: %+v, %v", x, err)
			}
		}, code)
		t.Logf("round %d: %v", round, time.Since(began))
	}
}

// TestOrdersOnKafka has calls, reads, waits and messages cross two engines on a real broker.
func TestOrdersOnKafka(t *testing.T) {
	log := kafkaLog(t)
	ordersOverTwoEngines(t, log, memstore.New(projection.Identity{App: log.App(), Partitions: 4}))
}

// TestWalkOnKafka goes back through a partition whose offsets have holes where transactions end.
func TestWalkOnKafka(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	testWalk(t, kafkaLogOf(t, 1), rand.New(rand.NewPCG(seed, 1)), false, 3000, 300)
}

// kafkaLog opens the log of a new application.
func kafkaLog(t *testing.T) eventlog.Log { return kafkaLogOf(t, 4) }

func kafkaLogOf(t *testing.T, partitions int) eventlog.Log {
	t.Helper()
	brokers := os.Getenv("KAFKA_BROKERS")
	if brokers == "" {
		t.Skip("KAFKA_BROKERS is not set: nothing was run against a real broker")
	}
	app := "engine-" + uuid.NewString()[:8]
	u, err := url.Parse("kafka://" + brokers + "/" + app + fmt.Sprintf("?partitions=%d&replication=1", partitions))
	if err != nil {
		t.Fatal(err)
	}
	log, err := kafkalog.Open(t.Context(), u)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	return log
}
