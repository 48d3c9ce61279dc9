package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// instance is how an instance is printed as JSON.
type instance struct {
	ID         string            `json:"id"`
	Definition string            `json:"definition"`
	Plan       string            `json:"plan"`
	Version    int               `json:"version,omitempty"` // of the definition, where the plan is at hand
	Status     string            `json:"status"`
	Parameters json.RawMessage   `json:"parameters,omitempty"`
	Tasks      []task            `json:"tasks"`
	Created    time.Time         `json:"created"`
	Updated    time.Time         `json:"updated"`
	Ended      *time.Time        `json:"ended,omitempty"`
	FailedPath string            `json:"failedPath,omitempty"`
	Error      string            `json:"error,omitempty"`
	Reason     string            `json:"reason,omitempty"`
	Events     []json.RawMessage `json:"events,omitempty"` // as they stand in the log
}

type task struct {
	Path     string     `json:"path"`
	Kind     string     `json:"kind"`
	Status   string     `json:"status"`
	Attempt  int        `json:"attempt,omitempty"`
	Since    *time.Time `json:"since,omitempty"`
	Due      *time.Time `json:"due,omitempty"` // of the time-out, or of the next attempt
	WaitsFor string     `json:"waitsFor,omitempty"`
	Error    string     `json:"error,omitempty"` // of the last attempt that failed
}

// view is what is printed of a state. With the plan it also has the tasks to come.
func view(i *machine.Instance, plan *machine.Plan) instance {
	v := instance{
		ID: i.ID, Definition: i.Definition, Plan: i.Plan, Status: i.StatusName(), Parameters: i.Params, Tasks: []task{},
		Created: time.UnixMilli(i.Created).UTC(), Updated: time.UnixMilli(i.Updated).UTC(), Ended: at(i.Ended),
		FailedPath: i.FailedPath, Error: i.Error, Reason: i.Reason,
	}
	if i.Quarantined != "" {
		v.Error = i.Quarantined
		v.Reason = cmp.Or(i.StopWaits(), v.Reason)
	}
	add := func(path string, kind eventlog.Kind) {
		t := task{Path: path, Kind: string(kind), Status: string(machine.NotStarted)}
		if k := i.Task(path); k != nil {
			t.Status, t.Attempt, t.Since, t.Due, t.Error = string(k.Status), k.Attempt, at(k.Since), at(k.Due), k.Error
			t.WaitsFor = i.WaitsFor(plan, path)
			if k.Status == machine.Executing && k.Phase == machine.Running { // that it runs now only its worker knows
				t.WaitsFor = fmt.Sprintf("attempt %d began at %s", k.Attempt, time.UnixMilli(k.Since).UTC().Format("2006-01-02 15:04:05Z"))
			}
		}
		v.Tasks = append(v.Tasks, t)
	}
	if plan == nil {
		for _, k := range i.Tasks {
			add(k.Path, k.Kind)
		}
		return v
	}
	v.Version = plan.Version
	for _, n := range plan.Tasks() {
		add(n.Path, n.Kind)
	}
	return v
}

func at(ms int64) *time.Time {
	if ms == 0 {
		return nil
	}
	t := time.UnixMilli(ms).UTC()
	return &t
}

// step is the task that the instance is at: one that runs or waits, else the one that failed.
func (v *instance) step() (path string, since time.Time) {
	for _, t := range v.Tasks {
		if t.Status == string(machine.Executing) || t.Status == string(machine.Submitted) {
			return t.Path, *t.Since
		}
	}
	for _, t := range v.Tasks {
		if t.Path == v.FailedPath && t.Since != nil {
			return t.Path, *t.Since
		}
	}
	return "", time.Time{}
}
