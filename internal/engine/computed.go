package engine

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// Keys computes values of nodes from encoded parameters. scope is "" for the nodes whose
// handlers have the instance's parameters, else the plan's path of a ForEach and "[]" for
// those whose handlers have its items' parameters. Values have the plan's paths.
type Keys func(scope string, params json.RawMessage) ([]eventlog.TaskKey, error)

// at gives the values of a scope the paths that they have in an instance; scope is "", or the
// instance's path of an item.
func (k Keys) at(scope string, params json.RawMessage) ([]eventlog.TaskKey, error) {
	of := machine.Pattern(scope)
	keys, err := k(of, params)
	if err != nil {
		return nil, err
	}
	for n := range keys {
		if len(keys[n].Value) > eventlog.MaxID {
			return nil, fmt.Errorf("the key of %s has %d bytes, at most %d are allowed", keys[n].Path, len(keys[n].Value), eventlog.MaxID)
		}
		if of != scope {
			keys[n].Path = scope + keys[n].Path[len(of):]
		}
	}
	return keys, nil
}

// all computes the values of an instance and of the items that it works on.
func (k Keys) all(params json.RawMessage, items []machine.Items) ([]eventlog.TaskKey, error) {
	keys, err := k.at("", params)
	if err != nil {
		return nil, err
	}
	for _, x := range items {
		more, err := k.items(x.Path, x.Values, x.Ended)
		if err != nil {
			return nil, err
		}
		keys = append(keys, more...)
	}
	return keys, nil
}

// items computes the values of the items of a ForEach, but those that have ended.
func (k Keys) items(path string, values []json.RawMessage, ended func(int) bool) (keys []eventlog.TaskKey, err error) {
	for n, value := range values {
		if ended != nil && ended(n) {
			continue
		}
		more, err := k.at(path+"["+strconv.Itoa(n)+"]", value)
		if err != nil {
			return nil, err
		}
		keys = append(keys, more...)
	}
	return keys, nil
}

// computed are the values after a handler's outcome: those of its own parameters and, of a
// ForEach, of the items that it gave.
func (k Keys) computed(j job, out Outcome) ([]eventlog.TaskKey, error) {
	params := json.RawMessage(j.params)
	if len(out.Patch) > 0 {
		params = machine.MergePatch(params, out.Patch)
	}
	keys, err := k.at(j.scope, params)
	if err != nil || len(out.Items) == 0 {
		return keys, err
	}
	more, err := k.items(j.key.work.Path, out.Items, nil)
	return append(keys, more...), err
}
