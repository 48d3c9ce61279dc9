package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/godagger/dagger/eventlog"
)

const branchPlan = `{"name":"Branches","version":1,"nodes":[
	{"path":"both","kind":"parallel","nodes":[{"path":"both/l","kind":"process","nodes":[{"path":"both/l/a","kind":"execute"},{"path":"both/l/b","kind":"execute"}]},{"path":"both/r","kind":"execute","continue":true}]},
	{"path":"pick","kind":"decide","nodes":[{"path":"pick/x","kind":"execute"},{"path":"pick/y","kind":"execute"}]},
	{"path":"race","kind":"parallel","any":true,"nodes":[{"path":"race/p","kind":"execute"},{"path":"race/at","kind":"at"}]},
	{"path":"tick","kind":"every"},
	{"path":"all","kind":"parallel","waitAll":true,"nodes":[{"path":"all/u","kind":"execute"},{"path":"all/v","kind":"execute"}]}]}`

// branches is the history of one instance that goes through every kind of node, fails in the
// last one, is retried and completes.
func branches() history {
	h := history{}
	id := named("b", 0)
	sum := sha256.Sum256([]byte(branchPlan))
	hash := hex.EncodeToString(sum[:8])
	seq := uint64(0)
	add := func(e eventlog.Event) {
		e.V, e.N, e.At = 1, uint64(len(h[0])+1), 1000+10*int64(len(h[0]))
		if e.Type != eventlog.PlanUsed {
			seq++
			e.ID, e.Seq, e.Run = id, seq, 2
		}
		h[0] = append(h[0], &e)
	}
	task := func(typ eventlog.Type, path string, act uint64, starts []eventlog.Start, ends ...eventlog.End) {
		add(eventlog.Event{Type: typ, Path: path, Act: act, Attempt: 1, Starts: starts, Ends: ends})
	}
	start := func(nodes ...string) (l []eventlog.Start) {
		for k := 0; k < len(nodes); k += 2 {
			l = append(l, eventlog.Start{Path: nodes[k], Kind: eventlog.Kind(nodes[k+1])})
		}
		return l
	}
	end := func(path string, kind eventlog.Kind, status string) eventlog.End {
		return eventlog.End{Path: path, Kind: kind, Status: status}
	}
	const done = eventlog.TaskCompleted
	add(eventlog.Event{Type: eventlog.PlanUsed, Plan: hash, PlanData: json.RawMessage(branchPlan)})
	add(eventlog.Event{Type: eventlog.InstanceStarted, Definition: "Branches", Plan: hash, Params: json.RawMessage(`{}`),
		Keys:   []eventlog.TaskKey{{Path: "race/at", Value: "1060"}, {Path: "tick", Value: "20/1115"}},
		Starts: start("both", "parallel", "both/l/a", "execute", "both/r", "execute")})
	task(done, "both/l/a", 1, start("both/l/b", "execute"))
	task(eventlog.TaskFailed, "both/r", 1, nil)
	task(done, "both/l/b", 2, start("pick", "decide"), end("both/l", "process", "COMPLETED"), end("both", "parallel", "COMPLETED"))
	task(done, "pick", 4, start("pick/x", "execute"), end("pick/y", "execute", "SKIPPED"))
	h[0][len(h[0])-1].Choice = "x"
	task(done, "pick/x", 5, start("race", "parallel", "race/p", "execute", "race/at", "at"), end("pick", "decide", "COMPLETED"))
	task(eventlog.AttemptStarted, "race/at", 6, nil) // at 1070
	task(done, "race/at", 6, start("tick", "every"), end("race/p", "execute", "SKIPPED"), end("race", "parallel", "COMPLETED"))
	task(eventlog.EveryContinued, "tick", 8, nil)
	h[0][len(h[0])-1].Due = 1100
	task(eventlog.AttemptStarted, "tick", 9, nil) // at 1100
	task(eventlog.EveryContinued, "tick", 9, nil)
	h[0][len(h[0])-1].Due = 1130
	add(eventlog.Event{Type: done, Path: "tick", Act: 11, Reason: "its end has come", Starts: start("all", "parallel", "all/u", "execute", "all/v", "execute")}) // at 1120
	task(eventlog.TaskFailed, "all/u", 12, nil)
	task(done, "all/v", 12, nil, end("all", "parallel", "FAILURE"))
	add(eventlog.Event{Type: eventlog.InstanceFailed, Path: "all/u", Error: "no"})
	add(eventlog.Event{Type: eventlog.InstanceRetried, Starts: start("all/u", "execute"), Ends: []eventlog.End{end("all", "parallel", "EXECUTING")}})
	task(done, "all/u", 16, nil, end("all", "parallel", "COMPLETED"))
	add(eventlog.Event{Type: eventlog.InstanceCompleted})
	return h
}

func TestBranches(t *testing.T) {
	if err := audit(branches(), true).Err(); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		want  string
		spoil func(h history)
	}{
		{"starts execute both/q, which is not in the plan", func(h history) { h[0][1].Starts[2].Path = "both/q" }},
		{"starts process both/l, which is not in the plan", func(h history) {
			h[0][1].Starts = append(h[0][1].Starts, eventlog.Start{Path: "both/l", Kind: eventlog.Process})
		}},
		{"does not start both/r", func(h history) { h[0][1].Starts = h[0][1].Starts[:2] }},
		{"pick executes, which is not its turn", func(h history) {
			h[0][2].Starts = append(h[0][2].Starts, eventlog.Start{Path: "pick", Kind: eventlog.Decide})
		}},
		{"starts task both/r, which runs", func(h history) {
			h[0][2].Starts = append(h[0][2].Starts, eventlog.Start{Path: "both/r", Kind: eventlog.Execute})
		}},
		{"starts task both/l/a, which has completed", func(h history) {
			h[0][4].Starts = append(h[0][4].Starts, eventlog.Start{Path: "both/l/a", Kind: eventlog.Execute})
		}},
		{"task both/l/a does not run", func(h history) { h[0][3].Path = "both/l/a" }},
		{"task race/p does not run", func(h history) { h[0][9].Path = "race/p" }},
		{"both does not have the status that follows", func(h history) { h[0][4].Ends = h[0][4].Ends[:1] }},
		{"both/l does not end with what is inside", func(h history) { h[0][4].Ends = h[0][4].Ends[1:] }},
		{"both does not have the status that follows", func(h history) { h[0][4].Ends[1].Status = "FAILURE" }},
		{"the unknown status \"DONE\"", func(h history) { h[0][4].Ends[1].Status = "DONE" }},
		{"ends parallel other, which is not in the plan", func(h history) { h[0][4].Ends[1].Path = "other" }},
		{"without an event of its own", func(h history) { h[0][5].Ends[0].Status = "COMPLETED" }},
		{"stops node pick/y, which does not execute", func(h history) { h[0][5].Ends[0].Status = "STOPPED" }},
		{"ends node both/l/a, which has completed", func(h history) {
			h[0][4].Ends = append(h[0][4].Ends, eventlog.End{Path: "both/l/a", Kind: eventlog.Execute, Status: "SKIPPED"})
		}},
		{"ends node pick/y, which was skipped", func(h history) { h[0][6].Ends = append(h[0][6].Ends, h[0][5].Ends...) }},
		{"task pick has no branch \"z\"", func(h history) { h[0][5].Choice = "z" }},
		{"task both/l/a has no branches", func(h history) { h[0][2].Choice = "z" }},
		{"does not start pick/y", func(h history) { h[0][5].Choice = "y"; h[0][5].Ends = nil; h[0][5].Starts = nil }},
		{"pick/x executes, which is not its turn", func(h history) { h[0][5].Choice = "y"; h[0][5].Ends = nil }},
		{"race/at runs at 1070, its time is 1075", func(h history) { h[0][1].Keys[0].Value = "1075" }},
		{"race/at runs without a time", func(h history) { h[0][1].Keys[0].Value = "" }},
		{"race/p executes, which is not its turn", func(h history) { h[0][8].Ends = h[0][8].Ends[1:] }},
		{"starts or ends other nodes", func(h history) {
			h[0][9].Ends = []eventlog.End{{Path: "all/u", Kind: eventlog.Execute, Status: "SKIPPED"}}
		}},
		{"task race/at is no Every", func(h history) { h[0][8].Type = eventlog.EveryContinued; h[0][8].Starts, h[0][8].Ends = nil, nil }},
		{"tick runs at 1100, its time is 1105", func(h history) { h[0][9].Due = 1105 }},
		{"is at 1080, before the event", func(h history) { h[0][9].Due = 1080 }},
		{"the handler of task tick does not run", func(h history) { h[0][10].Type = eventlog.EveryContinued; h[0][10].Attempt = 0 }},
		{"its end \"1125\" has not come", func(h history) { h[0][1].Keys[1].Value = "20/1125" }},
		{"its end \"\" has not come", func(h history) { h[0][1].Keys[1].Value = "20" }},
		{"InstanceFailed of", func(h history) { h[0][15].Type = eventlog.InstanceStopped; h[0][15].Path = "" }},
		{"task all/v has not failed", func(h history) { h[0][15].Path = "all/v" }},
		{"names both/r, which may fail", func(h history) { h[0][15].Path = "both/r" }},
		{"goes on although a task has failed", func(h history) { h[0][16].Starts = nil }},
		{"all does not have the status that follows", func(h history) { h[0][16].Ends = nil }},
		{"InstanceCompleted of", func(h history) { h[0][18].Type = eventlog.InstanceStopped }},
		{"the flow has not come to its end", func(h history) { // both/l/b and both/r still run
			h[0] = h[0][:3]
			h.add(0, eventlog.Event{Type: eventlog.InstanceCompleted, ID: named("b", 0), Seq: 3, Run: 2})
		}},
	} {
		h := branches()
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
