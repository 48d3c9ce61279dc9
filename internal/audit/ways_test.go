package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/godagger/dagger/eventlog"
)

// recorded is a log that a version of the machine wrote, all partitions, and how many there are.
func recorded(t *testing.T, file string) (h history, partitions int32) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	h = history{}
	for lines := bufio.NewReader(bytes.NewReader(data)); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return h, partitions
		}
		var r struct {
			Partition  int32           `json:"partition"`
			Event      json.RawMessage `json:"event"`
			Partitions int32           `json:"partitions"`
		}
		if err := json.Unmarshal(line, &r); err != nil {
			t.Fatal(err)
		}
		if r.Event == nil {
			partitions = r.Partitions
			continue
		}
		var e eventlog.Event
		if err := eventlog.DecodeEvent(r.Event, &e); err != nil {
			t.Fatal(err)
		}
		h[r.Partition] = append(h[r.Partition], &e)
	}
}

func auditAll(h history, partitions int32) Report {
	a := New(partitions, Options{})
	for p := range partitions {
		for k, e := range h[p] {
			a.Event(p, int64(k), e)
		}
	}
	return a.Finish()
}

const goldenLogs = "../machine/testdata/golden/"

// TestRecorded audits what earlier versions of the machine wrote.
func TestRecorded(t *testing.T) {
	files, err := filepath.Glob(goldenLogs + "*.jsonl")
	if err != nil || len(files) < 20 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		h, partitions := recorded(t, file)
		if err := auditAll(h, partitions).Err(); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func hashOf(plan string) string {
	sum := sha256.Sum256([]byte(plan))
	return hex.EncodeToString(sum[:8])
}

// nearPlan has a node in another that both say where the flow goes.
const nearPlan = `{"name":"Near","version":1,"nodes":[
	{"path":"P","kind":"process","goto":"end","gotos":1,"nodes":[{"path":"P/a","kind":"execute","goto":"P/b","gotos":1},{"path":"P/b","kind":"execute"}]},
	{"path":"end","kind":"execute"}]}`

// TestWays spoils, in logs that the machine wrote, where the flow goes after a failure, a
// deadline, a skip or a listener that works again.
func TestWays(t *testing.T) {
	none := func(e *eventlog.Event) { e.Starts, e.Ends = nil, nil }
	without := func(e *eventlog.Event, path string) {
		for k, x := range e.Ends {
			if x.Path == path {
				e.Ends = append(e.Ends[:k:k], e.Ends[k+1:]...)
				return
			}
		}
		t.Errorf("event %d does not end %s", e.N, path)
	}
	start := func(path string, kind eventlog.Kind) []eventlog.Start {
		return []eventlog.Start{{Path: path, Kind: kind}}
	}
	for _, c := range []struct {
		log, want string
		n         int
		spoil     func(e *eventlog.Event)
	}{
		{"goto", "Pay/ask has failed, and the flow does not go on at Cancel", 4, func(e *eventlog.Event) { e.Choice, e.Reason = "", ""; none(e) }},
		{"goto", "goes on where Try/check says, which has not failed", 14, func(e *eventlog.Event) { e.Type = eventlog.TaskCompleted }},
		{"goto", "goes on at Ship, which Pay/ask does not say", 4, func(e *eventlog.Event) { e.Choice = "Ship" }},
		{"goto", "which is not around it", 24, func(e *eventlog.Event) { e.Path = "both/right" }},
		{"goto", "does not start Cancel/tell, the next task", 4, func(e *eventlog.Event) { e.Starts = nil }},
		{"goto", "Ship/pack executes, which is not its turn", 4, func(e *eventlog.Event) {
			e.Starts = append(e.Starts, start("Ship/pack", eventlog.Execute)...)
			e.Ends = nil
		}},
		{"goto", "both/right executes, which is not its turn", 24, func(e *eventlog.Event) { without(e, "both/right") }},
		{"goto", "both executes, and the flow has passed over it", 24, func(e *eventlog.Event) { without(e, "both") }},
		{"goto", "forgets Try/a, which the flow does not come to again", 14, func(e *eventlog.Event) {
			e.Ends = append(e.Ends, eventlog.End{Path: "Try/a", Kind: eventlog.Execute, Status: "NOT_STARTED"})
		}},
		{"goto", "remembers Try/both/x, which the flow comes to again", 14, func(e *eventlog.Event) { without(e, "Try/both/x") }},
		{"goto", "does not start Try/both/y, the next task", 14, func(e *eventlog.Event) { e.Starts = e.Starts[:2] }},
		{"goto", "the flow has not come to its end", 5, func(e *eventlog.Event) { e.Type, e.Path = eventlog.InstanceCompleted, ""; none(e) }},
		{"goto", "starts or ends other nodes", 5, func(e *eventlog.Event) { e.Type, e.Path = eventlog.FlowEnded, "" }},
		{"goto", "InstanceCompleted of", 30, func(e *eventlog.Event) { e.Type = eventlog.InstanceStopped }},
		{"gotoback", "does not start P, which the flow goes back into", 5, func(e *eventlog.Event) { e.Starts = e.Starts[1:] }},
		{"gotoback", "remembers P/c, which the flow comes to again", 9, func(e *eventlog.Event) { without(e, "P/c") }},
		{"gotoback", "nothing watches P", 12, func(e *eventlog.Event) { e.Starts = e.Starts[:2] }},
		{"deadline", "Do/b executes, which is not its turn", 5, func(e *eventlog.Event) { without(e, "Do/b") }},
		{"deadline", "does not start last, the next task", 5, func(e *eventlog.Event) { e.Starts = nil }},
		{"deadline", "InstanceCompleted of", 8, func(e *eventlog.Event) { e.Type = eventlog.InstanceStopped }},
		{"deadline", "InstanceFailed of", 15, func(e *eventlog.Event) { e.Type, e.Path = eventlog.InstanceStopped, "" }},
		{"skipto", "task Pay/paid does not skip", 8, func(e *eventlog.Event) { e.Path = "Pay/paid" }},
		{"skipto", "for which it has no message 99", 8, func(e *eventlog.Event) { e.Msg = 99 }},
		{"skipto", "while its key is being computed", 7, func(e *eventlog.Event) { e.Evaluate = true }},
		{"skipto", "skips to Ship/sent, which was reached", 9, func(e *eventlog.Event) { e.Type = eventlog.SkippedTo }},
		{"skipto", "skips to Ship, where the flow is", 22, func(e *eventlog.Event) {
			e.Type, e.Path, e.Msg, e.Act = eventlog.SkippedTo, "Ship/sent", 19, 0
			none(e)
		}},
		{"skipto", "skips into choose, where nothing was chosen", 39, func(e *eventlog.Event) {
			e.Type, e.Path, e.Msg, e.Starts = eventlog.SkippedTo, "choose/left/sent", 37, start("choose/left/sent", eventlog.Listen)
		}},
		{"skipto", "skips to choose/left/sent, which the flow does not come to", 40, func(e *eventlog.Event) {
			e.Choice, e.Starts, e.Ends = "right", start("choose/right", eventlog.Execute), nil
		}},
		{"skipto", "Pay/ask executes", 8, func(e *eventlog.Event) { without(e, "Pay/ask") }},
		{"skipto", "does not start Ship/pack, the next task", 21, func(e *eventlog.Event) { e.Starts = nil }},
		{"skipto", "does not start both/right, the next task", 32, func(e *eventlog.Event) { e.Starts = append(e.Starts[:1:1], e.Starts[2]) }},
		{"reprocess", "FlowEnded of", 15, func(e *eventlog.Event) { e.Type = eventlog.InstanceCompleted }},
		{"reprocess", "task work executes", 14, func(e *eventlog.Event) { e.Type, e.Path = eventlog.FlowEnded, "" }},
		{"reprocess", "InstanceCompleted of", 19, func(e *eventlog.Event) { e.Type = eventlog.InstanceStopped }},
		{"reprocess", "InstanceFailed of", 28, func(e *eventlog.Event) { e.Type, e.Path = eventlog.InstanceStopped, "" }},
		{"monitor", "nothing watches Do", 3, func(e *eventlog.Event) { e.Starts = e.Starts[1:] }},
		{"monitor", "Do is watched, and it does not execute", 13, func(e *eventlog.Event) { without(e, "Do@alarm") }},
	} {
		h, partitions := recorded(t, goldenLogs+c.log+".jsonl")
		c.spoil(h[0][c.n-1])
		report(t, c.log, c.n, c.want, auditAll(h, partitions))
	}
}

// TestNearer lets the flow go where a node says although one inside it says otherwise.
func TestNearer(t *testing.T) {
	hash := hashOf(nearPlan)
	h := func(reason, to, starts string, ends ...string) history {
		h := history{}
		id := named("n", 0)
		failed := eventlog.Event{Type: eventlog.TaskFailed, ID: id, Seq: 2, Run: 2, Path: "P/a", Act: 1, Attempt: 1, Reason: reason, Choice: to,
			Starts: []eventlog.Start{{Path: starts, Kind: eventlog.Execute}}}
		for k := 0; k < len(ends); k += 2 {
			failed.Ends = append(failed.Ends, eventlog.End{Path: ends[k], Kind: eventlog.Kind(ends[k+1]), Status: "SKIPPED"})
		}
		for k, e := range []eventlog.Event{
			{Type: eventlog.PlanUsed, Plan: hash, PlanData: json.RawMessage(nearPlan)},
			{Type: eventlog.InstanceStarted, ID: id, Seq: 1, Run: 2, Definition: "Near", Plan: hash, Params: json.RawMessage(`{}`), Starts: []eventlog.Start{{Path: "P/a", Kind: eventlog.Execute}}},
			failed,
		} {
			e.V, e.N, e.At = 1, uint64(k+1), 1000
			h[0] = append(h[0], &e)
		}
		return h
	}
	if err := audit(h("P/a", "P/b", "P/b"), false).Err(); err != nil {
		t.Error(err)
	}
	report(t, "near", 3, "goes on where P says, and P/a is nearer", audit(h("P", "end", "end", "P/b", "execute"), false))
}

// report expects a violation.
func report(t *testing.T, log string, n int, want string, r Report) {
	t.Helper()
	for _, v := range r.First {
		if strings.Contains(v.Text, want) {
			return
		}
	}
	t.Errorf("%s, event %d spoilt: want a violation with %q, have %v", log, n, want, r.First)
}
