package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/godagger/dagger/eventlog"
)

// ErrUnfinished: a copy or an import into the log was cut off. What it left must be thrown away.
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
	V    int    `json:"v"`
	From string `json:"from"`
}

// fillFrom marks an empty log while f fills it.
func fillFrom(ctx context.Context, log eventlog.Log, from string, f func() error) error {
	mark := func(key string) error {
		value, err := json.Marshal(filled{V: 1, From: from})
		if err != nil {
			return fmt.Errorf("encode where the log comes from: %w", err)
		}
		if err := log.Publish(ctx, eventlog.Record{Topic: eventlog.DefinitionsTopic(log.App()), Key: []byte(key), Value: value}); err != nil {
			return fmt.Errorf("record where the log comes from: %w", err)
		}
		return nil
	}
	if err := mark(fillBegun); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	return mark(fillEnded)
}

// filling is what the records of <app>.definitions say of a log that is filled.
type filling struct{ begun, ended bool }

// take says whether a record is one of the two.
func (f *filling) take(r *eventlog.Record) bool {
	switch string(r.Key) {
	case fillBegun:
		f.begun = true
	case fillEnded:
		f.ended = true
	default:
		return false
	}
	return true
}

// whole refuses a log that was filled only in part.
func (f filling) whole(log eventlog.Log) error {
	if f.begun && !f.ended {
		return fmt.Errorf("%w: a copy or an import into %s is under way or was cut off; throw the log away and begin again with an empty one", ErrUnfinished, log.URL())
	}
	return nil
}
