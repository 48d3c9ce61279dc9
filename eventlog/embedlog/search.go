package embedlog

import (
	"context"
	"fmt"
	"time"

	"github.com/godagger/dagger/eventlog"
)

// OffsetAt finds the first offset of each partition whose record is not older than at.
func (l *Log) OffsetAt(ctx context.Context, name string, at time.Time) ([]int64, error) {
	t, err := l.whole(name)
	if err != nil {
		return nil, err
	}
	if err := l.enter(); err != nil {
		return nil, err
	}
	defer l.leave()
	offsets := make([]int64, len(t.parts))
	for i, p := range t.parts {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if offsets[i], err = l.offsetAt(p, at.UnixMilli()); err != nil {
			return nil, fmt.Errorf("search %s by time: %w", p, err)
		}
	}
	return offsets, nil
}

// offsetAt searches by halves for the first chunk up to which a record of that time exists,
// then reads on to the record.
func (l *Log) offsetAt(p *partition, at int64) (int64, error) {
	have := p.state()
	low, high := have.Start, have.End
	for low < high {
		mid := low + (high-low)/2
		var last, latest int64
		var bad error
		if err := l.chunks(p, mid, have.End, func(end int64, chunk []byte) bool {
			var t trailer
			t, bad = readTrailer(chunk)
			last, latest = end, t.latest
			return false
		}); err != nil {
			return 0, err
		}
		if bad != nil {
			return 0, fmt.Errorf("offset %d: %w", mid, bad)
		}
		if latest >= at {
			high = mid
		} else {
			low = last + 1
		}
	}
	found := have.End
	var bad error
	err := l.chunks(p, low, have.End, func(last int64, chunk []byte) bool {
		var records []eventlog.Record
		if records, bad = decodeChunk(nil, chunk, p.topic.name, p.index, last, low); bad != nil {
			bad = fmt.Errorf("offset %d: %w", last, bad)
			return false
		}
		for _, r := range records {
			if r.Offset >= have.Start && r.Time.UnixMilli() >= at {
				found = r.Offset
				return false
			}
		}
		return true
	})
	if err == nil {
		err = bad
	}
	return found, err
}

// chunks gives the chunks that hold offsets from <= offset < end.
func (l *Log) chunks(p *partition, from, end int64, f func(last int64, chunk []byte) bool) error {
	return l.store.scan(chunkKey(p.topic.Number, p.index, from), chunkKey(p.topic.Number, p.index, end),
		func(key, value []byte) bool { return f(chunkLast(key), value) })
}
