package projection

import (
	"bytes"
	"context"
	"errors"
)

// ErrMoves: the partition changes so fast that it can't be read whole as of one event.
var ErrMoves = errors.New("projection: the partition moves while it is read")

// Dumper is implemented by a View whose Dump can tell the watermark of its rows.
type Dumper interface {
	// DumpAt is Dump, and returns the watermark to which the rows belong.
	DumpAt(ctx context.Context, f func(Row) error) (Watermark, error)
}

// dumpTries is how often a view that is no Dumper is read before it is called moving.
const dumpTries = 5

// DumpAt calls f with every row of a partition, ordered by kind and key, and returns the watermark
// to which they belong. f must neither keep the slices nor use the partition. If the view is no
// Dumper, all rows are read into memory before f is called, and the error is ErrMoves if the
// partition changes all the time.
func DumpAt(ctx context.Context, v View, f func(Row) error) (Watermark, error) {
	if d, ok := v.(Dumper); ok {
		return d.DumpAt(ctx, f)
	}
	for range dumpTries {
		before, err := v.Watermark(ctx)
		if err != nil {
			return Watermark{}, err
		}
		var rows []Row
		if err := v.Dump(ctx, func(r Row) error {
			rows = append(rows, Row{Kind: r.Kind, Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value)})
			return nil
		}); err != nil {
			return Watermark{}, err
		}
		after, err := v.Watermark(ctx)
		if err != nil {
			return Watermark{}, err
		}
		if after != before {
			continue
		}
		for _, r := range rows {
			if err := f(r); err != nil {
				return Watermark{}, err
			}
		}
		return after, nil
	}
	return Watermark{}, ErrMoves
}
