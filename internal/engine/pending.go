package engine

// Stand-ins for registry.go, client.go and relay_run.go until those are here: whoever adds
// one of them removes what it replaces from this file.

import (
	"context"
	"errors"
	"sync"

	"github.com/godagger/dagger/internal/machine"
)

type registry struct {
	mu      sync.Mutex
	codes   map[string]*Code
	current map[string]*Code
}

func newRegistry(*Engine) (*registry, error) {
	return &registry{codes: map[string]*Code{}, current: map[string]*Code{}}, nil
}

func (r *registry) code(hash string) *Code {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.codes[hash]
}

func (r *registry) add(c *Code) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.codes[c.Plan.Hash()], r.current[c.Plan.Name] = c, c
}

func (r *registry) Current(definition string) *machine.Plan {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.current[definition]; c != nil {
		return c.Plan
	}
	return nil
}

func (r *registry) Plan(hash string) *machine.Plan {
	if c := r.code(hash); c != nil {
		return c.Plan
	}
	return nil
}

var errMoved = errors.New("engine: the partition moved to another worker")

type call struct{ done chan reply }

func newCall() *call { return &call{make(chan reply, 1)} }

func (c *call) reply(r reply) {
	select {
	case c.done <- r:
	default:
	}
}

func (e *Engine) relays(ctx context.Context) { <-ctx.Done() }
