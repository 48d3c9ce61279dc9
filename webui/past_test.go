package webui

import (
	"encoding/json"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godagger/dagger/workflow"
	"github.com/godagger/dagger/workflowtest"
)

// TestPast asks for what was, rightly and wrongly.
func TestPast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := true
		def := shop(&closed)
		kit := workflowtest.New(t, def)
		x := &transcript{t: t, h: New(kit.Engine, Options{ReadOnly: true})}
		const instances = "/api/v1/instances"
		workflowtest.Start(kit, def, "order-1", pizza{OrderID: "1"})
		kit.Advance(time.Minute)
		one := url.QueryEscape(time.Now().UTC().Format(time.RFC3339Nano))
		kit.Advance(time.Second)
		workflowtest.Start(kit, def, "order-2", pizza{OrderID: "2"})
		kit.Deliver("ready", ready{OrderID: "1"})
		kit.Advance(time.Minute)

		x.get(instances + "/order-1?at=" + one)
		x.get(instances + "/order-1?at=90s")
		x.get(instances + "/order-1?at=now")
		x.get(instances + "/order-1/diff?from=" + one)
		x.get(instances + "/order-2/diff?from=" + one + "&to=now")
		x.get(instances + "/order-1/diff?from=now")
		x.get(instances + "/order-1/history")
		x.get(instances + "/order-1/history?at=" + one)
		x.get(instances + "?at=" + one)
		x.get("/api/v1/counts?at=" + one)
		x.get("/api/v1/counts")
		x.get("/api/v1/counts?definition=Pizza&status=FAILURE")

		x.get(instances + "/order-2?at=" + one)
		x.get(instances + "/order-2/history?at=" + one)
		x.get(instances + "/order-3/diff?from=" + one)
		x.get(instances + "/order-1/diff")
		x.get(instances + "/order-1/diff?from=yesterday")
		x.get(instances + "/order-1/history?at=offset:-1")
		x.get(instances + "/order-1?when=now")
		x.get(instances + "?at=117")
		x.get("/api/v1/counts?at=")
		x.get("/api/v1/counts?status=HAPPY")
		x.get("/api/v1/counts?prefix=order")
		x.compare("past.txt")
	})
}

// TestPastPages: the pages of a moment have what there was then, each instance once; for a minute
// the log is folded once for all of them.
func TestPastPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := true
		def := shop(&closed)
		kit := workflowtest.New(t, def)
		s := newPast(&server{eng: kit.Engine})
		x := &transcript{t: t, h: New(kit.Engine, Options{})}
		for _, id := range []string{"a", "b", "c", "d", "e"} {
			workflowtest.Start(kit, def, id, pizza{OrderID: id})
		}
		kit.Advance(time.Minute)
		then := time.Now().UTC().Format(time.RFC3339Nano)
		kit.Advance(time.Second)
		workflowtest.Start(kit, def, "f", pizza{OrderID: "f"})
		seen, at, cursor := map[string]bool{}, then, ""
		for {
			var p page
			w := x.get("/api/v1/instances?limit=2&at=" + url.QueryEscape(at) + "&cursor=" + url.QueryEscape(cursor))
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.At == "" {
				t.Fatalf("%v: %s", err, w.Body)
			}
			for _, i := range p.Instances {
				if seen[i.ID] {
					t.Errorf("%s twice", i.ID)
				}
				seen[i.ID] = true
			}
			if at, cursor = p.At, p.Cursor; cursor == "" {
				break
			}
		}
		if len(seen) != 5 || seen["f"] {
			t.Errorf("seen: %v", seen)
		}

		m := workflow.AtTime(time.Now())
		fold := func(text string) *workflow.Fleet {
			f, _, err := s.fleets.get(t.Context(), kit.Engine, text, m)
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
		first := fold(then)
		if fold(then) != first {
			t.Error("the log was folded again")
		}
		if fold("0s") == first {
			t.Error("a moment that is relative to now was not folded again")
		}
		first = fold(then)
		kit.Advance(keepFleet)
		if s.fleets.fleet != nil || fold(then) == first {
			t.Error("the instances stayed in memory")
		}
	})
}
