package engine

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/machine"
)

var (
	// ErrExport: the file is no export, is cut off, or was written by a newer version.
	ErrExport = errors.New("engine: not a whole export")
	// ErrNotAtRest: something was under way between partitions when the export was made.
	ErrNotAtRest = errors.New("engine: the exported application was not at rest; let its engines run until nothing happens for some seconds, stop them, and export again")
)

// ImportOptions of Import.
type ImportOptions struct {
	Now int64 // ms; the time of the import
}

// Imported is what Import did.
type Imported struct {
	Instances  int64 `json:"instances"`
	Messages   int64 `json:"messages"` // that waited at a key or in an instance
	Events     int64 `json:"events"`   // written
	Read       int64 `json:"read"`     // events of the export
	Partitions int32 `json:"partitions"`
}

// Import brings the instances of an export into a new application, whose count of partitions
// may be another one. It folds the events, and appends for each instance a start and a reset
// to the state that it had: its history before is in the export, not in the new log. Event
// numbers, runs and activations are new; so handlers that ran, or waited for their next
// attempt, start again under new idempotency keys. Messages that waited for somebody go on
// waiting. It holds everything in memory. ErrNotEmpty: the application has events already.
// Cut off, it leaves a log on which no engine starts (ErrUnfinished); the next Import of the same
// export goes on: as of the time of the first one it makes the same events, compares them with
// those that are there, and appends the rest.
func Import(ctx context.Context, log eventlog.Log, r io.Reader, o ImportOptions) (Imported, error) {
	if err := importable(ctx, log); err != nil {
		return Imported{}, err
	}
	sum := sha256.New()
	x, err := readExport(ctx, io.TeeReader(r, sum))
	if err != nil {
		return Imported{}, err
	}
	if err := x.atRest(); err != nil {
		return Imported{}, err
	}
	m := &importer{log: log, source: x, now: max(o.Now, x.last), done: Imported{Read: x.events, Partitions: log.Partitions()}}
	with := filled{From: "an export of " + x.head.App, Source: fmt.Sprintf("sha256:%x", sum.Sum(nil)), At: m.now}
	err = fillFrom(ctx, log, with, func(earlier *filled) error {
		if earlier != nil {
			m.now = earlier.At
		}
		return m.run(ctx)
	})
	return m.done, err
}

// importSource is an application as an export has it, folded.
type importSource struct {
	head        exportHead
	end         exportEnd
	definitions []exportDefinition
	states      map[int32]*machine.State
	told        map[way]eventlog.Mark // the last of it
	last        int64                 // the latest time
	events      int64
}

// way is from one partition to another.
type way struct{ from, to int32 }

// longestLine is that of an export; an event fits into a record.
const longestLine = 64 << 20

func readExport(ctx context.Context, r io.Reader) (*importSource, error) {
	x := &importSource{states: map[int32]*machine.State{}, told: map[way]eventlog.Mark{}}
	scanner := bufio.NewScanner(r)
	scanner.Buffer(make([]byte, 1<<16), longestLine)
	ended := false
	for n := 1; scanner.Scan(); n++ {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if len(bytes.TrimSpace(scanner.Bytes())) == 0 {
			continue
		}
		var l exportLine
		if err := json.Unmarshal(scanner.Bytes(), &l); err != nil || ended {
			return nil, fmt.Errorf("%w: line %d can't be read", ErrExport, n)
		}
		switch {
		case n == 1 && l.Head == nil:
			return nil, fmt.Errorf("%w: it has no head", ErrExport)
		case l.Head != nil:
			if x.head = *l.Head; x.head.V != exportVersion || x.head.Partitions < 1 {
				return nil, fmt.Errorf("%w: version %d, this program reads version %d", ErrExport, x.head.V, exportVersion)
			}
		case l.Definition != nil:
			x.definitions = append(x.definitions, *l.Definition)
		case len(l.Event) > 0:
			if err := x.event(l.Partition, bytes.Clone(l.Event)); err != nil {
				return nil, fmt.Errorf("line %d: %w", n, err)
			}
		case l.End != nil:
			x.end, ended = *l.End, true
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("read export: %w", err)
	}
	if !ended || x.end.Events != x.events {
		return nil, fmt.Errorf("%w: it ends after %d events", ErrExport, x.events)
	}
	return x, nil
}

// event folds an event. Of a single instance the events between are missing.
func (x *importSource) event(p int32, value []byte) error {
	if p < 0 || p >= x.head.Partitions {
		return fmt.Errorf("%w: there is no partition %d", ErrExport, p)
	}
	ev := &eventlog.Event{}
	if err := eventlog.DecodeEvent(value, ev); err != nil {
		return fmt.Errorf("%w: %w", ErrExport, err)
	}
	s := x.states[p]
	if s == nil {
		s = machine.NewState(p, x.head.Partitions)
		x.states[p] = s
	}
	x.events++
	x.last = max(x.last, ev.At)
	for k := range ev.Out {
		x.told[way{p, ev.Out[k].To}] = eventlog.Mark{Pos: int64(ev.N), Index: k}
	}
	if x.head.Scope == ScopeInstance {
		if ev.N <= s.N {
			return fmt.Errorf("%w: event %d follows event %d", ErrExport, ev.N, s.N)
		}
		s.N = ev.N - 1
		ev.Pos = nil
	}
	if _, key, isKey := machine.Touches(ev); isKey && s.Keys[key] == nil {
		s.Keys[key] = &machine.KeyState{}
	}
	s.ForgetChanged()
	if err := s.Evolve(ev); err != nil {
		return fmt.Errorf("%w: %w", ErrExport, err)
	}
	for id, reason := range s.Frozen {
		reason, _, _ = strings.Cut(reason, "\n")
		return fmt.Errorf("instance %q can't be folded by this version: %s", id, reason)
	}
	return nil
}

// atRest refuses an application of which something was under way.
func (x *importSource) atRest() error {
	if x.head.Scope != ScopeAll {
		return nil
	}
	switch {
	case x.end.InUse:
		return fmt.Errorf("%w (engines may have run)", ErrNotAtRest)
	case x.end.Requests > 0:
		return fmt.Errorf("%w (%d requests were not consumed)", ErrNotAtRest, x.end.Requests)
	}
	for w, mark := range x.told {
		to := x.states[w.to]
		if to == nil || to.Sources[eventlog.Source{Partition: w.from}].Compare(mark) < 0 {
			return fmt.Errorf("%w (what event %d of partition %d tells partition %d had not arrived)", ErrNotAtRest, mark.Pos, w.from, w.to)
		}
	}
	for _, s := range x.states {
		if msg, ok := s.FanOut(); ok {
			return fmt.Errorf("%w (message %d was not given to all who wait for it)", ErrNotAtRest, msg)
		}
	}
	return nil
}

// instances are those that are imported, oldest first.
func (x *importSource) instances() []*machine.Instance {
	var l []*machine.Instance
	for _, s := range x.states {
		for id, i := range s.Instances {
			if i == nil || i.Run == 0 || x.head.ID != "" && id != x.head.ID {
				continue
			}
			l = append(l, i)
		}
	}
	slices.SortFunc(l, func(a, b *machine.Instance) int {
		return cmp.Or(cmp.Compare(a.Created, b.Created), strings.Compare(a.ID, b.ID))
	})
	return l
}

// Current and Plan make an importSource the registry of the import.
func (x *importSource) Current(string) *machine.Plan { return nil }

func (x *importSource) Plan(hash string) *machine.Plan {
	for _, s := range x.states {
		if p := s.Plans[hash]; p != nil {
			return p
		}
	}
	return nil
}

// waiting is a message that waits in instances, or with none for somebody.
type waiting struct {
	key     eventlog.KeyRef
	message *eventlog.Message
	expires int64
	sole    bool
	ids     []string
}

// messages are those that wait: in instances (buffered, or held in a quarantine) first, then
// at keys.
func (x *importSource) messages(instances []*machine.Instance) []waiting {
	var l []waiting
	at := map[string]int{}
	add := func(w waiting, id string) {
		name := fmt.Sprintf("%q %s/%d/%d", w.key, w.message.TopicID, w.message.Partition, w.message.Offset)
		k, known := at[name]
		if !known {
			k = len(l)
			at[name], l = k, append(l, w)
		}
		l[k].ids = append(l[k].ids, id)
	}
	for _, i := range instances {
		for _, b := range i.Buffer {
			if b.Message != nil {
				add(waiting{key: b.KeyRef, message: b.Message, expires: b.Expires, sole: b.Sole}, i.ID)
			}
		}
		for _, h := range i.Held {
			if h.Type == eventlog.DeliverTo && h.Message != nil {
				add(waiting{key: eventlog.KeyRef{Topic: h.Topic, Key: h.Key, Value: h.Value}, message: h.Message, expires: h.Expires, sole: h.Sole}, i.ID)
			}
		}
	}
	if x.head.Scope == ScopeInstance {
		return l
	}
	for p := range x.head.Partitions {
		s := x.states[p]
		if s == nil {
			continue
		}
		var kept []waiting
		var order []uint64
		for key, k := range s.Keys {
			for _, m := range k.Kept {
				kept, order = append(kept, waiting{key: key, message: m.Message, expires: m.Expires}), append(order, m.Msg)
			}
		}
		index := make([]int, len(kept))
		for k := range index {
			index[k] = k
		}
		slices.SortFunc(index, func(a, b int) int { return cmp.Compare(order[a], order[b]) })
		for _, k := range index {
			l = append(l, kept[k])
		}
	}
	return l
}

// relays are the messages of users' topics that count already: all before what the relays
// read next.
func (x *importSource) relays() []eventlog.SourceMark {
	var l []eventlog.SourceMark
	for _, r := range x.end.Relays {
		for p, next := range r.Offsets {
			if next > 0 {
				l = append(l, eventlog.SourceMark{Source: eventlog.Source{TopicID: r.TopicID, Partition: int32(p), Key: r.Key},
					Mark: eventlog.Mark{Pos: next - 1, Index: math.MaxInt32}})
			}
		}
	}
	return l
}
