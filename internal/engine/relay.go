package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// relayBatch is how many records a relay publishes at once.
const relayBatch = 500

var errGoexit = errors.New("the function ended its goroutine (runtime.Goexit, or FailNow of a test)")

// relay is the step function of one partition of a topic read for one key name: step takes
// the result of what it asked for last and says what it needs next. It has no goroutine, but
// for functions of the user's, no channel and no clock. It walks the partition in order, commits
// an offset only after everything before it was acknowledged, and after any error does nothing
// more until it was opened again at the committed offset. Protocol rules 16 and 17.
type relay struct {
	app        string
	tk         TopicKey
	partition  int32 // of the topic
	partitions int32 // of requests
	maxRequest int   // bytes that a Deliver may have
	maxDead    int   // bytes that fit the dead-letter topic
	goOn       bool  // tests: rule 17 left out, it goes on after an error

	// The driver sets these before each step; they may change while it runs.
	ttl  time.Duration
	keys MessageKeys
	call func(*eventlog.Message) (*eventlog.Request, error) // of a trigger, instead of keys

	topicID string
	out     []eventlog.Record // not acknowledged
	sent    int               // of out, with the publisher now
	next    int64             // to commit when out is empty
	term    int32             // of the record before it
	moved   bool              // next was not committed yet
}

// A relayOp is the one thing that a relay waits for.
type (
	relayOpen    struct{}                            // a new publisher, a reader at the committed offset -> topicID
	relayRead    struct{}                            // -> records, next
	relayPublish struct{ records []eventlog.Record } //
	relayCommit  struct {
		offset int64
		term   int32 // of the record before it; 0 = unknown
	} //
	relayFail struct{ err error } // close publisher and reader; then step again to open
)

type relayOp any

type relayResult struct {
	err     error
	topicID string
	records []eventlog.Record
	next    int64
}

// step goes on with the result of the op that was returned last; last is that op, nil at
// the beginning.
func (r *relay) step(last relayOp, res relayResult) relayOp {
	if res.err != nil && !(r.goOn && r.publishing(last)) {
		r.out, r.sent, r.moved = nil, 0, false
		return relayFail{res.err}
	}
	switch last.(type) {
	case nil, relayFail:
		return relayOpen{}
	case relayOpen:
		r.topicID, r.term = res.topicID, 0
	case relayRead:
		for k := range res.records {
			if err := r.record(&res.records[k]); err != nil {
				r.out, r.sent, r.moved = nil, 0, false
				return relayFail{err}
			}
		}
		r.next, r.moved = res.next, true
		if n := len(res.records); n > 0 {
			r.term = res.records[n-1].Term
		}
	case relayPublish:
		r.out = r.out[r.sent:]
	case relayCommit:
		r.moved = false
	}
	switch {
	case len(r.out) > 0:
		r.sent = min(len(r.out), relayBatch)
		return relayPublish{r.out[:r.sent]}
	case r.moved:
		r.out = nil
		return relayCommit{r.next, r.term}
	}
	return relayRead{}
}

func (r *relay) publishing(op relayOp) bool {
	_, is := op.(relayPublish)
	return is
}

// record makes the requests of one record, or its dead letter. The error is errRelayEnded.
func (r *relay) record(rec *eventlog.Record) error {
	if r.call != nil {
		return r.trigger(rec)
	}
	r.message(rec)
	return nil
}

// message makes the deliveries of one record.
func (r *relay) message(rec *eventlog.Record) {
	values, err := r.values(rec)
	if err != nil {
		r.deadLetter(rec, "its key can't be computed: "+err.Error())
		return
	}
	if len(values) == 0 {
		return
	}
	message := messageOf(rec, r.topicID)
	// protocol rule 16: the index numbers what this record sends to one target partition and
	// is a function of the record alone.
	index := map[int32]int{}
	requests := make([]eventlog.Record, 0, len(values))
	for _, value := range values {
		to := eventlog.PartitionOf(value, r.partitions)
		q := eventlog.Request{V: 1, Type: eventlog.Deliver, Topic: r.tk.Topic, Key: r.tk.Key, Value: value, Message: message, TTL: r.ttl.Milliseconds(),
			Source: &eventlog.Source{TopicID: r.topicID, Partition: r.partition, Key: r.tk.Key},
			Mark:   &eventlog.Mark{Pos: rec.Offset, Index: index[to]}}
		index[to]++
		data, err := eventlog.AppendRequest(nil, &q)
		if err != nil {
			r.deadLetter(rec, "it can't be delivered: "+err.Error())
			return
		}
		key := []byte(q.PartitionKey())
		if n := len(key) + len(data); n > r.maxRequest {
			r.deadLetter(rec, fmt.Sprintf("it is too large to be delivered: it needs %d bytes of a request, %d fit", n, r.maxRequest))
			return
		}
		requests = append(requests, eventlog.Record{Topic: eventlog.RequestsTopic(r.app), Partition: to, Key: key, Value: data})
	}
	r.out = append(r.out, requests...)
}

// values are the message's key values, sorted, each once.
func (r *relay) values(rec *eventlog.Record) (values []string, err error) {
	err = guarded(func() (err error) {
		values, err = r.keys(messageOf(rec, r.topicID)) // a message of its own: user code may change it
		return err
	})
	if err != nil {
		return nil, err
	}
	values = slices.Clone(values)
	slices.Sort(values)
	values = slices.Compact(values)
	if len(values) > 0 && values[0] == "" {
		values = values[1:]
	}
	return values, nil
}

// guarded calls a function of the user's, in a goroutine of its own that it may end. Its panic is
// its error, and so is such an end.
func guarded(f func() error) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		err = errGoexit
		err = f()
	}()
	<-done
	return err
}

// messageOf is a record as an instance gets it.
func messageOf(rec *eventlog.Record, topicID string) *eventlog.Message {
	m := &eventlog.Message{Topic: rec.Topic, TopicID: topicID, Partition: rec.Partition, Offset: rec.Offset, Key: rec.Key, Headers: rec.Headers}
	if !rec.Time.IsZero() {
		m.Time = rec.Time.UnixMilli()
	}
	if json.Valid(rec.Value) {
		m.Value = rec.Value
	} else {
		m.Bytes = rec.Value
	}
	return m
}

// deadLetter sets a record aside in its turn; by reference when it does not fit. Protocol
// rule 17.
func (r *relay) deadLetter(rec *eventlog.Record, reason string) {
	const maxReason = 4096
	if len(reason) > maxReason {
		reason = reason[:maxReason] + " …"
	}
	d := machine.DeadLetter(r.app, reason)
	d.Headers = append(d.Headers,
		eventlog.Header{Key: "dagger-topic", Value: []byte(r.tk.Topic)},
		eventlog.Header{Key: "dagger-topic-id", Value: []byte(r.topicID)},
		eventlog.Header{Key: "dagger-partition", Value: strconv.AppendInt(nil, int64(r.partition), 10)},
		eventlog.Header{Key: "dagger-offset", Value: strconv.AppendInt(nil, rec.Offset, 10)},
		eventlog.Header{Key: "dagger-key", Value: []byte(r.tk.Key)})
	size := len(rec.Key) + len(rec.Value)
	for _, h := range d.Headers {
		size += len(h.Key) + len(h.Value)
	}
	if size+deadSlack <= r.maxDead {
		d.Key, d.Value = rec.Key, rec.Value
	} else {
		d.Headers = append(d.Headers, eventlog.Header{Key: "dagger-by-reference", Value: []byte("true")})
	}
	r.out = append(r.out, d)
}

// deadSlack covers what a record's framing adds.
const deadSlack = 256

// deliverLimit is what a Deliver may have, so that the event that keeps or matches its
// message fits the events topic too, with a page of waiters beside it.
func deliverLimit(maxRequest, maxEvent int) int {
	limit := min(maxRequest, maxEvent)
	return limit - min(128<<10, limit/4)
}
