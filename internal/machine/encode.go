package machine

import (
	"encoding/json"
	"strconv"
)

// AppendJSON appends the instance to dst as encoding/json writes it, byte for byte: a store's
// row is written with each change, and reflection was a quarter of a rebuild. It panics where
// encoding/json fails, which our own types can't make it do.
func (i *Instance) AppendJSON(dst []byte) []byte {
	w := writer{append(dst, '{')}
	w.must("id", i.ID)
	w.number("n", int64(i.N), true)
	w.number("seq", int64(i.Seq), false)
	w.mailbox(&i.Mailbox)
	w.body(&i.Body)
	w.text("quarantined", i.Quarantined)
	return append(w.b, '}')
}

// writer appends members of objects; those with an empty value are left out, except by must
// and where always is set.
type writer struct{ b []byte }

// name begins a member; names need no escaping.
func (w *writer) name(name string) {
	if w.b[len(w.b)-1] != '{' {
		w.b = append(w.b, ',')
	}
	w.b = append(append(append(w.b, '"'), name...), '"', ':')
}

func (w *writer) must(name, v string) {
	w.name(name)
	w.string(v)
}

func (w *writer) text(name, v string) {
	if v != "" {
		w.must(name, v)
	}
}

// number: what is unsigned here stays far below 2^63.
func (w *writer) number(name string, v int64, always bool) {
	if v != 0 || always {
		w.name(name)
		w.b = strconv.AppendInt(w.b, v, 10)
	}
}

func (w *writer) flag(name string, v bool) {
	if v {
		w.name(name)
		w.b = append(w.b, "true"...)
	}
}

// other appends a member that is rare enough for reflection.
func (w *writer) other(name string, v any) {
	w.name(name)
	w.reflect(v)
}

func (w *writer) reflect(v any) {
	data, err := json.Marshal(v)
	if err != nil {
		panic("machine: encode instance: " + err.Error())
	}
	w.b = append(w.b, data...)
}

// element begins element k of a list of objects.
func (w *writer) element(k int) {
	if k == 0 {
		w.b = append(w.b, '[', '{')
	} else {
		w.b = append(w.b, ',', '{')
	}
}

// end ends an object, and a list after its last element.
func (w *writer) end(k, n int) {
	w.b = append(w.b, '}')
	if k == n-1 {
		w.b = append(w.b, ']')
	}
}

// string appends a string; encoding/json escapes more than JSON asks for.
func (w *writer) string(v string) {
	for k := range len(v) {
		if c := v[k]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			w.reflect(v)
			return
		}
	}
	w.b = append(append(append(w.b, '"'), v...), '"')
}

// raw appends JSON that is compact already, as almost all is.
func (w *writer) raw(name string, v json.RawMessage) {
	if len(v) == 0 {
		return
	}
	w.name(name)
	inside := false
	for k := 0; k < len(v); k++ {
		switch c := v[k]; {
		case c == '"':
			inside = !inside
		case c == '\\':
			k++
		case c == '<' || c == '>' || c == '&' || c == 0xE2, c <= ' ' && !inside: // 0xE2: U+2028 begins so
			w.reflect(v)
			return
		}
	}
	w.b = append(w.b, v...)
}

func (w *writer) mailbox(m *Mailbox) {
	w.number("run", int64(m.Run), false)
	if n := len(m.Subs); n > 0 {
		w.name("subs")
		for k := range m.Subs {
			s := &m.Subs[k]
			w.element(k)
			w.must("topic", s.Topic)
			w.must("key", s.Key)
			w.must("value", s.Value)
			w.number("act", int64(s.Act), true)
			w.end(k, n)
		}
	}
	if len(m.Buffer) > 0 {
		w.other("buffer", m.Buffer)
	}
	w.answers("applied", m.Applied)
	w.answers("refused", m.Refused)
	w.number("floor", m.Floor, false)
	if len(m.Held) > 0 {
		w.other("held", m.Held)
	}
	if len(m.Stops) > 0 {
		w.other("stops", m.Stops)
	}
}

func (w *writer) answers(name string, l []Answer) {
	if len(l) == 0 {
		return
	}
	w.name(name)
	for k := range l {
		a := &l[k]
		w.element(k)
		w.must("request", a.Request)
		w.number("made", a.Made, false)
		w.number("at", a.At, true)
		w.text("answer", a.Answer)
		w.end(k, len(l))
	}
}

func (w *writer) body(b *Body) {
	w.text("definition", b.Definition)
	w.text("plan", b.Plan)
	w.text("status", string(b.Status))
	w.raw("params", b.Params)
	w.number("paramsSeq", int64(b.ParamsSeq), false)
	if n := len(b.Keys); n > 0 {
		w.name("keys")
		for k := range b.Keys {
			w.element(k)
			w.must("path", b.Keys[k].Path)
			w.must("value", b.Keys[k].Value)
			w.end(k, n)
		}
	}
	if len(b.Items) > 0 {
		w.other("items", b.Items)
	}
	w.number("itemsSeq", int64(b.ItemsSeq), false)
	w.number("evaluate", int64(b.Evaluate), false)
	if len(b.Jumps) > 0 {
		w.other("jumps", b.Jumps)
	}
	if n := len(b.Tasks); n > 0 {
		w.name("tasks")
		for k := range b.Tasks {
			w.element(k)
			w.task(&b.Tasks[k])
			w.end(k, n)
		}
	}
	w.number("created", b.Created, false)
	w.number("updated", b.Updated, false)
	w.number("ended", b.Ended, false)
	w.text("error", b.Error)
	w.text("failedPath", b.FailedPath)
	w.text("reason", b.Reason)
	w.flag("stopping", b.Stopping)
	w.flag("flowEnded", b.FlowEnded)
	w.number("deleteAt", b.DeleteAt, false)
	if b.Trace != nil {
		w.other("trace", b.Trace)
	}
}

func (w *writer) task(t *Task) {
	w.must("path", t.Path)
	w.must("kind", string(t.Kind))
	w.must("status", string(t.Status))
	w.text("phase", string(t.Phase))
	w.number("act", int64(t.Act), true)
	w.number("attempt", int64(t.Attempt), false)
	w.number("since", t.Since, true)
	w.number("due", t.Due, false)
	w.number("tick", t.Tick, false)
	w.flag("ran", t.Ran)
	w.number("cuts", int64(t.Cuts), false)
	w.number("interrupted", int64(t.Interrupted), false)
	w.text("choice", t.Choice)
	if len(t.Choices) > 0 {
		w.other("choices", t.Choices)
	}
	w.number("items", int64(t.Items), false)
	w.flag("collect", t.Collect)
	w.flag("over", t.Over)
	w.text("error", t.Error)
	w.number("msg", int64(t.Msg), false)
	if t.Message != nil {
		w.other("message", t.Message)
	}
}
