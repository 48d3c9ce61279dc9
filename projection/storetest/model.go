package storetest

import (
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/godagger/dagger/projection"
)

// model is the oracle: what a partition has to hold.
type model struct {
	watermark projection.Watermark
	rows      map[rowName][]byte
}

type rowName struct {
	kind projection.Kind
	key  string
}

func newModel(epoch uint64) *model {
	return &model{watermark: projection.Watermark{Epoch: epoch}, rows: map[rowName][]byte{}}
}

func (m *model) clone() *model {
	return &model{watermark: m.watermark, rows: maps.Clone(m.rows)}
}

func (m *model) apply(b projection.Batch) {
	for _, r := range b.Put {
		m.rows[rowName{r.Kind, string(r.Key)}] = append([]byte{}, r.Value...)
	}
	for _, r := range b.Del {
		delete(m.rows, rowName{r.Kind, string(r.Key)})
	}
	for _, d := range b.Add {
		name := rowName{projection.KindCount, string(d.Key)}
		n, _ := strconv.ParseInt(string(m.rows[name]), 10, 64) // absent is 0
		if n += d.N; n == 0 {
			delete(m.rows, name)
		} else {
			m.rows[name] = strconv.AppendInt(nil, n, 10)
		}
	}
	m.watermark = b.New
}

func (m *model) dump() []projection.Row {
	var rows []projection.Row
	for name, value := range m.rows {
		rows = append(rows, projection.Row{Kind: name.kind, Key: []byte(name.key), Value: value})
	}
	slices.SortFunc(rows, compare)
	return rows
}

// scan is what Scan has to return.
func (m *model) scan(kind projection.Kind, from, to []byte, limit int) []projection.Row {
	var rows []projection.Row
	for _, r := range m.dump() {
		if r.Kind == kind && string(r.Key) >= string(from) && (to == nil || string(r.Key) < string(to)) && len(rows) < limit {
			rows = append(rows, r)
		}
	}
	return rows
}

// event is what one event of a history changes.
type event struct {
	put map[rowName][]byte // nil = deleted
	add []projection.Delta
}

var kinds = []projection.Kind{
	projection.KindInstance, projection.KindPlan, projection.KindSubscription, projection.KindKept,
	projection.KindDue, projection.KindList, 0x7F, 0xFF,
}

// nasty are pieces of keys: prefixes of each other, and bytes that some backend treats as
// something else.
var nasty = []string{
	"", "a", "ab", "abc", "b", "\x00", "\x00\xFF", "\x00\x01", "\xFF", "\xFF\xFF", "|", "{}", "\n", "\r\n",
	"*", "?", ":", "/", "%00", " ", "é", "שלום", "🍕", "\xC3\x28",
}

// history returns random events. Its keys are few, so that rows are replaced and deleted.
func history(rnd *rand.Rand, n int) []event {
	events := make([]event, n)
	for i := range events {
		e := event{put: map[rowName][]byte{}}
		for range 1 + rnd.IntN(4) {
			name := rowName{kinds[rnd.IntN(len(kinds))], nasty[rnd.IntN(len(nasty))] + nasty[rnd.IntN(len(nasty))]}
			switch rnd.IntN(4) {
			case 0:
				e.put[name] = nil
			case 1:
				e.put[name] = []byte{}
			default:
				e.put[name] = fmt.Appendf(nil, "value %d of event %d", rnd.IntN(1000), i+1)
			}
		}
		for range rnd.IntN(3) {
			e.add = append(e.add, projection.Delta{Key: []byte(nasty[rnd.IntN(6)]), N: rnd.Int64N(5) - 2})
		}
		events[i] = e
	}
	return events
}

// batchOf folds events from+1..from+len(events) into one batch.
func batchOf(events []event, from, epoch uint64) projection.Batch {
	b := projection.Batch{Expected: from, New: mark(from+uint64(len(events)), epoch)}
	last := map[rowName][]byte{}
	for _, e := range events {
		maps.Copy(last, e.put)
		b.Add = append(b.Add, e.add...)
	}
	for name, value := range last {
		r := projection.Row{Kind: name.kind, Key: []byte(name.key), Value: value}
		if value == nil {
			b.Del = append(b.Del, r)
		} else {
			b.Put = append(b.Put, r)
		}
	}
	return b
}

// mark is the watermark of event n of the suite's log.
func mark(n, epoch uint64) projection.Watermark {
	sum := fnv.New64a()
	fmt.Fprint(sum, n)
	return projection.Watermark{N: n, Epoch: epoch, Offset: int64(n) * 3, LogID: "log-1", Sum: sum.Sum64()}
}

// put is a batch of one event that puts rows of one kind.
func put(from, epoch uint64, kind projection.Kind, keys ...string) projection.Batch {
	b := projection.Batch{Expected: from, New: mark(from+1, epoch)}
	for _, k := range keys {
		b.Put = append(b.Put, projection.Row{Kind: kind, Key: []byte(k), Value: []byte("value of " + k)})
	}
	return b
}
