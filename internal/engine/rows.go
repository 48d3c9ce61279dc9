package engine

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
)

// Rows: how a partition's state stands in a store. Values are JSON behind a format byte;
// everything in them is a function of the events, so equal logs give equal rows.

const formatJSON = 1

var keyPosition = []byte("position")

// positionRow is the partition's own part.
type positionRow struct {
	At         int64  `json:"at"`
	Epoch      uint64 `json:"epoch"`
	RequestsID string `json:"requestsId,omitempty"`
	Offset     int64  `json:"offset"`
	Term       int32  `json:"term,omitempty"`
	Forwarded  uint64 `json:"forwarded,omitempty"`
}

type waiterRow struct {
	ID    string `json:"id"`
	Run   uint64 `json:"run"`
	Act   uint64 `json:"act"`
	One   bool   `json:"one,omitempty"`
	Given int    `json:"given,omitempty"`
}

type keptRow struct {
	Message *eventlog.Message `json:"message"`
	Expires int64             `json:"expires"`
}

func encodeRow(v any) []byte {
	if i, ok := v.(*machine.Instance); ok {
		return i.AppendJSON(append(make([]byte, 0, 350+len(i.Params)+130*len(i.Tasks)), formatJSON))
	}
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("engine: encode row %T: %v", v, err)) // our own types, checked raw JSON
	}
	return append([]byte{formatJSON}, data...)
}

func decodeRow(value []byte, v any) error {
	if len(value) == 0 || value[0] != formatJSON {
		return fmt.Errorf("%w: row of an unknown format", projection.ErrStateLost)
	}
	if err := json.Unmarshal(value[1:], v); err != nil {
		return fmt.Errorf("%w: %v", projection.ErrStateLost, err)
	}
	return nil
}

func keyRefKey(k eventlog.KeyRef) []byte {
	b := projection.AppendString(nil, k.Topic)
	b = projection.AppendString(b, k.Key)
	return projection.AppendString(b, k.Value)
}

func sourceKey(s eventlog.Source) []byte {
	b := projection.AppendString(nil, s.TopicID)
	b = projection.AppendUint64(b, uint64(s.Partition))
	return projection.AppendString(b, s.Key)
}

// dueKey holds the whole entry, so that it is read back without a value.
func dueKey(d machine.Due) []byte {
	b := make([]byte, 0, len(d.Type)+len(d.ID)+len(d.Path)+46)
	b = projection.AppendInt64(b, d.At)
	b = projection.AppendString(b, string(d.Type))
	b = projection.AppendString(b, d.ID)
	b = projection.AppendString(b, d.Path)
	b = projection.AppendUint64(b, d.Run)
	b = projection.AppendUint64(b, d.Act)
	b = projection.AppendUint64(b, uint64(d.Attempt))
	b = projection.AppendUint64(b, d.Msg)
	if d.Type == machine.ExpireKept {
		b = append(b, keyRefKey(d.Key)...)
	}
	return b
}

// keyReader takes a composite key apart; the first error sticks.
type keyReader struct {
	rest []byte
	err  error
}

func (k *keyReader) string() (s string) {
	if k.err == nil {
		s, k.rest, k.err = projection.CutString(k.rest)
	}
	return s
}

func (k *keyReader) uint64() (n uint64) {
	if k.err == nil {
		n, k.rest, k.err = projection.CutUint64(k.rest)
	}
	return n
}

func (k *keyReader) int64() (n int64) {
	if k.err == nil {
		n, k.rest, k.err = projection.CutInt64(k.rest)
	}
	return n
}

func (k *keyReader) lost(what string) error {
	if k.err == nil {
		return nil
	}
	return fmt.Errorf("%w: key of a %s row: %v", projection.ErrStateLost, what, k.err)
}

func parseDue(key []byte) (machine.Due, error) {
	k := keyReader{rest: key}
	d := machine.Due{At: k.int64(), Type: eventlog.RequestType(k.string()), ID: k.string(), Path: k.string(),
		Run: k.uint64(), Act: k.uint64(), Attempt: int(k.uint64()), Msg: k.uint64()}
	if d.Type == machine.ExpireKept {
		d.Key = eventlog.KeyRef{Topic: k.string(), Key: k.string(), Value: k.string()}
	}
	return d, k.lost("due")
}

func runKey(id string, w machine.Work) []byte {
	b := make([]byte, 0, len(id)+len(w.Path)+20)
	b = projection.AppendString(b, id)
	b = projection.AppendString(b, w.Path)
	b = projection.AppendUint64(b, w.Act)
	return projection.AppendUint64(b, uint64(w.Attempt))
}

func listKey(status, definition string, created int64, id string) []byte {
	b := make([]byte, 0, len(status)+len(definition)+len(id)+12)
	b = projection.AppendString(b, status)
	b = projection.AppendString(b, definition)
	b = projection.AppendInt64(b, created)
	return append(b, id...)
}

func listAllKey(created int64, id string) []byte {
	return append(projection.AppendInt64(make([]byte, 0, 8+len(id)), created), id...)
}

func countKey(definition, status string) []byte {
	return projection.AppendString(projection.AppendString(nil, definition), status)
}

// indexed is what the store's indexes have of an instance.
type indexed struct {
	entries []projection.Row // without values
	count   string           // countKey, "" when it is not counted
}

// index derives the entries of an instance; nil has none.
func index(i *machine.Instance) indexed {
	var x indexed
	if i == nil {
		return x
	}
	for _, d := range i.Dues() {
		x.entries = append(x.entries, projection.Row{Kind: projection.KindDue, Key: dueKey(d)})
	}
	for _, w := range i.Works() {
		x.entries = append(x.entries, projection.Row{Kind: projection.KindRun, Key: runKey(i.ID, w)})
	}
	if i.Run > 0 || i.Quarantined != "" {
		x.entries = append(x.entries,
			projection.Row{Kind: projection.KindList, Key: listKey(i.StatusName(), i.Definition, i.Created, i.ID)},
			projection.Row{Kind: projection.KindListAll, Key: listAllKey(i.Created, i.ID)})
		x.count = string(countKey(i.Definition, i.StatusName()))
	}
	return x
}

// diff adds to the batch what leads from the old entries to the new ones.
func (x indexed) diff(old indexed, b *projection.Batch) {
	b.Del = appendWithout(b.Del, old.entries, x.entries)
	b.Put = appendWithout(b.Put, x.entries, old.entries)
	if old.count != x.count {
		if old.count != "" {
			b.Add = append(b.Add, projection.Delta{Key: []byte(old.count), N: -1})
		}
		if x.count != "" {
			b.Add = append(b.Add, projection.Delta{Key: []byte(x.count), N: 1})
		}
	}
}

// appendWithout appends the entries that others lack, in their order.
func appendWithout(l, entries, others []projection.Row) []projection.Row {
	type entry struct {
		kind projection.Kind
		key  string
	}
	const few = 16 // what is compared faster than looked up
	var known map[entry]struct{}
	if len(others) > few {
		known = make(map[entry]struct{}, len(others))
		for _, y := range others {
			known[entry{y.Kind, string(y.Key)}] = struct{}{}
		}
	}
	for _, r := range entries {
		found := false
		if known != nil {
			_, found = known[entry{r.Kind, string(r.Key)}]
		} else {
			found = slices.ContainsFunc(others, func(y projection.Row) bool { return y.Kind == r.Kind && string(y.Key) == string(r.Key) })
		}
		if !found {
			l = append(l, r)
		}
	}
	return l
}

// row writes one changed row of the state other than an instance's into the batch.
func row(s *machine.State, r machine.Row, b *projection.Batch) {
	put := func(kind projection.Kind, key, value []byte) {
		b.Put = append(b.Put, projection.Row{Kind: kind, Key: key, Value: value})
	}
	del := func(kind projection.Kind, key []byte) {
		b.Del = append(b.Del, projection.Row{Kind: kind, Key: key})
	}
	switch r.Kind {
	case machine.RowPosition:
		put(projection.KindPartition, keyPosition, encodeRow(positionRow{s.At, s.Epoch, s.RequestsID, s.Offset, s.Term, s.Forwarded}))
	case machine.RowPlan:
		put(projection.KindPlan, []byte(r.ID), append([]byte{formatJSON}, s.Plans[r.ID].Recorded()...))
	case machine.RowSource:
		put(projection.KindSource, sourceKey(r.Source), encodeRow(s.Sources[r.Source]))
	case machine.RowAckDue:
		key := projection.AppendUint64(nil, uint64(r.Partition))
		if m, ok := s.AckDue[r.Partition]; ok {
			put(projection.KindAckDue, key, encodeRow(m))
		} else {
			del(projection.KindAckDue, key)
		}
	case machine.RowMatched:
		key := projection.AppendUint64(nil, r.N)
		if m := s.Matched[r.N]; m != nil {
			put(projection.KindMatched, key, encodeRow(m))
		} else {
			del(projection.KindMatched, key)
		}
	case machine.RowWaiter:
		key := projection.AppendUint64(keyRefKey(r.Key), r.N)
		if w := s.Keys[r.Key].Waiter(r.N); w != nil {
			put(projection.KindSubscription, key, encodeRow(waiterRow{w.ID, w.Run, w.Act, w.One, w.Given}))
		} else {
			del(projection.KindSubscription, key)
		}
	case machine.RowKept:
		key := projection.AppendUint64(keyRefKey(r.Key), r.N)
		due := machine.Due{}
		if k := s.Keys[r.Key].Message(r.N); k != nil {
			due = k.Due(r.Key)
			put(projection.KindKept, key, encodeRow(keptRow{k.Message, k.Expires}))
			put(projection.KindDue, dueKey(due), nil)
		} else {
			del(projection.KindKept, key)
			due = machine.Kept{Msg: r.N, Expires: r.Expires}.Due(r.Key)
			del(projection.KindDue, dueKey(due))
		}
	}
}
