package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/engine"
	"github.com/godagger/dagger/projection"
)

func TestStatusOf(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	late, cancelLate := context.WithTimeoutCause(t.Context(), 0, fmt.Errorf("%w after 0s", errTimeout))
	defer cancelLate()
	<-late.Done()
	for _, c := range []struct {
		ctx  context.Context
		err  error
		want int
	}{
		{t.Context(), nil, statusDone},
		{t.Context(), errors.New("x"), statusFailed},
		{t.Context(), fmt.Errorf("x: %w", failure(statusRefused, "y")), statusRefused},
		{t.Context(), fmt.Errorf("x: %w", engine.ErrNotFound), statusNotFound},
		{t.Context(), fmt.Errorf("x: %w", eventlog.ErrInUse), statusUnreachable},
		{t.Context(), fmt.Errorf("x: %w", projection.ErrInUse), statusUnreachable},
		{t.Context(), unreachable(errors.New("connection refused")), statusUnreachable},
		{t.Context(), unreachable(fmt.Errorf("x: %w", projection.ErrForeign)), statusFailed},
		{t.Context(), engine.ErrCursor, statusUsage},
		{gone, errors.New("x"), statusInterrupted},
		{late, errors.New("x"), statusTimedOut},
	} {
		if have := statusOf(c.ctx, c.err); have != c.want {
			t.Errorf("%v: %d, want %d", c.err, have, c.want)
		}
	}
}

func TestInterrupted(t *testing.T) {
	t.Chdir(t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	status := run(ctx, []string{"tail", "--log", "mem:"}, &out, &errs, func(string) string { return "" })
	if status != statusInterrupted || errs.String() != "daggerctl: interrupted\n" {
		t.Errorf("status %d, %q", status, errs.String())
	}
}

func TestPlainProgress(t *testing.T) {
	var errs bytes.Buffer
	now := time.Unix(100, 0)
	e := &env{progress: "auto", stderr: &errs, getenv: func(string) string { return "" }, now: func() time.Time { return now }}
	p := e.newProgress("verify", 200)
	p.set(0, 50)
	now = now.Add(plainEvery)
	p.set(1, 50)
	p.set(1, 60)
	p.end()
	if want := "verify: 100 of 200 records (50%), 20 a second, about 5s left\n"; errs.String() != want {
		t.Errorf("have %q, want %q", errs.String(), want)
	}
}

func TestBarProgress(t *testing.T) {
	var errs bytes.Buffer
	e := &env{progress: "bar", stderr: &errs, getenv: func(string) string { return "" }, now: time.Now}
	p := e.newProgress("rebuild", 200)
	p.set(0, 200)
	p.end()
	if !strings.Contains(errs.String(), "rebuild") {
		t.Errorf("have %q", errs.String())
	}
}

func TestTimes(t *testing.T) {
	now := time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)
	e := &env{now: func() time.Time { return now }}
	for d, want := range map[time.Duration]string{
		20 * time.Millisecond: "20ms ago", 90 * time.Second: "90s ago", 5 * time.Minute: "5m ago", 3 * time.Hour: "3h ago", 100 * time.Hour: "4d ago", -time.Minute: "in 60s",
	} {
		if have := e.time(now.Add(-d)); have != want {
			t.Errorf("%v: %q, want %q", d, have, want)
		}
	}
	e.iso = true
	if have := e.time(now); have != "2025-03-01T12:00:00.000Z" {
		t.Error(have)
	}
	if have := e.time(time.Time{}); have != "" {
		t.Error(have)
	}
	if have := clean("a\tb\x1b[31m"); have != "a b [31m" {
		t.Errorf("%q", have)
	}
}
