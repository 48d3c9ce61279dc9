package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

// ErrUnknownDefinition: <app>.definitions has nothing under the name.
var ErrUnknownDefinition = errors.New("engine: no such definition")

// ReadDefinition reads the plan of a definition from <app>.definitions: of "name" the highest
// version, of "name@hash" that very one. ErrUnknownDefinition says which there are.
func ReadDefinition(ctx context.Context, log eventlog.Log, name string) (found *machine.Plan, err error) {
	var names []string
	err = readDefinitions(ctx, log, func(key string, d *definition) {
		names = append(names, key)
		if name != d.Name && name != key {
			return
		}
		if p, err := machine.DecodePlan(d.Plan); err == nil && (found == nil || p.Version >= found.Version) {
			found = p
		}
	})
	switch {
	case err != nil:
		return nil, err
	case len(names) == 0:
		return nil, fmt.Errorf("%w: nothing was registered", ErrUnknownDefinition)
	case found == nil:
		return nil, fmt.Errorf("%w; there are %s", ErrUnknownDefinition, strings.Join(names, ", "))
	}
	return found, nil
}

// ReadVersions are the version numbers of all definitions that were registered, by the hashes of
// their plans.
func ReadVersions(ctx context.Context, log eventlog.Log) (map[string]int, error) {
	versions := map[string]int{}
	err := readDefinitions(ctx, log, func(_ string, d *definition) {
		if p, err := machine.DecodePlan(d.Plan); err == nil {
			versions[p.Hash()] = p.Version
		}
	})
	return versions, err
}

// readDefinitions gives f what stands in <app>.definitions, but for what can't be read.
func readDefinitions(ctx context.Context, log eventlog.Log, f func(key string, d *definition)) error {
	topic, err := log.Topic(ctx, eventlog.DefinitionsTopic(log.App()))
	if err != nil {
		return fmt.Errorf("describe the definitions topic: %w", err)
	}
	next, end := topic.Partitions[0].Start, topic.Partitions[0].End
	if next >= end {
		return nil
	}
	reader, err := log.Read(ctx, topic.Name, 0, next, "", eventlog.ReadCommitted)
	if err != nil {
		return fmt.Errorf("read definitions: %w", err)
	}
	defer reader.Close()
	for next < end {
		var records []eventlog.Record
		if records, next, err = reader.Next(ctx); err != nil {
			return fmt.Errorf("read definitions: %w", err)
		}
		for _, r := range records {
			d := definition{}
			if len(r.Value) > 0 && json.Unmarshal(r.Value, &d) == nil && len(d.Plan) > 0 {
				f(string(r.Key), &d)
			}
		}
	}
	return nil
}
