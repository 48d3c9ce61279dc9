package machine

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/godagger/dagger/eventlog"
)

// Plan is a definition compiled to data: what the engine needs to know of it without user
// code. It is recorded in the log under its hash.
type Plan struct {
	Name    string `json:"name"`
	Version int    `json:"version"`
	Root    []Node `json:"nodes"`            // run one after the other
	Retain  int64  `json:"retain,omitempty"` // how long a completed or stopped instance is kept, ms; 0 = until it is deleted

	hash              string
	recorded          json.RawMessage
	root              Node    // a process around Root
	leaves            []*Node // tasks in plan order: what has a handler or waits
	listening         []*Node // the Listen tasks of leaves
	listens, computes bool    // a plan with listeners; with functions of the parameters
	skips             bool    // a listener skips to itself
	byPath            map[string]*Node
}

// Node is a process or a task of a plan.
type Node struct {
	Path     string        `json:"path"` // names from the root, joined by "/"
	Kind     eventlog.Kind `json:"kind"`
	Nodes    []Node        `json:"nodes,omitempty"`    // of a process; of a ForEach or Dynamic one process, "<path>[]", around what each run may have
	Attached []Node        `json:"attached,omitempty"` // monitors and on-stop handlers, "<path>@<name>"

	Topic     string `json:"topic,omitempty"`     // Command: target; Listen: source
	Key       string `json:"key,omitempty"`       // Listen: name of the correlation key
	TTL       int64  `json:"ttl,omitempty"`       // Listen: how long an unmatched message is kept, ms
	SkipTo    string `json:"skipTo,omitempty"`    // Listen: where the flow goes when a message comes early
	Reprocess bool   `json:"reprocess,omitempty"` // Listen: works again on later messages
	One       bool   `json:"one,omitempty"`       // Listen: takes messages alone

	Any      bool `json:"any,omitempty"`      // Parallel: ends with the first node that completes
	WaitAll  bool `json:"waitAll,omitempty"`  // Parallel: fails when all nodes have ended, not at once
	Continue bool `json:"continue,omitempty"` // a failure of the node does not fail the instance

	Goto  string `json:"goto,omitempty"`  // where the flow goes on when the node failed
	Gotos int    `json:"gotos,omitempty"` // how often an instance may do that

	Concurrency int  `json:"concurrency,omitempty"` // ForEach: runs at once; tasks: handlers at once in a worker; 0 = no limit
	Collect     bool `json:"collect,omitempty"`     // ForEach: a handler gets the items at the end

	Deadline      int64 `json:"deadline,omitempty"`      // Process, Parallel: ms from its start
	DeadlineAt    bool  `json:"deadlineAt,omitempty"`    // its deadline is computed
	DeadlineFails bool  `json:"deadlineFails,omitempty"` // past it the node fails; else the flow goes on behind it

	Retry   *Retry `json:"retry,omitempty"`   // nil: one attempt
	Timeout int64  `json:"timeout,omitempty"` // of an attempt, or of a listener's wait, ms; 0 = none

	From string `json:"from,omitempty"` // "definition/path" of the process that this one was taken from

	parent   *Node
	own      string // its name
	item     bool   // what a ForEach or Dynamic runs
	attached bool
	repeated bool // inside one of these
}

// name is the node's own.
func (n *Node) name() string { return n.own }

// isComposite says that the node has others inside.
func (n *Node) isComposite() bool { return len(n.Nodes) > 0 }

// joins says that the nodes inside, or the runs, end at a join.
func (n *Node) joins() bool { return n.Kind == eventlog.Parallel || n.Kind == eventlog.ForEach }

// tracked says that a process has a status of its own from its start on.
func (n *Node) tracked() bool {
	return n.Kind == eventlog.Process && (n.Deadline > 0 || n.DeadlineAt || n.onStop() != nil)
}

// onStop is the node's on-stop handler, or nil.
func (n *Node) onStop() *Node {
	for k := range n.Attached {
		if n.Attached[k].Kind == eventlog.OnStop {
			return &n.Attached[k]
		}
	}
	return nil
}

// Retry is the policy of a task whose attempt failed.
type Retry struct {
	Attempts int   `json:"attempts"`           // at most; > 0
	Delay    int64 `json:"delay"`              // before the second attempt, ms; doubles each time
	MaxDelay int64 `json:"maxDelay,omitempty"` // ms; 0 = an hour, or Delay where that is more
}

const maxDelay = 3600_000

// delay is the time before the attempt that follows the given one. jitter in [0,1) spreads
// it over 80 to 120 per cent.
func (r *Retry) delay(attempt int, jitter float64) int64 {
	limit := r.MaxDelay
	if limit <= 0 {
		limit = max(maxDelay, r.Delay)
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
	return Build(Plan{Name: name, Version: version, Root: nodes})
}

// Build is NewPlan with all that the exported fields say.
func Build(of Plan) (*Plan, error) {
	p, name := &of, of.Name
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

// Task is the leaf behind a path, of the plan or of an instance, or nil.
func (p *Plan) Task(path string) *Node {
	if n := p.Node(path); n != nil && n.Kind != eventlog.Process && n.Kind != eventlog.Parallel {
		return n
	}
	return nil
}

// Node is the process or task behind a path, of the plan or of an instance, or nil.
func (p *Plan) Node(path string) *Node { return p.byPath[pattern(path)] }

// Pattern is the plan's path of an instance's path: "Ship[]/pack" of "Ship[3]/pack".
func Pattern(path string) string { return pattern(path) }

// one says whether messages of the key are taken alone.
func (p *Plan) one(k eventlog.KeyRef) bool {
	return slices.ContainsFunc(p.listening, func(n *Node) bool { return n.One && n.Topic == k.Topic && n.Key == k.Key })
}

// HasListeners says whether the plan has correlation keys.
func (p *Plan) HasListeners() bool { return p.listens }

// Computes says whether the plan has functions of the parameters: keys, times, periods.
func (p *Plan) Computes() bool { return p.computes }

func (p *Plan) index() error {
	p.leaves, p.listening, p.byPath = nil, nil, map[string]*Node{}
	p.root = Node{Kind: eventlog.Process, Nodes: p.Root}
	var walk func(parent *Node) error
	add := func(parent, n *Node) error {
		n.parent, n.repeated = parent, parent.repeated
		n.own = n.Path[strings.LastIndexByte(n.Path, '/')+1:]
		if p.byPath[n.Path] != nil {
			return fmt.Errorf("plan %s: path %q twice", p.Name, n.Path)
		}
		p.byPath[n.Path] = n
		if err := n.check(); err != nil {
			return fmt.Errorf("plan %s: %w", p.Name, err)
		}
		if n.Kind != eventlog.Process && n.Kind != eventlog.Parallel {
			p.leaves = append(p.leaves, n)
		}
		switch n.Kind {
		case eventlog.Listen:
			p.listens, p.computes = true, true
			p.listening = append(p.listening, n)
			p.skips = p.skips || n.SkipTo != ""
		case eventlog.At, eventlog.Every, eventlog.Monitor:
			p.computes = true
		}
		p.computes = p.computes || n.DeadlineAt
		return nil
	}
	walk = func(parent *Node) error {
		for k := range parent.Attached {
			n := &parent.Attached[k]
			if err := add(parent, n); err != nil {
				return err
			}
			n.attached = true
		}
		for k := range parent.Nodes {
			n := &parent.Nodes[k]
			if err := add(parent, n); err != nil {
				return err
			}
			if parent.Kind == eventlog.ForEach || parent.Kind == eventlog.Dynamic {
				n.item, n.repeated = true, true
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

// check says what the machine could not run.
func (n *Node) check() error {
	switch n.Kind {
	case eventlog.Process, eventlog.Parallel, eventlog.Decide:
		if len(n.Nodes) == 0 {
			return fmt.Errorf("%s %q has no node", n.Kind, n.Path)
		}
	case eventlog.ForEach, eventlog.Dynamic:
		if len(n.Nodes) != 1 || n.Nodes[0].Kind != eventlog.Process || n.Nodes[0].Path != n.Path+"[]" {
			return fmt.Errorf("%s %q has not one process %q", n.Kind, n.Path, n.Path+"[]")
		}
	default:
		if len(n.Nodes) > 0 {
			return fmt.Errorf("%s %q has nodes", n.Kind, n.Path)
		}
	}
	return nil
}
