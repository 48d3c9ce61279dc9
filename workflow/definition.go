package workflow

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/godagger/dagger/eventlog"
)

// Definition is a named tree of nodes whose instances have parameters P. It is immutable
// and may be used by several goroutines and engines.
type Definition[P any] struct {
	template
	_ [0]func(P)
}

// template is a Definition without its type.
type template struct {
	name    string
	version int
	nodes   []node
	params  reflect.Type

	triggers []trigger
	retain   time.Duration
	retains  bool // Retain was given

	once     sync.Once
	compiled *compiled
	err      error
}

// AnyDefinition is a *Definition, whatever the type of its parameters.
type AnyDefinition interface {
	Name() string
	definition() *template
}

// New makes a definition of nodes that run one after the other. It takes at least one node. It
// returns no error: Engine.Register reports all mistakes in a definition at once.
func New[P any](name string, nodes ...Node[P]) *Definition[P] {
	return &Definition[P]{template: template{name: name, version: 1, nodes: untyped(nodes), params: reflect.TypeFor[P]()}}
}

// Version returns a copy of the definition with another version number; New gives 1. When you
// change the nodes, give the definition a higher number: Register refuses a different tree under a
// name and number that any process has registered on this log before. The old version can be
// registered beside the new one, and should be as long as it has instances: an instance always
// runs the tree with which it was started.
func (d *Definition[P]) Version(n int) *Definition[P] {
	c := d.copy()
	c.version = n
	return c
}

// copy can be changed until it is given away.
func (d *Definition[P]) copy() *Definition[P] {
	return &Definition[P]{template: template{name: d.name, version: d.version, nodes: d.nodes, params: d.params, triggers: slices.Clone(d.triggers), retain: d.retain, retains: d.retains}}
}

// Retain returns a copy of the definition whose instances are deleted this long after they have
// completed or were stopped; at least a millisecond. Failed instances are kept, because they can
// be retried. Without Retain, instances are kept until they are deleted with Handle.Delete.
func (d *Definition[P]) Retain(after time.Duration) *Definition[P] {
	c := d.copy()
	c.retain, c.retains = after, true
	return c
}

// Name is the definition's name.
func (d *Definition[P]) Name() string { return d.name }

func (d *Definition[P]) definition() *template {
	if d == nil {
		return nil
	}
	return &d.template
}

// encode turns parameters into the JSON object that the log has.
func encodeParams[P any](p P) (json.RawMessage, error) {
	data, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode parameters %T: %w", p, err)
	}
	if len(data) == 0 || data[0] != '{' {
		return nil, fmt.Errorf("encode parameters: %T is not encoded as a JSON object", p)
	}
	return data, nil
}

// keysOf computes the correlation keys in the goroutine of a caller, whose mistake a panic is.
func (c *compiled) keysOf(params json.RawMessage) (keys []eventlog.TaskKey, err error) {
	if c.code.Keys == nil {
		return nil, nil
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("compute correlation keys of %s: panic: %v", c.code.Plan.Name, r)
		}
	}()
	return c.code.Keys("", params)
}
