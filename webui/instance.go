package webui

import (
	"encoding/json"
	"time"

	"github.com/godagger/dagger/workflow"
)

// instance is how /api/v1 tells an instance, and daggerctl too.
type instance struct {
	ID         string          `json:"id"`
	Definition string          `json:"definition"`
	Plan       string          `json:"plan"`
	Version    int             `json:"version,omitempty"` // of the definition, where the plan is at hand
	Status     workflow.Status `json:"status"`
	Parameters json.RawMessage `json:"parameters,omitempty"`
	Tasks      []task          `json:"tasks"`
	Created    time.Time       `json:"created"`
	Updated    time.Time       `json:"updated"`
	Ended      time.Time       `json:"ended,omitzero"`
	FailedPath string          `json:"failedPath,omitempty"`
	Error      string          `json:"error,omitempty"`
	Reason     string          `json:"reason,omitempty"`
	Trace      string          `json:"traceparent,omitempty"` // of its start
}

type task struct {
	Path     string          `json:"path"`
	Kind     string          `json:"kind"`
	Status   workflow.Status `json:"status"`
	Attempt  int             `json:"attempt,omitempty"`
	Since    time.Time       `json:"since,omitzero"`
	Due      time.Time       `json:"due,omitzero"` // of the time-out, or of the next attempt
	WaitsFor string          `json:"waitsFor,omitempty"`
	Error    string          `json:"error,omitempty"` // of the last attempt that failed
}

func view(i workflow.Instance) instance {
	v := instance{
		ID: i.ID, Definition: i.Definition, Plan: i.Plan, Version: i.Version, Status: i.Status, Parameters: i.Parameters, Tasks: []task{},
		Created: i.Created, Updated: i.Updated, Ended: i.Ended, FailedPath: i.FailedPath, Error: i.Error, Reason: i.Reason, Trace: i.Trace,
	}
	for _, t := range i.Tasks {
		v.Tasks = append(v.Tasks, task{t.Path, t.Kind, t.Status, t.Attempt, t.Since, t.Due, t.WaitsFor, t.Error})
	}
	return v
}
