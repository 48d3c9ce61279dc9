package workflow

import (
	"context"
	"encoding/json"
	"errors"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/internal/machine"
)

type basket struct {
	Name  string            `json:"name"`
	Count int64             `json:"count"`
	Notes []string          `json:"notes,omitempty"`
	Paid  *time.Time        `json:"paid"`
	Free  map[string]any    `json:"free,omitempty"`
	Raw   json.RawMessage   `json:"raw,omitempty"`
	Extra map[string]string `json:"extra,omitempty"`
}

// TestPatch shows what the log is told after a handler: the changed top-level fields, whole.
func TestPatch(t *testing.T) {
	for _, c := range []struct {
		name   string
		params string
		do     func(*basket) error
		patch  string // "" = none
		after  string // of the parameters; "" = as before
	}{
		{"nothing", `{"name":"a","count":1,"paid":null}`, func(*basket) error { return nil }, "", ""},
		{"one field", `{"count":1,"name":"a"}`, func(b *basket) error { b.Count++; return nil }, `{"count":2}`, `{"count":2,"name":"a"}`},
		{"a digit that a float would lose", `{"count":9007199254740993,"name":"a"}`,
			func(b *basket) error { b.Count++; return nil }, `{"count":9007199254740994}`, `{"count":9007199254740994,"name":"a"}`},
		{"numbers of no type", `{"free":{"n":9007199254740993,"x":1.10}}`,
			func(b *basket) error { b.Free["y"] = 2; return nil }, `{"free":{"n":9007199254740993,"x":1.10,"y":2}}`, `{"free":{"n":9007199254740993,"x":1.10,"y":2}}`},
		{"cleared omitempty", `{"notes":["x"],"name":"a"}`, func(b *basket) error { b.Notes = nil; return nil }, `{"notes":null}`, `{"name":"a"}`},
		{"cleared pointer", `{"paid":"2026-01-02T03:04:05Z"}`, func(b *basket) error { b.Paid = nil; return nil }, `{"paid":null}`, `{}`},
		{"changed behind a pointer", `{"paid":"2026-01-02T03:04:05Z"}`,
			func(b *basket) error { *b.Paid = b.Paid.Add(time.Second); return nil }, `{"paid":"2026-01-02T03:04:06Z"}`, `{"paid":"2026-01-02T03:04:06Z"}`},
		{"unknown fields stay", `{"name":"a","other":{"b":1}}`, func(b *basket) error { b.Name = "b"; return nil }, `{"name":"b"}`, `{"name":"b","other":{"b":1}}`},
		{"written in another case", `{"Name":"a","count":1}`, func(b *basket) error { b.Name = "b"; return nil }, `{"Name":null,"name":"b"}`, `{"count":1,"name":"b"}`},
		{"written in another case and cleared", `{"NOTES":["a"],"count":1}`, func(b *basket) error { b.Notes = nil; return nil }, `{"NOTES":null,"notes":null}`, `{"count":1}`},
		{"spaces are no change", `{ "raw" : {"a" : 1} }`, func(*basket) error { return nil }, "", ""},
		{"an error changes nothing", `{"name":"a"}`, func(b *basket) error { b.Name = "b"; return errors.New("no") }, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := handler(func(_ context.Context, b *basket, _ engine.Attempt, _ *engine.Outcome) error { return c.do(b) })
			out, _ := h(t.Context(), engine.Attempt{Params: json.RawMessage(c.params)})
			if diff := cmp.Diff(c.patch, string(out.Patch)); diff != "" {
				t.Errorf("patch (-want +got):\n%s", diff)
			}
			after := c.params
			if out.Patch != nil {
				after = string(machine.MergePatch(json.RawMessage(c.params), out.Patch))
			}
			if c.after != "" && after != c.after {
				t.Errorf("parameters are %s, want %s", after, c.after)
			}
		})
	}
}

// TestPatchAgainstMaps compares diff with the same made of maps, on random objects.
func TestPatchAgainstMaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"a", "b\"", "c<", "A", "d\\", "é"}
		values := []any{1, "x,}", "\\\"", []any{1, "]"}, map[string]any{"k": "}", "l": []int{}}, nil, true, 1.5}
		object := func(label string) (json.RawMessage, map[string]json.RawMessage) {
			m := map[string]any{}
			for _, n := range rapid.SliceOf(rapid.SampledFrom(names)).Draw(t, label) {
				m[n] = rapid.SampledFrom(values).Draw(t, label)
			}
			data, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			fields := map[string]json.RawMessage{}
			if err := json.Unmarshal(data, &fields); err != nil {
				t.Fatal(err)
			}
			return data, fields
		}
		before, old := object("before")
		after, now := object("after")
		want := map[string]json.RawMessage{}
		for k, v := range now {
			if was, ok := old[k]; !ok || string(was) != string(v) {
				want[k] = v
			}
		}
		for k := range old {
			if _, ok := now[k]; !ok {
				want[k] = json.RawMessage("null")
			}
		}
		patch, err := diff(nil, before, after)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]json.RawMessage{}
		if patch != nil {
			if err := json.Unmarshal(patch, &got); err != nil {
				t.Fatalf("patch %s: %v", patch, err)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("patch of %s to %s (-want +got):\n%s", before, after, diff)
		}
	})
}

func TestParametersThatDoNotDecodeAreTerminal(t *testing.T) {
	h := handler(func(context.Context, *basket, engine.Attempt, *engine.Outcome) error { return nil })
	_, err := h(t.Context(), engine.Attempt{Params: json.RawMessage(`{"count":"many"}`)})
	if te, ok := errors.AsType[engine.TerminalError](err); !ok || !te.TerminalError() {
		t.Errorf("error %v is not terminal", err)
	}
}

type (
	base    struct{ ID string }
	stamped struct {
		time.Time
		By string
	}
	loop struct {
		Next *loop
		Here string
	}
	oneWay struct{ N int }
)

func (oneWay) MarshalJSON() ([]byte, error) { return []byte("1"), nil }

// TestCheckParams: what JSON would lose is told, what it keeps is not.
func TestCheckParams(t *testing.T) {
	for _, c := range []struct {
		name  string
		found []string
		got   []string
	}{
		{"good", nil, checkParams(typeOf[struct {
			base
			Loop  loop
			A     time.Time
			B     *big.Int
			C     []map[string][]*int
			D     json.RawMessage
			E     any
			F     [3]byte
			G     json.Number `json:",omitempty"`
			H     chan int    `json:"-"`
			mutex sync.Mutex  `json:"-"`
			_     int
		}]())},
		{"no object", []string{`Time: time.Time encodes itself as "0001-01-01T00:00:00Z"; parameters must be a JSON object`}, checkParams(typeOf[time.Time]())},
		{"no struct", []string{"map[string]int is not a struct"}, checkParams(typeOf[map[string]int]())},
		{"unexported", []string{`struct.a: the field is not exported, so JSON would lose it: export it, or tag it json:"-" if that is wanted`},
			checkParams(typeOf[struct{ a int }]())},
		{"no JSON", []string{"struct.A: JSON has nothing for a func", "struct.B[]: JSON has nothing for a chan", "struct.C: JSON has nothing for a complex128"},
			checkParams(typeOf[struct {
				A func()
				B []chan int
				C *complex128
			}]())},
		{"maps and interfaces", []string{"struct.A: a map with keys of type int; JSON's are strings", "struct.B: interface error can't be decoded"},
			checkParams(typeOf[struct {
				A map[int]string
				B error
			}]())},
		{"one name twice", []string{`struct.B: its JSON name "A" is also that of struct.A: one of them would be lost`},
			checkParams(typeOf[struct {
				A int
				B int `json:"A"`
			}]())},
		{"embedded field hidden", []string{`struct.ID: its JSON name "ID" is also that of struct.base.ID: one of them would be lost`},
			checkParams(typeOf[struct {
				base
				ID int
			}]())},
		{"embedded pointer", []string{"struct.base: a pointer to an unexported struct is embedded: JSON can't fill it"},
			checkParams(typeOf[struct{ *base }]())},
		{"embedded encoder", []string{"struct.S: workflow.stamped is encoded as its embedded time.Time alone, the other fields are lost: give that field a name"},
			checkParams(typeOf[struct{ S stamped }]())},
		{"one way", []string{"struct.W[]: workflow.oneWay encodes itself but has no UnmarshalJSON or UnmarshalText"},
			checkParams(typeOf[struct{ W map[string]oneWay }]())},
	} {
		if diff := cmp.Diff(c.found, c.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}
