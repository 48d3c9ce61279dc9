package eventlog

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner reads JSON front to back. The first mistake sticks: from then on more says no and
// every value is zero, so that callers check err once at the end.
type scanner struct {
	data   []byte
	pos    int
	err    error
	spaces bool      // white space was passed
	first  bool      // no element of the innermost object or array was read yet
	depth  int       // of objects
	keys   [8][]byte // the member being read, of each open object

	decoder *EventDecoder // nil: nothing is shared
}

func (s *scanner) fail(format string, args ...any) {
	if s.err != nil {
		return
	}
	what := fmt.Sprintf(format, args...)
	if names := s.names(); names != "" {
		s.err = fmt.Errorf("field %s: %s (byte %d)", names, what, s.pos)
	} else {
		s.err = fmt.Errorf("%s (byte %d)", what, s.pos)
	}
}

func (s *scanner) names() string {
	var names []string
	for _, k := range s.keys[:min(s.depth, len(s.keys))] {
		if k != nil {
			names = append(names, string(k))
		}
	}
	return strings.Join(names, ".")
}

// want fails with what stands there instead.
func (s *scanner) want(what string) {
	found := "something that is not JSON"
	switch c := s.peek(); {
	case c == 0 && s.pos >= len(s.data):
		found = "the end of the data"
	case c == '"':
		found = "a string"
	case c == '{':
		found = "an object"
	case c == '[':
		found = "an array"
	case c == 't', c == 'f':
		found = "a boolean"
	case c == 'n':
		found = "null"
	case c == '-', c >= '0' && c <= '9':
		found = "a number"
	}
	s.fail("%s where %s is wanted", found, what)
}

// peek is the next byte that is not white space, 0 at the end.
func (s *scanner) peek() byte {
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; c {
		case ' ', '\t', '\n', '\r':
			s.pos++
			s.spaces = true
		default:
			return c
		}
	}
	return 0
}

func (s *scanner) object() {
	if s.peek() != '{' {
		s.want("an object")
		return
	}
	s.pos++
	s.first = true
	if s.depth < len(s.keys) {
		s.keys[s.depth] = nil
	}
	s.depth++
}

func (s *scanner) array() {
	if s.peek() != '[' {
		s.want("an array")
		return
	}
	s.pos++
	s.first = true
}

// more says whether another member or element follows, or ends the object or array.
func (s *scanner) more(end byte) bool {
	if s.err != nil {
		return false
	}
	c := s.peek()
	switch {
	case c == end:
		s.pos++
		s.first = false
		if end == '}' {
			s.depth--
		}
		return false
	case s.first:
		s.first = false
		return true
	case c == ',':
		s.pos++
		return true
	}
	s.want("a comma or the end of an object or array")
	return false
}

// key is the name of the next member. It is good until the next call.
func (s *scanner) key() []byte {
	k := s.text()
	if s.peek() != ':' {
		s.want("a colon")
		return nil
	}
	s.pos++
	if s.depth <= len(s.keys) {
		s.keys[s.depth-1] = k
	}
	return k
}

// text is a string without its quotes; it aliases the data where nothing had to be changed.
func (s *scanner) text() []byte {
	if s.peek() != '"' {
		s.want("a string")
		return nil
	}
	start := s.pos + 1
	ascii := true
	for i := start; i < len(s.data); i++ {
		switch c := s.data[i]; {
		case c == '"':
			s.pos = i + 1
			if t := s.data[start:i:i]; ascii || utf8.Valid(t) {
				return t
			}
			return s.unquote(start)
		case c == '\\':
			return s.unquote(start)
		case c < ' ':
			s.pos = i
			s.fail("a control character in a string")
			return nil
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	s.pos = len(s.data)
	s.fail("a string without an end")
	return nil
}

// unquote is text for strings with escapes or invalid UTF-8, which becomes U+FFFD.
func (s *scanner) unquote(start int) []byte {
	out := []byte{}
	for s.pos = start; s.pos < len(s.data); {
		switch c := s.data[s.pos]; {
		case c == '"':
			s.pos++
			return out
		case c < ' ':
			s.fail("a control character in a string")
			return nil
		case c == '\\':
			r := s.escape()
			if s.err != nil {
				return nil
			}
			out = utf8.AppendRune(out, r)
		case c < utf8.RuneSelf:
			out = append(out, c)
			s.pos++
		default:
			r, n := utf8.DecodeRune(s.data[s.pos:])
			out = utf8.AppendRune(out, r)
			s.pos += n
		}
	}
	s.fail("a string without an end")
	return nil
}

func (s *scanner) escape() rune {
	if s.pos+1 >= len(s.data) {
		s.fail("a string without an end")
		return 0
	}
	c := s.data[s.pos+1]
	if c == 'u' {
		r := hex4(s.data[s.pos:])
		if r < 0 {
			s.fail("a bad \\u escape")
			return 0
		}
		s.pos += 6
		if !utf16.IsSurrogate(r) {
			return r
		}
		if both := utf16.DecodeRune(r, hex4(s.data[s.pos:])); both != utf8.RuneError {
			s.pos += 6
			return both
		}
		return utf8.RuneError
	}
	n := strings.IndexByte(`"\/bfnrt`, c)
	if n < 0 {
		s.fail("a bad escape")
		return 0
	}
	s.pos += 2
	return rune("\"\\/\b\f\n\r\t"[n])
}

// hex4 is the code unit of the escape \uXXXX at the front of b, or -1.
func hex4(b []byte) rune {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	var r rune
	for _, c := range b[2:6] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

func (s *scanner) string() string { return string(s.text()) }

// name is a string that other events are likely to have too.
func (s *scanner) name() string {
	if s.decoder == nil {
		return s.string()
	}
	return s.decoder.name(s.text())
}

// base64 is a string's bytes; null is nil.
func (s *scanner) base64() []byte {
	if s.null() {
		return nil
	}
	t := s.text()
	if s.err != nil {
		return nil
	}
	out := make([]byte, base64.StdEncoding.DecodedLen(len(t)))
	n, err := base64.StdEncoding.Decode(out, t)
	if err != nil {
		s.fail("a string that is not base64")
		return nil
	}
	return out[:n]
}

func (s *scanner) bool() bool {
	switch s.peek() {
	case 't':
		s.literal("true")
		return true
	case 'f':
		s.literal("false")
		return false
	}
	s.want("a boolean")
	return false
}

// null passes a null, if there is one.
func (s *scanner) null() bool {
	if s.peek() != 'n' {
		return false
	}
	s.literal("null")
	return true
}

func (s *scanner) literal(word string) {
	if len(s.data)-s.pos < len(word) || string(s.data[s.pos:s.pos+len(word)]) != word {
		s.fail("something that is not JSON")
		return
	}
	s.pos += len(word)
}

func (s *scanner) uint64() uint64 {
	c := s.peek()
	if c < '0' || c > '9' {
		if c == '-' {
			s.fail("a negative number")
		} else {
			s.want("a number")
		}
		return 0
	}
	var v uint64
	start := s.pos
	for ; s.pos < len(s.data); s.pos++ {
		d := uint64(s.data[s.pos]) - '0'
		if d > 9 {
			break
		}
		if v > (1<<64-1-d)/10 {
			s.fail("a number that is too large")
			return 0
		}
		v = v*10 + d
	}
	if c == '0' && s.pos > start+1 {
		s.fail("a number with a leading zero")
		return 0
	}
	if s.pos < len(s.data) {
		switch s.data[s.pos] {
		case '.', 'e', 'E':
			s.fail("a number that is not written as a whole one")
			return 0
		}
	}
	return v
}

func (s *scanner) int64() int64 {
	negative := s.peek() == '-'
	if negative {
		s.pos++
		if s.pos < len(s.data) && (s.data[s.pos] < '0' || s.data[s.pos] > '9') {
			s.fail("something that is not JSON")
			return 0
		}
	}
	switch v := s.uint64(); {
	case negative && v <= 1<<63:
		return -int64(v)
	case !negative && v < 1<<63:
		return int64(v)
	}
	s.fail("a number that is too large")
	return 0
}

func (s *scanner) int() int { return int(s.int64()) }

func (s *scanner) int32() int32 {
	v := s.int64()
	if int64(int32(v)) != v {
		s.fail("a number that is too large")
		return 0
	}
	return int32(v)
}

func (s *scanner) float64() float64 {
	if c := s.peek(); c != '-' && (c < '0' || c > '9') {
		s.want("a number")
		return 0
	}
	start := s.pos
	if s.skipNumber(); s.err != nil {
		return 0
	}
	v, err := strconv.ParseFloat(string(s.data[start:s.pos]), 64)
	if err != nil {
		s.fail("a number that is too large")
		return 0
	}
	return v
}

// end checks that nothing follows.
func (s *scanner) end() {
	if s.err == nil && (s.peek() != 0 || s.pos < len(s.data)) {
		s.fail("something after the end of the object")
	}
}
