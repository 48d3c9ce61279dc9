package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/godagger/dagger/eventlog"
)

const repeatPlan = `{"name":"Repeats","version":1,"nodes":[
	{"path":"each","kind":"foreach","collect":true,"concurrency":1,"nodes":[{"path":"each[]","kind":"process","nodes":[{"path":"each[]/a","kind":"execute"},{"path":"each[]/b","kind":"execute"}]}]},
	{"path":"pick","kind":"dynamic","nodes":[{"path":"pick[]","kind":"process","nodes":[{"path":"pick[]/x","kind":"process","nodes":[{"path":"pick[]/x/t","kind":"execute"}]},{"path":"pick[]/y","kind":"process","nodes":[{"path":"pick[]/y/t","kind":"execute"}]}]}]},
	{"path":"timed","kind":"process","deadline":20,"nodes":[{"path":"timed/t","kind":"execute"}],"attached":[{"path":"timed@m","kind":"monitor"},{"path":"timed@stop","kind":"onstop"}]},
	{"path":"jump","kind":"execute","goto":"last","gotos":1},
	{"path":"between","kind":"execute"},
	{"path":"last","kind":"process","nodes":[{"path":"last/t","kind":"execute"}],"attached":[{"path":"last@stop","kind":"onstop"}]}]}`

// repeats is the history of one instance through a ForEach, a Dynamic, a deadline and a jump,
// until it is stopped, deleted and started again.
func repeats() history {
	h := history{}
	id := named("r", 0)
	sum := sha256.Sum256([]byte(repeatPlan))
	hash := hex.EncodeToString(sum[:8])
	seq, run := uint64(0), uint64(2)
	add := func(e eventlog.Event) *eventlog.Event {
		e.V, e.N, e.At = 1, uint64(len(h[0])+1), 1000+10*int64(len(h[0]))
		if e.Type != eventlog.PlanUsed {
			seq++
			e.ID, e.Seq, e.Run = id, seq, run
		}
		h[0] = append(h[0], &e)
		return &e
	}
	task := func(typ eventlog.Type, path string, act uint64, starts []eventlog.Start, ends ...eventlog.End) *eventlog.Event {
		return add(eventlog.Event{Type: typ, Path: path, Act: act, Attempt: 1, Starts: starts, Ends: ends})
	}
	start := func(nodes ...string) (l []eventlog.Start) {
		for k := 0; k < len(nodes); k += 2 {
			l = append(l, eventlog.Start{Path: nodes[k], Kind: eventlog.Kind(nodes[k+1])})
		}
		return l
	}
	end := func(path, kind, status string) eventlog.End {
		return eventlog.End{Path: path, Kind: eventlog.Kind(kind), Status: status}
	}
	const done = eventlog.TaskCompleted
	add(eventlog.Event{Type: eventlog.PlanUsed, Plan: hash, PlanData: json.RawMessage(repeatPlan)})
	began := eventlog.Event{Type: eventlog.InstanceStarted, Definition: "Repeats", Plan: hash, Params: json.RawMessage(`{}`),
		Keys: []eventlog.TaskKey{{Path: "timed@m", Value: "1105"}}, Starts: start("each", "foreach")}
	add(began)
	task(done, "each", 1, start("each[0]/a", "execute")).Items = []json.RawMessage{json.RawMessage(`{}`), json.RawMessage(`{}`)}
	task(done, "each[0]/a", 2, start("each[0]/b", "execute"))
	task(done, "each[0]/b", 3, start("each[1]/a", "execute"), end("each[0]", "process", "COMPLETED"))
	task(done, "each[1]/a", 4, start("each[1]/b", "execute"))
	task(done, "each[1]/b", 5, start("each", "foreach"), end("each[1]", "process", "COMPLETED")).Starts[0].Collect = true
	task(done, "each", 6, start("pick", "dynamic"))
	task(done, "pick", 7, start("pick[0]/y/t", "execute")).Choices = []string{"y", "x"}
	task(done, "pick[0]/y/t", 8, start("pick[1]/x/t", "execute"))
	task(done, "pick[1]/x/t", 9, start("timed@m", "monitor", "timed", "process", "timed/t", "execute"), end("pick", "dynamic", "COMPLETED")).Starts[1].Due = 1120 // at 1100
	task(eventlog.AttemptStarted, "timed@m", 10, nil)                                                                                                             // at 1110
	add(eventlog.Event{Type: eventlog.DeadlinePassed, Path: "timed", Act: 10, Starts: start("jump", "execute"),
		Ends: []eventlog.End{end("timed/t", "execute", "SKIPPED"), end("timed@m", "monitor", "SKIPPED")}}) // at 1120
	e := task(eventlog.TaskFailed, "jump", 12, start("last", "process", "last/t", "execute"), end("between", "execute", "SKIPPED"))
	e.Choice, e.Reason = "last", "jump"
	add(eventlog.Event{Type: eventlog.InstanceStopping, Starts: start("last@stop", "onstop"),
		Ends: []eventlog.End{end("last", "process", "STOPPED"), end("last/t", "execute", "STOPPED")}})
	task(done, "last@stop", 14, nil)
	add(eventlog.Event{Type: eventlog.InstanceStopped})
	add(eventlog.Event{Type: eventlog.InstanceDeleted})
	seq, run = 0, uint64(len(h[0])+1)
	add(began)
	return h
}

func TestRepeats(t *testing.T) {
	if err := audit(repeats(), true).Err(); err != nil {
		t.Error(err)
	}
	more := func(path, kind string) eventlog.Start {
		return eventlog.Start{Path: path, Kind: eventlog.Kind(kind)}
	}
	for _, c := range []struct {
		want  string
		spoil func(h history)
	}{
		{"each has too many runs at once", func(h history) { h[0][2].Starts = append(h[0][2].Starts, more("each[1]/a", "execute")) }},
		{"there are 2 items", func(h history) { h[0][2].Starts[0].Path = "each[2]/a" }},
		{"there are 0 items", func(h history) { h[0][2].Items = nil }},
		{"does not begin its next run", func(h history) { h[0][2].Starts = nil }},
		{"starts execute each[0]/c, which is not in the plan", func(h history) { h[0][3].Starts[0].Path = "each[0]/c" }},
		{"does not start each[0]/b", func(h history) { h[0][3].Starts = nil }},
		{"each does not end with what is inside", func(h history) { h[0][4].Ends = nil }},
		{"ends each[7], which is no run", func(h history) { h[0][4].Ends[0].Path = "each[7]" }},
		{"ends each[0], which has ended", func(h history) { h[0][6].Ends[0].Path = "each[0]" }},
		{"each completes without the handler of its items", func(h history) {
			h[0][6].Starts, h[0][6].Ends = nil, append(h[0][6].Ends, eventlog.End{Path: "each", Kind: eventlog.ForEach, Status: "COMPLETED"})
		}},
		{"each completes, and a run of it has not", func(h history) {
			h[0][5].Starts, h[0][5].Ends = nil, append(h[0][5].Ends, eventlog.End{Path: "each", Kind: eventlog.ForEach, Status: "COMPLETED"})
		}},
		{"starts task each, which runs", func(h history) { h[0][6].Starts[0].Collect = false }},
		{"task pick has no runs", func(h history) { h[0][8].Items, h[0][8].Choices = h[0][2].Items, nil }},
		{"task pick has no process \"z\"", func(h history) { h[0][8].Choices[1] = "z" }},
		{"starts pick[0]/y/t, which was not chosen", func(h history) { h[0][8].Choices[0] = "x" }},
		{"starts pick[1]/x/t, which was not chosen", func(h history) { h[0][8].Choices = h[0][8].Choices[:1] }},
		{"does not start pick[1]/x/t", func(h history) { h[0][9].Starts = nil }},
		{"timed does not have the status that follows", func(h history) { h[0][10].Starts = append(h[0][10].Starts[:1], h[0][10].Starts[2:]...) }},
		{"timed@m runs at 1110, its time is 1115", func(h history) { h[0][1].Keys[0].Value = "1115" }},
		{"the deadline of timed passed at 1120, its time is 1125", func(h history) { h[0][10].Starts[1].Due = 1125 }},
		{"does not end with its deadline as it should", func(h history) { h[0][12].Error = "late" }},
		{"activation 9 of timed", func(h history) { h[0][12].Act = 9 }},
		{"goes on at between, which jump does not say", func(h history) { h[0][13].Choice = "between" }},
		{"goes on at last, which between does not say", func(h history) { h[0][13].Reason = "between" }},
		{"forgets between, which the flow does not come to again", func(h history) { h[0][13].Choice = ""; h[0][13].Ends[0].Status = "NOT_STARTED" }},
		{"starts last@stop, and nothing is stopped", func(h history) { h[0][13].Starts = append(h[0][13].Starts, more("last@stop", "onstop")) }},
		{"task last/t executes in an instance that is being stopped", func(h history) { h[0][14].Ends = h[0][14].Ends[:1] }},
		{"the instance is being stopped", func(h history) { h[0][15].Type, h[0][15].Path = eventlog.InstanceStopping, "" }},
		{"InstanceStopped of", func(h history) { h[0][16].Type = eventlog.InstanceCompleted }},
		{"the instance has not ended", func(h history) { h[0][13].Type, h[0][13].Choice, h[0][13].Starts = eventlog.InstanceDeleted, "", nil }},
		{"the instance has ended", func(h history) { h[0][17].Type = eventlog.InstanceStopped }},
		{"seq 18 follows seq 0", func(h history) { h[0][18].Seq = 18 }},
		{"task last executes", func(h history) { h[0][14].Type, h[0][14].Starts, h[0][14].Ends = eventlog.FlowEnded, nil, nil }},
		{"InstanceFailed: fails, and it is being stopped", func(h history) { h[0][15].Type, h[0][15].Path = eventlog.InstanceFailed, "" }},
		{"task jump does not skip", func(h history) { h[0][13].Type, h[0][13].Choice = eventlog.SkippedTo, "" }},
	} {
		h := repeats()
		c.spoil(h)
		found := false
		r := audit(h, true)
		for _, v := range r.First {
			found = found || strings.Contains(v.Text, c.want)
		}
		if !found {
			t.Errorf("want a violation with %q, have %v", c.want, r.First)
		}
	}
}
