package engine

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
)

func TestTimeline(t *testing.T) {
	log, store := memLog(t), memStore(t)
	ordersDone(t, log, store)
	tl, err := ReadTimeline(t.Context(), log, nil, "i-02", Point{})
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	waited := 0
	for _, s := range tl.Steps {
		have = append(have, string(s.Type)+" "+s.By)
		if s.Seq > 0 && s.Worker == "" {
			t.Errorf("%s: no worker", s.Type)
		}
		for _, x := range s.Spans {
			if x.Duration(s.At) < 0 || x.To.After(s.At) {
				t.Errorf("%s: %+v", s.Type, x)
			}
			if strings.HasPrefix(x.What, "waited for a message on ") && strings.HasSuffix(x.What, "=o-2") {
				waited++
			}
		}
	}
	if len(have) == 0 || have[0] != "InstanceStarted call" || have[len(have)-1] != "InstanceCompleted engine" {
		t.Errorf("steps: %s", have)
	}
	if waited != 1 {
		t.Errorf("it waited %d times for its message: %+v", waited, tl.Steps)
	}
	if len(tl.Open) > 0 {
		t.Errorf("still open: %+v", tl.Open)
	}
	if tl, err = ReadTimeline(t.Context(), log, nil, "i-03", Point{}); err != nil || len(tl.Open) != 1 || !tl.Open[0].To.IsZero() {
		t.Errorf("an instance that waits: %+v, %v", tl, err)
	}
	if _, err := ReadTimeline(t.Context(), log, nil, "nobody", Point{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("nobody: %v", err)
	}
	all, err := ReadEventsBetween(t.Context(), log, nil, "i-02", AtEvent(0), Point{})
	if err != nil || len(all) < len(tl.Steps) || all[0].Type != eventlog.InstanceStarted {
		t.Errorf("events: %d, %v", len(all), err)
	}
	tail, err := ReadEventsBetween(t.Context(), log, nil, "i-02", AtEvent(all[0].N), AtEvent(all[2].N))
	if err != nil || len(tail) != 2 || tail[0].N != all[1].N {
		t.Errorf("events between: %d, %v", len(tail), err)
	}
}

func TestChanges(t *testing.T) {
	from := `{"id":"a","status":"EXECUTING","tasks":[{"path":"P/a","status":"EXECUTING"},{"path":"P/b","status":"COMPLETED"}],"params":{"n":9007199254740993,"gone":true}}`
	to := `{"id":"a","status":"COMPLETED","tasks":[{"path":"P/b","status":"COMPLETED"},{"path":"P/c","status":"EXECUTING"}],"params":{"n":9007199254740995,"new":[1]}}`
	var have []string
	for _, c := range Changes([]byte(from), []byte(to)) {
		have = append(have, c.String())
	}
	want := []string{
		`- params.gone: true`,
		`~ params.n: 9007199254740993 -> 9007199254740995`,
		`+ params.new: [1]`,
		`~ status: "EXECUTING" -> "COMPLETED"`,
		`- tasks[P/a]: {"path":"P/a","status":"EXECUTING"}`,
		`+ tasks[P/c]: {"path":"P/c","status":"EXECUTING"}`,
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Error(diff)
	}
	if l := Changes([]byte(`{"a":1}`), []byte("\x00")); len(l) != 1 {
		t.Errorf("no JSON: %v", l)
	}
	if l := Changes(nil, []byte(`{"a":1}`)); len(l) != 1 || l[0].String() != `+ a: 1` {
		t.Errorf("nothing before: %v", l)
	}
}
