package audit

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/godagger/dagger/eventlog"
)

const jumpPlan = `{"name":"Jumps","version":1,"nodes":[
	{"path":"try","kind":"execute","goto":"try","gotos":2},
	{"path":"job","kind":"listen","topic":"jobs","key":"kind","one":true}]}`

// jumps is the history of an instance that goes back twice, fails, is retried, and waits for
// a message that it would take alone.
func jumps() history {
	sum := sha256.Sum256([]byte(jumpPlan))
	h, id, hash := history{}, named("j", 0), hex.EncodeToString(sum[:8])
	key := eventlog.KeyRef{Topic: "jobs", Key: "kind", Value: named("v", 0)}
	again := eventlog.Event{Type: eventlog.TaskFailed, Path: "try", Attempt: 1, Choice: "try", Reason: "try",
		Starts: []eventlog.Start{{Path: "try", Kind: eventlog.Execute}}, Ends: []eventlog.End{{Path: "try", Kind: eventlog.Execute, Status: "NOT_STARTED"}}}
	for k, e := range []eventlog.Event{
		{Type: eventlog.PlanUsed, Plan: hash, PlanData: json.RawMessage(jumpPlan)},
		{Type: eventlog.InstanceStarted, Definition: "Jumps", Plan: hash, Params: json.RawMessage(`{}`),
			Keys: []eventlog.TaskKey{{Path: "job", Value: key.Value}}, Starts: []eventlog.Start{{Path: "try", Kind: eventlog.Execute}}},
		again,
		again,
		{Type: eventlog.TaskFailed, Path: "try", Attempt: 1},
		{Type: eventlog.InstanceFailed, Path: "try"},
		{Type: eventlog.InstanceRetried, Starts: []eventlog.Start{{Path: "try", Kind: eventlog.Execute}}},
		{Type: eventlog.TaskCompleted, Path: "try", Attempt: 1, Starts: []eventlog.Start{{Path: "job", Kind: eventlog.Listen}}, Subs: []eventlog.KeyRef{key}},
		{Type: eventlog.SubscriptionAdded, ID: id, Run: 2, Act: 7, Topic: key.Topic, Key: key.Key, Value: key.Value, Sole: true},
	} {
		e.V, e.N, e.At = 1, uint64(k+1), 1000+10*int64(k)
		if k > 0 && k < 8 {
			e.ID, e.Seq, e.Run = id, uint64(k), 2
		}
		if e.Path != "" && e.Type != eventlog.InstanceFailed {
			e.Act = map[int]uint64{2: 1, 3: 2, 4: 3, 7: 6}[k]
		}
		h[0] = append(h[0], &e)
	}
	return h
}

func TestJumps(t *testing.T) {
	if err := audit(jumps(), true).Err(); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		want  string
		spoil func(h history)
	}{
		{"goes on elsewhere 3 times when try has failed, and may 2 times", func(h history) {
			h[0][4].Choice, h[0][4].Reason, h[0][4].Starts, h[0][4].Ends = "try", "try", h[0][3].Starts, h[0][3].Ends
		}},
		{"no listener that takes messages alone was reached", func(h history) { h[0][6].Subs, h[0][7].Subs = h[0][7].Subs, nil }},
		{"task job did not fail", func(h history) { h[0][6].Starts[0].Path = "job"; h[0][6].Starts[0].Kind = eventlog.Listen }},
	} {
		h := jumps()
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
