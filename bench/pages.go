package main

import (
	"context"
	"time"

	"github.com/godagger/dagger/workflow"
)

// listedPages is how many pages of a list are timed: ten lie above the p99. Tests time fewer.
var listedPages = 1000

const (
	pageSize = 100
	// skippedAtOnce is the size of the pages between those that are timed.
	skippedAtOnce = 1000
)

// pages times pages of 100 of a list of n instances. They are spread over all of it: what lies
// between two of them is read too, and not timed. A shorter list is read again and again.
func pages(ctx context.Context, e *workflow.Engine, f workflow.Filter, n int) (latency, error) {
	var took []time.Duration
	for len(took) < listedPages {
		begin := time.Now()
		if err := turnPage(ctx, e, &f, pageSize); err != nil {
			return latency{}, err
		}
		took = append(took, time.Since(begin))
		for skip := n/listedPages - pageSize; skip > 0 && f.Cursor != ""; skip -= skippedAtOnce {
			if err := turnPage(ctx, e, &f, min(skip, skippedAtOnce)); err != nil {
				return latency{}, err
			}
		}
	}
	return distribution(took), nil
}

// turnPage reads a page and moves the cursor behind it.
func turnPage(ctx context.Context, e *workflow.Engine, f *workflow.Filter, size int) error {
	f.Limit = size
	page, err := e.List(ctx, *f)
	f.Cursor = page.Cursor
	return err
}

// listed is how long a page of 100 of those that wait takes, by what chooses them.
type listed struct {
	All        latency `json:"all"`
	Status     latency `json:"status"`
	Definition latency `json:"definition"` // and status
	Prefix     latency `json:"prefix"`     // of the id, which one in nine has
}

// lists times each kind of list.
func lists(ctx context.Context, e *workflow.Engine, definition, prefix string, n int) (l listed, err error) {
	for _, x := range []struct {
		took *latency
		f    workflow.Filter
		n    int
	}{
		{&l.All, workflow.Filter{}, n},
		{&l.Status, workflow.Filter{Status: workflow.Executing}, n},
		{&l.Definition, workflow.Filter{Definition: definition, Status: workflow.Executing}, n},
		{&l.Prefix, workflow.Filter{IDPrefix: prefix}, n / 9},
	} {
		if *x.took, err = pages(ctx, e, x.f, x.n); err != nil {
			return l, err
		}
	}
	return l, nil
}
