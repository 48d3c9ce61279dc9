package aerospike

import (
	"context"
	"errors"
	"fmt"
)

// server is all that the store asks of Aerospike. Each record is read and changed as a whole;
// nothing holds two of them together.
type server interface {
	// read reads records; nil where there is none. They are not of one moment.
	read(ctx context.Context, reads []read) ([]*record, error)
	// change changes records, in no order; none is named twice. There is one result for each. An
	// error says why results are in doubt.
	change(ctx context.Context, changes []change) ([]result, error)
	// cluster is how all nodes name the state that the cluster is in. The name is never used
	// again after a node was started, has left or has come.
	cluster(ctx context.Context) (string, error)
	// sweep has the records of a partition removed whose incarnation is below one, but for
	// another. It doesn't wait for it.
	sweep(ctx context.Context, partition int32, below, except int64) error
	// settings are those of the namespace on each node, and its server's version.
	settings(ctx context.Context) ([]settings, error)
	// close waits for the calls that run.
	close() error
}

// Bins of records. Every record but the identity has its partition and its incarnation, by
// which it is swept.
const (
	binPartition   = "p"
	binIncarnation = "i"
	binN           = "n" // number of the event with which it was written last
	binValue       = "v" // of a row, or a piece of a blob
	binBlob        = "b" // of a row: the blob that its value is in, or was
	binEntries     = "m" // a map in the order of its keys: those of a page
	binToken       = "token"
)

// entry is a row in a page: its key, and its value as it is stored.
type entry struct {
	key   string
	value []byte
}

// bin is a part of a record: an int64, a string or bytes.
type bin struct {
	name  string
	value any
}

// read names a record and what is wanted of it: bins; or else the entries from one key to
// another one, or those with given keys; or only that it is there.
type read struct {
	key  string
	bins []string
	span *span
	keys []string
}

// span is the keys from <= key < to. A nil to is open.
type span struct {
	from string
	to   *string
}

func (s *span) has(key string) bool { return key >= s.from && (s.to == nil || key < *s.to) }

// record is what was read: bins, and entries in the order of their keys.
type record struct {
	bins    map[string]any
	entries []entry
}

func (r *record) int(name string) int64    { n, _ := r.bins[name].(int64); return n }
func (r *record) text(name string) string  { s, _ := r.bins[name].(string); return s }
func (r *record) bytes(name string) []byte { b, _ := r.bins[name].([]byte); return b }

// mode says what a change does to a record that is there or isn't.
type mode int

const (
	upsert mode = iota
	create      // only when it isn't there
	update      // only when it is there
	remove
)

// change is one atomic change of a record, in the order of its fields. Its conditions hold only
// for a record that is there: one that isn't, a server creates without looking at them.
type change struct {
	key   string
	mode  mode
	older int64 // condition: bin n is less; 0 = none
	token int64 // condition: bin token is this; 0 = none

	put []bin
	del []string // remove entries
	cut *string  // remove the entries from this key on
	add []entry  // put entries

	wantOld  bool // return the entries that del and add take away
	wantBlob bool // return bin b as it was
}

// code is a result code of a server.
type code int

const (
	codeOK          code = 0
	codeNotFound    code = 2
	codeExists      code = 5
	codeFull        code = 8
	codeTimeout     code = 9
	codeUnavailable code = 11
	codeTooBig      code = 13
	codeBusy        code = 14
	codeOverload    code = 18
	codeFiltered    code = 27
	codeNoResponse  code = -19
)

// inDoubt says that a change with this code may have been made, or may still be. The flags
// that a client gives for it are often wrong.
func (c code) inDoubt() bool { return c < 0 || c == codeTimeout }

// passes says that a change with this code was not made, and may be with the next try.
func (c code) passes() bool { return c == codeBusy || c == codeOverload || c == codeUnavailable }

// result is what became of a change.
type result struct {
	code code
	size int     // of a page with entries, afterwards
	old  []entry // what wantOld asked for
	blob []byte  // what wantBlob asked for
}

// errCode is an answer of a server that no repetition changes.
type errCode struct {
	code code
	what string
}

func (e *errCode) Error() string {
	s := fmt.Sprintf("aerospike: the server says %d to a change of %s", e.code, e.what)
	switch e.code {
	case codeFull:
		s += ": the namespace takes no writes (stop-writes); it needs space"
	case codeTooBig:
		s += ": the record exceeds max-record-size, which is less than when the store was opened"
	case codeBusy, codeOverload:
		s += ": it is overloaded"
	case codeUnavailable:
		s += ": the cluster is not whole"
	}
	return s
}

// errPasses marks what a later call may not meet again: the way to the server, or a cluster that
// changes.
var errPasses = errors.New("aerospike: no answer that can be used")
