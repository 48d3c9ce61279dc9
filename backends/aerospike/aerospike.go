// Package aerospike keeps a store in an Aerospike cluster. Its URL:
//
//	aerospike://user:password@host:3000,host2:3000/namespace?set=dagger
//
// Parameters:
//
//	set=dagger           the set of all records; one application for each
//	timeout=5s           of connecting, and of one call
//	tls=on, tls_name=NAME, ca=, cert=, key=   TLS, and the files (PEM) for it
//	password_file=       the password, where the URL should not have it
//	auth=external        the password is that of an external system, not the server's own
//	check=off            open a namespace that doesn't tell its settings, or has dangerous ones
//
// TLS, users and passwords are things of the Enterprise Edition, and untested.
//
// A server changes one record in a step, and no two. So a batch is first written down, then made
// valid by the change of one record, then made: see handle.Apply. The store depends on no removal,
// for a server with file storage brings removed records back when it is started: what was
// removed or dropped is never addressed again.
package aerospike

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godagger/dagger/projection"
)

// Options say how to reach the cluster. Addrs and Namespace are needed.
type Options struct {
	Addrs     []string // host:port of some nodes
	Namespace string
	Set       string // of all records; "" = dagger
	Username  string
	Password  string
	External  bool // the password is an external system's

	TLS     *tls.Config   // nil = no TLS
	TLSName string        // what the certificates call the nodes
	Timeout time.Duration // of connecting and of a call; 0 = 5 s
	NoCheck bool          // take the namespace as it is set

	seedOnly  bool          // talk to Addrs alone
	firstWait time.Duration // between two tries; 0 = the default
}

const (
	defaultSet     = "dagger"
	defaultTimeout = 5 * time.Second
	// defaultRecordSize is how large a server's records may be, where it isn't told.
	defaultRecordSize = 1 << 20
	// minRecordSize is what pages and marks need.
	minRecordSize = 128 << 10

	// format is the version of keys and values.
	format = 1
)

// Store is a projection.Store in Aerospike.
type Store struct {
	url        string
	id         projection.Identity
	server     server
	recordSize int           // the namespace's max-record-size
	pieceSize  int           // of blobs
	firstWait  time.Duration // between two tries
	closed     atomic.Bool

	mu     sync.Mutex
	parts  map[string]*part
	staged map[int32]bool // being built by this process
}

// Open connects to the cluster, refuses a namespace whose settings lose rows, and opens or
// creates the store for the application of id. ErrForeign: it is another application's. It waits
// for a server that is being started for as long as Options.Timeout.
func Open(ctx context.Context, o Options, id projection.Identity) (*Store, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	c, err := connect(ctx, o)
	if err != nil {
		return nil, err
	}
	return open(ctx, o, id, c)
}

// open opens a store on a server, which it closes when it fails.
func open(ctx context.Context, o Options, id projection.Identity, on server) (*Store, error) {
	s := &Store{
		url: o.url(), id: id, server: on, recordSize: defaultRecordSize, firstWait: firstWait,
		parts: map[string]*part{}, staged: map[int32]bool{},
	}
	err := s.begun(ctx, o)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) begun(ctx context.Context, o Options) error {
	if s.id.App == "" || s.id.Partitions < 1 {
		return errors.New("aerospike: the application's name and its number of partitions are needed")
	}
	if o.firstWait > 0 {
		s.firstWait = o.firstWait
	}
	if err := s.check(ctx, !o.NoCheck); err != nil {
		return err
	}
	s.pieceSize = s.recordSize - s.recordSize/32 // the rest is for what a record has beside it
	return s.identify(ctx)
}

// maxKey is how long the key of a row may be: a page of two, and their separator, fit a record.
func (s *Store) maxKey() int { return s.recordSize / 8 }

// identify compares whose store this is with the caller's identity; in an empty one, it writes
// it.
func (s *Store) identify(ctx context.Context) error {
	own := change{key: identityKey, mode: create, put: []bin{
		{"app", s.id.App}, {"partitions", int64(s.id.Partitions)}, {"format", int64(format)},
		{"about", "Everything in this set is derived from the log: with all workers stopped it may be truncated, and is then rebuilt."},
	}}
	if _, err := s.changeOne(ctx, own); err != nil {
		return fmt.Errorf("write whose store this is: %w", err)
	}
	r, err := s.readOne(ctx, read{key: identityKey, bins: []string{"app", "partitions", "format"}})
	switch {
	case err != nil:
		return fmt.Errorf("read whose store this is: %w", err)
	case r == nil:
		return errors.New("aerospike: the server forgets what it was told just now")
	case r.int("format") != format:
		return fmt.Errorf("%w: its format is %d, this version knows %d", projection.ErrForeign, r.int("format"), format)
	case r.text("app") != s.id.App:
		return fmt.Errorf("%w: it says %q, this is %q; give each its own set", projection.ErrForeign, r.text("app"), s.id.App)
	case r.int("partitions") != int64(s.id.Partitions):
		return fmt.Errorf("%w: it says %d partitions, this application has %d", projection.ErrForeign, r.int("partitions"), s.id.Partitions)
	}
	return nil
}

// URL returns the URL of the cluster, without secrets.
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

// part is what is known of a partition by the key of its mark.
func (s *Store) part(partition int32, key string) *part {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.parts[key]
	if p == nil {
		p = &part{s: s, n: partition, key: key}
		s.parts[key] = p
	}
	return p
}

// View implements projection.Store.
func (s *Store) View(ctx context.Context, partition int32) (projection.View, error) {
	if err := s.begin(ctx, partition); err != nil {
		return nil, fmt.Errorf("view partition %d: %w", partition, err)
	}
	return &handle{p: s.part(partition, liveKey(partition))}, nil
}

// Partitions implements projection.Store.
func (s *Store) Partitions(ctx context.Context) ([]int32, error) {
	err := s.begin(ctx, 0)
	var records []*record
	if err == nil {
		reads := make([]read, s.id.Partitions)
		for n := range reads {
			reads[n] = read{key: liveKey(int32(n)), bins: []string{binN, "lost"}}
		}
		records, err = s.readAll(ctx, reads, maxCall)
	}
	if err != nil {
		return nil, fmt.Errorf("list partitions: %w", err)
	}
	var list []int32
	for n, r := range records {
		if r != nil && (r.int(binN) != 0 || r.text("lost") != "") {
			list = append(list, int32(n))
		}
	}
	return list, nil
}

// Close implements projection.Store. Twice is fine.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	if err := s.server.close(); err != nil {
		return fmt.Errorf("close %s: %w", s.url, err)
	}
	return nil
}
