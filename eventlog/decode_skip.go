package eventlog

import "encoding/json"

// maxNesting of values that are kept raw: what encoding/json reads (10,000), less what they
// are nested in.
const maxNesting = 9900

// raw is any value as it stands. It aliases the data.
func (s *scanner) raw() json.RawMessage {
	s.peek()
	start := s.pos
	if s.skip(0); s.err != nil {
		return nil
	}
	return s.data[start:s.pos:s.pos]
}

// skip passes one value and checks that it is JSON.
func (s *scanner) skip(nested int) {
	if nested > maxNesting {
		s.fail("nested too deeply")
		return
	}
	switch c := s.peek(); {
	case c == '"':
		s.skipString()
	case c == '{', c == '[':
		s.pos++
		s.skipElements(c+2, nested) // the closing byte
	case c == 't':
		s.literal("true")
	case c == 'f':
		s.literal("false")
	case c == 'n':
		s.literal("null")
	case c == '-', c >= '0' && c <= '9':
		s.skipNumber()
	default:
		s.want("a value")
	}
}

func (s *scanner) skipElements(end byte, nested int) {
	if s.peek() == end {
		s.pos++
		return
	}
	for s.err == nil {
		if end == '}' {
			if s.peek() != '"' {
				s.want("a member's name")
				return
			}
			s.skipString()
			if s.peek() != ':' {
				s.want("a colon")
				return
			}
			s.pos++
		}
		s.skip(nested + 1)
		switch c := s.peek(); c {
		case ',':
			s.pos++
		case end:
			s.pos++
			return
		default:
			s.want("a comma or the end of an object or array")
			return
		}
	}
}

func (s *scanner) skipString() {
	for i := s.pos + 1; i < len(s.data); i++ {
		switch c := s.data[i]; {
		case c == '"':
			s.pos = i + 1
			return
		case c == '\\':
			s.pos = i
			if s.escape(); s.err != nil {
				return
			}
			i = s.pos - 1
		case c < ' ':
			s.pos = i
			s.fail("a control character in a string")
			return
		}
	}
	s.pos = len(s.data)
	s.fail("a string without an end")
}

func (s *scanner) skipNumber() {
	if s.pos < len(s.data) && s.data[s.pos] == '-' {
		s.pos++
	}
	whole := s.pos
	if !s.digits() || s.data[whole] == '0' && s.pos > whole+1 {
		s.fail("a bad number")
		return
	}
	if s.pos < len(s.data) && s.data[s.pos] == '.' {
		s.pos++
		if !s.digits() {
			s.fail("a bad number")
			return
		}
	}
	if s.pos < len(s.data) && (s.data[s.pos] == 'e' || s.data[s.pos] == 'E') {
		s.pos++
		if s.pos < len(s.data) && (s.data[s.pos] == '+' || s.data[s.pos] == '-') {
			s.pos++
		}
		if !s.digits() {
			s.fail("a bad number")
		}
	}
}

func (s *scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.data) && s.data[s.pos] >= '0' && s.data[s.pos] <= '9' {
		s.pos++
	}
	return s.pos > start
}
