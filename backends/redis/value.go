package redis

import (
	"errors"

	"github.com/klauspost/compress/s2"
)

// A value is a format byte and what follows from it. Entries without value have none at all,
// and counters are decimal numbers.
const (
	plain      = 0x00
	compressed = 0x01 // s2, one block
)

// compressFrom is the length from which a value is compressed. Values are mostly JSON of which
// less than half is left.
const compressFrom = 128

// encoder encodes the values of one batch.
type encoder struct {
	scratch []byte
	arena   []byte
}

// encode returns the encoded value; it stays valid.
func (e *encoder) encode(value []byte) []byte {
	from := len(e.arena)
	if len(value) >= compressFrom {
		if most := s2.MaxEncodedLen(len(value)); most > cap(e.scratch) {
			e.scratch = make([]byte, most)
		}
		if packed := s2.Encode(e.scratch[:cap(e.scratch)], value); len(packed) < len(value) {
			e.arena = append(append(e.arena, compressed), packed...)
			return e.arena[from:len(e.arena):len(e.arena)]
		}
	}
	e.arena = append(append(e.arena, plain), value...)
	return e.arena[from:len(e.arena):len(e.arena)]
}

var errValue = errors.New("a value can't be read")

// decode returns the value as a slice of its own.
func decode(stored string) ([]byte, error) {
	if stored == "" {
		return nil, errValue
	}
	switch body := stored[1:]; stored[0] {
	case plain:
		return []byte(body), nil
	case compressed:
		value, err := s2.Decode(nil, []byte(body))
		if err != nil {
			return nil, errValue
		}
		return value, nil
	}
	return nil, errValue
}
