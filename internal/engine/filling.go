package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/godagger/dagger/eventlog"
)

// ErrUnfinished: a copy or an import into the log is under way or was cut off. The same one,
// begun again, goes on with it.
var ErrUnfinished = errors.New("engine: the log was filled only in part")

// Keys of the records of <app>.definitions which say that the log was filled from elsewhere.
// Each is written once: with the first and without the second the log is not whole, and an
// engine that worked on it would take instances for missing that the source still has.
const (
	fillBegun = "fill/begun"
	fillEnded = "fill/ended"
)

// filled is the value of both.
type filled struct {
	V      int    `json:"v"`
	From   string `json:"from"`
	Source string `json:"source,omitempty"` // tells one source from another
	At     int64  `json:"at,omitempty"`     // ms; when it was begun
}

// fillFrom marks an empty log while f fills it; or, when an earlier attempt with the same
// source was cut off, has f go on, with what that attempt has recorded (nil: it is the first). Nobody else fills the
// log meanwhile (ErrNotQuiet). ErrNotEmpty: it has other records.
func fillFrom(ctx context.Context, log eventlog.Log, with filled, f func(earlier *filled) error) error {
	with.V = 1
	return resting(ctx, log, log.App()+".fill", eventlog.EventsTopic(log.App()), func(eventlog.Member, int) error {
		earlier, err := fillable(ctx, log, with)
		if earlier != nil {
			with = *earlier
		} else if err == nil {
			err = mark(ctx, log, fillBegun, with)
		}
		if err == nil {
			err = f(earlier)
		}
		if err != nil {
			return err
		}
		return mark(ctx, log, fillEnded, with)
	})
}

func mark(ctx context.Context, log eventlog.Log, key string, with filled) error {
	value, err := json.Marshal(with)
	if err != nil {
		return fmt.Errorf("encode where the log comes from: %w", err)
	}
	if err := log.Publish(ctx, eventlog.Record{Topic: eventlog.DefinitionsTopic(log.App()), Key: []byte(key), Value: value}); err != nil {
		return fmt.Errorf("record where the log comes from: %w", err)
	}
	return nil
}

// fillable refuses a log that is neither empty nor what an attempt with the same source has
// left, which it returns.
func fillable(ctx context.Context, log eventlog.Log, with filled) (*filled, error) {
	filling, err := readFilling(ctx, log)
	switch {
	case err != nil:
		return nil, err
	case filling.begun == nil:
		return nil, empty(ctx, log)
	case filling.ended:
		return nil, filling.whollyFrom(log)
	case filling.begun.Source != with.Source:
		return nil, fmt.Errorf("%w: a copy or an import from %s into %s was cut off, and this is another one", ErrNotEmpty, filling.begun.From, log.URL())
	}
	return filling.begun, nil
}

// importable refuses a log that surely is not fillable, before much is read.
func importable(ctx context.Context, log eventlog.Log) error {
	filling, err := readFilling(ctx, log)
	switch {
	case err != nil:
		return err
	case filling.begun == nil:
		return empty(ctx, log)
	case filling.ended:
		return filling.whollyFrom(log)
	}
	return nil
}

// whollyFrom refuses a log that a copy or an import has filled to its end.
func (f filling) whollyFrom(log eventlog.Log) error {
	return fmt.Errorf("%w: the copy or import from %s into %s has ended, and an engine may start on it", ErrNotEmpty, f.begun.From, log.URL())
}

func readFilling(ctx context.Context, log eventlog.Log) (filling filling, err error) {
	t, err := log.Topic(ctx, eventlog.DefinitionsTopic(log.App()))
	if err != nil {
		return filling, fmt.Errorf("describe the definitions topic: %w", err)
	}
	err = all(ctx, log, t, 0, t.Partitions[0].Start, eventlog.ReadCommitted, func(records []eventlog.Record, _ int64) error {
		for k := range records {
			filling.take(&records[k])
		}
		return nil
	})
	return filling, err
}

// filling is what the records of <app>.definitions say of a log that is filled.
type filling struct {
	begun *filled
	ended bool
}

// take says whether a record is one of the two.
func (f *filling) take(r *eventlog.Record) bool {
	switch string(r.Key) {
	case fillBegun:
		x := &filled{}
		if f.begun == nil && json.Unmarshal(r.Value, x) == nil {
			f.begun = x
		}
	case fillEnded:
		f.ended = true
	default:
		return false
	}
	return true
}

// whole refuses a log that was filled only in part.
func (f filling) whole(log eventlog.Log) error {
	if f.begun != nil && !f.ended {
		return fmt.Errorf("%w: a copy or an import from %s into %s is under way or was cut off; begin the same one again, and it goes on; or throw the log away", ErrUnfinished, f.begun.From, log.URL())
	}
	return nil
}
