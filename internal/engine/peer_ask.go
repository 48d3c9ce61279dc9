package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/godagger/dagger/internal/machine"
)

const (
	// peerTime is how long a worker may take to answer another one.
	peerTime = 10 * time.Second
	// peerRounds is how often partitions are looked for that move meanwhile.
	peerRounds = 4
	peerPause  = 100 * time.Millisecond // before the second; it doubles
	// maxPeerAnswer bounds what is read of an answer: more than a page of pageBytes, and its last
	// instance, or any other one.
	maxPeerAnswer = 64 << 20
	maxPeerDetail = 4 << 10
)

// errPeerMoved: the worker that was asked does not have the partition any more, or not yet.
var errPeerMoved = errors.New("it does not have the partition any more")

// newPeerClient asks on the network that workers share: through no proxy, and nobody that an
// answer points to.
func newPeerClient() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext, IdleConnTimeout: time.Minute, MaxIdleConnsPerHost: 4},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// peerAnswer says of which log it is: whatever else answers at an address is no worker.
type peerAnswer interface{ log() string }

// asked is a question about all partitions.
type asked[T peerAnswer] struct {
	read  func(ctx context.Context, partitions []int32) (T, error) // in this process's store
	path  string                                                   // of a peer
	query url.Values
	add   func(T) // an answer
}

// gather reads all partitions: in this process's store what that has, and the rest where it
// is, at the same time. Partitions that move meanwhile are looked for again. An
// *ElsewhereError names a worker that does not answer.
func gather[T peerAnswer](ctx context.Context, e *Engine, a asked[T]) error {
	left := e.partitions()
	for round := 1; ; round++ {
		here, others, err := e.divide(ctx, left)
		if err != nil {
			return err
		}
		left, err = a.round(ctx, e, here, others)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case round == peerRounds || !errors.Is(err, errPeerMoved):
			return err
		}
		select {
		case <-time.After(peerPause << (round - 1)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// round reads partitions once, and gives those whose owner is not who it seemed to be. Its
// error is one of another kind, if there is one.
func (a *asked[T]) round(ctx context.Context, e *Engine, here []int32, others map[int32]lastOwner) (moved []int32, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	of := map[lastOwner][]int32{}
	for _, p := range slices.Sorted(maps.Keys(others)) {
		o := lastOwner{worker: others[p].worker, address: others[p].address}
		of[o] = append(of[o], p)
	}
	var (
		mu sync.Mutex
		wg sync.WaitGroup
	)
	answered := func(x T, partitions []int32, failed error) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case failed == nil:
			a.add(x)
			return
		case errors.Is(failed, errPeerMoved):
			moved = append(moved, partitions...)
		default:
			cancel() // the others' answers are of no use
		}
		if err == nil || errors.Is(err, errPeerMoved) {
			err = failed
		}
	}
	for o, partitions := range of {
		wg.Go(func() {
			x, err := a.ask(ctx, e, o, partitions)
			answered(x, partitions, err)
		})
	}
	if len(here) > 0 {
		x, err := a.read(ctx, here)
		answered(x, here, err)
	}
	wg.Wait()
	return moved, err
}

// ask asks the owner of partitions.
func (a *asked[T]) ask(ctx context.Context, e *Engine, o lastOwner, partitions []int32) (x T, err error) {
	q := maps.Clone(a.query)
	for _, p := range partitions {
		q.Add("partition", strconv.Itoa(int(p)))
	}
	if o.address == "" {
		return x, &ElsewhereError{Partition: partitions[0], Worker: o.worker}
	}
	err = e.askPeer(ctx, o.address, a.path, q, &x)
	if err == nil && x.log() != e.eventsID {
		err = errors.New("what answers there is no worker of this log")
	}
	if err != nil {
		return x, &ElsewhereError{Partition: partitions[0], Worker: o.worker, Address: o.address, Err: err}
	}
	return x, nil
}

// askPeer asks a worker at its address. The answer is JSON that says of which log it is.
func (e *Engine) askPeer(ctx context.Context, address, path string, q url.Values, answer any) error {
	ctx, cancel := context.WithTimeoutCause(ctx, peerTime, fmt.Errorf("no answer in %v", peerTime))
	defer cancel()
	q.Set("log", e.eventsID)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(address, "/")+PeerPath+path+"?"+q.Encode(), nil)
	if err != nil {
		return fmt.Errorf("its address: %w", err)
	}
	w, err := e.peers.Do(r)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // without the question
		}
		return err
	}
	defer w.Body.Close()
	if w.StatusCode != http.StatusOK {
		return refusedBy(w)
	}
	if err := readPeer(w.Body, answer); ctx.Err() == nil || err == nil {
		return err
	}
	return context.Cause(ctx)
}

// readPeer reads an answer of at most maxPeerAnswer.
func readPeer(r io.Reader, answer any) error {
	body := &io.LimitedReader{R: r, N: maxPeerAnswer}
	err := json.NewDecoder(body).Decode(answer)
	switch {
	case err == nil:
		return nil
	case body.N <= 0:
		return fmt.Errorf("it answers more than %d MiB", maxPeerAnswer>>20)
	}
	return fmt.Errorf("its answer: %w", err)
}

// refusedBy says why a worker gave no answer.
func refusedBy(w *http.Response) error {
	data, _ := io.ReadAll(io.LimitReader(w.Body, maxPeerDetail))
	var p peerProblem
	if json.Unmarshal(data, &p) != nil || p.Code == "" {
		return fmt.Errorf("it answers %s", w.Status)
	}
	switch p.Code {
	case codeElsewhere:
		return errPeerMoved
	case codeNotFound:
		return ErrNotFound
	}
	return fmt.Errorf("it answers %s: %s", w.Status, p.Detail)
}

// getTime is how long the owner of one instance may take to answer, before it is read from
// the log.
const getTime = 3 * time.Second

// getElsewhere asks the owner of an instance that has it in a store of its own. answered is
// false when there is no such owner or it does not answer: the log has the instance too, and
// takes longer to read.
func (e *Engine) getElsewhere(ctx context.Context, partition int32, id string) (i *machine.Instance, answered bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, getTime)
	defer cancel()
	_, others, err := e.divide(ctx, []int32{partition})
	o, elsewhere := others[partition]
	if err != nil || !elsewhere || o.address == "" {
		return nil, false, nil
	}
	var x peerInstance
	err = e.askPeer(ctx, o.address, instancePath, url.Values{"id": {id}}, &x)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, true, ErrNotFound
	case err != nil || x.LogID != e.eventsID || x.Instance == nil || x.Instance.ID != id:
		return nil, false, nil
	}
	return x.Instance, true, nil
}
