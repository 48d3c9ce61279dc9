package embedlog

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"sync"

	"github.com/godagger/dagger/eventlog"
)

// Bounds of what one call of Next returns; at least one chunk. The first call returns less: who
// looks for a record needs few.
const (
	firstBytes  = 1 << 16
	readBytes   = 1 << 20
	readRecords = 4096
)

// reader reads one partition.
type reader struct {
	log  *Log
	p    *partition
	next int64
	most int // bytes of the next call

	once   sync.Once
	closed chan struct{}
}

// Read reads a partition from an offset on. Both isolations are the same here: only what
// is committed is in the log.
func (l *Log) Read(ctx context.Context, name string, partition int32, from int64, topicID string, _ eventlog.Isolation) (eventlog.Reader, error) {
	if err := l.check(ctx); err != nil {
		return nil, err
	}
	t, err := l.topic(name)
	if err != nil {
		return nil, err
	}
	if topicID != "" && topicID != t.ID {
		return nil, fmt.Errorf("%w: %s has id %s, not %s", eventlog.ErrTopicChanged, name, t.ID, topicID)
	}
	p, err := t.partition(partition)
	if err != nil {
		return nil, err
	}
	have := p.state()
	if from < have.Start {
		return nil, fmt.Errorf("%w: %s begins at %d, not %d", eventlog.ErrOffsetGone, p, have.Start, from)
	}
	if from > have.End {
		return nil, fmt.Errorf("read %s: offset %d is beyond the end %d", p, from, have.End)
	}
	return &reader{log: l, p: p, next: from, most: firstBytes, closed: make(chan struct{})}, nil
}

// Next waits for records and returns about a megabyte of them, the first time less.
func (r *reader) Next(ctx context.Context) ([]eventlog.Record, int64, error) {
	for {
		if err := r.log.check(ctx); err != nil {
			return nil, r.next, err
		}
		select {
		case <-r.closed:
			return nil, r.next, eventlog.ErrClosed
		default:
		}
		if err := r.topicGone(); err != nil {
			return nil, r.next, err
		}
		p := r.p
		p.mu.Lock()
		start, end := p.start, p.end
		if r.next < start {
			p.mu.Unlock()
			return nil, r.next, fmt.Errorf("%w: %s begins at %d, not %d", eventlog.ErrOffsetGone, p, start, r.next)
		}
		if r.next >= end {
			changed := p.wait()
			p.mu.Unlock()
			select {
			case <-changed:
			case <-r.closed:
			case <-r.log.closing:
			case <-ctx.Done():
			}
			continue
		}
		var recent []ringChunk
		if len(p.ring) > 0 && p.ring[0].first <= r.next {
			recent = p.recent(r.next)
		}
		p.mu.Unlock()

		records, err := r.read(recent, end)
		if err != nil && len(records) == 0 { // else the next call meets it
			return nil, r.next, err
		}
		if len(records) == 0 {
			if r.p.state().Start > r.next || r.p.topic.isDeleted() {
				continue // deleted meanwhile: the next round says so
			}
			return nil, r.next, fmt.Errorf("read %s at offset %d: records are missing", r.p, r.next)
		}
		r.next = records[len(records)-1].Offset + 1
		r.most = min(4*r.most, readBytes)
		return records, r.next, nil
	}
}

// recent copies the list of the newest chunks that hold from and what follows. Needs mu.
func (p *partition) recent(from int64) []ringChunk {
	i := sort.Search(len(p.ring), func(i int) bool { return p.ring[i].last >= from })
	j, count, size := i, 0, 0
	for j < len(p.ring) && count < readRecords && size < readBytes {
		count += int(p.ring[j].last - p.ring[j].first + 1)
		size += len(p.ring[j].data)
		j++
	}
	return slices.Clone(p.ring[i:j])
}

func (r *reader) read(recent []ringChunk, end int64) (records []eventlog.Record, err error) {
	size, next := 0, r.next
	add := func(last int64, chunk []byte) bool {
		size += len(chunk)
		have := len(records)
		if records == nil {
			records = make([]eventlog.Record, 0, expected(chunk, end-next, int64(r.most)))
		}
		// The caller owns what it gets, and may change it.
		records, err = decodeChunk(records, slices.Clone(chunk), r.p.topic.name, r.p.index, last, next)
		if err != nil {
			records = records[:have]
			err = fmt.Errorf("read %s at offset %d: %w", r.p, next, err)
			return false
		}
		if len(records) == have || records[have].Offset != next {
			records = records[:have]
			err = fmt.Errorf("read %s at offset %d: records are missing", r.p, next)
			return false
		}
		next = last + 1
		return size < r.most && len(records) < readRecords
	}
	for _, c := range recent {
		if !add(c.last, c.data) {
			break
		}
	}
	if recent != nil || err != nil {
		return records, err
	}
	if err := r.log.enter(); err != nil {
		return nil, err
	}
	defer r.log.leave()
	if scanErr := r.log.chunks(r.p, r.next, end, add); scanErr != nil && err == nil {
		err = fmt.Errorf("read %s at offset %d: %w", r.p, next, scanErr)
	}
	if err != nil {
		if gone := r.p.state(); gone.Start > r.next {
			return nil, nil
		}
	}
	return records, err
}

// expected is how many records one call is likely to return, judged by its first chunk.
func expected(chunk []byte, most, bytes int64) int64 {
	t, err := readTrailer(chunk)
	if err != nil {
		return 0
	}
	return min(most, readRecords+int64(t.count), int64(t.count)*(1+bytes/int64(len(chunk))))
}

// topicGone fails when the topic was deleted.
func (r *reader) topicGone() error {
	if !r.p.topic.isDeleted() {
		return nil
	}
	if _, err := r.log.topic(r.p.topic.name); err != nil {
		return err
	}
	return fmt.Errorf("%w: %s", eventlog.ErrTopicChanged, r.p.topic.name)
}

// Close ends a waiting Next with ErrClosed.
func (r *reader) Close() error {
	r.once.Do(func() { close(r.closed) })
	return nil
}
