package engine

import (
	"context"
	"slices"
	"sync"
)

// assigned runs a goroutine for each partition that a consumer group has assigned to a member.
// One goroutine uses it.
type assigned struct {
	// begin is called before a partition's goroutine starts, and returns what that runs.
	begin func(partition int32) (run func(context.Context))
	// ended is called when a partition's goroutine has ended, with the reason; may be nil. It
	// may take its time: it is called for several partitions at once.
	ended func(partition int32, cause error)

	current map[int32]assignment
}

type assignment struct {
	end  context.CancelCauseFunc
	done chan struct{} // closed when the goroutine has ended
}

// become stops the partitions that are not in the list, waits for them, and then starts those
// that are new in it. Their goroutines end with ctx too.
func (a *assigned) become(ctx context.Context, partitions []int32) {
	a.stop(ErrPartitionLost, func(p int32) bool { return !slices.Contains(partitions, p) })
	if a.current == nil {
		a.current = map[int32]assignment{}
	}
	for _, p := range partitions {
		if _, has := a.current[p]; has {
			continue
		}
		run := a.begin(p)
		life, end := context.WithCancelCause(ctx)
		x := assignment{end, make(chan struct{})}
		a.current[p] = x
		go func() { // waited for by stop
			defer close(x.done)
			run(life)
		}()
	}
}

// close stops all partitions and waits for them.
func (a *assigned) close() {
	a.stop(ErrShutdown, func(int32) bool { return true })
}

// stop tells all partitions that are gone to end before it waits for the first of them.
func (a *assigned) stop(cause error, gone func(int32) bool) {
	var ending sync.WaitGroup
	defer ending.Wait()
	for p, x := range a.current {
		if gone(p) {
			x.end(cause)
		}
	}
	for p, x := range a.current {
		if !gone(p) {
			continue
		}
		<-x.done
		delete(a.current, p)
		if a.ended != nil {
			ending.Go(func() { a.ended(p, cause) })
		}
	}
}
