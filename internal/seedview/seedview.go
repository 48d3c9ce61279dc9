// Package seedview tells an instance in the JSON shape that users of the seed know, Wayfair's
// dagger for Python: an object for the instance and one for each process and task inside it.
// It is what the HTTP paths of the seed and the topic of workflow.Config.UpdatesTopic carry.
//
// All of it is a pure function of an instance's state and its plan.
package seedview

import (
	"encoding/json"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// Types of a node.
const (
	TypeRoot     = "ROOT"               // the instance
	TypeProcess  = "SUB_DAG"            // has others inside, one after the other
	TypeParallel = "PARALLEL_COMPOSITE" // has others inside, at once
	TypeTask     = "LEAF"
)

// Node is an instance, or a process or task of one.
type Node struct {
	ID     string `json:"id"` // of the instance; of what is inside: <instance id>/<path>
	Type   string `json:"task_type"`
	Status Status `json:"status"`

	// Unix seconds; 0 = not yet. Submitted is when it started first.
	TimeCreated   int64 `json:"time_created"`
	TimeSubmitted int64 `json:"time_submitted"`
	TimeCompleted int64 `json:"time_completed"`
	LastUpdated   int64 `json:"lastupdated"`

	Message         *string `json:"message"`          // what went wrong, or what it waits for
	ProcessName     string  `json:"process_name"`     // its own name; of an instance: the definition's
	CorrelatableKey *string `json:"correlatable_key"` // name of a listener's correlation key

	RuntimeParameters json.RawMessage `json:"runtime_parameters,omitempty"` // of an instance: an object
	UpdateCount       uint64          `json:"update_count,omitempty"`       // of an instance: 1 at its start, one more each time it changed

	ChildDags []string `json:"child_dags"`            // ids of the next level
	Children  []Node   `json:"child_tasks,omitempty"` // the next level itself, where the whole tree is told

	// LeftOut names the fields that were left out of an update, because it would not have
	// fitted the topic.
	LeftOut []string `json:"left_out,omitempty"`
}

// Status has the same name twice, as the seed has it.
type Status struct {
	Code  string `json:"code"`
	Value string `json:"value"`
}

// Tree is the instance with all that is inside it. Without a plan (nil) that is what has
// started, as one flat level.
func Tree(i *machine.Instance, plan *machine.Plan) *Node {
	n := root(i)
	inside, _ := newWalk(i, plan).level(i.Created)
	n.Children = inside
	for k := range inside {
		n.ChildDags = append(n.ChildDags, inside[k].ID)
	}
	return n
}

// Root is the instance alone, with the ids of the next level.
func Root(i *machine.Instance, plan *machine.Plan) *Node {
	n := root(i)
	for _, c := range newWalk(i, plan).top() {
		n.ChildDags = append(n.ChildDags, id(i, c.at))
	}
	return n
}

func root(i *machine.Instance) *Node {
	n := &Node{
		ID: i.ID, Type: TypeRoot, Status: status(i.Status),
		TimeCreated: seconds(i.Created), TimeSubmitted: seconds(i.Created), TimeCompleted: seconds(i.Ended), LastUpdated: seconds(i.Updated),
		Message: message(i), ProcessName: i.Definition,
		RuntimeParameters: i.Params, UpdateCount: i.Seq, ChildDags: []string{},
	}
	if len(n.RuntimeParameters) == 0 {
		n.RuntimeParameters = json.RawMessage("{}")
	}
	return n
}

// message of an instance: why it does not go on. The seed knows no status for quarantine.
func message(i *machine.Instance) *string {
	text := i.Reason
	switch {
	case i.Quarantined != "":
		text = "in quarantine: " + i.Quarantined
	case i.Error != "" && i.FailedPath != "":
		text = i.FailedPath + ": " + i.Error
	case i.Error != "":
		text = i.Error
	}
	return optional(text)
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func status(s machine.Status) Status {
	if s == "" {
		s = machine.NotStarted
	}
	return Status{Code: string(s), Value: string(s)}
}

func seconds(ms int64) int64 { return ms / 1000 }

func id(i *machine.Instance, path string) string { return i.ID + "/" + path }

// typeOf a node of a plan.
func typeOf(kind eventlog.Kind, composite bool) string {
	switch {
	case kind == eventlog.Parallel, kind == eventlog.ForEach:
		return TypeParallel
	case composite, kind == eventlog.Process:
		return TypeProcess
	}
	return TypeTask
}
