package workflow

import (
	"cmp"
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/internal/machine"
)

// Status is that of an instance, or of a task of one.
type Status string

// The statuses. A task that waits for a message, for a time, or for its next attempt is Executing.
const (
	NotStarted  Status = "NOT_STARTED"
	Submitted   Status = "SUBMITTED"
	Executing   Status = "EXECUTING"
	Completed   Status = "COMPLETED"
	Failure     Status = "FAILURE"
	Skipped     Status = "SKIPPED"
	Stopped     Status = "STOPPED"
	Quarantined Status = "QUARANTINED" // of an instance: frozen until an operator releases it
)

// Ended says whether an instance or a task with this status has ended: nothing more happens to it
// unless somebody asks for it, with Retry for example.
func (s Status) Ended() bool { return s == Completed || s == Failure || s == Stopped || s == Skipped }

// Instance is the state of an instance at a moment.
type Instance struct {
	ID         string
	Definition string
	Plan       string // hash of the exact tree that it runs
	Version    int    // of the definition; 0 when this engine does not know the plan
	Status     Status
	Parameters json.RawMessage
	Tasks      []TaskStatus // in plan order
	Created    time.Time
	Updated    time.Time
	Ended      time.Time // zero while it has not
	FailedPath string    // of the task that made it fail
	Error      string    // of that task, or why it is in quarantine
	Reason     string    // why it was stopped
	Trace      string    // traceparent of its start, as W3C has it; "" = none
}

// TaskStatus is the state of a task of an instance.
type TaskStatus struct {
	Path     string
	Kind     string // execute, command, listen, decide, at, every, parallel, process
	Status   Status
	Attempt  int       // the last one, from 1; 0 before the first
	Since    time.Time // of the status
	Due      time.Time // of the time-out, or of the next attempt; zero when there is none
	WaitsFor string    // a sentence; "" when it does not wait
	Error    string    // of the last attempt that failed
}

// Filter selects instances for List and Count: those that match all its fields. The zero value
// selects all.
type Filter struct {
	Definition string
	Status     Status
	IDPrefix   string
	Limit      int    // of a page of List; 0 = 100, at most 1,000; of large instances 8 MiB
	Cursor     string // Page.Cursor of the page before; "" = the first
	// AtLeast makes the call wait until the store contains these event numbers, by partition: to
	// see in a list what was done before, give it the numbers of the events that did it.
	AtLeast map[int32]uint64
}

// Page is a part of a list of instances.
type Page struct {
	Instances []Instance // oldest first within a partition
	Cursor    string     // of the next page; "" = this is the last
	// AsOf is the number of the last event that counts, by partition.
	AsOf map[int32]uint64
}

// Counts has numbers of instances, by definition and status.
type Counts struct {
	Of   map[string]map[Status]int64
	AsOf map[int32]uint64 // number of the last event that counts, by partition
}

// Total is the number of all instances that were counted.
func (c Counts) Total() (n int64) {
	for _, of := range c.Of {
		for _, k := range of {
			n += k
		}
	}
	return n
}

// Get returns the instance as it is now, or ErrNotFound.
func (e *Engine) Get(ctx context.Context, id string) (Instance, error) {
	i, err := e.run.Get(ctx, id)
	if err != nil {
		return Instance{}, e.told(id, err)
	}
	return e.view(i), nil
}

// List returns the first page of the instances that f selects, or the one after f.Cursor. It reads
// the store, which may be behind the log by Config.ProjectInterval; Page.AsOf says how far it is.
// ErrCursor: the cursor does not belong to the filter. *ElsewhereError: a part of the list is in
// the store of another process, which can't be asked.
func (e *Engine) List(ctx context.Context, f Filter) (Page, error) {
	p, err := e.run.List(ctx, f.engine())
	if err != nil {
		return Page{}, e.told("", err)
	}
	page := Page{Cursor: p.Cursor, AsOf: p.AsOf}
	for _, i := range p.Instances {
		page.Instances = append(page.Instances, e.view(i))
	}
	return page, nil
}

// Count counts the instances that f selects, on all pages, as List would find them; f.Limit and
// f.Cursor do not matter. The errors are those of List.
func (e *Engine) Count(ctx context.Context, f Filter) (Counts, error) {
	n, asOf, err := e.run.Count(ctx, f.engine())
	if err != nil {
		return Counts{}, e.told("", err)
	}
	return countsOf(n, asOf), nil
}

func countsOf(n map[string]int64, asOf map[int32]uint64) Counts {
	c := Counts{Of: map[string]map[Status]int64{}, AsOf: asOf}
	for name, k := range n {
		slash := strings.LastIndexByte(name, '/')
		definition, status := name[:max(slash, 0)], Status(name[slash+1:])
		if c.Of[definition] == nil {
			c.Of[definition] = map[Status]int64{}
		}
		c.Of[definition][status] += k
	}
	return c
}

func (f Filter) engine() engine.Filter {
	return engine.Filter{Definition: f.Definition, Status: string(f.Status), IDPrefix: f.IDPrefix, Limit: f.Limit, Cursor: f.Cursor, AtLeast: f.AtLeast}
}

// view is what users see of a state.
func (e *Engine) view(i *machine.Instance) Instance {
	plan := e.run.Plan(i.Plan)
	v := Instance{
		ID: i.ID, Definition: i.Definition, Plan: i.Plan, Status: Status(i.StatusName()), Parameters: i.Params,
		Created: at(i.Created), Updated: at(i.Updated), Ended: at(i.Ended),
		FailedPath: i.FailedPath, Error: i.Error, Reason: i.Reason,
	}
	if i.Trace != nil {
		v.Trace = i.Trace.Parent
	}
	if i.Quarantined != "" {
		v.Error = i.Quarantined
		v.Reason = cmp.Or(i.StopWaits(), v.Reason)
	}
	tasks := make(map[string]*machine.Task, len(i.Tasks))
	for k := range i.Tasks {
		tasks[i.Tasks[k].Path] = &i.Tasks[k]
	}
	add := func(path string, kind eventlog.Kind, s machine.Status) {
		t := TaskStatus{Path: path, Kind: string(kind), Status: Status(s)}
		if k := tasks[path]; k != nil {
			t.Attempt, t.Error = k.Attempt, k.Error
			t.Since, t.Due, t.WaitsFor = at(k.Since), at(k.Due), i.WaitsFor(plan, path)
		}
		v.Tasks = append(v.Tasks, t)
	}
	if plan == nil {
		for _, k := range i.Tasks {
			add(k.Path, k.Kind, k.Status)
		}
		return v
	}
	v.Version = plan.Version
	plan.Walk(i, func(path string, n *machine.Node, s machine.Status) { add(path, n.Kind, s) })
	return v
}

func at(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
