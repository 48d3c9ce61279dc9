package embedlog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godagger/dagger/eventlog"
)

// pebbleKV is kv on Pebble.
type pebbleKV struct {
	db     *pebble.DB
	broken *brokenLogger
	mark   *mark
	count  int64 // durable commits; synced applies come one at a time
}

func openPebble(dir string, fs vfs.FS) (*pebbleKV, error) {
	broken := &brokenLogger{}
	o := &pebble.Options{
		FS:                          fs,
		Logger:                      broken,
		FormatMajorVersion:          pebble.FormatNewest,
		MemTableSize:                64 << 20,
		MemTableStopWritesThreshold: 4,
		// Chunks are written once and read in order: compactions only cost. A few large
		// ones keep the number of files that a reader merges bounded.
		L0CompactionThreshold:     8,
		L0CompactionFileThreshold: 1 << 20,
		L0StopWritesThreshold:     64,
		LBaseMaxBytes:             1 << 30,
		CompactionConcurrencyRange: func() (int, int) {
			return 1, 1
		},
		WALBytesPerSync: 0,
		BytesPerSync:    1 << 20,
		EventListener: &pebble.EventListener{
			// The default ends the process. Here the read that met the damage says so.
			DataCorruption:  func(pebble.DataCorruptionInfo) {},
			BackgroundError: func(error) {},
		},
	}
	for i := range o.Levels {
		o.Levels[i].BlockSize = 32 << 10
	}
	db, err := pebble.Open(dir, o)
	if err == nil {
		err = broken.err()
	}
	if err != nil {
		return nil, oneLine(err)
	}
	p := &pebbleKV{db: db, broken: broken}
	v, err := p.get([]byte{countRow})
	if err == nil {
		p.count = readInt(v)
		p.mark, err = openMark(fs, dir, p.count)
	}
	if err != nil {
		_ = db.Close()
		return nil, err
	}
	return p, nil
}

// failed marks what is final: Pebble takes no write after one that failed.
func failed(err error) error { return fmt.Errorf("%w: %w", eventlog.ErrFailed, oneLine(err)) }

func (p *pebbleKV) apply(ops []op, sync bool) error {
	if err := p.broken.err(); err != nil {
		return failed(err)
	}
	size := 64
	for _, o := range ops {
		size += len(o.key) + len(o.value) + 16
	}
	b := p.db.NewBatchWithSize(size)
	defer b.Close()
	for _, o := range ops {
		var err error
		switch o.kind {
		case opSet:
			err = b.Set(o.key, o.value, nil)
		case opDelete:
			err = b.Delete(o.key, nil)
		case opDeleteRange:
			err = b.DeleteRange(o.key, o.value, nil)
		}
		if err != nil {
			return oneLine(err)
		}
	}
	how := pebble.NoSync
	if sync {
		how = pebble.Sync
		if err := b.Set([]byte{countRow}, appendInt(p.count+1), nil); err != nil {
			return oneLine(err)
		}
	}
	if err := b.Commit(how); err != nil {
		return failed(err)
	}
	if err := p.broken.err(); err != nil {
		return failed(err)
	}
	if sync {
		p.count++
		p.mark.write(p.count)
	}
	return nil
}

func (p *pebbleKV) get(key []byte) ([]byte, error) {
	v, closer, err := p.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, oneLine(err)
	}
	v = slices.Clone(v)
	return v, closer.Close()
}

func (p *pebbleKV) scan(lower, upper []byte, f func(key, value []byte) bool) error {
	it, err := p.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return oneLine(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			_ = it.Close()
			return oneLine(err)
		}
		if !f(it.Key(), v) {
			break
		}
	}
	return oneLine(it.Close()) // reports what stopped the scan
}

func (p *pebbleKV) last(lower, upper []byte) (key, value []byte, err error) {
	it, err := p.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, nil, oneLine(err)
	}
	if it.Last() {
		key = slices.Clone(it.Key())
		var v []byte
		v, err = it.ValueAndErr()
		value = slices.Clone(v)
	}
	if closed := it.Close(); err == nil { // which reports what stopped Last
		err = closed
	}
	return key, value, oneLine(err)
}

func (p *pebbleKV) close() error {
	p.mark.close()
	return oneLine(p.db.Close())
}

// lineError is an error of Pebble without the lines about where it was made.
type lineError struct{ err error }

func (e lineError) Error() string {
	line, _, _ := strings.Cut(e.err.Error(), "\n")
	return line
}

func (e lineError) Unwrap() error { return e.err }

func oneLine(err error) error {
	if err == nil {
		return nil
	}
	return lineError{err}
}

// brokenLogger keeps the first fatal error instead of ending the process: every write after
// it is refused, and the one that met it fails.
type brokenLogger struct{ first atomic.Pointer[error] }

func (*brokenLogger) Infof(string, ...any)  {}
func (*brokenLogger) Errorf(string, ...any) {}

func (b *brokenLogger) Fatalf(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	b.first.CompareAndSwap(nil, &err)
}

func (b *brokenLogger) err() error {
	if e := b.first.Load(); e != nil {
		return *e
	}
	return nil
}
