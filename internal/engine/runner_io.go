package engine

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/projection"
)

// lastBefore finds the last event below an offset. Markers and barriers leave holes, so it
// looks further and further back.
func (r *runner) lastBefore(before int64) (res result) {
	topic, err := r.e.log.Topic(r.life, eventlog.EventsTopic(r.e.log.App()))
	if err != nil {
		return result{err: err}
	}
	start := topic.Partitions[r.partition].Start
	for back := int64(64); ; back *= 16 {
		from := max(start, before-back)
		last, err := r.lastIn(from, before)
		if err != nil {
			return result{err: err}
		}
		if last != nil {
			return result{n: last.N, time: last.At, maxEvent: topic.MaxRecord}
		}
		if from == start && start > 0 {
			// Numbered from 1 again, it would look like a partition that never had anything.
			return result{err: fmt.Errorf("%w: %s, partition %d, begins at offset %d and has no event: its events were deleted, by a retention or by somebody, and its instances with them; restore the log, or begin with a new application name", eventlog.ErrOffsetGone, topic.Name, r.partition, start)}
		}
		if from == start {
			return result{maxEvent: topic.MaxRecord}
		}
	}
}

func (r *runner) lastIn(from, before int64) (last *eventlog.Event, err error) {
	reader, err := r.e.log.Read(r.life, eventlog.EventsTopic(r.e.log.App()), r.partition, from, r.e.eventsID, eventlog.ReadCommitted)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	defer reader.Close()
	for at := from; at < before; {
		records, next, err := r.committed(reader)
		if err != nil {
			return nil, fmt.Errorf("read events: %w", err)
		}
		for _, rec := range records {
			if rec.Offset >= before || eventlog.IsBarrier(rec.Value) {
				continue
			}
			last = &eventlog.Event{}
			if err := eventlog.DecodeEvent(rec.Value, last); err != nil {
				return nil, fmt.Errorf("decode event at offset %d of partition %d: %w", rec.Offset, r.partition, err)
			}
		}
		at = next
	}
	return last, nil
}

// stuckAfter is how long a reader of events that are known to be there waits for the next.
const stuckAfter = 30 * time.Second

var errStuck = fmt.Errorf("no committed events in %v, although there are some: a transaction that is not the owner's is open on the events topic (kafka-transactions.sh find-hanging names it), or the brokers do not answer", stuckAfter)

// committed reads what stands before the end of the log: it must come.
func (r *runner) committed(reader eventlog.Reader) ([]eventlog.Record, int64, error) {
	ctx, cancel := context.WithTimeoutCause(r.life, stuckAfter, errStuck)
	defer cancel()
	return reader.Next(ctx)
}

// readTail reads on, or begins at the hint and looks further back until it is at or below
// the event asked for.
func (r *runner) readTail(x opTail) (res result) {
	if r.tail == nil {
		if err := r.seek(x); err != nil {
			return result{err: err}
		}
	}
	for len(res.tail) == 0 {
		if len(r.tailBuf) > 0 {
			first := slices.IndexFunc(r.tailBuf, func(t tailEvent) bool { return t.event.N >= x.first() })
			if first >= 0 {
				res.tail = r.tailBuf[first:]
			}
			r.tailBuf = nil
		} else if r.tailOff > x.until {
			break
		} else if res.tail, res.err = r.tailNext(x); res.err != nil {
			return res
		}
	}
	if res.done = r.tailOff > x.until; res.done {
		r.closeTail()
	}
	return res
}

// tailNext reads the next records up to the barrier, into the memory of those before.
func (r *runner) tailNext(x opTail) (tail []tailEvent, err error) {
	records, next, err := r.committed(r.tail)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	r.tailOff = next
	tail = r.lent.tail[:0]
	defer func() { r.lent.tail = tail[:0] }()
	for k := range records {
		rec := &records[k]
		if rec.Offset > x.until || eventlog.IsBarrier(rec.Value) {
			continue
		}
		e := r.lent.event(len(tail))
		if err := r.lent.decoder.Decode(rec.Value, e); err != nil {
			return nil, fmt.Errorf("decode event at offset %d of partition %d: %w", rec.Offset, r.partition, err)
		}
		if e.N >= x.first() {
			tail = append(tail, tailEvent{event: e, offset: rec.Offset, value: rec.Value})
		}
	}
	return tail, nil
}

// first is the number of the first event that is wanted.
func (x opTail) first() uint64 {
	if x.early > 0 {
		return min(x.early, x.from)
	}
	return x.from
}

// tailMemory is the memory of the piece of the log that was read last.
type tailMemory struct {
	tail    []tailEvent
	events  [][]eventlog.Event
	decoder eventlog.EventDecoder
}

// event is the memory of event k of the piece.
func (m *tailMemory) event(k int) *eventlog.Event {
	const block = 256
	if k/block == len(m.events) {
		m.events = append(m.events, make([]eventlog.Event, block))
	}
	return &m.events[k/block][k%block]
}

// seek opens the reader such that its first event is not above the one asked for.
func (r *runner) seek(x opTail) error {
	name := eventlog.EventsTopic(r.e.log.App())
	topic, err := r.e.log.Topic(r.life, name)
	if err != nil {
		return err
	}
	start := topic.Partitions[r.partition].Start
	all := opTail{from: 0, until: x.until}
	for back := int64(0); ; back = max(64, back*16) {
		from := max(start, x.hint-back)
		if r.tail, err = r.e.log.Read(r.life, name, r.partition, from, r.e.eventsID, eventlog.ReadCommitted); err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		r.tailBuf, r.tailOff = nil, from
		for len(r.tailBuf) == 0 && r.tailOff <= x.until {
			if r.tailBuf, err = r.tailNext(all); err != nil {
				return err
			}
		}
		if len(r.tailBuf) > 0 && r.tailBuf[0].event.N <= x.first() {
			return nil
		}
		if from == start {
			if len(r.tailBuf) == 0 || r.tailBuf[0].event.N <= max(x.from, 1) {
				return nil
			}
			return fmt.Errorf("the log of partition %d begins at event %d, but event %d is needed: restore the store from a copy that has folded it", r.partition, r.tailBuf[0].event.N, x.from)
		}
		r.closeTail()
	}
}

func (r *runner) closeTail() {
	if r.tail != nil {
		if err := r.tail.Close(); err != nil {
			r.logger.Debug("close reader", "err", err)
		}
	}
	r.tail, r.tailBuf = nil, nil
	r.lent = tailMemory{}
}

func (r *runner) acquire(epoch uint64) (res result) {
	r.closeStore()
	r.closeTail()
	res.topicID = r.e.eventsID
	release, err := r.refuseForeign(r.life)
	if err != nil {
		return result{err: err}
	}
	defer release()
	if r.store, res.err = acquireSteady(r.life, r.e.store, r.partition, epoch); res.err != nil {
		res.err = r.whyFenced(r.life, epoch, res.err)
		return res
	}
	if res.watermark, res.err = r.store.Watermark(r.life); res.err == nil {
		res.err = r.restored(epoch, &res)
	}
	return res
}

// base reads the partition's own rows, all at one watermark.
func (r *runner) base() (res result) {
	res.base = map[projection.Kind][]projection.Row{}
	for _, kind := range []projection.Kind{projection.KindPartition, projection.KindPlan, projection.KindSource, projection.KindAckDue, projection.KindMatched} {
		if res.base[kind], res.at, res.err = scanAll(r.life, r.store, kind, nil, nil); res.err != nil {
			return res
		}
	}
	return res
}

// scanAll reads a range in pages. at is the watermark of the last page: the owner alone
// changes the partition and does not while it reads.
func scanAll(ctx context.Context, v projection.View, kind projection.Kind, from, to []byte) (all []projection.Row, at uint64, err error) {
	const page = 10_000
	for {
		rows, n, err := v.Scan(ctx, kind, from, to, page)
		if err != nil {
			return nil, 0, fmt.Errorf("read store: %w", err)
		}
		all, at = append(all, rows...), n
		if len(rows) < page {
			return all, at, nil
		}
		from = append(rows[len(rows)-1].Key, 0)
	}
}

func (r *runner) index(due int64, recovery bool) (res result) {
	var at uint64
	if recovery {
		if res.works, res.at, res.err = scanAll(r.life, r.store, projection.KindRun, nil, nil); res.err != nil {
			return res
		}
		res.adopted, res.results = r.e.pool.adopt(r.partition)
	}
	if !recovery {
		r.trim()
		res.dropped = r.dropped()
	}
	if due == math.MaxInt64 {
		due--
	}
	clock := r.e.cfg.Now()
	if r.scanFrom > clock.UnixMilli() { // it was set back
		r.scanFrom = math.MinInt64
	}
	// From the time at which everything below is known to have been fired and removed.
	from := projection.AppendInt64(nil, r.scanFrom)
	if res.dues, at, res.err = scanAll(r.life, r.store, projection.KindDue, from, projection.AppendInt64(nil, due+1)); res.err != nil {
		return res
	}
	// Entries below were fired and removed; what is armed later lies above the clock.
	r.scanFrom = clock.Add(-r.e.cfg.TriggerInterval).UnixMilli()
	if len(res.dues) > 0 {
		if d, err := parseDue(res.dues[0].Key); err == nil {
			r.scanFrom = min(r.scanFrom, d.At)
		}
	}
	res.at = at
	return res
}

// trimAfter is how long requests are kept after they were consumed; protocol rule 14. trimTime is
// how long it may take to delete them.
const (
	trimAfter = time.Hour
	trimTime  = 2 * time.Second
)

// consumed is how far the requests had been consumed at a time.
type consumed struct {
	at     time.Time
	offset int64
}

// trim lets the log drop requests that were consumed an hour ago.
func (r *runner) trim() {
	now := time.Now()
	r.consumed = append(r.consumed, consumed{now, r.o.st.Offset})
	k := 0
	for k+1 < len(r.consumed) && now.Sub(r.consumed[k+1].at) >= trimAfter {
		k++
	}
	r.consumed = r.consumed[k:]
	if c := r.consumed[0]; now.Sub(c.at) < trimAfter || c.offset <= r.trimmed {
		return
	}
	topic := eventlog.RequestsTopic(r.e.log.App())
	ctx, cancel := context.WithTimeout(r.life, trimTime) // the owner waits for it
	defer cancel()
	if err := r.e.log.DeleteRecords(ctx, topic, r.partition, r.consumed[0].offset); err != nil {
		r.logger.Warn("delete consumed requests", "err", err) // they cost space, nothing else
		r.consumed = nil                                      // not again for an hour
		return
	}
	r.trimmed = r.consumed[0].offset
}

func (r *runner) read(x opRead) (res result) {
	res.ids, res.keys = x.ids, x.keys
	at := func(n uint64) { res.parts, res.at = append(res.parts, n), n }
	if len(x.ids) > 0 {
		keys := make([][]byte, len(x.ids))
		for k, id := range x.ids {
			keys[k] = []byte(id)
		}
		values, n, err := r.store.Get(r.life, projection.KindInstance, keys)
		if err != nil {
			return result{err: fmt.Errorf("read store: %w", err)}
		}
		res.instances = values
		at(n)
	}
	keys := make([]keyRead, len(x.keys))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(keyReaders, len(keys)) {
		wg.Go(func() {
			for k := next.Add(1) - 1; k < int64(len(keys)); k = next.Add(1) - 1 {
				keys[k].read(r.life, r.store, x.keys[k])
			}
		})
	}
	wg.Wait()
	for _, k := range keys {
		if k.err != nil {
			return result{err: k.err}
		}
		res.waiters, res.kept = append(res.waiters, k.waiters), append(res.kept, k.kept)
		at(k.at[0])
		at(k.at[1])
	}
	if len(x.ids) == 0 && len(x.keys) == 0 {
		res.at = r.o.mark.N
	}
	return res
}

// keyReaders is how many correlation keys are read at once: each is two calls to a server.
const keyReaders = 8

// keyRead is what the store has of a correlation key.
type keyRead struct {
	waiters, kept []projection.Row
	at            [2]uint64
	err           error
}

func (k *keyRead) read(ctx context.Context, store projection.View, key eventlog.KeyRef) {
	prefix := keyRefKey(key)
	if k.waiters, k.at[0], k.err = scanAll(ctx, store, projection.KindSubscription, prefix, projection.PrefixEnd(prefix)); k.err == nil {
		k.kept, k.at[1], k.err = scanAll(ctx, store, projection.KindKept, prefix, projection.PrefixEnd(prefix))
	}
}

// inboxLimit and inboxBytes are how many requests may wait for the owner in memory, and as many
// in its mail.
const (
	inboxLimit = 8192
	inboxBytes = 8 << 20
)

func inboxFull(requests, bytes int) bool { return requests >= inboxLimit || bytes >= inboxBytes }

// consume begins to read requests; read_uncommitted, since a foreign open transaction must
// not stop an inbox. Protocol rule 14.
func (r *runner) consume(x opConsume) (res result) {
	name := eventlog.RequestsTopic(r.e.log.App())
	topic, err := r.e.log.Topic(r.life, name)
	if err != nil {
		return result{err: err}
	}
	if x.topicID != "" && x.topicID != topic.ID {
		return result{err: fmt.Errorf("%w: %s; requests that were not consumed are gone; accept the loss with a new application name or restore the topic", eventlog.ErrTopicChanged, name)}
	}
	from := x.from
	if x.topicID == "" {
		from = topic.Partitions[r.partition].Start
	}
	if from, res.lost, err = r.kept(x, from, topic.Partitions[r.partition]); err != nil {
		return result{err: err}
	}
	reader, err := r.e.log.Read(r.life, name, r.partition, from, topic.ID, eventlog.ReadUncommitted)
	if err != nil {
		return result{err: fmt.Errorf("read requests: %w", err)}
	}
	r.wg.Go(func() {
		defer reader.Close()
		for {
			records, _, err := reader.Next(r.life)
			if err != nil {
				r.post(func(m *mail) { m.failed = fmt.Errorf("read requests: %w", err) })
				return
			}
			units := make([]unit, 0, len(records))
			bytes := 0
			for k := range records {
				units = append(units, requestUnit(&records[k]))
				bytes += units[k].size
			}
			if err := r.e.registry.learn(r.life, units); err != nil {
				r.post(func(m *mail) { m.failed = err })
				return
			}
			r.mu.Lock()
			for inboxFull(len(r.mail.inbox), r.mail.inboxed) && r.life.Err() == nil {
				r.room.Wait()
			}
			r.mu.Unlock()
			r.post(func(m *mail) {
				m.inbox = append(m.inbox, units...)
				m.inboxed += bytes
			})
		}
	})
	r.mu.Lock()
	failed, since := r.status.Err != "", r.status.Since
	r.ready = true
	r.status.Since, r.status.Err = time.Now(), ""
	r.mu.Unlock()
	if failed {
		r.logger.Info("partition works again", "after", time.Since(since).Round(time.Millisecond))
	}
	r.e.owned(r.partition)
	return result{offset: topic.Partitions[r.partition].End, topicID: topic.ID, lost: res.lost}
}

// kept is from where to read requests. Where consumed ones were lost, others may have got their
// offsets: what stands there now is read, and what was decided before counts once. Protocol rule 14.
func (r *runner) kept(x opConsume, from int64, have eventlog.Partition) (int64, bool, error) {
	terms, ok := r.e.log.(eventlog.Terms)
	if !ok || x.term == 0 || x.topicID == "" {
		return from, false, nil
	}
	name := eventlog.RequestsTopic(r.e.log.App())
	upto, err := terms.Kept(r.life, name, r.partition, from, x.term)
	if err != nil {
		return 0, false, fmt.Errorf("compare %s with what was consumed: %w", name, err)
	}
	upto = max(upto, have.Start)
	if upto >= from {
		return from, false, nil
	}
	r.logger.Error("the requests topic has lost records that were consumed, and perhaps others behind them: an unclean leader election, or disks that lost data; what stands at their offsets now is read",
		"from", upto, "consumed", from, "end", have.End)
	return upto, true, nil
}

func requestUnit(rec *eventlog.Record) unit {
	u := unit{offset: rec.Offset, term: rec.Term, size: len(rec.Key) + len(rec.Value)}
	if err := eventlog.DecodeRequest(rec.Value, &u.request); err != nil {
		u.bad, u.reason = rec, "request can't be decoded: "+err.Error()
	}
	if r := &u.request; r.Type == eventlog.StartInstance && r.Trace == nil {
		r.Trace = eventlog.TraceOf(rec.Headers)
	}
	return u
}
