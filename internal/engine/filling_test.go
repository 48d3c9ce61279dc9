package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/godagger/dagger/eventlog"
	"github.com/godagger/dagger/internal/audit"
)

// TestFillCutOffAnywhere cuts a copy and an import off at each of their writes, some of which
// are done in part or without an answer: no engine starts on what is left, and the same one
// again makes the log that one without a cut makes.
func TestFillCutOffAnywhere(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	atRest := func() (eventlog.Log, []byte) {
		log := newMemLog(t, "first", 4)
		ordersDone(t, log, memStore(t))
		for {
			var file bytes.Buffer
			if _, err := Export(ctx, log, &file, ExportOptions{AtRest: true}); err != nil {
				t.Fatal(err)
			}
			x, err := readExport(ctx, bytes.NewReader(file.Bytes()))
			if err != nil {
				t.Fatal(err)
			}
			if x.atRest() == nil {
				return log, file.Bytes()
			}
			_, stop := runEngine(t, log, memStore(t), runOrders(t))
			settledLog(ctx, t, log)
			stop()
		}
	}
	from, file := atRest()
	for k := range 10 { // that no relay has read
		say(t, from, fmt.Sprintf("o-%d", k), "late")
	}
	for k := range 6 {
		value, err := eventlog.AppendRequest(nil, &eventlog.Request{V: 1, Type: eventlog.StopInstance, ID: fmt.Sprintf("i-%02d", k), Request: fmt.Sprint("r-", k), Made: 1})
		if err != nil {
			t.Fatal(err)
		}
		if err := from.Publish(ctx, eventlog.Record{Topic: eventlog.RequestsTopic(from.App()), Partition: int32(k) % 4, Value: value},
			eventlog.Record{Topic: eventlog.DeadLetterTopic(from.App()), Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	other, otherFile := atRest()
	later := int64(0)
	for name, into := range map[string]func(to eventlog.Log, from eventlog.Log) error{
		"copy": func(to, from eventlog.Log) error {
			_, err := CopyLog(ctx, from, to, CopyOptions{})
			return err
		},
		"import": func(to, from eventlog.Log) error {
			r := bytes.NewReader(file)
			if from == other {
				r = bytes.NewReader(otherFile)
			}
			later++ // each attempt has its own time; that of the first one counts
			_, err := Import(ctx, to, r, ImportOptions{Now: 1<<42 + later})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			later = 0
			whole := newMemLog(t, "to", 4)
			if err := into(whole, from); err != nil {
				t.Fatal(err)
			}
			want := allRecords(ctx, t, whole, "status")
			for writes := 0; ; writes++ {
				later = 0
				to := newMemLog(t, "to", 4)
				err := into(&cutLog{Log: to, left: writes}, from)
				if err == nil {
					if writes < 5 {
						t.Errorf("it was whole after %d writes", writes)
					}
					return
				}
				if !errors.Is(err, errCut) {
					t.Fatal(err)
				}
				if writes == 0 { // nothing was recorded
					later = 0
				} else {
					if _, err := New(ctx, Config{Log: to, Store: memStore(t), Logger: slog.New(slog.DiscardHandler)}); !errors.Is(err, ErrUnfinished) {
						t.Errorf("cut off after %d writes: an engine says %v", writes, err)
					}
					if _, err := CopyLog(ctx, to, newMemLog(t, "other", 4), CopyOptions{}); !errors.Is(err, ErrUnfinished) {
						t.Errorf("cut off after %d writes, and copied: %v", writes, err)
					}
					if err := into(to, other); !errors.Is(err, ErrNotEmpty) {
						t.Errorf("cut off after %d writes, and filled with something else: %v", writes, err)
					}
				}
				for more := 1; writes > 0; more += 2 { // cut off a few times more
					if err = into(&cutLog{Log: to, left: more}, from); !errors.Is(err, errCut) {
						break
					}
				}
				if writes == 0 {
					err = into(to, from)
				}
				if err != nil {
					t.Fatalf("cut off after %d writes, and again: %v", writes, err)
				}
				if diff := cmp.Diff(want, allRecords(ctx, t, to, "status")); diff != "" {
					t.Fatalf("cut off after %d writes it is another log (-whole +cut):\n%.3000s", writes, diff)
				}
				if r, err := audit.Log(ctx, to, audit.Options{}); err != nil || r.Violations > 0 {
					t.Errorf("cut off after %d writes: %+v, %v", writes, r, err)
				}
				if err := into(to, from); !errors.Is(err, ErrNotEmpty) {
					t.Errorf("a second time: %v", err)
				}
			}
		})
	}
}

// allRecords are those of the application's topics and of others, without times; barriers are
// left out, and so is when a topic was made.
func allRecords(ctx context.Context, t *testing.T, log eventlog.Log, topics ...string) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for _, name := range append(own(log), topics...) {
		topic, err := log.Topic(ctx, name)
		if errors.Is(err, eventlog.ErrNoTopic) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for p, x := range topic.Partitions {
			r, err := log.Read(ctx, name, int32(p), x.Start, topic.ID, eventlog.ReadCommitted)
			if err != nil {
				t.Fatal(err)
			}
			for at := x.Start; at < x.End; {
				records, next, err := r.Next(ctx)
				if err != nil {
					t.Fatal(err)
				}
				for _, rec := range records {
					if !eventlog.IsBarrier(rec.Value) {
						all[fmt.Sprint(name, "/", p)] = append(all[fmt.Sprint(name, "/", p)], withoutTopicIDs(string(rec.Key)+" "+string(rec.Value)))
					}
				}
				at = next
			}
			r.Close()
		}
	}
	return all
}

var topicID = regexp.MustCompile(`"topicId":"[^"]*"`)

// withoutTopicIDs leaves out what no two logs share.
func withoutTopicIDs(s string) string { return topicID.ReplaceAllString(s, `"topicId":"-"`) }

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
		if some := records[:len(records)/2]; len(some) > 0 { // any prefix may have been written
			err = errors.Join(err, l.Log.Publish(ctx, some...))
		}
		return err
	}
	return l.Log.Publish(ctx, records...)
}

func (l *cutLog) Own(ctx context.Context, partition int32) (eventlog.Owner, error) {
	o, err := l.Log.Own(ctx, partition)
	return cutOwner{o, l, partition}, err
}

type cutOwner struct {
	eventlog.Owner
	log       *cutLog
	partition int32
}

func (o cutOwner) Commit(ctx context.Context) error {
	if err := o.log.write(); err != nil {
		if o.partition%2 == 0 { // the answer is what got lost
			err = errors.Join(err, o.Owner.Commit(ctx))
		}
		return err
	}
	return o.Owner.Commit(ctx)
}
