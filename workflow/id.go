package workflow

import (
	"crypto/rand"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"time"
)

// newID is a UUID of version 7: ids that are made later sort later.
func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(time.Now().UnixMilli()))
	copy(b[:6], ms[2:])
	return uuid(b, 7)
}

// idSpace is the name space of IDFrom. It never changes, since ids come from it.
var idSpace = [16]byte{0x9d, 0x1c, 0x5a, 0x30, 0x4c, 0x7e, 0x5b, 0x8f, 0xa2, 0x61, 0x0e, 0xd4, 0x33, 0x96, 0xb7, 0xc8}

// IDFrom makes an id from a seed: a UUID of version 5. The same seed gives the same id in every
// program. Use it where there is no natural id, but a repeated call must come to the same one.
func IDFrom(seed string) string {
	h := sha1.New() // as version 5 has it; nothing rests on its strength
	h.Write(idSpace[:])
	h.Write([]byte(seed))
	return uuid([16]byte(h.Sum(nil)[:16]), 5)
}

func uuid(b [16]byte, version byte) string {
	b[6], b[8] = b[6]&0x0f|version<<4, b[8]&0x3f|0x80
	s := hex.EncodeToString(b[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}
