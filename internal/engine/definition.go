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
func ReadDefinition(ctx context.Context, log eventlog.Log, name string) (*machine.Plan, error) {
	topic, err := log.Topic(ctx, eventlog.DefinitionsTopic(log.App()))
	if err != nil {
		return nil, fmt.Errorf("describe the definitions topic: %w", err)
	}
	next, end := topic.Partitions[0].Start, topic.Partitions[0].End
	if next >= end {
		return nil, fmt.Errorf("%w: nothing was registered", ErrUnknownDefinition)
	}
	reader, err := log.Read(ctx, topic.Name, 0, next, "", eventlog.ReadCommitted)
	if err != nil {
		return nil, fmt.Errorf("read definitions: %w", err)
	}
	defer reader.Close()
	var found *machine.Plan
	var names []string
	for next < end {
		var records []eventlog.Record
		if records, next, err = reader.Next(ctx); err != nil {
			return nil, fmt.Errorf("read definitions: %w", err)
		}
		for _, r := range records {
			d := definition{}
			if len(r.Value) == 0 || json.Unmarshal(r.Value, &d) != nil || len(d.Plan) == 0 {
				continue
			}
			names = append(names, string(r.Key))
			p, err := machine.DecodePlan(d.Plan)
			if err != nil || name != d.Name && name != string(r.Key) {
				continue
			}
			if found == nil || p.Version >= found.Version {
				found = p
			}
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%w; there are %s", ErrUnknownDefinition, strings.Join(names, ", "))
	}
	return found, nil
}
