package aerospike

import (
	"context"
	"errors"
	"fmt"

	"github.com/godagger/dagger/projection"
)

// mark is the one record that says what a partition is: everything else is found from it, and
// a partition changes when it does. Whoever changes it draws a new token, on the condition that
// the token is the one he read; so nobody takes another one's change for his own, whatever a
// server that was restarted goes back to.
type mark struct {
	token     int64
	inc       int64
	at        projection.Watermark
	cluster   string // how the cluster was called before the incarnation's first write
	directory blob
	redo      blob   // what the last batch changes: its pages and rows may not have it yet
	lost      string // why the partition must be rebuilt
	sealed    bool   // of a staged one: on its way to the place of the partition
}

func (m *mark) bins() []bin {
	sealed := int64(0)
	if m.sealed {
		sealed = 1
	}
	return []bin{
		{binToken, m.token}, {binIncarnation, m.inc}, {"epoch", int64(m.at.Epoch)}, {binN, int64(m.at.N)},
		{"offset", m.at.Offset}, {"sum", int64(m.at.Sum)}, {"log", m.at.LogID}, {"cluster", m.cluster},
		{"dir", m.directory.id}, {"dirsize", int64(m.directory.size)}, {"redo", m.redo.id}, {"redosize", int64(m.redo.size)},
		{"lost", m.lost}, {"sealed", sealed},
	}
}

func markOf(r *record) *mark {
	return &mark{
		token: r.int(binToken), inc: r.int(binIncarnation), cluster: r.text("cluster"),
		at: projection.Watermark{
			N: uint64(r.int(binN)), Epoch: uint64(r.int("epoch")), Offset: r.int("offset"), LogID: r.text("log"), Sum: uint64(r.int("sum")),
		},
		directory: blob{r.int("dir"), int(r.int("dirsize"))}, redo: blob{r.int("redo"), int(r.int("redosize"))},
		lost: r.text("lost"), sealed: r.int("sealed") != 0,
	}
}

var markBins = func() (names []string) {
	for _, b := range (&mark{}).bins() {
		names = append(names, b.name)
	}
	return names
}()

// readMark reads a mark; nil when there is none.
func (s *Store) readMark(ctx context.Context, key string) (*mark, error) {
	r, err := s.readOne(ctx, read{key: key, bins: markBins})
	if err != nil || r == nil {
		return nil, err
	}
	return markOf(r), nil
}

// errMoved: somebody else changed the mark.
var errMoved = errors.New("aerospike: the partition has moved on")

// changeMark puts a mark in the place of the one with a token (0: of none). errMoved: it isn't
// there any more. A change whose reply was lost is repeated and then refused by its own token, so
// a refusal is believed only when somebody else's token is there.
func (s *Store) changeMark(ctx context.Context, key string, token int64, next *mark) error {
	c := change{key: key, mode: update, token: token, put: next.bins()}
	if token == 0 {
		c.mode = create
	}
	got, err := s.changeOne(ctx, c)
	if err != nil || got.code == codeOK {
		return err
	}
	have, err := s.readMark(ctx, key)
	switch {
	case err != nil:
		return err
	case have != nil && have.token == next.token:
		return nil
	}
	return errMoved
}

// retoken is a copy of a mark with a new token.
func (m *mark) retoken() *mark {
	next := *m
	next.token = newToken()
	return &next
}

// fresh is the mark of a new, empty incarnation above an older one. It keeps the epoch.
func (s *Store) fresh(ctx context.Context, epoch uint64, above int64) (*mark, error) {
	cluster, err := s.clusterName(ctx)
	if err != nil {
		return nil, err
	}
	return &mark{token: newToken(), inc: newIncarnation(above), at: projection.Watermark{Epoch: epoch}, cluster: cluster}, nil
}

// clusterName is server.cluster, asked again while the cluster changes.
func (s *Store) clusterName(ctx context.Context) (name string, err error) {
	err = s.again(ctx, func() error {
		name, err = s.server.cluster(ctx)
		return err
	})
	return name, err
}

// whole says why the rows of a mark can't be trusted: it was said before, or a node was started
// since, which may have forgotten its last writes and remembered removed records, or was away.
func (m *mark) whole(cluster string) error {
	switch {
	case m.lost != "":
		return fmt.Errorf("%w: %s", projection.ErrStateLost, m.lost)
	case m.cluster != cluster:
		return fmt.Errorf("%w: since the partition was built a node of the cluster was started, has left or has come", projection.ErrStateLost)
	}
	return nil
}
