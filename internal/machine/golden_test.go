package machine

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/audit"
)

var addGolden = flag.Bool("golden", false, "record the histories of scenarios that have none yet")

// recorded is an event of a golden log, as it was appended.
type recorded struct {
	Partition int32           `json:"partition"`
	Event     json.RawMessage `json:"event"`
}

// ends is the last line of a golden log: what its events came to, for each partition.
type ends struct {
	Partitions int32             `json:"partitions"`
	Instances  []json.RawMessage `json:"instances"`
	Keys       []json.RawMessage `json:"keys"`
}

// TestGoldenLogs folds histories that earlier versions recorded, one of each scenario, and so of
// each kind of node. What they come to must never change: a fold that does otherwise needs a new
// version of the event. The auditor must have nothing against them. -golden adds those of new
// scenarios; none is ever written again.
func TestGoldenLogs(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\npoison ") {
			continue // folds that panic on purpose
		}
		golden := filepath.Join("testdata", "golden", name+".jsonl")
		data, err := os.ReadFile(golden)
		switch {
		case os.IsNotExist(err) && *addGolden:
			s := &scenario{t: t, seen: &seen{events: map[eventlog.Type]int{}, answers: map[string]int{}}, letters: map[int]bool{}}
			s.play(string(text))
			if err := os.WriteFile(golden, encodeGolden(t, int32(len(s.w.parts)), s.history), 0o666); err != nil {
				t.Fatal(err)
			}
			continue
		case err != nil:
			t.Errorf("%v: run the test with -golden to record it", err)
			continue
		}
		var history []recorded
		var want ends
		lines := bufio.NewScanner(bytes.NewReader(data))
		lines.Buffer(nil, 1<<24)
		for lines.Scan() {
			var r recorded
			if mustUnmarshal(lines.Text(), &r); len(r.Event) > 0 {
				history = append(history, r)
			} else {
				mustUnmarshal(lines.Text(), &want)
			}
		}
		got := replay(t, want.Partitions, history)
		judge := audit.New(want.Partitions, audit.Options{})
		for k, r := range history {
			judge.Record(r.Partition, int64(k), r.Event)
		}
		if err := judge.Finish().Err(); err != nil {
			t.Errorf("%s: %v", golden, err)
		}
		if diff := cmp.Diff(mustMarshal(want), mustMarshal(got)); diff != "" || len(history) == 0 {
			t.Errorf("%s: %d events (-recorded +folded now):\n%s", golden, len(history), diff)
		}
	}
}

// replay folds a history from nothing.
func replay(t *testing.T, partitions int32, history []recorded) ends {
	t.Helper()
	states := make([]*State, partitions)
	for k := range states {
		states[k] = NewState(int32(k), partitions)
	}
	for _, r := range history {
		var e eventlog.Event
		if err := eventlog.DecodeEvent(r.Event, &e); err != nil {
			t.Fatal(err)
		}
		if err := states[r.Partition].Evolve(&e); err != nil {
			t.Fatal(err)
		}
	}
	x := ends{Partitions: partitions}
	for _, s := range states {
		instances, keys := map[string]*Instance{}, map[string]*KeyState{}
		for id, i := range s.Instances {
			if i != nil {
				instances[id] = i
			}
		}
		for ref, k := range s.Keys {
			if len(k.Waiters)+len(k.Kept) > 0 {
				keys[fmt.Sprint(ref.Topic, " ", ref.Key, "=", ref.Value)] = k
			}
		}
		x.Instances = append(x.Instances, json.RawMessage(mustMarshal(instances)))
		x.Keys = append(x.Keys, json.RawMessage(mustMarshal(keys)))
	}
	return x
}

func encodeGolden(t *testing.T, partitions int32, history []recorded) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, r := range history {
		b.WriteString(mustMarshal(r) + "\n")
	}
	b.WriteString(mustMarshal(replay(t, partitions, history)) + "\n")
	return b.Bytes()
}
