package pebble

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	cdb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/sstable/block"

	"github.com/godagger/dagger/projection"
)

// partition is one database and what is known of it in memory. Locks are taken in the order
// of the fields.
type partition struct {
	s   *Store
	n   int32
	dir string
	// aside: it is being built beside the one in use. What a crash takes of it is folded again, so
	// it has no write-ahead log, which would be written and replayed for nothing.
	aside bool
	disk  *disk
	dead  atomic.Bool                // the store was closed; set under life
	lost  atomic.Pointer[lostReason] // set once damage is seen, until Drop

	givenUp atomic.Int32 // calls that the disk keeps from ending and nobody waits for any more

	life sync.Mutex // opening, closing, dropping
	refs int        // handles

	use  sync.RWMutex // held for reading while db is in use, for writing while it changes
	stop atomic.Bool  // somebody waits to close db: long reads give up
	db   *cdb.DB      // nil: closed, or nothing was ever applied

	applying sync.Mutex       // one Apply at a time
	counters map[string]int64 // those read or changed since the database was opened

	mu        sync.RWMutex // rows and watermark change together
	watermark projection.Watermark
}

type lostReason struct{ err error }

func (s *Store) newPartition(n int32, dir string) *partition {
	return &partition{s: s, n: n, dir: dir, disk: &disk{FS: s.fs, dir: dir}}
}

var watermarkKey = []byte{0x01, 'w'}

// openDB opens the database; if there is none, it creates it or leaves db nil. life is held.
func (p *partition) openDB(create bool) error {
	if p.dead.Load() {
		return projection.ErrClosed
	}
	if err := p.lostError(); err != nil || p.db != nil {
		return err
	}
	if !create {
		if _, err := p.s.fs.Stat(p.dir); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return err
		}
	}
	db, watermark, err := p.load()
	if err != nil {
		return err
	}
	p.use.Lock()
	defer p.use.Unlock()
	p.set(db, watermark)
	return nil
}

// load opens the database and reads where it stands. life is held.
func (p *partition) load() (*cdb.DB, projection.Watermark, error) {
	db, err := cdb.Open(p.dir, p.dbOptions())
	if err != nil {
		if cdb.IsCorruptionError(err) || errors.Is(err, fs.ErrNotExist) {
			return nil, projection.Watermark{}, p.lose(err)
		}
		return nil, projection.Watermark{}, fmt.Errorf("open %s: %w", p.dir, err)
	}
	watermark, err := readWatermark(db)
	if err != nil {
		return nil, projection.Watermark{}, errors.Join(p.lose(err), db.Close())
	}
	return db, watermark, nil
}

// set takes a database into use. use is held for writing.
func (p *partition) set(db *cdb.DB, watermark projection.Watermark) {
	p.db, p.counters = db, map[string]int64{}
	p.mu.Lock()
	defer p.mu.Unlock()
	watermark.Epoch = max(watermark.Epoch, p.watermark.Epoch)
	p.watermark = watermark
}

// closeTimeout bounds the flush of a close without write-ahead log.
const closeTimeout = 10 * time.Second

// closeDB closes the database, if it is open, once nobody uses it. life is held.
func (p *partition) closeDB() error {
	p.takeUse()
	defer p.use.Unlock()
	return p.closeUnused()
}

// takeUse locks use for writing and makes long reads give up.
func (p *partition) takeUse() {
	p.stop.Store(true)
	p.use.Lock()
	p.stop.Store(false)
}

// closeUnused keeps what was applied, whoever gave up meanwhile: no caller's context ends it, but
// a limit of its own.
func (p *partition) closeUnused() error {
	if p.db == nil {
		return nil
	}
	var err error
	if p.noWAL() && p.lost.Load() == nil {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		if err = flushTables(ctx, p.db); ctx.Err() != nil {
			err = fmt.Errorf("the tables were not written in %v", closeTimeout)
		}
		cancel()
	}
	err = errors.Join(err, p.db.Close())
	p.db, p.counters = nil, nil
	if p.lost.Load() != nil {
		return nil // it was reported already, and is not made worse by closing
	}
	return err
}

// claim raises the epoch. life is held.
func (p *partition) claim(epoch uint64) error {
	p.applying.Lock() // so that no batch of the old epoch is between its check and its commit
	defer p.applying.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.fence(epoch); err != nil {
		return err
	}
	if epoch == p.watermark.Epoch {
		return nil
	}
	if err := writeFile(p.s.fs, p.s.epochFile(p.n), fmt.Appendln(nil, epoch), true); err != nil {
		return fmt.Errorf("write epoch: %w", err)
	}
	p.watermark.Epoch = epoch
	return nil
}

func (p *partition) fence(epoch uint64) error {
	if epoch < p.watermark.Epoch {
		return fmt.Errorf("%w: epoch %d, the partition has %d", projection.ErrFenced, epoch, p.watermark.Epoch)
	}
	return nil
}

// drop removes all but the epoch.
func (p *partition) drop(epoch uint64) error {
	p.life.Lock()
	defer p.life.Unlock()
	if p.dead.Load() {
		return projection.ErrClosed
	}
	if p.db == nil && p.lost.Load() == nil {
		// The last batch may know a later epoch than the file; damage is no reason not to drop.
		if err := p.openDB(false); err != nil && !errors.Is(err, projection.ErrStateLost) {
			return err
		}
	}
	p.mu.RLock()
	err := p.fence(epoch)
	p.mu.RUnlock()
	if err != nil {
		if p.refs == 0 {
			err = errors.Join(err, p.closeDB())
		}
		return err
	}
	p.takeUse() // until the watermark is that of no rows
	defer p.use.Unlock()
	damaged := p.lost.Load() != nil
	if err := p.closeUnused(); err != nil {
		damaged = true // closing found damage that nobody had read yet
	}
	if err := p.removeDir(damaged); err != nil {
		return errors.Join(err, p.lose(err))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watermark = projection.Watermark{Epoch: p.watermark.Epoch}
	p.lost.Store(nil)
	return nil
}

// removeDir removes the closed database, or sets it aside when it is damaged. The directory
// is renamed first: a crash must not leave half of it under its name.
func (p *partition) removeDir(damaged bool) error {
	fsys := p.s.fs
	if _, err := fsys.Stat(p.dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	aside := p.dir + ".dropped"
	if damaged {
		aside = p.dir + ".damaged"
	}
	if err := fsys.RemoveAll(aside); err != nil {
		return err
	}
	if err := fsys.Rename(p.dir, aside); err != nil {
		return err
	}
	if err := syncDir(fsys, p.s.dir); err != nil || damaged {
		return err
	}
	return fsys.RemoveAll(aside)
}

// lose marks the partition as damaged and returns what its users are told.
func (p *partition) lose(err error) error {
	p.lost.CompareAndSwap(nil, &lostReason{err})
	return p.lostError()
}

func (p *partition) lostError() error {
	if l := p.lost.Load(); l != nil {
		return fmt.Errorf("%w: %s: %v", projection.ErrStateLost, p.dir, l.err)
	}
	return nil
}

// readError turns an error of the database into one of the contract.
func (p *partition) readError(err error) error {
	if cdb.IsCorruptionError(err) || errors.Is(err, fs.ErrNotExist) {
		return p.lose(err)
	}
	return err
}

// readWatermark returns the zero watermark of an empty database. Rows without a watermark are
// damage.
func readWatermark(db *cdb.DB) (projection.Watermark, error) {
	raw, closer, err := db.Get(watermarkKey)
	if errors.Is(err, cdb.ErrNotFound) {
		it, err := db.NewIter(nil)
		if err != nil {
			return projection.Watermark{}, err
		}
		defer it.Close()
		if it.First() {
			return projection.Watermark{}, errors.New("there are rows and no watermark")
		}
		return projection.Watermark{}, it.Error()
	}
	if err != nil {
		return projection.Watermark{}, err
	}
	defer closer.Close()
	return decodeWatermark(raw)
}

// The value of the watermark's row: a format byte, N, Epoch, Offset and Sum with 8 bytes
// each, and the log's id.
const watermarkFormat = 1

func appendWatermark(dst []byte, w projection.Watermark) []byte {
	dst = append(dst, watermarkFormat)
	dst = binary.BigEndian.AppendUint64(dst, w.N)
	dst = binary.BigEndian.AppendUint64(dst, w.Epoch)
	dst = binary.BigEndian.AppendUint64(dst, uint64(w.Offset))
	dst = binary.BigEndian.AppendUint64(dst, w.Sum)
	return append(dst, w.LogID...)
}

func decodeWatermark(raw []byte) (projection.Watermark, error) {
	if len(raw) < 33 || raw[0] != watermarkFormat {
		return projection.Watermark{}, errors.New("the watermark can't be read")
	}
	return projection.Watermark{
		N:      binary.BigEndian.Uint64(raw[1:]),
		Epoch:  binary.BigEndian.Uint64(raw[9:]),
		Offset: int64(binary.BigEndian.Uint64(raw[17:])),
		Sum:    binary.BigEndian.Uint64(raw[25:]),
		LogID:  string(raw[33:]),
	}, nil
}

func (p *partition) noWAL() bool { return p.aside || p.s.options.NoWAL }

// memtablesEach are those of a partition: a write waits while so many are filled and not yet in
// tables, for then the budget is used up.
const memtablesEach = 3

// dbOptions are those of every partition's database.
func (p *partition) dbOptions() *cdb.Options {
	perPartition := uint64(p.s.options.Memtables) / uint64(p.s.id.Partitions) / memtablesEach
	o := &cdb.Options{
		FS:                          p.disk,
		Cache:                       p.s.cache,
		FileCache:                   p.s.files,
		FormatMajorVersion:          cdb.FormatNewest,
		DisableWAL:                  p.noWAL(),
		MemTableSize:                min(max(perPartition, 1<<20), 64<<20),
		MemTableStopWritesThreshold: memtablesEach,
		L0CompactionThreshold:       2,
		CompactionConcurrencyRange:  func() (int, int) { return 1, 2 },
		Cleaner:                     remover{},
		Logger:                      quiet{},
		EventListener: &cdb.EventListener{
			DataCorruption: func(info cdb.DataCorruptionInfo) {
				p.lost.CompareAndSwap(nil, &lostReason{info.Details})
			},
			BackgroundError: func(err error) {
				// Anything but damage (a full disk) is tried again by the database itself.
				if cdb.IsCorruptionError(err) || errors.Is(err, fs.ErrNotExist) {
					p.lost.CompareAndSwap(nil, &lostReason{err})
				}
			},
		},
	}
	if p.aside {
		// It is read little before it is put in its place, and may never have so many tables that
		// it must be sorted; what is left to sort then is for who opens it.
		o.L0CompactionThreshold, o.L0StopWritesThreshold = 16, 48
		o.MemTableStopWritesThreshold = 2 // batches come whole, and large
		o.LBaseMaxBytes = 256 << 20
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		o.Levels[i].IndexBlockSize = 256 << 10 // an index of two levels costs each seek more than it saves
		// Rows are alike: blocks of four times the default, with a compression that costs no more
		// than the default one, take a third less.
		o.Levels[i].BlockSize = 16 << 10
		o.Levels[i].Compression = func() *sstable.CompressionProfile { return block.FastestCompression }
	}
	return o
}

// remover removes files that are no longer needed, as the default does. By what it has of the
// archive, which would need their contents, the database sees that it must not put write-ahead
// logs by to write over them: that saves time where writes are synced, which ours are not, and
// holds up to four times a memtable's size of each partition.
type remover struct {
	cdb.DeleteCleaner
	archive
}

type archive struct{ cdb.ArchiveCleaner }

// quiet drops what the database says about its work. It calls Fatalf when it can't go on: its
// disk is broken, which disk can't mend, and it would have ended the process by itself.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf("pebble: the store can't be written: "+format, args...))
}
