package aerospike

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/godagger/dagger/projection"
)

const (
	// tries is how often a call is made at most; between them it waits 20, 40, 80, 160 ms.
	tries     = 5
	firstWait = 20 * time.Millisecond

	// maxCall and maxCallBytes are what one call to the server carries.
	maxCall      = 1000
	maxCallBytes = 4 << 20
)

// again calls f until it succeeds or fails for a reason that doesn't pass by itself.
func (s *Store) again(ctx context.Context, f func() error) error {
	for n := 0; ; n++ {
		err := f()
		switch {
		case err == nil:
			return nil
		case s.closed.Load():
			return projection.ErrClosed
		case ctx.Err() != nil:
			return ctx.Err()
		case n == tries-1 || !errors.Is(err, errPasses):
			return err
		}
		if err := s.pause(ctx, n); err != nil {
			return err
		}
	}
}

// pause waits before try n+1.
func (s *Store) pause(ctx context.Context, n int) error {
	wait := s.firstWait << n
	timer := time.NewTimer(wait + rand.N(wait/4+1))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// readAll reads records in as many calls as it takes, with at most so many records in one.
func (s *Store) readAll(ctx context.Context, reads []read, most int) ([]*record, error) {
	records := make([]*record, 0, len(reads))
	for len(reads) > 0 {
		now := reads[:min(len(reads), most)]
		reads = reads[len(now):]
		err := s.again(ctx, func() error {
			got, err := s.server.read(ctx, now)
			if err == nil {
				records = append(records, got...)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return records, nil
}

// readOne reads one record.
func (s *Store) readOne(ctx context.Context, r read) (*record, error) {
	got, err := s.readAll(ctx, []read{r}, 1)
	if err != nil {
		return nil, err
	}
	return got[0], nil
}

// changeAll makes changes in as many calls as it takes. A change that is in doubt is made again,
// with its conditions: all changes that the store makes may be repeated. So every code is
// definite when there is no error, but one that was repeated may be refused by what it did
// itself the first time.
func (s *Store) changeAll(ctx context.Context, changes []change) ([]result, error) {
	results := make([]result, 0, len(changes))
	for len(changes) > 0 {
		n, bytes := 0, 0
		for n < len(changes) && n < maxCall && (n == 0 || bytes < maxCallBytes) {
			bytes += changes[n].size()
			n++
		}
		got, err := s.changeSome(ctx, changes[:n])
		if err != nil {
			return nil, err
		}
		results = append(results, got...)
		changes = changes[n:]
	}
	return results, nil
}

func (s *Store) changeSome(ctx context.Context, changes []change) ([]result, error) {
	results := make([]result, len(changes))
	open := make([]int, len(changes)) // those without a definite result
	for i := range open {
		open[i] = i
	}
	for n := 0; ; n++ {
		now := changes
		if n > 0 {
			now = make([]change, len(open))
			for j, i := range open {
				now[j] = changes[i]
			}
		}
		got, err := s.server.change(ctx, now)
		if s.closed.Load() {
			return nil, projection.ErrClosed
		}
		var left []int
		for j, i := range open {
			r := result{code: codeNoResponse}
			if j < len(got) {
				r = got[j]
			}
			switch {
			case r.code.inDoubt() || r.code.passes():
				results[i] = r
				left = append(left, i)
			case r.code == codeOK || r.code == codeNotFound || r.code == codeExists || r.code == codeFiltered:
				results[i] = r
			default:
				return nil, &errCode{r.code, changes[i].key}
			}
		}
		if open = left; len(open) == 0 {
			return results, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if n == tries-1 {
			last := results[open[0]].code
			if !last.inDoubt() {
				return nil, fmt.Errorf("%w: %w", errPasses, &errCode{last, changes[open[0]].key})
			}
			return nil, fmt.Errorf("%w: %d of %d changes are in doubt (code %d): %w", errPasses, len(open), len(changes), last, err)
		}
		if err := s.pause(ctx, n); err != nil {
			return nil, err
		}
	}
}

// changeOne makes one change.
func (s *Store) changeOne(ctx context.Context, c change) (result, error) {
	got, err := s.changeSome(ctx, []change{c})
	if err != nil {
		return result{}, err
	}
	return got[0], nil
}

// size is about how many bytes the change has on the wire.
func (c *change) size() int {
	n := 100 + len(c.key)
	for _, b := range c.put {
		switch v := b.value.(type) {
		case []byte:
			n += len(v)
		case string:
			n += len(v)
		}
	}
	for _, k := range c.del {
		n += len(k) + 4
	}
	for _, e := range c.add {
		n += len(e.key) + len(e.value) + 8
	}
	return n
}
