package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
	"github.com/godagger/dagger/projection"
	"github.com/godagger/dagger/projection/snapshot"
)

// The background verifier walks through all instances of this process's partitions, slowly: a
// slice of a partition's instances at a time is folded from the log and compared with the
// store, at one event and without a pause of the owner.

const (
	// sliceInstances is about how many instances are in memory at a time.
	sliceInstances = 5000
	// verifyShare is the part of its time that the verifier works; the rest it sleeps.
	verifyShare = 10
	// verifyTries is how often a comparison is tried whose index entries the store has moved
	// away from.
	verifyTries = 4
)

// errWentBack: the store was dropped, or went back otherwise, while it was compared.
var errWentBack = errors.New("engine: the store went back while it was compared")

// verifierLoop walks once in every Config.VerifyInterval, until ctx ends.
func (e *Engine) verifierLoop(ctx context.Context) {
	if e.cfg.VerifyInterval <= 0 {
		return
	}
	for ctx.Err() == nil {
		began := time.Now()
		sleep(ctx, e.cfg.VerifyInterval/time.Duration(2*e.log.Partitions())) // owners recover first
		for p := range e.log.Partitions() {
			if r := e.runner(p); r == nil || !r.partitionStatus().Ready {
				continue
			}
			if err := e.verifyPartition(ctx, p); err != nil && ctx.Err() == nil {
				e.logger.Warn("the verifier could not compare a partition", "partition", p, "err", err)
			}
			// Spread over the interval.
			due := began.Add(e.cfg.VerifyInterval * time.Duration(p+1) / time.Duration(e.log.Partitions()))
			sleep(ctx, max(0, time.Until(due)))
		}
		sleep(ctx, max(time.Millisecond, time.Until(began.Add(e.cfg.VerifyInterval))))
	}
}

// verifyPartition compares all instances of a partition, slice by slice.
func (e *Engine) verifyPartition(ctx context.Context, p int32) error {
	counts, _, err := readCount(ctx, e.store, []int32{p}, Filter{})
	if err != nil {
		return err
	}
	instances := int64(0)
	for _, n := range counts {
		instances += n
	}
	of := uint32(1 + instances/sliceInstances)
	for k := range of {
		s := &slice{e: e, partition: p, of: of, k: k, st: machine.NewState(p, e.log.Partitions()), pace: pace{began: time.Now()}}
		differences, err := s.compare(ctx)
		if errors.Is(err, errWentBack) {
			continue // the next walk meets it
		}
		if err != nil {
			return err
		}
		for _, d := range differences {
			e.logger.Error("the store differs from the log", "partition", p, "instance", d.id, "what", d.what, "event", s.at)
		}
		if f := e.cfg.Observer.Verified; f != nil {
			f(s.compared, len(differences))
		}
	}
	return nil
}

// pace keeps the work to its share of the time.
type pace struct{ began time.Time }

func (p *pace) rest(ctx context.Context) {
	if worked := time.Since(p.began); worked > 5*time.Millisecond {
		sleep(ctx, worked*(verifyShare-1))
		p.began = time.Now()
	}
}

// slice is the instances of a partition whose ids have one remainder, as they are folded.
type slice struct {
	e         *Engine
	partition int32
	of, k     uint32
	st        *machine.State
	after     uint64 // last event folded
	at        uint64 // event at which it was compared
	compared  int
	reader    eventlog.Reader
	left      []eventlog.Record // read, not folded
	pace      pace
}

type difference struct{ id, what string }

func (s *slice) has(id string) bool {
	if id == "" {
		return false
	}
	h := fnv.New32a()
	h.Write([]byte(id))
	return h.Sum32()%s.of == s.k
}

// compare folds up to where the store is and compares.
func (s *slice) compare(ctx context.Context) ([]difference, error) {
	v, err := s.e.store.View(ctx, s.partition)
	if err != nil {
		return nil, fmt.Errorf("read store: %w", err)
	}
	defer v.Close()
	w, err := v.Watermark(ctx)
	if err != nil {
		return nil, fmt.Errorf("read store: %w", err)
	}
	if w.N == 0 {
		return nil, nil
	}
	if err := s.begin(ctx, w.N); err != nil {
		return nil, err
	}
	defer s.reader.Close()
	if err := s.foldTo(ctx, w.N); err != nil {
		return nil, err
	}
	stored, err := s.stored(ctx, v)
	if err != nil {
		return nil, err
	}
	for try := 1; ; try++ {
		ids := map[string]bool{}
		maps.Copy(ids, stored)
		for id, i := range s.st.Instances {
			if i != nil {
				ids[id] = true
			}
		}
		differences, moved, err := s.compareAt(ctx, v, sortedKeys(ids))
		if err != nil || !moved || try == verifyTries {
			return differences, err
		}
	}
}

// begin opens a reader: at the log's first event, or behind a snapshot where that was trimmed.
func (s *slice) begin(ctx context.Context, upto uint64) error {
	r := &runner{e: s.e, partition: s.partition, logger: s.e.logger, life: ctx}
	first, err := r.firstEvent()
	if err != nil {
		return err
	}
	topic, err := s.e.log.Topic(ctx, eventlog.EventsTopic(s.e.log.App()))
	if err != nil {
		return fmt.Errorf("describe the events topic: %w", err)
	}
	from := topic.Partitions[s.partition].Start
	if last := r.lastBefore(topic.Partitions[s.partition].End); last.err != nil || last.n < upto {
		return errors.Join(last.err, fmt.Errorf("the store stands at event %d, the log ends at event %d", upto, last.n))
	}
	if first > 1 {
		if from, err = s.base(ctx, r, first, upto); err != nil {
			return err
		}
	}
	if s.reader, err = s.e.log.Read(ctx, topic.Name, s.partition, from, s.e.eventsID, eventlog.ReadCommitted); err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	return nil
}

// base takes the instances of a snapshot that the log's rest can be folded upon.
func (s *slice) base(ctx context.Context, r *runner, first, upto uint64) (offset int64, err error) {
	b := s.e.cfg.Snapshots.Bucket
	if b == nil {
		return 0, fmt.Errorf("the log begins at event %d, and there are no snapshots", first)
	}
	id := projection.Identity{App: s.e.log.App(), Partitions: s.e.log.Partitions()}
	list, _, err := snapshot.List(ctx, b, id, s.partition, s.e.eventsID)
	if err != nil {
		return 0, err
	}
	for _, m := range slices.Backward(list) { // the oldest: what it does not have is compared
		if m.N < first || m.N > upto || r.ofThisHistory(m) != nil || snapshot.Check(ctx, b, m) != nil {
			continue
		}
		err := snapshot.Read(ctx, b, m, func(row projection.Row) error {
			switch {
			case row.Kind == projection.KindInstance && s.has(string(row.Key)):
				i := &machine.Instance{}
				if err := decodeRow(row.Value, i); err != nil {
					return err
				}
				s.st.Instances[string(row.Key)] = i
			case row.Kind == projection.KindPlan && len(row.Value) > 0:
				return s.st.AddPlan(string(row.Key), row.Value[1:])
			}
			return nil
		})
		s.after = m.N
		return m.Offset, err
	}
	return 0, fmt.Errorf("the log begins at event %d, and no snapshot of it is whole", first)
}

// foldTo folds up to an event, which must have been committed.
func (s *slice) foldTo(ctx context.Context, n uint64) error {
	for s.after < n {
		if len(s.left) == 0 {
			s.pace.rest(ctx)
			var err error
			if s.left, _, err = s.reader.Next(ctx); err != nil {
				return fmt.Errorf("read events: %w", err)
			}
			continue
		}
		rec := s.left[0]
		s.left = s.left[1:]
		ev, err := decodeEvent(&rec, s.partition)
		if err != nil {
			return err
		}
		if ev == nil || ev.N <= s.after {
			continue
		}
		if ev.N != s.after+1 {
			return fmt.Errorf("%w: event %d follows event %d", machine.ErrGap, ev.N, s.after)
		}
		if err := s.event(ev); err != nil {
			return fmt.Errorf("fold event %d: %w", ev.N, err)
		}
		s.after = ev.N
	}
	return nil
}

// event folds what an event does to the slice's instances.
func (s *slice) event(ev *eventlog.Event) error {
	e := *ev
	e.Pos, e.Out = nil, nil
	own := false
	if s.has(ev.ID) {
		ids, _, _ := machine.Touches(&e)
		own = len(ids) > 0
	}
	own = own || ev.Type == eventlog.PlanUsed
	if !own {
		e = eventlog.Event{V: 1, N: ev.N, Type: eventlog.Checkpoint, At: ev.At}
	}
	if ev.Pos != nil {
		var refused []eventlog.Refusal
		for _, r := range ev.Pos.Refused {
			if s.has(r.ID) {
				refused = append(refused, r)
			}
		}
		if len(refused) > 0 {
			e.Pos = &eventlog.Position{Refused: refused}
		}
	}
	if !own && e.Pos == nil {
		return nil
	}
	s.st.N = ev.N - 1
	s.st.ForgetChanged()
	return s.st.Evolve(&e)
}

// stored is which of the slice's instances the store lists.
func (s *slice) stored(ctx context.Context, v projection.View) (map[string]bool, error) {
	ids := map[string]bool{}
	var from []byte
	for {
		const page = 5000
		rows, _, err := v.Scan(ctx, projection.KindListAll, from, nil, page)
		if err != nil {
			return nil, fmt.Errorf("read store: %w", err)
		}
		for _, row := range rows {
			k := keyReader{rest: row.Key}
			k.int64()
			if id := string(k.rest); k.err == nil && s.has(id) {
				ids[id] = true
			}
		}
		if len(rows) < page {
			return ids, nil
		}
		from = append(rows[len(rows)-1].Key, 0)
		s.pace.rest(ctx)
	}
}

// compareAt compares the rows of instances, and whether their index entries are there, at the
// event where the store is. moved: of some entries it is not known, for the store went on.
func (s *slice) compareAt(ctx context.Context, v projection.View, ids []string) (l []difference, moved bool, err error) {
	keys := make([][]byte, len(ids))
	for k, id := range ids {
		keys[k] = []byte(id)
	}
	values, at, err := v.Get(ctx, projection.KindInstance, keys)
	if err != nil {
		return nil, false, fmt.Errorf("read store: %w", err)
	}
	if at < s.after {
		return nil, false, errWentBack
	}
	if err := s.foldTo(ctx, at); err != nil {
		return nil, false, err
	}
	entries := map[projection.Kind][]projection.Row{}
	owner := map[projection.Kind][]string{}
	for k, id := range ids {
		i := s.st.Instances[id]
		switch {
		case s.st.Frozen[id] != "":
			l = append(l, difference{id, "the instance can't be folded"})
		case i == nil && values[k] == nil:
		case i == nil:
			l = append(l, difference{id, "the instance is in the store, but not in the log"})
		case values[k] == nil:
			l = append(l, difference{id, "the instance is missing in the store"})
		case i.Quarantined != "": // protocol rule 12
		default:
			if !bytes.Equal(encodeRow(i), values[k]) {
				l = append(l, difference{id, "the instance's row differs"})
			}
			for _, row := range index(i).entries {
				entries[row.Kind] = append(entries[row.Kind], row)
				owner[row.Kind] = append(owner[row.Kind], id)
			}
		}
	}
	for kind, rows := range entries {
		keys = keys[:0]
		for _, row := range rows {
			keys = append(keys, row.Key)
		}
		found, again, err := v.Get(ctx, kind, keys)
		if err != nil {
			return nil, false, fmt.Errorf("read store: %w", err)
		}
		if again != at {
			moved = true
			continue
		}
		for k := range found {
			if found[k] == nil {
				l = append(l, difference{owner[kind][k], describeRow(kind, string(rows[k].Key)) + " is missing in the store"})
			}
		}
	}
	s.at, s.compared = at, len(ids)
	return l, moved, nil
}
