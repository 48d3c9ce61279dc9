package workflow

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/internal/machine"
)

// Node is a part of a definition: a task, or something that contains others, such as a process.
// P is the struct of the instance's parameters. Nodes are values: With, Key and the other
// methods return a changed copy.
type Node[P any] struct {
	node
	_ [0]func(P) // a node of one P can't be converted to a node of another
}

// node is a Node without its type.
type node struct {
	kind        eventlog.Kind
	name        string
	nodes       []node // of a Process, Parallel or Decide
	attached    []node // monitors and on-stop handlers
	any         bool   // Parallel: ends with the first that completes
	waitAll     bool
	onFailure   FailurePolicy
	item        reflect.Type // ForEach: of its items
	collect     bool         // ForEach: its handler gets the items at the end
	deadline    time.Duration
	past        DeadlineAction
	skipTo      string
	concurrency int
	topic       string
	retry       *retry
	timeout     time.Duration
	buffer      time.Duration
	begin       engine.Begin // of a listener's topic
	origin      string       // "definition/path" of a process that was taken from there
	options     []string     // names of the options given
	handler     engine.Handler
	match       match                                        // of a listener
	value       func(params json.RawMessage) (string, error) // what else is computed: the time of an At, the interval of an Every
	mistakes    []string                                     // made in the constructor, told by Register
}

// match is a Match without its types.
type match struct {
	key     string
	of      func(params json.RawMessage) (string, error)
	from    engine.MessageKeys
	message reflect.Type
}

// Process runs its nodes one after the other. It takes at least one.
func Process[P any](name string, nodes ...Node[P]) Node[P] {
	return Node[P]{node: node{kind: eventlog.Process, name: name, nodes: untyped(nodes)}}
}

func untyped[P any](nodes []Node[P]) []node {
	l := make([]node, len(nodes))
	for i, n := range nodes {
		l[i] = n.node
	}
	return l
}

// Execute is a task that calls a function. What the function changes in the parameters is
// recorded, field by field on the top level, when it returns nil; after an error or a panic
// nothing is. An error fails the attempt; see Retry, Terminal and RetryAfter. The context ends
// when the attempt times out, the instance is stopped, or this process has to give the task
// up; context.Cause says which.
//
// An attempt may run more than once, in this or another process, even after it returned nil:
// give TaskFrom(ctx).IdempotencyKey to systems that must not see it twice.
func Execute[P any](name string, do func(context.Context, *P) error) Node[P] {
	n := node{kind: eventlog.Execute, name: name}
	if do == nil {
		n.mistakes = append(n.mistakes, "its function is nil")
	}
	n.handler = handler(func(ctx context.Context, p *P, _ engine.Attempt, _ *engine.Outcome) error {
		return do(ctx, p)
	})
	return Node[P]{node: n}
}

// Command is a task that sends a message to a topic. The function only builds the message; the
// engine writes it, as JSON, in the same transaction as the event that completes the task. So
// readers that read only committed records see it once, and only if the task completed. The
// record's key is the partition key of the instance id (eventlog.PartitionKey), or what Key
// says. The parameters may be changed as in Execute.
func Command[P, M any](name, topic string, build func(context.Context, *P) (M, error)) Node[P] {
	n := node{kind: eventlog.Command, name: name, topic: topic}
	if build == nil {
		n.mistakes = append(n.mistakes, "its function is nil")
	}
	n.handler = handler(func(ctx context.Context, p *P, a engine.Attempt, out *engine.Outcome) error {
		m, err := build(ctx, p)
		if err != nil {
			return err
		}
		value, err := json.Marshal(m)
		if err != nil {
			return Terminal(fmt.Errorf("encode message %T: %w", m, err))
		}
		out.Record = &eventlog.Record{Topic: topic, Partition: -1, Key: []byte(eventlog.PartitionKey(a.Instance)), Value: value}
		return nil
	})
	return Node[P]{node: n}
}

// Headers adds headers to the records of a Command task, beside the engine's own (dagger-app,
// dagger-instance, dagger-path, dagger-idempotency-key). The function gets the parameters as
// they are after the task.
func (n Node[P]) Headers(of func(*P) map[string]string) Node[P] {
	return n.decorate("Headers", of == nil, func(p *P, r *eventlog.Record) {
		headers := of(p)
		for _, name := range slices.Sorted(maps.Keys(headers)) {
			r.Headers = append(r.Headers, eventlog.Header{Key: name, Value: []byte(headers[name])})
		}
	})
}

// Key sets the key of the records of a Command task: records of one key are in one partition,
// in order. The function gets the parameters as they are after the task. "" sends a record
// without a key.
func (n Node[P]) Key(of func(*P) string) Node[P] {
	return n.decorate("Key", of == nil, func(p *P, r *eventlog.Record) {
		r.Key = nil
		if key := of(p); key != "" {
			r.Key = []byte(key)
		}
	})
}

// decorate changes the record of a Command task.
func (n Node[P]) decorate(method string, missing bool, change func(*P, *eventlog.Record)) Node[P] {
	n.mistakes = slices.Clone(n.mistakes)
	switch {
	case n.kind != eventlog.Command:
		n.mistakes = append(n.mistakes, method+" is not for a node of kind "+string(n.kind))
		return n
	case missing:
		n.mistakes = append(n.mistakes, method+" has no function")
		return n
	}
	send := n.handler
	n.handler = func(ctx context.Context, a engine.Attempt) (engine.Outcome, error) {
		out, err := send(ctx, a)
		if err != nil {
			return out, err
		}
		params := a.Params
		if out.Patch != nil {
			params = machine.MergePatch(params, out.Patch)
		}
		p, err := decodeParams[P](params)
		if err != nil {
			return engine.Outcome{}, Terminal(err)
		}
		change(p, out.Record)
		return out, nil
	}
	return n
}

// Listen is a task that waits for a message of a topic that matches the instance, and calls the
// function with it. The function returns done=false to wait for another message. An error
// fails the attempt; with Retry the next attempt gets the same message. Timeout limits the wait
// for each message.
//
// A message that comes before the task is reached, or before the instance exists, is kept for
// the time of Buffer and matched then. What no instance has taken by then goes to the
// dead-letter topic.
func Listen[P, M any](name, topic string, by Match[P, M], received func(ctx context.Context, p *P, m M) (done bool, err error)) Node[P] {
	n := node{kind: eventlog.Listen, name: name, topic: topic, match: by.match, mistakes: slices.Clone(by.mistakes)}
	if by.of == nil && len(n.mistakes) == 0 {
		n.mistakes = append(n.mistakes, "it has no Match: use By")
	}
	if received == nil {
		n.mistakes = append(n.mistakes, "its function is nil")
	}
	n.handler = handler(func(ctx context.Context, p *P, a engine.Attempt, out *engine.Outcome) error {
		m, err := decodeMessage[M](a.Message)
		if err != nil {
			return Terminal(err)
		}
		done, err := received(ctx, p, *m)
		out.More = !done
		return err
	})
	return Node[P]{node: n}
}

// Match says which messages M belong to an instance with parameters P.
type Match[P, M any] struct {
	match
	mistakes []string
	_        [0]func(P, M)
}

// By matches a message when from(message) equals of(parameters). attribute names what is
// compared, such as "order_id": everything that listens to one topic by one attribute must
// compute it from messages in the same way. As long as of returns "", the instance gets no
// messages; a message for which from returns "" concerns no instance.
//
// Both functions must depend on nothing but their argument, and be fast: of is called whenever
// the parameters change, from once for each message of the topic. A value has at most 512 bytes of
// valid UTF-8 without control characters.
func By[P, M any](attribute string, of func(*P) string, from func(*M) string) Match[P, M] {
	var all func(*M) []string
	if from != nil {
		all = func(m *M) []string { return []string{from(m)} }
	}
	return ByAny(attribute, of, all)
}

// ByAny is By for messages with several values. Each instance that has one of them gets the
// message. Empty values and repeated ones are ignored.
func ByAny[P, M any](attribute string, of func(*P) string, from func(*M) []string) Match[P, M] {
	m := Match[P, M]{match: match{key: attribute, message: reflect.TypeFor[M]()}}
	if of == nil {
		m.mistakes = append(m.mistakes, "By has no function of the parameters")
	}
	if from == nil {
		m.mistakes = append(m.mistakes, "By has no function of the message")
	}
	m.of = func(params json.RawMessage) (string, error) {
		p, err := decodeParams[P](params)
		if err != nil {
			return "", err
		}
		value := of(p)
		return value, checkValue(attribute, value)
	}
	m.from = func(message *eventlog.Message) ([]string, error) {
		decoded, err := decodeMessage[M](message)
		if err != nil {
			return nil, err
		}
		var values []string
		for _, value := range from(decoded) {
			if value == "" || slices.Contains(values, value) {
				continue
			}
			if err := checkValue(attribute, value); err != nil {
				return nil, err
			}
			values = append(values, value)
		}
		return values, nil
	}
	return m
}

func checkValue(attribute, value string) error {
	if value == "" {
		return nil
	}
	if err := eventlog.ValidateID(value); err != nil {
		return fmt.Errorf("value of %s: %w", attribute, err)
	}
	return nil
}

func decodeMessage[M any](m *eventlog.Message) (*M, error) {
	value := []byte(m.Value)
	if m.Value == nil {
		value = m.Bytes
	}
	v := new(M)
	if err := decodeJSON(value, v); err != nil {
		return nil, fmt.Errorf("decode message %s/%d@%d as %T: %w", m.Topic, m.Partition, m.Offset, *v, err)
	}
	return v, nil
}
