package aerospike

import (
	"context"
	"errors"
	"fmt"

	"github.com/godagger/dagger/projection"
)

// Acquire implements projection.Store. It looks whether all pages of the partition are there.
func (s *Store) Acquire(ctx context.Context, partition int32, epoch uint64) (projection.Partition, error) {
	err := s.begin(ctx, partition)
	if err == nil {
		err = s.identify(ctx) // the server may have lost all it had since the store was opened
	}
	p := s.part(partition, liveKey(partition))
	if err == nil {
		err = p.acquire(ctx, epoch)
	}
	if err != nil {
		return nil, fmt.Errorf("acquire partition %d: %w", partition, err)
	}
	return &handle{p: p}, nil
}

func (p *part) acquire(ctx context.Context, epoch uint64) error {
	for {
		m, err := p.s.readMark(ctx, p.key)
		if err != nil {
			return err
		}
		token := int64(0)
		switch {
		case m == nil:
			if m, err = p.s.fresh(ctx, epoch, 0); err != nil {
				return err
			}
		case epoch < m.at.Epoch:
			return fmt.Errorf("%w: epoch %d, the partition has %d", projection.ErrFenced, epoch, m.at.Epoch)
		case epoch == m.at.Epoch:
			return p.inspect(ctx)
		default:
			token = m.token
			m = m.retoken()
			m.at.Epoch = epoch
		}
		if err := p.s.changeMark(ctx, p.key, token, m); !errors.Is(err, errMoved) {
			if err != nil {
				return err
			}
			return p.inspect(ctx)
		}
	}
}

// inspect looks whether the pages of a partition are there.
func (p *part) inspect(ctx context.Context) error {
	if _, err := p.load(ctx); err != nil {
		return err
	}
	_, err := p.view(ctx, func(st *state) error {
		at := p.space(st)
		var reads []read
		for _, pages := range st.directory.kinds {
			for _, x := range pages {
				if c := st.change(x.id); c == nil || !c.new {
					reads = append(reads, read{key: at.page(x.id)})
				}
			}
		}
		records, err := p.s.readAll(ctx, reads, maxCall)
		if err != nil {
			return err
		}
		for i, r := range records {
			if r == nil {
				return fmt.Errorf("%w: %s", errMissing, reads[i].key)
			}
		}
		return nil
	})
	return err
}

// Drop implements projection.Store: the partition gets a new incarnation, in which there is
// nothing. Removing what the old ones had only frees space.
func (s *Store) Drop(ctx context.Context, partition int32, epoch uint64) error {
	err := s.begin(ctx, partition)
	if err == nil {
		err = s.drop(ctx, partition, epoch)
	}
	if err != nil {
		return fmt.Errorf("drop partition %d: %w", partition, err)
	}
	return nil
}

func (s *Store) drop(ctx context.Context, partition int32, epoch uint64) error {
	key := liveKey(partition)
	for {
		m, err := s.readMark(ctx, key)
		if err != nil || m == nil {
			return err
		}
		if epoch < m.at.Epoch {
			return fmt.Errorf("%w: epoch %d, the partition has %d", projection.ErrFenced, epoch, m.at.Epoch)
		}
		next, err := s.fresh(ctx, m.at.Epoch, m.inc)
		if err != nil {
			return err
		}
		if err = s.changeMark(ctx, key, m.token, next); err == nil {
			s.sweep(ctx, partition, next.inc)
		}
		if !errors.Is(err, errMoved) {
			return err
		}
	}
}

// sweep has removed what earlier incarnations of a partition left. It is only about space, so
// its failure is none.
func (s *Store) sweep(ctx context.Context, partition int32, below int64) {
	staged, err := s.readMark(ctx, stagedKey(partition))
	if err != nil {
		return
	}
	except := int64(0)
	if staged != nil {
		except = staged.inc
	}
	_ = s.server.sweep(ctx, partition, below, except)
}
