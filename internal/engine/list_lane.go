package engine

import (
	"bytes"
	"context"
	"math"
	"slices"
	"strings"

	"github.com/godagger/dagger/projection"
)

// lane is a part of an index of one partition in which entries are in the order of a list, as
// far as it was read.
type lane struct {
	kind     projection.Kind
	prefix   []byte   // of the keys
	from, to []byte   // what is left
	ended    bool     // nothing is
	upTo     position // of the last row, whether it was looked for or not
	found    []listed
	next     int // rows to read next
}

// newLane is what lies behind a position.
func newLane(kind projection.Kind, prefix []byte, after position) *lane {
	l := &lane{kind: kind, prefix: prefix, from: prefix, to: projection.PrefixEnd(prefix)}
	if after.ID != "" {
		l.from = append(append(slices.Clone(prefix), listAllKey(after.Created, after.ID)...), 0)
	}
	return l
}

// scanPage is how many rows are read in one call at most, where all are.
const scanPage = 1000

// extend reads the next n rows, and finds those whose id begins with a prefix.
func (l *lane) extend(ctx context.Context, v projection.View, idPrefix string, n int) (at uint64, err error) {
	rows, at, err := v.Scan(ctx, l.kind, l.from, l.to, n)
	if err != nil {
		return 0, err
	}
	for _, row := range rows {
		k := keyReader{rest: row.Key[len(l.prefix):]}
		created := k.int64()
		if err := k.lost("list"); err != nil {
			return 0, err
		}
		l.upTo = position{Created: created, ID: string(k.rest)}
		if strings.HasPrefix(l.upTo.ID, idPrefix) {
			l.found = append(l.found, listed{position: l.upTo})
		}
	}
	if l.ended = len(rows) < n; !l.ended {
		l.from = append(bytes.Clone(rows[n-1].Key), 0)
	}
	return at, nil
}

// lacks says whether the first entries of all lanes, so many as are wanted, may have more of
// this one among them than was found, and sets how many rows are to be read for that.
func (l *lane) lacks(found []listed, wanted int, idPrefix string) bool {
	before := l.next
	l.next = 0
	if l.ended {
		return false
	}
	n, is := slices.BinarySearchFunc(found, l.upTo, func(x listed, p position) int { return x.compare(p) })
	if is {
		n++
	}
	if n >= wanted {
		return false // what is left of the lane lies behind all these
	}
	l.next = wanted - n
	if idPrefix != "" { // a row may be none that is looked for
		l.next = min(max(l.next, 4*before), scanPage)
	}
	return true
}

// fairShare is how many rows are read first where so many are expected on the page. Where ids
// are spread at random, few lanes have more.
func fairShare(expected float64, wanted int) int {
	return min(max(8, int(math.Ceil(expected+3*math.Sqrt(expected)))), wanted)
}
