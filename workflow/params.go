package workflow

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"sync"

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
func decodeJSON[T any](data []byte, v *T) error {
	if !holdsAny(reflect.TypeFor[T]()) {
		return json.Unmarshal(data, v)
	}
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

var anyHolders sync.Map // reflect.Type -> bool

// holdsAny says whether a type has an interface somewhere.
func holdsAny(t reflect.Type) bool {
	if known, ok := anyHolders.Load(t); ok {
		return known.(bool)
	}
	seen := map[reflect.Type]bool{}
	var holds func(reflect.Type) bool
	holds = func(t reflect.Type) bool {
		if seen[t] {
			return false
		}
		seen[t] = true
		switch t.Kind() {
		case reflect.Interface:
			return true
		case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
			return holds(t.Elem())
		case reflect.Struct:
			for i := range t.NumField() {
				if holds(t.Field(i).Type) {
					return true
				}
			}
		}
		return false
	}
	found := holds(t)
	anyHolders.Store(t, found)
	return found
}

// diff is the merge patch of the top-level fields that differ between two encodings; nil
// when there is none. It compares bytes, so that no number loses a digit. stored are the
// parameters as the log has them, perhaps with fields that P does not know: they stay.
func diff(stored, before, after json.RawMessage) (json.RawMessage, error) {
	if bytes.Equal(before, after) {
		return nil, nil
	}
	old, err1 := members(before)
	now, err2 := members(after)
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("compare parameters: %w", err)
	}
	var patch []member
	for _, m := range now {
		if was := find(old, m.name); was == nil || !bytes.Equal(was.value, m.value) {
			patch = append(patch, m)
		}
	}
	for _, m := range old {
		if find(now, m.name) == nil {
			patch = append(patch, member{m.name, null})
		}
	}
	if len(patch) == 0 {
		return nil, nil
	}
	// JSON's decoder also takes a field whose name differs in case: such a twin, written by
	// another client, would win over the change.
	if len(stored) > 0 {
		kept, err := members(stored)
		if err != nil {
			return nil, fmt.Errorf("compare parameters: %w", err)
		}
		for _, k := range kept {
			if find(now, k.name) == nil && find(patch, k.name) == nil && slices.ContainsFunc(patch, func(m member) bool { return bytes.EqualFold(m.name, k.name) }) {
				patch = append(patch, member{k.name, null})
			}
		}
	}
	slices.SortFunc(patch, func(a, b member) int { return bytes.Compare(a.name, b.name) })
	out := append(make([]byte, 0, len(after)), '{')
	for i, m := range patch {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(append(append(out, m.name...), ':'), m.value...)
	}
	return append(out, '}'), nil
}

// member is one of an object; both parts as they are encoded, the name with its quotes.
type member struct{ name, value []byte }

func find(l []member, name []byte) *member {
	for i := range l {
		if bytes.Equal(l[i].name, name) {
			return &l[i]
		}
	}
	return nil
}

// members takes a valid JSON object apart.
func members(object []byte) ([]member, error) {
	rest, l := bytes.TrimSpace(object), make([]member, 0, 16)
	if len(rest) < 2 || rest[0] != '{' {
		return nil, errors.New("not a JSON object")
	}
	for {
		rest = bytes.TrimLeft(rest[1:], " \t\r\n")
		if len(rest) > 0 && rest[0] == '}' {
			return l, nil
		}
		name := scan(rest)
		after := bytes.TrimLeft(rest[len(name):], " \t\r\n")
		if len(name) < 2 || len(after) < 2 || after[0] != ':' {
			return nil, errors.New("not a JSON object")
		}
		after = bytes.TrimLeft(after[1:], " \t\r\n")
		value := scan(after)
		rest = bytes.TrimLeft(after[len(value):], " \t\r\n")
		if len(value) == 0 || len(rest) == 0 || rest[0] != ',' && rest[0] != '}' {
			return nil, errors.New("not a JSON object")
		}
		l = append(l, member{name, value})
		if rest[0] == '}' {
			return l, nil
		}
	}
}

// scan is the JSON value at the beginning.
func scan(data []byte) []byte {
	depth, quoted := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			if quoted = !quoted; !quoted && depth == 0 {
				return data[:i+1]
			}
		case quoted:
		case c == '{' || c == '[':
			depth++
		case c == '}' || c == ']':
			if depth == 0 {
				return data[:i]
			}
			if depth--; depth == 0 {
				return data[:i+1]
			}
		case depth == 0 && (c == ',' || c == ' ' || c == '\t' || c == '\r' || c == '\n'):
			return data[:i]
		}
	}
	return data
}
