package workflow

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/godagger/dagger/internal/engine"
)

// null removes a field in a merge patch.
var null = json.RawMessage("null")

// handler erases P: each attempt gets parameters of its own, decoded from what the log has,
// and what the attempt changed of them is told as a merge patch.
func handler[P any](do func(context.Context, *P, engine.Attempt, *engine.Outcome) error) engine.Handler {
	return func(ctx context.Context, a engine.Attempt) (engine.Outcome, error) {
		p, err := decodeParams[P](a.Params)
		if err != nil {
			return engine.Outcome{}, Terminal(err)
		}
		before, err := json.Marshal(p)
		if err != nil {
			return engine.Outcome{}, Terminal(fmt.Errorf("encode parameters %T: %w", *p, err))
		}
		var out engine.Outcome
		if err := do(withTask(ctx, a), p, a, &out); err != nil {
			return engine.Outcome{}, err
		}
		after, err := json.Marshal(p)
		if err != nil {
			return engine.Outcome{}, Terminal(fmt.Errorf("encode parameters %T: %w", *p, err))
		}
		if out.Patch, err = diff(a.Params, before, after); err != nil {
			return engine.Outcome{}, Terminal(err)
		}
		return out, nil
	}
}

func decodeParams[P any](params json.RawMessage) (*P, error) {
	p := new(P)
	if len(params) == 0 {
		return p, nil
	}
	if err := decodeJSON(params, p); err != nil {
		return nil, fmt.Errorf("decode parameters as %T: %w", *p, err)
	}
	return p, nil
}

// decodeJSON keeps numbers as they are written where the target does not say their type.
func decodeJSON(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON value")
	}
	return nil
}

// diff is the merge patch of the top-level fields that differ between two encodings; nil
// when there is none. It compares bytes, so that no number loses a digit. stored are the
// parameters as the log has them, perhaps with fields that P does not know: they stay.
func diff(stored, before, after json.RawMessage) (json.RawMessage, error) {
	if bytes.Equal(before, after) {
		return nil, nil
	}
	var old, now, kept map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(before, &old), json.Unmarshal(after, &now), unmarshalObject(stored, &kept)); err != nil {
		return nil, fmt.Errorf("compare parameters: %w", err)
	}
	patch := map[string]json.RawMessage{}
	change := func(name string, value json.RawMessage) {
		patch[name] = value
		// JSON's decoder also takes a field whose name differs in case: such a twin, written
		// by another client, would win over the change.
		for twin := range kept {
			if _, own := now[twin]; !own && twin != name && strings.EqualFold(twin, name) {
				patch[twin] = null
			}
		}
	}
	for name, value := range now {
		if was, ok := old[name]; !ok || !bytes.Equal(was, value) {
			change(name, value)
		}
	}
	for name := range old {
		if _, there := now[name]; !there {
			change(name, null)
		}
	}
	if len(patch) == 0 {
		return nil, nil
	}
	return json.Marshal(patch)
}

func unmarshalObject(data json.RawMessage, fields *map[string]json.RawMessage) error {
	if len(data) == 0 {
		return nil
	}
	return json.Unmarshal(data, fields)
}
