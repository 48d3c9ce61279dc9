// Package redis keeps a store in a Redis server, or in a cluster of them. Its URLs:
//
//	redis://user:password@host:6379/0
//	redis+sentinel://user:password@sentinel1:26379,sentinel2:26379/0?master=NAME
//	redis+cluster://user:password@host1:6379,host2:6379
//
// and the same with rediss for TLS. User and password are always those of the servers that
// hold the data. Parameters:
//
//	prefix=dagger        what the names of all keys begin with; one store for each prefix
//	buckets=16           over how many hashes a partition's instances are spread; kept for ever
//	timeout=10s          of connecting, and of one call
//	addr=host:port       one more server, of a cluster or of Sentinels; may be repeated
//	master=NAME          what the Sentinels call the server
//	ca=, cert=, key=     files (PEM) for TLS
//	password_file=       the password, where the URL should not have it
//	sentinel_user=, sentinel_password_file=   the login of the Sentinels themselves
//	check=off            open a server that doesn't tell its settings (INFO is forbidden)
//
// A partition is changed by one script, which compares and applies; nothing but the server's
// memory holds it, so what survives a crash of the server is up to the server's persistence,
// and the rest is folded again from the log.
package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	client "github.com/redis/go-redis/v9"

	"github.com/godagger/dagger/projection"
)

// Mode says what the addresses are.
type Mode int

const (
	Single   Mode = iota // one server
	Sentinel             // Sentinels that know the server
	Cluster              // some nodes of a cluster
)

// Options say how to reach the server. Only Addrs is needed.
type Options struct {
	Mode     Mode
	Addrs    []string // host:port
	Username string
	Password string
	DB       int    // not in a cluster
	Master   string // the Sentinels' name of the server

	SentinelUsername string
	SentinelPassword string

	TLS     *tls.Config   // nil = no TLS
	Prefix  string        // of all keys; "" = dagger
	Buckets int           // hashes of a partition's instances, at most 256; 0 = what is recorded, else 16
	Timeout time.Duration // of connecting and of a call; 0 = 10 s
	NoCheck bool          // don't ask the server for its settings
}

const (
	defaultPrefix  = "dagger"
	defaultBuckets = 16
	maxBuckets     = 256
	defaultTimeout = 10 * time.Second

	// format is the version of keys and values.
	format = "1"
)

// Store is a projection.Store in Redis.
type Store struct {
	url     string
	id      projection.Identity
	client  client.UniversalClient
	names   names
	buckets int
	gens    []generation // of the partitions, as they were met last
	closed  atomic.Bool

	mu     sync.Mutex
	staged map[int32]bool   // partitions that are built here
	sweeps map[int32]string // generations that are removed here, by partition; "": one is at work
	ends   sync.WaitGroup   // of sweeps
}

// Open connects to the server, refuses one whose settings lose rows, and opens or creates the
// store for the application of id. ErrForeign: it is another application's.
func Open(ctx context.Context, o Options, id projection.Identity) (*Store, error) {
	if id.App == "" || id.Partitions < 1 {
		return nil, errors.New("redis: the application's name and its number of partitions are needed")
	}
	if o.Prefix == "" {
		o.Prefix = defaultPrefix
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	if err := o.validate(); err != nil {
		return nil, err
	}
	s := &Store{url: o.url(), id: id, client: o.connect(), names: newNames(o.Prefix, id.App),
		gens: make([]generation, id.Partitions), staged: map[int32]bool{}, sweeps: map[int32]string{}}
	if err := s.open(ctx, o); err != nil {
		return nil, errors.Join(o.loginHint(err), s.Close())
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, o Options) error {
	if !o.NoCheck {
		if err := s.check(ctx, o.Mode); err != nil {
			return err
		}
	}
	if err := s.probe(ctx); err != nil {
		return err
	}
	buckets, err := s.identify(ctx, o.Buckets)
	s.buckets = buckets
	return err
}

// identify compares whose store this is with the caller's identity, and returns the number of
// buckets that is recorded. wanted is the one that it must be; 0 = any.
func (s *Store) identify(ctx context.Context, wanted int) (int, error) {
	buckets := wanted
	if buckets == 0 {
		buckets = defaultBuckets
	}
	reply, err := s.run(ctx, identityScript, []string{s.names.identity}, s.id.App, int(s.id.Partitions), format, buckets)
	if err != nil {
		return 0, fmt.Errorf("read whose store this is: %w", err)
	}
	app, partitions, version := text(reply[0]), text(reply[1]), text(reply[2])
	switch {
	case version != format:
		return 0, fmt.Errorf("%w: %s has format %q, this version knows %s", projection.ErrForeign, s.names.identity, version, format)
	case app != s.id.App:
		return 0, fmt.Errorf("%w: %s says %q, this is %q; give each its own prefix or database", projection.ErrForeign, s.names.identity, app, s.id.App)
	case partitions != strconv.Itoa(int(s.id.Partitions)):
		return 0, fmt.Errorf("%w: %s says %s partitions, this application has %d", projection.ErrForeign, s.names.identity, partitions, s.id.Partitions)
	}
	n, err := strconv.Atoi(text(reply[3]))
	if err != nil || n < 1 || n > maxBuckets {
		return 0, fmt.Errorf("%w: %s says %q buckets", projection.ErrForeign, s.names.identity, text(reply[3]))
	}
	if wanted != 0 && n != wanted {
		return 0, fmt.Errorf("redis: the store was made with buckets=%d, not %d; to change it, delete its keys and let it be rebuilt", n, wanted)
	}
	return n, nil
}

// URL returns the URL of the servers, without secrets.
func (s *Store) URL() string { return s.url }

// begin refuses what can't be done at all.
func (s *Store) begin(ctx context.Context, partition int32) error {
	if s.closed.Load() {
		return projection.ErrClosed
	}
	if partition < 0 || partition >= s.id.Partitions {
		return fmt.Errorf("the store has partitions 0 to %d", s.id.Partitions-1)
	}
	return ctx.Err()
}

// Acquire implements projection.Store. It looks whether all of the partition is there.
func (s *Store) Acquire(ctx context.Context, partition int32, epoch uint64) (projection.Partition, error) {
	h, err := s.acquire(ctx, partition, epoch)
	if err != nil {
		return nil, fmt.Errorf("acquire partition %d: %w", partition, err)
	}
	return h, nil
}

func (s *Store) acquire(ctx context.Context, partition int32, epoch uint64) (*handle, error) {
	if err := s.begin(ctx, partition); err != nil {
		return nil, err
	}
	// The server may have lost all it had since the store was opened.
	if _, err := s.identify(ctx, s.buckets); err != nil {
		return nil, err
	}
	h := s.handle(partition)
	old, err := h.claim(ctx, epoch)
	if err != nil {
		return nil, err
	}
	s.sweep(ctx, partition, old)
	return h, nil
}

// handle makes one of the partition itself.
func (s *Store) handle(partition int32) *handle {
	return &handle{s: s, partition: partition, gen: &s.gens[partition]}
}

// View implements projection.Store.
func (s *Store) View(ctx context.Context, partition int32) (projection.View, error) {
	if err := s.begin(ctx, partition); err != nil {
		return nil, fmt.Errorf("view partition %d: %w", partition, err)
	}
	return s.handle(partition), nil
}

// Drop implements projection.Store.
func (s *Store) Drop(ctx context.Context, partition int32, epoch uint64) error {
	err := s.begin(ctx, partition)
	if err == nil {
		err = s.handle(partition).drop(ctx, epoch)
	}
	if err != nil {
		return fmt.Errorf("drop partition %d: %w", partition, err)
	}
	return nil
}

// Partitions implements projection.Store.
func (s *Store) Partitions(ctx context.Context) ([]int32, error) {
	if err := s.begin(ctx, 0); err != nil {
		return nil, fmt.Errorf("list partitions: %w", err)
	}
	var replies []*client.SliceCmd
	err := s.again(ctx, func() error {
		replies = replies[:0]
		_, err := s.client.Pipelined(ctx, func(p client.Pipeliner) error {
			for n := range s.id.Partitions {
				replies = append(replies, p.HMGet(ctx, s.names.watermark(n), "n", "lost"))
			}
			return nil
		})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list partitions: %w", err)
	}
	var list []int32
	for n, r := range replies {
		if v := r.Val(); len(v) == 2 && (v[0] != nil || v[1] != nil) {
			list = append(list, int32(n))
		}
	}
	return list, nil
}

// Close implements projection.Store. Twice is fine.
func (s *Store) Close() error {
	s.mu.Lock()
	closed := s.closed.Swap(true)
	s.mu.Unlock()
	if closed {
		return nil
	}
	err := s.client.Close()
	s.ends.Wait() // what it was at ends with the client; the next Acquire goes on with it
	if err != nil {
		return fmt.Errorf("close %s: %w", s.url, err)
	}
	return nil
}
