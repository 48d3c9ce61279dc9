package engine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/projection"
)

// Scopes of an export.
const (
	ScopeInstance  = "instance"
	ScopePartition = "partition"
	ScopeAll       = "all"
)

// exportVersion is that of the format: JSON lines. The first is a head, the last an end; between
// them stand definitions, and events in the order of their partition.
const exportVersion = 1

// exportLine is a line of an export; one of its members is set.
type exportLine struct {
	Head       *exportHead       `json:"head,omitempty"`
	Definition *exportDefinition `json:"definition,omitempty"`
	Event      json.RawMessage   `json:"event,omitempty"`
	Partition  int32             `json:"partition,omitempty"` // of the event
	Offset     int64             `json:"offset,omitempty"`    // of the event
	End        *exportEnd        `json:"end,omitempty"`
}

type exportHead struct {
	V          int       `json:"v"`
	App        string    `json:"app"`
	Partitions int32     `json:"partitions"`
	Scope      string    `json:"scope"`
	ID         string    `json:"id,omitempty"`
	Partition  int32     `json:"partition,omitempty"` // of scope partition
	At         time.Time `json:"at"`
}

type exportDefinition struct {
	Key   string          `json:"key"`
	Value json.RawMessage `json:"value"`
}

// exportEnd shows that the file is whole, and whether the application was at rest.
type exportEnd struct {
	Events int64 `json:"events"`
	// Requests that were not consumed.
	Requests int64 `json:"requests,omitempty"`
	// Relays are what relays read next; of scope all, when no engine ran.
	Relays []exportRelay `json:"relays,omitempty"`
	InUse  bool          `json:"inUse,omitempty"` // engines may have run
}

type exportRelay struct {
	Topic   string  `json:"topic"`
	TopicID string  `json:"topicId"`
	Key     string  `json:"key"`
	Offsets []int64 `json:"offsets"`
}

// ExportOptions of Export. The zero value exports everything.
type ExportOptions struct {
	ID        string           // one instance
	Partition *int32           // one partition
	Store     projection.Store // says where the events of the instance are; may be nil
	// AtRest says that no engine runs (ErrNotQuiet if one does); only then can everything be
	// imported. It joins the engines' consumer groups for a moment.
	AtRest   bool
	Progress func(partition int32, done, _ int64) // offsets; may be nil
}

// Exported is what Export wrote.
type Exported struct {
	Events int64
}

// Export writes events as JSON lines, as they stand in the log now: of one instance those that
// are about it and those that record plans. Import reads them. ErrNotFound: there is no such
// instance.
func Export(ctx context.Context, log eventlog.Log, w io.Writer, o ExportOptions) (Exported, error) {
	b := bufio.NewWriter(w)
	x := &exporter{log: log, enc: json.NewEncoder(b), o: o, positions: map[int32]copiedPartition{}}
	x.enc.SetEscapeHTML(false)
	err := x.run(ctx)
	if err == nil {
		if err = b.Flush(); err != nil {
			err = fmt.Errorf("write: %w", err)
		}
	}
	return Exported{x.events}, err
}

type exporter struct {
	log       eventlog.Log
	enc       *json.Encoder
	o         ExportOptions
	events    int64
	positions map[int32]copiedPartition
}

func (x *exporter) line(l exportLine) error {
	if err := x.enc.Encode(l); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

func (x *exporter) run(ctx context.Context) error {
	head := &exportHead{V: exportVersion, App: x.log.App(), Partitions: x.log.Partitions(), Scope: ScopeAll, At: time.Now().UTC()}
	switch {
	case x.o.ID != "":
		head.Scope, head.ID = ScopeInstance, x.o.ID
		return x.instance(ctx, head)
	case x.o.Partition != nil:
		head.Scope, head.Partition = ScopePartition, *x.o.Partition
		if err := x.line(exportLine{Head: head}); err != nil {
			return err
		}
		if err := x.partition(ctx, *x.o.Partition); err != nil {
			return err
		}
		return x.line(exportLine{End: &exportEnd{Events: x.events}})
	}
	if err := x.line(exportLine{Head: head}); err != nil {
		return err
	}
	c := &copier{from: x.log, before: map[string]eventlog.Topic{}}
	for _, name := range own(x.log) {
		t, err := x.log.Topic(ctx, name)
		if err != nil {
			return fmt.Errorf("describe topic %s: %w", name, err)
		}
		c.before[name] = t
	}
	if err := c.definitions(ctx); err != nil {
		return err
	}
	for k, d := range c.defs {
		value, err := json.Marshal(d)
		if err != nil {
			return fmt.Errorf("encode definition: %w", err)
		}
		if err := x.line(exportLine{Definition: &exportDefinition{c.defKeys[k], value}}); err != nil {
			return err
		}
	}
	for p := range x.log.Partitions() {
		if err := x.partition(ctx, p); err != nil {
			return err
		}
	}
	end := &exportEnd{Events: x.events}
	if end.InUse = !x.o.AtRest; x.o.AtRest {
		if err := x.rest(ctx, c, end); err != nil {
			return err
		}
	}
	return x.line(exportLine{End: end})
}

// instance exports what is about one instance.
func (x *exporter) instance(ctx context.Context, head *exportHead) error {
	if _, _, err := ReadInstanceAt(ctx, x.log, x.o.Store, x.o.ID, Point{}); err != nil {
		return err
	}
	partition := eventlog.PartitionOf(x.o.ID, x.log.Partitions())
	s, err := newFinder(ctx, x.log, partition)
	if err != nil {
		return err
	}
	if err := x.line(exportLine{Head: head}); err != nil {
		return err
	}
	if err := s.search(ctx, x.o.Store, x.o.ID, Point{}, []eventlog.Type{eventlog.PartitionOwned}, func(ev *eventlog.Event, offset int64) error {
		if ev.ID != x.o.ID && ev.Type != eventlog.PlanUsed && ev.Type != eventlog.PartitionOwned {
			return nil
		}
		return x.event(eventlog.AppendEvent(nil, ev), partition, offset)
	}); err != nil {
		return err
	}
	return x.line(exportLine{End: &exportEnd{Events: x.events}})
}

func (x *exporter) event(value []byte, partition int32, offset int64) error {
	x.events++
	return x.line(exportLine{Event: value, Partition: partition, Offset: offset})
}

func (x *exporter) partition(ctx context.Context, p int32) error {
	s, err := newFinder(ctx, x.log, p)
	if err != nil {
		return err
	}
	at := copiedPartition{relays: map[eventlog.Source]eventlog.Mark{}}
	err = s.read(ctx, s.start, func(r *eventlog.Record) (bool, error) {
		ev, err := decodeEvent(r, p)
		if err != nil {
			return false, err
		}
		at.take(ev)
		if x.o.Progress != nil && x.events%1000 == 0 {
			x.o.Progress(p, r.Offset-s.start, s.end-s.start)
		}
		return true, x.event(r.Value, p, r.Offset)
	})
	if err != nil {
		return fmt.Errorf("export partition %d: %w", p, err)
	}
	if x.o.Progress != nil {
		x.o.Progress(p, s.end-s.start, s.end-s.start)
	}
	x.positions[p] = at
	return nil
}

// rest says what was under way.
func (x *exporter) rest(ctx context.Context, c *copier, end *exportEnd) error {
	if err := resting(ctx, x.log, x.log.App()+".owners", eventlog.RequestsTopic(x.log.App()), nil); err != nil {
		return err
	}
	requests := c.before[eventlog.RequestsTopic(x.log.App())]
	for p, t := range requests.Partitions {
		from := t.Start
		if at := x.positions[int32(p)]; at.topicID != "" {
			from = max(from, at.offset)
		}
		if err := all(ctx, x.log, requests, int32(p), from, eventlog.ReadUncommitted, func(records []eventlog.Record, _ int64) error {
			end.Requests += int64(len(records))
			return nil
		}); err != nil {
			return err
		}
	}
	seen := map[[2]string]bool{}
	for _, d := range c.defs {
		for _, s := range d.Starts {
			if k := [2]string{s.Topic, s.Key}; seen[k] {
				continue
			} else {
				seen[k] = true
			}
			t, err := x.log.Topic(ctx, s.Topic)
			if errors.Is(err, eventlog.ErrNoTopic) {
				continue
			}
			if err != nil {
				return fmt.Errorf("describe topic %s: %w", s.Topic, err)
			}
			next, err := c.next(ctx, t, s.Key)
			if err != nil {
				return err
			}
			end.Relays = append(end.Relays, exportRelay{s.Topic, t.ID, s.Key, next})
		}
	}
	return c.unmoved(ctx)
}
