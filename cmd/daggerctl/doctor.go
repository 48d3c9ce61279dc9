package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/godagger/dagger/eventlog"
)

func doctorCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "say what is wrong with log and store, what is slow and what would lose data", Args: noArgs,
		Long: "doctor looks at the log (its brokers and topics, or its directory) and at the store, and changes neither. Each thing it looked at has a level:\n\n" +
			"  ok       as it should be\n" +
			"  unknown  it could not be looked at\n" +
			"  slow     it costs time\n" +
			"  risk     one more failure, or a mistake, would lose data\n" +
			"  wrong    it does not work, or loses data\n\n" +
			"The exit status is 1 with a risk or a wrong.",
		RunE: func(c *cobra.Command, _ []string) error { return doctor(c.Context(), e) },
	}
}

// finding is a finding and what it is about: log or store.
type finding struct {
	Of string `json:"of"`
	eventlog.Finding
}

// examined is the result as JSON.
type examined struct {
	Log      string         `json:"log"`
	Store    string         `json:"store,omitempty"`
	Worst    eventlog.Level `json:"worst"`
	Findings []finding      `json:"findings"`
}

func (x *examined) add(of string, level eventlog.Level, subject, text, do string) {
	x.Findings = append(x.Findings, finding{of, eventlog.Finding{Level: level, Subject: subject, Text: text, Do: do}})
}

// levels from the best to the worst.
var levels = []eventlog.Level{eventlog.LevelOK, eventlog.LevelUnknown, eventlog.LevelSlow, eventlog.LevelRisk, eventlog.LevelWrong}

func (x *examined) worst() eventlog.Level {
	at := 0
	for _, f := range x.Findings {
		at = max(at, slices.Index(levels, f.Level))
	}
	return levels[at]
}

// doctor looks at the log and, where that is not wrong, at the store.
func doctor(ctx context.Context, e *env) error {
	raw, store, err := e.urls()
	if err != nil {
		return err
	}
	if scheme, _, _ := strings.Cut(raw, ":"); !slices.Contains(eventlog.Schemes(), scheme) {
		return failure(statusUsage, "--log: the scheme is one of %s", strings.Join(eventlog.Schemes(), ", "))
	}
	if err := exists("log", "file:", raw); err != nil {
		return err
	}
	found, err := eventlog.Check(ctx, raw)
	if err != nil {
		return unreachable(err)
	}
	x := &examined{Log: eventlog.Redacted(raw), Store: eventlog.Redacted(store), Findings: []finding{}}
	for _, f := range found {
		x.Findings = append(x.Findings, finding{"log", f})
	}
	var away error
	switch {
	case store == "":
	case x.worst() == eventlog.LevelWrong:
		x.add("store", eventlog.LevelUnknown, "store", "it was not looked at, for the log is wrong", "")
	default:
		if away, err = x.store(ctx, e); err != nil {
			return err
		}
	}
	x.Worst = x.worst()
	if err := e.printExamined(x); err != nil {
		return err
	}
	if away != nil {
		return &statusError{statusUnreachable, away}
	}
	if x.Worst.Bad() {
		bad := 0
		for _, f := range x.Findings {
			if f.Level.Bad() {
				bad++
			}
		}
		if bad == 1 {
			return failure(statusFailed, "one finding is wrong or would lose data")
		}
		return failure(statusFailed, "%d findings are wrong or would lose data", bad)
	}
	return nil
}

func (e *env) printExamined(x *examined) error {
	switch e.output {
	case "json":
		return e.print(x)
	case "jsonl":
		for _, f := range x.Findings {
			if err := e.print(f); err != nil {
				return err
			}
		}
		return nil
	}
	t := e.table("LEVEL", "OF", "WHAT", "HOW IT IS", "WHAT TO DO")
	for _, f := range x.Findings {
		t.row(string(f.Level), f.Of, f.Subject, f.Text, f.Do)
	}
	if err := t.end(); err != nil {
		return err
	}
	if x.Worst == eventlog.LevelOK {
		_, err := fmt.Fprintln(e.stdout, "all is well")
		if err != nil {
			return fmt.Errorf("write result: %w", err)
		}
	}
	return nil
}
