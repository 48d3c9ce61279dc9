package machine

import (
	"math/rand/v2"
	"slices"
	"time"
)

// tape is randomness that is written down, so that a run can be played again with less of it.
type tape struct {
	from *rand.PCG // nil when it is played
	l    []uint64
	at   int
}

func newTape(seed uint64) *tape { return &tape{from: rand.NewPCG(seed, 2)} }

// plain is from the middle: most that has a chance does not happen.
const plain = 0x80000001 << 32

// Uint64 is the next number.
func (t *tape) Uint64() uint64 {
	if t.at == len(t.l) {
		if t.from == nil {
			return plain
		}
		t.l = append(t.l, t.from.Uint64())
	}
	t.at++
	return t.l[t.at-1]
}

// ended says that a tape that is played has come to its end.
func (t *tape) ended() bool { return t.from == nil && t.at == len(t.l) }

// shrink looks for a shorter tape that fails too, for at most some seconds.
func shrink(l []uint64, fails func(*tape) error) (shortest []uint64, err error) {
	until := time.Now().Add(20 * time.Second)
	try := func(c []uint64) bool {
		if time.Now().After(until) {
			return false
		}
		t := &tape{l: slices.Clone(c)}
		if e := fails(t); e != nil {
			l, err = c[:min(len(c), t.at)], e
			return true
		}
		return false
	}
	try(l)
	for smaller := true; smaller; {
		smaller = false
		for size := len(l); size > 0; size /= 2 {
			for at := len(l) - size; at >= 0; at -= size {
				if at+size <= len(l) && try(slices.Delete(slices.Clone(l), at, at+size)) {
					smaller = true
				}
			}
		}
		for at := range len(l) {
			if at < len(l) && l[at] != plain {
				c := slices.Clone(l)
				c[at] = plain
				smaller = try(c) || smaller
			}
		}
	}
	return l, err
}
