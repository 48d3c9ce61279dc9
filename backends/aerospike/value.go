package aerospike

import (
	"encoding/binary"
	"errors"

	"github.com/klauspost/compress/s2"

	"github.com/godagger/dagger/projection"
)

// A stored value is a format byte and what follows from it. An entry whose value is empty has
// none at all.
const (
	plain      = 0x00
	compressed = 0x01 // s2, one block
	inBlob     = 0x02 // a reference; the blob holds a stored value of another format
	gone       = 0x03 // of a record: the row was deleted
)

const (
	// compressFrom is the length from which a value is compressed.
	compressFrom = 128
	// maxValue is how long a value may be.
	maxValue = 16 << 20
	// maxEntry is how long a stored value may be to stay in a page; a longer one is a blob.
	maxEntry = 2 << 10
)

// encode returns the stored value, which shares nothing with value.
func encode(kind projection.Kind, value []byte) []byte {
	if len(value) == 0 && kind != projection.KindInstance {
		return []byte{}
	}
	if len(value) >= compressFrom {
		stored := make([]byte, 1+s2.MaxEncodedLen(len(value)))
		if packed := s2.Encode(stored[1:], value); len(packed) < len(value) {
			stored[0] = compressed
			return append(make([]byte, 0, 1+len(packed)), stored[:1+len(packed)]...)
		}
	}
	return append(append(make([]byte, 0, 1+len(value)), plain), value...)
}

var errValue = errors.New("a value can't be read")

// decode returns the value as a slice of its own.
func decode(stored []byte) ([]byte, error) {
	if len(stored) == 0 {
		return []byte{}, nil
	}
	switch body := stored[1:]; stored[0] {
	case plain:
		return append([]byte{}, body...), nil
	case compressed:
		value, err := s2.Decode(nil, body)
		if err != nil {
			return nil, errValue
		}
		return value, nil
	}
	return nil, errValue
}

// reference is a stored value that is in a blob.
func reference(b blob) []byte {
	stored := append(make([]byte, 0, 17), inBlob)
	stored = binary.BigEndian.AppendUint64(stored, uint64(b.id))
	return binary.BigEndian.AppendUint64(stored, uint64(b.size))
}

// blobOf is the blob that a stored value is in; ok is false when it is in none.
func blobOf(stored []byte) (b blob, ok bool) {
	if len(stored) != 17 || stored[0] != inBlob {
		return blob{}, false
	}
	return blob{id: int64(binary.BigEndian.Uint64(stored[1:])), size: int(binary.BigEndian.Uint64(stored[9:]))}, true
}
