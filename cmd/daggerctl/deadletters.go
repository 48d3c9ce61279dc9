package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/godagger/dagger/eventlog"
)

func deadLettersCommand(e *env) *cobra.Command {
	limit := 100
	c := &cobra.Command{
		Use: "deadletters", Short: "list the messages and requests that nobody could take, and why", Args: noArgs,
		Long: "deadletters prints what is in <app>.deadletter, the newest last: messages that can't be read or found nobody in their time, and requests that were refused " +
			"without anybody who waits for the answer. With -o json or jsonl they are whole: value is JSON where the record's is, else it is in bytes.",
		Example: "  daggerctl deadletters\n  daggerctl deadletters -o jsonl | jq 'select(.instance == \"order-42\")'",
		RunE:    func(c *cobra.Command, _ []string) error { return deadLetters(c.Context(), e, limit) },
	}
	c.Flags().IntVar(&limit, "limit", limit, "print the newest `N`; 0: all")
	return c
}

// deadLetter is a dead letter as JSON; docs/event-log.md has its headers.
type deadLetter struct {
	Offset   int64             `json:"offset"` // in <app>.deadletter
	At       time.Time         `json:"at"`
	Reason   string            `json:"reason"`
	From     string            `json:"from,omitempty"` // TOPIC/PARTITION@OFFSET of the original
	Instance string            `json:"instance,omitempty"`
	Key      []byte            `json:"key,omitempty"`
	Value    json.RawMessage   `json:"value,omitempty"`
	Bytes    []byte            `json:"bytes,omitempty"`
	Headers  map[string]string `json:"headers,omitempty"` // those of the original too
}

func newDeadLetter(r *eventlog.Record) deadLetter {
	d := deadLetter{Offset: r.Offset, At: r.Time.UTC(), Key: r.Key, Headers: map[string]string{}}
	if json.Valid(r.Value) {
		d.Value = r.Value
	} else {
		d.Bytes = r.Value
	}
	for _, h := range r.Headers {
		d.Headers[h.Key] = string(h.Value)
	}
	take := func(name string) string {
		v := d.Headers[name]
		delete(d.Headers, name)
		return v
	}
	d.Reason, d.Instance = take("dagger-reason"), take("dagger-instance")
	if topic := take("dagger-topic"); topic != "" {
		d.From = topic
		if p, o := take("dagger-partition"), take("dagger-offset"); o != "" {
			d.From += "/" + p + "@" + o
		}
	}
	return d
}

// deadLetters prints the newest dead letters.
func deadLetters(ctx context.Context, e *env, limit int) (err error) {
	if limit < 0 {
		return failure(statusUsage, "--limit must be at least 0")
	}
	log, err := e.openLog(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	topic, err := log.Topic(ctx, eventlog.DeadLetterTopic(log.App()))
	if err != nil {
		return fmt.Errorf("describe the dead letters: %w", err)
	}
	found := []deadLetter{}
	for k, p := range topic.Partitions {
		if err := follow(ctx, log, topic, int32(k), p.Start, p.End, func(r *eventlog.Record) error {
			found = append(found, newDeadLetter(r))
			if limit > 0 && len(found) >= 2*limit { // so much is kept at most
				found = append(found[:0], found[len(found)-limit:]...)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	if limit > 0 {
		found = found[max(0, len(found)-limit):]
	}
	switch e.output {
	case "json":
		return e.print(found)
	case "jsonl":
		for _, d := range found {
			if err := e.print(d); err != nil {
				return err
			}
		}
		return nil
	}
	t := e.table("AT", "FROM", "INSTANCE", "REASON", "VALUE")
	for _, d := range found {
		value := string(d.Value)
		if d.Value == nil {
			value = strings.ToValidUTF8(string(d.Bytes), "�")
		}
		t.row(e.time(d.At), d.From, d.Instance, line(d.Reason), line(value))
	}
	return t.end()
}
