package aerospike

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// TestRealServerIsLikeFake makes the same changes and reads on a server and on the fake.
func TestRealServerIsLikeFake(t *testing.T) {
	server := needServer(t).withSet(t)
	there, fake := server.cluster(t, server.addr), newFake().connect()
	rnd := seeded(t)
	for range 1500 {
		changes := randomChanges(rnd)
		var clones []change
		for i := range changes {
			clones = append(clones, *copyOf(&changes[i]))
		}
		got, err := there.change(t.Context(), changes)
		if err != nil {
			t.Fatalf("%+v: %v", changes, err)
		}
		want, err := fake.change(t.Context(), clones)
		if err != nil {
			t.Fatal(err)
		}
		for i := range changes {
			if !sameResult(&changes[i], &got[i], &want[i]) {
				t.Fatalf("change %+v: the server says %+v, the fake %+v", clones[i], got[i], want[i])
			}
		}
		reads := randomReads(rnd)
		have, err := there.read(t.Context(), reads)
		if err != nil {
			t.Fatalf("%+v: %v", reads, err)
		}
		copies, err := fake.read(t.Context(), reads)
		if err != nil {
			t.Fatal(err)
		}
		for i := range reads {
			if !sameRecord(have[i], copies[i]) {
				t.Fatalf("read %+v: the server has %+v, the fake %+v", reads[i], have[i], copies[i])
			}
		}
	}
}

// randomKeys are in order, which is hard to keep, and some are hard to keep at all.
var randomKeys = []string{"", "\x00", "\x00\xff", "a", "a\x00", "ab", "b", "\x7f", "\x80", "é", "\xff", "\xff\xff"}

func randomChanges(rnd *rand.Rand) (changes []change) {
	for _, k := range rnd.Perm(6)[:1+rnd.IntN(4)] {
		c := change{key: fmt.Sprintf("like/%d", k), mode: mode(rnd.IntN(4))}
		if c.mode == remove {
			changes = append(changes, c)
			continue
		}
		switch rnd.IntN(4) {
		case 0:
			c.older = int64(1 + rnd.IntN(20))
		case 1:
			c.token = int64(1 + rnd.IntN(4))
		}
		c.put = []bin{{binN, int64(rnd.IntN(20))}, {binToken, int64(1 + rnd.IntN(4))}}
		if c.wantBlob = rnd.IntN(3) == 0; rnd.IntN(3) == 0 {
			c.put = append(c.put, bin{binBlob, []byte{1, byte(rnd.IntN(9))}})
		}
		if k < 3 { // a page
			c.wantOld = rnd.IntN(2) == 0
			used := rnd.Perm(len(randomKeys))
			for _, x := range used[:rnd.IntN(4)] {
				c.del = append(c.del, randomKeys[x])
			}
			for _, x := range used[4 : 4+rnd.IntN(5)] {
				c.add = append(c.add, entry{randomKeys[x], []byte{byte(rnd.IntN(256))}[:rnd.IntN(2)]})
			}
			if rnd.IntN(4) == 0 {
				c.cut = &randomKeys[rnd.IntN(len(randomKeys))]
			}
		} else {
			c.put = append(c.put, bin{binValue, []byte(randomKeys[rnd.IntN(len(randomKeys))])}, bin{"text", randomKeys[rnd.IntN(len(randomKeys))]})
		}
		changes = append(changes, c)
	}
	return changes
}

func randomReads(rnd *rand.Rand) (reads []read) {
	for k := range 6 {
		r := read{key: fmt.Sprintf("like/%d", k)}
		switch rnd.IntN(4) {
		case 0:
			r.bins = []string{binN, binToken, binBlob, binValue, "text"}
		case 1:
			begin := rnd.IntN(len(randomKeys))
			if r.span = (&span{from: randomKeys[begin]}); rnd.IntN(2) == 0 {
				r.span.to = &randomKeys[begin+rnd.IntN(len(randomKeys)-begin)]
			}
		case 2:
			for _, x := range rnd.Perm(len(randomKeys))[:1+rnd.IntN(5)] {
				r.keys = append(r.keys, randomKeys[x])
			}
		}
		reads = append(reads, r)
	}
	return reads
}

// sameResult compares what two servers say of a change. What a change of no page says of its size
// means nothing.
func sameResult(c *change, a, b *result) bool {
	old := func(r *result) []entry {
		list := slices.Clone(r.old)
		slices.SortFunc(list, byKey)
		return list
	}
	return a.code == b.code && (a.code != codeOK || (!c.isPage() || a.size == b.size) &&
		slices.EqualFunc(old(a), old(b), sameEntry) && bytes.Equal(a.blob, b.blob))
}

func sameEntry(a, b entry) bool { return a.key == b.key && bytes.Equal(a.value, b.value) }

func sameRecord(a, b *record) bool {
	if a == nil || b == nil {
		return a == b
	}
	return reflect.DeepEqual(a.bins, b.bins) && slices.EqualFunc(a.entries, b.entries, sameEntry)
}
