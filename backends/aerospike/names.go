package aerospike

import (
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/godagger/dagger/projection"
)

// Keys of records, all in one set; <inc> is the incarnation of a partition. A record of an
// earlier incarnation is never addressed again, so nothing depends on its removal, which a
// server with file storage undoes when it is restarted.
//
//	store                identity: whose store this is
//	<p>/w                the mark of a partition: epoch, incarnation, watermark, directory, redo
//	<p>/s                the mark of a partition that is being built beside the one in use
//	<p>/<inc>/p/<id>     a page: a map of entries, keys in order, of one kind
//	<p>/<inc>/r/<key>    a record row: an instance, or that it was deleted
//	<p>/<inc>/b/<id>/<k> piece k of a blob, which never changes: directories, redos, long values

const identityKey = "store"

func liveKey(partition int32) string   { return strconv.Itoa(int(partition)) + "/w" }
func stagedKey(partition int32) string { return strconv.Itoa(int(partition)) + "/s" }

// space is where the records of an incarnation are.
type space struct {
	partition int32
	inc       int64
}

func (s space) page(id int64) string  { return string(s.name('p', id)) }
func (s space) row(key string) string { return string(append(s.base('r'), key...)) }
func (s space) piece(id int64, k int) string {
	return string(strconv.AppendInt(append(s.name('b', id), '/'), int64(k), 10))
}

func (s space) base(sort byte) []byte {
	b := strconv.AppendInt(make([]byte, 0, 80), int64(s.partition), 10)
	b = strconv.AppendInt(append(b, '/'), s.inc, 10)
	return append(b, '/', sort, '/')
}

func (s space) name(sort byte, id int64) []byte { return strconv.AppendInt(s.base(sort), id, 10) }

// bins are the bins that all records of the incarnation have, and others.
func (s space) bins(more ...bin) []bin {
	return append([]bin{{binPartition, int64(s.partition)}, {binIncarnation, s.inc}}, more...)
}

// newToken is a number that nobody else draws.
func newToken() int64 { return rand.Int64N(1<<62) + 1 }

// newIncarnation is a number that nobody else draws and that is above an older one.
func newIncarnation(above int64) int64 {
	return max(time.Now().UnixMilli()<<20|rand.Int64N(1<<20), above+1)
}

// isRecord says that the rows of a kind are records of their own; a page holds only their keys.
func isRecord(kind projection.Kind) bool { return kind == projection.KindInstance }
