package workflow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/engine"
)

// trigger makes the records of a topic start or stop instances.
type trigger struct {
	kind     string // "start" or "stop"
	topic    string
	begin    engine.Begin
	call     func(*compiled) func(context.Context, *eventlog.Message) (*eventlog.Request, error)
	mistakes []string
}

const (
	startKind = "start"
	stopKind  = "stop"
)

// verb is how users know it.
func (t *trigger) verb() string {
	if t.kind == startKind {
		return "StartOn"
	}
	return "StopOn"
}

// StartOn returns a copy of the definition whose instances are also started by the records of a
// topic, by all engines that have it registered: each record once, whatever dies or is repeated.
// The function gets the record's value, decoded from JSON, and returns the id and the parameters;
// MessageFrom has the rest of the record. It returns the id "" to ignore a record. If an
// instance with the id has been started before, nothing happens. For one record it must always
// return the same id, so it must not make one up at random; see IDFrom.
//
// A record that can't be decoded, or for which the function returns an error or panics, goes to
// the dead-letter topic with the reason, and reading goes on. The records of a partition are read
// one after the other, so a slow function delays those behind.
//
// If no engine has read the topic for this definition before, reading begins with the first record
// that is younger than 24 hours when the definition is first registered, or where From says. If
// several versions are registered, the highest that has StartOn starts the instances. From is the
// only option that StartOn takes.
func StartOn[P, M any](d *Definition[P], topic string, f func(context.Context, *M) (id string, p P, err error), options ...Option) *Definition[P] {
	t := trigger{kind: startKind, topic: topic}
	if f == nil {
		t.mistakes = append(t.mistakes, "its function is nil")
	}
	name := d.name
	t.call = func(c *compiled) func(context.Context, *eventlog.Message) (*eventlog.Request, error) {
		return func(ctx context.Context, m *eventlog.Message) (*eventlog.Request, error) {
			v, err := decodeMessage[M](m)
			if err != nil {
				return nil, fmt.Errorf("start %s: %w", name, err)
			}
			id, p, err := f(withMessage(withTrace(ctx, eventlog.TraceOf(m.Headers)), m), v)
			switch {
			case err != nil:
				return nil, fmt.Errorf("start %s: %w", name, err)
			case id == "":
				return nil, nil
			}
			params, keys, err := c.start(id, p)
			if err != nil {
				return nil, fmt.Errorf("start %s: %w", name, err)
			}
			return &eventlog.Request{
				Type: eventlog.StartInstance, ID: id, Definition: name, Plan: c.code.Plan.Hash(),
				Params: params, Keys: keys, HasKeys: true,
			}, nil
		}
	}
	return d.on(t, options)
}

// StopOn returns a copy of the definition whose instances are also stopped by the records of a
// topic. The function returns the id of the instance, or "" to ignore the record. Otherwise all
// that is said of StartOn is true here too.
//
// A record may be read before the one that starts its instance. It is kept for a day, and the
// instance is stopped as soon as it starts; if it does not start, the record goes to the
// dead-letter topic. So does one that names an instance of another definition, or one that was
// deleted. A record that names an instance that has ended does nothing.
func StopOn[P, M any](d *Definition[P], topic string, f func(context.Context, *M) (id string, err error), options ...Option) *Definition[P] {
	t := trigger{kind: stopKind, topic: topic}
	if f == nil {
		t.mistakes = append(t.mistakes, "its function is nil")
	}
	name := d.name
	t.call = func(*compiled) func(context.Context, *eventlog.Message) (*eventlog.Request, error) {
		return func(ctx context.Context, m *eventlog.Message) (*eventlog.Request, error) {
			v, err := decodeMessage[M](m)
			if err != nil {
				return nil, fmt.Errorf("stop %s: %w", name, err)
			}
			id, err := f(withMessage(withTrace(ctx, eventlog.TraceOf(m.Headers)), m), v)
			switch {
			case err != nil:
				return nil, fmt.Errorf("stop %s: %w", name, err)
			case id == "":
				return nil, nil
			}
			if err := eventlog.ValidateID(id); err != nil {
				return nil, fmt.Errorf("stop %s: %w", name, err)
			}
			reason := fmt.Sprintf("record %s/%d@%d", m.Topic, m.Partition, m.Offset)
			return &eventlog.Request{Type: eventlog.StopInstance, ID: id, Definition: name, Reason: reason}, nil
		}
	}
	return d.on(t, options)
}

// on returns a copy with one more trigger.
func (d *Definition[P]) on(t trigger, options []Option) *Definition[P] {
	for _, o := range options {
		if o.name != fromOption {
			t.mistakes = append(t.mistakes, fmt.Sprintf("%s is no option of %s", or(o.name, "an empty Option"), t.verb()))
			continue
		}
		var n node
		o.apply(&n)
		t.begin, t.mistakes = n.begin, append(t.mistakes, n.mistakes...)
	}
	c := d.copy()
	c.triggers = append(c.triggers, t)
	return c
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// start checks and encodes what an instance starts with. ErrParameters when it is they that are
// wrong.
func (c *compiled) start(id string, p any) (params json.RawMessage, keys []eventlog.TaskKey, err error) {
	if err := eventlog.ValidateID(id); err != nil {
		return nil, nil, err
	}
	if params, err = encodeParams(p); err == nil {
		keys, err = c.keysOf(params)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrParameters, err)
	}
	return params, keys, nil
}

// triggers checks what starts and stops instances, and gives it to the engine.
func (c *compiler) triggers(l []trigger) {
	seen := map[[2]string]bool{}
	for k := range l {
		t := &l[k]
		path := t.verb() + " " + t.topic
		if why := badTopic(t.topic); why != "" {
			c.mistake(t.verb(), "its topic %s", why)
		}
		if seen[[2]string{t.kind, t.topic}] {
			c.mistake(path, "a definition has one for a topic")
		}
		seen[[2]string{t.kind, t.topic}] = true
		for _, m := range t.mistakes {
			c.mistake(path, "%s", m)
		}
		c.out.code.Triggers = append(c.out.code.Triggers, engine.Trigger{Topic: t.topic, Kind: t.kind, Begin: t.begin, Call: t.call(&c.out)})
		c.out.triggers = append(c.out.triggers, pathTopic{path, t.topic})
	}
}

// Beginning says where reading begins in a topic that was never read before; see From.
type Beginning int

const (
	Earliest Beginning = iota + 1 // with the first record that the topic has
	Latest                        // with the first record that is written after Register
)

const fromOption = "From"

// From says where reading begins in the topic of a Listen, a StartOn or a StopOn, when this version
// of the definition is registered for the first time; later, reading goes on where it was. Without
// From it begins with the first record that is younger than Buffer (24 hours by default).
func From(b Beginning) Option {
	return Option{fromOption, []eventlog.Kind{eventlog.Listen}, func(n *node) {
		switch b {
		case Earliest:
			n.begin = engine.BeginEarliest
		case Latest:
			n.begin = engine.BeginLatest
		default:
			n.mistakes = append(n.mistakes, "From is given neither Earliest nor Latest")
		}
	}}
}

// begins notes where the relay of a listener begins: listeners that share it must agree.
func (c *compiler) begins(path string, n node, k engine.TopicKey) {
	have, twice := c.out.code.Begins[k]
	if c.out.code.Begins == nil {
		c.out.code.Begins = map[engine.TopicKey]engine.Begin{}
	}
	c.out.code.Begins[k] = n.begin
	if twice && have != n.begin {
		c.mistake(path, "it begins to read topic %s elsewhere than another listener with %s: give both the same From", n.topic, n.match.key)
	}
}

type messageKey struct{}

func withMessage(ctx context.Context, m *eventlog.Message) context.Context {
	return context.WithValue(ctx, messageKey{}, m)
}

// MessageFrom returns the record for which a function of a Listen, StartOn or StopOn was called: its
// topic, partition, offset, key and headers. It is nil for any other context. The caller must not
// change it.
func MessageFrom(ctx context.Context) *eventlog.Message {
	m, _ := ctx.Value(messageKey{}).(*eventlog.Message)
	return m
}

// ErrChanged: another definition was registered under this name and version. The error says what
// differs, and which version number is free.
var ErrChanged = errors.New("workflow: definition changed without a new version")

// changed names the engine's errors of definitions that changed, wherever they are in err.
func changed(err error) error {
	if c, ok := errors.AsType[*engine.ChangedError](err); ok && c != nil {
		return fmt.Errorf("%w: %w", ErrChanged, err)
	}
	return err
}
