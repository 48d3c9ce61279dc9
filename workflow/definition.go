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

// AnyDefinition is a *Definition of whatever parameters.
type AnyDefinition interface {
	Name() string
	definition() *template
}

// New makes a definition of nodes that run one after the other. It takes at least one node.
// What is wrong with it is told by Engine.Register, all at once.
func New[P any](name string, nodes ...Node[P]) *Definition[P] {
	return &Definition[P]{template: template{name: name, version: 1, nodes: untyped(nodes), params: reflect.TypeFor[P]()}}
}

// Version is a copy of the definition with another version number (New gives 1). Give a
// definition whose nodes changed a higher one: Register refuses another tree under a number
// that was registered before, on this log, by whatever process. Both can be registered: an
// instance stays with the exact tree with which it was started.
func (d *Definition[P]) Version(n int) *Definition[P] {
	c := d.copy()
	c.version = n
	return c
}

// copy can be changed until it is given away.
func (d *Definition[P]) copy() *Definition[P] {
	return &Definition[P]{template: template{name: d.name, version: d.version, nodes: d.nodes, params: d.params, triggers: slices.Clone(d.triggers), retain: d.retain, retains: d.retains}}
}

// Retain is a copy of the definition whose instances are deleted that long (at least a
// millisecond; 0 is a mistake) after they were completed or stopped. Those that failed are kept, for they can
// be retried. Without it instances are kept until Handle.Delete.
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
