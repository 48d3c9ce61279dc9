package memstore

import (
	"slices"
	"sort"
)

// ordered is a map with ordered keys: sorted blocks of at most blockLen entries, so that an
// insertion moves one block and not everything.
type ordered struct {
	blocks [][]entry
	n      int
}

type entry struct {
	key   string
	value []byte
}

const blockLen = 256

// find returns the place of the first key >= key, in the last block at its end when there is
// none, and whether the key itself is there.
func (o *ordered) find(key string) (block, i int, found bool) {
	block = sort.Search(len(o.blocks), func(b int) bool {
		return o.blocks[b][len(o.blocks[b])-1].key >= key
	})
	if block == len(o.blocks) {
		if block == 0 {
			return 0, 0, false
		}
		return block - 1, len(o.blocks[block-1]), false
	}
	entries := o.blocks[block]
	i = sort.Search(len(entries), func(i int) bool { return entries[i].key >= key })
	return block, i, entries[i].key == key
}

func (o *ordered) get(key string) (value []byte, found bool) {
	b, i, found := o.find(key)
	if !found {
		return nil, false
	}
	return o.blocks[b][i].value, true
}

// put keeps value and returns the one that was there.
func (o *ordered) put(key string, value []byte) (old []byte, had bool) {
	b, i, found := o.find(key)
	if found {
		old = o.blocks[b][i].value
		o.blocks[b][i].value = value
		return old, true
	}
	o.n++
	if len(o.blocks) == 0 {
		o.blocks = [][]entry{{{key, value}}}
		return nil, false
	}
	o.blocks[b] = slices.Insert(o.blocks[b], i, entry{key, value})
	if full := o.blocks[b]; len(full) > blockLen {
		o.blocks[b] = slices.Clone(full[:blockLen/2])
		o.blocks = slices.Insert(o.blocks, b+1, slices.Clone(full[blockLen/2:]))
	}
	return nil, false
}

// del removes key and returns the value that was there.
func (o *ordered) del(key string) (old []byte, had bool) {
	b, i, found := o.find(key)
	if !found {
		return nil, false
	}
	old = o.blocks[b][i].value
	o.blocks[b] = slices.Delete(o.blocks[b], i, i+1)
	if len(o.blocks[b]) == 0 {
		o.blocks = slices.Delete(o.blocks, b, b+1)
	}
	o.n--
	return old, true
}

// each calls f for the entries from the first key >= from on, until f returns false.
func (o *ordered) each(from string, f func(entry) bool) {
	b, i, _ := o.find(from)
	for ; b < len(o.blocks); b, i = b+1, 0 {
		for ; i < len(o.blocks[b]); i++ {
			if !f(o.blocks[b][i]) {
				return
			}
		}
	}
}
