package workflow

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// Start is Definition.Start for callers that do not have the Go type of the parameters, such as an
// HTTP API. It takes the definition's name and the parameters as JSON; none are {}. If several
// versions of the definition are registered, it starts the highest. It returns the id, which is
// made up if id is "", and whether this call started the instance: if one with the id exists,
// nothing happens, started is false, and the error is nil. ErrNotRegistered: the engine does not
// have the definition. ErrParameters: the parameters do not fit its type.
func (e *Engine) Start(ctx context.Context, definition, id string, params json.RawMessage) (idOut string, started bool, err error) {
	e.mu.Lock()
	t, names := e.newest[definition], slices.Sorted(maps.Keys(e.newest))
	e.mu.Unlock()
	if t == nil {
		return id, false, fmt.Errorf("start %s: %w; this engine has %s", definition, ErrNotRegistered, cmp.Or(strings.Join(names, ", "), "none"))
	}
	c, err := t.compile()
	if err != nil {
		return id, false, err
	}
	if id == "" {
		id = newID()
	}
	if len(params) == 0 {
		params = json.RawMessage("{}")
	}
	if string(bytes.TrimSpace(params)) == "null" { // which JSON would take for an object of any type
		return id, false, fmt.Errorf("start %s: %w: they are null, not a JSON object", definition, ErrParameters)
	}
	if err := json.Unmarshal(params, reflect.New(t.params).Interface()); err != nil {
		return id, false, fmt.Errorf("start %s: %w %v: %v", definition, ErrParameters, t.params, err)
	}
	encoded, keys, err := c.start(id, params)
	if err != nil {
		return id, false, fmt.Errorf("start %s: %w", definition, err)
	}
	a, err := e.call(ctx, &eventlog.Request{
		Type: eventlog.StartInstance, ID: id, Definition: definition, Plan: c.code.Plan.Hash(),
		Params: encoded, Keys: keys, HasKeys: true, Trace: e.traceOf(ctx),
	})
	if err != nil {
		return id, false, fmt.Errorf("start %s: %w", definition, err)
	}
	return id, a.Answer != machine.Exists, nil
}

// Stop is Handle.Stop for an id.
func (e *Engine) Stop(ctx context.Context, id, reason string) error {
	return e.byID(ctx, eventlog.StopInstance, "stop", id, reason)
}

// Retry is Handle.Retry for an id.
func (e *Engine) Retry(ctx context.Context, id, reason string) error {
	return e.byID(ctx, eventlog.RetryInstance, "retry", id, reason)
}

// Delete is Handle.Delete for an id.
func (e *Engine) Delete(ctx context.Context, id, reason string) error {
	return e.byID(ctx, eventlog.DeleteInstance, "delete", id, reason)
}

func (e *Engine) byID(ctx context.Context, t eventlog.RequestType, verb, id, reason string) error {
	if _, err := e.call(ctx, &eventlog.Request{Type: t, ID: id, Reason: reason}); err != nil {
		return fmt.Errorf("%s %s: %w", verb, id, err)
	}
	return nil
}

// Events is Handle.Events for an id.
func (e *Engine) Events(ctx context.Context, id string) iter.Seq2[*eventlog.Event, error] {
	return func(yield func(*eventlog.Event, error) bool) {
		for ev, err := range e.run.Events(ctx, id) {
			if err != nil {
				err = e.told(id, err)
			}
			if !yield(ev, err) {
				return
			}
		}
	}
}
