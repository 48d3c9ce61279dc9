package embedlog

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/eventlog/eventlogtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFileLog(t *testing.T) {
	eventlogtest.Run(t, func(t *testing.T) *eventlogtest.Harness {
		dir := t.TempDir()
		return &eventlogtest.Harness{
			App: "app",
			Open: func(ctx context.Context, partitions int32) (eventlog.Log, error) {
				return asLog(Open(ctx, dir, Options{App: "app", Partitions: partitions}))
			},
			DeleteTopic: deleteTopic,
			Features:    eventlogtest.Features{SingleOpen: true, NoCrash: true},
		}
	})
}

func TestMemoryLog(t *testing.T) {
	eventlogtest.Run(t, func(t *testing.T) *eventlogtest.Harness {
		memory := &Memory{}
		return &eventlogtest.Harness{
			App: "app",
			Open: func(_ context.Context, partitions int32) (eventlog.Log, error) {
				return asLog(OpenMemory(Options{App: "app", Partitions: partitions, Memory: memory}))
			},
			DeleteTopic: deleteTopic,
			Features:    eventlogtest.Features{SingleOpen: true, NoCrash: true},
		}
	})
}

// TestCrashingLog is the suite on a file system that loses, in a crash, a random part of
// what was not synced.
func TestCrashingLog(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	eventlogtest.Run(t, func(t *testing.T) *eventlogtest.Harness {
		fs := vfs.NewCrashableMem()
		random := rand.New(rand.NewPCG(seed, 0))
		opened := map[eventlog.Log]*mortalKV{}
		return &eventlogtest.Harness{
			App: "app",
			Open: func(ctx context.Context, partitions int32) (eventlog.Log, error) {
				l, err := Open(ctx, "log", Options{App: "app", Partitions: partitions, FS: fs})
				if err != nil {
					return nil, err
				}
				m := &mortalKV{kv: l.store}
				l.store, opened[l] = m, m
				return l, nil
			},
			DeleteTopic: deleteTopic,
			Crash: func(l eventlog.Log) error {
				opened[l].dead.Store(true) // what is under way now is not acknowledged
				fs = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: random.IntN(101), RNG: random})
				return nil
			},
			Features: eventlogtest.Features{SingleOpen: true},
		}
	})
}

// mortalKV acknowledges nothing once it is dead.
type mortalKV struct {
	kv
	dead atomic.Bool
}

func (m *mortalKV) apply(ops []op, sync bool) error {
	err := m.kv.apply(ops, sync)
	if m.dead.Load() {
		return errors.New("the process is dead")
	}
	return err
}

func asLog(l *Log, err error) (eventlog.Log, error) {
	if err != nil {
		return nil, err
	}
	return l, nil
}

func deleteTopic(ctx context.Context, l eventlog.Log, name string) error {
	return l.(*Log).DeleteTopic(ctx, name)
}
