package engine

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"
)

// errUnanswered: the log has taken long to acknowledge requests; perhaps a partition of theirs
// has no leader.
var errUnanswered = errors.New("the log does not acknowledge what it sends to the requests topic")

// problems are why parts of an engine beside its partitions do not work: the owners' group,
// the relays, and what goes to other partitions.
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

// watch notes err as the problem of a part when what begins now takes longer than after. done
// says how it ended, which is the part's problem then.
func (p *problems) watch(part string, after time.Duration, err error) (done func(error)) {
	var mu sync.Mutex
	ended := false
	late := time.AfterFunc(after, func() {
		mu.Lock()
		defer mu.Unlock()
		if !ended {
			p.set(part, err)
		}
	})
	return func(err error) {
		late.Stop()
		mu.Lock()
		defer mu.Unlock()
		ended = true
		p.set(part, err)
	}
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
