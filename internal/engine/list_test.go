package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/memstore"
)

// shelf is a store with instances that are where the test puts them: which partition an id
// belongs to does not matter to a list.
type shelf struct {
	projection.Store
	t     *testing.T
	parts []*shelfPart
}

// shelfPart is a partition. A list reads several at once, but each in one goroutine.
type shelfPart struct {
	projection.Partition
	shelf     *shelf
	n         uint64
	instances []*machine.Instance
	// Of the page that is read.
	scans, rows int
	shifts      int // how many instances may still change between two scans
	rnd         *rand.Rand
}

func newShelf(t *testing.T, partitions int32) *shelf {
	s := &shelf{t: t, Store: memstore.New(projection.Identity{App: "test", Partitions: partitions})}
	t.Cleanup(func() { s.Store.Close() })
	for p := range partitions {
		part, err := s.Acquire(t.Context(), p, 1)
		if err != nil {
			t.Fatal(err)
		}
		s.parts = append(s.parts, &shelfPart{Partition: part, shelf: s})
	}
	return s
}

func (s *shelf) View(_ context.Context, p int32) (projection.View, error) {
	return shelfView{s.parts[p]}, nil
}

type shelfView struct{ *shelfPart }

func (shelfView) Close() error { return nil }

func (v shelfView) Scan(ctx context.Context, kind projection.Kind, from, to []byte, limit int) ([]projection.Row, uint64, error) {
	v.shift()
	rows, at, err := v.Partition.Scan(ctx, kind, from, to, limit)
	if v.scans++; kind != projection.KindCount {
		v.rows += len(rows)
	}
	return rows, at, err
}

// shift gives an instance another status.
func (p *shelfPart) shift() {
	if p.shifts == 0 || len(p.instances) == 0 || p.rnd.IntN(3) > 0 {
		return
	}
	p.shifts--
	i := *p.instances[p.rnd.IntN(len(p.instances))]
	i.Status = shelfStatuses[p.rnd.IntN(len(shelfStatuses))]
	p.put(&i)
}

// put writes instances, in place of what they were.
func (p *shelfPart) put(changed ...*machine.Instance) {
	b := projection.Batch{Expected: p.n, New: projection.Watermark{N: p.n + 1, Epoch: 1, LogID: "log", Sum: 1}}
	for _, i := range changed {
		at := slices.IndexFunc(p.instances, func(x *machine.Instance) bool { return x.ID == i.ID })
		var old *machine.Instance
		if at < 0 {
			p.instances = append(p.instances, i)
		} else {
			old, p.instances[at] = p.instances[at], i
		}
		b.Put = append(b.Put, projection.Row{Kind: projection.KindInstance, Key: []byte(i.ID), Value: encodeRow(i)})
		index(i).diff(index(old), &b)
	}
	if err := p.Apply(context.Background(), b); err != nil {
		panic(err) // a list may be reading
	}
	p.n++
}

var shelfStatuses = []machine.Status{machine.Executing, machine.Completed, machine.Failure, machine.Stopped}

func listedInstance(id, definition string, status machine.Status, created int64) *machine.Instance {
	i := &machine.Instance{ID: id}
	i.Run, i.Definition, i.Status, i.Created = 1, definition, status, created
	return i
}

// randomShelf is a shelf with instances, some of the same time, spread evenly or not.
func randomShelf(t *testing.T, rnd *rand.Rand) *shelf {
	s := newShelf(t, 1+rnd.Int32N(20))
	skew, definitions, moments := rnd.Float64()*6, 1+rnd.IntN(4), 1+rnd.Int64N(2000)
	made := map[int][]*machine.Instance{}
	for k := range rnd.IntN(1500) {
		p := int(math.Pow(rnd.Float64(), 1+skew) * float64(len(s.parts)))
		i := listedInstance(fmt.Sprintf("%s-%d", []string{"order", "offer", "o"}[rnd.IntN(3)], k), fmt.Sprintf("D%d", rnd.IntN(definitions)),
			shelfStatuses[int(math.Pow(rnd.Float64(), 3)*float64(len(shelfStatuses)))], rnd.Int64N(moments))
		if rnd.IntN(3) == 0 && k > 0 { // a partition has much of one time
			i.Created = moments/2 + int64(p)
		}
		made[p] = append(made[p], i)
	}
	for p, l := range made {
		s.parts[p].put(l...)
	}
	return s
}

// all are the instances that a filter chooses, in the order of a list.
func (s *shelf) all(f Filter) (l []*machine.Instance) {
	for _, p := range s.parts {
		for _, i := range p.instances {
			if f.matches(i) && strings.HasPrefix(i.ID, f.IDPrefix) {
				l = append(l, i)
			}
		}
	}
	slices.SortFunc(l, func(a, b *machine.Instance) int {
		return position{Created: a.Created, ID: a.ID}.compare(position{Created: b.Created, ID: b.ID})
	})
	return l
}

func (s *shelf) partitions() (l []int32) {
	for p := range s.parts {
		l = append(l, int32(p))
	}
	return l
}

func names(l []*machine.Instance) (out []string) {
	for _, i := range l {
		out = append(out, fmt.Sprintf("%d %s %s %s", i.Created, i.ID, i.Definition, i.Status))
	}
	return out
}

func randomFilter(rnd *rand.Rand) Filter {
	f := Filter{Limit: 1 + rnd.IntN(120)}
	if rnd.IntN(2) == 0 {
		f.Definition = fmt.Sprintf("D%d", rnd.IntN(4))
	}
	if rnd.IntN(2) == 0 {
		f.Status = string(shelfStatuses[rnd.IntN(len(shelfStatuses))])
	}
	if rnd.IntN(3) == 0 {
		f.IDPrefix = []string{"o", "order-", "order-1", "offer-12", "none"}[rnd.IntN(5)]
	}
	return f
}

// seededList is a random source whose seed is printed when the test fails; LIST_SEED repeats it.
func seededList(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("LIST_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with LIST_SEED=%d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 0))
}

// TestListIsTheMerge: however instances are spread over partitions, definitions and statuses,
// the pages of a list are what a merge of everything has, whole, and counts are its numbers.
func TestListIsTheMerge(t *testing.T) {
	rnd := seededList(t)
	for range 30 {
		s := randomShelf(t, rnd)
		for range 6 {
			f := randomFilter(rnd)
			want := s.all(f)
			for page := 0; ; page++ {
				for _, p := range s.parts {
					p.scans = 0
				}
				got, err := readList(t.Context(), s, s.partitions(), f)
				if err != nil {
					t.Fatal(err)
				}
				n := min(f.Limit, len(want))
				if diff := cmp.Diff(names(want[:n]), names(got.Instances)); diff != "" {
					t.Fatalf("page %d of %+v of %d partitions (-want +got):\n%s", page, f, len(s.parts), diff)
				}
				want = want[n:]
				for p, x := range s.parts {
					if got.AsOf[int32(p)] != x.n {
						t.Fatalf("as of %v, partition %d stands at %d", got.AsOf, p, x.n)
					}
					// The counters, and each lane twice.
					if most := 1 + 2*4*len(shelfStatuses); f.IDPrefix == "" && x.scans > most || f.Definition+f.Status+f.IDPrefix == "" && x.scans > 2 {
						t.Fatalf("%d scans of partition %d for a page of %+v", x.scans, p, f)
					}
				}
				if (got.Cursor == "") != (len(want) == 0) {
					t.Fatalf("cursor %q behind page %d of %+v, %d are left", got.Cursor, page, f, len(want))
				}
				if f.Cursor = got.Cursor; f.Cursor == "" {
					break
				}
			}
			counts := map[string]int64{}
			for _, i := range s.all(f) {
				counts[i.Definition+"/"+i.StatusName()]++
			}
			got, asOf, err := readCount(t.Context(), s, s.partitions(), f)
			if err != nil || !maps.Equal(got, counts) || len(asOf) != len(s.parts) {
				t.Fatalf("counts of %+v: %v as of %v, %v; want %v", f, got, asOf, err, counts)
			}
		}
	}
}

// TestListOfLargeInstances: a page of large ones has fewer, in this store and in what peers
// answer, and the pages together have all, in their order, each once.
func TestListOfLargeInstances(t *testing.T) {
	rnd := seededList(t)
	s := newShelf(t, 6)
	for k := range 60 {
		i := listedInstance(fmt.Sprintf("i-%d", k), "D", machine.Executing, rnd.Int64N(50))
		size := rnd.IntN(400_000)
		if k == 20 {
			size = pageBytes // more than a page has
		}
		i.Params = json.RawMessage(`"` + strings.Repeat("x", size) + `"`)
		s.parts[rnd.IntN(len(s.parts))].put(i)
	}
	f := Filter{Limit: 1000}
	want := names(s.all(f))
	for _, workers := range [][][]int32{{{0, 1, 2, 3, 4, 5}}, {{0}, {1, 2}, {3, 4, 5}}} {
		var got []string
		for f.Cursor = ""; ; {
			var all entries
			for _, partitions := range workers {
				x, err := readEntries(t.Context(), s, partitions, f)
				if err != nil {
					t.Fatal(err)
				}
				size := 0
				for _, l := range x.Found {
					size += len(encodeRow(l.Instance))
				}
				if size > pageBytes && len(x.Found) > 1 {
					t.Errorf("%d instances with %d bytes on a page", len(x.Found), size)
				}
				data, err := json.Marshal(x) // as a peer answers
				if err != nil || len(data) > maxPeerAnswer {
					t.Fatal(len(data), err)
				}
				var answer entries
				if err := json.Unmarshal(data, &answer); err != nil {
					t.Fatal(err)
				}
				all.add(answer)
			}
			page := all.page(f)
			got = append(got, names(page.Instances)...)
			if f.Cursor = page.Cursor; f.Cursor == "" {
				break
			}
			if len(page.Instances) == 0 {
				t.Fatal("an empty page that is not the last")
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%v (-want +got):\n%s", workers, diff)
		}
	}
}

// TestListAsksFairShares: of instances that are spread evenly, a page of 100 reads some more
// index rows than it shows, not a page of each partition.
func TestListAsksFairShares(t *testing.T) {
	s := newShelf(t, 16)
	made := make([][]*machine.Instance, len(s.parts))
	for k := range 16_000 {
		i := listedInstance(fmt.Sprintf("i-%d", k), "D", machine.Executing, int64(k))
		p := eventlog.PartitionOf(i.ID, int32(len(made)))
		made[p] = append(made[p], i)
	}
	for p, l := range made {
		s.parts[p].put(l...)
	}
	for _, f := range []Filter{{}, {Status: "EXECUTING"}, {Definition: "D"}, {Definition: "D", Status: "EXECUTING"}, {IDPrefix: "i-"}} {
		rows, pages := 0, 0
		for ; pages < 20; pages++ {
			page, err := readList(t.Context(), s, s.partitions(), f)
			if err != nil {
				t.Fatal(err)
			}
			f.Cursor = page.Cursor
		}
		for _, p := range s.parts {
			rows, p.rows = rows+p.rows, 0
		}
		if rows > 260*pages {
			t.Errorf("%+v: %d index rows for %d pages of 100", f, rows, pages)
		}
	}
}

// TestListWhileStatusesChange: instances that change their status between the looks at two
// statuses are in a list of their definition all the same, and once.
func TestListWhileStatusesChange(t *testing.T) {
	rnd := seededList(t)
	for range 30 {
		s := randomShelf(t, rnd)
		f := Filter{Definition: "D0", Limit: 1 + rnd.IntN(120)}
		var want, got []string
		for _, i := range s.all(f) {
			want = append(want, i.ID)
		}
		for {
			for _, p := range s.parts {
				p.shifts, p.rnd = tornTries, rand.New(rand.NewPCG(rnd.Uint64(), 0))
			}
			page, err := readList(t.Context(), s, s.partitions(), f)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range page.Instances {
				got = append(got, i.ID)
			}
			if f.Cursor = page.Cursor; f.Cursor == "" {
				break
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("pages of %d of %d partitions (-want +got):\n%s", f.Limit, len(s.parts), diff)
		}
	}
}
