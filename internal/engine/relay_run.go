package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/godagger/dagger/eventlog"
)

// errRelayStopped: a relay can't go on without losing or repeating messages; it says so each
// minute until an operator has acted. Protocol rule 18.
var errRelayStopped = errors.New("engine: relay stopped")

// relays runs a relay for each topic and key name that this process has the key function
// of, and follows the definitions of other workers, until ctx ends.
func (e *Engine) relays(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { e.followDefinitions(ctx) })
	started := map[TopicKey]bool{}
	for {
		changed := e.registry.changes()
		for _, s := range e.registry.relays() {
			if !started[s.TopicKey] {
				started[s.TopicKey] = true
				wg.Go(func() { e.relayGroup(ctx, s.TopicKey) })
			}
		}
		e.pool.unpark(e.handlers)
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// followDefinitions reads what other workers register.
func (e *Engine) followDefinitions(ctx context.Context) {
	for backoff := backoffMin; ; backoff = min(2*backoff, backoffMax) {
		err := e.registry.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		e.logger.Warn("follow definitions", "err", err, "in", backoff)
		sleep(ctx, backoff)
	}
}

// follow reads the definitions topic until ctx ends.
func (r *registry) follow(ctx context.Context) error {
	if err := r.lock(ctx); err != nil {
		return err
	}
	err := r.refresh(ctx)
	next := r.next
	<-r.turn
	if err != nil {
		return err
	}
	reader, err := r.e.log.Read(ctx, eventlog.DefinitionsTopic(r.e.log.App()), 0, next, "", eventlog.ReadCommitted)
	if err != nil {
		return fmt.Errorf("read definitions: %w", err)
	}
	defer reader.Close()
	for {
		records, _, err := reader.Next(ctx)
		if err != nil {
			return fmt.Errorf("read definitions: %w", err)
		}
		r.take(records)
	}
}

// relay is what the relay is called where it has a problem.
func (tk TopicKey) relay() string { return "the relay of topic " + tk.Topic + " for " + tk.Key }

// relayGroup is a member of the relay's group until ctx ends.
func (e *Engine) relayGroup(ctx context.Context, tk TopicKey) {
	logger := e.logger.With("topic", tk.Topic, "key", tk.Key)
	part := tk.relay()
	defer e.problems.set(part, nil)
	for backoff := backoffMin; ; backoff = min(2*backoff, backoffMax) {
		began := time.Now()
		err := e.relayMember(ctx, tk, logger)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > time.Minute {
			backoff = backoffMin
		}
		e.problems.set(part, err)
		logger.Warn("relay's group", "err", err, "in", backoff)
		sleep(ctx, backoff)
	}
}

// relayMember relays the partitions that the group assigns until ctx ends or the membership
// does.
func (e *Engine) relayMember(ctx context.Context, tk TopicKey, logger *slog.Logger) error {
	group := e.log.App() + ".relay." + tk.Topic + "." + tk.Key
	member, err := e.log.Join(ctx, group, tk.Topic)
	if err != nil {
		return fmt.Errorf("join group %s: %w", group, err)
	}
	defer func() {
		if err := member.Close(); err != nil {
			logger.Debug("leave group", "err", err)
		}
	}()
	a := assigned{begin: func(p int32) func(context.Context) {
		return func(ctx context.Context) { e.relayPartition(ctx, member, tk, p, logger.With("partition", p)) }
	}}
	defer a.close()
	for {
		partitions, err := member.Assigned(ctx)
		if err != nil {
			return fmt.Errorf("assignment of group %s: %w", group, err)
		}
		e.problems.set(tk.relay(), nil)
		a.become(ctx, partitions)
	}
}

// relayPartition drives the relay of one partition until ctx ends.
func (e *Engine) relayPartition(ctx context.Context, member eventlog.Member, tk TopicKey, partition int32, logger *slog.Logger) {
	d := &relayDriver{e: e, member: member, logger: logger, r: &relay{app: e.log.App(), tk: tk, partition: partition, partitions: e.log.Partitions()}}
	defer d.close()
	part := fmt.Sprintf("%s, partition %d", tk.relay(), partition)
	defer e.problems.set(part, nil)
	backoff := backoffMin
	var last relayOp
	var res relayResult
	for ctx.Err() == nil {
		if spec, ok := e.registry.relay(tk); ok {
			d.r.ttl, d.r.keys = spec.ttl, spec.keys
			if spec.call != nil {
				d.r.call = func(m *eventlog.Message) (*eventlog.Request, error) {
					q, err := spec.call(ctx, m)
					if ctx.Err() != nil {
						return nil, errRelayEnded
					}
					return q, err
				}
			}
		}
		last = d.r.step(last, res)
		switch last.(type) {
		case relayPublish:
			done := e.problems.watch(part, answerAfter, errUnanswered)
			res = d.do(ctx, last)
			done(res.err)
		case relayRead:
			done := d.watch(ctx, part)
			res = d.do(ctx, last)
			done()
		default:
			res = d.do(ctx, last)
		}
		switch f := last.(type) {
		case relayOpen:
			if res.err == nil {
				e.problems.set(part, nil)
			}
		case relayFail:
			if ctx.Err() != nil {
				continue
			}
			wait := backoff
			e.problems.set(part, f.err)
			if errors.Is(f.err, errRelayStopped) {
				wait = time.Minute
				logger.Error("messages are not delivered", "err", f.err)
			} else {
				logger.Warn("relay starts again", "err", f.err, "in", wait)
			}
			sleep(ctx, wait)
			backoff = min(2*backoff, backoffMax)
		case relayCommit:
			if res.err == nil {
				backoff = backoffMin
			}
		}
	}
}

// watch says, while the relay waits for messages, when there are some that it can't read: those
// behind a transaction which somebody has left open.
func (d *relayDriver) watch(ctx context.Context, part string) (done func()) {
	log, ok := d.e.log.(eventlog.Stabler)
	if !ok {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		var said error
		for sleep(ctx, stuckAfter); ctx.Err() == nil; sleep(ctx, 4*stuckAfter) { // of many idle partitions each asks
			upto, since, err := log.Stable(ctx, d.r.tk.Topic, d.r.partition)
			if ctx.Err() != nil {
				break
			}
			if err == nil && !since.IsZero() && time.Since(since) >= stuckAfter {
				err = fmt.Errorf("messages from offset %d on wait for the end of a transaction that is open since %s (kafka-transactions.sh find-hanging names it, abort ends it)", upto, since.UTC().Format(time.RFC3339))
				if said == nil {
					d.logger.Warn("messages are not delivered", "err", err)
				}
			}
			said = err
			d.e.problems.set(part, err)
		}
		if said != nil {
			d.e.problems.set(part, nil)
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}

// relayDriver does what a relay asks for.
type relayDriver struct {
	e         *Engine
	r         *relay
	member    eventlog.Member
	logger    *slog.Logger
	publisher eventlog.Publisher
	reader    eventlog.Reader
}

func (d *relayDriver) do(ctx context.Context, op relayOp) (res relayResult) {
	switch x := op.(type) {
	case relayOpen:
		res.topicID, res.err = d.open(ctx)
	case relayRead:
		if res.records, res.next, res.err = d.reader.Next(ctx); errors.Is(res.err, eventlog.ErrOffsetGone) || errors.Is(res.err, eventlog.ErrTruncated) || errors.Is(res.err, eventlog.ErrTopicChanged) {
			res.err = fmt.Errorf("%w: %w", errRelayStopped, res.err)
		}
	case relayPublish:
		if res.err = d.publisher.Publish(ctx, x.records...); res.err == nil {
			d.observe(x.records)
		}
	case relayCommit:
		if m, ok := d.member.(eventlog.TermMember); ok {
			res.err = m.CommitTerm(ctx, d.r.partition, x.offset, x.term)
		} else {
			res.err = d.member.Commit(ctx, d.r.partition, x.offset)
		}
	case relayFail:
		d.close()
	}
	return res
}

// observe tells of the messages that were set aside.
func (d *relayDriver) observe(records []eventlog.Record) {
	f := d.e.cfg.Observer.DeadLetter
	if f == nil {
		return
	}
	for k := range records {
		if records[k].Topic == eventlog.DeadLetterTopic(d.r.app) {
			f()
		}
	}
}

// open begins at the committed offset, or where the definitions say; protocol rule 18.
func (d *relayDriver) open(ctx context.Context) (topicID string, err error) {
	d.close()
	name, p, log := d.r.tk.Topic, d.r.partition, d.e.log
	topic, err := log.Topic(ctx, name)
	if err != nil {
		return "", fmt.Errorf("describe topic: %w", err)
	}
	if int(p) >= len(topic.Partitions) {
		return "", fmt.Errorf("%w: topic %s has no partition %d", errRelayStopped, name, p)
	}
	start, known := d.e.registry.startOf(d.r.tk, topic.ID, p)
	if !known {
		return "", fmt.Errorf("%w: topic %s has id %s, which no registered definition knows: it was deleted and created again; register a new version of the definition to start with the new one", errRelayStopped, name, topic.ID)
	}
	from, err := d.member.Committed(ctx, p)
	if errors.Is(err, eventlog.ErrTruncated) {
		return "", fmt.Errorf("%w: %w; messages that stand at their offsets now are not told: write them again, and set the group's offset to the end to go on", errRelayStopped, err)
	}
	if err != nil {
		return "", fmt.Errorf("read group offset: %w", err)
	}
	if from < 0 {
		from = start
	}
	have := topic.Partitions[p]
	if from < have.Start {
		return "", fmt.Errorf("%w: the next message is at offset %d of %s, which begins at %d now: messages %d to %d are lost; set the group's offset to accept that", errRelayStopped, from, name, have.Start, from, have.Start-1)
	}
	if from > have.End {
		return "", fmt.Errorf("%w: the group's offset %d is beyond the end %d of %s", errRelayStopped, from, have.End, name)
	}
	if err := d.limits(ctx); err != nil {
		return "", err
	}
	if d.publisher, err = log.Publisher(ctx); err != nil {
		return "", fmt.Errorf("open publisher: %w", err)
	}
	if d.reader, err = log.Read(ctx, name, p, from, topic.ID, eventlog.ReadCommitted); err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	return topic.ID, nil
}

func (d *relayDriver) limits(ctx context.Context) error {
	requests, err := d.e.log.Topic(ctx, eventlog.RequestsTopic(d.e.log.App()))
	if err != nil {
		return fmt.Errorf("describe the requests topic: %w", err)
	}
	dead, err := d.e.log.Topic(ctx, eventlog.DeadLetterTopic(d.e.log.App()))
	if err != nil {
		return fmt.Errorf("describe the dead-letter topic: %w", err)
	}
	d.r.maxRequest, d.r.maxDead = deliverLimit(requests.MaxRecord, d.e.maxEvent), dead.MaxRecord
	return nil
}

// close ends publisher and reader; nothing more is sent with that publisher.
func (d *relayDriver) close() {
	if d.publisher != nil {
		if err := d.publisher.Close(); err != nil {
			d.logger.Debug("close publisher", "err", err)
		}
		d.publisher = nil
	}
	if d.reader != nil {
		if err := d.reader.Close(); err != nil {
			d.logger.Debug("close reader", "err", err)
		}
		d.reader = nil
	}
}
