package eventlog

import (
	"bytes"
	"encoding/json"
)

// AppendEvent appends the JSON of an event to dst.
func AppendEvent(dst []byte, e *Event) []byte {
	b := bytes.NewBuffer(dst)
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		panic("eventlog: encode event: " + err.Error())
	}
	out := b.Bytes()
	out = out[:len(out)-2] // the line end and the closing brace
	for _, f := range e.Extra {
		name, _ := json.Marshal(f.Name)
		out = append(append(append(append(out, ','), name...), ':'), f.Value...)
	}
	return append(out, '}')
}
