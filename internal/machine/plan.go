package machine

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// Plan is a definition compiled to data: what the engine needs to know of it without user
// code. It is recorded in the log under its hash.
type Plan struct {
	Name    string `json:"name"`
	Version int    `json:"version"`
	Root    []Node `json:"nodes"` // run one after the other

	hash              string
	recorded          json.RawMessage
	root              Node    // a process around Root
	leaves            []*Node // tasks in plan order: what has a handler or waits
	listens, computes bool    // a plan with listeners; with functions of the parameters
	byPath            map[string]*Node
}

// Node is a process or a task of a plan.
type Node struct {
	Path  string        `json:"path"` // names from the root, joined by "/"
	Kind  eventlog.Kind `json:"kind"`
	Nodes []Node        `json:"nodes,omitempty"` // of a process

	Topic string `json:"topic,omitempty"` // Command: target; Listen: source
	Key   string `json:"key,omitempty"`   // Listen: name of the correlation key
	TTL   int64  `json:"ttl,omitempty"`   // Listen: how long an unmatched message is kept, ms

	Any      bool `json:"any,omitempty"`      // Parallel: ends with the first node that completes
	WaitAll  bool `json:"waitAll,omitempty"`  // Parallel: fails when all nodes have ended, not at once
	Continue bool `json:"continue,omitempty"` // a failure of the node does not fail the instance

	Retry   *Retry `json:"retry,omitempty"`   // nil: one attempt
	Timeout int64  `json:"timeout,omitempty"` // of an attempt, or of a listener's wait, ms; 0 = none

	From string `json:"from,omitempty"` // "definition/path" of the process that this one was taken from

	parent *Node
}

// name is the node's own.
func (n *Node) name() string { return n.Path[strings.LastIndexByte(n.Path, '/')+1:] }

// isComposite says that the node has others inside.
func (n *Node) isComposite() bool { return len(n.Nodes) > 0 }

// Retry is the policy of a task whose attempt failed.
type Retry struct {
	Attempts int   `json:"attempts"`           // at most; > 0
	Delay    int64 `json:"delay"`              // before the second attempt, ms; doubles each time
	MaxDelay int64 `json:"maxDelay,omitempty"` // ms; 0 = an hour
}

const maxDelay = 3600_000

// delay is the time before the attempt that follows the given one. jitter in [0,1) spreads
// it over 80 to 120 per cent.
func (r *Retry) delay(attempt int, jitter float64) int64 {
	limit := r.MaxDelay
	if limit <= 0 {
		limit = maxDelay
	}
	d := r.Delay
	for i := 1; i < attempt && d < limit; i++ {
		d *= 2
	}
	d = min(d, limit)
	return d*4/5 + int64(float64(d)*0.4*jitter)
}

// NewPlan checks nothing but what the machine relies on: at least one task, unique paths.
func NewPlan(name string, version int, nodes []Node) (*Plan, error) {
	p := &Plan{Name: name, Version: version, Root: nodes}
	if err := p.index(); err != nil {
		return nil, err
	}
	data, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode plan %s: %w", name, err)
	}
	p.hash, p.recorded = HashPlan(data), data
	return p, nil
}

// HashPlan is the hash of an encoded plan.
func HashPlan(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// DecodePlan reads a recorded plan. Its hash is that of the bytes as they were recorded, so
// that a plan of a newer version, with fields unknown here, keeps its name.
func DecodePlan(data []byte) (*Plan, error) {
	p := &Plan{}
	if err := json.Unmarshal(data, p); err != nil {
		return nil, fmt.Errorf("decode plan: %w", err)
	}
	if err := p.index(); err != nil {
		return nil, err
	}
	p.hash, p.recorded = HashPlan(data), data
	return p, nil
}

// Recorded is the encoded plan, byte for byte as its hash has it.
func (p *Plan) Recorded() json.RawMessage { return p.recorded }

// Hash names the plan.
func (p *Plan) Hash() string { return p.hash }

// Tasks are the leaves in plan order.
func (p *Plan) Tasks() []*Node { return p.leaves }

// Task is the leaf with the path, or nil.
func (p *Plan) Task(path string) *Node {
	if n := p.byPath[path]; n != nil && n.Kind != eventlog.Process && n.Kind != eventlog.Parallel {
		return n
	}
	return nil
}

// Node is the process or task with the path, or nil.
func (p *Plan) Node(path string) *Node { return p.byPath[path] }

// HasListeners says whether the plan has correlation keys.
func (p *Plan) HasListeners() bool { return p.listens }

// Computes says whether the plan has functions of the parameters: keys, times, periods.
func (p *Plan) Computes() bool { return p.computes }

func (p *Plan) index() error {
	p.leaves, p.byPath = nil, map[string]*Node{}
	p.root = Node{Kind: eventlog.Process, Nodes: p.Root}
	var walk func(parent *Node) error
	walk = func(parent *Node) error {
		for k := range parent.Nodes {
			n := &parent.Nodes[k]
			n.parent = parent
			if p.byPath[n.Path] != nil {
				return fmt.Errorf("plan %s: path %q twice", p.Name, n.Path)
			}
			p.byPath[n.Path] = n
			switch composite := n.Kind == eventlog.Process || n.Kind == eventlog.Parallel || n.Kind == eventlog.Decide; {
			case composite && len(n.Nodes) == 0:
				return fmt.Errorf("plan %s: %s %q has no node", p.Name, n.Kind, n.Path)
			case !composite && len(n.Nodes) > 0:
				return fmt.Errorf("plan %s: %s %q has nodes", p.Name, n.Kind, n.Path)
			}
			if n.Kind != eventlog.Process && n.Kind != eventlog.Parallel {
				p.leaves = append(p.leaves, n)
			}
			switch n.Kind {
			case eventlog.Listen:
				p.listens, p.computes = true, true
			case eventlog.At, eventlog.Every:
				p.computes = true
			}
			if err := walk(n); err != nil {
				return err
			}
		}
		return nil
	}
	if err := walk(&p.root); err != nil {
		return err
	}
	if len(p.leaves) == 0 {
		return fmt.Errorf("plan %s: no task", p.Name)
	}
	return nil
}
