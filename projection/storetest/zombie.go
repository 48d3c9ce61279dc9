package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/godagger/dagger/projection"
)

// testZombie: owners write as fast as they can, and each is followed by one with a higher epoch
// while its batches are under way. What is there is the batches of the first up to where the
// second began, then the second's: none of a former owner comes later.
func testZombie(t *testing.T, h Harness) {
	s := open(t, h.New(t))
	rnd := seeded(t)
	const owners, steps = 12, 15
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	began := make([]uint64, owners) // the event behind which each went on
	ends := make(chan error, owners)
	for who := range owners {
		epoch := uint64(who + 1)
		p := acquire(t, s, 0, epoch)
		n := watermark(t, p).N
		began[who] = n
		enough := steps + rnd.IntN(steps)
		gone := make(chan struct{})
		running.Go(func() {
			defer close(gone)
			ends <- zombie(ctx, p, who, n, epoch)
		})
		v := view(t, s, 0)
		for watermark(t, v).N < n+uint64(enough) {
			select {
			case <-gone: // with an error
				running.Wait()
				broken(t, ruleFenced, "owner %d ended before another one came: %v", who, <-ends)
			default:
			}
		}
		must(t, "close view", v.Close())
	}
	last := acquire(t, s, 0, owners+1)
	running.Wait()
	for range owners {
		wantIs(t, ruleFenced, "apply of a former owner", <-ends, projection.ErrFenced)
	}
	end := watermark(t, last).N
	rows := dump(t, last)
	if uint64(len(rows)) != end {
		broken(t, ruleFenced, "%d rows at event %d", len(rows), end)
	}
	who := 0
	for i, r := range rows {
		for who+1 < owners && uint64(i) >= began[who+1] {
			who++
		}
		if want := zombieKey(uint64(i+1), who); string(r.Key) != want {
			broken(t, ruleFenced, "event %d wrote %q, want %q: owner %d began behind event %d", i+1, r.Key, want, who, began[who])
		}
	}
}

func zombieKey(n uint64, who int) string { return fmt.Sprintf("%06d of %d", n, who) }

// zombie applies batches of one row until it is refused. ErrFenced is how it should be.
func zombie(ctx context.Context, p projection.Partition, who int, n, epoch uint64) error {
	for {
		b := put(n, epoch, projection.KindDue, zombieKey(n+1, who))
		b.New.Sum += uint64(who)
		if err := p.Apply(ctx, b); err != nil {
			return errors.Join(err, p.Close())
		}
		n++
	}
}
