package eventlog

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// AppendEvent appends the JSON of an event to dst: one compact object, its members in the
// order of the struct, zero values left out as the tags say, Extra last. It is what
// encoding/json writes without escaping for HTML. Invalid UTF-8 in strings becomes U+FFFD.
//
// Every RawMessage must be JSON; white space in it is dropped. AppendEvent panics where one
// is not (or a held request has a number or time that JSON can't say): an event that nobody
// can decode would stop its partition for ever, a panic only quarantines the instance.
func AppendEvent(dst []byte, e *Event) []byte {
	w := writer{b: dst}
	w.event(e)
	if w.err != nil {
		panic("eventlog: encode event " + string(e.Type) + ": " + w.err.Error())
	}
	return w.b
}

// AppendRequest appends the JSON of a request to dst, in the same manner. The error names
// what can't be written: a RawMessage that is not JSON, a number or time that JSON can't
// say; dst is then returned as it was.
func AppendRequest(dst []byte, r *Request) ([]byte, error) {
	w := writer{b: dst}
	w.request(r)
	if w.err != nil {
		return dst, fmt.Errorf("encode request %s: %w", r.Type, w.err)
	}
	return w.b, nil
}

// writer appends JSON. Its methods for members leave zero values out; key does not.
type writer struct {
	b   []byte
	err error
}

func (w *writer) fail(k string, format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("field %s: %s", k[1:len(k)-2], fmt.Sprintf(format, args...))
	}
}

// key begins a member. k is the name with its quotes and the colon.
func (w *writer) key(k string) {
	if w.b[len(w.b)-1] != '{' {
		w.b = append(w.b, ',')
	}
	w.b = append(w.b, k...)
}

func (w *writer) string(k, v string) {
	if v != "" {
		w.key(k)
		w.b = appendString(w.b, v)
	}
}

func (w *writer) int(k string, v int64) {
	if v != 0 {
		w.key(k)
		w.b = strconv.AppendInt(w.b, v, 10)
	}
}

func (w *writer) uint(k string, v uint64) {
	if v != 0 {
		w.key(k)
		w.b = strconv.AppendUint(w.b, v, 10)
	}
}

func (w *writer) bool(k string, v bool) {
	if v {
		w.key(k)
		w.b = append(w.b, "true"...)
	}
}

func (w *writer) raw(k string, v json.RawMessage) {
	if len(v) > 0 {
		w.key(k)
		w.value(k, v)
	}
}

func (w *writer) strings(k string, l []string) {
	if len(l) == 0 {
		return
	}
	w.key(k)
	for i, v := range l {
		w.b = appendString(append(w.b, separator(i)), v)
	}
	w.b = append(w.b, ']')
}

func (w *writer) raws(k string, l []json.RawMessage) {
	if len(l) == 0 {
		return
	}
	w.key(k)
	for i, v := range l {
		w.b = append(w.b, separator(i))
		if len(v) == 0 {
			w.b = append(w.b, "null"...)
			continue
		}
		w.value(k, v)
	}
	w.b = append(w.b, ']')
}

// value appends a raw value, compact.
func (w *writer) value(k string, v json.RawMessage) {
	s := scanner{data: v}
	s.skip(0)
	s.end()
	switch {
	case s.err != nil:
		w.fail(k, "%v", s.err)
	case s.spaces:
		b := bytes.NewBuffer(w.b)
		if err := json.Compact(b, v); err != nil {
			w.fail(k, "%v", err)
			return
		}
		w.b = b.Bytes()
	default:
		w.b = append(w.b, v...)
	}
}

func (w *writer) base64(k string, v []byte) {
	if len(v) > 0 {
		w.key(k)
		w.base64Value(v)
	}
}

func (w *writer) base64Value(v []byte) {
	if v == nil {
		w.b = append(w.b, "null"...)
		return
	}
	w.b = append(w.b, '"')
	w.b = base64.StdEncoding.AppendEncode(w.b, v)
	w.b = append(w.b, '"')
}

// float writes as ECMAScript does, like encoding/json.
func (w *writer) float(k string, v float64) {
	if v == 0 {
		return
	}
	if math.IsNaN(v) || math.IsInf(v, 0) {
		w.fail(k, "%v is no JSON number", v)
		return
	}
	w.key(k)
	format := byte('f')
	if abs := math.Abs(v); abs < 1e-6 || abs >= 1e21 {
		format = 'e'
	}
	w.b = strconv.AppendFloat(w.b, v, format, -1, 64)
	if n := len(w.b); format == 'e' && string(w.b[n-4:n-1]) == "e-0" { // e-09 is e-9
		w.b[n-2] = w.b[n-1]
		w.b = w.b[:n-1]
	}
}

func (w *writer) time(k string, v time.Time) {
	if v.IsZero() {
		return
	}
	text, err := v.MarshalText()
	if err != nil {
		w.fail(k, "%v", err)
		return
	}
	w.key(k)
	w.b = append(append(append(w.b, '"'), text...), '"')
}

const hexDigits = "0123456789abcdef"

// plain are the ASCII characters that stand for themselves in a JSON string.
var plain = func() (t [utf8.RuneSelf]bool) {
	for c := range t {
		t[c] = c >= ' ' && c != '"' && c != '\\'
	}
	return t
}()

// appendString appends a JSON string. U+2028 and U+2029 are escaped, which JSON does not
// ask for but JavaScript does.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if plain[c] {
				i++
				continue
			}
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\b':
				b = append(b, '\\', 'b')
			case '\f':
				b = append(b, '\\', 'f')
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			case '\t':
				b = append(b, '\\', 't')
			default:
				b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			}
			i++
			start = i
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			b = append(append(b, s[start:i]...), `\ufffd`...)
			start = i + n
		case r == '\u2028' || r == '\u2029':
			b = append(append(b, s[start:i]...), `\u202`...)
			b = append(b, hexDigits[r&15])
			start = i + n
		}
		i += n
	}
	return append(append(b, s[start:]...), '"')
}
