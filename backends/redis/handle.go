package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"

	client "github.com/redis/go-redis/v9"

	"github.com/godagger/dagger/projection"
)

// handle is a View and a Partition.
type handle struct {
	s         *Store
	partition int32
	gen       *generation
	by        string // who builds it beside the partition; "" = it is the partition
	closed    atomic.Bool
	// seen says that the partition was there. If it isn't later on, it was lost.
	seen atomic.Bool
}

// maxArguments is how many arguments a call may have; Redis takes 1,048,576.
const maxArguments = 1_000_000

func (h *handle) begin(ctx context.Context) error {
	if h.closed.Load() {
		return projection.ErrClosed
	}
	return h.s.begin(ctx, h.partition)
}

func (h *handle) fail(what string, err error) error {
	return fmt.Errorf("%s partition %d: %w", what, h.partition, err)
}

// record is the name of the watermark.
func (h *handle) record() string {
	if h.by != "" {
		return h.s.names.staged(h.partition)
	}
	return h.s.names.watermark(h.partition)
}

// generation is what the names of a partition's containers begin with.
type generation struct{ name atomic.Pointer[string] }

func (g *generation) get() string {
	if p := g.name.Load(); p != nil {
		return *p
	}
	return ""
}

func (g *generation) set(name string) { g.name.Store(&name) }

// call runs a script of the partition, again when its generation is another one than was known,
// and returns the generation too. encode makes keys and arguments: room for one key and two
// arguments first, which are filled in here.
func (h *handle) call(ctx context.Context, script *client.Script, encode func(base string) ([]string, []any, error)) (reply []any, gen string, err error) {
	for range 20 {
		gen = h.gen.get()
		keys, args, err := encode(h.s.names.base(h.partition) + gen)
		if err != nil {
			return nil, gen, err
		}
		keys[0], args[0], args[1] = h.record(), gen, h.by
		reply, err = h.s.run(ctx, script, keys, args...)
		if err != nil || text(first(reply)) != "moved" {
			return reply, gen, err
		}
		if h.by != "" {
			return nil, gen, fmt.Errorf("%w: another process builds this partition", projection.ErrFenced)
		}
		h.gen.set(text(reply[1]))
	}
	return nil, gen, errors.New("redis: the partition is replaced again and again")
}

// answer is what a reading script told.
type answer struct {
	parts []any
	at    uint64
	gen   string
	empty bool // the partition was never acquired
}

// read runs a reading script.
func (h *handle) read(ctx context.Context, script *client.Script, encode func(base string) ([]string, []any, error)) (a answer, err error) {
	if err := h.begin(ctx); err != nil {
		return a, err
	}
	reply, gen, err := h.call(ctx, script, encode)
	if err != nil {
		return a, err
	}
	if text(first(reply)) == "none" && !h.seen.Load() {
		return answer{empty: true}, nil
	}
	if err := refusal(reply, 0); err != nil {
		return a, err
	}
	h.seen.Store(true)
	a.at, err = event(text(reply[2]))
	a.parts, a.gen = reply[3:], gen
	return a, err
}

// lose marks the partition as lost, unless it has moved on from event at of a generation.
func (h *handle) lose(ctx context.Context, gen string, at uint64, why string) error {
	lost := fmt.Errorf("%w: %s", projection.ErrStateLost, why)
	if _, err := h.s.run(ctx, loseScript, []string{h.record()}, gen, h.by, strconv.FormatUint(at, 10), why); err != nil {
		return fmt.Errorf("%w (and marking it failed: %v)", lost, err)
	}
	return lost
}

// claim sets the epoch, looks whether all rows are there, and returns which generations are to
// be removed.
func (h *handle) claim(ctx context.Context, epoch uint64) (old string, err error) {
	reply, _, err := h.call(ctx, acquireScript, func(base string) ([]string, []any, error) {
		return containersOf(base, ""), []any{nil, nil, epochText(epoch), h.s.buckets, allTypes}, nil
	})
	if err == nil {
		err = refusal(reply, epoch)
	}
	if err != nil {
		return "", err
	}
	h.seen.Store(true)
	return text(reply[1]), nil
}

func (h *handle) drop(ctx context.Context, epoch uint64) error {
	reply, _, err := h.call(ctx, dropScript, func(base string) ([]string, []any, error) {
		return containersOf(base, ""), []any{nil, nil, epochText(epoch), h.s.buckets}, nil
	})
	if err != nil {
		return err
	}
	return refusal(reply, epoch)
}

// event reads an event number; none is 0.
func event(s string) (uint64, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: the watermark can't be read", projection.ErrStateLost)
	}
	return n, nil
}

// Watermark implements projection.View.
func (h *handle) Watermark(ctx context.Context) (projection.Watermark, error) {
	w, err := h.watermark(ctx)
	if err != nil {
		return projection.Watermark{}, h.fail("read watermark of", err)
	}
	return w, nil
}

func (h *handle) watermark(ctx context.Context) (w projection.Watermark, err error) {
	if err := h.begin(ctx); err != nil {
		return w, err
	}
	var have []any
	err = h.s.again(ctx, func() error {
		have, err = h.s.client.HMGet(ctx, h.record(), "epoch", "n", "offset", "sum", "log", "lost").Result()
		return err
	})
	switch {
	case err != nil:
		return w, err
	case have[0] == nil && !h.seen.Load():
		return w, nil
	case have[0] == nil:
		return w, refusal([]any{"none"}, 0)
	case have[5] != nil:
		return w, refusal([]any{"lost", have[5]}, 0)
	}
	h.seen.Store(true)
	return watermarkOf(have)
}

// watermarkOf reads epoch, n, offset, sum and log.
func watermarkOf(have []any) (w projection.Watermark, err error) {
	number := func(i int) uint64 {
		n, e := event(text(have[i]))
		err = cmp.Or(err, e)
		return n
	}
	w = projection.Watermark{Epoch: number(0), N: number(1), Sum: number(3), LogID: text(have[4])}
	if s := text(have[2]); s != "" {
		offset, e := strconv.ParseInt(s, 10, 64)
		if e != nil {
			err = fmt.Errorf("%w: the watermark can't be read", projection.ErrStateLost)
		}
		w.Offset = offset
	}
	return w, err
}

// Dump implements projection.View. It reads the partition in one step and into memory before it
// calls f; the server does nothing else meanwhile.
func (h *handle) Dump(ctx context.Context, f func(projection.Row) error) error {
	_, err := h.DumpAt(ctx, f)
	return err
}

// DumpAt implements projection.Dumper.
func (h *handle) DumpAt(ctx context.Context, f func(projection.Row) error) (at projection.Watermark, err error) {
	err = h.begin(ctx)
	var rows []projection.Row
	if err == nil {
		rows, at, err = h.snapshot(ctx, nil)
	}
	if err != nil {
		return at, h.fail("dump", err)
	}
	for _, r := range rows {
		if err := ctx.Err(); err != nil {
			return at, h.fail("dump", err)
		}
		if err := f(r); err != nil {
			return at, err
		}
	}
	return at, nil
}

// Flush implements projection.Partition: what was applied is in the server, which a crash of
// this process doesn't touch.
func (h *handle) Flush(ctx context.Context) error {
	if err := h.begin(ctx); err != nil {
		return h.fail("flush", err)
	}
	return nil
}

// Close implements projection.View. Twice is fine.
func (h *handle) Close() error {
	h.closed.Store(true)
	return nil
}
