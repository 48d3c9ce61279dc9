package workflow

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"

	_ "github.com/godagger/dagger/eventlog/embedlog"
	_ "github.com/godagger/dagger/projection/memstore"
)

// TestUpdatesTopic: what can't be an updates topic is refused before anything starts.
func TestUpdatesTopic(t *testing.T) {
	for topic, want := range map[string]string{
		"updates.events":      "is one of the engine's own",
		"updates.requests":    "is one of the engine's own",
		"updates.definitions": "is one of the engine's own",
		"updates.deadletter":  "is one of the engine's own",
		"no spaces":           "UpdatesTopic \"no spaces\" has ' '",
		"..":                  `UpdatesTopic is ".."`,
	} {
		eng, err := Open(t.Context(), Config{Log: "mem:?app=updates", UpdatesTopic: topic, Logger: slog.New(slog.DiscardHandler)})
		if err == nil {
			eng.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", topic, err)
		}
	}
	eng, err := Open(t.Context(), Config{Log: "mem:?app=updates", UpdatesTopic: "task_update_topic", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	if _, err := eng.Log().Topic(t.Context(), "task_update_topic"); err != nil {
		t.Errorf("it was not created: %v", err)
	}
	type p struct{ A string }
	loop := New("Loop", Process("P", Command("c", "task_update_topic", func(context.Context, *p) (p, error) { return p{}, nil })))
	if err := eng.Register(loop); err == nil || !strings.Contains(err.Error(), "task_update_topic is one of the engine's own") {
		t.Errorf("Register of what sends there: %v", err)
	}
}

// TestStartByName: the parameters are checked against the definition's type.
func TestStartByName(t *testing.T) {
	eng, err := Open(t.Context(), Config{Log: "mem:?app=byname", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer eng.Close()
	type order struct {
		N int `json:"n"`
	}
	def := New("Order", Process("P", Execute("e", func(context.Context, *order) error { return nil })))
	if _, _, err := eng.Start(t.Context(), "Order", "", nil); !errors.Is(err, ErrNotRegistered) {
		t.Errorf("not registered: %v", err)
	}
	if err := eng.Register(def.Version(2), def); err != nil {
		t.Fatal(err)
	}
	for params, fits := range map[string]bool{"": true, `{"n":7}`: true, `{"n":"7"}`: false, `null`: false, `[]`: false, `{`: false, `{"other":1}`: true} {
		id, _, err := eng.Start(t.Context(), "Order", "", json.RawMessage(params))
		if fits != (err == nil) || !fits && !errors.Is(err, ErrParameters) || fits && id == "" {
			t.Errorf("%s: %q %v", params, id, err)
		}
	}
	if v := eng.newest["Order"].version; v != 2 {
		t.Errorf("version %d is started", v)
	}
}
