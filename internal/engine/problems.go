package engine

import (
	"maps"
	"slices"
	"sync"
)

// problems are why parts of an engine beside its partitions do not work: the owners' group
// and the relays.
type problems struct {
	mu sync.Mutex
	of map[string]error
}

// set notes the problem of a part; nil = it works.
func (p *problems) set(part string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		delete(p.of, part)
		return
	}
	if p.of == nil {
		p.of = map[string]error{}
	}
	p.of[part] = err
}

// Problems says what beside the partitions does not work, a line for each.
func (e *Engine) Problems() []string {
	p := &e.problems
	p.mu.Lock()
	defer p.mu.Unlock()
	var lines []string
	for _, part := range slices.Sorted(maps.Keys(p.of)) {
		lines = append(lines, part+": "+p.of[part].Error())
	}
	return lines
}
