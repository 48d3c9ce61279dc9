package audit

import (
	"encoding/json"

	"github.com/godagger/dagger/eventlog"
)

// reset takes the state that replaces the frozen one.
func (p *partition) reset(i *instance, e *eventlog.Event) {
	var s struct {
		Definition string             `json:"definition"`
		Plan       string             `json:"plan"`
		Status     string             `json:"status"`
		Evaluate   uint64             `json:"evaluate"`
		Keys       []eventlog.TaskKey `json:"keys"`
		Items      []struct {
			Path   string `json:"path"`
			States string `json:"states"`
		} `json:"items"`
		Jumps []struct {
			Path  string `json:"path"`
			Count int    `json:"count"`
		} `json:"jumps"`
		Stopping  bool `json:"stopping"`
		FlowEnded bool `json:"flowEnded"`
		Tasks     []struct {
			Path    string          `json:"path"`
			Kind    eventlog.Kind   `json:"kind"`
			Status  string          `json:"status"`
			Phase   string          `json:"phase"`
			Act     uint64          `json:"act"`
			Attempt int             `json:"attempt"`
			Due     int64           `json:"due"`
			Tick    int64           `json:"tick"`
			Ran     bool            `json:"ran"`
			Choice  string          `json:"choice"`
			Choices []string        `json:"choices"`
			Collect bool            `json:"collect"`
			Over    bool            `json:"over"`
			Message json.RawMessage `json:"message"`
		} `json:"tasks"`
	}
	if err := json.Unmarshal(e.State, &s); err != nil {
		p.check(i, e, false, "its state can't be read: %v", err)
		return
	}
	i.frozen, i.broken, i.passed = false, false, nil // it stays loose: the state may be one after a jump
	i.loose = i.loose || len(s.Jumps) > 0
	i.plan, i.status, i.evaluate, i.keys, i.tasks = p.plans[s.Plan], statusOf(s.Status), s.Evaluate, s.Keys, nil
	p.check(i, e, s.Plan == "" || i.plan != nil, "plan %s was not recorded before", s.Plan)
	for _, t := range s.Tasks {
		i.tasks = append(i.tasks, task{path: t.Path, kind: t.Kind, status: statusOf(t.Status), phase: phaseOf(t.Phase), act: t.Act, attempt: t.Attempt,
			due: max(t.Due, t.Tick), ran: t.Ran, choice: t.Choice, choices: t.Choices, collect: t.Collect, over: t.Over, message: len(t.Message) > 0 && string(t.Message) != "null"})
		i.loose = i.loose || t.Over
	}
	if i.status == running {
		p.awaitStop(i, e, s.Definition)
	}
	i.stopping, i.flowEnded, i.jumps = s.Stopping, s.FlowEnded, map[string]int{}
	for _, j := range s.Jumps {
		i.jumps[j.Path] = j.Count
	}
	for _, x := range s.Items {
		if t := i.task(x.Path); t != nil {
			t.items = make([]status, len(x.States))
			for k, c := range []byte(x.States) {
				t.items[k] = map[byte]status{'E': running, 'C': completed, 'F': failed, 'S': skipped, 'T': stopped}[c]
			}
		}
	}
}

func statusOf(name string) status {
	switch name {
	case "EXECUTING", "SUBMITTED":
		return running
	case "COMPLETED":
		return completed
	case "SKIPPED":
		return skipped
	case "FAILURE":
		return failed
	case "STOPPED":
		return stopped
	}
	return none
}

func phaseOf(name string) phase {
	switch name {
	case "waiting":
		return waiting
	case "retrying":
		return retrying
	case "inside":
		return inside
	}
	return works
}
