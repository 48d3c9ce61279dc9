package engine

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/godagger/dagger/internal/machine"
)

// Comparable is the state of an instance as JSON, without the numbers that every event changes.
func Comparable(i *machine.Instance) ([]byte, error) {
	c := i.Clone()
	c.N, c.Seq, c.Updated = 0, 0, 0
	data, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode instance: %w", err)
	}
	return data, nil
}

// Change is a difference between two states.
type Change struct {
	Path string `json:"path"`           // where, e.g. tasks[Order/ready].status
	From string `json:"from,omitempty"` // as JSON; "" = was not there
	To   string `json:"to,omitempty"`   // as JSON; "" = is not there
}

// String is the change in one line: "+" came, "-" went, "~" is another one now.
func (c Change) String() string {
	switch {
	case c.From == "":
		return "+ " + c.Path + ": " + short(c.To)
	case c.To == "":
		return "- " + c.Path + ": " + short(c.From)
	}
	return "~ " + c.Path + ": " + short(c.From) + " -> " + short(c.To)
}

// short is a value of bounded length.
func short(value string) string {
	const most = 200
	if len(value) > most {
		return strings.ToValidUTF8(value[:most], "") + "…"
	}
	return value
}

// Changes are the differences between two JSON values, by path. Members of a list are told
// apart by what names them (a path, a request, a number), not by their place. What is no JSON
// is compared as it is.
func Changes(from, to []byte) []Change {
	var l []Change
	x, okX := decodeAny(from)
	y, okY := decodeAny(to)
	switch {
	case len(from) > 0 && !okX || len(to) > 0 && !okY:
		if !bytes.Equal(from, to) {
			l = append(l, Change{From: strconv.Quote(string(from)), To: strconv.Quote(string(to))})
		}
	default: // what was nothing came member by member
		if x == nil {
			x = map[string]any{}
		}
		if y == nil {
			y = map[string]any{}
		}
		changes("", x, y, &l)
	}
	return l
}

func decodeAny(data []byte) (v any, ok bool) {
	if len(data) == 0 {
		return nil, true
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	err := d.Decode(&v)
	return v, err == nil
}

func changes(path string, x, y any, l *[]Change) {
	a, isMap := members(x)
	b, isMapToo := members(y)
	if !isMap || !isMapToo {
		if from, to := text(x), text(y); from != to {
			*l = append(*l, Change{path, from, to})
		}
		return
	}
	keys := make([]string, 0, len(a)+len(b))
	for k := range a {
		keys = append(keys, k)
	}
	for k := range b {
		if _, has := a[k]; !has {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		at := k
		if path != "" {
			at = path + "." + k
		}
		if strings.HasPrefix(k, "[") {
			at = path + k
		}
		changes(at, a[k], b[k], l)
	}
}

// members are those of an object or of a list; nil counts as an empty one.
func members(v any) (map[string]any, bool) {
	switch x := v.(type) {
	case map[string]any:
		return x, true
	case []any:
		m := make(map[string]any, len(x))
		for k, e := range x {
			name := "[" + label(e, k) + "]"
			if _, twice := m[name]; twice {
				name = "[" + label(e, k) + " #" + strconv.Itoa(k) + "]"
			}
			m[name] = e
		}
		return m, true
	}
	return nil, false
}

// label names a member of a list.
func label(v any, index int) string {
	if o, ok := v.(map[string]any); ok {
		for _, name := range []string{"path", "request", "seq", "msg", "n", "topic"} {
			switch s := o[name].(type) {
			case string:
				if name == "topic" {
					return s + " " + text(o["key"]) + "=" + text(o["value"])
				}
				return s
			case json.Number:
				return name + " " + s.String()
			}
		}
	}
	return strconv.Itoa(index)
}

// text is a value as JSON; "" for none.
func text(v any) string {
	if v == nil {
		return ""
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(v) != nil {
		return "?"
	}
	return strings.TrimSuffix(b.String(), "\n")
}
