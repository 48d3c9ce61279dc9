package projection

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Tx has the rows of one partition, for a Fold to read and change. The changes are written together
// with the watermark when the batch ends. It may be used only during the call of the Fold, by one
// goroutine.
type Tx struct {
	part      Partition
	partition int32
	rows      map[txKey]txRow
	counts    map[string]int64
	err       error // of a misuse, or of the store; ends the batch
}

type txKey struct {
	kind Kind
	key  string
}

// txRow is a row as the batch leaves it; nil = none.
type txRow struct {
	value   []byte
	changed bool
}

// Partition is the number of the partition whose events are folded.
func (t *Tx) Partition() int32 { return t.partition }

// Get reads a row, with what the batch has changed so far; nil where there is none. The
// slice must not be changed. After an error of the store nothing of the batch is applied,
// whatever the Fold returns.
func (t *Tx) Get(ctx context.Context, kind Kind, key []byte) ([]byte, error) {
	name := txKey{kind, string(key)}
	if r, known := t.rows[name]; known {
		return r.value, nil
	}
	values, _, err := t.part.Get(ctx, kind, [][]byte{key})
	if err != nil {
		t.fail(fmt.Errorf("read store: %w", err))
		return nil, err
	}
	t.rows[name] = txRow{value: values[0]}
	return values[0], nil
}

// Put writes a row; an empty value is a row too. Kinds below MinKind belong to the backends,
// and KindCount to Add; all others are the user's in a store of his own.
func (t *Tx) Put(kind Kind, key, value []byte) {
	t.set(kind, key, append([]byte{}, value...))
}

// Del removes a row; one that is not there is no error.
func (t *Tx) Del(kind Kind, key []byte) { t.set(kind, key, nil) }

func (t *Tx) set(kind Kind, key, value []byte) {
	if kind < MinKind || kind == KindCount {
		t.fail(&foldError{fmt.Errorf("projection: kind %#x is not for Put and Del", byte(kind))})
		return
	}
	t.rows[txKey{kind, string(key)}] = txRow{value, true}
}

// Add changes a counter, a row of KindCount with a decimal number. One that comes to 0 has no
// row.
func (t *Tx) Add(key []byte, n int64) { t.counts[string(key)] += n }

// Count reads a counter, with what the batch has changed so far.
func (t *Tx) Count(ctx context.Context, key []byte) (int64, error) {
	value, err := t.Get(ctx, KindCount, key)
	if err != nil || value == nil {
		return t.counts[string(key)], err
	}
	n, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		t.fail(fmt.Errorf("%w: counter %q is no number", ErrStateLost, key))
		return 0, t.err
	}
	return n + t.counts[string(key)], nil
}

func (t *Tx) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

// batch is what was changed, in order.
func (t *Tx) batch() (b Batch) {
	for name, r := range t.rows {
		row := Row{Kind: name.kind, Key: []byte(name.key), Value: r.value}
		switch {
		case !r.changed:
		case r.value == nil:
			b.Del = append(b.Del, row)
		default:
			b.Put = append(b.Put, row)
		}
	}
	for key, n := range t.counts {
		if n != 0 {
			b.Add = append(b.Add, Delta{Key: []byte(key), N: n})
		}
	}
	for _, rows := range [][]Row{b.Put, b.Del} {
		slices.SortFunc(rows, func(x, y Row) int {
			if x.Kind != y.Kind {
				return int(x.Kind) - int(y.Kind)
			}
			return bytes.Compare(x.Key, y.Key)
		})
	}
	slices.SortFunc(b.Add, func(x, y Delta) int { return strings.Compare(string(x.Key), string(y.Key)) })
	return b
}
