package seedview

import (
	"bytes"
	"encoding/json"

	"github.com/godagger/dagger/internal/machine"
)

// nodeSize is what a node takes in JSON at least: where there are so many that they can't
// fit, they are not told first.
const nodeSize = 250

// Fields that LeftOut names.
const (
	leftParameters = "runtime_parameters"
	leftTree       = "child_tasks"
	leftMessage    = "message"
)

// Update is the instance with all that is inside it as JSON of at most limit bytes. What does
// not fit is left out, and named in left_out: the parameters, else the tree, else both, and
// at last the message. nil: not even the rest fits.
func Update(i *machine.Instance, plan *machine.Plan, limit int) []byte {
	nodes := len(i.Tasks)
	for _, l := range i.Items {
		nodes += len(l.Values)
	}
	if nodeSize*nodes <= limit {
		n := Tree(i, plan)
		if data := fitting(n, limit); data != nil {
			return data
		}
		if data := fitting(n.without(leftParameters), limit); data != nil {
			return data
		}
	}
	bare := root(i)
	for _, left := range [][]string{{leftTree}, {leftTree, leftParameters}, {leftTree, leftParameters, leftMessage}} {
		if data := fitting(bare.without(left...), limit); data != nil {
			return data
		}
	}
	return nil
}

// without is a copy that lacks fields and says so.
func (n *Node) without(fields ...string) *Node {
	c := *n
	c.LeftOut = fields
	for _, f := range fields {
		switch f {
		case leftParameters:
			c.RuntimeParameters = json.RawMessage("{}")
		case leftTree:
			c.Children, c.ChildDags = nil, []string{}
		case leftMessage:
			c.Message = nil
		}
	}
	return &c
}

// fitting is the node as JSON, or nil when that has more than limit bytes, or when the
// parameters are none.
func fitting(n *Node, limit int) []byte {
	if len(n.RuntimeParameters) > limit {
		return nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(n); err != nil {
		return nil
	}
	data := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if len(data) > limit {
		return nil
	}
	return data
}
