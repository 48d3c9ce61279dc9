package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/godagger/dagger/eventlog"
)

// lookEvery is how often the log and the store are asked whether they are there. Without traffic
// nobody else would notice; with it the owners do long before.
const lookEvery = 10 * time.Second

// absence is which of the log and the store does not answer, and since when.
type absence struct {
	mu sync.Mutex
	of map[string]absent
}

type absent struct {
	err   error
	since time.Time
}

// set notes an answer, or why there is none, and returns what was noted before.
func (s *absence) set(part string, err error) (before absent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before = s.of[part]
	switch {
	case err == nil:
		delete(s.of, part)
	case before.err == nil:
		if s.of == nil {
			s.of = map[string]absent{}
		}
		s.of[part] = absent{err, time.Now()}
	default:
		s.of[part] = absent{err, before.since}
	}
	return before
}

// tell makes a partition unready that is ready for all that its owner knows.
func (s *absence) tell(status *PartitionStatus) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, part := range []string{"store", "log"} {
		if x := s.of[part]; x.err != nil && status.Ready {
			status.Ready, status.Since, status.Err = false, x.since, fmt.Sprintf("the %s does not answer: %v", part, x.err)
		}
	}
}

// looks asks the log and the store now and then until ctx ends.
func (e *Engine) looks(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() {
		e.look(ctx, "log", e.log.URL(), func(ctx context.Context) error {
			_, err := e.log.Topic(ctx, eventlog.EventsTopic(e.log.App()))
			return err
		})
	})
	wg.Go(func() {
		e.look(ctx, "store", e.store.URL(), func(ctx context.Context) error {
			_, err := e.store.Partitions(ctx)
			return err
		})
	})
	wg.Wait()
}

// look says once that a part does not answer, and once that it does again.
func (e *Engine) look(ctx context.Context, part, url string, ask func(context.Context) error) {
	defer e.absence.set(part, nil)
	for sleep(ctx, lookEvery); ctx.Err() == nil; sleep(ctx, lookEvery) {
		asked, cancel := context.WithTimeoutCause(ctx, answerAfter, fmt.Errorf("no answer in %v", answerAfter))
		err := steady(asked, func() error { return ask(asked) })
		if err != nil && asked.Err() != nil {
			err = context.Cause(asked)
		}
		cancel()
		if ctx.Err() != nil {
			return
		}
		before := e.absence.set(part, err)
		switch {
		case err != nil && before.err == nil:
			e.logger.Warn("the "+part+" does not answer", part, url, "err", err)
		case err == nil && before.err != nil:
			e.logger.Info("the "+part+" answers again", part, url, "after", time.Since(before.since).Round(time.Second))
		}
	}
}
