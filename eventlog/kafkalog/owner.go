package kafkalog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/godagger/dagger/eventlog"
)

const (
	// transactionTimeout is after how long the brokers abort a transaction that hangs.
	transactionTimeout = 10 * time.Second
	// answerTimeout is how long an owner waits for the brokers: longer than any transaction
	// lives, so that nothing is gained by waiting on.
	answerTimeout = 30 * time.Second
	// grace is how long a call whose context ended, and Close, let the brokers answer.
	grace = 300 * time.Millisecond
)

var errNoAnswer = errors.New("the brokers did not answer in time")

// owner writes with the transactional id app/partition. The brokers let one producer of
// that id write; a later InitProducerID shuts this one out.
type owner struct {
	log       *kafkaLog
	partition int32
	topic     string
	id        string // transactional
	s         sender

	begun     bool
	blind     bool            // settle can't look
	changes   int             // of topics, as the client knows them
	sent      map[string]bool // users' topics
	loaded    map[string]bool // topics that the client has stored
	wire      wire
	mustAbort error // a message was refused
	finished  error
	ending    <-chan struct{} // closed when the last end of a transaction was answered
	closing   sync.WaitGroup
}

func (l *kafkaLog) Own(ctx context.Context, partition int32) (eventlog.Owner, error) {
	if partition < 0 || partition >= l.cfg.partitions {
		return nil, fmt.Errorf("own partition %d: there are %d", partition, l.cfg.partitions)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, answerTimeout, errNoAnswer)
	defer cancel()
	o := &owner{log: l, partition: partition, topic: eventlog.EventsTopic(l.cfg.app), sent: map[string]bool{}, loaded: map[string]bool{}}
	o.id = transactionalID(l.cfg.app, partition)
	o.changes = l.topics.changed()
	if _, err := l.topics.get(ctx, o.topic); err != nil {
		return nil, fmt.Errorf("own partition %d: %w", partition, err)
	}
	cl, err := l.newClient(append(l.producerOptions(),
		kgo.TransactionalID(o.id),
		kgo.TransactionTimeout(transactionTimeout),
		kgo.ConcurrentTransactionsBackoff(2*time.Millisecond),
		kgo.RetryTimeout(answerTimeout),
		kgo.WithHooks(&o.wire),
	)...)
	if err != nil {
		return nil, fmt.Errorf("own partition %d: %w", partition, err)
	}
	o.s.cl = cl
	if _, _, err := cl.ProducerID(ctx); err != nil { // InitProducerID: the fence
		l.dropLater(cl)
		return nil, fmt.Errorf("own partition %d: %w", partition, denied(l.because(ctx, err), "Write", "transactional id", o.id))
	}
	return o, nil
}

func transactionalID(app string, partition int32) string {
	return app + "/" + strconv.Itoa(int(partition))
}

var contentType = kgo.RecordHeader{Key: "content-type", Value: []byte("application/json")}

// Append sends events and messages and waits for the brokers' answers.
func (o *owner) Append(ctx context.Context, events [][]byte, types []eventlog.Type, messages []eventlog.Record) (int64, error) {
	if err := o.usable(); err != nil {
		return -1, fmt.Errorf("append: %w", err)
	}
	if len(types) != len(events) {
		return -1, o.finish(fmt.Errorf("append: %d events with %d types", len(events), len(types)))
	}
	if len(events)+len(messages) == 0 {
		return -1, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, answerTimeout, errNoAnswer)
	defer cancel()
	records, err := o.records(ctx, events, types, messages)
	if err != nil {
		return -1, err
	}
	if !o.begun {
		o.renew()
		if err := o.s.cl.BeginTransaction(); err != nil {
			return -1, o.finish(fmt.Errorf("begin transaction: %w", o.explain(ctx, err)))
		}
		o.begun = true
	}
	b := o.s.send(records)
	select {
	case <-b.done:
	case <-ctx.Done():
		if o.await(b.done) {
			o.abortOpen(ctx)
		} else {
			o.log.drop(o.s.cl)
			<-b.done // nothing reads the caller's slices any more
		}
		return -1, o.finish(fmt.Errorf("append: %w", context.Cause(ctx)))
	}
	if err := o.answers(ctx, b, len(events)); err != nil {
		return -1, err
	}
	if err := o.load(ctx, records); err != nil {
		return -1, o.finish(fmt.Errorf("append: %w", err))
	}
	if len(events) == 0 {
		return -1, nil
	}
	return records[0].Offset, nil
}

// records checks everything before anything is sent.
func (o *owner) records(ctx context.Context, events [][]byte, types []eventlog.Type, messages []eventlog.Record) ([]*kgo.Record, error) {
	t, err := o.log.topics.get(ctx, o.topic)
	if err != nil {
		return nil, o.finish(fmt.Errorf("append: %w", err))
	}
	records := make([]*kgo.Record, 0, len(events)+len(messages))
	slab := make([]kgo.Record, len(events))
	headers := make([]kgo.RecordHeader, 2*len(events))
	for i, value := range events {
		if len(value)+len(types[i]) > t.maxRecord() {
			return nil, o.finish(fmt.Errorf("append event: %w: %d bytes, topic %s takes %d", eventlog.ErrTooLarge, len(value), o.topic, t.maxRecord()))
		}
		h := headers[2*i : 2*i+2 : 2*i+2]
		h[0], h[1] = contentType, kgo.RecordHeader{Key: "type", Value: []byte(types[i])}
		slab[i] = kgo.Record{Topic: o.topic, Partition: o.partition, Value: value, Headers: h}
		records = append(records, &slab[i])
	}
	for i, m := range messages {
		r, err := o.log.record(ctx, m)
		switch {
		case errors.Is(err, eventlog.ErrTooLarge), errors.Is(err, eventlog.ErrNoTopic):
			return nil, o.refuse(i, err)
		case err != nil:
			return nil, o.finish(fmt.Errorf("append message: %w", err))
		}
		records = append(records, r)
		o.sent[m.Topic] = true
	}
	return records, nil
}

// renew makes the client look up users' topics again after one was created again, for it
// holds on to what it knew.
func (o *owner) renew() {
	if changes := o.log.topics.changed(); changes != o.changes {
		o.changes = changes
		o.s.cl.PurgeTopicsFromProducing(slices.Collect(maps.Keys(o.sent))...)
		clear(o.loaded)
	}
}

// load waits until the client has stored what it learnt of the topics of records. It sends
// the first records of a topic a moment before it does (franz-go v1.22.2), and an
// EndTransaction in that moment takes the transaction for empty: it aborts and says nil.
func (o *owner) load(ctx context.Context, records []*kgo.Record) error {
	for _, r := range records {
		for !o.loaded[r.Topic] {
			if leader, epoch, _ := o.s.cl.PartitionLeader(r.Topic, r.Partition); leader >= 0 || epoch >= 0 {
				o.loaded[r.Topic] = true
				break
			}
			pause := time.NewTimer(settlePoll)
			select {
			case <-pause.C:
			case <-ctx.Done():
				pause.Stop()
				return context.Cause(ctx)
			}
		}
	}
	return nil
}

// answers sorts out the brokers' answers: lost to another owner before anything else, then
// a message that they refuse, then all other errors.
func (o *owner) answers(ctx context.Context, b *batch, events int) error {
	at := -1
	for i, err := range b.errs {
		if err == nil {
			continue
		}
		o.log.topics.forget(b.records[i].Topic)
		switch {
		case fenced(err):
			return o.finish(fmt.Errorf("append: %w", o.explain(ctx, err)))
		case at < 0, i >= events && refused(err) && !(at >= events && refused(b.errs[at])):
			at = i
		}
	}
	if at < 0 {
		return nil
	}
	err := b.errs[at]
	if at >= events && refused(err) {
		if noTopic(err) {
			// The client would hold on to the id of a topic that is gone.
			delete(o.loaded, b.records[at].Topic)
			defer o.s.cl.PurgeTopicsFromProducing(b.records[at].Topic)
		}
		return o.refuse(at-events, publishError(b.records[at], err))
	}
	return o.finish(publishError(b.records[at], err))
}

func (o *owner) Commit(ctx context.Context) error {
	if err := o.usable(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return o.end(ctx, kgo.TryCommit, "commit")
}

func (o *owner) Abort(ctx context.Context) error {
	if o.finished != nil {
		return fmt.Errorf("abort: %w", o.finished)
	}
	o.mustAbort = nil
	return o.end(ctx, kgo.TryAbort, "abort")
}

func (o *owner) end(ctx context.Context, try kgo.TransactionEndTry, verb string) error {
	if !o.begun {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, answerTimeout, errNoAnswer)
	defer cancel()
	ended := o.endTransaction(ctx, try)
	select {
	case err := <-ended:
		if fenced(err) && o.wire.lostAnswer() {
			// The first try may have been done and its answer lost, before the partition was.
			return o.finish(fmt.Errorf("%s: outcome unknown: %w", verb, err))
		}
		if err != nil {
			return o.finish(fmt.Errorf("%s: %w", verb, o.explain(ctx, err)))
		}
	case <-ctx.Done(): // Close gives it a while
		return o.finish(fmt.Errorf("%s: %w", verb, context.Cause(ctx)))
	}
	o.begun = false
	return nil
}

// explain marks what means that the partition has another owner.
func (o *owner) explain(ctx context.Context, err error) error {
	if fenced(err) {
		return fmt.Errorf("%w: %w", eventlog.ErrFenced, err)
	}
	return o.log.because(ctx, err)
}

func (o *owner) usable() error {
	if o.finished != nil {
		return o.finished
	}
	return o.mustAbort
}

func (o *owner) refuse(index int, err error) error {
	o.mustAbort = errors.New("a message was refused; abort first")
	return &eventlog.RefusedError{Index: index, Err: err}
}

// finish makes err the owner's last.
func (o *owner) finish(err error) error {
	o.finished = eventlog.ErrClosed
	if errors.Is(err, eventlog.ErrFenced) {
		o.finished = eventlog.ErrFenced
	}
	return err
}

// endTransaction runs on when the context ends: a transaction that was left open would stop
// the readers of users' topics until the brokers give it up, or the next owner comes.
func (o *owner) endTransaction(ctx context.Context, try kgo.TransactionEndTry) <-chan error {
	ended, done := make(chan error, 1), make(chan struct{})
	o.ending = done
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), answerTimeout, errNoAnswer)
	o.closing.Go(func() {
		defer close(done)
		defer cancel()
		o.wire.reset()
		err := o.s.cl.EndTransaction(ctx, try)
		if err == nil {
			o.wire.answered()
			err = o.settle(ctx)
		}
		ended <- err
	})
	return ended
}

// abortOpen starts to abort the open transaction, which Close waits for.
func (o *owner) abortOpen(ctx context.Context) { o.endTransaction(ctx, kgo.TryAbort) }

// await waits a little for something that usually takes milliseconds.
func (o *owner) await(done <-chan struct{}) bool {
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case <-done:
		return true
	case <-late.C:
		return false
	}
}

func (o *owner) Close() error {
	if o.finished == nil {
		o.finished = eventlog.ErrClosed
		if o.begun {
			o.abortOpen(context.Background()) // no caller's is left; the abort has a limit of its own
		}
	}
	if o.ending != nil {
		o.await(o.ending)
	}
	o.log.drop(o.s.cl)
	o.s.wg.Wait()
	o.closing.Wait()
	return nil
}
