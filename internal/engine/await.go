package engine

import (
	"context"
	"sync"
	"time"
)

// await is how an owner waits for the handlers that it has just started. Many take less time than
// a transaction. If the next turn began without their results, these would wait until it is
// committed, and each task of an instance would take the time of two transactions.
type await struct {
	took time.Duration // by the transaction before
	vain int           // how often in a row none came in time
	skip int           // so often it is not tried

	mu   sync.Mutex
	left int           // results that are waited for
	all  chan struct{} // they have come
}

const (
	// awaitShare is which part of a transaction's time handlers are waited for: it may save all of
	// that time, and costs so much where they take longer.
	awaitShare = 8
	awaitMost  = 10 * time.Millisecond
	// awaitVain: where it was in vain n times in a row, the next 2^n-1 turns don't wait, up to this n.
	awaitVain = 6
)

func newAwait() await { return await{all: make(chan struct{}, 1)} }

// expect is called before n handlers are started.
func (a *await) expect(n int) {
	if a.skip > 0 {
		a.skip--
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.left = n
	select {
	case <-a.all: // the last came in the moment in which its time was over
	default:
	}
}

// came counts a result, and says whether it is waited for: then the owner takes it without being
// woken.
func (a *await) came() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.left == 0 {
		return false
	}
	if a.left--; a.left == 0 {
		a.all <- struct{}{}
	}
	return true
}

// wait returns when all of n that are expected have come, or have had their time.
func (a *await) wait(ctx context.Context, n int) {
	a.mu.Lock()
	expected := a.left > 0 || len(a.all) > 0
	a.mu.Unlock()
	if !expected {
		return
	}
	late := time.NewTimer(min(a.took/awaitShare, awaitMost))
	defer late.Stop()
	select {
	case <-a.all:
	case <-late.C:
	case <-ctx.Done():
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.left < n {
		a.vain = 0
	} else {
		a.vain = min(a.vain+1, awaitVain)
		a.skip = 1<<a.vain - 1
	}
	a.left = 0
}
