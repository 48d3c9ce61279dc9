package embedlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/godagger/dagger/eventlog"
)

func init() {
	eventlog.RegisterChecker("file", Check)
	eventlog.RegisterChecker("mem", func(context.Context, *url.URL) ([]eventlog.Finding, error) {
		return []eventlog.Finding{{
			Level: eventlog.LevelRisk, Subject: "directory", Text: "none: the log is in memory and ends with its process", Do: "use file:DIR",
		}}, nil
	})
}

const (
	// slowSync is a sync of the disk that makes commits slow: each waits for one.
	slowSync = 5 * time.Millisecond
	// littleSpace and noSpace are free bytes on the disk.
	littleSpace, noSpace = 1 << 30, 64 << 20
	// checkedRecords of each partition, the last ones, are read.
	checkedRecords = 10_000
	checkFile      = "dagger.check"
)

// Check looks at the log in a directory: whether it can be written, how long the disk takes,
// how much room there is, and whether what was acknowledged last can be read. It writes one
// small file, which it removes. eventlog.ErrInUse: another process has the directory.
func Check(ctx context.Context, u *url.URL) (found []eventlog.Finding, err error) {
	o, err := optionsOf(u)
	if err != nil {
		return nil, err
	}
	dir, err := dirOf(u)
	if err != nil {
		return nil, err
	}
	if files, err := filepath.Glob(filepath.Join(dir, "MANIFEST-*")); err != nil || len(files) == 0 {
		return nil, errors.New("there is no log in the directory") // opening it would make one
	}
	o.existing = true
	l, err := Open(ctx, dir, o)
	add := func(level eventlog.Level, subject, text, do string) {
		found = append(found, eventlog.Finding{Level: level, Subject: subject, Text: text, Do: do})
	}
	switch {
	case errors.Is(err, eventlog.ErrInUse), ctx.Err() != nil:
		return nil, err
	case err != nil:
		do := "restore the directory from a backup"
		switch {
		case errors.Is(err, eventlog.ErrPartitions):
			do = "leave out partitions= in the URL, or name the right count"
		case errors.Is(err, eventlog.ErrNoTopic):
			do = "name the application in the URL (app=)"
		case errors.Is(err, fs.ErrPermission):
			do = "run as the user that the engine runs as, or mend the rights"
		}
		add(eventlog.LevelWrong, "log", err.Error(), do)
		l = nil
	}
	checkDisk(dir, add)
	if l == nil {
		return found, nil
	}
	err = errors.Join(l.checkTopics(ctx, add), l.Close())
	return found, err
}

// apps are the applications that have events here.
func (l *Log) apps() string {
	var names []string
	for name := range l.topics {
		if app, ok := strings.CutSuffix(name, eventlog.EventsTopic("")); ok {
			names = append(names, app)
		}
	}
	slices.Sort(names)
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// checkDisk writes a few blocks as a commit would.
func checkDisk(dir string, add func(level eventlog.Level, subject, text, do string)) {
	took, err := syncs(filepath.Join(dir, checkFile))
	median := time.Duration(0)
	if len(took) > 0 {
		median = took[len(took)/2]
	}
	text := fmt.Sprintf("a sync takes %v", median.Round(10*time.Microsecond))
	switch {
	case err != nil:
		add(eventlog.LevelWrong, "directory", "it can't be written: "+err.Error(), "mend its rights or the disk")
	case median > slowSync:
		add(eventlog.LevelSlow, "disk", text+"; every commit waits for one", "use a faster disk; a network file system is none")
	default:
		add(eventlog.LevelOK, "disk", text, "")
	}
	free, known := freeSpace(dir)
	text = fmt.Sprintf("%d MiB free", free>>20)
	switch {
	case !known:
	case free < noSpace:
		add(eventlog.LevelWrong, "space", text+": commits will fail", "make room")
	case free < littleSpace:
		add(eventlog.LevelRisk, "space", text, "make room: a log grows, and when the disk is full nothing goes on")
	default:
		add(eventlog.LevelOK, "space", text, "")
	}
}

// syncs measures writes with a sync, sorted.
func syncs(name string) (took []time.Duration, err error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(name)) }()
	block := make([]byte, 4096)
	for k := range 9 {
		start := time.Now()
		if _, err := f.WriteAt(block, int64(k*len(block))); err != nil {
			return nil, err
		}
		if err := f.Sync(); err != nil {
			return nil, err
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	return took, nil
}

// checkTopics reads the last records of every partition.
func (l *Log) checkTopics(ctx context.Context, add func(level eventlog.Level, subject, text, do string)) error {
	l.topicsMu.RLock()
	var names []string
	for name := range l.topics {
		names = append(names, name)
	}
	l.topicsMu.RUnlock()
	slices.Sort(names)
	var records, damaged int
	for _, name := range names {
		t, err := l.Topic(ctx, name)
		if err != nil {
			return err
		}
		for p, part := range t.Partitions {
			n, err := l.readTail(ctx, t, int32(p), part)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if records += n; err != nil {
				damaged++
				add(eventlog.LevelWrong, "topic "+name, fmt.Sprintf("partition %d can't be read: %v", p, err), "restore the directory from a backup")
			}
		}
	}
	if damaged == 0 {
		add(eventlog.LevelOK, "log", fmt.Sprintf("application %s, %d partitions; the last records of each can be read, %d in all (%s)", l.app, l.parts, records, strings.Join(names, ", ")), "")
	}
	return nil
}

func (l *Log) readTail(ctx context.Context, t eventlog.Topic, p int32, part eventlog.Partition) (n int, err error) {
	if part.Start == part.End {
		return 0, nil
	}
	r, err := l.Read(ctx, t.Name, p, max(part.Start, part.End-checkedRecords), t.ID, eventlog.ReadCommitted)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	for next := part.Start; next < part.End; {
		var records []eventlog.Record
		if records, next, err = r.Next(ctx); err != nil {
			return n, err
		}
		n += len(records)
	}
	return n, nil
}
