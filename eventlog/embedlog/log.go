package embedlog

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/godagger/dagger/eventlog"
)

// DefaultMaxRecord is how many bytes of key, value and headers fit into a record.
const DefaultMaxRecord = 1 << 20

// Options of a log. The zero value is a log of application "dagger".
type Options struct {
	// App names the application; "" = dagger.
	App string
	// Partitions of the application's requests and events; 0 = as they are, and
	// eventlog.DefaultPartitions in a new directory.
	Partitions int32
	// MaxRecord is the largest record in bytes; 0 = DefaultMaxRecord.
	MaxRecord int
	// URL is what the log says of itself; "" = made from the directory and App.
	URL string
	// FS replaces the operating system's files. The directory is then not locked against
	// other processes.
	FS vfs.FS
	// Memory keeps the data of OpenMemory, so that it can be opened again after Close;
	// nil = a new one.
	Memory *Memory
	// Now is the clock that stamps records; nil = time.Now.
	Now func() time.Time
	// NewID makes the ids of new topics, no two alike; nil = at random.
	NewID func() string

	existing bool // the application's topics must be there
}

// Memory is the data of a log in memory.
type Memory struct {
	once sync.Once
	kv   *memKV
}

// Log is an eventlog.Log in a directory or in memory.
type Log struct {
	app       string
	url       string
	maxRecord int
	parts     int32
	store     kv
	lock      *dirLock
	now       func() time.Time
	newID     func() string

	events *topic

	topicsMu  sync.RWMutex
	topics    map[string]*topic
	nextTopic uint32
	creating  chan struct{} // holds one token: creating and deleting topics in turn

	commits committer
	groups  groups

	lifeMu  sync.RWMutex
	closed  bool
	calls   sync.WaitGroup // calls that use the store
	closing chan struct{}
	done    chan struct{}
	failure error // of closing
}

var _ eventlog.Log = (*Log)(nil)

// Open opens the log in a directory, which it creates. Another process that has it gets an
// error that wraps eventlog.ErrInUse and names the holder.
func Open(ctx context.Context, dir string, o Options) (*Log, error) {
	o = o.withDefaults()
	if o.URL == "" {
		o.URL = "file:" + dir + "?app=" + o.App
	}
	var lock *dirLock
	fs := o.FS
	if fs == nil {
		var err error
		if lock, err = lockDir(dir, o.URL); err != nil {
			return nil, err
		}
		fs = vfs.Default
	}
	store, err := openPebble(dir, fs)
	if err != nil {
		lock.release()
		return nil, fmt.Errorf("open log in %s: %w", dir, err)
	}
	return open(ctx, store, lock, o)
}

// OpenMemory opens a log in memory. It starts no goroutine and needs no clock to rest, so
// that it can be used in a bubble of testing/synctest.
func OpenMemory(o Options) (*Log, error) {
	o = o.withDefaults()
	if o.URL == "" {
		o.URL = "mem:?app=" + o.App
	}
	if o.Memory == nil {
		o.Memory = &Memory{}
	}
	o.Memory.once.Do(func() { o.Memory.kv = newMemKV() })
	return open(context.Background(), o.Memory.kv, nil, o)
}

func (o Options) withDefaults() Options {
	if o.App == "" {
		o.App = "dagger"
	}
	if o.MaxRecord == 0 {
		o.MaxRecord = DefaultMaxRecord
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.NewID == nil {
		o.NewID = rand.Text
	}
	return o
}

func open(ctx context.Context, store kv, lock *dirLock, o Options) (*Log, error) {
	l := &Log{
		app: o.App, url: o.URL, maxRecord: o.MaxRecord, store: store, lock: lock, now: o.Now, newID: o.NewID,
		topics: map[string]*topic{}, creating: make(chan struct{}, 1),
		closing: make(chan struct{}), done: make(chan struct{}),
	}
	l.commits.log = l
	l.groups.init(l)
	if err := l.prepare(ctx, o.Partitions, o.existing); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// prepare loads the topics and creates the application's own.
func (l *Log) prepare(ctx context.Context, partitions int32, existing bool) error {
	if err := l.load(); err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	if existing && l.topics[eventlog.EventsTopic(l.app)] == nil {
		return fmt.Errorf("%w: application %s; the log has %s", eventlog.ErrNoTopic, l.app, l.apps())
	}
	l.parts = partitions
	for _, name := range []string{eventlog.EventsTopic(l.app), eventlog.RequestsTopic(l.app)} {
		t := l.topics[name]
		if t == nil {
			continue
		}
		if n := int32(len(t.parts)); l.parts == 0 {
			l.parts = n
		} else if n != l.parts {
			return fmt.Errorf("%w: %s has %d, %d were asked for", eventlog.ErrPartitions, name, n, l.parts)
		}
	}
	if l.parts == 0 {
		l.parts = eventlog.DefaultPartitions
	}
	for _, own := range []struct {
		name       string
		partitions int32
	}{
		{eventlog.RequestsTopic(l.app), l.parts}, {eventlog.EventsTopic(l.app), l.parts},
		{eventlog.DefinitionsTopic(l.app), 1}, {eventlog.DeadLetterTopic(l.app), 1},
	} {
		if err := l.EnsureTopic(ctx, own.name, own.partitions); err != nil {
			return err
		}
	}
	l.events = l.topics[eventlog.EventsTopic(l.app)]
	return nil
}

// App is the application's name.
func (l *Log) App() string { return l.app }

// Partitions is the count of partitions of requests and events.
func (l *Log) Partitions() int32 { return l.parts }

// URL is how the log was opened.
func (l *Log) URL() string { return l.url }

// Announce says to others who want the directory where its holder can be asked, e.g. the
// address of its web pages.
func (l *Log) Announce(url string) error { return l.lock.write(url) }

// Close wakes everything that waits with eventlog.ErrClosed, waits for the calls that run,
// and gives the directory free. Twice is fine.
func (l *Log) Close() error {
	l.lifeMu.Lock()
	first := !l.closed
	l.closed = true
	l.lifeMu.Unlock()
	if !first {
		<-l.done
		return l.failure
	}
	close(l.closing)
	l.calls.Wait()
	if err := l.store.close(); err != nil {
		l.failure = fmt.Errorf("close log: %w", err)
	}
	l.lock.release()
	close(l.done)
	return l.failure
}

// enter announces a call that uses the store; leave ends it.
func (l *Log) enter() error {
	l.lifeMu.RLock()
	defer l.lifeMu.RUnlock()
	if l.closed {
		return eventlog.ErrClosed
	}
	l.calls.Add(1)
	return nil
}

func (l *Log) leave() { l.calls.Done() }
