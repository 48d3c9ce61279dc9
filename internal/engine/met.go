package engine

import "github.com/godagger/dagger/eventlog"

// met is what a fold that began with an empty store has met: of an instance or a correlation
// key that is new to it, the store has no row, and need not be asked. It is a Bloom filter, for
// a log may have more of both than fit in memory: it errs by asking in vain, for less than one
// of 100. It grows by layers, each twice as large as the one before.
type met struct {
	layers [][]uint64
	room   int // in the last layer
}

const (
	metBits  = 16      // for each entry
	metFirst = 1 << 13 // entries of the first layer
)

// instance notes an id and says whether it may have been noted before.
func (m *met) instance(id string) bool { return m.note(hashText(fnvBasis, id)) }

// key is instance for a correlation key.
func (m *met) key(k eventlog.KeyRef) bool {
	h := hashText(fnvBasis, k.Topic)
	h = hashText(h*fnvPrime, k.Key) // the multiplication sets the parts apart
	return m.note(hashText(h*fnvPrime, k.Value))
}

const (
	fnvBasis = 14695981039346656037
	fnvPrime = 1099511628211
)

// hashText is FNV-1a: the same in every run, as a run that a seed reproduces needs it.
func hashText(h uint64, s string) uint64 {
	for k := range len(s) {
		h = (h ^ uint64(s[k])) * fnvPrime
	}
	return h
}

func (m *met) note(h uint64) bool {
	// The finisher of splitmix64: FNV alone spreads its high bits badly.
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	h ^= h >> 31
	for _, bits := range m.layers {
		if metAt(bits, h, false) {
			return true
		}
	}
	if m.room == 0 {
		m.room = metFirst << len(m.layers)
		m.layers = append(m.layers, make([]uint64, m.room*metBits/64))
	}
	m.room--
	metAt(m.layers[len(m.layers)-1], h, true)
	return false
}

// metAt looks at the bits of a hash, or sets them; the size of a layer is a power of two.
func metAt(bits []uint64, h uint64, set bool) (all bool) {
	mask := uint64(len(bits)*64 - 1)
	step := h>>32 | 1
	all = true
	for range 6 {
		at := h & mask
		if set {
			bits[at/64] |= 1 << (at % 64)
		} else if bits[at/64]&(1<<(at%64)) == 0 {
			return false
		}
		h += step
	}
	return all
}
