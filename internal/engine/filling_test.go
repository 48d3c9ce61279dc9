package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/audit"
)

// TestFillCutOffAnywhere cuts a copy and an import off at each of their writes: no engine
// starts on what is left, nor is it filled a second time, and a new target gets all.
func TestFillCutOffAnywhere(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	from := newMemLog(t, "first", 4)
	ordersDone(t, from, memStore(t))
	var file bytes.Buffer
	if _, err := Export(ctx, from, &file, ExportOptions{AtRest: true}); err != nil {
		t.Fatal(err)
	}
	for name, into := range map[string]func(eventlog.Log) error{
		"copy": func(to eventlog.Log) error {
			_, err := CopyLog(ctx, from, to, CopyOptions{})
			return err
		},
		"import": func(to eventlog.Log) error {
			_, err := Import(ctx, to, bytes.NewReader(file.Bytes()), ImportOptions{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			for writes := 0; ; writes++ {
				to := newMemLog(t, fmt.Sprintf("cut-%d", writes), 4)
				err := into(&cutLog{Log: to, left: writes})
				if err == nil {
					if r, err := audit.Log(ctx, to, audit.Options{}); err != nil || r.Violations > 0 || writes < 4 {
						t.Errorf("whole after %d writes: %+v, %v", writes, r, err)
					}
					return
				}
				if !errors.Is(err, errCut) {
					t.Fatal(err)
				}
				_, opened := New(ctx, Config{Log: to, Store: memStore(t), Logger: slog.New(slog.DiscardHandler)})
				if writes == 0 { // nothing was written
					if again := into(to); opened != nil || again != nil {
						t.Errorf("cut off before the first write: an engine says %v, the next time %v", opened, again)
					}
					continue
				}
				if again := into(to); !errors.Is(opened, ErrUnfinished) || !errors.Is(again, ErrNotEmpty) {
					t.Errorf("cut off after %d writes: an engine says %v, a second time %v", writes, opened, again)
				}
				other := newMemLog(t, "other", 4)
				if _, err := CopyLog(ctx, to, other, CopyOptions{}); !errors.Is(err, ErrUnfinished) {
					t.Errorf("cut off after %d writes, and copied: %v", writes, err)
				}
			}
		})
	}
}

var errCut = errors.New("cut off")

// cutLog is a log to which only so many writes are made.
type cutLog struct {
	eventlog.Log
	left int
}

func (l *cutLog) write() error {
	if l.left--; l.left < 0 {
		return errCut
	}
	return nil
}

func (l *cutLog) Publish(ctx context.Context, records ...eventlog.Record) error {
	if err := l.write(); err != nil {
		return err
	}
	return l.Log.Publish(ctx, records...)
}

func (l *cutLog) Own(ctx context.Context, partition int32) (eventlog.Owner, error) {
	o, err := l.Log.Own(ctx, partition)
	return cutOwner{o, l}, err
}

type cutOwner struct {
	eventlog.Owner
	log *cutLog
}

func (o cutOwner) Commit(ctx context.Context) error {
	if err := o.log.write(); err != nil {
		return err
	}
	return o.Owner.Commit(ctx)
}
