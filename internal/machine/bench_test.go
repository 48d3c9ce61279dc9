package machine

import (
	"encoding/json"
	"strconv"
	"testing"

	"github.com/godagger/dagger/eventlog"
)

// BenchmarkThreeTasks decides and folds whole instances: a start and three results, each in
// a turn of its own.
func BenchmarkThreeTasks(b *testing.B) {
	task := func(path string) Node { return Node{Path: path, Kind: eventlog.Execute} }
	benchmarkInstances(b, []Node{task("a"), task("b"), task("c")}, nil, nil)
}

// BenchmarkThreeTasksParameters has handlers that change the parameters, and a listener
// after them.
func BenchmarkThreeTasksParameters(b *testing.B) {
	task := func(path string) Node { return Node{Path: path, Kind: eventlog.Execute} }
	keys := []eventlog.TaskKey{{Path: "wait", Value: "k"}}
	benchmarkInstances(b, []Node{task("a"), task("b"), task("c"), {Path: "wait", Kind: eventlog.Listen, Topic: "in", Key: "k"}},
		json.RawMessage(`{"state":"changed"}`), keys)
}

func benchmarkInstances(b *testing.B, nodes []Node, patch json.RawMessage, keys []eventlog.TaskKey) {
	w := newWorld(1)
	plan, err := NewPlan("Bench", 1, nodes)
	if err != nil {
		b.Fatal(err)
	}
	w.addPlan(plan)
	s := NewState(0, 1)
	offset := int64(0)
	turn := func(r eventlog.Request) {
		t := w.newTurn(s)
		t.Decide(&r)
		for {
			local, ok := t.NextLocal()
			if !ok {
				break
			}
			t.Decide(&local)
		}
		offset++
		t.Close(Position{TopicID: "requests", Offset: offset})
	}
	b.ReportAllocs()
	for k := range b.N {
		id := "order-" + strconv.Itoa(k)
		turn(eventlog.Request{Type: eventlog.StartInstance, ID: id, Definition: "Bench", Params: json.RawMessage(`{"order":"1","customer":"7","state":"new"}`),
			Request: id, Made: w.now, HasKeys: true, Keys: keys})
		i := s.Instances[id]
		for n := range 3 {
			turn(eventlog.Request{Type: eventlog.Result, ID: id, Run: i.Run, Path: nodes[n].Path, Act: i.Tasks[n].Act, Attempt: 1, OK: true, Params: patch, Base: i.ParamsSeq, HasKeys: true, Keys: keys})
		}
		if k%256 == 255 { // as an owner evicts what has been stored
			clear(s.Instances)
			s.ForgetChanged()
			clear(s.Keys)
		}
	}
}
