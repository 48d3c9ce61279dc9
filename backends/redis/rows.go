package redis

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/godagger/dagger/projection"
)

// defaultLimit is how many rows a Scan reads that names no limit.
const defaultLimit = 1000

// Get implements projection.View.
func (h *handle) Get(ctx context.Context, kind projection.Kind, keys [][]byte) ([][]byte, uint64, error) {
	values, at, err := h.get(ctx, kind, keys)
	if err != nil {
		return nil, 0, h.fail("get rows of", err)
	}
	return values, at, nil
}

func (h *handle) get(ctx context.Context, kind projection.Kind, keys [][]byte) ([][]byte, uint64, error) {
	names := []string{""} // of the containers, without what they begin with
	mode := "h"
	var groups [][]int // of each hash: which of keys are in it
	switch layoutOf(kind) {
	case records:
		var buckets [maxBuckets][]int
		for i, key := range keys {
			b := bucketOf(key, h.s.buckets)
			buckets[b] = append(buckets[b], i)
		}
		for b, group := range buckets {
			if group != nil {
				names, groups = append(names, bucketNames[b]), append(groups, group)
			}
		}
	default:
		all := make([]int, len(keys))
		for i := range all {
			all[i] = i
		}
		groups = append(groups, all)
		if names = append(names, kindText(kind)); layoutOf(kind) == entries {
			names, mode = append(names, kindText(kind)+"v"), "z"
		}
	}
	args := make([]any, 2, 3+len(groups)+len(keys))
	args = append(args, mode)
	for _, group := range groups {
		args = append(args, len(group))
		for _, i := range group {
			args = append(args, keys[i])
		}
	}
	if len(args) > maxArguments {
		return nil, 0, fmt.Errorf("redis: %d keys in one call are too many", len(keys))
	}
	a, err := h.read(ctx, getScript, func(base string) ([]string, []any, error) {
		full := make([]string, len(names))
		for i, name := range names {
			full[i] = base + name
		}
		return full, args, nil
	})
	if err != nil {
		return nil, 0, err
	}
	values := make([][]byte, len(keys))
	if a.empty {
		return values, 0, nil
	}
	for g, group := range groups {
		list, _ := a.parts[g].([]any)
		if len(list) != len(group) {
			return nil, 0, fmt.Errorf("redis: %d values for %d keys", len(list), len(group))
		}
		for j, i := range group {
			if list[j] == nil {
				continue
			}
			if values[i], err = valueOf(kind, text(list[j])); err != nil {
				return nil, 0, h.lose(ctx, a.gen, a.at, fmt.Sprintf("row %#x %q: %v", byte(kind), keys[i], err))
			}
		}
	}
	return values, a.at, nil
}

// valueOf is the value of a row as it is stored; an entry without value has "".
func valueOf(kind projection.Kind, stored string) ([]byte, error) {
	switch layoutOf(kind) {
	case counters:
		return []byte(stored), nil
	case entries:
		if stored == "" {
			return []byte{}, nil
		}
	}
	return decode(stored)
}

// Scan implements projection.View.
func (h *handle) Scan(ctx context.Context, kind projection.Kind, from, to []byte, limit int) ([]projection.Row, uint64, error) {
	if limit <= 0 {
		limit = defaultLimit
	}
	scan := h.scan
	if layoutOf(kind) != entries {
		scan = h.scanAll
	}
	rows, at, err := scan(ctx, kind, from, to, limit)
	if err != nil {
		return nil, 0, h.fail("scan rows of", err)
	}
	return rows, at, nil
}

func (h *handle) scan(ctx context.Context, kind projection.Kind, from, to []byte, limit int) ([]projection.Row, uint64, error) {
	least, most := "-", "+"
	if len(from) > 0 {
		least = "[" + string(from)
	}
	if to != nil {
		most = "(" + string(to)
	}
	a, err := h.read(ctx, scanScript, func(base string) ([]string, []any, error) {
		set := base + kindText(kind)
		return []string{"", set, set + "v"}, []any{nil, nil, least, most, limit}, nil
	})
	if err != nil || a.empty {
		return nil, 0, err
	}
	keys, _ := a.parts[0].([]any)
	values, _ := a.parts[1].([]any)
	rows := make([]projection.Row, len(keys))
	for i, key := range keys {
		rows[i] = projection.Row{Kind: kind, Key: []byte(text(key)), Value: []byte{}}
		if i < len(values) && values[i] != nil {
			if rows[i].Value, err = valueOf(kind, text(values[i])); err != nil {
				return nil, 0, h.lose(ctx, a.gen, a.at, fmt.Sprintf("row %#x %q: %v", byte(kind), rows[i].Key, err))
			}
		}
	}
	return rows, a.at, nil
}

// scanAll scans rows that the server has in no order, by reading all of their kind: counters,
// which are few, and records, which the contract does not demand.
func (h *handle) scanAll(ctx context.Context, kind projection.Kind, from, to []byte, limit int) (all []projection.Row, at uint64, err error) {
	if layoutOf(kind) == counters {
		all, at, err = h.counters(ctx, kind)
	} else if err = h.begin(ctx); err == nil {
		var w projection.Watermark
		all, w, err = h.snapshot(ctx, &kind)
		at = w.N
	}
	if err != nil {
		return nil, 0, err
	}
	search := func(key []byte) int {
		i, _ := slices.BinarySearchFunc(all, key, func(r projection.Row, key []byte) int { return bytes.Compare(r.Key, key) })
		return i
	}
	first, end := search(from), len(all)
	if to != nil {
		end = search(to)
	}
	end = max(first, min(end, first+limit))
	return all[first:end:end], at, nil
}

// counters reads all counters in one call, and sorts them.
func (h *handle) counters(ctx context.Context, kind projection.Kind) ([]projection.Row, uint64, error) {
	a, err := h.read(ctx, countersScript, func(base string) ([]string, []any, error) {
		return []string{"", base + kindText(kind)}, []any{nil, nil}, nil
	})
	if err != nil || a.empty {
		return nil, 0, err
	}
	list, _ := a.parts[0].([]any)
	rows := make([]projection.Row, 0, len(list)/2)
	for pair := range slices.Chunk(list, 2) {
		rows = append(rows, projection.Row{Kind: kind, Key: []byte(text(pair[0])), Value: []byte(text(pair[1]))})
	}
	slices.SortFunc(rows, func(a, b projection.Row) int { return bytes.Compare(a.Key, b.Key) })
	return rows, a.at, nil
}
