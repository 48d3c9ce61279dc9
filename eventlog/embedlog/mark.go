package embedlog

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const markFile = "dagger.commits"

// mark is a file with the number of durable commits: 8 bytes and their crc32c, little
// endian. Damage in the middle of Pebble's write-ahead log looks like a torn end to it, and
// what follows is dropped without a word; the mark knows better. It is written behind the
// sync of each commit and not synced itself, so it is never ahead of what was durable.
type mark struct{ f vfs.File }

// openMark opens the file, and refuses a log that has fewer commits than it says.
func openMark(fs vfs.FS, dir string, have int64) (*mark, error) {
	name := fs.PathJoin(dir, markFile)
	if f, err := fs.Open(name); err == nil {
		var b [12]byte
		_, err := io.ReadFull(f, b[:])
		_ = f.Close()
		acked := int64(binary.LittleEndian.Uint64(b[:]))
		whole := err == nil && crc32.Checksum(b[:8], castagnoli) == binary.LittleEndian.Uint32(b[8:])
		if whole && acked > have {
			return nil, fmt.Errorf("the last %d of %d acknowledged commits are missing: files were damaged or replaced by older ones; restore them, or remove %s to go on without", acked-have, acked, name)
		}
	}
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	m := &mark{f}
	m.write(have)
	return m, nil
}

// write notes a count. Its errors only lose the check.
func (m *mark) write(count int64) {
	b := binary.LittleEndian.AppendUint64(make([]byte, 0, 12), uint64(count))
	_, _ = m.f.WriteAt(binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)), 0)
}

func (m *mark) close() { _ = m.f.Close() }
