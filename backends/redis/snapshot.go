package redis

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	client "github.com/redis/go-redis/v9"

	"github.com/godagger/dagger/projection"
)

// errMoved: between the two reads of a snapshot came a batch, and with it a new container, or the
// partition was replaced.
var errMoved = errors.New("redis: the partition moves too fast to be read")

// snapshot reads all rows, or those of one kind, in one step and in order.
func (h *handle) snapshot(ctx context.Context, only *projection.Kind) (rows []projection.Row, at projection.Watermark, err error) {
	for range 20 {
		if rows, at, err = h.snapshotOnce(ctx, only); !errors.Is(err, errMoved) {
			break
		}
	}
	return rows, at, err
}

// content is one container as it was read.
type content struct {
	container
	kind   projection.Kind
	hash   *client.MapStringStringCmd
	sorted *client.StringSliceCmd
}

func (h *handle) snapshotOnce(ctx context.Context, only *projection.Kind) ([]projection.Row, projection.Watermark, error) {
	name := h.record()
	var before map[string]string
	var none projection.Watermark
	err := h.s.again(ctx, func() (err error) {
		before, err = h.s.client.HGetAll(ctx, name).Result()
		return err
	})
	if err != nil {
		return nil, none, err
	}
	var list []content
	var after *client.MapStringStringCmd
	err = h.s.again(ctx, func() error {
		list = list[:0]
		_, err := h.s.client.TxPipelined(ctx, func(p client.Pipeliner) error {
			after = p.HGetAll(ctx, name)
			base := h.s.names.base(h.partition) + before["gen"]
			h.eachContainer(before, only, func(kind projection.Kind, c container) {
				x := content{container: c, kind: kind}
				if key := base + c.name; c.set {
					x.sorted = p.ZRange(ctx, key, 0, -1)
				} else {
					x.hash = p.HGetAll(ctx, key)
				}
				list = append(list, x)
			})
			return nil
		})
		return err
	})
	have := map[string]string{}
	if after != nil {
		have = after.Val()
	}
	at, lost := watermarkOf([]any{have["epoch"], have["n"], have["offset"], have["sum"], have["log"]})
	if err != nil {
		if client.HasErrorPrefix(err, "WRONGTYPE") {
			return nil, none, h.lose(ctx, before["gen"], at.N, err.Error())
		}
		return nil, none, err
	}
	switch _, acquired := have["epoch"]; {
	case lost != nil:
		return nil, none, lost
	case !acquired && !h.seen.Load():
		return nil, none, nil
	case !acquired:
		return nil, none, refusal([]any{"none"}, 0)
	case have["lost"] != "":
		return nil, none, refusal([]any{"lost", have["lost"]}, 0)
	}
	h.seen.Store(true)
	if have["gen"] != before["gen"] {
		return nil, none, errMoved
	}
	missed := 0
	h.eachContainer(have, only, func(_ projection.Kind, c container) {
		if before["#"+c.name] == "" {
			missed++
		}
	})
	if missed > 0 {
		return nil, none, errMoved
	}
	rows, err := rowsOf(list, have)
	if err != nil {
		return nil, none, h.lose(ctx, before["gen"], at.N, err.Error())
	}
	return rows, at, nil
}

// eachContainer calls f for the containers that a watermark names, a sorted set right before
// its values.
func (h *handle) eachContainer(have map[string]string, only *projection.Kind, f func(projection.Kind, container)) {
	for _, c := range allContainers {
		if have["#"+c.name] == "" {
			continue
		}
		n, err := strconv.ParseUint(c.name[:2], 16, 8)
		if kind := projection.Kind(n); err == nil && (only == nil || *only == kind) {
			f(kind, c)
		}
	}
}

// rowsOf makes rows of containers and sorts them. It fails when rows are missing.
func rowsOf(list []content, have map[string]string) ([]projection.Row, error) {
	var rows []projection.Row
	row := func(kind projection.Kind, key, stored string) error {
		value, err := valueOf(kind, stored)
		if err != nil {
			return fmt.Errorf("row %#x %q: %w", byte(kind), key, err)
		}
		rows = append(rows, projection.Row{Kind: kind, Key: []byte(key), Value: value})
		return nil
	}
	values := map[projection.Kind]map[string]string{}
	for _, x := range list {
		n := 0
		if x.set {
			n = len(x.sorted.Val())
		} else {
			n = len(x.hash.Val())
		}
		if want := cmp.Or(have["#"+x.name], "0"); strconv.Itoa(n) != want { // none: dropped meanwhile
			return nil, fmt.Errorf("%s has %d rows instead of %s", x.name, n, want)
		}
		if layoutOf(x.kind) == entries && !x.set {
			values[x.kind] = x.hash.Val()
		}
	}
	for _, x := range list {
		switch {
		case x.set:
			for _, key := range x.sorted.Val() {
				if err := row(x.kind, key, values[x.kind][key]); err != nil {
					return nil, err
				}
			}
		case layoutOf(x.kind) != entries:
			for key, stored := range x.hash.Val() {
				if err := row(x.kind, key, stored); err != nil {
					return nil, err
				}
			}
		}
	}
	slices.SortFunc(rows, func(a, b projection.Row) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), bytes.Compare(a.Key, b.Key))
	})
	return rows, nil
}
