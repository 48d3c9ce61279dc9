package engine

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strconv"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
)

// Verified is what Verify found.
type Verified struct {
	Partitions  int
	Events      int64            // folded
	Instances   int64            // of the fold
	Differences int64            // rows that differ
	AsOf        map[int32]uint64 // event numbers up to which store and log were compared
	Unindexed   int64            // blocks of events that the store has no index of: it does not know where an id is named in them, and they are read
	First       []string         // the first ten differences in words
	Found       []Difference     // the same, with what differs

	explain func(kind projection.Kind, key string, sum [16]byte) []Change // what differs in a row
}

// Difference is a row that is not what the log says.
type Difference struct {
	Partition int32    `json:"partition"`
	Text      string   `json:"text"`              // which row, and how
	Changes   []Change `json:"changes,omitempty"` // from what the log says to what the store has
}

// firstDifferences is how many differences Verify puts into words.
const firstDifferences = 10

// Verify folds the log from its beginning up to where each partition of the store stands, and
// compares all rows byte for byte. Instances in quarantine are compared by id only; protocol
// rule 12. It changes nothing, and an engine may work meanwhile: each partition is compared as
// of the event at which it was read. It needs memory for the rows of one partition. An event
// that is missing or can't be read is an error that says where; so is projection.ErrMoves, of
// a store that can't be read whole while an engine writes to it.
func Verify(ctx context.Context, log eventlog.Log, store projection.Store, progress func(partition int32, done, total int64)) (Verified, error) {
	return VerifyPartitions(ctx, log, store, nil, progress)
}

// VerifyPartitions is Verify of some partitions; nil = all.
func VerifyPartitions(ctx context.Context, log eventlog.Log, store projection.Store, partitions []int32, progress func(partition int32, done, total int64)) (Verified, error) {
	v := Verified{AsOf: map[int32]uint64{}}
	if partitions == nil {
		partitions = allPartitions(log)
	}
	for _, p := range partitions {
		if err := v.partition(ctx, log, store, p, progress); err != nil {
			return v, fmt.Errorf("verify partition %d: %w", p, err)
		}
		v.Partitions++
	}
	return v, nil
}

func allPartitions(log eventlog.Log) []int32 {
	l := make([]int32, log.Partitions())
	for p := range l {
		l[p] = int32(p)
	}
	return l
}

func (v *Verified) differ(partition int32, what string, changes ...Change) {
	v.Differences++
	if len(v.First) < firstDifferences {
		v.First = append(v.First, fmt.Sprintf("partition %d: %s", partition, what))
		v.Found = append(v.Found, Difference{partition, what, changes})
	}
}

func (v *Verified) partition(ctx context.Context, log eventlog.Log, store projection.Store, p int32, progress func(int32, int64, int64)) error {
	stored, w, err := dump(ctx, store, p)
	switch {
	case errors.Is(err, projection.ErrStateLost):
		v.differ(p, "the store says: "+err.Error())
		return nil
	case err != nil:
		return err
	}
	f, err := newFolder(ctx, log, store, p)
	if err != nil {
		return err
	}
	defer f.close()
	if w.N > 0 && w.LogID != f.r.e.eventsID {
		return fmt.Errorf("%w: it has folded the events topic %s, this log's is %s", ErrForeignStore, w.LogID, f.r.e.eventsID)
	}
	if progress != nil {
		f.progress = func(done, total int64) { progress(p, done, total) }
	}
	m := newScratch()
	if f.target = w.N; w.N > 0 {
		if err := f.run(func(next op) result { return m.do(f.r, next) }); err != nil {
			return err
		}
		o := f.r.o
		if o.st.N < w.N {
			v.differ(p, fmt.Sprintf("the store stands at event %d, the log ends at event %d", w.N, o.st.N))
		} else if o.last.checksum() != w.Sum {
			v.differ(p, fmt.Sprintf("event %d is not the one that the store has folded", w.N))
		}
		for id := range o.st.Frozen {
			// The fold of this version can't do what the owner's did.
			v.differ(p, fmt.Sprintf("instance %q can't be folded", id))
		}
		m.apply(o.batch())
	}
	v.AsOf[p] = w.N
	v.Events += int64(f.r.o.folded())
	v.Instances += int64(len(m.rows[projection.KindInstance]))
	v.explain = func(kind projection.Kind, key string, sum [16]byte) []Change {
		view, err := store.View(ctx, p)
		if err != nil {
			return nil
		}
		defer view.Close()
		return changed(ctx, view, kind, key, sum, m.rows[kind][key])
	}
	v.compare(p, stored, m.images())
	return nil
}

// folded is the number of the last event that was folded.
func (o *owner) folded() uint64 {
	if o.st == nil {
		return 0
	}
	return o.st.N
}

// image is a set of rows: keys with checksums of their values, and the instances in
// quarantine.
type image struct {
	rows        map[projection.Kind]map[string][16]byte
	counts      map[string]int64
	quarantined map[string]bool
}

func newImage() image {
	return image{rows: map[projection.Kind]map[string][16]byte{}, counts: map[string]int64{}, quarantined: map[string]bool{}}
}

func (m *image) add(kind projection.Kind, key string, value []byte) error {
	if kind == projection.KindCount {
		n, err := strconv.ParseInt(string(value), 10, 64)
		if err != nil {
			return fmt.Errorf("%w: counter %q is no number", projection.ErrStateLost, key)
		}
		m.counts[key] = n
		return nil
	}
	rows := m.rows[kind]
	if rows == nil {
		rows = map[string][16]byte{}
		m.rows[kind] = rows
	}
	rows[key] = sumOf(value)
	if kind == projection.KindInstance && bytes.Contains(value, []byte(`"quarantined":`)) {
		i := &machine.Instance{}
		if decodeRow(value, i) == nil && i.Quarantined != "" {
			m.quarantined[key] = true
		}
	}
	return nil
}

// dump reads all rows of a partition at one watermark.
func dump(ctx context.Context, store projection.Store, p int32) (image, projection.Watermark, error) {
	view, err := store.View(ctx, p)
	if err != nil {
		return image{}, projection.Watermark{}, err
	}
	defer view.Close()
	m := newImage()
	var failed error
	w, err := projection.DumpAt(ctx, view, func(r projection.Row) error {
		failed = m.add(r.Kind, string(r.Key), r.Value)
		return failed
	})
	if err != nil {
		return image{}, w, cmp.Or(failed, err)
	}
	return m, w, nil
}

// changed says what differs between a row by the log and the one that was read, if it still
// is that one.
func changed(ctx context.Context, view projection.View, kind projection.Kind, key string, sum [16]byte, folded []byte) []Change {
	values, _, err := view.Get(ctx, kind, [][]byte{[]byte(key)})
	if err != nil || values[0] == nil || sumOf(values[0]) != sum {
		return nil // the store has gone on
	}
	value := values[0]
	if len(value) > 0 && len(folded) > 0 && value[0] == formatJSON && folded[0] == formatJSON {
		return Changes(folded[1:], value[1:])
	}
	return Changes(folded, value)
}

// sumOf is a checksum for comparisons within this process: 128 bits that nobody can foresee, at
// a fifth of what SHA-256 takes.
func sumOf(value []byte) (sum [16]byte) {
	binary.LittleEndian.PutUint64(sum[:], maphash.Bytes(sumSeeds[0], value))
	binary.LittleEndian.PutUint64(sum[8:], maphash.Bytes(sumSeeds[1], value))
	return sum
}

var sumSeeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

// compare counts the rows that differ.
func (v *Verified) compare(p int32, stored, folded image) {
	quarantined := map[string]bool{}
	for _, m := range []image{stored, folded} {
		for id := range m.quarantined {
			quarantined[id] = true
		}
	}
	stored.leaveOut(quarantined)
	folded.leaveOut(quarantined)
	kinds := map[projection.Kind]bool{}
	for _, m := range []image{stored, folded} {
		for k := range m.rows {
			kinds[k] = true
		}
	}
	for _, kind := range sortedKeys(kinds) {
		a, b := stored.rows[kind], folded.rows[kind]
		var differ []string // seldom any
		for key, x := range a {
			if y, inLog := b[key]; !inLog || x != y {
				differ = append(differ, key)
			}
		}
		for key := range b {
			if _, inStore := a[key]; !inStore {
				differ = append(differ, key)
			}
		}
		slices.Sort(differ)
		for _, key := range differ {
			x, inStore := a[key]
			_, inLog := b[key]
			switch {
			case !inStore && kind == projection.KindBlock: // an earlier version folded it
				v.Unindexed++
			case !inStore:
				v.differ(p, describeRow(kind, key)+" is missing in the store")
			case !inLog:
				v.differ(p, describeRow(kind, key)+" is in the store, but not in the log")
			case !(kind == projection.KindInstance && quarantined[key]):
				var changes []Change
				if v.explain != nil && len(v.First) < firstDifferences {
					changes = v.explain(kind, key, x)
				}
				v.differ(p, describeRow(kind, key)+" differs", changes...)
			}
		}
	}
	counters := map[string]bool{}
	for _, m := range []image{stored, folded} {
		for k := range m.counts {
			counters[k] = true
		}
	}
	for _, k := range sortedKeys(counters) {
		if x, y := stored.counts[k], folded.counts[k]; x != y {
			v.differ(p, fmt.Sprintf("%s is %d in the store, %d by the log", describeRow(projection.KindCount, k), x, y))
		}
	}
}

func sortedKeys[K cmp.Ordered](m map[K]bool) []K {
	l := make([]K, 0, len(m))
	for k := range m {
		l = append(l, k)
	}
	slices.Sort(l)
	return l
}

// leaveOut removes the index rows of instances in quarantine, and what they count.
func (m *image) leaveOut(quarantined map[string]bool) {
	if len(quarantined) == 0 {
		return
	}
	for _, kind := range []projection.Kind{projection.KindDue, projection.KindRun, projection.KindList, projection.KindListAll} {
		for key := range m.rows[kind] {
			id, counter := ownerOfRow(kind, key)
			if !quarantined[id] {
				continue
			}
			delete(m.rows[kind], key)
			if counter != "" {
				m.counts[counter]--
			}
		}
	}
}

// ownerOfRow is the instance that an index row belongs to, and for KindList the counter that
// counts it.
func ownerOfRow(kind projection.Kind, key string) (id, counter string) {
	k := keyReader{rest: []byte(key)}
	switch kind {
	case projection.KindDue:
		d, _ := parseDue([]byte(key)) // a key that can't be read belongs to nobody
		return d.ID, ""
	case projection.KindRun:
		return k.string(), ""
	case projection.KindList:
		status, definition := k.string(), k.string()
		k.int64()
		return string(k.rest), string(countKey(definition, status))
	case projection.KindListAll:
		k.int64()
		return string(k.rest), ""
	}
	return "", ""
}

// describeRow names a row in words.
func describeRow(kind projection.Kind, key string) string {
	k := keyReader{rest: []byte(key)}
	switch kind {
	case projection.KindInstance:
		return fmt.Sprintf("instance %q", key)
	case projection.KindPlan:
		return "plan " + key
	case projection.KindPartition:
		return "the partition's " + key
	case projection.KindSource:
		return fmt.Sprintf("watermark of source %s, partition %d, key %q", k.string(), k.uint64(), k.string())
	case projection.KindAckDue:
		return fmt.Sprintf("acknowledgement owed to partition %d", k.uint64())
	case projection.KindBlock:
		b := k.uint64()
		return fmt.Sprintf("index of events %d to %d", blockFirst(b), blockFirst(b+1)-1)
	case projection.KindSubscription, projection.KindKept:
		what := "subscription"
		if kind == projection.KindKept {
			what = "kept message"
		}
		topic, name, value := k.string(), k.string(), k.string()
		return fmt.Sprintf("%s %d of %s %s=%s", what, k.uint64(), topic, name, value)
	case projection.KindMatched:
		return fmt.Sprintf("matched message %d", k.uint64())
	case projection.KindDue:
		if d, err := parseDue([]byte(key)); err == nil {
			return fmt.Sprintf("%s of instance %q at %d in the due index", d.Type, d.ID, d.At)
		}
	case projection.KindRun, projection.KindList, projection.KindListAll:
		id, _ := ownerOfRow(kind, key)
		return fmt.Sprintf("instance %q in the %s index", id, map[projection.Kind]string{
			projection.KindRun: "run", projection.KindList: "status", projection.KindListAll: "list"}[kind])
	case projection.KindCount:
		return fmt.Sprintf("count of %s/%s", k.string(), k.string())
	}
	return fmt.Sprintf("row %#x %q", kind, key)
}

// scratch is the store of a fold that is only compared: rows in memory.
type scratch struct {
	rows   map[projection.Kind]map[string][]byte
	counts map[string]int64
	groups map[projection.Kind]map[string]map[string]struct{} // of subscriptions and kept messages, by correlation key
}

func newScratch() *scratch {
	return &scratch{rows: map[projection.Kind]map[string][]byte{}, counts: map[string]int64{}, groups: map[projection.Kind]map[string]map[string]struct{}{}}
}

// do answers an owner as an empty store would that takes what it is given.
func (m *scratch) do(r *runner, next op) (res result) {
	switch x := next.(type) {
	case opAcquire:
		return result{topicID: r.e.eventsID}
	case opBase:
		return result{}
	case opTail:
		return r.readTail(x)
	case opRead:
		return m.read(x, r.o.mark.N)
	case opApply:
		m.apply(x.batch)
		return result{}
	}
	return result{err: fmt.Errorf("engine: a fold asked for %T", next)}
}

func (m *scratch) apply(b *projection.Batch) {
	for _, r := range b.Put {
		rows := m.rows[r.Kind]
		if rows == nil {
			rows = map[string][]byte{}
			m.rows[r.Kind] = rows
		}
		key := string(r.Key)
		rows[key] = r.Value
		m.group(r.Kind, key, true)
	}
	for _, r := range b.Del {
		delete(m.rows[r.Kind], string(r.Key))
		m.group(r.Kind, string(r.Key), false)
	}
	for _, d := range b.Add {
		if m.counts[string(d.Key)] += d.N; m.counts[string(d.Key)] == 0 {
			delete(m.counts, string(d.Key))
		}
	}
}

func (m *scratch) group(kind projection.Kind, key string, has bool) {
	if kind != projection.KindSubscription && kind != projection.KindKept {
		return
	}
	prefix := key[:len(key)-8] // the number stands behind the correlation key
	if m.groups[kind] == nil {
		m.groups[kind] = map[string]map[string]struct{}{}
	}
	g := m.groups[kind][prefix]
	switch {
	case has && g == nil:
		m.groups[kind][prefix] = map[string]struct{}{key: {}}
	case has:
		g[key] = struct{}{}
	case len(g) == 1:
		if _, is := g[key]; is {
			delete(m.groups[kind], prefix)
		}
	default:
		delete(g, key)
	}
}

func (m *scratch) read(x opRead, at uint64) (res result) {
	res.ids, res.keys, res.at = x.ids, x.keys, at
	for _, id := range x.ids {
		res.instances = append(res.instances, m.rows[projection.KindInstance][id])
	}
	for _, k := range x.keys {
		res.waiters = append(res.waiters, m.of(projection.KindSubscription, k))
		res.kept = append(res.kept, m.of(projection.KindKept, k))
	}
	return res
}

func (m *scratch) of(kind projection.Kind, ref eventlog.KeyRef) []projection.Row {
	var l []projection.Row
	for key := range m.groups[kind][string(keyRefKey(ref))] {
		l = append(l, projection.Row{Kind: kind, Key: []byte(key), Value: m.rows[kind][key]})
	}
	slices.SortFunc(l, func(a, b projection.Row) int { return bytes.Compare(a.Key, b.Key) })
	return l
}

// images are the rows as they are compared.
func (m *scratch) images() image {
	x := newImage()
	for kind, rows := range m.rows {
		for key, value := range rows {
			_ = x.add(kind, key, value) // only a counter can fail, and there is none
		}
	}
	x.counts = m.counts
	return x
}
