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
	if !o.NoCheck {
		if err := s.check(ctx); err != nil {
			return err
		}
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

// Acquire implements projection.Store. It looks whether all pages of the partition are there.
func (s *Store) Acquire(ctx context.Context, partition int32, epoch uint64) (projection.Partition, error) {
	err := s.begin(ctx, partition)
	if err == nil {
		err = s.identify(ctx) // the server may have lost all it had since the store was opened
	}
	p := s.part(partition, liveKey(partition))
	if err == nil {
		err = p.acquire(ctx, epoch)
	}
	if err != nil {
		return nil, fmt.Errorf("acquire partition %d: %w", partition, err)
	}
	return &handle{p: p}, nil
}

func (p *part) acquire(ctx context.Context, epoch uint64) error {
	for {
		m, err := p.s.readMark(ctx, p.key)
		if err != nil {
			return err
		}
		token := int64(0)
		switch {
		case m == nil:
			if m, err = p.s.fresh(ctx, epoch, 0); err != nil {
				return err
			}
		case epoch < m.at.Epoch:
			return fmt.Errorf("%w: epoch %d, the partition has %d", projection.ErrFenced, epoch, m.at.Epoch)
		case epoch == m.at.Epoch:
			return p.inspect(ctx)
		default:
			token = m.token
			m = m.retoken()
			m.at.Epoch = epoch
		}
		if err := p.s.changeMark(ctx, p.key, token, m); !errors.Is(err, errMoved) {
			if err != nil {
				return err
			}
			return p.inspect(ctx)
		}
	}
}

// inspect looks whether the pages of a partition are there.
func (p *part) inspect(ctx context.Context) error {
	if _, err := p.load(ctx); err != nil {
		return err
	}
	_, err := p.view(ctx, func(st *state) error {
		at := p.space(st)
		var reads []read
		for _, pages := range st.directory.kinds {
			for _, x := range pages {
				if c := st.change(x.id); c == nil || !c.new {
					reads = append(reads, read{key: at.page(x.id)})
				}
			}
		}
		records, err := p.s.readAll(ctx, reads, maxCall)
		if err != nil {
			return err
		}
		for i, r := range records {
			if r == nil {
				return fmt.Errorf("%w: %s", errMissing, reads[i].key)
			}
		}
		return nil
	})
	return err
}

// View implements projection.Store.
func (s *Store) View(ctx context.Context, partition int32) (projection.View, error) {
	if err := s.begin(ctx, partition); err != nil {
		return nil, fmt.Errorf("view partition %d: %w", partition, err)
	}
	return &handle{p: s.part(partition, liveKey(partition))}, nil
}

// Drop implements projection.Store: the partition gets a new incarnation, in which there is
// nothing. Removing what the old ones had only frees space.
func (s *Store) Drop(ctx context.Context, partition int32, epoch uint64) error {
	err := s.begin(ctx, partition)
	if err == nil {
		err = s.drop(ctx, partition, epoch)
	}
	if err != nil {
		return fmt.Errorf("drop partition %d: %w", partition, err)
	}
	return nil
}

func (s *Store) drop(ctx context.Context, partition int32, epoch uint64) error {
	key := liveKey(partition)
	for {
		m, err := s.readMark(ctx, key)
		if err != nil || m == nil {
			return err
		}
		if epoch < m.at.Epoch {
			return fmt.Errorf("%w: epoch %d, the partition has %d", projection.ErrFenced, epoch, m.at.Epoch)
		}
		next, err := s.fresh(ctx, m.at.Epoch, m.inc)
		if err != nil {
			return err
		}
		if err = s.changeMark(ctx, key, m.token, next); err == nil {
			s.sweep(ctx, partition, next.inc)
		}
		if !errors.Is(err, errMoved) {
			return err
		}
	}
}

// sweep has removed what earlier incarnations of a partition left. It is only about space, so
// its failure is none.
func (s *Store) sweep(ctx context.Context, partition int32, below int64) {
	staged, err := s.readMark(ctx, stagedKey(partition))
	if err != nil {
		return
	}
	except := int64(0)
	if staged != nil {
		except = staged.inc
	}
	_ = s.server.sweep(ctx, partition, below, except)
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
