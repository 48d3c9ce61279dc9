package embedlog

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/godagger/dagger/eventlog"
)

// txn is one atomic change of the log.
type txn struct {
	chunks []staged
	ops    []op
	check  func() error // in turn, before anything is written; an error refuses the txn
	then   func()       // in turn, when it is durable

	err      error
	promoted bool // chosen to lead; guarded by committer.mu
	done     chan struct{}
	lead     chan struct{}
}

// staged is what a txn adds to one partition.
type staged struct {
	p *partition
	b builder

	chunk  []byte
	latest int64
}

// groupBytes bounds what one group commits together.
const groupBytes = 8 << 20

// committer makes one batch and one fsync of all transactions that arrived while the one
// before was written. It has no goroutine: the first caller that finds nobody at work leads,
// writes the group, and gives the lead to the first that came meanwhile. Groups follow one
// another, so offsets are given in the order in which they become durable.
type committer struct {
	log *Log

	mu      sync.Mutex
	queue   []*txn
	leading bool
	broken  error // the store failed: what it has is known only after reopening
}

// submit writes a transaction and returns when it is durable, or why it is not. When the
// context ends first, it may be written or not.
func (c *committer) submit(ctx context.Context, t *txn) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := c.log.enter(); err != nil {
		return err
	}
	defer c.log.leave()
	t.done, t.lead = make(chan struct{}), make(chan struct{})
	c.mu.Lock()
	c.queue = append(c.queue, t)
	if !c.leading {
		c.leading = true
		c.mu.Unlock()
		c.run(t)
		return t.err
	}
	c.mu.Unlock()
	select {
	case <-t.done:
		return t.err
	case <-t.lead:
		c.run(t)
		return t.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	if i := slices.Index(c.queue, t); i >= 0 && !t.promoted {
		c.queue = slices.Delete(c.queue, i, i+1)
	}
	promoted := t.promoted
	c.mu.Unlock()
	if promoted { // others wait for this one
		c.run(t)
		return t.err
	}
	return context.Cause(ctx)
}

// run commits one group, which mine is part of, and gives the lead on.
func (c *committer) run(mine *txn) {
	c.mu.Lock()
	n, size := 0, 0
	for n < len(c.queue) && (n == 0 || size < groupBytes) {
		for i := range c.queue[n].chunks {
			size += len(c.queue[n].chunks[i].b.buf)
		}
		n++
	}
	group := slices.Clone(c.queue[:n])
	c.queue = slices.Delete(c.queue, 0, n)
	broken := c.broken
	c.mu.Unlock()

	if broken == nil {
		broken = c.write(group)
	} else {
		for _, t := range group {
			t.err = broken
		}
	}

	c.mu.Lock()
	c.broken = broken
	if len(c.queue) > 0 {
		c.queue[0].promoted = true
		close(c.queue[0].lead)
	} else {
		c.leading = false
	}
	c.mu.Unlock()
	for _, t := range group {
		if t != mine {
			close(t.done)
		}
	}
}

// write writes a group and publishes it. It returns an error when the store failed.
func (c *committer) write(group []*txn) error {
	type tail struct{ end, latest int64 }
	tails := map[*partition]tail{}
	var ops []op
	for _, t := range group {
		if t.check != nil {
			if t.err = t.check(); t.err != nil {
				continue
			}
		}
		for i := range t.chunks {
			if p := t.chunks[i].p; p.topic.isDeleted() {
				t.err = fmt.Errorf("%w: %s", eventlog.ErrNoTopic, p.topic.name)
			}
		}
		if t.err != nil {
			continue
		}
		for i := range t.chunks {
			s := &t.chunks[i]
			end, known := tails[s.p]
			if !known {
				s.p.mu.Lock()
				end = tail{s.p.end, s.p.latest}
				s.p.mu.Unlock()
			}
			s.chunk, end.latest = s.b.finish(end.latest)
			s.latest = end.latest
			end.end += int64(s.b.count)
			tails[s.p] = end
			ops = append(ops, op{opSet, chunkKey(s.p.topic.Number, s.p.index, end.end-1), s.chunk})
		}
		ops = append(ops, t.ops...)
	}
	if len(ops) > 0 {
		if err := c.log.store.apply(ops, true); err != nil {
			err = fmt.Errorf("write log: %w", err)
			for _, t := range group {
				if t.err == nil {
					t.err = err
				}
			}
			return err
		}
	}
	for _, t := range group {
		if t.err != nil {
			continue
		}
		for i := range t.chunks {
			s := &t.chunks[i]
			s.p.publish(s.chunk, s.b.count, s.latest)
		}
		if t.then != nil {
			t.then()
		}
	}
	return nil
}
