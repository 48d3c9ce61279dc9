package projection

import (
	"bytes"
	"encoding/binary"
	"errors"
)

// Keys are tuples written so that bytes compare as the tuples do: the bytes of one key are
// the same in every backend. A string is escaped (0x00 becomes 0x00 0xFF) and ended by
// 0x00 0x01, so that no string is a prefix of another one; numbers have a fixed width.

var errKey = errors.New("projection: key is cut off or was not written by this package")

// AppendString appends s, which may hold any bytes.
func AppendString(dst []byte, s string) []byte {
	for i := range len(s) {
		dst = append(dst, s[i])
		if s[i] == 0x00 {
			dst = append(dst, 0xFF)
		}
	}
	return append(dst, 0x00, 0x01)
}

// AppendUint64 appends v in 8 bytes.
func AppendUint64(dst []byte, v uint64) []byte {
	return binary.BigEndian.AppendUint64(dst, v)
}

// AppendInt64 appends v in 8 bytes, negative numbers before positive ones.
func AppendInt64(dst []byte, v int64) []byte {
	return AppendUint64(dst, uint64(v)^1<<63)
}

// CutString reads a string that AppendString wrote at the start of key, and returns what
// follows it. It fails when key doesn't start with one.
func CutString(key []byte) (s string, rest []byte, err error) {
	var unescaped []byte
	for start := 0; ; {
		i := bytes.IndexByte(key[start:], 0x00)
		if i < 0 || start+i+1 >= len(key) {
			return "", nil, errKey
		}
		i += start
		switch key[i+1] {
		case 0x01:
			if unescaped == nil {
				return string(key[:i]), key[i+2:], nil
			}
			return string(append(unescaped, key[start:i]...)), key[i+2:], nil
		case 0xFF:
			unescaped = append(unescaped, key[start:i+1]...)
			start = i + 2
		default:
			return "", nil, errKey
		}
	}
}

// CutUint64 reads a number that AppendUint64 wrote at the start of key, and returns what
// follows it. It fails when key is too short.
func CutUint64(key []byte) (v uint64, rest []byte, err error) {
	if len(key) < 8 {
		return 0, nil, errKey
	}
	return binary.BigEndian.Uint64(key), key[8:], nil
}

// CutInt64 is CutUint64 for AppendInt64.
func CutInt64(key []byte) (v int64, rest []byte, err error) {
	u, rest, err := CutUint64(key)
	if err != nil {
		return 0, nil, err
	}
	return int64(u ^ 1<<63), rest, nil
}

// PrefixEnd returns the smallest key that is greater than every key with this prefix, or nil
// (an open end) when there is none. The prefix is not changed.
func PrefixEnd(prefix []byte) []byte {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] != 0xFF {
			end := bytes.Clone(prefix[:i+1])
			end[i]++
			return end
		}
	}
	return nil
}
