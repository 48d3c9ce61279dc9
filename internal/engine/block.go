package engine

import (
	"math/bits"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/projection"
)

// The events of a partition are counted off in blocks. When one is complete, a row of the store
// says which ids its events name, as a Bloom filter, so that the events of an id are found without
// reading those of all others. It is a function of the block's events alone, and no state of the
// partition depends on it: a block without a row is read.

// blockEvents is how many events a block has. Larger ones make the index smaller, and what a
// filter takes for there more to read.
var blockEvents uint64 = 1024 // tests make it smaller, before anything else

// blockOf is the number of the block that has event n.
func blockOf(n uint64) uint64 { return (max(n, 1) - 1) / blockEvents }

// blockFirst is the first event of a block.
func blockFirst(b uint64) uint64 { return b*blockEvents + 1 }

func blockKey(b uint64) []byte { return projection.AppendUint64(nil, b) }

// block gathers what the block at hand names.
type block struct {
	n     uint64           // last event that was noted
	whole bool             // since the first event of the block
	names []uint64         // hashes
	types byte             // see typeBit
	done  []projection.Row // of blocks that are complete, and not yet given to the store
	// dropped are rows to delete: the log has nothing of their blocks any more.
	dropped []projection.Row
}

// blockAt begins with the block in which a store that stands at event n goes on.
func blockAt(n uint64) block { return block{n: n - n%blockEvents, whole: true} }

// note takes the events in order. Those that it has had are left out; where one is missing, the
// block gets no row.
func (b *block) note(e *eventlog.Event) {
	switch {
	case e.N <= b.n:
		return
	case e.N == blockFirst(blockOf(e.N)):
		b.whole, b.names, b.types = true, b.names[:0], 0
	case e.N != b.n+1:
		b.whole = false
	}
	if b.n = e.N; !b.whole {
		return
	}
	if e.ID != "" {
		b.name(hashOf(e.ID))
	}
	b.types |= typeBit(e.Type)
	if e.Pos != nil {
		for k := range e.Pos.Refused {
			b.name(hashOf(e.Pos.Refused[k].ID))
		}
	}
	if e.N%blockEvents == 0 {
		slices.Sort(b.names)
		b.names = slices.Compact(b.names)
		b.done = append(b.done, projection.Row{Kind: projection.KindBlock, Key: blockKey(blockOf(e.N)), Value: encodeNames(b.names, b.types)})
	}
}

func (b *block) name(h uint64) {
	if n := len(b.names); n == 0 || b.names[n-1] != h { // events of an instance often follow each other
		b.names = append(b.names, h)
	}
}

func hashOf(id string) uint64 { return xxhash.Sum64String(id) }

// typeBit is set for a block with events of a type that concern all ids.
func typeBit(t eventlog.Type) byte {
	switch t {
	case eventlog.PlanUsed:
		return 1
	case eventlog.PartitionOwned:
		return 2
	}
	return 0
}

const (
	formatNames = 2  // 1 had larger blocks
	nameBits    = 12 // bits of a filter for each name: one in 300 others is taken for there
	nameProbes  = 8
	leastNames  = 8 // bytes of a filter: in fewer, eight probes of one name are most of the bits
)

// encodeNames makes the value of a row: the format, the types, the filter of different hashes.
func encodeNames(hashes []uint64, types byte) []byte {
	size := 0
	if len(hashes) > 0 {
		size = max((len(hashes)*nameBits+7)/8, leastNames)
	}
	value := make([]byte, 2+size)
	value[0], value[1] = formatNames, types
	filter := value[2:]
	for _, h := range hashes {
		for p := range probes(h, len(filter)) {
			filter[p>>3] |= 1 << (p & 7)
		}
	}
	return value
}

// mayName says whether a block has events of some types, or may name an id. What can't be read may
// have all.
func mayName(value []byte, hash uint64, types byte) bool {
	if len(value) < 2 || value[0] != formatNames || value[1]&types != 0 {
		return true
	}
	filter := value[2:]
	for p := range probes(hash, len(filter)) {
		if filter[p>>3]&(1<<(p&7)) == 0 {
			return false
		}
	}
	return len(filter) > 0
}

// probes are the bits of a hash in a filter of so many bytes. Each is of a hash of the one before:
// in equal steps, which are cheaper, those of one id in thousands would be next to each other, and
// it would be taken for there ten times as often.
func probes(h uint64, size int) func(yield func(uint64) bool) {
	return func(yield func(uint64) bool) {
		for range nameProbes {
			if size == 0 {
				return
			}
			p, _ := bits.Mul64(h, uint64(size)*8)
			if !yield(p) {
				return
			}
			h = (h ^ h>>32) * 0xd6e8feb86659fd93
		}
	}
}

// dropEvery is how often an owner looks for blocks that the log has dropped.
const dropEvery = time.Hour

// dropped are rows of blocks that the log has dropped since it was asked last. They would cost
// space, and nothing else.
func (r *runner) dropped() []projection.Row {
	if now := time.Now(); now.Sub(r.dropsLook) >= dropEvery {
		r.dropsLook = now
	} else {
		return nil
	}
	first, err := r.firstEvent()
	var rows []projection.Row
	if err == nil && blockOf(first) > 0 {
		rows, _, err = r.store.Scan(r.life, projection.KindBlock, nil, blockKey(blockOf(first)), 0)
	}
	if err != nil {
		r.logger.Warn("look for blocks that the log has dropped", "err", err)
	}
	for k := range rows {
		rows[k].Value = nil
	}
	return rows
}
