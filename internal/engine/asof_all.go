package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
)

// Past is all instances as of a point. It holds them in memory.
type Past struct {
	asOf  map[int32]uint64
	views map[int32]*pastView
}

// ReadPast folds the log from its beginning up to a point. progress (or nil) is told how many
// offsets of a partition are read.
func ReadPast(ctx context.Context, log eventlog.Log, p Point, progress func(partition int32, done int64)) (*Past, error) {
	if p.by == pointEvent || p.by == pointOffset {
		return nil, fmt.Errorf("%w: it names one partition; give a time, or a number for each partition", ErrPoint)
	}
	if err := p.fits(log.Partitions()); err != nil {
		return nil, err
	}
	past := &Past{asOf: map[int32]uint64{}, views: map[int32]*pastView{}}
	for partition := range log.Partitions() {
		v, err := foldPast(ctx, log, partition, p.of(partition), func(done, _ int64) {
			if progress != nil {
				progress(partition, done)
			}
		})
		if err != nil {
			return nil, fmt.Errorf("fold partition %d: %w", partition, err)
		}
		past.views[partition], past.asOf[partition] = v, v.n
	}
	return past, nil
}

// foldPast folds a partition as a rebuild would, into memory.
func foldPast(ctx context.Context, log eventlog.Log, partition int32, p Point, progress func(done, total int64)) (*pastView, error) {
	s, err := newFinder(ctx, log, partition)
	if err != nil {
		return nil, err
	}
	x, err := s.last(ctx, p)
	if err != nil {
		return nil, err
	}
	v := &pastView{rows: map[projection.Kind]map[string][]byte{}, n: x.n}
	if x.n == 0 {
		return v, nil
	}
	f, err := newFolder(ctx, log, nil, partition)
	if err != nil {
		return nil, err
	}
	defer f.close()
	f.target, f.progress = x.n, progress
	m := newScratch()
	if err := f.run(func(next op) result { return m.do(f.r, next) }); err != nil {
		return nil, err
	}
	if f.r.o.st.N < x.n {
		return nil, fmt.Errorf("the log ends at event %d, event %d is wanted", f.r.o.st.N, x.n)
	}
	m.apply(f.r.o.batch())
	for _, kind := range []projection.Kind{projection.KindInstance, projection.KindList, projection.KindListAll} {
		v.rows[kind] = m.rows[kind]
	}
	counts := map[string][]byte{}
	for key, n := range m.counts {
		counts[key] = strconv.AppendInt(nil, n, 10)
	}
	v.rows[projection.KindCount] = counts
	return v, nil
}

// AsOf is the number of the last event that counts, by partition.
func (p *Past) AsOf() map[int32]uint64 { return p.asOf }

// List is Engine.List as of the point.
func (p *Past) List(ctx context.Context, f Filter) (Page, error) {
	f.AtLeast = nil
	return readList(ctx, p, p.partitions(), f)
}

// Count is Engine.Count as of the point.
func (p *Past) Count(ctx context.Context, f Filter) (map[string]int64, error) {
	f.AtLeast = nil
	counts, _, err := readCount(ctx, p, p.partitions(), f)
	return counts, err
}

// Get is an instance as of the point, or ErrNotFound.
func (p *Past) Get(id string) (*machine.Instance, error) {
	value := p.views[eventlog.PartitionOf(id, int32(len(p.views)))].rows[projection.KindInstance][id]
	if value == nil {
		return nil, ErrNotFound
	}
	i := &machine.Instance{}
	if err := decodeRow(value, i); err != nil {
		return nil, err
	}
	if i.Run == 0 && i.Quarantined == "" {
		return nil, ErrNotFound
	}
	return i, nil
}

func (p *Past) partitions() []int32 {
	var l []int32
	for k := range p.views {
		l = append(l, k)
	}
	slices.Sort(l)
	return l
}

// View makes a Past what lists read.
func (p *Past) View(_ context.Context, partition int32) (projection.View, error) {
	return p.views[partition], nil
}

// viewer is the part of a store that lists and counts read.
type viewer interface {
	View(ctx context.Context, partition int32) (projection.View, error)
}

// pastView reads the rows of a partition in memory.
type pastView struct {
	rows map[projection.Kind]map[string][]byte
	keys map[projection.Kind][]string // in order
	n    uint64
}

func (v *pastView) Watermark(context.Context) (projection.Watermark, error) {
	return projection.Watermark{N: v.n}, nil
}

func (v *pastView) Get(_ context.Context, kind projection.Kind, keys [][]byte) (values [][]byte, at uint64, err error) {
	for _, k := range keys {
		values = append(values, v.rows[kind][string(k)])
	}
	return values, v.n, nil
}

func (v *pastView) Scan(_ context.Context, kind projection.Kind, from, to []byte, limit int) (rows []projection.Row, at uint64, err error) {
	if v.keys == nil {
		v.keys = map[projection.Kind][]string{}
	}
	keys, sorted := v.keys[kind]
	if !sorted {
		for k := range v.rows[kind] {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		v.keys[kind] = keys
	}
	k, _ := slices.BinarySearch(keys, string(from))
	for ; k < len(keys) && (to == nil || keys[k] < string(to)) && (limit == 0 || len(rows) < limit); k++ {
		rows = append(rows, projection.Row{Kind: kind, Key: []byte(keys[k]), Value: v.rows[kind][keys[k]]})
	}
	return rows, v.n, nil
}

func (v *pastView) Dump(context.Context, func(projection.Row) error) error {
	return errors.New("engine: a past is not dumped")
}

func (v *pastView) Close() error { return nil }
