package engine

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestAbsenceIsToldOnce: a log or store that does not answer is told of within half a minute, also
// without traffic, once; partitions are not ready meanwhile, and its return is told once.
func TestAbsenceIsToldOnce(t *testing.T) {
	for name, away := range map[string]func(ctx context.Context) error{
		"refuses": func(context.Context) error { return errors.New("connection refused") },
		"hangs": func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var said bytes.Buffer
				e := &Engine{logger: slog.New(slog.NewTextHandler(&said, nil))}
				var ask atomic.Pointer[func(context.Context) error]
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan struct{})
				go func() {
					defer close(done)
					e.look(ctx, "store", "redis://host:1/0", func(ctx context.Context) error {
						if f := ask.Load(); f != nil {
							return (*f)(ctx)
						}
						return nil
					})
				}()
				status := func() PartitionStatus {
					synctest.Wait()
					s := PartitionStatus{Ready: true}
					e.absence.tell(&s)
					return s
				}
				time.Sleep(5 * time.Minute)
				if s := status(); !s.Ready || said.Len() > 0 {
					t.Fatalf("it answers: %+v, %s", s, said.String())
				}
				ask.Store(&away)
				time.Sleep(30 * time.Second)
				if s := status(); s.Ready || !strings.Contains(s.Err, "the store does not answer: ") {
					t.Errorf("it does not answer: %+v", s)
				}
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				if n := strings.Count(said.String(), "level=WARN"); n != 1 || !strings.Contains(said.String(), "redis://host:1/0") {
					t.Errorf("%d warnings: %s", n, said.String())
				}
				ask.Store(nil)
				time.Sleep(30 * time.Second)
				if s := status(); !s.Ready {
					t.Errorf("it answers again: %+v", s)
				}
				if n := strings.Count(said.String(), "level=INFO"); n != 1 || strings.Count(said.String(), "\n") != 2 {
					t.Errorf("%d times it answers again: %s", n, said.String())
				}
				ask.Store(&away)
				time.Sleep(30 * time.Second)
				cancel()
				<-done
				if s := status(); !s.Ready {
					t.Errorf("when it has ended: %+v", s)
				}
			})
		})
	}
}
